//! UDP: datagrams, and the ICMP errors that come back.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{Ipv4RecvErr, Ipv6RecvErr};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, recv};

use super::carrier::{Carrier, PATIENCE, Retirement};
use super::collector::Collector;
use super::outbox::{HEADER_OCTETS, Message, MessageKind, Outbox};
use super::pace::Pace;
use crate::delivery::loss::Loss;
use crate::delivery::sink::{SinkError, Taken};

/// How long to wait for an ICMP error after the first datagrams of a session, and after the last.
const REFUSED_WITHIN: Duration = Duration::from_millis(250);
/// How long, and how many, sent messages are kept because an ICMP error may still come for them.
const RETURNS_WITHIN: Duration = Duration::from_secs(2);
const RETURNS_MAX: usize = 1024;

/// Sends to a collector over UDP.
pub(super) struct Udp {
    collector: Collector,
    template_interval: Duration,
    pace: Pace,
    socket: Option<UdpSocket>,
    /// Whether the description at the begin of the session was sent and not refused.
    is_answered: bool,
    octets_written: u64,
}

impl Udp {
    pub(super) const fn new(collector: Collector, template_interval: Duration, pace: Pace) -> Self {
        Self { collector, template_interval, pace, socket: None, is_answered: false, octets_written: 0 }
    }

    fn connect(&self, addresses: &[SocketAddr]) -> io::Result<UdpSocket> {
        let mut refusal = io::Error::other("it has no address");
        for address in addresses {
            let local: SocketAddr = match address {
                SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
            };
            let socket = UdpSocket::bind(local)?;
            match socket.connect(address) {
                Ok(()) => {
                    socket.set_write_timeout(Some(PATIENCE))?;
                    // An ICMP error quotes the begin of its datagram, which identifies the message.
                    match address {
                        SocketAddr::V4(_) => setsockopt(&socket, Ipv4RecvErr, &true)?,
                        SocketAddr::V6(_) => setsockopt(&socket, Ipv6RecvErr, &true)?,
                    }
                    return Ok(socket);
                }
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }

    /// Whether an ICMP error comes within that time.
    fn is_refused(&self, patience: Duration) -> bool {
        let Some(socket) = &self.socket else { return false };
        let mut polled = [PollFd::new(socket, PollFlags::empty())];
        let timeout = Timespec::try_from(patience).ok();
        matches!(poll(&mut polled, timeout.as_ref()), Ok(1..)) && polled[0].revents().contains(PollFlags::ERR)
    }

    /// Ends the session: the datagram that ICMP quotes, and all that followed it, did not arrive.
    fn refused(&mut self, outbox: &mut Outbox, cause: &io::Error) -> SinkError {
        let quoted = self.socket.take().map(|socket| quotes(&socket)).unwrap_or_default();
        let sent = outbox.may_return();
        let is_quoted = |message: &Message| quoted.iter().any(|quote| message.octets.starts_with(quote));
        // A quote too short to identify the message: most likely it was the last one.
        let arrived = sent.iter().position(is_quoted).unwrap_or(sent.len().saturating_sub(1));
        outbox.restart(arrived);
        self.collector
            .unreachable(&format_args!("{cause}; is it running, and does it listen on this UDP port?"))
    }
}

/// The message headers that ICMP errors quote.
fn quotes(socket: &UdpSocket) -> Vec<[u8; HEADER_OCTETS]> {
    let mut quotes = Vec::new();
    let mut quote = [0; HEADER_OCTETS];
    while let Ok((octets, _)) = recv(socket, &mut quote[..], RecvFlags::ERRQUEUE | RecvFlags::DONTWAIT) {
        if octets == quote.len() {
            quotes.push(quote);
        }
    }
    quotes
}

impl Carrier for Udp {
    fn open(&mut self, outbox: &mut Outbox) -> Result<bool, SinkError> {
        if self.is_refused(Duration::ZERO) {
            return Err(self.refused(outbox, &io::ErrorKind::ConnectionRefused.into()));
        }
        if self.socket.is_some() {
            return Ok(false);
        }
        let addresses = self.collector.addresses()?;
        let socket = self.connect(&addresses).map_err(|error| self.collector.unreachable(&error))?;
        self.socket = Some(socket);
        self.is_answered = false;
        Ok(true)
    }

    fn send(&mut self, outbox: &mut Outbox) -> Result<(), SinkError> {
        while let Some(message) = outbox.next()? {
            // Templates can be sent again, so they go first to find out whether the collector is there.
            if message.kind == MessageKind::Flows && !self.is_answered {
                if self.is_refused(REFUSED_WITHIN) {
                    return Err(self.refused(outbox, &io::ErrorKind::ConnectionRefused.into()));
                }
                self.is_answered = true;
            }
            let Some(socket) = &self.socket else {
                return Err(self.collector.unreachable(&"there is no session"));
            };
            match socket.send(&message.octets) {
                Ok(_) => {
                    self.octets_written += u64::try_from(message.octets.len()).unwrap_or(0);
                    outbox.sent();
                    let pause = self.pace.pause(Instant::now());
                    if !pause.is_zero() && self.is_refused(pause) {
                        return Err(self.refused(outbox, &io::ErrorKind::ConnectionRefused.into()));
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
            forget(outbox, RETURNS_MAX);
        }
        Ok(())
    }

    fn confirm(&mut self, outbox: &mut Outbox, _patience: Duration) -> Result<Taken, SinkError> {
        // UDP confirms nothing. A later call sees ICMP errors that come later.
        if self.is_refused(Duration::ZERO) {
            return Err(self.refused(outbox, &io::ErrorKind::ConnectionRefused.into()));
        }
        forget(outbox, RETURNS_MAX);
        Ok(if outbox.is_sent() { Taken::Delivered } else { Taken::Held })
    }

    fn retirement(&self) -> Retirement {
        Retirement::Forgotten
    }

    fn template_interval(&self) -> Option<Duration> {
        Some(self.template_interval)
    }

    fn close(&mut self, outbox: &mut Outbox) -> Result<Taken, SinkError> {
        let patience = if outbox.may_return().is_empty() { Duration::ZERO } else { REFUSED_WITHIN };
        if self.is_refused(patience) {
            return Err(self.refused(outbox, &io::ErrorKind::ConnectionRefused.into()));
        }
        self.socket = None;
        outbox.arrived(usize::MAX);
        Ok(if outbox.is_sent() { Taken::Delivered } else { Taken::Held })
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
fn forget(outbox: &mut Outbox, keep: usize) {
    let sent = outbox.may_return();
    let now = Instant::now();
    let is_old = |message: &&Message| {
        message.sent_at.is_none_or(|sent_at| now.duration_since(sent_at) > RETURNS_WITHIN)
    };
    let old = sent.iter().take_while(is_old).count();
    let arrived = old.max(sent.len().saturating_sub(keep));
    outbox.arrived(arrived);
}
