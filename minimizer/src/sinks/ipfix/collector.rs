//! A collector: its name, and the addresses that the name has.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;
use std::{fmt, io, thread};

use crate::delivery::loss::Loss;
use crate::delivery::sink::SinkError;
use crate::support::scoped_address::ScopedAddress;

/// How long a call waits for the name service, whose own time-outs are longer than a sink may block.
const RESOLVED_WITHIN: Duration = Duration::from_secs(1);

/// A collector.
#[derive(Debug)]
pub(super) struct Collector {
    name: String,
    /// Where the answer of the name service will come, while it is outstanding.
    answer: Option<Receiver<io::Result<Vec<SocketAddr>>>>,
}

impl fmt::Display for Collector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name)
    }
}

impl Collector {
    /// The collector at `host:port`.
    pub(super) const fn new(name: String) -> Self {
        Self { name, answer: None }
    }

    /// Its addresses, asked for anew each time, so that a collector may move.
    pub(super) fn addresses(&mut self) -> Result<Vec<SocketAddr>, SinkError> {
        if let Some(address) = ScopedAddress::parse(&self.name) {
            return Ok(vec![address.resolve().map_err(|error| self.unreachable(&error))?]);
        }
        let answer = match self.answer.take() {
            Some(answer) => answer,
            None => self.ask().map_err(|error| self.unreachable(&error))?,
        };
        match answer.recv_timeout(RESOLVED_WITHIN) {
            Ok(Ok(addresses)) if !addresses.is_empty() => Ok(addresses),
            Ok(Ok(_)) => Err(self.unreachable(&"the name has no address")),
            Ok(Err(error)) => Err(self.unreachable(&format_args!("{error}; check the name in `collector`"))),
            Err(RecvTimeoutError::Timeout) => {
                // The next call goes on waiting for the same answer.
                self.answer = Some(answer);
                Err(self
                    .unreachable(&"the name service does not answer; an address in `collector` needs none"))
            }
            Err(RecvTimeoutError::Disconnected) => Err(self.unreachable(&"the name service was not asked")),
        }
    }

    fn ask(&self) -> io::Result<Receiver<io::Result<Vec<SocketAddr>>>> {
        let (sender, receiver) = sync_channel(1);
        let name = self.name.clone();
        thread::Builder::new().name("name service".to_owned()).spawn(move || {
            // This fails when nobody waits for the answer any more.
            sender.send(name.to_socket_addrs().map(Iterator::collect)).ok();
        })?;
        Ok(receiver)
    }

    /// The error for a collector that cannot be reached.
    pub(super) fn unreachable(&self, cause: &dyn fmt::Display) -> SinkError {
        SinkError::new(Loss::Unreachable, format!("cannot reach the collector {self}: {cause}"))
    }
}
