//! Records and ledgers of replayed captures are what tshark's dissection gives by the rules.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use minimizer::commands::pcap::{Capture, Frame};
use minimizer::commands::replay::replay;
use minimizer::policy::compile::CompiledPolicy;
use minimizer::records::keys::Keys;
use minimizer::records::terms::Keyring;
use minimizer_common::tunnel::Tunnels;
use rand::RngExt as _;
use serde_json::{Map, Value, json};
use tests::captures::{Captured, pcap, pcapng};
use tests::packets::{Extension, Generator, Network, OptionsHeader, Packet};
use tests::records::FlowCounts;
use tests::reference::WITH_PORTS;
use tests::tshark::{self, Flow, Reading, Rule};

/// Directory of further captures.
const CORPUS: &str = "PCAP_CORPUS";
/// Captures that are compared at once.
const BATCH: usize = 64;
const NANOSECONDS: u64 = 1_000_000_000;
const START_NS: u64 = 1_700_000_000_000_000_000;

/// What was compared.
#[derive(Default)]
struct Compared {
    captures: usize,
    frames: usize,
    records: usize,
    rules: BTreeMap<Rule, usize>,
}

#[derive(Default)]
struct Expected {
    flows: BTreeMap<Flow, FlowCounts>,
    outcomes: BTreeMap<&'static str, u64>,
}

impl Expected {
    fn add(&mut self, reading: Reading, time_ns: u64) {
        let outcome = match reading {
            Reading::NonIp => "non_ip",
            Reading::Malformed => "malformed",
            Reading::Unsupported => "unsupported",
            Reading::Counted { flow, octets, control_bits } => {
                // The full record's time is exact to the second.
                let time_ms = time_ns / NANOSECONDS * 1000;
                let counts = self.flows.entry(flow).or_insert_with(|| FlowCounts::from_start(time_ms));
                counts.add(octets, control_bits, counts.end_ms.max(time_ms));
                counts.start_ms = counts.start_ms.min(time_ms);
                "counted"
            }
        };
        *self.outcomes.entry(outcome).or_default() += 1;
    }

    /// The records, as JSON objects in an order of their own.
    fn records(&self) -> Vec<String> {
        let mut records: Vec<String> = self.flows.iter().map(|(flow, counts)| record(flow, counts)).collect();
        records.sort_unstable();
        records
    }
}

/// A record by the names of its fields.
fn record(flow: &Flow, counts: &FlowCounts) -> String {
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    match (flow.source, flow.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            put("sourceIPv4Address", json!(source));
            put("destinationIPv4Address", json!(destination));
        }
        (source, destination) => {
            put("sourceIPv6Address", json!(source));
            put("destinationIPv6Address", json!(destination));
        }
    }
    let (first, second) = flow.ports;
    match flow.protocol {
        protocol if WITH_PORTS.contains(&protocol) => {
            put("sourceTransportPort", json!(first));
            put("destinationTransportPort", json!(second));
        }
        1 => {
            put("icmpTypeIPv4", json!(first));
            put("icmpCodeIPv4", json!(second));
        }
        58 => {
            put("icmpTypeIPv6", json!(first));
            put("icmpCodeIPv6", json!(second));
        }
        _ => {}
    }
    if flow.protocol == 6 {
        put("tcpControlBits", json!(counts.control_bits));
    }
    put("protocolIdentifier", json!(flow.protocol));
    put("ipClassOfService", json!(flow.traffic_class));
    for (name, vlan) in ["vlanId", "dot1qCustomerVlanId"].iter().zip(&flow.vlans) {
        put(name, json!(vlan));
    }
    put("ingressInterface", json!(1));
    put("packetDeltaCount", json!(counts.packets));
    put("octetDeltaCount", json!(counts.octets));
    put("flowStartMilliseconds", json!(counts.start_ms));
    put("flowEndMilliseconds", json!(counts.end_ms));
    sorted(fields)
}

fn sorted(fields: Map<String, Value>) -> String {
    serde_json::to_string(&fields.into_iter().collect::<BTreeMap<_, _>>()).expect("serializes")
}

/// Compares one capture, of which `read` are the frames and `origins` their names.
fn check(capture: &Path, read: &[Frame], origins: &[String]) -> Compared {
    let name = capture.display();
    let mut frames = tshark::dissect(capture).unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(read.len(), frames.len(), "{name}: frames");
    for ((frame, dissected), origin) in read.iter().zip(&frames).zip(origins) {
        assert_eq!(frame.original_octets, dissected.octets, "{origin}: length");
        assert_eq!(frame.time_ns, dissected.time_ns, "{origin}: time");
    }
    if frames.iter().any(|frame| frame.captured_octets < frame.octets) {
        // What the snap length cut off is zero for the program: tshark gets to see the zeroes, too.
        let whole: Vec<_> =
            read.iter().map(|frame| Captured::whole(frame.time_ns, frame.data.clone())).collect();
        let padded = tempfile::NamedTempFile::new().expect("a temporary file");
        fs::write(padded.path(), pcapng(&whole)).expect("is writable");
        frames = tshark::dissect(padded.path()).unwrap_or_else(|error| panic!("{error:#}"));
    }
    let mut expected = Expected::default();
    let mut compared = Compared { frames: frames.len(), ..Compared::default() };
    let mut unexplained = Vec::new();
    for ((frame, dissected), origin) in read.iter().zip(&frames).zip(origins) {
        match tshark::read(dissected, &frame.data) {
            Ok((reading, rules)) => {
                expected.add(reading, frame.time_ns);
                for rule in rules {
                    *compared.rules.entry(rule).or_default() += 1;
                }
            }
            Err(error) => unexplained.push(format!("{origin}: {error:#}")),
        }
    }
    assert!(unexplained.is_empty(), "{name}:\n  {}", unexplained.join("\n  "));

    let compiled = CompiledPolicy::full_record(Tunnels::NONE);
    let keyring = Keyring::new(Keys::load(None).expect("random numbers"));
    let replayed =
        replay(capture, &compiled, keyring, None).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(replayed.error.is_none(), "{name}: {:?}", replayed.error);
    let records =
        replayed.records.iter().map(|record| match serde_json::to_value(record.with(replayed.fields)) {
            Ok(Value::Object(fields)) => sorted(fields),
            other => panic!("a record is an object, not {other:?}"),
        });
    let mut records: Vec<_> = records.collect();
    records.sort_unstable();
    compared.records = records.len();
    let of_tshark = expected.records();
    let only = |ours: &[String], theirs: &[String]| {
        let only: Vec<_> = ours.iter().filter(|record| !theirs.contains(record)).cloned().collect();
        only.join("\n  ")
    };
    assert!(
        records == of_tshark,
        "{name}:\nonly replayed:\n  {}\nonly by tshark:\n  {}",
        only(&records, &of_tshark),
        only(&of_tshark, &records)
    );

    assert!(replayed.ledger.is_balanced(), "{name}: the ledger balances");
    let ledger = serde_json::to_value(&replayed.ledger).expect("serializes");
    let outcomes = &ledger["interfaces"]["replay"]["outcomes"];
    for outcome in ["counted", "non_ip", "malformed", "unsupported"] {
        let found = match &outcomes[outcome] {
            Value::Object(reasons) => reasons.values().filter_map(Value::as_u64).sum(),
            number => number.as_u64().expect("a count"),
        };
        assert_eq!(found, expected.outcomes.get(outcome).copied().unwrap_or(0), "{name}: {outcome}");
    }
    assert_eq!(ledger["interfaces"]["replay"]["seen"], json!(frames.len()), "{name}: seen");
    compared
}

/// Compares all captures and says what was compared.
fn check_all(captures: &[PathBuf]) {
    let mut total = Compared::default();
    for batch in captures.chunks(BATCH) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let merged = directory.path().join("merged.pcapng");
        tshark::merge(batch, &merged).unwrap_or_else(|error| panic!("{error:#}"));
        let frames = read(&merged);
        // mergecap read the same frames from the captures as the agent does.
        let mut origins = Vec::new();
        for capture in batch {
            for frame in read(capture) {
                let origin = format!("{}, frame {}", capture.display(), frame.index + 1);
                let other =
                    frames.get(origins.len()).unwrap_or_else(|| panic!("{origin}: mergecap has no more"));
                assert_eq!(frame.data, other.data, "{origin}: octets");
                if frame.time_ns != other.time_ns {
                    let index = usize::try_from(frame.index).expect("fits");
                    let is_damaged = tshark::has_damaged_time(capture, index).expect("tshark runs");
                    assert!(is_damaged, "{origin}: {} is not {}", frame.time_ns, other.time_ns);
                    *total.rules.entry(Rule::DamagedTime).or_default() += 1;
                }
                origins.push(origin);
            }
        }
        assert_eq!(frames.len(), origins.len(), "frames of {batch:?}");
        let compared = check(&merged, &frames, &origins);
        total.captures += batch.len();
        total.frames += compared.frames;
        total.records += compared.records;
        for (rule, frames) in compared.rules {
            *total.rules.entry(rule).or_default() += frames;
        }
    }
    println!(
        "{} captures, {} frames, {} records compared with tshark",
        total.captures, total.frames, total.records
    );
    for (rule, frames) in &total.rules {
        println!("{frames:6} frames explained by {rule:?}: {}", rule.reason());
    }
}

fn read(capture: &Path) -> Vec<Frame> {
    Capture::open(capture).and_then(Iterator::collect).unwrap_or_else(|error| panic!("{error}"))
}

/// A frame in which tshark shows all headers, if not `any`: it stops at HIP, Shim6 and mobility
/// headers, at hop-by-hop headers behind others, and at jumbograms that are not large.
fn packet(generator: &mut Generator, any: bool) -> Packet {
    loop {
        let recipe = generator.recipe();
        let is_shown = match &recipe.network {
            Network::Ipv6(ip) => {
                let headers = ip.extensions.iter().enumerate();
                let mut stops = headers.filter_map(|(index, extension)| match extension {
                    Extension::Options { header, .. } => Some((index, *header)),
                    Extension::Fragment { .. } | Extension::Authentication { .. } => None,
                });
                !ip.is_jumbogram
                    && stops.all(|(index, header)| match header {
                        OptionsHeader::Mobility | OptionsHeader::Hip | OptionsHeader::Shim6 => false,
                        OptionsHeader::HopByHop => index == 0,
                        OptionsHeader::Routing | OptionsHeader::Destination => true,
                    })
            }
            Network::Ipv4(_) | Network::Other(_) => true,
        };
        if any || is_shown {
            return recipe.build();
        }
    }
}

#[test]
#[cfg_attr(
    any(without_kernel, without_tshark),
    ignore = "needs root, the kernel program and tshark: cargo xtask test"
)]
fn generated_captures() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut captures = Vec::new();
    for (seed, write) in [(31, pcap as fn(&[Captured]) -> Vec<u8>), (32, pcapng)] {
        let mut generator = Generator::new(seed);
        let frames: Vec<_> = (0..2000_u64)
            .map(|index| {
                let packet = packet(&mut generator, index % 10 == 0);
                let mut frame = Captured::whole(START_NS + index * 7_654_321, packet.octets);
                if generator.random().random_range(0..8) == 0 {
                    // The snap length cuts some inside their headers, others behind.
                    frame.data.truncate(generator.random().random_range(0..120));
                }
                frame
            })
            .collect();
        let path = directory.path().join(format!("{seed}.capture"));
        fs::write(&path, write(&frames)).expect("is writable");
        captures.push(path);
    }
    check_all(&captures);
}

#[test]
#[ignore = "needs captures: PCAP_CORPUS=FOLDER cargo xtask test"]
fn captures_of_the_corpus() {
    let corpus = env::var_os(CORPUS).expect("PCAP_CORPUS names a directory of captures");
    let files = fs::read_dir(&corpus).expect("PCAP_CORPUS is a directory");
    let files = files.map(|file| file.expect("is readable").path());
    let is_capture = |file: &PathBuf| {
        file.extension()
            .is_some_and(|extension| ["pcap", "pcapng", "cap"].iter().any(|known| extension == *known))
    };
    let mut captures: Vec<_> = files.filter(is_capture).collect();
    captures.sort_unstable();
    assert!(!captures.is_empty(), "PCAP_CORPUS holds captures");
    check_all(&captures);
}
