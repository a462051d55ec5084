//! UDP: datagrams, and the ICMP errors that come back. Nothing says that a datagram arrived.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{Ipv4RecvErr, Ipv6RecvErr};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, recv};

use super::carrier::{Carrier, PATIENCE, Retirement};
use super::collector::Collector;
use super::icmp;
use super::outbox::{HEADER_OCTETS, Message, MessageKind, Outbox};
use super::pace::Pace;
use crate::delivery::ending::Ending;
use crate::delivery::loss::Loss;
use crate::delivery::sink::{Heading, SinkError, Taken};

/// How long to wait for an ICMP error after the first datagrams of a session, and after the last.
const REFUSED_WITHIN: Duration = Duration::from_millis(250);
/// The time within which a host that holds errors back sends the next one: Linux sends one a second.
const HELD_BACK: Duration = Duration::from_millis(1100);
/// How long, and how many, sent messages are kept because an ICMP error may still come for them. Their records are held until
/// then.
const RETURNS_WITHIN: Duration = Duration::from_secs(2);
const RETURNS_MAX: usize = 4096;

/// Sends to a collector over UDP.
pub(super) struct Udp {
    collector: Collector,
    template_interval: Duration,
    pace: Pace,
    /// The end of the agent, from which on there is less time to spread messages over.
    ending: Ending,
    session: Option<Session>,
    /// The address that refused last: the next session begins with the one behind it.
    refused: Option<SocketAddr>,
    octets_written: u64,
}

/// Datagrams to one address.
struct Session {
    socket: UdpSocket,
    peer: SocketAddr,
    since: Instant,
    /// When the name service was asked last.
    asked_at: Instant,
    has_sent: bool,
    /// When an empty message was sent last, only to be refused.
    provoked_at: Option<Instant>,
    /// Whether the agent waited for an error after the first datagrams, and heard none.
    is_probed: bool,
}

impl Session {
    fn open(peer: SocketAddr) -> io::Result<Self> {
        let local: SocketAddr = match peer {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(local)?;
        socket.connect(peer)?;
        socket.set_write_timeout(Some(PATIENCE))?;
        // An ICMP error quotes the begin of its datagram, which identifies the message.
        match peer {
            SocketAddr::V4(_) => setsockopt(&socket, Ipv4RecvErr, &true)?,
            SocketAddr::V6(_) => setsockopt(&socket, Ipv6RecvErr, &true)?,
        }
        let now = Instant::now();
        Ok(Self {
            socket,
            peer,
            since: now,
            asked_at: now,
            has_sent: false,
            provoked_at: None,
            is_probed: false,
        })
    }

    /// Whether an ICMP error comes within that time, or another sink has got one from the same peer.
    fn is_refused(&self, patience: Duration) -> bool {
        let mut polled = [PollFd::new(&self.socket, PollFlags::empty())];
        let timeout = Timespec::try_from(patience).ok();
        let is_polled = matches!(poll(&mut polled, timeout.as_ref()), Ok(1..))
            && polled[0].revents().contains(PollFlags::ERR);
        is_polled || self.refused_since().is_some()
    }

    fn refused_since(&self) -> Option<Instant> {
        icmp::refused_since(self.peer, self.since)
    }

    /// How many of the sent messages arrived, now that the session is refused: those before the one that an ICMP error
    /// quotes, and those before the first one of another sink that was refused.
    fn arrived(&self, outbox: &Outbox) -> usize {
        // Before the errors of now: what was sent earlier can have been refused unheard.
        let is_held_back = icmp::may_be_held_back(self.peer.ip());
        let (sent, quotes) = (outbox.may_return(), quotes(&self.socket));
        let mut first = sent.len();
        // An error that quotes nothing known most likely belongs to the last one.
        let last = sent.len().saturating_sub(1);
        for quote in &quotes {
            let place = sent.iter().position(|message| message.octets.starts_with(quote));
            let sent_at = place.map_or(self.provoked_at, |place| sent.get(place)?.sent_at);
            icmp::remember(self.peer, sent_at);
            first = first.min(place.unwrap_or(last));
        }
        let since = self.refused_since();
        if quotes.is_empty() && since.is_none() {
            first = last;
        }
        if let Some(since) = since {
            let is_earlier = |message: &&Message| message.sent_at.is_some_and(|sent_at| sent_at < since);
            first = first.min(sent.iter().take_while(is_earlier).count());
        }
        if is_held_back { 0 } else { first }
    }
}

impl Udp {
    pub(super) fn new(collector: Collector, template_interval: Duration, pace: Pace) -> Self {
        let ending = Ending::default();
        Self { collector, template_interval, pace, ending, session: None, refused: None, octets_written: 0 }
    }

    /// Has it hurry when the agent ends.
    pub(super) fn heeding(self, ending: Ending) -> Self {
        Self { ending, ..self }
    }

    /// Begins a session with the first address that can be used, from the one behind `refused` on.
    fn connect(&self, mut addresses: Vec<SocketAddr>) -> io::Result<Session> {
        let place = self.refused.and_then(|refused| addresses.iter().position(|address| *address == refused));
        let behind = place.map_or(0, |place| place + 1);
        addresses.rotate_left(behind);
        let mut refusal = io::Error::other("it has no address");
        for address in addresses {
            match Session::open(address) {
                Ok(session) => return Ok(session),
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }

    /// Asks the name service again when templates are due. Returns whether the collector is somewhere else now; it stays where
    /// it was while nobody answers.
    fn has_moved(&mut self) -> bool {
        let Some(session) = &mut self.session else { return false };
        if session.asked_at.elapsed() < self.template_interval {
            return false;
        }
        session.asked_at = Instant::now();
        let addresses = self.collector.addresses();
        addresses.is_ok_and(|addresses| !addresses.contains(&session.peer))
    }

    fn is_refused(&self, patience: Duration) -> bool {
        self.session.as_ref().is_some_and(|session| session.is_refused(patience))
    }

    /// Fails when an ICMP error comes within that time.
    fn listen(&mut self, outbox: &mut Outbox, patience: Duration) -> Result<(), SinkError> {
        if self.is_refused(patience) {
            return Err(self.refused(outbox, &io::ErrorKind::ConnectionRefused.into()));
        }
        Ok(())
    }

    /// Ends the session: the datagram that ICMP quotes, and all that followed it, did not arrive.
    fn refused(&mut self, outbox: &mut Outbox, cause: &io::Error) -> SinkError {
        if let Some(session) = self.session.take() {
            self.refused = Some(session.peer);
            outbox.restart(session.arrived(outbox));
        }
        self.collector
            .unreachable(&format_args!("{cause}; is it running, and does it listen on this UDP port?"))
    }

    /// Sends an empty message.
    fn provoke(&mut self, outbox: &Outbox) -> Result<(), SinkError> {
        let empty = outbox.empty_message()?;
        if let Some(session) = &mut self.session {
            session.provoked_at = Some(Instant::now());
            // An error of an earlier datagram is read as such.
            session.socket.send(&empty).ok();
        }
        Ok(())
    }

    /// Whether the host may have held back the errors for what was sent, and can send the next one by now.
    fn may_be_provoked(&self, outbox: &Outbox) -> bool {
        let Some(session) = &self.session else { return false };
        let sent_at = outbox.may_return().back().and_then(|message| message.sent_at);
        let last = sent_at.max(session.provoked_at);
        sent_at.is_some()
            && last.is_some_and(|last| last.elapsed() >= HELD_BACK)
            && icmp::may_be_held_back(session.peer.ip())
    }

    /// Finds out whether what the session has sent so far is refused. Silence is all that can be hoped for.
    fn probe(&mut self, outbox: &mut Outbox) -> Result<(), SinkError> {
        if self.session.as_ref().is_none_or(|session| session.is_probed || !session.has_sent) {
            return Ok(());
        }
        self.listen(outbox, REFUSED_WITHIN)?;
        if self.session.as_ref().is_some_and(|session| icmp::may_be_held_back(session.peer.ip())) {
            self.listen(outbox, HELD_BACK.saturating_sub(REFUSED_WITHIN))?;
            self.provoke(outbox)?;
            self.listen(outbox, REFUSED_WITHIN)?;
        }
        if let Some(session) = &mut self.session {
            session.is_probed = true;
        }
        Ok(())
    }
}

/// The message headers that ICMP errors quote.
fn quotes(socket: &UdpSocket) -> Vec<[u8; HEADER_OCTETS]> {
    let mut quotes = Vec::new();
    let mut quote = [0; HEADER_OCTETS];
    while let Ok((octets, _)) = recv(socket, &mut quote[..], RecvFlags::ERRQUEUE | RecvFlags::DONTWAIT) {
        // A quote too short to identify the message is none of a known one.
        quotes.push(if octets == quote.len() { quote } else { [0; HEADER_OCTETS] });
    }
    quotes
}

impl Carrier for Udp {
    fn heed(&mut self, heading: &Heading<'_>) -> bool {
        let interval = Duration::from_millis(heading.end_ms.saturating_sub(heading.begin_ms));
        self.pace.spread(heading.records, interval, Instant::now());
        false
    }

    fn open(&mut self, outbox: &mut Outbox) -> Result<bool, SinkError> {
        self.listen(outbox, Duration::ZERO)?;
        if self.has_moved() {
            // Nothing more will be heard of what was sent to the former place.
            self.session = None;
            outbox.arrived(usize::MAX);
        }
        if self.session.is_some() {
            return Ok(false);
        }
        let addresses = self.collector.addresses()?;
        let session = self.connect(addresses).map_err(|error| self.collector.unreachable(&error))?;
        self.session = Some(session);
        Ok(true)
    }

    fn send(&mut self, outbox: &mut Outbox) -> Result<(), SinkError> {
        while let Some(kind) = outbox.next_kind() {
            // Templates can be sent again, so they go first to find out whether the collector is there.
            if kind == MessageKind::Flows {
                self.probe(outbox)?;
            }
            let Some(message) = outbox.next()? else { break };
            let Some(session) = &mut self.session else {
                return Err(self.collector.unreachable(&"there is no session"));
            };
            match session.socket.send(&message.octets) {
                Ok(_) => {
                    session.has_sent = true;
                    self.octets_written += u64::try_from(message.octets.len()).unwrap_or(0);
                    let records = message.sums.records;
                    outbox.sent();
                    let pause = self.pace.pause(records, self.ending.deadline(), Instant::now());
                    if !pause.is_zero() {
                        self.listen(outbox, pause)?;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_full(&error) => {
                    let message =
                        format!("cannot send to the collector {}: {error}; the link is full", self.collector);
                    return Err(SinkError::new(Loss::Stalled, message));
                }
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                    let message = format!(
                        "cannot send messages of {} octets to the collector {}: {error}; set a smaller `message_octets`",
                        message.octets.len(),
                        self.collector
                    );
                    return Err(SinkError::new(Loss::Unreachable, message));
                }
                Err(error) => return Err(self.refused(outbox, &error)),
            }
            forget(outbox);
        }
        Ok(())
    }

    fn confirm(&mut self, outbox: &mut Outbox, _patience: Duration) -> Result<Taken, SinkError> {
        // UDP confirms nothing. A later call sees ICMP errors that come later.
        self.listen(outbox, Duration::ZERO)?;
        self.probe(outbox)?;
        if self.may_be_provoked(outbox) {
            self.provoke(outbox)?;
            self.listen(outbox, Duration::ZERO)?;
        }
        forget(outbox);
        Ok(Taken::Sent { until: outbox.oldest_flows().unwrap_or_else(Instant::now) })
    }

    fn is_confirmed(&self) -> bool {
        false
    }

    fn retirement(&self) -> Retirement {
        Retirement::Forgotten
    }

    fn template_interval(&self) -> Option<Duration> {
        Some(self.template_interval)
    }

    fn close(&mut self, outbox: &mut Outbox) -> Result<Taken, SinkError> {
        if !outbox.may_return().is_empty() {
            self.listen(outbox, REFUSED_WITHIN)?;
            if let Some(session) = &mut self.session
                && icmp::may_be_held_back(session.peer.ip())
            {
                session.is_probed = false;
                self.probe(outbox)?;
            }
        }
        self.session = None;
        outbox.arrived(usize::MAX);
        Ok(Taken::Sent { until: outbox.oldest_flows().unwrap_or_else(Instant::now) })
    }

    fn octets_written(&self) -> u64 {
        self.octets_written
    }
}

/// Whether the host's queue is full at the moment.
fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ENOBUFS)
}

/// Drops messages for which no ICMP error is expected any more.
fn forget(outbox: &mut Outbox) {
    let sent = outbox.may_return();
    let now = Instant::now();
    let is_old = |message: &&Message| {
        message.sent_at.is_none_or(|sent_at| now.duration_since(sent_at) > RETURNS_WITHIN)
    };
    let old = sent.iter().take_while(is_old).count();
    let arrived = old.max(sent.len().saturating_sub(RETURNS_MAX));
    outbox.arrived(arrived);
}
