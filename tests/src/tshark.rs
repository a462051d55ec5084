//! What tshark, an independent parser, sees in a capture.

mod reading;
mod rule;
mod walk;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use roxmltree::{Document, Node};

pub use reading::read;
pub use rule::{Flow, Reading, Rule};

/// Protocols whose fields are asked for; of others the name is enough.
const PROTOCOLS: &str = "frame eth vlan ieee8021ad mpls pppoes ppp ip ipv6 ipv6.hopopts ipv6.routing \
    ipv6.fraghdr ipv6.dstopts ah mipv6 hip shim6 tcp udp udplite sctp dccp icmp icmpv6";

/// Each packet by itself, as it lies in the frame.
const PREFERENCES: [&str; 6] = [
    "ip.defragment:FALSE",
    "ipv6.defragment:FALSE",
    // A total length of 0 is taken for what it says.
    "ip.tso_support:FALSE",
    "ipv6.tso_support:FALSE",
    "tcp.desegment_tcp_streams:FALSE",
    "sctp.reassembly:FALSE",
];

/// A frame as tshark dissects it.
#[derive(Debug)]
pub struct Frame {
    /// Its length on the wire.
    pub octets: u32,
    /// Octets of it in the capture.
    pub captured_octets: u32,
    /// Nanoseconds since 1970.
    pub time_ns: u64,
    /// Protocols and fields from the outermost header on, in the order of the display.
    pub parts: Vec<Part>,
}

/// A protocol or a field.
#[derive(Debug)]
pub struct Part {
    /// Name in display filters.
    pub name: String,
    /// Offset in the frame.
    pub position: u32,
    /// Whether it is a protocol of the frame's outermost level.
    pub is_layer: bool,
    /// Whether it is a protocol.
    pub is_protocol: bool,
    /// The value as it is shown.
    pub show: String,
}

/// Writes captures, one after the other, into one: starting tshark takes longer than most captures do.
///
/// # Errors
/// When mergecap, which comes with tshark, fails.
pub fn merge(captures: &[PathBuf], merged: &Path) -> anyhow::Result<()> {
    let mut command = Command::new("mergecap");
    command.arg("-a").arg("-w").arg(merged).args(captures);
    let output = command.output().context("mergecap does not start")?;
    ensure!(output.status.success(), "mergecap: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Whether Wireshark's own time of a frame, counted from 0, is before 1970: it keeps nanoseconds in 32
/// bits, and a damaged fraction of more than a second overflows.
///
/// # Errors
/// When tshark fails.
pub fn has_damaged_time(capture: &Path, index: usize) -> anyhow::Result<bool> {
    let mut command = Command::new("tshark");
    command.arg("-r").arg(capture).args(["-n", "-T", "fields", "-e", "frame.time_epoch"]);
    let output = command.output().context("tshark does not start")?;
    let times = String::from_utf8_lossy(&output.stdout);
    Ok(times.lines().nth(index).is_some_and(|time| time.starts_with('-')))
}

/// Dissects a capture.
///
/// # Errors
/// When tshark fails or its output cannot be read.
pub fn dissect(capture: &Path) -> anyhow::Result<Vec<Frame>> {
    let mut command = Command::new("tshark");
    // The user's own preferences must not matter.
    command.env("WIRESHARK_CONFIG_DIR", "/nonexistent").arg("-r").arg(capture);
    command.args(["-n", "-T", "pdml", "-J", PROTOCOLS]);
    for preference in PREFERENCES {
        command.args(["-o", preference]);
    }
    let output = command.output().context("tshark does not start")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "tshark on {}: {errors}", capture.display());
    // Fields may show octets that are no UTF-8.
    let text = String::from_utf8_lossy(&output.stdout);
    let document = Document::parse(&text).with_context(|| format!("PDML of {}", capture.display()))?;
    document.root_element().children().filter(|node| node.has_tag_name("packet")).map(frame).collect()
}

fn frame(packet: Node<'_, '_>) -> anyhow::Result<Frame> {
    let mut layers = packet.children().filter(Node::is_element);
    let _general = layers.next().context("a packet starts with general information")?;
    let frame = layers.next().context("and goes on with the frame")?;
    let number = |name: &str| -> anyhow::Result<&str> {
        let field = frame.descendants().find(|field| field.attribute("name") == Some(name));
        field.and_then(|field| field.attribute("show")).with_context(|| format!("no {name}"))
    };
    let (seconds, fraction) = number("frame.time_epoch")?.split_once('.').context("no fraction")?;
    let mut parts = Vec::new();
    for layer in layers {
        for node in layer.descendants().filter(Node::is_element) {
            parts.push(Part {
                name: node.attribute("name").unwrap_or_default().to_owned(),
                position: node.attribute("pos").and_then(|at| at.parse().ok()).unwrap_or_default(),
                is_layer: node == layer,
                is_protocol: node.has_tag_name("proto"),
                show: node.attribute("show").unwrap_or_default().to_owned(),
            });
        }
    }
    Ok(Frame {
        octets: number("frame.len")?.parse()?,
        captured_octets: number("frame.cap_len")?.parse()?,
        time_ns: seconds.parse::<u64>()? * 1_000_000_000 + fraction.parse::<u64>()?,
        parts,
    })
}
