//! The log of the kernel program in a development build: one line for each packet, through aya's ring buffer.

use std::io::{self, Write};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use aya::Ebpf;
use aya_log::EbpfLogger;
use env_logger::Target;
use tracing::warn;

use crate::support::log;

/// The longest delay of a line.
const DELAY: Duration = Duration::from_millis(100);

/// Passes lines on to the agent's log, so that only one thread writes to the standard error.
struct Lines;

impl Write for Lines {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        log::formatted(&String::from_utf8_lossy(octets));
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Prints the program's lines to the log until the process ends.
pub fn follow(ebpf: &mut Ebpf) {
    // A second program in one process finds the logger there.
    let target = Target::Pipe(Box::new(Lines));
    let _already_there = env_logger::Builder::from_default_env().target(target).try_init();
    let mut logger = match EbpfLogger::init(ebpf) {
        Ok(logger) => logger,
        Err(error) => {
            warn!("no log of the kernel program: {error}");
            return;
        }
    };
    thread::spawn(move || {
        let (never, nothing) = mpsc::channel::<()>();
        while nothing.recv_timeout(DELAY) == Err(mpsc::RecvTimeoutError::Timeout) {
            logger.flush();
        }
        drop(never);
    });
}
