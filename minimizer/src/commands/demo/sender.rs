//! Sends traffic into an interface as fast as possible, and counts what became of every frame.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crate::commands::demo::generator::Traffic;
use crate::support::sys::packet_socket::{BATCH_FRAMES_MAX, PacketSocket};

/// What became of the frames that were handed to an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handed {
    /// The interface took them.
    pub accepted: u64,
    /// The interface had no room; the frame was handed over again.
    pub refused: u64,
    /// Too long or too short for the interface; the frame was skipped.
    pub unsendable: u64,
}

/// A thread that sends.
#[derive(Debug)]
pub struct FrameSender {
    thread: JoinHandle<io::Result<Handed>>,
    stop: Arc<AtomicBool>,
}

impl FrameSender {
    /// Starts sending rounds of the traffic on an interface in the namespace of the calling thread,
    /// until [`Self::finish`] or until `frames` are accepted.
    ///
    /// # Errors
    /// When the raw socket cannot be opened or the thread cannot be started.
    pub fn start(traffic: Arc<Traffic>, if_index: u32, frames: Option<u64>) -> io::Result<Self> {
        let socket = PacketSocket::open(if_index)?;
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::Builder::new().name(format!("send-{if_index}")).spawn({
            let stop = Arc::clone(&stop);
            move || send(&socket, &traffic, frames.unwrap_or(u64::MAX), &stop)
        })?;
        Ok(Self { thread, stop })
    }

    /// Whether the thread has ended: all frames are sent, or sending failed.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Stops sending after the current batch.
    ///
    /// # Errors
    /// The error that ended the sending early.
    pub fn finish(self) -> io::Result<Handed> {
        self.stop.store(true, Ordering::Relaxed);
        self.wait()
    }

    /// Waits until all frames are sent.
    ///
    /// # Errors
    /// The error that ended the sending early.
    pub fn wait(self) -> io::Result<Handed> {
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the sending thread panicked")))
    }
}

fn send(socket: &PacketSocket, traffic: &Traffic, frames: u64, stop: &AtomicBool) -> io::Result<Handed> {
    let mut handed = Handed::default();
    let batch_frames = u64::try_from(BATCH_FRAMES_MAX).map_err(io::Error::other)?;
    let mut batch = Vec::with_capacity(BATCH_FRAMES_MAX);
    if traffic.is_empty() {
        return Ok(handed);
    }
    let mut waiting = traffic.round().cycle();
    while handed.accepted < frames && !stop.load(Ordering::Relaxed) {
        let room = batch_frames.min(frames - handed.accepted);
        let missing = usize::try_from(room).map_err(io::Error::other)?.saturating_sub(batch.len());
        batch.extend(waiting.by_ref().take(missing));
        match socket.send(&batch) {
            Ok(accepted) => {
                batch.drain(..accepted);
                handed.accepted += u64::try_from(accepted).map_err(io::Error::other)?;
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOBUFS | libc::EAGAIN) => {
                    handed.refused += 1;
                    thread::yield_now();
                }
                Some(libc::EMSGSIZE | libc::EINVAL) => {
                    batch.remove(0);
                    handed.unsendable += 1;
                    if handed.accepted == 0 && handed.unsendable > traffic.round().count() as u64 {
                        return Err(error);
                    }
                }
                Some(libc::EINTR) => {}
                _ => return Err(error),
            },
        }
    }
    Ok(handed)
}
