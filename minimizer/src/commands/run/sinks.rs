//! The sinks of a running agent: their queues and the threads that send.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::delivery::accounting::Accounting;
use crate::delivery::ending::Ending;
use crate::delivery::queue::Queue;
use crate::delivery::sender::Sender;
use crate::serve::snapshot::Published;
use crate::sinks::config::SinkConfig;
use crate::sinks::former;

/// Time that a sink gets beyond the end to settle what it has in hand.
const GRACE: Duration = Duration::from_millis(250);
/// Time between two looks whether a signal has brought the end forward.
const LOOK: Duration = Duration::from_millis(50);

/// One queue for each sink, in the same order. `interval` is that of drains.
#[must_use]
pub fn queues(sinks: &[SinkConfig], interval: Duration) -> Vec<Arc<Queue>> {
    let queue = |sink: &SinkConfig| {
        let readable = sink.rotate_every().map(|rotate_every| rotate_every + interval);
        let queue = Queue::new(&sink.name, Some(&sink.recipient), sink.kind(), sink.bounds);
        match sink.directory() {
            Some(_) => queue.unreadable_for(readable),
            None => queue.held_beyond(interval),
        }
    };
    sinks.iter().map(queue).map(Arc::new).collect()
}

/// The senders of the sinks. Dropping this ends them at once.
pub struct Senders {
    accounting: Accounting,
    ending: Ending,
    at_work: Option<mpsc::Sender<Infallible>>,
    ended: mpsc::Receiver<Infallible>,
}

/// Whoever holds it works on a queue.
#[derive(Debug)]
pub struct AtWork {
    _sender: Option<mpsc::Sender<Infallible>>,
}

impl Senders {
    /// Starts a sender for each sink. The sinks' queues come first in the accounting. `state` is the state directory, which
    /// remembers where sinks wrote files.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(
        sinks: &[SinkConfig],
        accounting: &Accounting,
        published: &Published,
        state: Option<&Path>,
    ) -> io::Result<Self> {
        let directories: Vec<&Path> = sinks.iter().filter_map(SinkConfig::directory).collect();
        let mut former = former::directories(state, &directories);
        if directories.is_empty() {
            for directory in former.drain(..) {
                warn!(
                    "{}: no sink writes files any more, so that nobody deletes those here when their retention is over; \
                     delete them, or give a sink a `directory`",
                    directory.display()
                );
            }
        }
        let ending = Ending::default();
        let (at_work, ended) = mpsc::channel();
        let senders =
            Self { accounting: accounting.clone(), ending: ending.clone(), at_work: Some(at_work), ended };
        for (sink, queue) in sinks.iter().zip(accounting.queues()) {
            let (told, published) = (accounting.clone(), published.clone());
            let tell = move || published.settled(&told.ledger());
            let former = if sink.directory().is_some() { std::mem::take(&mut former) } else { Vec::new() };
            let (queue, sink, name) = (Arc::clone(queue), sink.sink(former, &ending), &sink.name);
            let sender = Sender::new(name, accounting.clone(), queue, sink, ending.clone(), tell);
            sender.start(senders.at_work())?;
        }
        Ok(senders)
    }

    /// When the senders end, once they have to.
    #[must_use]
    pub fn ending(&self) -> Ending {
        self.ending.clone()
    }

    /// Closes the queues, waits at most `timeout` until everything is delivered and printed, and ends the senders. What is
    /// still in the agent then is lost, and whoever still works on it, such as a file system that hangs, is left to itself.
    pub fn finish(mut self, timeout: Duration) {
        self.end(timeout);
    }

    /// What a thread holds as long as it works on a queue; [`Self::finish`] waits for it too.
    #[must_use]
    pub fn at_work(&self) -> AtWork {
        AtWork { _sender: self.at_work.clone() }
    }

    fn end(&mut self, timeout: Duration) {
        self.accounting.queues().iter().for_each(|queue| queue.close());
        let mut deadline = self.ending.set(Instant::now() + timeout);
        // Only those of the threads are left.
        self.at_work = None;
        loop {
            let left = (deadline + GRACE).saturating_duration_since(Instant::now());
            // It ends when the last one is dropped: nobody sends anything.
            let all_ended = self.ended.recv_timeout(left.min(LOOK)) == Err(RecvTimeoutError::Disconnected);
            if all_ended || left.is_zero() {
                break;
            }
            // A signal may bring it forward.
            deadline = self.ending.deadline().unwrap_or(deadline);
        }
        self.ending.abandon();
        self.accounting.abandon();
    }
}

impl Drop for Senders {
    fn drop(&mut self) {
        if self.at_work.is_some() {
            self.end(Duration::ZERO);
        }
    }
}
