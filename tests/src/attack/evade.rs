//! A party abroad who sends what must not be collected: sources that look like pseudonyms, and communications that tunnels and
//! IPv6 addresses hide.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use anyhow::Result;
use minimizer::policy::class::Class;
use minimizer::policy::model::Policy;
use rand::RngExt as _;
use rand::rngs::ChaCha8Rng;

use super::collect::Collector;
use super::probe::{PACKET, PROBER};
use super::report::{Adversary, Attempt, Report};
use super::traffic::{GATEWAYS, NEVER, Packet, SUBSCRIBERS_IPV4, Sent, subscriber};

/// Packets of each kind.
const PACKETS: usize = 120;
/// Packets that are to be collected.
const IN_SCOPE: &str = "collected, in scope";
/// Packets that are not.
const OUT_OF_SCOPE: &str = "collected, though out of scope";

/// Plays the adversary in the current epoch.
///
/// # Errors
/// When packets cannot be collected.
pub fn play(
    report: &mut Report,
    random: &mut ChaCha8Rng,
    policy: &Policy,
    collector: &mut Collector,
    folder: &Path,
) -> Result<()> {
    let mut kinds = Vec::new();
    for (ipv6, class) in [(false, "IPv4, pseudonyms"), (true, "IPv6, pseudonyms")] {
        if policy.has_pseudonyms_of(ipv6) {
            kinds.push(("a source that looks like a pseudonym", class, framing(random, ipv6)));
        }
    }
    if let Some(scope) = &policy.scope {
        kinds.push((OUT_OF_SCOPE, "NAT64, 6to4, mapped", each(embedded)));
        if !policy.tunnels.is_empty() {
            kinds.extend(tunnels());
        }
        if scope.directions.contains(&(Class::Domestic, Class::Foreign)) {
            kinds.push((
                IN_SCOPE,
                "NAT64 of a host abroad",
                each(|number| from_ipv6(number, well_known(Ipv4Addr::new(198, 18, 1, 1))).at(0)),
            ));
        }
    }
    for (attack, class, sent) in kinds {
        let told = collector.batch(&sent, folder)?;
        let (adversary, attempts) = (Adversary::Prober, sent.len());
        let hits = usize::try_from(told.stored)?;
        let stated = (attack != IN_SCOPE).then_some(0.0);
        report.add(Attempt { adversary, attack, class, hits, attempts, chance: 0.0, stated }, class);
    }
    Ok(())
}

fn each(sent: impl FnMut(usize) -> Sent) -> Vec<Sent> {
    (0..PACKETS).map(sent).collect()
}

/// Packets of nobody, whose source is one of the numbers that pseudonyms are.
fn framing(random: &mut ChaCha8Rng, ipv6: bool) -> Vec<Sent> {
    each(|number| {
        let addresses = if ipv6 {
            let number: u64 = random.random();
            let source = Ipv6Addr::from_bits(0xfd6d_696e_696d_697a << 64 | u128::from(number));
            [source.into(), subscriber(SUBSCRIBERS_IPV4 + usize::try_from(number % 90).unwrap_or(0))]
        } else {
            let source = Ipv4Addr::from_bits(0xf000_0000 | random.random_range(0..(1 << 28) - 1));
            [source.into(), subscriber(number)]
        };
        Packet { addresses, ..PACKET }.at(0)
    })
}

/// Packets in tunnels between two ends.
fn tunnels() -> [(&'static str, &'static str, Vec<Sent>); 5] {
    let [gateway, peer] = GATEWAYS;
    let [abroad, own] = NEVER;
    let from_abroad = |number: usize| Packet { addresses: [PROBER.into(), subscriber(number)], ..PACKET };
    let domestic =
        |number: usize| Packet { addresses: [subscriber(number + 1), subscriber(number)], ..PACKET };
    [
        (
            OUT_OF_SCOPE,
            "domestic pair in a tunnel",
            each(|number| {
                let to = if number % 2 == 0 { gateway } else { ipv4(number) };
                domestic(number).inside([PROBER, to])
            }),
        ),
        (
            OUT_OF_SCOPE,
            "tunnel from a subscriber",
            each(|number| from_abroad(number).inside([ipv4(number + 1), gateway])),
        ),
        (
            OUT_OF_SCOPE,
            "tunnel from `never`",
            each(|number| from_abroad(number).inside([if number % 2 == 0 { abroad } else { own }, gateway])),
        ),
        (
            OUT_OF_SCOPE,
            "`never` in a tunnel",
            each(|number| {
                let to = if number % 2 == 0 { IpAddr::V4(own) } else { well_known(own) };
                let packet = if to.is_ipv4() {
                    Packet { addresses: [PROBER.into(), to], ..PACKET }
                } else {
                    Packet {
                        addresses: [Ipv6Addr::new(0x2001, 0xdb8, 0xf000, 0, 0, 0, 0, 1).into(), to],
                        ..PACKET
                    }
                };
                packet.inside([peer, gateway])
            }),
        ),
        (IN_SCOPE, "tunnel between endpoints", each(|number| from_abroad(number).inside([peer, gateway]))),
    ]
}

fn ipv4(number: usize) -> Ipv4Addr {
    match subscriber(number) {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => PROBER,
    }
}

fn from_ipv6(number: usize, to: IpAddr) -> Packet {
    Packet { addresses: [subscriber(SUBSCRIBERS_IPV4 + number % 90), to], ..PACKET }
}

/// The NAT64 address of an IPv4 address.
fn well_known(address: Ipv4Addr) -> IpAddr {
    Ipv6Addr::from_bits(0x0064_ff9b << 96 | u128::from(address.to_bits())).into()
}

/// A packet between two subscribers, or to an address of `never`, which its address hides.
fn embedded(number: usize) -> Sent {
    let address = if number % 8 == 7 { NEVER[number / 8 % 2] } else { ipv4(number) };
    let to = match number % 3 {
        0 => well_known(address),
        1 => Ipv6Addr::from_bits(0x2002 << 112 | u128::from(address.to_bits()) << 80 | 1).into(),
        _ => address.to_ipv6_mapped().into(),
    };
    from_ipv6(number, to).at(0)
}
