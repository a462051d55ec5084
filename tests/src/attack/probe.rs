//! A party abroad who sends packets to subscribers, with the number of each hidden in what it chooses, and reads what a recipient
//! gets: which pseudonym is which subscriber.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Not as _;
use std::path::Path;

use anyhow::Result;
use minimizer::policy::class::Class;
use minimizer::policy::field::Field;
use minimizer::policy::model::{Mitigations, Policy};
use minimizer::policy::transform::{AddressTransform, Transform};
use rand::rngs::ChaCha8Rng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};

use super::collect::{Collector, Line, Told};
use super::drawn::treatment;
use super::joins::coarse;
use super::report::{Adversary, Attempt, Report};
use super::traffic::{Packet, Sent, TCP, UDP, subscriber};

/// Subscribers that are probed: all of a /24.
const PROBED: usize = 250;
/// Where the packets come from.
pub const PROBER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 255);
/// A packet of the prober's, to itself.
pub const PACKET: Packet = Packet {
    addresses: [IpAddr::V4(PROBER); 2],
    ports: [40_000, 500],
    protocol: UDP,
    control_bits: 0,
    class: 0,
    payload: 0,
};
/// Intervals in which a subscriber is probed or not.
const INTERVALS: usize = 8;
/// Milliseconds between numbers that are hidden in times.
const STEP_MS: u64 = 39;

/// What hides the number of a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Channel {
    DestinationPort,
    SourcePort,
    Packets,
    Octets,
    ControlBits,
    TrafficClass,
    Time,
    Source,
}

impl Channel {
    const ALL: [Self; 8] = [
        Self::DestinationPort,
        Self::SourcePort,
        Self::Packets,
        Self::Octets,
        Self::ControlBits,
        Self::TrafficClass,
        Self::Time,
        Self::Source,
    ];

    const fn attack(self) -> &'static str {
        match self {
            Self::DestinationPort => "number in the destination port",
            Self::SourcePort => "number in the source port",
            Self::Packets => "number in packets",
            Self::Octets => "number in octets",
            Self::ControlBits => "number in control bits",
            Self::TrafficClass => "number in the traffic class",
            Self::Time => "number in the time",
            Self::Source => "number in the source address",
        }
    }

    const fn field(self) -> Field {
        match self {
            Self::DestinationPort => Field::DestinationTransportPort,
            Self::SourcePort => Field::SourceTransportPort,
            Self::Packets => Field::PacketDeltaCount,
            Self::Octets => Field::OctetDeltaCount,
            Self::ControlBits => Field::TcpControlBits,
            Self::TrafficClass => Field::IpClassOfService,
            Self::Time => Field::FlowStartMilliseconds,
            Self::Source => Field::SourceIPv4Address,
        }
    }

    /// The packets that hide a number from 1 on.
    fn sent(self, hidden: u16, to: IpAddr) -> Vec<Sent> {
        let low = hidden.to_be_bytes()[1];
        let protocol = if self == Self::ControlBits { TCP } else { UDP };
        let mut packet = Packet { addresses: [PROBER.into(), to], protocol, ..PACKET };
        let (mut count, mut at_ms) = (1, 0);
        match self {
            Self::DestinationPort => packet.ports[1] = hidden,
            Self::SourcePort => packet.ports[0] = hidden,
            Self::Packets => count = hidden,
            Self::Octets => packet.payload = hidden,
            Self::ControlBits => packet.control_bits = low,
            Self::TrafficClass => packet.class = low,
            Self::Time => at_ms = u64::from(hidden) * STEP_MS,
            Self::Source => packet.addresses[0] = Ipv4Addr::new(198, 51, 100, low).into(),
        }
        vec![packet.at(at_ms); usize::from(count)]
    }

    /// How much is sent to the subscriber with this number.
    fn effort(self, hidden: u16) -> Effort {
        let packets = if self == Self::Packets { hidden.into() } else { 1 };
        Effort { packets, is_answered: false }
    }

    /// The cell by which the prober looks for a number, as far as the recipient is told; the same for all numbers where it is not.
    fn expected(self, policy: &Policy, position: usize, hidden: u16, begin_ms: u64) -> String {
        let Some(transform) = policy.recipients[position].fields.get(&self.field()) else {
            return String::new();
        };
        let number = u64::from(hidden);
        let sent = match self {
            Self::Source => return source(*transform, hidden),
            Self::Octets => 28 + number,
            Self::Time => begin_ms + number * STEP_MS,
            _ => number,
        };
        coarse(*transform, sent).to_string()
    }
}

/// What becomes of the address from which a number is sent.
fn source(transform: Transform, hidden: u16) -> String {
    let address = u32::from(Ipv4Addr::new(198, 51, 100, hidden.to_be_bytes()[1]));
    match transform.of_class(Class::Foreign) {
        AddressTransform::Exact => Ipv4Addr::from(address).to_string(),
        AddressTransform::Truncated { bits } => {
            Ipv4Addr::from(address & (u32::MAX << (32 - u32::from(bits)))).to_string()
        }
        _ => String::new(),
    }
}

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
    let named: Vec<_> =
        (0..policy.recipients.len()).filter(|position| has_pseudonyms(policy, *position)).collect();
    if !named.is_empty() {
        // Which number is hidden for which subscriber.
        let mut hidden: Vec<u16> = (1..).take(PROBED).collect();
        hidden.shuffle(random);
        for channel in Channel::ALL {
            let mut sent: Vec<_> = hidden
                .iter()
                .enumerate()
                .flat_map(|(to, number)| channel.sent(*number, subscriber(to)))
                .collect();
            sent.sort_by_key(|sent| sent.at_ms);
            let told = collector.batch(&sent, folder)?;
            for position in &named {
                by_channel(report, random, policy, *position, channel, &hidden, &told, collector.begin_ms());
            }
        }
        for effort in Effort::of(policy, &named) {
            by_presence(report, policy, &named, &hidden, collector, folder, effort)?;
        }
    }
    Ok(())
}

/// How hard the prober tries.
#[derive(Clone, Copy)]
struct Effort {
    /// Packets to each subscriber in an interval.
    packets: u32,
    /// Whether the subscribers answer.
    is_answered: bool,
}

impl Effort {
    /// One packet, or one less than a mitigation asks for; as many as each asks for; and these with an answer.
    fn of(policy: &Policy, named: &[usize]) -> Vec<Self> {
        let mitigations = || named.iter().map(|position| policy.recipients[*position].mitigations);
        let asked = || mitigations().map(|it| it.min_packets).filter(|packets| *packets > 1);
        let fewer = asked().min().map_or(1, |packets| packets - 1);
        let mut efforts = vec![Self { packets: fewer, is_answered: false }];
        let most = asked().max().unwrap_or(1);
        if most > 1 {
            efforts.push(Self { packets: most, is_answered: false });
        }
        if mitigations().any(|it| it.established_only) {
            efforts.push(Self { packets: most, is_answered: true });
        }
        efforts
    }

    /// What a recipient's mitigations make of it, and whether they hold it back.
    fn class(self, mitigations: Mitigations) -> (&'static str, bool) {
        if self.packets < mitigations.min_packets {
            ("min_packets, fewer", true)
        } else if mitigations.established_only {
            if self.is_answered {
                ("established_only, answered", false)
            } else {
                ("established_only, no answer", true)
            }
        } else if mitigations.min_packets > 1 {
            ("min_packets, as many", false)
        } else {
            ("pseudonyms", false)
        }
    }
}

/// Whether the recipient gets pseudonyms of subscribers that others send to.
fn has_pseudonyms(policy: &Policy, position: usize) -> bool {
    treatment(policy, &policy.recipients[position], Field::DestinationIPv4Address, true)
        == AddressTransform::Pseudonym
}

/// The pseudonym of the subscriber to whom the packets of a line went.
fn pseudonym<'line>(told: &Told, line: &'line Line) -> Option<(&'line str, usize)> {
    if told.flows[*line.made_of.first()?].is_up {
        return None;
    }
    Some((line.cells.get(&Field::DestinationIPv4Address)?, line.subscriber?))
}

#[expect(clippy::too_many_arguments, reason = "all that an adversary has")]
fn by_channel(
    report: &mut Report,
    random: &mut ChaCha8Rng,
    policy: &Policy,
    position: usize,
    channel: Channel,
    hidden: &[u16],
    told: &Told,
    begin_ms: u64,
) {
    let mut looked_for: HashMap<String, Vec<usize>> = HashMap::new();
    for (to, number) in hidden.iter().enumerate() {
        looked_for.entry(channel.expected(policy, position, *number, begin_ms)).or_default().push(to);
    }
    let mut hits = 0;
    for line in &told.lines[position] {
        let Some((_, subscriber)) = pseudonym(told, line) else { continue };
        let cell = line.cells.get(&channel.field()).filter(|_| looked_for.len() > 1);
        let candidates =
            looked_for.get(cell.map_or("", |cell| &**cell)).or_else(|| looked_for.values().next());
        hits += usize::from(candidates.and_then(|candidates| candidates.choose(random)) == Some(&subscriber));
    }
    let mitigations = policy.recipients[position].mitigations;
    let passing = hidden.iter().filter(|number| channel.effort(**number).class(mitigations).1.not()).count();
    let class = match looked_for.len() {
        _ if passing < PROBED => "held back",
        1 => "not told",
        PROBED => "told",
        _ => "told coarsely",
    };
    // Nothing else may carry the number; what is told as it is carries all of it.
    let most = passing.min(looked_for.len());
    let chance = 1.0 / PROBED as f64;
    report.add(
        Attempt {
            adversary: Adversary::Prober,
            attack: channel.attack(),
            class,
            hits,
            attempts: PROBED,
            chance,
            stated: (most < PROBED).then(|| most as f64 / PROBED as f64),
        },
        &policy.recipients[position].name,
    );
}

/// A subscriber is probed in an interval if its number has the bit of the interval.
fn by_presence(
    report: &mut Report,
    policy: &Policy,
    named: &[usize],
    hidden: &[u16],
    collector: &mut Collector,
    folder: &Path,
    effort: Effort,
) -> Result<()> {
    let mut found: Vec<HashMap<String, (usize, u16)>> = vec![HashMap::new(); named.len()];
    for interval in 0..INTERVALS {
        let sent: Vec<_> = hidden
            .iter()
            .enumerate()
            .filter(|(_, number)| *number >> interval & 1 == 1)
            .flat_map(|(to, _)| {
                let packet = Packet { addresses: [PROBER.into(), subscriber(to)], ..PACKET };
                let sent = std::iter::repeat_n(packet.at(0), effort.packets.try_into().unwrap_or(usize::MAX));
                sent.chain(effort.is_answered.then(|| packet.answer().at(0)))
            })
            .collect();
        let told = collector.batch(&sent, folder)?;
        for (found, position) in found.iter_mut().zip(named) {
            for (name, subscriber) in told.lines[*position].iter().filter_map(|line| pseudonym(&told, line)) {
                found.entry(name.to_owned()).or_insert((subscriber, 0)).1 |= 1 << interval;
            }
        }
    }
    for (found, position) in found.iter().zip(named) {
        let hits = found.values().filter(|(subscriber, number)| hidden[*subscriber] == *number).count();
        let (class, is_held_back) = effort.class(policy.recipients[*position].mitigations);
        report.add(
            Attempt {
                adversary: Adversary::Prober,
                attack: "number in intervals, by presence",
                class,
                hits,
                attempts: PROBED,
                chance: 1.0 / PROBED as f64,
                stated: is_held_back.then_some(0.0),
            },
            &policy.recipients[*position].name,
        );
    }
    Ok(())
}
