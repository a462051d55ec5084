//! The sinks of a running agent: their lanes and couriers, and the standard output, which is a sink too.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::delivery::books::Books;
use crate::delivery::queue::Lane;
use crate::delivery::sender::{Courier, Ending};
use crate::policy::model::Policy;
use crate::records::terms::NoRecipient;
use crate::serve::snapshot::Published;
use crate::sinks::config::SinkConfig;

/// A sink is for somebody whom the policy does not know.
#[derive(Debug, Error)]
#[error("sink {sink}: {source}; change `recipient` of the sink, or the policy")]
pub struct UnknownRecipient {
    sink: String,
    source: NoRecipient,
}

/// The lanes of these sinks, in their order.
#[must_use]
pub fn lanes(sinks: &[SinkConfig]) -> Vec<Arc<Lane>> {
    let lane = |sink: &SinkConfig| Lane::new(&sink.name, Some(&sink.recipient), sink.kind(), sink.bounds);
    sinks.iter().map(lane).map(Arc::new).collect()
}

/// Whether the policy has the recipients of all sinks.
///
/// # Errors
/// The first sink whose recipient it lacks.
pub fn check(books: &Books, policy: &Policy) -> Result<(), UnknownRecipient> {
    for lane in books.lanes() {
        if let Some(Err(source)) = lane.recipient().map(|name| policy.recipient(name)) {
            return Err(UnknownRecipient { sink: lane.account().name, source });
        }
    }
    Ok(())
}

/// The couriers of the sinks. Dropping them lets them end at once.
pub struct Couriers {
    books: Books,
    ending: Ending,
    threads: Vec<JoinHandle<()>>,
}

impl Couriers {
    /// Starts a courier for each sink. Their lanes are the first of the books.
    ///
    /// # Errors
    /// When there is no thread for one.
    pub fn start(sinks: &[SinkConfig], books: &Books, published: &Published) -> io::Result<Self> {
        let ending = Ending::default();
        let mut couriers = Self { books: books.clone(), ending: ending.clone(), threads: Vec::new() };
        for (sink, lane) in sinks.iter().zip(books.lanes()) {
            let (books, published) = (books.clone(), published.clone());
            let tell = move || published.settled(&books.ledger());
            let courier = Courier::new(&sink.name, Arc::clone(lane), sink.sink(), ending.clone(), tell);
            couriers.threads.push(courier.start()?);
        }
        Ok(couriers)
    }

    /// Waits until everything is delivered, so long at most, and ends them. The lanes are closed.
    pub fn finish(mut self, timeout: Duration) {
        self.end(timeout);
    }

    fn end(&mut self, timeout: Duration) {
        self.books.lanes().iter().for_each(|lane| lane.close());
        self.ending.set(Instant::now() + timeout);
        for thread in self.threads.drain(..) {
            // One that panicked left its lane as it was: what is queued there is in the ledger.
            let _panicked = thread.join();
        }
    }
}

impl Drop for Couriers {
    fn drop(&mut self) {
        self.end(Duration::ZERO);
    }
}
