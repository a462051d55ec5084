//! Signals, caught from a moment on and handled on a plain thread: an event loop would be much for that.

use std::io;
use std::mem;
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing::warn;

use crate::support::log;

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

    /// Calls `stop` on the first signal; the second one ends the process at once.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn stop(self, stop: impl Fn() + Send + 'static) -> io::Result<()> {
        let mut is_stopping = false;
        self.handle("signals", move |number| {
            if !mem::replace(&mut is_stopping, true) {
                return stop();
            }
            warn!("stopped by a second signal; the last interval is not printed");
            log::flush();
            #[expect(clippy::disallowed_methods, reason = "the user insists; links end with the process")]
            std::process::exit(128 + number);
        })
    }
}
