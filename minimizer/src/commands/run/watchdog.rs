//! The watchdog: looks at the clocks of the drain, of the sinks and of the ledger file, and says what is late.

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use crate::delivery::accounting::Accounting;
use crate::serve::ledger_file::LedgerDue;
use crate::serve::snapshot::Published;
use crate::support::panics;

/// Time between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// A running watchdog. It ends when this is dropped.
pub struct Watchdog(#[expect(dead_code, reason = "its drop is the message")] Sender<()>);

impl Watchdog {
    /// Starts it, on a thread of its own.
    ///
    /// # Errors
    /// When there is no thread.
    pub fn start(
        accounting: Accounting,
        published: Published,
        ledger: Option<LedgerDue>,
    ) -> io::Result<Self> {
        let (end, ended) = mpsc::channel();
        thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
            let mut was_healthy = true;
            while ended.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
                panics::planted("watchdog");
                look_at_sinks(&accounting, &published);
                if let Some(message) = ledger.as_ref().and_then(LedgerDue::look_for_hang) {
                    warn!("{message}");
                }
                was_healthy = look_at_drain(&published, was_healthy);
            }
        })?;
        Ok(Self(end))
    }
}

fn look_at_sinks(accounting: &Accounting, published: &Published) {
    for queue in accounting.queues() {
        if let Some(message) = queue.look_for_stall() {
            warn!("sink {}: {message}", queue.account().name);
            published.settled(&accounting.ledger());
        }
    }
}

/// Returns whether the drain is in time.
fn look_at_drain(published: &Published, was_healthy: bool) -> bool {
    let healthy = published.latest().healthy(Instant::now());
    match &healthy {
        Err(reason) if was_healthy => error!("{reason}"),
        Ok(()) if !was_healthy => info!("the drain is in time again"),
        _ => {}
    }
    healthy.is_ok()
}
