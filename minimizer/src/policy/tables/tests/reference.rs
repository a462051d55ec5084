//! Compares the tables with the policy, applied line by line, for random policies and packets.

use jiff::Timestamp;
use minimizer_common::outcome::Outcome;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt as _, SeedableRng as _};

use super::{Built, TableError, build, judged};
use crate::policy::class::Class;
use crate::policy::indicators::Indicator;
use crate::policy::model::Scope;
use crate::policy::prefixes::Prefix;
use crate::policy::special::RANGES;
use crate::policy::translation::{Mechanism, NAT64_BITS, Translation, WELL_KNOWN};

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

/// A scope, and the network's own translations.
#[derive(Clone, Debug)]
struct Scoped {
    scope: Scope,
    own: Vec<Translation>,
}

/// An IPv4 address that an address carries, or the first bits of one.
struct Carried {
    translation: Translation,
    octets: [u8; 16],
    /// How many of its bits the address tells.
    bits: u8,
    /// Whether bits that must be zero are not.
    is_broken: bool,
}

impl Carried {
    fn shares(&self, ipv4: &Prefix) -> bool {
        covers(&ipv4.shortened(ipv4.bits.min(self.bits)), false, &self.octets)
    }

    /// The bits of the address that decide if an IPv4 prefix decides. `None` if the address does not tell its bits.
    fn length(&self, ipv4: &Prefix) -> Option<u8> {
        let Translation { prefix, ipv4: common, carried, .. } = self.translation;
        let told = ipv4.bits.saturating_sub(common.bits);
        if told > carried || self.is_broken && ipv4.bits > self.bits {
            return None;
        }
        let has_zeroes =
            self.translation.mechanism == Mechanism::Nat64 && prefix.bits < 96 && prefix.bits + told > 64;
        Some(prefix.bits + told + if has_zeroes { 8 } else { 0 })
    }

    /// The bits of the address that decide if the address does not tell all bits of the IPv4 prefix that decides.
    fn longest(&self) -> u8 {
        if self.is_broken { 64 } else { self.translation.prefix.bits + self.translation.carried }
    }
}

fn class(scoped: &Scoped, ipv6: bool, octets: &[u8; 16]) -> Class {
    let prefixes = &scoped.scope.prefixes;
    let is_listed = |range: &Prefix| {
        let embeddings = WELL_KNOWN.iter().chain(&scoped.own);
        let mut around =
            prefixes.iter().map(|(prefix, _)| *prefix).chain(embeddings.map(|known| known.prefix));
        around.any(|prefix| prefix.covers(range))
    };
    let special: Vec<_> = RANGES.iter().map(|range| range.prefix).filter(|range| !is_listed(range)).collect();
    let classed = |is_special: bool| if is_special { Class::Special } else { Class::Foreign };
    // Bits that decide, whether the scope lists them so, protection, bits of the IPv4 prefix, class.
    let own = prefixes.iter().filter(|(prefix, _)| covers(prefix, ipv6, octets));
    let mut listed: Vec<_> = own.map(|(prefix, class)| (prefix.bits, true, 0, prefix.bits, *class)).collect();
    let mut innermost: Option<(u8, Class)> = None;
    for carried in carried(Some(scoped), ipv6, octets) {
        let least = carried.translation.prefix.bits;
        let names = |bits: u8| listed.iter().any(|(other, own, ..)| *own && (least..=bits).contains(other));
        let mut more = Vec::new();
        let ranges = special.iter().map(|range| (*range, Class::Special));
        for (prefix, class) in prefixes.iter().copied().chain(ranges).filter(|(prefix, _)| !prefix.ipv6) {
            if !carried.shares(&prefix) {
                continue;
            }
            let is_range = class == Class::Special;
            match carried.length(&prefix) {
                Some(_) if is_range => {}
                Some(bits) => {
                    let protection = if bits == least || class == Class::Foreign { 0 } else { 1 };
                    more.push((bits, false, protection, prefix.bits, class));
                }
                None if carried.is_broken && !names(64) => more.push((64, false, 4, 0, Class::Special)),
                None if carried.is_broken || class == Class::Foreign => {}
                None if is_range && names(carried.longest()) => {}
                None => {
                    let protection = match class {
                        Class::Domestic => 1,
                        Class::Special => 2,
                        _ => 3,
                    };
                    more.push((carried.longest(), false, protection, prefix.bits, class));
                }
            }
        }
        listed.extend(more);
        if innermost.is_none_or(|(bits, _)| bits < least) {
            let inside = |range: &&Prefix| range.bits <= carried.bits && carried.shares(range) && !range.ipv6;
            innermost = Some((least, classed(special.iter().any(|range| inside(&range)))));
        }
    }
    if listed.iter().any(|(.., class)| *class == Class::Never) {
        return Class::Never;
    }
    let (least, otherwise) =
        innermost.unwrap_or_else(|| (0, classed(special.iter().any(|range| covers(range, ipv6, octets)))));
    let longest = listed
        .into_iter()
        .filter(|(bits, ..)| *bits >= least)
        .max_by_key(|(bits, own, protection, inner, _)| (*bits, *own, *protection, *inner));
    longest.map_or(otherwise, |(.., class)| class)
}

/// The IPv4 addresses that an address carries.
fn carried(scoped: Option<&Scoped>, ipv6: bool, octets: &[u8; 16]) -> Vec<Carried> {
    let own = scoped.into_iter().flat_map(|scoped| &scoped.own);
    let inside = |translation: &Translation| {
        let Translation { prefix, ipv4, carried, mechanism } = *translation;
        let is_split = mechanism == Mechanism::Nat64 && prefix.bits < 96;
        let is_broken = is_split && prefix.bits > 32 && octets[8] != 0;
        let mut inside = ipv4.octets;
        for bit in 0..carried {
            let mut from = prefix.bits + bit;
            if is_split && from >= 64 {
                from += 8;
            }
            let (from, to) = (usize::from(from), usize::from(ipv4.bits + bit));
            let value = octets[from / 8] >> (7 - from % 8) & 1;
            inside[to / 8] |= value << (7 - to % 8);
        }
        let bits = if is_broken { 64 - prefix.bits } else { ipv4.bits + carried };
        Carried { translation: *translation, octets: inside, bits, is_broken }
    };
    WELL_KNOWN.iter().chain(own).filter(|known| covers(&known.prefix, ipv6, octets)).map(inside).collect()
}

fn matches(indicator: &Indicator, packet: &Packet, port: u16) -> bool {
    let has_ports = [6, 17, 33, 132, 136].contains(&packet.protocol);
    indicator.expires.is_none_or(|expires| i64::from(packet.now_seconds) < expires.as_second())
        && indicator.protocol.is_none_or(|protocol| protocol == packet.protocol)
        && (indicator.ports.is_empty()
            || has_ports && indicator.ports.iter().any(|(first, last)| (*first..=*last).contains(&port)))
}

/// The id of the indicator that selects a packet.
fn selected(scope: Option<&Scoped>, indicators: &[Indicator], packet: &Packet) -> Option<u64> {
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
            let is_seen = |carried: &&Carried| {
                has_trie || !is_host(&prefix) || carried.translation.mechanism == Mechanism::Nat64
            };
            let forms = carried.iter().filter(|carried| !prefix.ipv6 && carried.shares(&prefix));
            let lengths = forms.filter(is_seen).filter_map(|carried| {
                let is_told = !carried.is_broken || prefix.bits <= carried.bits;
                is_told.then(|| carried.length(&prefix).unwrap_or_else(|| carried.longest()))
            });
            lengths.max().map(|bits| (bits, false))
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
    scoped: Option<&Scoped>,
    selectors: Option<&[Indicator]>,
    packet: &Packet,
) -> Result<(Class, Class, Option<u64>), Outcome> {
    let mut classes = (Class::Foreign, Class::Foreign);
    if let Some(scoped) = scoped {
        let [source, destination] = packet.octets.map(|octets| class(scoped, packet.ipv6, &octets));
        classes = (source, destination);
        let is_collected = |class| matches!(class, Class::Foreign | Class::Domestic);
        if !is_collected(classes.0) || !is_collected(classes.1) || !scoped.scope.directions.contains(&classes)
        {
            return Err(Outcome::OutOfScope);
        }
    }
    let id = match selectors {
        Some(indicators) => Some(selected(scoped, indicators, packet).ok_or(Outcome::NotSelected)?),
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

    /// Translations that do not meet.
    fn translations(&mut self) -> Vec<Translation> {
        let mut own = Vec::new();
        if self.below(3) == 0 {
            return own;
        }
        let mut octets = self.octets(true);
        octets[0] |= 0x80;
        let prefix = |bits: u8| Prefix { ipv6: true, octets, bits: 128 }.shortened(bits);
        let common = |bits: u8, octets: [u8; 16]| Prefix { ipv6: false, octets, bits: 32 }.shortened(bits);
        let ipv4 = self.octets(false);
        own.push(match self.below(4) {
            0 | 1 => {
                let bits = self.of(&NAT64_BITS);
                Translation::nat64(prefix(bits))
            }
            2 => {
                let bits = self.of(&[0, 4, 8, 16]);
                Translation::six_rd(prefix(self.of(&[8, 20, 32])), common(bits, ipv4))
            }
            _ => {
                let bits = self.of(&[0, 4, 8, 16]);
                let ea_bits = self.of(&[0, 1, 6, 16, 32]);
                Translation::map(prefix(self.of(&[12, 24, 32])), common(bits, ipv4), ea_bits)
            }
        });
        if own[0].longest() <= 64 && self.below(2) == 0 {
            own.extend(Translation::isatap(prefix(64)));
        }
        own
    }

    fn scoped(&mut self) -> Scoped {
        let own = self.translations();
        let mut scope = self.scope();
        let is_own = |prefix: &Prefix| own.iter().any(|translation| translation.prefix == *prefix);
        scope.prefixes.retain(|(prefix, _)| !is_own(prefix));
        Scoped { scope, own }
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
    fn address(&mut self, ipv6: bool, prefixes: &[Prefix], own: &[Translation]) -> [u8; 16] {
        if ipv6 && self.below(4) == 0 {
            let ipv4 = self.address(false, prefixes, own);
            let mut octets = self.octets(true);
            let translations: Vec<_> = WELL_KNOWN.iter().chain(own).chain(own).collect();
            let translation = self.of(&translations);
            let Some(form) = translation.form(&Prefix { ipv6: false, octets: ipv4, bits: 32 }) else {
                return octets;
            };
            for bit in 0..usize::from(form.bits) {
                let mask = 0x80 >> (bit % 8);
                octets[bit / 8] = octets[bit / 8] & !mask | form.octets[bit / 8] & mask;
            }
            if self.below(4) == 0 {
                octets[8] = self.of(&[0, 1, 0x80]);
            }
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

    fn packet(&mut self, prefixes: &[Prefix], own: &[Translation]) -> Packet {
        let ipv6 = self.below(2) == 0;
        Packet {
            ipv6,
            octets: [self.address(ipv6, prefixes, own), self.address(ipv6, prefixes, own)],
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
        let scoped = (draw.below(3) != 0).then(|| draw.scoped());
        let scope = scoped.as_ref().map(|scoped| &scoped.scope);
        let own = scoped.as_ref().map_or(&[][..], |scoped| &scoped.own);
        let count = draw.below(25);
        let selectors =
            (draw.below(3) != 0).then(|| (0..count).map(|_| draw.indicator()).collect::<Vec<_>>());
        let built = match build(scope, own, selectors.as_deref(), None) {
            Ok(built) => built,
            // So many indicators can meet at one endpoint by chance.
            Err(TableError::TooManyApply { .. }) => continue,
            Err(error) => panic!("seed {seed}: {error}"),
        };
        let of_scope = scope.iter().flat_map(|scope| scope.prefixes.iter().map(|(prefix, _)| *prefix));
        let of_selectors = selectors.iter().flatten().filter_map(|indicator| indicator.prefix);
        let prefixes: Vec<_> = of_scope.chain(of_selectors).collect();
        for _ in 0..PACKETS {
            let packet = draw.packet(&prefixes, own);
            let expected = expected(scoped.as_ref(), selectors.as_deref(), &packet)
                .map(|(source, destination, id)| (source as u32, destination as u32, id));
            assert_eq!(
                found(&built, &packet),
                expected,
                "seed {seed}: {packet:?}\n{scoped:?}\n{selectors:?}"
            );
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
