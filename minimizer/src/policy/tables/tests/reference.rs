//! Compares the tables with the policy, applied line by line, for random policies and packets.

use jiff::Timestamp;
use minimizer_common::outcome::Outcome;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt as _, SeedableRng as _};

use super::{Built, TableError, build, judged};
use crate::policy::class::Class;
use crate::policy::embedded::WELL_KNOWN;
use crate::policy::indicators::Indicator;
use crate::policy::model::Scope;
use crate::policy::prefixes::Prefix;
use crate::policy::special::RANGES;

/// A packet to look up in the tables.
#[derive(Clone, Debug)]
pub struct Packet {
    pub ipv6: bool,
    pub octets: [[u8; 16]; 2],
    pub ports: (u16, u16),
    pub protocol: u8,
    pub now_seconds: u32,
}

impl Packet {
    /// Its addresses, as in a tuple.
    pub fn addresses(&self) -> [u64; 4] {
        let [source, destination] = self.octets;
        let word = |octets: &[u8]| u64::from_le_bytes(octets.try_into().unwrap());
        if self.ipv6 {
            [word(&source[..8]), word(&source[8..]), word(&destination[..8]), word(&destination[8..])]
        } else {
            [word(&[&source[..4], &destination[..4]].concat()), 0, 0, 0]
        }
    }
}

fn covers(prefix: &Prefix, ipv6: bool, octets: &[u8; 16]) -> bool {
    prefix.ipv6 == ipv6
        && (0..usize::from(prefix.bits))
            .all(|bit| (prefix.octets[bit / 8] ^ octets[bit / 8]) >> (7 - bit % 8) & 1 == 0)
}

fn class(scope: &Scope, ipv6: bool, octets: &[u8; 16]) -> Class {
    let of = |ipv6, octets: &[u8; 16]| {
        let octets = *octets;
        let covering = scope.prefixes.iter().filter(move |(prefix, _)| covers(prefix, ipv6, &octets));
        covering.filter(|(_, class)| *class != Class::Embedded).copied().collect::<Vec<_>>()
    };
    let special = |ipv6, octets: &[u8; 16]| {
        let is_special = RANGES.iter().any(|range| covers(&range.prefix, ipv6, octets));
        if is_special { Class::Special } else { Class::Foreign }
    };
    let mut listed: Vec<_> =
        of(ipv6, octets).iter().map(|(prefix, class)| (prefix.bits, true, *class)).collect();
    // Where an IPv4 address lies in the address, and what the scope says of it.
    let mut innermost: Option<(u8, Class)> = None;
    for (embedding, inside) in carried(Some(scope), ipv6, octets) {
        let forms = of(false, &inside);
        listed.extend(forms.iter().map(|(prefix, class)| (embedding.bits + prefix.bits, false, *class)));
        if innermost.is_none_or(|(bits, _)| bits < embedding.bits) {
            innermost = Some((embedding.bits, special(false, &inside)));
        }
    }
    if listed.iter().any(|(.., class)| *class == Class::Never) {
        return Class::Never;
    }
    let (least, otherwise) = innermost.unwrap_or_else(|| (0, special(ipv6, octets)));
    let longest =
        listed.into_iter().filter(|(bits, ..)| *bits >= least).max_by_key(|(bits, own, _)| (*bits, *own));
    longest.map_or(otherwise, |(.., class)| class)
}

/// The IPv4 addresses that an address carries, each with the prefix in front of it.
fn carried(scope: Option<&Scope>, ipv6: bool, octets: &[u8; 16]) -> Vec<(Prefix, [u8; 16])> {
    let listed = scope.iter().flat_map(|scope| &scope.prefixes);
    let own = listed.filter(|(_, class)| *class == Class::Embedded).map(|(prefix, _)| *prefix);
    let embeddings = WELL_KNOWN.iter().map(|known| known.prefix).chain(own);
    let inside = |embedding: Prefix| {
        let mut inside = [0; 16];
        let first = usize::from(embedding.bits / 8);
        inside[..4].copy_from_slice(&octets[first..first + 4]);
        (embedding, inside)
    };
    embeddings.filter(|embedding| covers(embedding, ipv6, octets)).map(inside).collect()
}

fn matches(indicator: &Indicator, packet: &Packet, port: u16) -> bool {
    let has_ports = [6, 17, 33, 132, 136].contains(&packet.protocol);
    indicator.expires.is_none_or(|expires| i64::from(packet.now_seconds) < expires.as_second())
        && indicator.protocol.is_none_or(|protocol| protocol == packet.protocol)
        && (indicator.ports.is_empty()
            || has_ports && indicator.ports.iter().any(|(first, last)| (*first..=*last).contains(&port)))
}

/// The id of the indicator that selects a packet.
fn selected(scope: Option<&Scope>, indicators: &[Indicator], packet: &Packet) -> Option<u64> {
    let ports = [packet.ports.0, packet.ports.1];
    let is_host = |prefix: &Prefix| prefix.bits == if prefix.ipv6 { 128 } else { 32 };
    let has_trie =
        scope.is_some() || indicators.iter().filter_map(|it| it.prefix).any(|prefix| !is_host(&prefix));
    for (octets, port) in packet.octets.iter().zip(ports) {
        let carried = carried(scope, packet.ipv6, octets);
        let bits = |indicator: &Indicator| {
            let prefix = indicator.prefix?;
            if covers(&prefix, packet.ipv6, octets) {
                return Some((prefix.bits, true));
            }
            let is_seen = |embedding: &Prefix| {
                has_trie || !is_host(&prefix) || embedding.octets[..4] == [0, 0x64, 0xff, 0x9b]
            };
            let forms = carried.iter().filter(|(_, inside)| covers(&prefix, false, inside));
            let lengths = forms.map(|(embedding, _)| embedding).filter(|embedding| is_seen(embedding));
            lengths.map(|embedding| embedding.bits + prefix.bits).max().map(|bits| (bits, false))
        };
        let mut here: Vec<_> =
            indicators.iter().filter_map(|indicator| Some((bits(indicator)?, indicator))).collect();
        here.sort_by_key(|(bits, _)| std::cmp::Reverse(*bits));
        let mut here = here.into_iter().map(|(_, indicator)| indicator);
        if let Some(found) = here.find(|indicator| matches(indicator, packet, port)) {
            return Some(found.id);
        }
    }
    let mut any = indicators.iter().filter(|indicator| indicator.prefix.is_none());
    let by_port = ports.into_iter().find_map(|port| {
        any.clone().find(|indicator| !indicator.ports.is_empty() && matches(indicator, packet, port))
    });
    by_port
        .or_else(|| any.find(|indicator| indicator.ports.is_empty() && matches(indicator, packet, 0)))
        .map(|found| found.id)
}

/// The classes and the id of the indicator, or the outcome of the packet.
fn expected(
    scope: Option<&Scope>,
    selectors: Option<&[Indicator]>,
    packet: &Packet,
) -> Result<(Class, Class, Option<u64>), Outcome> {
    let mut classes = (Class::Foreign, Class::Foreign);
    if let Some(scope) = scope {
        classes =
            (class(scope, packet.ipv6, &packet.octets[0]), class(scope, packet.ipv6, &packet.octets[1]));
        let is_collected = |class| matches!(class, Class::Foreign | Class::Domestic);
        if !is_collected(classes.0) || !is_collected(classes.1) || !scope.directions.contains(&classes) {
            return Err(Outcome::OutOfScope);
        }
    }
    let id = match selectors {
        Some(indicators) => Some(selected(scope, indicators, packet).ok_or(Outcome::NotSelected)?),
        None => None,
    };
    Ok((classes.0, classes.1, id))
}

fn found(built: &Built, packet: &Packet) -> Result<(u32, u32, Option<u64>), Outcome> {
    judged(built, packet).map(|judgement| {
        let id = judgement.selector.checked_sub(1).map(|index| built.selector_ids[index as usize]);
        (judgement.source_class, judgement.destination_class, id)
    })
}

/// Draws policies and packets from few values, so that they often match.
struct Draw(ChaCha8Rng);

impl Draw {
    fn below(&mut self, end: u32) -> u32 {
        self.0.random_range(0..end)
    }

    fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.0.random_range(0..values.len())]
    }

    fn octets(&mut self, ipv6: bool) -> [u8; 16] {
        let length = if ipv6 { 16 } else { 4 };
        let mut octets = [0; 16];
        let odd = self.below(4) == 0;
        for octet in &mut octets[..length] {
            *octet =
                if odd && self.below(4) == 0 { self.0.random() } else { self.of(&[0, 0, 0x20, 0x80, 0xff]) };
        }
        octets
    }

    fn prefix(&mut self) -> Prefix {
        let ipv6 = self.below(2) == 0;
        let mut octets = self.octets(ipv6);
        let most = if ipv6 { 128 } else { 32 };
        let bits = match self.below(8) {
            0 => 0,
            1 => most,
            2..=4 => self.below(17),
            _ => self.below(most + 1),
        };
        for bit in bits as usize..128 {
            octets[bit / 8] &= !(0x80 >> (bit % 8));
        }
        Prefix { ipv6, octets, bits: u8::try_from(bits).unwrap() }
    }

    fn scope(&mut self) -> Scope {
        let mut prefixes: Vec<(Prefix, Class)> = Vec::new();
        for _ in 0..self.below(30) {
            let prefix = self.prefix();
            let class = self.of(&[Class::Foreign, Class::Domestic, Class::Domestic, Class::Never]);
            // The tables refuse a prefix with two classes, unless one of them is never.
            if class == Class::Never || prefixes.iter().all(|(other, _)| *other != prefix) {
                prefixes.push((prefix, class));
            }
        }
        if self.below(3) == 0 {
            let embedding = Prefix { ipv6: true, octets: self.octets(true), bits: 128 }.shortened(96);
            if prefixes.iter().all(|(other, _)| *other != embedding) {
                prefixes.push((embedding, Class::Embedded));
            }
        }
        if self.below(4) != 0 {
            // Otherwise one wide prefix often decides every packet.
            prefixes.retain(|(prefix, class)| *class != Class::Never || prefix.bits > 8);
        }
        let directions = (0..self.below(6)).map(|_| (self.class(), self.class())).collect();
        Scope { prefixes, directions }
    }

    fn class(&mut self) -> Class {
        self.of(&[Class::Foreign, Class::Domestic, Class::Never])
    }

    fn port(&mut self) -> u16 {
        let any = self.0.random();
        self.of(&[0, 8, 53, 443, 1023, 1024, 65_535, any])
    }

    fn protocol(&mut self) -> u8 {
        let any = self.0.random();
        self.of(&[1, 6, 6, 17, 33, 58, 132, 136, any])
    }

    fn seconds(&mut self) -> u32 {
        self.of(&[1, 999, 1000, 1001, 2000, u32::MAX - 1])
    }

    fn indicator(&mut self) -> Indicator {
        let prefix = if self.below(4) == 0 { None } else { Some(self.prefix()) };
        let protocol = if self.below(2) == 0 { Some(self.protocol()) } else { None };
        let mut ports = Vec::new();
        if self.below(2) == 0 || prefix.is_none() && protocol.is_none() {
            for _ in 0..=self.below(3) {
                let (one, other) = (self.port(), self.port());
                ports.push(if self.below(2) == 0 { (one, one) } else { (one.min(other), one.max(other)) });
            }
        }
        let expires = (self.below(3) == 0).then(|| Timestamp::from_second(self.seconds().into()).unwrap());
        Indicator { id: u64::from(self.below(40) + 1) << 33, expires, prefix, protocol, ports }
    }

    /// An address. A listed prefix often covers it, or an IPv4 address that it carries.
    fn address(&mut self, ipv6: bool, prefixes: &[Prefix]) -> [u8; 16] {
        if ipv6 && self.below(4) == 0 {
            let ipv4 = self.address(false, prefixes);
            let mut octets = self.octets(true);
            let own = prefixes.iter().filter(|prefix| prefix.ipv6 && prefix.bits == 96).copied();
            let embeddings: Vec<_> = WELL_KNOWN.iter().map(|known| known.prefix).chain(own).collect();
            let embedding = self.of(&embeddings);
            let first = usize::from(embedding.bits / 8);
            octets[..first].copy_from_slice(&embedding.octets[..first]);
            octets[first..first + 4].copy_from_slice(&ipv4[..4]);
            return octets;
        }
        let mut octets = self.octets(ipv6);
        if self.below(3) != 0 && !prefixes.is_empty() {
            let prefix = self.of(prefixes);
            if prefix.ipv6 == ipv6 {
                for bit in 0..usize::from(prefix.bits) {
                    let mask = 0x80 >> (bit % 8);
                    octets[bit / 8] = octets[bit / 8] & !mask | prefix.octets[bit / 8] & mask;
                }
                // Sometimes an address just outside the prefix.
                if self.below(4) == 0 && prefix.bits > 0 {
                    let bit = usize::from(prefix.bits) - 1;
                    octets[bit / 8] ^= 0x80 >> (bit % 8);
                }
            }
        }
        octets
    }

    fn packet(&mut self, prefixes: &[Prefix]) -> Packet {
        let ipv6 = self.below(2) == 0;
        Packet {
            ipv6,
            octets: [self.address(ipv6, prefixes), self.address(ipv6, prefixes)],
            ports: (self.port(), self.port()),
            protocol: self.protocol(),
            now_seconds: self.seconds(),
        }
    }
}

#[test]
fn tables_say_what_the_policy_says() {
    const POLICIES: u64 = 1_000;
    const PACKETS: u32 = 60;
    let mut ends = [0_u32; 3];
    for seed in 0..POLICIES {
        let mut draw = Draw(ChaCha8Rng::seed_from_u64(seed));
        let scope = (draw.below(3) != 0).then(|| draw.scope());
        let count = draw.below(25);
        let selectors =
            (draw.below(3) != 0).then(|| (0..count).map(|_| draw.indicator()).collect::<Vec<_>>());
        let built = match build(scope.as_ref(), selectors.as_deref(), None) {
            Ok(built) => built,
            // So many indicators can meet at one endpoint by chance.
            Err(TableError::TooManyApply { .. }) => continue,
            Err(error) => panic!("seed {seed}: {error}"),
        };
        let of_scope = scope.iter().flat_map(|scope| scope.prefixes.iter().map(|(prefix, _)| *prefix));
        let of_selectors = selectors.iter().flatten().filter_map(|indicator| indicator.prefix);
        let prefixes: Vec<_> = of_scope.chain(of_selectors).collect();
        for _ in 0..PACKETS {
            let packet = draw.packet(&prefixes);
            let expected = expected(scope.as_ref(), selectors.as_deref(), &packet)
                .map(|(source, destination, id)| (source as u32, destination as u32, id));
            assert_eq!(found(&built, &packet), expected, "seed {seed}: {packet:?}\n{scope:?}\n{selectors:?}");
            ends[match expected {
                Ok(_) => 0,
                Err(Outcome::OutOfScope) => 1,
                Err(_) => 2,
            }] += 1;
        }
    }
    // If all packets had one outcome, the test would show nothing.
    assert!(ends.iter().all(|count| *count > 5_000), "{ends:?}");
}
