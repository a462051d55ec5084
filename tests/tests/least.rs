//! The program stores no distinction that no recipient's record depends on: packets that look alike to all recipients have one key.
//!
//! For policies drawn at random, every packet of a small domain is tried. What stays apart although all recipients get the same is
//! listed in docs/POLICY.md, *What is collected*.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use minimizer::policy::class::Class;
use minimizer::policy::compile::CompiledPolicy;
use minimizer::policy::model::{Policy, Scope, Sources};
use minimizer::policy::prefixes::Prefix;
use minimizer::policy::transform::{AddressTransform, Transform};
use minimizer::records::keys::{PseudonymKey, RecipientKeys};
use minimizer::records::record::Record;
use minimizer::records::view::View;
use minimizer::support::sys::secret::Secret;
use minimizer_common::tuple::Tags;
use minimizer_ebpf::parser::walk::Packet;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt as _, SeedableRng as _};
use tests::minimum::{IF_INDEX, PSEUDONYM_KEY, START_MS, start};
use tests::policies::{self, endpoints};
use tests::reference::{self, Arrived, Key};

const POLICIES: u64 = 60;
/// One of each class of ports, then neighbours that some policies tell apart and others do not.
const PORTS: [u16; 7] = [0, 22, 1023, 1024, 8080, 51_724, 60_001];
/// The first bits that tell domestic from foreign addresses of the domain: 10.0.0.0/8 and 2001:db8::/32.
const CLASS_BITS: [u8; 2] = [8, 32];

fn addresses(ipv6: bool) -> Vec<[u8; 16]> {
    let starts: [&[u8]; 4] = if ipv6 {
        [&[0x20, 1, 0xd, 0xb8, 0, 1], &[0x20, 1, 0xd, 0xb8, 0, 2], &[0x2a, 0, 0, 1], &[0x2a, 0, 0, 2]]
    } else {
        [&[10, 1, 0, 1], &[10, 1, 0, 2], &[198, 51, 100, 1], &[198, 51, 101, 1]]
    };
    let whole = |start: &[u8]| {
        let mut octets = [0; 16];
        octets[..start.len()].copy_from_slice(start);
        octets
    };
    starts.map(whole).to_vec()
}

/// Every packet of the domain: two addresses, two ports or a type and a code, and so on.
fn domain() -> Vec<Packet> {
    let word = |octets: &[u8]| u64::from_ne_bytes(octets.try_into().expect("eight"));
    let mut packets = Vec::new();
    for ipv6 in [false, true] {
        let all = addresses(ipv6);
        for (source, destination) in
            all.iter().flat_map(|source| all.iter().map(move |destination| (source, destination)))
        {
            let words = if ipv6 {
                [&source[..8], &source[8..], &destination[..8], &destination[8..]].map(word)
            } else {
                [word(&[&source[..4], &destination[..4]].concat()), 0, 0, 0]
            };
            let version = if ipv6 { Tags::NONE.with_ipv6() } else { Tags::NONE };
            let of = |ports, tags, protocol, traffic_class| Packet {
                addresses: words,
                ports,
                tags,
                length_octets: 60,
                control_bits: 0,
                protocol,
                traffic_class,
                may_carry: 0,
            };
            // Each of these parts of a key is made by itself, so that pairs of ports and single other parts are enough.
            for (from, to) in PORTS.iter().flat_map(|from| PORTS.map(|to| (*from, to))) {
                packets.extend([6, 17].map(|protocol| of((from, to), version, protocol, 0)));
            }
            for (kind, code) in [(0, 0), (8, 0), (8, 1)] {
                packets.extend([1, 58].map(|protocol| of((kind, code), version, protocol, 0)));
            }
            packets.push(of((0, 0), version, 47, 0));
            packets.push(of((22, 22), version, 6, 8));
            for tags in [version.with_vlan(5), version.with_vlan(5).with_vlan(6), version.with_vlan(7)] {
                packets.push(of((22, 22), tags, 6, 0));
            }
        }
    }
    packets
}

/// A policy whose classes are whole prefixes of [`CLASS_BITS`], so that every truncated address is of one class.
fn draw(random: &mut ChaCha8Rng, packets: &[Packet]) -> Policy {
    let mut policy = policies::draw(random, packets, start());
    if let Some(scope) = &mut policy.scope {
        let directions = std::mem::take(&mut scope.directions);
        let prefix = |ipv6, address: [u8; 16]| {
            let bits = CLASS_BITS[usize::from(ipv6)];
            Prefix { ipv6, octets: policies::truncated(address, bits), bits }
        };
        let prefixes = [false, true].map(|ipv6| (prefix(ipv6, addresses(ipv6)[0]), Class::Domestic));
        *scope = Scope { prefixes: prefixes.to_vec(), directions };
    }
    let is_one_way = policy.scope.as_ref().is_some_and(Scope::is_one_way);
    for recipient in &mut policy.recipients {
        for (field, transform) in &mut recipient.fields {
            let least = CLASS_BITS[usize::from(field.name().contains("IPv6"))];
            if let Transform::Address { foreign, domestic } = transform {
                for address in [foreign, domestic] {
                    if let AddressTransform::Truncated { bits } = address {
                        *bits = (*bits).max(least);
                    }
                }
            }
        }
        if policy.scope.is_some() && recipient.k_threshold.is_some() && random.random() {
            recipient.counted = Sources::Domestic;
        }
        recipient.mitigations.established_only &= !is_one_way;
    }
    policy
}

fn views(compiled: &CompiledPolicy) -> Vec<View> {
    let epoch = Arc::new(PseudonymKey::copy_of(&PSEUDONYM_KEY).expect("memory"));
    let of = |(number, recipient)| {
        let keys = RecipientKeys {
            pseudonym: PseudonymKey::copy_of(&[number, 2]).expect("memory"),
            ipcrypt: Secret::copy_of(&std::array::from_fn(|index| u8::try_from(index).expect("small")))
                .expect("memory"),
            crypto_pan: Secret::copy_of(&[7; 32]).expect("memory"),
        };
        let of_addresses = (Arc::clone(&compiled.classes), compiled.ranks.clone());
        View::new(recipient, &compiled.collected.fields, epoch.clone(), keys, of_addresses).expect("memory")
    };
    (1..).zip(&compiled.policy.recipients).map(of).collect()
}

/// What the policy needs of a packet beside what recipients get: the source that a threshold counts, and the flow that is matched.
type Needs = (BTreeSet<(bool, Option<[u8; 16]>)>, Option<([[u8; 16]; 2], (u16, u16))>);

fn needs(policy: &Policy, packet: &Packet) -> Needs {
    let ipv6 = packet.tags.is_ipv6();
    let ends = endpoints(packet);
    let is_domestic = addresses(ipv6)[..2].contains(&ends[0]);
    let counts = |counted| match counted {
        Sources::All => true,
        Sources::Domestic => is_domestic,
    };
    let counted = policy.recipients.iter().filter(|recipient| recipient.k_threshold.is_some());
    let source = policies::truncated(ends[0], if ipv6 { 64 } else { 32 });
    // The version of every packet is stored, because sources of both are counted.
    let sources = counted.map(|recipient| (ipv6, counts(recipient.counted).then_some(source))).collect();
    let is_matched = policy.recipients.iter().any(|recipient| recipient.mitigations.established_only);
    // Types and codes are not matched.
    let ports = if matches!(packet.protocol, 1 | 58) { (0, 0) } else { packet.ports };
    (sources, is_matched.then_some((ends, ports)))
}

#[test]
fn packets_that_look_alike_to_all_recipients_have_one_key() {
    let packets = domain();
    let (mut policies, mut merged) = (0, 0);
    for seed in 0..POLICIES {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let policy = draw(&mut random, &packets);
        let collected = policy.collected();
        let compiled = CompiledPolicy::compile(policy.clone()).expect("has tables");
        let views = views(&compiled);
        let arrived = Arrived { outer: None, interface: IF_INDEX, time_ms: START_MS };
        let stored: Vec<(&Packet, Key)> = packets
            .iter()
            .filter_map(|packet| {
                let stored = reference::stored(&policy, &collected, packet, &arrived, PSEUDONYM_KEY);
                Some((packet, stored.ok()?.key))
            })
            .collect();
        let records: Vec<Record> = stored.iter().map(|(_, key)| key.record()).collect();
        let told: Vec<Vec<Record>> = views.iter().map(|view| view.keys_of(records.iter())).collect();
        let mut keys: HashMap<_, BTreeMap<&Key, &Packet>> = HashMap::new();
        for (number, (packet, key)) in stored.iter().enumerate() {
            let told: Vec<_> =
                told.iter().map(|records| (records[number].tuple, records[number].selector_id)).collect();
            keys.entry((told, needs(&policy, packet))).or_default().insert(key, packet);
        }
        for alike in keys.values() {
            assert!(alike.len() == 1, "seed {seed}: nobody tells these apart: {alike:#?} under {policy:#?}");
        }
        merged += usize::from(keys.len() < stored.len());
        policies += usize::from(!stored.is_empty());
    }
    println!("{policies} policies, {merged} that merge packets");
    assert!(policies > 40 && merged > 30, "{policies} {merged}");
}
