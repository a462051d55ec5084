//! Records of packets in tunnels are what tshark, an independent parser, shows of the innermost packet.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

use minimizer::commands::replay::replay;
use minimizer::policy::compile::CompiledPolicy;
use minimizer::records::keys::Keys;
use minimizer::records::terms::Keyring;
use minimizer_common::tunnel::Tunnel;
use serde_json::Value;
use tests::captures::{Captured, pcap};
use tests::packets::{Encapsulation, Generator, Header, Inner, Network, Recipe, Transport};

const FRAMES: usize = 3000;
const START_NS: u64 = 1_700_000_000_000_000_000;
/// Fields of which the last in a frame is the innermost.
const FIELDS: [&str; 20] = [
    "frame.protocols",
    "ip.src",
    "ip.dst",
    "ip.proto",
    "ip.len",
    "ipv6.src",
    "ipv6.dst",
    "ipv6.nxt",
    "ipv6.plen",
    "tcp.srcport",
    "tcp.dstport",
    "udp.srcport",
    "udp.dstport",
    "sctp.srcport",
    "sctp.dstport",
    "dccp.srcport",
    "dccp.dstport",
    "icmp.type",
    "icmpv6.type",
    "ip.frag_offset",
];

/// What a record and a frame have in common: addresses, protocol, source port or type.
type Key = (IpAddr, IpAddr, u64, u64);
/// Packets and octets by key.
type Counts = BTreeMap<Key, (u64, u64)>;

/// The tunnel of a recipe of which tshark shows every header.
fn plain_tunnel(recipe: &Recipe) -> Option<&Inner> {
    let transport = |network: &Network| -> Option<Transport> {
        match network {
            Network::Ipv4(ip) => Some(ip.transport.clone()),
            Network::Ipv6(ip) if ip.extensions.is_empty() && !ip.is_jumbogram => Some(ip.transport.clone()),
            Network::Ipv6(_) | Network::Other(_) => None,
        }
    };
    let (Network::Ipv4(_) | Network::Ipv6(_)) = &recipe.network else { return None };
    transport(&recipe.network)?;
    let inner = match &recipe.network {
        Network::Ipv4(ip) => ip.transport.inner.as_deref(),
        Network::Ipv6(ip) => ip.transport.inner.as_deref(),
        Network::Other(_) => None,
    }?;
    let carried = transport(&inner.network)?;
    // What tshark takes for more headers, and an ICMP error quotes a packet.
    let is_plain = match carried.header {
        Header::Icmp { message_type, .. } | Header::Icmpv6 { message_type, .. } => {
            [0, 8, 128, 135].contains(&message_type)
        }
        Header::Other { .. } | Header::UdpLite { .. } => false,
        _ => true,
    };
    // In GTP-U tshark takes a packet for IPv6 when its first octet is 0x60, and for IPv4 up to 0x4e.
    let is_told = match (&inner.encapsulation, &inner.network) {
        (Encapsulation::GtpU { .. }, Network::Ipv4(ip)) => ip.options.len() < 40,
        (Encapsulation::GtpU { .. }, Network::Ipv6(ip)) => ip.traffic_class < 16,
        _ => true,
    };
    (is_plain && is_told && carried.cut.is_none()).then_some(inner)
}

/// What tshark shows of each frame's innermost packet.
fn shown(capture: &Path) -> Counts {
    let mut command = Command::new("tshark");
    command.env("WIRESHARK_CONFIG_DIR", "/nonexistent").arg("-r").arg(capture);
    command.args(["-n", "-T", "fields", "-E", "occurrence=l", "-E", "separator=|"]);
    command.args(["-o", "ip.defragment:FALSE", "-o", "ipv6.defragment:FALSE"]);
    for field in FIELDS {
        command.args(["-e", field]);
    }
    let output = command.output().expect("tshark starts");
    assert!(output.status.success(), "tshark: {}", String::from_utf8_lossy(&output.stderr));
    let mut counts = Counts::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let values = FIELDS.into_iter().zip(line.split('|')).collect::<BTreeMap<_, _>>();
        let number = |name: &str| values[name].parse::<u64>().unwrap_or(0);
        let address = |name: &str| values[name].parse::<IpAddr>().expect("an address");
        let layers = values["frame.protocols"].split(':').collect::<Vec<_>>();
        let innermost = layers.iter().rposition(|layer| ["ip", "ipv6"].contains(layer)).expect("IP");
        // A transport header that this packet does not have is of one around it.
        let behind = &layers[innermost + 1..];
        let port = ["tcp", "udp", "sctp", "dccp"].iter().find(|name| behind.contains(name));
        let first = match port {
            Some(name) => number(&format!("{name}.srcport")),
            None if behind.contains(&"icmp") => number("icmp.type"),
            None if behind.contains(&"icmpv6") => number("icmpv6.type"),
            None => 0,
        };
        let (key, octets) = if layers[innermost] == "ip" {
            let key = (address("ip.src"), address("ip.dst"), number("ip.proto"), first);
            (key, number("ip.len"))
        } else {
            let key = (address("ipv6.src"), address("ipv6.dst"), number("ipv6.nxt"), first);
            (key, number("ipv6.plen") + 40)
        };
        let (packets, sum) = counts.entry(key).or_default();
        *packets += 1;
        *sum += octets;
    }
    counts
}

/// What the program in the kernel counts, with these tunnels listed.
fn counted(capture: &Path, tunnels: &[Tunnel]) -> Counts {
    let compiled = CompiledPolicy::load("full-record", tunnels).expect("is built in");
    let keyring = Keyring::new(Keys::load(None).expect("random numbers"));
    let replayed = replay(capture, &compiled, keyring, None).expect("replays");
    assert!(replayed.error.is_none() && replayed.ledger.is_balanced());
    let mut counts = Counts::new();
    for record in &replayed.records {
        let record = serde_json::to_value(record.with(replayed.fields)).expect("serializes");
        let field = |names: &[&str]| names.iter().find_map(|name| record.get(name)).cloned();
        let address = |names: [&str; 2]| match field(&names) {
            Some(Value::String(text)) => text.parse::<IpAddr>().expect("an address"),
            other => panic!("no address: {other:?}"),
        };
        let number = |names: &[&str]| field(names).and_then(|value| value.as_u64()).unwrap_or(0);
        let key = (
            address(["sourceIPv4Address", "sourceIPv6Address"]),
            address(["destinationIPv4Address", "destinationIPv6Address"]),
            number(&["protocolIdentifier"]),
            number(&["sourceTransportPort", "icmpTypeIPv4", "icmpTypeIPv6"]),
        );
        let (packets, octets) = counts.entry(key).or_default();
        *packets += number(&["packetDeltaCount"]);
        *octets += number(&["octetDeltaCount"]);
    }
    counts
}

/// Some of what one side has and the other has not.
fn only<'counts>(one: &'counts Counts, other: &Counts) -> Vec<(&'counts Key, &'counts (u64, u64))> {
    one.iter().filter(|(key, counts)| other.get(key) != Some(counts)).take(5).collect()
}

#[test]
#[cfg_attr(
    any(without_kernel, without_tshark),
    ignore = "needs root, the kernel program and tshark: cargo xtask test"
)]
fn the_innermost_packet_that_tshark_shows_is_counted() {
    let mut generator = Generator::new(41);
    let mut captured = BTreeMap::<&str, Vec<Captured>>::new();
    let mut frames = 0;
    while frames < FRAMES {
        let recipe = generator.recipe();
        let packet = recipe.build();
        let Some(inner) = plain_tunnel(&recipe) else { continue };
        // The inner packet is counted, and not the outer one.
        let (Ok(outer), Ok(listed)) = (packet.expected, packet.listed.expected) else { continue };
        if outer == listed {
            continue;
        }
        let kind = match (&inner.encapsulation, &recipe.network, &inner.network) {
            (Encapsulation::GtpU { .. }, ..) => "gtp-u",
            (Encapsulation::Vxlan { .. }, ..) => "vxlan",
            (Encapsulation::Gre { .. }, ..) if inner.vlans.is_some() => "gre, Ethernet",
            (Encapsulation::Gre { .. }, ..) => "gre, IP",
            (Encapsulation::None, Network::Ipv4(_), Network::Ipv4(_)) => "ip-in-ip",
            (Encapsulation::None, Network::Ipv4(_), _) => "6in4",
            (Encapsulation::None, _, Network::Ipv4(_)) => "4in6",
            (Encapsulation::None, ..) => "6in6",
        };
        frames += 1;
        let time_ns = START_NS + u64::try_from(frames).expect("few") * 1_000_000;
        captured.entry(kind).or_default().push(Captured::whole(time_ns, packet.octets));
    }
    assert_eq!(captured.len(), 8, "{:?}", captured.keys());
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("tunnels.pcap");
    for (kind, frames) in captured {
        fs::write(&path, pcap(&frames)).expect("is writable");
        let (ours, theirs) = (counted(&path, Tunnel::ALL), shown(&path));
        assert!(
            ours == theirs,
            "{kind}: only here {:?}, only by tshark {:?}",
            only(&ours, &theirs),
            only(&theirs, &ours)
        );
        let outer = counted(&path, &[]);
        assert!(
            outer.values().map(|(packets, _)| packets).sum::<u64>() == frames.len() as u64 && outer != ours
        );
        println!("{kind}: {} frames, {} flows inside, as tshark shows them", frames.len(), ours.len());
    }
}
