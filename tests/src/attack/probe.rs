//! A party abroad who sends packets to subscribers, with the number of each hidden in what it chooses, and reads what a recipient
//! gets: which pseudonym is which subscriber, and whether somebody else was there.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use anyhow::Result;
use minimizer::policy::class::Class;
use minimizer::policy::field::Field;
use minimizer::policy::model::{Policy, Sources};
use minimizer::policy::transform::{AddressTransform, Transform};
use rand::RngExt as _;
use rand::rngs::ChaCha8Rng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};

use super::collect::{Collector, Line, Told};
use super::drawn::treatment;
use super::joins::coarse;
use super::report::{Adversary, Attempt, Report};
use super::traffic::{Packet, Sent, subscriber};

/// Subscribers that are probed: all of a /24.
const PROBED: usize = 250;
/// Where the packets come from.
const PROBER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 255);
/// Intervals in which a subscriber is probed or not.
const INTERVALS: usize = 8;
/// Questions to a threshold.
const QUESTIONS: usize = 64;
/// Ports of these questions begin here.
const QUESTION_PORT: u16 = 200;
const UDP: u8 = 17;
const TCP: u8 = 6;
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
        let mut packet = Packet {
            addresses: [PROBER.into(), to],
            ports: [40_000, 500],
            protocol: if self == Self::ControlBits { TCP } else { UDP },
            control_bits: 0,
            class: 0,
            payload: 0,
        };
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
    let is_collected = policy
        .scope
        .as_ref()
        .is_none_or(|scope| scope.directions.contains(&(Class::Foreign, Class::Domestic)));
    if !is_collected {
        return Ok(());
    }
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
        by_presence(report, policy, &named, &hidden, collector, folder)?;
    }
    oracle(report, random, policy, collector, folder)
}

/// Whether the recipient gets pseudonyms of subscribers that others send to.
fn has_pseudonyms(policy: &Policy, position: usize) -> bool {
    treatment(policy, &policy.recipients[position], Field::DestinationIPv4Address, true)
        == AddressTransform::Pseudonym
}

/// The pseudonym of the subscriber to whom the packets of a line went.
fn pseudonym(line: &Line) -> Option<(&str, usize)> {
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
        let Some((_, subscriber)) = pseudonym(line) else { continue };
        let cell = line.cells.get(&channel.field()).filter(|_| looked_for.len() > 1);
        let candidates =
            looked_for.get(cell.map_or("", |cell| &**cell)).or_else(|| looked_for.values().next());
        hits += usize::from(candidates.and_then(|candidates| candidates.choose(random)) == Some(&subscriber));
    }
    let class = match looked_for.len() {
        1 => "not told",
        PROBED => "told",
        _ => "told coarsely",
    };
    let chance = 1.0 / PROBED as f64;
    report.add(
        Attempt {
            adversary: Adversary::Prober,
            attack: channel.attack(),
            class,
            hits,
            attempts: PROBED,
            chance,
            // Nothing else may carry the number; what is told as it is carries all of it.
            stated: (looked_for.len() < PROBED).then(|| looked_for.len() as f64 / PROBED as f64),
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
) -> Result<()> {
    let mut found: Vec<HashMap<String, (usize, u16)>> = vec![HashMap::new(); named.len()];
    for interval in 0..INTERVALS {
        let sent: Vec<_> = hidden
            .iter()
            .enumerate()
            .filter(|(_, number)| *number >> interval & 1 == 1)
            .flat_map(|(to, _)| Channel::Source.sent(255, subscriber(to)))
            .collect();
        let told = collector.batch(&sent, folder)?;
        for (found, position) in found.iter_mut().zip(named) {
            for (name, subscriber) in told.lines[*position].iter().filter_map(pseudonym) {
                found.entry(name.to_owned()).or_insert((subscriber, 0)).1 |= 1 << interval;
            }
        }
    }
    for (found, position) in found.iter().zip(named) {
        let hits = found.values().filter(|(subscriber, number)| hidden[*subscriber] == *number).count();
        report.add(
            Attempt {
                adversary: Adversary::Prober,
                attack: "number in intervals, by presence",
                class: "pseudonyms",
                hits,
                attempts: PROBED,
                chance: 1.0 / PROBED as f64,
                stated: None,
            },
            &policy.recipients[*position].name,
        );
    }
    Ok(())
}

/// Asks a threshold, by one source less than it wants, whether somebody else sends to a service.
fn oracle(
    report: &mut Report,
    random: &mut ChaCha8Rng,
    policy: &Policy,
    collector: &mut Collector,
    folder: &Path,
) -> Result<()> {
    let explained = policy.explain().to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    for (position, recipient) in policy.recipients.iter().enumerate() {
        let Some(k) = recipient.k_threshold.filter(|k| *k > 1) else { continue };
        let mut answers: Vec<bool> = (0..QUESTIONS).map(|number| number % 2 == 0).collect();
        answers.shuffle(random);
        let mut sent = Vec::new();
        let port = |number: usize| QUESTION_PORT + u16::try_from(number).unwrap_or(0);
        for (number, somebody) in answers.iter().enumerate() {
            let forged = (1..k)
                .filter_map(|host| u8::try_from(host).ok())
                .map(|host| Ipv4Addr::new(198, 51, 100, host));
            let real = somebody.then(|| Ipv4Addr::new(198, 18, 7, random.random_range(1..=200)));
            for source in forged.chain(real) {
                let packet = Packet {
                    addresses: [source.into(), subscriber(7)],
                    ports: [port(number), port(number)],
                    protocol: UDP,
                    control_bits: 0,
                    class: 0,
                    payload: 40,
                };
                sent.push(packet.at(0));
            }
        }
        let told = collector.batch(&sent, folder)?;
        let is_there = |number: usize| {
            let flow = told.flows.iter().find(|flow| flow.ports[1] == port(number))?;
            Some(told.lines[position].iter().any(|line| line.key == flow.keys[position]))
        };
        let hits = answers
            .iter()
            .enumerate()
            .filter(|(number, somebody)| is_there(*number) == Some(**somebody))
            .count();
        let is_said = explained.contains(&format!("Whoever forges {} sources learns", k - 1));
        report.add(
            Attempt {
                adversary: Adversary::Prober,
                attack: "was there somebody else?",
                class: if recipient.counted == Sources::Domestic {
                    "domestic sources count"
                } else {
                    "all sources count"
                },
                hits,
                attempts: QUESTIONS,
                chance: 0.5,
                stated: (!is_said).then_some(0.5),
            },
            &recipient.name,
        );
    }
    Ok(())
}
