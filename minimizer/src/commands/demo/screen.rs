//! The demo's last screen: what was sent, seen and recorded, that no payload was read, and what to type next.

use std::collections::BTreeMap;
use std::env;
use std::io::{self, Write};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::cost::Cost;
use super::payload_check::PayloadCheck;
use crate::commands::text;
use crate::delivery::ledger::Ledger;
use crate::interfaces::netlink::Link;
use crate::records::record::Record;
use crate::support::printable;
use crate::support::units::scaled;

/// Most interfaces that are proposed.
const PROPOSALS_MAX: usize = 3;

/// Records, packets and IP octets by protocol and IP version.
#[derive(Clone, Debug, Default)]
pub struct Protocols(BTreeMap<(u8, bool), [u64; 3]>);

impl Protocols {
    /// Adds records of one interval.
    pub fn add(&mut self, records: &[Record]) {
        for record in records {
            let key = (record.tuple.protocol(), record.tuple.tags().is_ipv6());
            let [count, packets, octets] = self.0.entry(key).or_default();
            *count += 1;
            *packets += record.packets;
            *octets += record.octets;
        }
    }

    /// Names and sums, the most packets first.
    fn ranked(&self) -> Vec<(String, [u64; 3])> {
        let mut ranked: Vec<_> = self
            .0
            .iter()
            .map(|(&(protocol, ipv6), &sums)| (text::protocol_name(protocol, ipv6), sums))
            .collect();
        ranked.sort_by_key(|(_, [_, packets, _])| std::cmp::Reverse(*packets));
        ranked
    }
}

/// What the demo found.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Where every packet went.
    pub ledger: Ledger,
    /// Records by protocol.
    pub protocols: Protocols,
    /// Frames sent, by the counters of the sending interface.
    pub sent: u64,
    /// Frames that the sending interface cannot carry.
    pub unsendable: u64,
    /// How long the demo sent.
    pub elapsed: Duration,
    /// The cost of the program, if the kernel measures it.
    pub cost: Option<Cost>,
    /// Whether payload changes what is stored.
    pub payload_check: PayloadCheck,
}

impl Summary {
    fn seen(&self) -> u64 {
        self.ledger.interfaces().map(|(_, totals)| totals.seen_packets).sum()
    }

    /// Checks what `--check` promises.
    ///
    /// # Errors
    /// Which promise is broken.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.sent == 0 {
            Err("nothing was sent")
        } else if self.sent != self.seen() {
            Err("the frames seen are not the frames sent")
        } else if !self.ledger.is_balanced() {
            Err("the ledger does not balance")
        } else if !self.payload_check.passed {
            Err("bytes behind the headers change what the program stores")
        } else {
            Ok(())
        }
    }
}

/// Interfaces of this host to propose for `run`: those that are up, hardware before virtual ones.
#[must_use]
pub fn host_interfaces(links: &[Link]) -> Vec<String> {
    let candidates = || links.iter().filter(|link| link.up && !link.loopback);
    let devices = candidates().filter(|link| link.driver.is_some());
    let virtual_links = candidates().filter(|link| link.driver.is_none());
    devices.chain(virtual_links).take(PROPOSALS_MAX).map(|link| printable::shell_word(&link.name)).collect()
}

/// Commands to propose.
fn next_commands(host_interfaces: &[String]) -> Vec<String> {
    // The name as it was typed, so that the lines can be copied.
    let minimizer = env::args().next().unwrap_or_else(|| "minimizer".to_owned());
    let mut commands = vec![format!("{minimizer} doctor")];
    if !host_interfaces.is_empty() {
        let options: Vec<_> = host_interfaces.iter().map(|name| format!("-i {name}")).collect();
        commands.push(format!("{minimizer} run {}", options.join(" ")));
    }
    commands.push(format!("{minimizer} replay CAPTURE.pcap --output json"));
    commands
}

/// Prints the last screen.
///
/// # Errors
/// When the standard output cannot be written.
pub fn print(summary: &Summary, host_interfaces: &[String]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let seconds = summary.elapsed.as_secs_f64();
    writeln!(out)?;
    writeln!(
        out,
        "SENT AND SEEN\n  {} frames sent in {seconds:.1} s ({}frames/s), {} seen",
        summary.sent,
        scaled(summary.sent as f64 / seconds.max(f64::MIN_POSITIVE)),
        summary.seen()
    )?;
    if summary.unsendable > 0 {
        writeln!(out, "  {} frames were too long for the interface and not sent", summary.unsendable)?;
    }
    writeln!(out, "\n{:<20} {:>10} {:>14} {:>18}", "RECORDS BY PROTOCOL", "RECORDS", "PACKETS", "IP OCTETS")?;
    for (name, [records, packets, octets]) in summary.protocols.ranked() {
        writeln!(out, "  {name:<18} {records:>10} {packets:>14} {octets:>18}")?;
    }
    writeln!(out)?;
    text::ledger(&mut out, &summary.ledger)?;
    if let Some(cost) = summary.cost {
        writeln!(
            out,
            "\nCOST\n  {:.0} ns per packet: the kernel's own measure of {} runs, its clock reads included",
            cost.ns_per_run(),
            cost.runs
        )?;
    }
    let check = summary.payload_check;
    writeln!(out, "\nPAYLOAD")?;
    if check.passed {
        writeln!(out, "  payload bytes read: 0")?;
        writeln!(
            out,
            "  checked in the kernel: {} of the frames were counted again with all {} bytes behind\n  \
             their headers inverted, and left the same {} bytes of map memory, bit for bit",
            check.frames, check.inverted_octets, check.map_octets
        )?;
    } else {
        writeln!(out, "  CHECK FAILED: bytes behind the headers change what the program stores")?;
    }
    writeln!(out, "\nNEXT")?;
    for command in next_commands(host_interfaces) {
        writeln!(out, "  {command}")?;
    }
    out.flush()
}

/// Prints the same as one JSON object.
///
/// # Errors
/// When the standard output cannot be written.
pub fn print_json(summary: &Summary, host_interfaces: &[String]) -> io::Result<()> {
    let protocols: Map<String, Value> = summary
        .protocols
        .ranked()
        .into_iter()
        .map(|(name, [records, packets, octets])| {
            (name, json!({"records": records, "packets": packets, "octets": octets}))
        })
        .collect();
    let check = summary.payload_check;
    let mut object = json!({
        "sent": summary.sent,
        "seen": summary.seen(),
        "unsendable": summary.unsendable,
        "elapsed_seconds": summary.elapsed.as_secs_f64(),
        "protocols": protocols,
        "ledger": summary.ledger,
        "payload_check": {
            "passed": check.passed,
            "frames": check.frames,
            "inverted_octets": check.inverted_octets,
            "map_octets": check.map_octets,
        },
        "next": next_commands(host_interfaces),
    });
    if let Some(cost) = summary.cost {
        object["ns_per_packet"] = cost.ns_per_run().into();
    }
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, &object)?;
    out.write_all(b"\n")?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::host_interfaces;
    use crate::interfaces::netlink::Link;

    #[test]
    fn devices_that_are_up_come_first() {
        let link = |name: &str, driver: Option<&str>, up, loopback| Link {
            driver: driver.map(str::to_owned),
            up,
            carrier: up,
            loopback,
            ..Link::named(1, name)
        };
        let links = [
            link("lo", None, true, true),
            link("br0", None, true, false),
            link("eth0", Some("ixgbe"), true, false),
            link("eth1", Some("ixgbe"), false, false),
        ];
        assert_eq!(host_interfaces(&links), ["eth0", "br0"]);
    }
}
