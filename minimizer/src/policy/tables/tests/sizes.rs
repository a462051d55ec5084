//! Large tables: that the agent can build them, that look-ups find their hosts, and how much memory they take
//! (printed).

use rand::rngs::ChaCha8Rng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

use super::reference::Packet;
use super::{build, judged};
use crate::policy::class::Class;
use crate::policy::indicators::Indicator;
use crate::policy::model::Scope;
use crate::policy::prefixes::Prefix;
use crate::policy::tables::Built;

fn cut(ipv6: bool, mut octets: [u8; 16], bits: u8) -> Prefix {
    for bit in usize::from(bits)..128 {
        octets[bit / 8] &= !(0x80 >> (bit % 8));
    }
    Prefix { ipv6, octets, bits }
}

/// Prefixes like those of networks: /12 to /24 for IPv4, most of them /24; /32 to /48 for IPv6, in `parents`
/// allocations.
fn prefixes(random: &mut ChaCha8Rng, ipv4: usize, ipv6: usize, parents: u32) -> Vec<(Prefix, Class)> {
    let mut all = Vec::new();
    for _ in 0..ipv4 {
        let mut octets = [0; 16];
        random.fill_bytes(&mut octets[..4]);
        octets[0] = octets[0] % 223 + 1;
        let bits = if random.random_range(0..10) < 6 { 24 } else { random.random_range(12..24) };
        all.push((cut(false, octets, bits), Class::Domestic));
    }
    for _ in 0..ipv6 {
        let mut octets = [0; 16];
        random.fill_bytes(&mut octets);
        let parent = random.random_range(0..parents);
        octets[..4].copy_from_slice(&(0x2a00_0000 | parent.wrapping_mul(0x9e37_79b1) >> 12).to_be_bytes());
        let bits = if random.random_range(0..10) < 6 { 48 } else { random.random_range(32..48) };
        all.push((cut(true, octets, bits), Class::Domestic));
    }
    all
}

fn report(name: &str, built: &Built) {
    let content = &built.content;
    println!(
        "{name}: {} nodes, {:.1} MiB",
        content.nodes.len(),
        content.octets() as f64 / f64::from(1 << 20)
    );
}

fn built(name: &str, prefixes: Vec<(Prefix, Class)>) {
    let scope = Scope { prefixes, directions: vec![(Class::Foreign, Class::Foreign)] };
    report(name, &build(Some(&scope), &[], None, None).unwrap());
}

#[test]
fn prefixes_of_a_carrier() {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    built("10,000 prefixes of IPv4", prefixes(&mut random, 10_000, 0, 1));
    built("8,000 prefixes of IPv4, 2,000 of IPv6", prefixes(&mut random, 8_000, 2_000, 500));
}

#[test]
fn prefixes_of_the_whole_internet() {
    let mut random = ChaCha8Rng::seed_from_u64(2);
    built("400,000 prefixes of IPv4, 100,000 of IPv6", prefixes(&mut random, 400_000, 100_000, 30_000));
}

#[test]
#[ignore = "takes 400 MiB: a case that no network has"]
fn prefixes_at_random() {
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let mut draw = || {
        let mut octets = [0; 16];
        random.fill_bytes(&mut octets[..6]);
        octets[0] = octets[0] & 0x1f | 0x20;
        (cut(true, octets, 48), Class::Domestic)
    };
    built("300,000 random /48 of 2000::/3", (0..300_000).map(|_| draw()).collect());
}

#[test]
fn a_hundred_thousand_hosts() {
    let mut random = ChaCha8Rng::seed_from_u64(4);
    let mut indicators = Vec::new();
    for id in 1..=100_000_u64 {
        let ipv6 = id % 2 == 0;
        let mut octets = [0; 16];
        // Half of the hosts are consecutive, like the addresses of a scan or a pool.
        if id > 50_000 {
            octets[if ipv6 { 8..16 } else { 0..8 }].copy_from_slice(&id.to_be_bytes());
            octets.rotate_left(if ipv6 { 0 } else { 4 });
        } else {
            random.fill_bytes(&mut octets);
        }
        let bits = if ipv6 { 128 } else { 32 };
        let prefix = Some(cut(ipv6, octets, bits));
        indicators.push(Indicator { id, expires: None, prefix, protocol: None, ports: Vec::new() });
    }
    let built = build(None, &[], Some(&indicators), None).unwrap();
    report("100,000 hosts, half of them of IPv6", &built);
    for indicator in &indicators {
        let prefix = indicator.prefix.unwrap();
        let nobody = [7; 16];
        let packet = Packet {
            ipv6: prefix.ipv6,
            octets: [prefix.octets, nobody],
            ports: (0, 0),
            protocol: 6,
            now_seconds: 1,
        };
        let selector = judged(&built, &packet).map(|judged| judged.selector).unwrap_or_default();
        assert_eq!(built.selector_ids.get(selector as usize - 1), Some(&indicator.id));
    }
    let mut bits = 0;
    let node = |number: u32| number as usize;
    for filter in &built.content.nodes[node(built.tables.filter)..node(built.tables.ipv4_hosts)] {
        bits += filter.iter().map(|word| word.count_ones()).sum::<u32>();
    }
    let share = f64::from(bits) / f64::from(built.tables.filter_mask);
    println!("bits of the filter: {:.1} % are set", share * 100.0);
    assert!(share < 0.07, "{share}");
}
