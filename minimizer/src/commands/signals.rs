//! Signals, caught from a moment on and handled on a plain thread: an event loop would be much for that.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing::warn;

use crate::support::log;

/// Time that the last drain has after the first signal, before a further one ends the process.
const PATIENCE: Duration = Duration::from_secs(10);

/// Signals that are caught. Those that arrive before [`Self::handle`] is called are remembered.
pub struct Caught(Signals);

impl Caught {
    /// Catches the signals of these numbers, so that they no longer end the process.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn new(numbers: &[i32]) -> io::Result<Self> {
        Signals::new(numbers).map(Self)
    }

    /// Catches SIGINT and SIGTERM.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn stop_signals() -> io::Result<Self> {
        Self::new(&[SIGINT, SIGTERM])
    }

    /// Calls `handle` for each signal, on a thread of this name. Signals that arrive while `handle` runs are handled
    /// afterwards; several of one number are then handled once.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn handle(mut self, thread: &str, handle: impl FnMut(i32) + Send + 'static) -> io::Result<()> {
        thread::Builder::new()
            .name(thread.to_owned())
            .spawn(move || self.0.forever().for_each(handle))
            .map(drop)
    }

    /// Calls `stop` on the first signal and `hurry` on the second one: `timeout(1)` sends one to the process and one to its
    /// group, and a last drain is not worth less for that. A further one ends the process at once, once the last drain
    /// has had its time.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn stop(self, stop: impl Fn() + Send + 'static, hurry: impl Fn() + Send + 'static) -> io::Result<()> {
        let (mut signals, mut first) = (0_u32, Instant::now());
        self.handle("signals", move |number| {
            signals = signals.saturating_add(1);
            match signals {
                1 => {
                    first = Instant::now();
                    stop();
                }
                2 => hurry(),
                _ if first.elapsed() < PATIENCE => {}
                _ => {
                    warn!("stopped by signal {number}; the last interval may be missing");
                    log::flush();
                    #[expect(
                        clippy::disallowed_methods,
                        reason = "the user insists; links end with the process"
                    )]
                    std::process::exit(128 + number);
                }
            }
        })
    }
}
