//! Records and the ledger as people and programs read them.

use std::io::{self, Write};
use std::net::IpAddr;

use clap::ValueEnum;
use minimizer_common::outcome::Outcome;
use minimizer_common::protocol::{ICMPV6, Protocol, Transport};

use crate::delivery::ledger::{Ledger, Standing, Told};
use crate::policy::field::{Field, Fields};
use crate::records::record::Record;
use crate::sinks::json_lines;

/// How data is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Columns for people.
    Table,
    /// JSON: of records one a line, with keys of the IANA IPFIX registry; else one object.
    Json,
}

/// How many records become lines before these are written.
const RECORDS_AT_ONCE: usize = 1024;

/// Writes one JSON object per record, each on a line of its own.
///
/// # Errors
/// If writing fails.
pub fn json_lines(out: &mut impl Write, records: &[Record], fields: Fields) -> io::Result<()> {
    let mut lines = Vec::new();
    for records in records.chunks(RECORDS_AT_ONCE) {
        lines.clear();
        json_lines::append(&mut lines, records, fields);
        out.write_all(&lines)?;
    }
    Ok(())
}

/// Writes these fields of records as columns with a header. `-` stands for what the policy omits.
///
/// # Errors
/// If writing fails.
pub fn table<'records>(
    out: &mut impl Write,
    records: impl IntoIterator<Item = &'records Record>,
    fields: Fields,
) -> io::Result<()> {
    writeln!(
        out,
        "{:<10} {:>5} {:<46} {:<46} {:>10} {:>14} {:<9}",
        "PROTOCOL", "VLAN", "SOURCE", "DESTINATION", "PACKETS", "OCTETS", "FLAGS"
    )?;
    for record in records {
        let (source, destination) = endpoints(record, fields);
        let vlan = record.tuple.tags().vlan_id().filter(|_| fields.has(Field::VlanId));
        let vlan = vlan.map_or_else(String::new, |vlan_id| vlan_id.to_string());
        let count =
            |field, count: u64| if fields.has(field) { count.to_string() } else { OMITTED.to_owned() };
        writeln!(
            out,
            "{:<10} {vlan:>5} {source:<46} {destination:<46} {:>10} {:>14} {:<9}",
            protocol(record, fields),
            count(Field::PacketDeltaCount, record.packets),
            count(Field::OctetDeltaCount, record.octets),
            control_bits(record, fields)
        )?;
    }
    Ok(())
}

/// Stands for a value that the policy omits.
const OMITTED: &str = "-";

/// Name of a record's protocol.
#[must_use]
pub fn protocol(record: &Record, fields: Fields) -> String {
    if fields.has(Field::ProtocolIdentifier) {
        protocol_name(record.tuple.protocol(), record.tuple.tags().is_ipv6())
    } else {
        OMITTED.to_owned()
    }
}

/// Source and destination as text, with ports where the protocol has them.
#[must_use]
pub fn endpoints(record: &Record, fields: Fields) -> (String, String) {
    let tuple = &record.tuple;
    let has_ports = Transport::of(tuple.protocol()).has_ports();
    let port = |field, port: u16| (has_ports && fields.has(field)).then_some(port);
    let ports = (
        port(Field::SourceTransportPort, tuple.source_port()),
        port(Field::DestinationTransportPort, tuple.destination_port()),
    );
    let text = |field, address: IpAddr, port: Option<u16>| match (fields.has(field), address, port) {
        (false, _, None) => OMITTED.to_owned(),
        (false, _, Some(port)) => format!("{OMITTED}:{port}"),
        (true, IpAddr::V6(address), Some(port)) => format!("[{address}]:{port}"),
        (true, address, Some(port)) => format!("{address}:{port}"),
        (true, address, None) => address.to_string(),
    };
    if tuple.tags().is_ipv6() {
        let (source, destination) = tuple.ipv6();
        (
            text(Field::SourceIPv6Address, source.into(), ports.0),
            text(Field::DestinationIPv6Address, destination.into(), ports.1),
        )
    } else {
        let (source, destination) = tuple.ipv4();
        (
            text(Field::SourceIPv4Address, source.into(), ports.0),
            text(Field::DestinationIPv4Address, destination.into(), ports.1),
        )
    }
}

/// Name of a protocol number, as `/etc/protocols` has it, or the number.
#[must_use]
pub fn protocol_name(protocol: u8, ipv6: bool) -> String {
    let name =
        Protocol::numbered(protocol).map_or_else(|| protocol.to_string(), |known| known.title.to_owned());
    if ipv6 && protocol != ICMPV6 { format!("{name}/6") } else { name }
}

/// TCP control bits by their letters, or ICMP type and code.
#[must_use]
pub fn control_bits(record: &Record, fields: Fields) -> String {
    let icmp = |kind, code| {
        let part = |field, value: u16| if fields.has(field) { value.to_string() } else { OMITTED.to_owned() };
        format!("{}/{}", part(kind, record.tuple.source_port()), part(code, record.tuple.destination_port()))
    };
    match Transport::of(record.tuple.protocol()) {
        Transport::Tcp if fields.has(Field::TcpControlBits) => ["F", "S", "R", "P", "A", "U", "E", "C"]
            .iter()
            .enumerate()
            .map(|(bit, letter)| if record.control_bits >> bit & 1 == 1 { letter } else { "." })
            .collect(),
        Transport::Icmp => icmp(Field::IcmpTypeIPv4, Field::IcmpCodeIPv4),
        Transport::IcmpV6 => icmp(Field::IcmpTypeIPv6, Field::IcmpCodeIPv6),
        Transport::Tcp | Transport::Ports | Transport::Other => String::new(),
    }
}

/// Writes the ledger for people: every outcome of every interface, and whether it adds up.
///
/// # Errors
/// If writing fails.
pub fn ledger(out: &mut impl Write, ledger: &Ledger) -> io::Result<()> {
    writeln!(out, "LEDGER")?;
    for (name, totals) in ledger.interfaces() {
        writeln!(out, "  {name:<32} {:>15} packets seen", totals.seen_packets)?;
        for outcome in Outcome::ALL.iter().filter(|outcome| totals.outcome(**outcome) != 0) {
            let label = outcome
                .reason()
                .map_or_else(|| outcome.name().to_owned(), |reason| format!("{} {reason}", outcome.name()));
            writeln!(out, "    {label:<30} {:>15}", totals.outcome(*outcome))?;
        }
    }
    for (name, unwatched) in ledger.unwatched().filter(|(_, unwatched)| unwatched.times != 0) {
        let (times, seconds) = (unwatched.times, unwatched.time.as_secs_f64());
        writeln!(out, "  {name:<32} {times:>15} times unwatched, {seconds:.1} s altogether")?;
    }
    let Told { exported, sent_unconfirmed, suppressed } = ledger.told();
    let lines = [
        ("in records", exported),
        ("of these sent, and unconfirmed", sent_unconfirmed),
        ("of these suppressed, about", suppressed),
        ("in records that were dropped", ledger.dropped()),
        ("in records not yet handed over", ledger.queued()),
        ("in residual counters (overflow)", ledger.overflow()),
    ];
    for (index, (label, counts)) in lines.iter().enumerate() {
        if index == 0 || counts.packets != 0 {
            writeln!(out, "  {label:<32} {:>15} packets {:>18} IP octets", counts.packets, counts.octets)?;
        }
    }
    match ledger.standing() {
        Standing::Incomplete(reason) => writeln!(out, "  INCOMPLETE, so that nobody knows: {reason}"),
        _ if !ledger.is_balanced() => writeln!(out, "  NOT BALANCED"),
        Standing::Complete => writeln!(out, "  balanced: every packet has one outcome"),
        Standing::SoFar => writeln!(out, "  balanced so far: every packet has one outcome"),
    }
}
