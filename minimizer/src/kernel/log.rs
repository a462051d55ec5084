//! The log of the kernel program in a development build: one line for each packet, through aya's ring buffer.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use aya::Ebpf;
use aya_log::EbpfLogger;

/// The longest delay of a line.
const DELAY: Duration = Duration::from_millis(100);

/// Prints the program's lines to the log until the process ends.
pub fn follow(ebpf: &mut Ebpf) {
    // A second program in the same process finds the logger installed.
    let _already_there = env_logger::try_init();
    let mut logger = match EbpfLogger::init(ebpf) {
        Ok(logger) => logger,
        Err(error) => {
            eprintln!("minimizer: no log of the kernel program: {error}");
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
