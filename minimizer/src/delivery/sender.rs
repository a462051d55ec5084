//! A sender: the thread that brings the batches of a queue to its sink, again and again until they are taken.

use std::convert::Infallible;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{fmt, io};

use minimizer_common::generation::Counts;
use tracing::{info, warn};

use crate::delivery::accounting::Accounting;
use crate::delivery::batch::{Batch, Offered};
use crate::delivery::ending::Ending;
use crate::delivery::loss::Loss;
use crate::delivery::queue::{Next, Queue};
use crate::delivery::sink::{CHUNK_RECORDS_MAX, Heading, Sink, SinkError, Taken};
use crate::delivery::tally::{Portion, Tally};
use crate::delivery::units::{Adding, Unit, Units};
use crate::records::record::Record;
use crate::support::backoff::Backoff;
use crate::support::panics;

/// Pause after a first failure.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// Brings batches to a sink.
pub struct Sender {
    name: String,
    accounting: Accounting,
    queue: Arc<Queue>,
    sink: Box<dyn Sink>,
    ending: Ending,
    /// Records whose unit has not ended.
    units: Units,
    /// Buffers of the latest records: with exact values, and as the recipient gets them.
    exact: Vec<Record>,
    chunk: Vec<Record>,
    backoff: Backoff,
    /// Tells others that the account has changed.
    changed: Box<dyn Fn() + Send>,
}

/// Where a sender is in a batch.
struct BatchProgress<'batch> {
    heading: Heading<'batch>,
    offered: Offered<'batch>,
    /// The first record that the sink has not taken. The one that stands for what was held back comes last.
    next: usize,
    /// The first record that is not delivered.
    undelivered: usize,
    /// Whether the sink was told the end of the batch.
    is_ended: bool,
}

impl<'batch> BatchProgress<'batch> {
    fn new(heading: Heading<'batch>, offered: Offered<'batch>) -> Self {
        let mut progress = Self { heading, offered, next: 0, undelivered: 0, is_ended: false };
        progress.heading.records = u64::try_from(progress.len()).unwrap_or(u64::MAX);
        progress
    }
}

impl BatchProgress<'_> {
    /// Records in all.
    fn len(&self) -> usize {
        self.offered.len() + usize::from(self.offered.residual.is_some())
    }

    /// What the sink has not taken.
    fn rest(&self) -> Portion {
        let mut records = Tally::default();
        let Ok(()) = self.offered.each_exact(self.next, |exact| {
            records.add(Tally::new(exact.len(), counts(exact)));
            Ok::<_, Infallible>(())
        });
        let residuals = usize::from(self.offered.residual.is_some() && self.next <= self.offered.len());
        let suppressed = if residuals == 1 { self.offered.suppressed } else { Counts::default() };
        Portion { records, suppressed: Tally::new(residuals, suppressed) }
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Sender").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Sender {
    /// A sender from `queue`, which is one of the accounting, to `sink`. `changed` is called whenever the account has changed.
    #[must_use]
    pub fn new(
        name: &str,
        accounting: Accounting,
        queue: Arc<Queue>,
        sink: Box<dyn Sink>,
        ending: Ending,
        changed: impl Fn() + Send + 'static,
    ) -> Self {
        let (exact, chunk) = (Vec::new(), Vec::new());
        Self {
            name: name.to_owned(),
            accounting,
            queue,
            sink,
            ending,
            units: Units::default(),
            exact,
            chunk,
            backoff: Backoff::with_jitter(PAUSE_MIN, PAUSE_MAX),
            changed: Box::new(changed),
        }
    }

    /// Starts it on a thread of its own. It ends when the queue is closed and empty, or abandoned, and drops `at_work` then.
    ///
    /// # Errors
    /// When there is no thread.
    pub fn start(self, at_work: impl Send + 'static) -> io::Result<JoinHandle<()>> {
        thread::Builder::new().name(self.name.clone()).spawn(move || {
            self.work();
            drop(at_work);
        })
    }

    fn work(mut self) {
        loop {
            match self.queue.next(self.sink.tend_at()) {
                Next::Batch(batch) => self.take_up(&batch),
                Next::Tend => self.tend(),
                Next::End => break,
            }
            self.tell();
        }
        // What is held leaves before its unit has ended, because there will be no other time.
        for unit in self.units.take_all() {
            self.release(unit);
        }
        self.close();
        self.tell();
    }

    /// Has the sink do something, in a call whose time is watched. Nothing is done any more once the queue is abandoned.
    fn call<T>(&mut self, act: impl FnOnce(&mut dyn Sink) -> Result<T, SinkError>) -> Result<T, SinkError> {
        call(&self.queue, &mut *self.sink, act)
    }

    fn close(&mut self) {
        loop {
            match self.call(|sink| sink.close()) {
                Ok(Taken::Delivered) => return self.delivered(None),
                Ok(Taken::Sent { until }) => {
                    self.sent(until, None);
                    return self.lose_held(Loss::Shutdown);
                }
                Ok(Taken::Held) => return self.lose_held(Loss::Shutdown),
                Err(error) => self.failed(&error, None),
            }
            if !self.queue.has_held() || !self.pause() {
                return self.lose_held(Loss::Shutdown);
            }
        }
    }

    /// Brings a batch to the sink, or holds its records until their unit has ended.
    fn take_up(&mut self, batch: &Batch) {
        let queue = Arc::clone(&self.queue);
        // After a reload, what was collected under the former policy does not wait any longer.
        for unit in self.units.take_others(&batch.terms) {
            self.release(unit);
        }
        let recipient = queue.recipient();
        let (Ok(heading), Ok(offered)) = (batch.heading(recipient), batch.offered(recipient)) else {
            return self.accounting.lost(&queue, batch, Loss::NoRecipient);
        };
        if !batch.records.is_empty() {
            panics::planted("sender");
        }
        if let Some(unit) = queue.held_for(heading.recipient.time_unit())
            && let Ok(position) = batch.terms.position(recipient)
        {
            let length_ms = u64::try_from(unit.as_millis()).unwrap_or(u64::MAX).max(1);
            let (series, offered) = (batch.terms.series(), &offered);
            return self.hold(&Adding { batch, offered, series, position, length_ms });
        }
        if self.ending.is_over() {
            return self.accounting.lost(&queue, batch, Loss::Shutdown);
        }
        let progress = BatchProgress::new(heading, offered);
        queue.view(batch, u64::try_from(progress.len()).unwrap_or(u64::MAX));
        self.bring(progress);
    }

    /// Holds the records of a batch, and brings those to the sink whose unit has ended with it.
    fn hold(&mut self, adding: &Adding<'_>) {
        let (pieces, gone) = self.units.add(adding, self.queue.bounds());
        self.accounting.enter(self.queue.hold(adding.batch, &pieces, &gone, self.units.size()));
        for unit in self.units.take_ended(adding.end_ms()) {
            self.release(unit);
        }
    }

    /// Brings what was held of a unit to the sink.
    fn release(&mut self, mut unit: Unit) {
        if !self.queue.release(unit.id, unit.octets(), self.units.size()) {
            return;
        }
        let records = unit.take();
        let offered = unit.offered(&records);
        let progress = BatchProgress::new(unit.heading(), offered);
        if self.ending.is_over() {
            return self.accounting.enter(self.queue.put_down(progress.rest().sum(), Loss::Shutdown));
        }
        self.bring(progress);
    }

    /// Brings records to the sink until the sink has taken all of them or the agent ends.
    fn bring(&mut self, mut progress: BatchProgress<'_>) {
        let mut rest = Tally::default();
        while let Err(error) = self.try_to_bring(&mut progress) {
            self.failed(&error, Some(&mut progress));
            progress.is_ended = false;
            self.tell();
            if !self.pause() {
                rest = progress.rest().sum();
                break;
            }
        }
        if progress.is_ended {
            self.succeeded();
        }
        self.accounting.enter(self.queue.put_down(rest, Loss::Shutdown));
    }

    fn try_to_bring(&mut self, progress: &mut BatchProgress<'_>) -> Result<(), SinkError> {
        self.call(|sink| sink.begin(&progress.heading))?;
        if self.sink.holds_nothing() {
            self.delivered(Some(progress));
        }
        while progress.next < progress.len() {
            let offered = &progress.offered;
            let values = offered.values;
            let mut portion = Portion::default();
            let (taken, next) = if progress.next < offered.len() {
                let next = (progress.next + CHUNK_RECORDS_MAX).min(offered.len());
                let exact = offered.exact(progress.next..next, &mut self.exact);
                portion.records = Tally::new(exact.len(), counts(exact));
                let chunk = offered.valued(exact, &mut self.chunk);
                (call(&self.queue, &mut *self.sink, |sink| sink.take(chunk, values.fields()))?, next)
            } else {
                portion.suppressed = Tally::new(1, offered.suppressed);
                let chunk = offered.valued(offered.residual.as_slice(), &mut self.chunk);
                let take = |sink: &mut dyn Sink| sink.take(chunk, values.residual_fields());
                (call(&self.queue, &mut *self.sink, take)?, progress.next + 1)
            };
            progress.next = next;
            self.queue.held(portion);
            self.taken(taken, progress);
        }
        let taken = self.call(|sink| sink.end())?;
        progress.is_ended = true;
        self.taken(taken, progress);
        Ok(())
    }

    fn taken(&mut self, taken: Taken, progress: &mut BatchProgress<'_>) {
        match taken {
            Taken::Delivered => self.delivered(Some(progress)),
            Taken::Sent { until } => self.sent(until, Some(progress)),
            Taken::Held => {}
        }
    }

    fn tend(&mut self) {
        match self.call(|sink| sink.tend()) {
            Ok(Taken::Delivered) => {
                self.delivered(None);
                self.recovered();
            }
            Ok(Taken::Sent { until }) => {
                self.sent(until, None);
                self.recovered();
            }
            Ok(Taken::Held) => self.recovered(),
            Err(error) => {
                self.failed(&error, None);
                self.tell();
                self.pause();
            }
        }
    }

    /// Everything that the sink held is out of the agent's hands.
    fn delivered(&mut self, current: Option<&mut BatchProgress<'_>>) {
        self.accounting.enter(self.queue.delivered());
        if let Some(progress) = current {
            progress.undelivered = progress.next;
        }
    }

    /// What the sink took up to that moment was sent, and nobody confirms it.
    fn sent(&mut self, until: Instant, current: Option<&mut BatchProgress<'_>>) {
        let (entries, all) = self.queue.sent(until);
        self.accounting.enter(entries);
        if let Some(progress) = current
            && all
        {
            progress.undelivered = progress.next;
        }
    }

    /// The sink has lost what it held.
    fn lose_held(&mut self, loss: Loss) {
        self.accounting.enter(self.queue.lose_held(loss));
    }

    fn failed(&mut self, error: &SinkError, mut current: Option<&mut BatchProgress<'_>>) {
        if !error.held_is_lost && self.sink.holds_nothing() {
            self.delivered(current.as_deref_mut());
        }
        if self.queue.failed(error) {
            warn!("sink {}: {error}; tried again, longer apart each time", self.name);
        }
        if error.held_is_lost {
            self.lose_held(error.loss);
            if let Some(progress) = current {
                // The sink has lost it, but the agent has the batch and brings it again.
                progress.next = progress.undelivered;
            }
        }
    }

    /// The sink has taken a whole batch.
    fn succeeded(&mut self) {
        let is_confirmed = self.sink.is_confirmed();
        self.queue.enter(|account| account.succeed(is_confirmed));
        self.recovered();
    }

    fn recovered(&mut self) {
        self.backoff.reset();
        let is_confirmed = self.sink.is_confirmed();
        if self.queue.enter(|account| account.recover(is_confirmed)) {
            match is_confirmed {
                true => info!("sink {} works again", self.name),
                false => {
                    info!("sink {}: nothing refuses it any more; nobody confirms what it sends", self.name)
                }
            }
        }
    }

    /// Waits, longer after each failure; returns whether there is time left to try again.
    fn pause(&mut self) -> bool {
        self.ending.pause(self.backoff.fail())
    }

    fn tell(&self) {
        let (octets, failures) = (self.sink.octets_written(), self.sink.retention_failures());
        self.queue.enter(|account| {
            account.octets_written = octets;
            account.retention_failures = failures;
        });
        (self.changed)();
    }
}

/// Has a sink do something, in a call whose time is watched.
fn call<T>(
    queue: &Queue,
    sink: &mut dyn Sink,
    act: impl FnOnce(&mut dyn Sink) -> Result<T, SinkError>,
) -> Result<T, SinkError> {
    if !queue.begin_call() {
        return Err(SinkError::new(Loss::Shutdown, "the agent has ended"));
    }
    let result = act(sink);
    queue.end_call();
    result
}

fn counts(records: &[Record]) -> Counts {
    records.iter().fold(Counts::default(), |sum, record| Counts {
        packets: sum.packets + record.packets,
        octets: sum.octets + record.octets,
    })
}

#[cfg(test)]
mod tests;
