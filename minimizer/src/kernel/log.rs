//! What the kernel program says in a development build: one line a packet, through aya's ring buffer.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use aya::Ebpf;
use aya_log::EbpfLogger;
use tracing::warn;

/// How long a line may wait.
const DELAY: Duration = Duration::from_millis(100);

/// Prints the program's lines to the log until the process ends.
pub fn follow(ebpf: &mut Ebpf) {
    // A second program in one process finds the logger there.
    let _already_there = env_logger::try_init();
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
