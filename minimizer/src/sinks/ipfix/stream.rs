//! TCP and TLS: a stream of messages, and how much of it the other end has acknowledged.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::set_tcp_user_timeout;
use rustls::ClientConnection;

use super::carrier::{Carrier, PATIENCE, Retirement};
use super::collector::Collector;
use super::connect;
use super::outbox::{Message, Outbox};
use super::tls::{self, CollectorTls};
use crate::delivery::loss::Loss;
use crate::delivery::sink::{SinkError, Taken};
use crate::support::sys::tcp::unacknowledged_octets;

/// Octets that are gathered for one write.
const GATHERED: usize = 64 << 10;
/// Milliseconds without an acknowledgement after which a connection is given up: the other end vanished.
const GONE_AFTER_MS: u32 = 30_000;
/// Pause before the kernel is asked again how much was acknowledged: it sends no event for that.
const ASK_PAUSE: Duration = Duration::from_millis(2);

/// Sends to a collector over TCP, or over TLS.
pub(super) struct Stream {
    collector: Collector,
    tls: Option<CollectorTls>,
    session: Option<Session>,
    octets_written: u64,
}

/// A connection.
struct Session {
    socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
    /// Octets to be written, from `offset` on.
    wire: Vec<u8>,
    offset: usize,
    /// Octets that were ever put into `wire` on this connection, and those of them that were written.
    gathered: u64,
    written: u64,
    /// The end of each unacknowledged message, in octets from the start of the connection.
    ends: VecDeque<u64>,
    /// Acknowledged octets, and since when acknowledgements are awaited without progress.
    acknowledged: u64,
    waits_since: Instant,
}

/// Why a connection is broken, or does not progress.
enum Broken {
    Io(io::Error),
    Tls(rustls::Error),
    Stalled,
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Session {
    fn connect(
        addresses: &[SocketAddr],
        tls: Option<&CollectorTls>,
        collector: &Collector,
    ) -> Result<Self, SinkError> {
        let deadline = Instant::now() + PATIENCE;
        let socket = connect::to_one_of(addresses, deadline).map_err(|refusal| {
            collector
                .unreachable(&format_args!("{refusal}; is it running, and does it listen on this TCP port?"))
        })?;
        let prepare = || {
            socket.set_nodelay(true)?;
            Ok(set_tcp_user_timeout(&socket, GONE_AFTER_MS)?)
        };
        prepare().map_err(|error: io::Error| collector.unreachable(&error))?;
        let tls = tls.map(|tls| tls.connection(collector)).transpose()?.map(Box::new);
        let (wire, ends) = (Vec::with_capacity(2 * GATHERED), VecDeque::new());
        let mut session = Self {
            socket,
            tls,
            wire,
            offset: 0,
            gathered: 0,
            written: 0,
            ends,
            acknowledged: 0,
            waits_since: Instant::now(),
        };
        match session.shake_hands(deadline) {
            Ok(()) => Ok(session),
            Err(Broken::Io(error)) => Err(collector.unreachable(&error)),
            Err(Broken::Tls(error)) => Err(tls::refused(collector, &error)),
            Err(Broken::Stalled) => {
                Err(collector.unreachable(&"it does not answer to TLS; is this its TLS port?"))
            }
        }
    }

    fn shake_hands(&mut self, deadline: Instant) -> Result<(), Broken> {
        while self.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) {
            self.encrypt()?;
            self.flush(deadline)?;
            if self.tls.as_ref().is_some_and(|tls| tls.wants_read()) {
                if !self.wait(PollFlags::IN, left(deadline)) {
                    return Err(Broken::Stalled);
                }
                self.read()?;
            }
        }
        self.encrypt()?;
        self.flush(deadline)?;
        // In TLS 1.3 the server checks our certificate after our side of the handshake is done. It answers with a ticket or
        // an alert.
        if self.tls.is_some() && self.wait(PollFlags::IN, left(deadline).min(tls::ANSWERED_WITHIN)) {
            self.read()?;
        }
        Ok(())
    }

    /// Waits until the socket is ready for something, or the other end has closed it.
    fn wait(&self, events: PollFlags, patience: Duration) -> bool {
        let mut polled = [PollFd::new(&self.socket, events | PollFlags::RDHUP)];
        let timeout = Timespec::try_from(patience).ok();
        matches!(poll(&mut polled, timeout.as_ref()), Ok(1..))
    }

    /// Reads from the other end, which sends nothing but TLS's own messages and the end of the stream.
    fn read(&mut self) -> Result<(), Broken> {
        let closed =
            || Broken::Io(io::Error::new(io::ErrorKind::UnexpectedEof, "it has closed the connection"));
        let mut ignored = [0; 4096];
        loop {
            let read = match &mut self.tls {
                Some(tls) => tls.read_tls(&mut self.socket),
                None => self.socket.read(&mut ignored),
            };
            match read {
                Ok(0) => return Err(closed()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
            if let Some(tls) = &mut self.tls {
                let state = tls.process_new_packets().map_err(Broken::Tls)?;
                if state.peer_has_closed() {
                    return Err(closed());
                }
                while matches!(tls.reader().read(&mut ignored), Ok(1..)) {}
            }
        }
    }

    /// Moves the output of TLS to the octets to be written.
    fn encrypt(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            let before = self.wire.len();
            while tls.wants_write() {
                tls.write_tls(&mut self.wire)?;
            }
            self.gathered += octets(self.wire.len() - before);
        }
        Ok(())
    }

    /// Gathers a message.
    fn put(&mut self, message: &Message) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => {
                tls.writer().write_all(&message.octets)?;
                self.encrypt()?;
            }
            None => {
                self.wire.extend_from_slice(&message.octets);
                self.gathered += octets(message.octets.len());
            }
        }
        if self.ends.is_empty() {
            self.waits_since = Instant::now();
        }
        self.ends.push_back(self.gathered);
        Ok(())
    }

    /// Writes what was gathered.
    fn flush(&mut self, deadline: Instant) -> Result<(), Broken> {
        while self.offset < self.wire.len() {
            match self.socket.write(&self.wire[self.offset..]) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(count) => {
                    self.offset += count;
                    self.written += octets(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !self.wait(PollFlags::OUT, left(deadline)) {
                        return Err(Broken::Stalled);
                    }
                    self.read()?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.wire.clear();
        self.offset = 0;
        Ok(())
    }

    /// Removes the messages that the other end has acknowledged, and returns how many there were.
    fn acknowledged(&mut self) -> usize {
        let Ok(outstanding) = unacknowledged_octets(&self.socket) else { return 0 };
        let acknowledged = self.written.saturating_sub(outstanding);
        if acknowledged > self.acknowledged {
            self.acknowledged = acknowledged;
            self.waits_since = Instant::now();
        }
        let count = self.ends.iter().take_while(|end| **end <= acknowledged).count();
        self.ends.drain(..count);
        count
    }

    /// Whether the other end has acknowledged nothing for some time although messages are outstanding.
    fn is_stalled(&self) -> bool {
        !self.ends.is_empty() && self.waits_since.elapsed() >= PATIENCE
    }
}

impl Stream {
    pub(super) const fn new(collector: Collector, tls: Option<CollectorTls>) -> Self {
        Self { collector, tls, session: None, octets_written: 0 }
    }

    /// Does something with the session. If the session breaks, unacknowledged messages are sent again in the next one.
    fn with<T>(
        &mut self,
        outbox: &mut Outbox,
        act: impl FnOnce(&mut Session, &mut Outbox) -> Result<T, Broken>,
    ) -> Result<T, SinkError> {
        let Some(session) = &mut self.session else {
            return Err(self.collector.unreachable(&"there is no connection"));
        };
        let before = session.written;
        let result = act(session, outbox);
        self.octets_written += session.written - before;
        let broken = match result {
            Ok(value) => return Ok(value),
            Err(Broken::Stalled) => {
                let message = format!(
                    "the collector {} has read nothing for {} s; is it overloaded?",
                    self.collector,
                    PATIENCE.as_secs()
                );
                return Err(SinkError::new(Loss::Stalled, message));
            }
            Err(broken) => broken,
        };
        let (arrived, was_stalled) = (session.acknowledged(), session.is_stalled());
        outbox.restart(arrived);
        self.session = None;
        Err(match broken {
            Broken::Tls(error) => tls::refused(&self.collector, &error),
            // The kernel gives up a connection when the other end has read nothing for long.
            Broken::Io(error) if was_stalled => {
                let message = format!("the collector {} reads nothing: {error}", self.collector);
                SinkError::new(Loss::Stalled, message)
            }
            Broken::Io(error) => self.collector.unreachable(&error),
            Broken::Stalled => self.collector.unreachable(&"it does not read"),
        })
    }
}

impl Carrier for Stream {
    fn open(&mut self, outbox: &mut Outbox) -> Result<bool, SinkError> {
        // A collector that was restarted has closed the former connection: connect again at once.
        if self.session.is_some() && self.with(outbox, |session, _| session.read()).is_ok() {
            return Ok(false);
        }
        let addresses = self.collector.addresses()?;
        let session = Session::connect(&addresses, self.tls.as_ref(), &self.collector)?;
        self.octets_written += session.written;
        self.session = Some(session);
        Ok(true)
    }

    fn send(&mut self, outbox: &mut Outbox) -> Result<(), SinkError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let is_done = self.with(outbox, |session, outbox| {
                session.flush(deadline)?;
                while session.wire.len() < GATHERED {
                    let next = outbox.next().map_err(|error| Broken::Io(io::Error::other(error)))?;
                    let Some(message) = next else { break };
                    session.put(message)?;
                    outbox.sent();
                }
                session.flush(deadline)?;
                outbox.arrived(session.acknowledged());
                Ok(outbox.is_sent())
            })?;
            if is_done {
                return Ok(());
            }
        }
    }

    fn confirm(&mut self, outbox: &mut Outbox, patience: Duration) -> Result<Taken, SinkError> {
        if outbox.is_sent() && outbox.may_return().is_empty() {
            return Ok(Taken::Delivered);
        }
        let deadline = Instant::now() + patience;
        loop {
            self.with(outbox, |session, outbox| {
                session.read()?;
                outbox.arrived(session.acknowledged());
                if session.is_stalled() { Err(Broken::Stalled) } else { Ok(()) }
            })?;
            if outbox.is_sent() && outbox.may_return().is_empty() {
                return Ok(Taken::Delivered);
            }
            if left(deadline).is_zero() {
                return Ok(Taken::Held);
            }
            self.with(outbox, |session, _| {
                session.wait(PollFlags::IN, left(deadline).min(ASK_PAUSE));
                Ok(())
            })?;
        }
    }

    fn retirement(&self) -> Retirement {
        Retirement::Withdrawn
    }

    fn close(&mut self, outbox: &mut Outbox) -> Result<Taken, SinkError> {
        let taken = self.confirm(outbox, PATIENCE)?;
        if taken == Taken::Delivered && self.session.is_some() {
            let deadline = Instant::now() + PATIENCE;
            // Everything has arrived: an error costs nothing now.
            let said = self.with(outbox, |session, _| {
                if let Some(tls) = &mut session.tls {
                    tls.send_close_notify();
                }
                session.encrypt()?;
                session.flush(deadline)?;
                Ok(session.socket.shutdown(Shutdown::Write)?)
            });
            said.ok();
            self.session = None;
        }
        Ok(taken)
    }

    fn octets_written(&self) -> u64 {
        self.octets_written
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

fn octets(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
