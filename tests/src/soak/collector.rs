//! A collector that comes, goes, moves, and sometimes does not read.

use std::io::Read as _;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::Result;
use rustix::net::{Shutdown as Direction, shutdown};

/// Its port, at every address.
pub const PORT: u16 = 4739;

/// A running collector over TCP. It closes its port and its connections when it is dropped.
pub struct Collector {
    listener: TcpListener,
    accepting: Option<JoinHandle<()>>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Collector {
    /// Listens at this address; it reads what it is sent, or does not.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn listen(address: IpAddr, reads: bool) -> Result<Self> {
        let listener = TcpListener::bind(SocketAddr::new(address, PORT))?;
        let streams = Arc::new(Mutex::new(Vec::new()));
        let (accepting, kept) = (listener.try_clone()?, Arc::clone(&streams));
        let accepting = thread::spawn(move || {
            for stream in accepting.incoming() {
                let Ok(mut stream) = stream else { return };
                if let Ok(copy) = stream.try_clone() {
                    kept.lock().unwrap_or_else(PoisonError::into_inner).push(copy);
                }
                if reads {
                    thread::spawn(move || {
                        let mut octets = [0; 1 << 16];
                        while stream.read(&mut octets).is_ok_and(|read| read > 0) {}
                    });
                }
            }
        });
        Ok(Self { listener, accepting: Some(accepting), streams })
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // Whoever has gone is gone.
        shutdown(&self.listener, Direction::Both).ok();
        // It has the port until it ends.
        self.accepting.take().map(JoinHandle::join);
        for stream in self.streams.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            stream.shutdown(Shutdown::Both).ok();
        }
    }
}
