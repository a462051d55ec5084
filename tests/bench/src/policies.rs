//! What each part of a policy costs: the real program under one policy after the other, as a multiple of what it
//! costs under `full-record` in the same rounds.

mod written;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use minimizer::policy::class::Class;
use minimizer::policy::compile::CompiledPolicy;
use minimizer::policy::field::Field as RecordField;
use minimizer::policy::indicators::Indicator;
use minimizer::policy::model::{Policy, Scope};
use minimizer::policy::prefixes::Prefix;
use minimizer::policy::transform::{AddressTransform, Transform};
use minimizer_common::outcome::Outcome;
use serde::Serialize;

use super::contenders::{Contender, Kind, Size};
use super::rounds::{Effort, Field};
use super::schedule::{Popularity, Schedule, mix};
use super::statistics::{Spread, difference, ratio};
use super::traffic::{IPV4_DESTINATION, Traffic};
use super::wrapper::Wrapper;

/// Prefixes of the scope.
const PREFIXES: u64 = 10_000;
/// Indicators of single hosts.
const INDICATORS: u64 = 100_000;
/// Flows that fill half of each table.
const TABLE_FLOWS: u32 = 1 << 17;

/// Result for one kind of packets and number of flows.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The packets.
    pub traffic: Traffic,
    /// Flows from which the packets are drawn uniformly.
    pub flows: u64,
    /// By policy; the first is `full-record`.
    pub figures: Vec<Figure>,
}

/// Result of one policy.
#[derive(Debug, Serialize)]
pub struct Figure {
    /// What the policy does.
    pub name: &'static str,
    /// Nanoseconds per packet, the base of the same round subtracted.
    pub ns: Spread,
    /// The same as a multiple of `full-record`, round by round.
    pub full_record_ratio: Spread,
    /// Nanoseconds more than `full-record`, round by round.
    pub added_ns: Spread,
    /// The cost as a share of what the other build costs under the same policy, where that is measured.
    pub beside_ratio: Option<Spread>,
    /// Instructions of the loaded program, without those that the verifier removed.
    pub instructions: usize,
}

/// A policy of the bench.
struct Case {
    name: &'static str,
    policy: Policy,
    /// How every packet ends.
    outcome: Outcome,
    /// Whether the other build is measured under it, too.
    with_beside: bool,
}

/// As the example of what a law on active cyber-defence permits: a scope, a few indicators, addresses truncated,
/// times to the second.
pub const ACTIVE_CYBERDEFENCE: &str = "scope, selectors, truncation, 1 s";
/// The same with pseudonyms in place of domestic addresses, which are not truncated.
pub const DOMESTIC_PSEUDONYMS: &str = "the same with domestic pseudonyms";
/// What is used when no policy is named.
pub const CARRIER_DEFAULT: &str = "carrier-default";
const FULL_RECORD: &str = "full-record";
/// 10,000 prefixes and nothing else.
pub const SCOPE: &str = "scope of 10,000 prefixes";

/// Measures policies with `flows` flows, each in a table of its own: all of them on IPv4, the built-in ones on IPv6.
///
/// # Errors
/// What the kernel answers; packets that did not end as they must.
pub fn measure(effort: Effort, traffic: Traffic, flows: u64, beside: Option<&Path>) -> anyhow::Result<Row> {
    let schedule = Schedule::drawn(flows, Popularity::Uniform, effort.period_for(flows));
    let mut field = Field { wrappers: vec![Wrapper::load(traffic, &schedule)?], ..Field::default() };
    let table_flows = effort.table_flows.min(TABLE_FLOWS).max(u32::try_from(flows)?);
    field.contenders.push(Contender::load(Kind::Empty, Size::of(table_flows))?);
    let folder = tempfile::tempdir()?;
    let mut cases = cases()?;
    cases.retain(|case| !traffic.is_ipv6() || [FULL_RECORD, CARRIER_DEFAULT].contains(&case.name));
    // For each policy: the place of the program, and of the other build's.
    let mut places = Vec::new();
    for Case { name, policy, with_beside, .. } in &cases {
        let compiled = Arc::new(CompiledPolicy::compile(policy.clone())?);
        let room = traffic.room(table_flows);
        let mut size = Size { room, compiled: Some(&compiled), beside, ..Size::of(table_flows) };
        let other = beside.filter(|_| *with_beside).map(|_| field.contenders.len() + 1);
        places.push((field.contenders.len(), other));
        field.contenders.push(Contender::load(Kind::Minimizer, size)?);
        if other.is_some() {
            let is_built_in = [FULL_RECORD, CARRIER_DEFAULT].contains(name);
            let file = if is_built_in { (*name).to_owned() } else { written::write(policy, folder.path())? };
            size.policy = &file;
            field.contenders.push(Contender::load(Kind::Beside, size)?);
        }
    }
    field.queues = (0..field.contenders.len()).map(|contender| (0, contender)).collect();
    field.pass(effort.period_for(flows))?;
    let gross = field.rounds(effort)?;
    let net: Vec<_> = gross.iter().map(|series| difference(series, &gross[0])).collect();
    let full_record = &net[1];
    let mut figures = Vec::new();
    for (case, (place, other)) in cases.iter().zip(places) {
        if let Some(other) = other {
            let sent = field.contenders[other].sent;
            let account = field.contenders[other].account()?;
            let is_exact = account.is_some_and(|account| account.packets == sent);
            ensure!(is_exact, "{}: the other build counted {account:?} of {sent} packets", case.name);
        }
        let (contender, series) = (&mut field.contenders[place], &net[place]);
        let sent = contender.sent;
        let program = contender.real()?;
        let cpus = program.generations().shape().cpus;
        let ended: u64 =
            (0..cpus).map(|cpu| program.generations().counters(cpu, 0).outcomes[case.outcome as usize]).sum();
        ensure!(ended == sent, "{}: {ended} of {sent} packets ended as {}", case.name, case.outcome.name());
        figures.push(Figure {
            name: case.name,
            ns: Spread::of(series.iter().copied()),
            full_record_ratio: ratio(series, full_record),
            added_ns: Spread::of(difference(series, full_record)),
            beside_ratio: other.map(|other| ratio(series, &net[other])),
            instructions: program.instructions()?.len() / 8,
        });
    }
    field.end()?;
    Ok(Row { traffic, flows, figures })
}

type Fields = BTreeMap<RecordField, Transform>;

fn cases() -> anyhow::Result<Vec<Case>> {
    let full = Policy::load(FULL_RECORD, &[])?;
    let counted = |name, policy| Case { name, policy, outcome: Outcome::Counted, with_beside: false };
    let compared = |name, policy| Case { with_beside: true, ..counted(name, policy) };
    let changed = |name, change: fn(&mut Fields)| {
        let mut policy = full.clone();
        change(&mut policy.recipients[0].fields);
        counted(name, policy)
    };
    let any = scope(&[
        (Class::Foreign, Class::Foreign),
        (Class::Foreign, Class::Domestic),
        (Class::Domestic, Class::Foreign),
        (Class::Domestic, Class::Domestic),
    ]);
    let nothing =
        Scope { directions: vec![(Class::Domestic, Class::Foreign)], prefixes: any.prefixes.clone() };
    let none = indicators();
    let matching = Indicator { protocol: Some(6), ..host(IPV4_DESTINATION, 1) };
    let one = [none.clone(), vec![matching]].concat();

    let mut truncated = full.clone();
    truncate(&mut truncated.recipients[0].fields);
    let mut pseudonyms = full.clone();
    each_address(&mut pseudonyms.recipients[0].fields, |_| AddressTransform::Pseudonym);
    let few = one[one.len() - 8..].to_vec();
    let mut defence = Policy { scope: Some(any.clone()), selectors: Some(few), ..truncated.clone() };
    defence.recipients[0].fields.insert(RecordField::SelectorId, Transform::Exact);
    let mut defence_pseudonyms = defence.clone();
    for field in addresses() {
        let domestic =
            Transform::Address { foreign: AddressTransform::Exact, domestic: AddressTransform::Pseudonym };
        defence_pseudonyms.recipients[0].fields.insert(field, domestic);
    }
    let defence_many = Policy { selectors: Some(one.clone()), ..defence.clone() };
    Ok(vec![
        counted(FULL_RECORD, full.clone()),
        changed("without times", |fields| {
            fields.remove(&RecordField::FlowStartMilliseconds);
            fields.remove(&RecordField::FlowEndMilliseconds);
        }),
        changed("without addresses", |fields| fields.retain(|field, _| !addresses().contains(field))),
        changed("without ports", |fields| {
            fields.remove(&RecordField::SourceTransportPort);
            fields.remove(&RecordField::DestinationTransportPort);
        }),
        changed("counts by protocol only", |fields| {
            fields.retain(|field, _| *field == RecordField::ProtocolIdentifier);
        }),
        changed("addresses truncated, /24 and /48", truncate),
        changed("ports of services", |fields| {
            for port in [RecordField::SourceTransportPort, RecordField::DestinationTransportPort] {
                fields.insert(port, Transform::ServicePorts { below: 49_152 });
            }
        }),
        changed("classes of ports", |fields| {
            for port in [RecordField::SourceTransportPort, RecordField::DestinationTransportPort] {
                fields.insert(port, Transform::PortClasses);
            }
        }),
        changed("control bits masked", |fields| {
            fields.insert(RecordField::TcpControlBits, Transform::ControlBits { mask: 0x17 });
        }),
        changed("times to the hour", |fields| {
            let unit = Duration::from_secs(3600);
            for time in [RecordField::FlowStartMilliseconds, RecordField::FlowEndMilliseconds] {
                fields.insert(time, Transform::Coarsened { unit });
            }
        }),
        compared("pseudonyms of both addresses", pseudonyms),
        compared(CARRIER_DEFAULT, Policy::load(CARRIER_DEFAULT, &[])?),
        compared(SCOPE, Policy { scope: Some(any), ..full.clone() }),
        Case {
            name: "the same, out of scope",
            policy: Policy { scope: Some(nothing), ..full.clone() },
            outcome: Outcome::OutOfScope,
            with_beside: false,
        },
        Case {
            name: "100,000 indicators, none matches",
            policy: Policy { selectors: Some(none), ..full.clone() },
            outcome: Outcome::NotSelected,
            with_beside: false,
        },
        counted("100,000 indicators, one matches", Policy { selectors: Some(one), ..full }),
        compared(ACTIVE_CYBERDEFENCE, defence),
        counted("the same, 100,000 indicators", defence_many),
        compared(DOMESTIC_PSEUDONYMS, defence_pseudonyms),
    ])
}

const fn addresses() -> [RecordField; 4] {
    [
        RecordField::SourceIPv4Address,
        RecordField::DestinationIPv4Address,
        RecordField::SourceIPv6Address,
        RecordField::DestinationIPv6Address,
    ]
}

fn truncate(fields: &mut Fields) {
    each_address(fields, |is_ipv6| AddressTransform::Truncated { bits: if is_ipv6 { 48 } else { 24 } });
}

fn each_address(fields: &mut Fields, transform: fn(bool) -> AddressTransform) {
    for (field, is_ipv6) in addresses().into_iter().zip([false, false, true, true]) {
        fields.insert(field, Transform::address(transform(is_ipv6)));
    }
}

/// Domestic prefixes of 12 to 24 bits, among them that of the packets' destination.
fn scope(directions: &[(Class, Class)]) -> Scope {
    let drawn = (0..PREFIXES).map(|number| {
        let random = mix(number);
        let bits = 12 + u8::try_from(random >> 32 & 0xff).unwrap_or(0) % 13;
        let [first, second, third, fourth, ..] = random.to_le_bytes();
        prefix([first, second, third, fourth], bits)
    });
    let at_home = prefix(IPV4_DESTINATION, 24);
    let mut prefixes: Vec<_> = drawn.chain([at_home]).map(|prefix| (prefix, Class::Domestic)).collect();
    // Sources are drawn from all of IPv4; what a policy lists is not special.
    prefixes.push((prefix([0; 4], 0), Class::Foreign));
    prefixes.sort_unstable();
    prefixes.dedup();
    Scope { prefixes, directions: directions.to_vec() }
}

fn prefix(octets: [u8; 4], bits: u8) -> Prefix {
    let mut address = [0; 16];
    let kept = u32::from_be_bytes(octets) & u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
    address[..4].copy_from_slice(&kept.to_be_bytes());
    Prefix { ipv6: false, octets: address, bits }
}

/// Hosts in 240.0.0.0/4, and UDP-Lite, which no packet is.
fn indicators() -> Vec<Indicator> {
    let host = |number: u64| {
        let [first, second, third, fourth, ..] = mix(!number).to_le_bytes();
        Indicator { protocol: Some(136), ..host([0xf0 | first, second, third, fourth], number + 2) }
    };
    (0..INDICATORS).map(host).collect()
}

fn host(octets: [u8; 4], id: u64) -> Indicator {
    Indicator { id, expires: None, prefix: Some(prefix(octets, 32)), protocol: None, ports: Vec::new() }
}
