//! The parties of the harness, and the packets between them: subscribers with habits, hosts abroad, and what adversaries send.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use rand::RngExt as _;
use rand::rngs::ChaCha8Rng;
use rand::seq::IndexedRandom as _;

use super::drawn::INTERVAL;

/// Prefixes of the subscribers.
pub const DOMESTIC: [&str; 3] = ["203.0.113.0/24", "192.0.2.0/24", "2001:db8:100::/40"];
/// Subscribers with an IPv4 address: 1 to 250 of each of the two prefixes.
pub const SUBSCRIBERS_IPV4: usize = 300;
/// Subscribers with an IPv6 address, each in a /64 of its own.
const SUBSCRIBERS_IPV6: usize = 100;
/// All subscribers.
pub const SUBSCRIBERS: usize = SUBSCRIBERS_IPV4 + SUBSCRIBERS_IPV6;
const SUBSCRIBERS_PER_PREFIX: usize = 250;
/// Hosts abroad.
const HOSTS: usize = 600;
/// What a subscriber does again and again.
const HABITS: usize = 8;
/// Share of the subscribers that do something in a batch.
const ACTIVE: f64 = 0.7;
/// Fewest and most contacts of an active subscriber in a batch.
pub const BUSY: RangeInclusive<usize> = 3..=10;
/// The same in a batch of a quiet hour.
pub const QUIET: RangeInclusive<usize> = 1..=2;
/// Services, the most used first.
const SERVICES: [(u8, u16); 8] =
    [(6, 443), (17, 443), (17, 53), (6, 80), (6, 993), (17, 123), (6, 8080), (6, 22)];
const ETHERNET: [u8; 12] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
/// Protocol.
pub const TCP: u8 = 6;
/// Protocol.
pub const UDP: u8 = 17;
const IP_IN_IP: u8 = 4;
const IPV6_IN_IP: u8 = 41;
/// An address abroad and one of the network with which nothing may be collected.
pub const NEVER: [Ipv4Addr; 2] = [Ipv4Addr::new(198, 51, 100, 254), Ipv4Addr::new(192, 0, 2, 254)];
/// Gateways of the network: the ends of tunnels.
pub const GATEWAYS: [Ipv4Addr; 2] = [Ipv4Addr::new(203, 0, 113, 252), Ipv4Addr::new(203, 0, 113, 253)];

/// A packet.
#[derive(Clone, Debug)]
pub struct Sent {
    /// When, in milliseconds since the begin of the batch.
    pub at_ms: u64,
    /// Its frame.
    pub frame: Vec<u8>,
    /// The packet, but for what flows do not differ in: control bits and payload.
    pub packet: Packet,
    /// Its control bits.
    pub control_bits: u8,
}

/// What a packet has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Packet {
    /// Source and destination.
    pub addresses: [IpAddr; 2],
    /// Their ports.
    pub ports: [u16; 2],
    /// TCP or UDP.
    pub protocol: u8,
    /// Control bits of TCP.
    pub control_bits: u8,
    /// Type of service, or traffic class.
    pub class: u8,
    /// Octets of payload.
    pub payload: u16,
}

impl Packet {
    /// The frame.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        let header = if self.protocol == TCP { 20 } else { 8 };
        let behind_ip = header + self.payload;
        let mut frame = ETHERNET.to_vec();
        match self.addresses {
            [IpAddr::V4(source), IpAddr::V4(destination)] => {
                frame.extend([8, 0, 0x45, self.class]);
                frame.extend((20 + behind_ip).to_be_bytes());
                frame.extend([0, 0, 0, 0, 64, self.protocol, 0, 0]);
                frame.extend(source.octets().into_iter().chain(destination.octets()));
            }
            [IpAddr::V6(source), IpAddr::V6(destination)] => {
                frame.extend([0x86, 0xdd, 0x60 | self.class >> 4, self.class << 4, 0, 0]);
                frame.extend(behind_ip.to_be_bytes());
                frame.extend([self.protocol, 64]);
                frame.extend(source.octets().into_iter().chain(destination.octets()));
            }
            _ => {}
        }
        frame.extend(self.ports.iter().flat_map(|port| port.to_be_bytes()));
        if self.protocol == TCP {
            frame.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, self.control_bits, 1, 0, 0, 0, 0, 0]);
        } else {
            frame.extend((8 + self.payload).to_be_bytes());
            frame.extend([0, 0]);
        }
        frame.resize(frame.len() + usize::from(self.payload), 0x55);
        frame
    }

    /// The packet at a time.
    #[must_use]
    pub fn at(&self, at_ms: u64) -> Sent {
        let packet = Self { control_bits: 0, payload: 0, ..*self };
        Sent { at_ms, frame: self.frame(), packet, control_bits: self.control_bits }
    }

    /// The packet inside of another IPv4 packet, at the begin of the batch.
    #[must_use]
    pub fn inside(&self, outer: [Ipv4Addr; 2]) -> Sent {
        let mut sent = self.at(0);
        let inner = sent.frame.split_off(ETHERNET.len() + 2);
        let protocol = if self.addresses[0].is_ipv6() { IPV6_IN_IP } else { IP_IN_IP };
        let length = 20 + u16::try_from(inner.len()).expect("packets are short");
        let mut frame = ETHERNET.to_vec();
        frame.extend([8, 0, 0x45, 0]);
        frame.extend(length.to_be_bytes());
        frame.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
        frame.extend(outer.into_iter().flat_map(|address| address.octets()));
        frame.extend(inner);
        sent.frame = frame;
        sent
    }

    /// The packet that comes back.
    #[must_use]
    pub const fn answer(&self) -> Self {
        let ([source, destination], [from, to]) = (self.addresses, self.ports);
        Self { addresses: [destination, source], ports: [to, from], ..*self }
    }
}

/// The address of a subscriber.
///
/// # Panics
/// For a number from [`SUBSCRIBERS`] on.
#[must_use]
pub fn subscriber(number: usize) -> IpAddr {
    assert!(number < SUBSCRIBERS, "there is no subscriber {number}");
    if number < SUBSCRIBERS_IPV4 {
        let network = if number < SUBSCRIBERS_PER_PREFIX { [203, 0, 113] } else { [192, 0, 2] };
        let host = u8::try_from(1 + number % SUBSCRIBERS_PER_PREFIX).expect("at most 250");
        return Ipv4Addr::new(network[0], network[1], network[2], host).into();
    }
    let site = u16::try_from(number).expect("few");
    Ipv6Addr::new(0x2001, 0xdb8, 0x100, site, 0, 0, 0, 7).into()
}

/// The number of the subscriber with that address.
#[must_use]
pub fn number(address: IpAddr) -> Option<usize> {
    match address {
        IpAddr::V4(address) => {
            let [network @ .., host] = address.octets();
            let first = match network {
                [203, 0, 113] => 0,
                [192, 0, 2] => SUBSCRIBERS_PER_PREFIX,
                _ => return None,
            };
            Some(first + usize::from(host.checked_sub(1)?))
        }
        IpAddr::V6(address) => match address.segments() {
            [0x2001, 0xdb8, 0x100, site, ..] => Some(usize::from(site)),
            _ => None,
        },
    }
}

/// The address of a host abroad: eight in each /24, or each in a /48 of its own.
fn host(number: usize, ipv6: bool) -> IpAddr {
    let [high, low] = u16::try_from(number).expect("few").to_be_bytes();
    if ipv6 {
        Ipv6Addr::new(0x2001, 0xdb8, 0xf000 | u16::from(high), u16::from(low), 0, 0, 0, 9).into()
    } else {
        Ipv4Addr::new(198, 18, low >> 3 | high << 5, 1 + (low & 7)).into()
    }
}

/// What a subscriber does again and again: where, and by which service.
#[derive(Clone, Copy, Debug)]
struct Habit {
    host: IpAddr,
    service: (u8, u16),
}

/// All parties.
pub struct World {
    habits: Vec<[Habit; HABITS]>,
}

impl World {
    /// Parties with habits drawn at random: few hosts and services are those of many.
    #[must_use]
    pub fn draw(random: &mut ChaCha8Rng) -> Self {
        let mut skewed = |count: usize| {
            let part: f64 = random.random_range(0.0_f64..1.0).powi(2);
            let number = (part * count as f64).to_string();
            number.split('.').next().and_then(|whole| whole.parse::<usize>().ok()).unwrap_or(0)
        };
        let habits = (0..SUBSCRIBERS).map(|number| {
            let is_ipv6 = subscriber(number).is_ipv6();
            [(); HABITS].map(|()| Habit {
                host: host(skewed(HOSTS), is_ipv6),
                service: SERVICES[skewed(SERVICES.len())],
            })
        });
        Self { habits: habits.collect() }
    }

    /// The packets of a batch in which each active subscriber has so many contacts, in the order of their times.
    pub fn batch(&self, random: &mut ChaCha8Rng, contacts: RangeInclusive<usize>) -> Vec<Sent> {
        let length_ms = u64::try_from(INTERVAL.as_millis()).unwrap_or(u64::MAX);
        let mut sent = Vec::new();
        for (number, habits) in self.habits.iter().enumerate() {
            if !random.random_bool(ACTIVE) {
                continue;
            }
            for _ in 0..random.random_range(contacts.clone()) {
                let habit = *habits.choose(random).expect("some");
                contact(random, subscriber(number), habit, length_ms, &mut sent);
            }
        }
        sent.sort_by_key(|sent| sent.at_ms);
        sent
    }
}

/// What a subscriber sends to a host, and what the host answers.
fn contact(random: &mut ChaCha8Rng, subscriber: IpAddr, habit: Habit, length_ms: u64, sent: &mut Vec<Sent>) {
    let Habit { host, service: (protocol, service) } = habit;
    let client = random.random_range(32_768..61_000);
    let begin = random.random_range(0..length_ms * 9 / 10);
    for (addresses, ports) in
        [([subscriber, host], [client, service]), ([host, subscriber], [service, client])]
    {
        for _ in 0..random.random_range(1..=4_u32) {
            let control_bits = *[0x02, 0x10, 0x18, 0x11].choose(random).expect("some");
            let payload = random.random_range(0..1200);
            let packet = Packet { addresses, ports, protocol, control_bits, class: 0, payload };
            sent.push(packet.at((begin + random.random_range(0..length_ms / 10)).min(length_ms - 1)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{SUBSCRIBERS, number, subscriber};

    #[test]
    fn every_subscriber_is_known_by_its_address() {
        for each in 0..SUBSCRIBERS {
            assert_eq!(number(subscriber(each)), Some(each));
        }
    }
}
