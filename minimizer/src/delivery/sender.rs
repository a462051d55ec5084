//! A sender: the thread that brings the batches of a queue to its sink, again and again until they are taken.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{fmt, io};

use minimizer_common::generation::Counts;
use tracing::{info, warn};

use super::account::Tally;
use crate::delivery::batch::{Batch, Delivery, Offered};
use crate::delivery::loss::Loss;
use crate::delivery::queue::{Next, Queue, collected};
use crate::delivery::sink::{CHUNK_RECORDS_MAX, Heading, Sink, SinkError, Taken};
use crate::records::record::Record;
use crate::support::backoff::Backoff;

/// Pause after a first failure.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// Longest pause while the agent ends.
const PAUSE_ENDING: Duration = Duration::from_millis(100);

/// The moment until which senders may still deliver once the agent ends.
#[derive(Clone, Default)]
pub struct Ending(Arc<(Mutex<Option<Instant>>, Condvar)>);

impl Ending {
    /// Says that everything must be delivered by this moment.
    pub fn set(&self, deadline: Instant) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(deadline);
        self.0.1.notify_all();
    }

    fn is_over(&self) -> bool {
        let deadline = *self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Waits so long, or less when the agent ends; returns whether there is time left to try again.
    fn pause(&self, pause: Duration) -> bool {
        let deadline = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Ending: what is tried again is tried soon.
        if let Some(end) = *deadline {
            let left = end.saturating_duration_since(Instant::now());
            let waited = self.0.1.wait_timeout(deadline, left.min(PAUSE_ENDING));
            drop(waited.unwrap_or_else(PoisonError::into_inner));
            return !left.is_zero();
        }
        let waited = self.0.1.wait_timeout_while(deadline, pause, |deadline| deadline.is_none());
        let (deadline, _) = waited.unwrap_or_else(PoisonError::into_inner);
        deadline.is_none_or(|end| Instant::now() < end)
    }
}

/// Brings batches to a sink.
pub struct Sender {
    name: String,
    queue: Arc<Queue>,
    sink: Box<dyn Sink>,
    ending: Ending,
    /// Batches of which the sink still holds something, from the oldest on.
    held: VecDeque<Part>,
    /// The latest records, as they were collected and as the recipient gets them.
    exact: Vec<Record>,
    chunk: Vec<Record>,
    backoff: Backoff,
    /// Tells others that the account has changed.
    changed: Box<dyn Fn() + Send>,
}

/// What became of a batch so far.
struct Part {
    delivery: Arc<Delivery>,
    exported: Tally,
    suppressed: Tally,
    held: Tally,
    held_suppressed: Tally,
}

impl Part {
    /// Everything held is delivered.
    fn deliver(&mut self, queue: &Queue) {
        let (held, suppressed) = (std::mem::take(&mut self.held), std::mem::take(&mut self.held_suppressed));
        queue.enter(|account| account.export(held, suppressed));
        self.exported.add(held);
        self.suppressed.add(suppressed);
    }

    /// Everything held is lost.
    fn lose(&mut self, queue: &Queue, loss: Loss) {
        let (held, suppressed) = (std::mem::take(&mut self.held), std::mem::take(&mut self.held_suppressed));
        queue.enter(|account| {
            account.lose(held, loss);
            account.lose(suppressed, loss);
        });
    }

    /// Enters the batch: nothing more will become of it.
    fn settle(self) {
        self.delivery.settle(self.exported.counts(), self.suppressed.counts());
    }
}

/// Where a sender is in a batch.
struct BatchProgress<'batch> {
    heading: Heading<'batch>,
    offered: Offered<'batch>,
    /// The first record that the sink has not taken; those that too few sources made come last, as one.
    next: usize,
    /// The first record that is not delivered.
    undelivered: usize,
    /// Whether the sink was told the end of the batch.
    is_ended: bool,
}

impl BatchProgress<'_> {
    /// Records in all.
    fn len(&self) -> usize {
        self.offered.len() + usize::from(self.offered.residual.is_some())
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Sender").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Sender {
    /// A sender from `queue` to `sink`. `changed` is called whenever the account has changed.
    #[must_use]
    pub fn new(
        name: &str,
        queue: Arc<Queue>,
        sink: Box<dyn Sink>,
        ending: Ending,
        changed: impl Fn() + Send + 'static,
    ) -> Self {
        let (held, exact, chunk) = (VecDeque::new(), Vec::new(), Vec::new());
        Self {
            name: name.to_owned(),
            queue,
            sink,
            ending,
            held,
            exact,
            chunk,
            backoff: Backoff::with_jitter(PAUSE_MIN, PAUSE_MAX),
            changed: Box::new(changed),
        }
    }

    /// Starts it on a thread of its own. It ends when the queue is closed and empty.
    ///
    /// # Errors
    /// When there is no thread.
    pub fn start(self) -> io::Result<JoinHandle<()>> {
        thread::Builder::new().name(self.name.clone()).spawn(move || self.work())
    }

    fn work(mut self) {
        loop {
            match self.queue.next(self.sink.tend_at()) {
                Next::Batch(batch) => self.bring(&batch),
                Next::Tend => self.tend(),
                Next::End => break,
            }
            self.tell();
        }
        self.close();
        self.tell();
    }

    fn close(&mut self) {
        loop {
            match self.sink.close() {
                Ok(Taken::Delivered) => return self.delivered(None),
                Ok(Taken::Held) => return self.lose_held(Loss::Shutdown),
                Err(error) => self.failed(&error, None),
            }
            if self.held.is_empty() || !self.pause() {
                return self.lose_held(Loss::Shutdown);
            }
        }
    }

    /// Brings a batch to the sink, whatever it takes, unless the agent ends meanwhile.
    fn bring(&mut self, batch: &Arc<Batch>) {
        let queue = Arc::clone(&self.queue);
        let recipient = queue.recipient();
        let (Ok(heading), Ok(offered)) = (batch.heading(recipient), batch.offered(recipient)) else {
            return self.queue.lost(batch, Loss::NoRecipient);
        };
        if self.ending.is_over() {
            return self.queue.lost(batch, Loss::Shutdown);
        }
        let mut part = Part {
            delivery: Arc::clone(&batch.delivery),
            exported: Tally::default(),
            suppressed: Tally::default(),
            held: Tally::default(),
            held_suppressed: Tally::default(),
        };
        let mut journey = BatchProgress { heading, offered, next: 0, undelivered: 0, is_ended: false };
        let records = u64::try_from(journey.len()).unwrap_or(u64::MAX);
        self.queue.enter(|account| account.view(collected(batch).records, records));
        while let Err(error) = self.try_to_bring(&mut journey, &mut part) {
            self.failed(&error, Some(&mut part));
            if error.held_is_lost {
                // What other records of this batch the sink held is lost to it, but not to the agent.
                journey.next = journey.undelivered;
            }
            journey.is_ended = false;
            self.tell();
            if !self.pause() {
                let rest = rest(&journey, journey.next);
                self.queue.enter(|account| {
                    account.lose(rest.0, Loss::Shutdown);
                    account.lose(rest.1, Loss::Shutdown);
                });
                break;
            }
        }
        if journey.is_ended {
            self.succeeded();
        }
        if (part.held, part.held_suppressed) == Default::default() {
            part.settle();
        } else {
            self.held.push_back(part);
        }
    }

    fn try_to_bring(&mut self, journey: &mut BatchProgress<'_>, part: &mut Part) -> Result<(), SinkError> {
        self.sink.begin(&journey.heading)?;
        while journey.next < journey.len() {
            let offered = &journey.offered;
            let view = offered.view;
            let (taken, tally, suppressed, next) = if journey.next < offered.len() {
                let next = (journey.next + CHUNK_RECORDS_MAX).min(offered.len());
                let exact = offered.exact(journey.next..next, &mut self.exact);
                let tally = Tally::new(exact.len(), counts(exact));
                let chunk = view.valued(exact, &mut self.chunk);
                (self.sink.take(chunk, view.fields())?, tally, Tally::default(), next)
            } else {
                let suppressed = Tally::new(1, offered.suppressed);
                let chunk = view.valued(offered.residual.as_slice(), &mut self.chunk);
                let taken = self.sink.take(chunk, view.residual_fields())?;
                (taken, Tally::default(), suppressed, journey.next + 1)
            };
            journey.next = next;
            part.held.add(tally);
            part.held_suppressed.add(suppressed);
            if taken == Taken::Delivered {
                self.delivered(Some(part));
                journey.undelivered = next;
            }
        }
        let taken = self.sink.end()?;
        journey.is_ended = true;
        if taken == Taken::Delivered {
            self.delivered(Some(part));
            journey.undelivered = journey.next;
        }
        Ok(())
    }

    fn tend(&mut self) {
        match self.sink.tend() {
            Ok(Taken::Delivered) => {
                self.delivered(None);
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
    fn delivered(&mut self, current: Option<&mut Part>) {
        for mut part in self.held.drain(..) {
            part.deliver(&self.queue);
            part.settle();
        }
        if let Some(part) = current {
            part.deliver(&self.queue);
        }
    }

    fn lose_held(&mut self, loss: Loss) {
        for mut part in self.held.drain(..) {
            part.lose(&self.queue, loss);
            part.settle();
        }
    }

    fn failed(&mut self, error: &SinkError, current: Option<&mut Part>) {
        if self.queue.failed(error) {
            warn!("sink {}: {error}; tried again, longer apart each time", self.name);
        }
        if error.held_is_lost {
            self.lose_held(error.loss);
            if let Some(part) = current {
                (part.held, part.held_suppressed) = Default::default();
            }
        }
    }

    /// A batch was taken as a whole.
    fn succeeded(&mut self) {
        self.queue.enter(super::account::Account::succeed);
        self.recovered();
    }

    fn recovered(&mut self) {
        self.backoff.reset();
        if self.queue.enter(super::account::Account::recover) {
            info!("sink {} works again", self.name);
        }
    }

    /// Waits, longer after each failure; returns whether there is time left to try again.
    fn pause(&mut self) -> bool {
        self.ending.pause(self.backoff.fail())
    }

    fn tell(&self) {
        let octets = self.sink.octets_written();
        self.queue.enter(|account| account.octets_written = octets);
        (self.changed)();
    }
}

/// What the records from `next` on count, in records and in sums without keys.
fn rest(journey: &BatchProgress<'_>, next: usize) -> (Tally, Tally) {
    let offered = &journey.offered;
    let mut left = Tally::default();
    let Ok(()) = offered.each_exact(next, |exact| {
        left.add(Tally::new(exact.len(), counts(exact)));
        Ok::<_, Infallible>(())
    });
    let residuals = usize::from(offered.residual.is_some() && next <= offered.len());
    let suppressed = if residuals == 1 { offered.suppressed } else { Counts::default() };
    (left, Tally::new(residuals, suppressed))
}

fn counts(records: &[Record]) -> Counts {
    records.iter().fold(Counts::default(), |sum, record| Counts {
        packets: sum.packets + record.packets,
        octets: sum.octets + record.octets,
    })
}

#[cfg(test)]
mod tests;
