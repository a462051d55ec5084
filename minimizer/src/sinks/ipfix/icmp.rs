//! What ICMP said of other ends, to all sinks of this process: a host answers another one only so often, and each error goes to
//! one socket.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long errors are remembered. Linux allows a burst of six to one peer, and one a second after that; how many it sent, nobody
/// knows who closed a socket after the first.
const REMEMBERED: Duration = Duration::from_secs(10);
/// Bound of the memory, beyond which the oldest are forgotten.
const ERRORS_MAX: usize = 256;

static ERRORS: Mutex<Vec<Refusal>> = Mutex::new(Vec::new());

/// An error.
#[derive(Clone, Copy, Debug)]
struct Refusal {
    /// Where the datagram went.
    peer: SocketAddr,
    /// When it was sent, as far as that is known.
    sent_at: Option<Instant>,
    heard_at: Instant,
}

/// Remembers that a datagram to `peer` was refused.
pub(super) fn remember(peer: SocketAddr, sent_at: Option<Instant>) {
    let heard_at = Instant::now();
    let mut errors = ERRORS.lock().unwrap_or_else(PoisonError::into_inner);
    errors.retain(|error| heard_at.duration_since(error.heard_at) < REMEMBERED);
    if errors.len() >= ERRORS_MAX {
        errors.remove(0);
    }
    errors.push(Refusal { peer, sent_at, heard_at });
}

/// When the first datagram to `peer` was sent that was refused, of those that were sent from `since` on.
pub(super) fn refused_since(peer: SocketAddr, since: Instant) -> Option<Instant> {
    let errors = ERRORS.lock().unwrap_or_else(PoisonError::into_inner);
    let of_peer = errors.iter().filter(|error| error.peer == peer);
    of_peer.filter_map(|error| error.sent_at).filter(|sent_at| *sent_at >= since).min()
}

/// Whether the host may hold errors back at the moment, so that silence means nothing.
pub(super) fn may_be_held_back(host: IpAddr) -> bool {
    let now = Instant::now();
    let errors = ERRORS.lock().unwrap_or_else(PoisonError::into_inner);
    let is_recent =
        |error: &Refusal| error.peer.ip() == host && now.duration_since(error.heard_at) < REMEMBERED;
    // The kernel limits no errors that stay on this host.
    !host.is_loopback() && errors.iter().any(is_recent)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Instant;

    use super::{may_be_held_back, refused_since, remember};

    #[test]
    fn an_error_to_one_sink_tells_the_others_of_the_same_peer() {
        let (peer, other) = ("192.0.2.77:4739".parse().unwrap(), "192.0.2.77:4740".parse().unwrap());
        let begin = Instant::now();
        assert_eq!(refused_since(peer, begin), None);
        let sent_at = Instant::now();
        remember(peer, Some(sent_at));
        remember(peer, Some(Instant::now()));
        remember(peer, None);
        assert_eq!(refused_since(peer, begin), Some(sent_at));
        assert_eq!((refused_since(peer, Instant::now()), refused_since(other, begin)), (None, None));
    }

    #[test]
    fn silence_of_a_host_means_nothing_after_an_error() {
        let peer: SocketAddr = "192.0.2.78:4739".parse().unwrap();
        assert!(!may_be_held_back(peer.ip()));
        remember(peer, None);
        assert!(may_be_held_back(peer.ip()));
        let here: SocketAddr = "127.0.0.1:1".parse().unwrap();
        remember(here, None);
        assert!(!may_be_held_back(here.ip()));
    }
}
