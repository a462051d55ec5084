//! Who keeps a connection when there are many: a new one always gets a place, and one that waits gives way to it.
//!
//! Nobody knows what a connection will ask before it asks. So monitoring keeps its way in not by seats that stay empty,
//! but because a request that is on its way is the last one to be cut.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::phase::{Phase, Phases};

/// A connection in a phase this young is cut last: its client had no chance yet.
const YOUNG: Duration = Duration::from_secs(1);
/// Part of the usual time that a connection may wait when there is hardly a place left: one in so many.
const PRESSED: u32 = 10;

/// Who connects: an IPv4 address, or the /64 of an IPv6 address, because one host has all addresses of its /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer(IpAddr);

impl From<IpAddr> for Peer {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = u128::from(address) >> 64 << 64;
                IpAddr::V6(Ipv6Addr::from(network))
            }
            address @ IpAddr::V4(_) => address,
        })
    }
}

/// The connections of one port.
#[derive(Clone, Debug)]
pub struct Places(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Connections at once.
    most: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    by_number: BTreeMap<u64, (Peer, Phases)>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Places,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken().by_number.remove(&self.number);
    }
}

impl Places {
    /// Places for `most` connections.
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Shared { most: most.max(2), taken: Mutex::default() }))
    }

    /// Takes a place for a connection. Those that waited too long, or longest, lose theirs where there are too many.
    pub fn take(&self, peer: Peer, phases: Phases) -> Place {
        let mut taken = self.taken();
        taken.cut_the_slow(self.0.most);
        if taken.of(peer) >= peer_most(self.0.most) {
            taken.cut_one_of(peer);
        }
        if taken.by_number.len() >= self.0.most {
            taken.cut_one();
        }
        let number = taken.next;
        taken.next += 1;
        taken.by_number.insert(number, (peer, phases));
        drop(taken);
        Place { places: self.clone(), number }
    }

    /// Cuts one connection, because the process has no file descriptor left.
    pub fn cut_one(&self) {
        self.taken().cut_one();
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connections of one peer at once. Behind a loopback address there may be many, and they leave room for others.
const fn peer_most(most: usize) -> usize {
    most - most / 4
}

impl Taken {
    fn of(&self, peer: Peer) -> usize {
        self.by_number.values().filter(|(other, _)| *other == peer).count()
    }

    /// With more than half of the places taken, the time to wait shrinks with the places that are left.
    fn cut_the_slow(&mut self, most: usize) {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let left = most.saturating_sub(self.by_number.len());
        if left >= most / 2 {
            return;
        }
        self.by_number.retain(|_, (_, phases)| {
            let (phase, age) = phases.since();
            let limit = phase.limit();
            let pressed = (limit / count(most / 2).max(1) * count(left)).max(limit / PRESSED);
            let stays = phase == Phase::Answer || age < pressed;
            if !stays {
                phases.enter(Phase::Displaced);
            }
            stays
        });
    }

    /// Cuts a connection of the peer that has the most.
    fn cut_one(&mut self) {
        let mut by_peer = HashMap::<Peer, usize>::new();
        for (peer, _) in self.by_number.values() {
            *by_peer.entry(*peer).or_default() += 1;
        }
        let most = by_peer.values().copied().max().unwrap_or(0);
        self.cut(|peer| by_peer.get(&peer) == Some(&most));
    }

    fn cut_one_of(&mut self, peer: Peer) {
        self.cut(|other| other == peer);
    }

    /// Cuts the one that has waited longest: first for a request, then for a client that takes its answer.
    fn cut(&mut self, is_eligible: impl Fn(Peer) -> bool) {
        let waiting = self.by_number.iter().filter(|(_, (peer, _))| is_eligible(*peer)).max_by_key(
            |(number, (_, phases))| {
                let (phase, age) = phases.since();
                (age >= YOUNG, phase != Phase::Answer, age, std::cmp::Reverse(**number))
            },
        );
        let Some(number) = waiting.map(|(number, _)| *number) else { return };
        if let Some((_, phases)) = self.by_number.remove(&number) {
            phases.enter(Phase::Displaced);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use tokio::time::advance;

    use super::{Peer, Place, Places};
    use crate::serve::http::phase::{IDLE_LIMIT, Phase, Phases};

    const MOST: usize = 16;

    fn peer(address: &str) -> Peer {
        address.parse::<IpAddr>().expect("an address").into()
    }

    fn enter(places: &Places, peer: Peer) -> (Place, Phases) {
        let phases = Phases::new();
        (places.take(peer, phases.clone()), phases)
    }

    fn is_cut((_, phases): &(Place, Phases)) -> bool {
        phases.since().0 == Phase::Displaced
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(test);
    }

    #[test]
    fn the_peer_with_most_loses_its_oldest_and_nobody_else_does() {
        run(async {
            let places = Places::new(MOST);
            let scraper = enter(&places, peer("192.0.2.1"));
            let mut many = Vec::new();
            for _ in 0..100 {
                advance(Duration::from_millis(1)).await;
                many.push(enter(&places, peer("192.0.2.2")));
            }
            assert!(!is_cut(&scraper));
            // Three quarters of the places, and the youngest of them.
            assert_eq!(many.iter().filter(|one| !is_cut(one)).count(), 12);
            assert!(many[88..].iter().all(|one| !is_cut(one)));
            // All others together fill what is left; the one with most gives way to more of them.
            let others: Vec<_> =
                (1..=5).map(|other| enter(&places, peer(&format!("198.51.100.{other}")))).collect();
            assert!(others.iter().all(|one| !is_cut(one)) && !is_cut(&scraper));
            assert_eq!(many.iter().filter(|one| !is_cut(one)).count(), 10);
            drop(many);
            assert_eq!(places.taken().by_number.len(), 6);
        });
    }

    #[test]
    fn who_is_answered_is_cut_last() {
        run(async {
            let places = Places::new(MOST);
            let me = peer("127.0.0.1");
            let answered = enter(&places, me);
            answered.1.enter(Phase::Answer);
            advance(Duration::from_secs(1)).await;
            let later: Vec<_> = (0..40).map(|_| enter(&places, me)).collect();
            assert!(is_cut(&answered), "all others are young");
            assert_eq!(later.iter().filter(|one| !is_cut(one)).count(), 12);

            let answered = enter(&places, me);
            answered.1.enter(Phase::Answer);
            let mut idle = Vec::new();
            for _ in 0..40 {
                advance(Duration::from_secs(1)).await;
                drop(enter(&places, me));
                idle.push(enter(&places, me));
            }
            assert!(!is_cut(&answered));
        });
    }

    #[test]
    fn the_fewer_places_are_left_the_shorter_one_may_wait() {
        run(async {
            let places = Places::new(MOST);
            let idle: Vec<_> = (0..8).map(|last| enter(&places, peer(&format!("192.0.2.{last}")))).collect();
            idle.iter().for_each(|(_, phases)| phases.enter(Phase::Idle));
            advance(IDLE_LIMIT / 2).await;
            // Half of the places are free when this one comes: nobody is pressed.
            let ninth = enter(&places, peer("192.0.2.9"));
            assert!(!idle.iter().any(is_cut));
            let tenth = enter(&places, peer("192.0.2.10"));
            assert!(!idle.iter().any(is_cut), "7 of 8 parts of the time");
            advance(IDLE_LIMIT / 4 + Duration::from_secs(12)).await;
            let _eleventh = enter(&places, peer("192.0.2.11"));
            assert!(idle.iter().all(is_cut) && is_cut(&ninth) && is_cut(&tenth));
        });
    }

    #[test]
    fn a_network_of_one_host_is_one_peer() {
        assert_eq!(peer("2001:db8::1"), peer("2001:db8::ffff:1:2"));
        assert_ne!(peer("2001:db8::1"), peer("2001:db8:0:1::1"));
        assert_eq!(peer("::ffff:192.0.2.1"), peer("192.0.2.1"));
        assert_ne!(peer("192.0.2.1"), peer("192.0.2.2"));
    }
}
