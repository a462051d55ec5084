//! The sinks of a running agent: their queues and the threads that send.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::delivery::accounting::Accounting;
use crate::delivery::ending::Ending;
use crate::delivery::queue::Queue;
use crate::delivery::sender::Sender;
use crate::policy::model::Policy;
use crate::records::terms::NoRecipient;
use crate::serve::snapshot::Published;
use crate::sinks::config::SinkConfig;

/// The policy lacks the recipient of a sink.
#[derive(Debug, Error)]
#[error("sink {sink}: {source}; change `recipient` of the sink, or the policy")]
pub struct UnknownRecipient {
    sink: String,
    source: NoRecipient,
}

/// One queue for each sink, in the same order.
#[must_use]
pub fn queues(sinks: &[SinkConfig]) -> Vec<Arc<Queue>> {
    let queue = |sink: &SinkConfig| Queue::new(&sink.name, Some(&sink.recipient), sink.kind(), sink.bounds);
    sinks.iter().map(queue).map(Arc::new).collect()
}

/// Checks that the policy has the recipients of all sinks.
///
/// # Errors
/// The first sink whose recipient is missing.
pub fn check(accounting: &Accounting, policy: &Policy) -> Result<(), UnknownRecipient> {
    for queue in accounting.queues() {
        if let Some(Err(source)) = queue.recipient().map(|name| policy.recipient(name)) {
            return Err(UnknownRecipient { sink: queue.account().name, source });
        }
    }
    Ok(())
}

/// The senders of the sinks. Dropping this ends them at once.
pub struct Senders {
    accounting: Accounting,
    ending: Ending,
    threads: Vec<JoinHandle<()>>,
}

impl Senders {
    /// Starts a sender for each sink. The sinks' queues come first in the accounting.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(sinks: &[SinkConfig], accounting: &Accounting, published: &Published) -> io::Result<Self> {
        let ending = Ending::default();
        let mut senders =
            Self { accounting: accounting.clone(), ending: ending.clone(), threads: Vec::new() };
        for (sink, queue) in sinks.iter().zip(accounting.queues()) {
            let (told, published) = (accounting.clone(), published.clone());
            let tell = move || published.settled(&told.ledger());
            let (queue, sink, name) = (Arc::clone(queue), sink.sink(), &sink.name);
            let sender = Sender::new(name, accounting.clone(), queue, sink, ending.clone(), tell);
            senders.threads.push(sender.start()?);
        }
        Ok(senders)
    }

    /// Closes the queues, waits at most `timeout` until everything is delivered, and ends the senders.
    pub fn finish(mut self, timeout: Duration) {
        self.end(timeout);
    }

    fn end(&mut self, timeout: Duration) {
        self.accounting.queues().iter().for_each(|queue| queue.close());
        self.ending.set(Instant::now() + timeout);
        for thread in self.threads.drain(..) {
            // A sender that panicked leaves its queue as it was; the ledger counts it as queued.
            let _panicked = thread.join();
        }
    }
}

impl Drop for Senders {
    fn drop(&mut self) {
        self.end(Duration::ZERO);
    }
}
