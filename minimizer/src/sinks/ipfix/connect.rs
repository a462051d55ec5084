//! Connects to the address of a host that answers first (RFC 8305, Happy Eyeballs).

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};

/// Head start of an address before the next one is tried too (RFC 8305, 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// The first connection that is made. Its socket does not block.
///
/// # Errors
/// The last refusal, or that none of them answers until `deadline`.
pub(super) fn to_one_of(addresses: &[SocketAddr], deadline: Instant) -> io::Result<TcpStream> {
    let mut waiting = by_turns(addresses);
    let mut attempts: Vec<TcpStream> = Vec::new();
    let mut refusal = io::Error::other("it has no address");
    let mut next_at = Instant::now();
    loop {
        if attempts.is_empty() || Instant::now() >= next_at {
            match waiting.pop_front().map(begin) {
                Some(Ok(socket)) => {
                    attempts.push(socket.into());
                    next_at = Instant::now() + ATTEMPT_DELAY;
                }
                Some(Err(error)) => {
                    refusal = error.into();
                    continue;
                }
                None if attempts.is_empty() => return Err(refusal),
                None => {}
            }
        }
        let until = if waiting.is_empty() { deadline } else { deadline.min(next_at) };
        let timeout = Timespec::try_from(until.saturating_duration_since(Instant::now())).ok();
        let mut polled: Vec<_> = attempts.iter().map(|socket| PollFd::new(socket, PollFlags::OUT)).collect();
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let done: Vec<bool> = polled.iter().map(|polled| !polled.revents().is_empty()).collect();
        let (mut done, mut left) = (done.into_iter(), Vec::new());
        for socket in attempts {
            if !done.next().unwrap_or(false) {
                left.push(socket);
                continue;
            }
            match sockopt::socket_error(&socket)? {
                Ok(()) => return Ok(socket),
                Err(error) => refusal = error.into(),
            }
        }
        attempts = left;
        if Instant::now() >= deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
}

fn begin(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    match connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error),
    }
}

/// The addresses with both families by turns, beginning with that of the first one (RFC 8305, 4).
fn by_turns(addresses: &[SocketAddr]) -> VecDeque<SocketAddr> {
    let first = addresses.first().is_some_and(SocketAddr::is_ipv4);
    let of = |family: bool| addresses.iter().copied().filter(move |address| address.is_ipv4() == family);
    let (mut one, mut other, mut turns) = (of(first), of(!first), VecDeque::new());
    loop {
        let before = turns.len();
        turns.extend(one.next());
        turns.extend(other.next());
        if turns.len() == before {
            return turns;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener};
    use std::time::{Duration, Instant};

    use super::{by_turns, to_one_of};

    #[test]
    fn families_take_turns_and_none_is_lost() {
        let parse = |text: &str| text.parse::<SocketAddr>().unwrap();
        let addresses = ["[::1]:1", "[::2]:1", "[::3]:1", "192.0.2.1:1"].map(parse);
        let turns = ["[::1]:1", "192.0.2.1:1", "[::2]:1", "[::3]:1"].map(parse);
        assert_eq!(by_turns(&addresses), turns);
    }

    #[test]
    fn a_refusal_leads_to_the_next_address_and_the_last_one_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let open = listener.local_addr().unwrap();
        let deadline = Instant::now() + Duration::from_mins(1);
        assert_eq!(to_one_of(&[closed, open], deadline).unwrap().peer_addr().unwrap(), open);
        let refused = to_one_of(&[closed, closed], deadline).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        assert!(to_one_of(&[], deadline).is_err());
    }

    #[test]
    fn nobody_is_waited_for_beyond_the_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // Nobody accepts: once the queue is full, further connections hear nothing.
        let address = listener.local_addr().unwrap();
        let mut kept = Vec::new();
        let error = loop {
            match to_one_of(&[address], Instant::now() + Duration::from_millis(50)) {
                Ok(stream) => kept.push(stream),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    }
}
