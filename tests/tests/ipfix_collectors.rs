//! The IPFIX sink as nfcapd, nfacctd and tshark read it.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use anyhow::Result;
use minimizer::commands::demo::generator::Traffic;
use minimizer::delivery::loss::Loss;
use minimizer::delivery::sink::Taken;
use minimizer::policy::field::Field;
use serde_json::{Value, json};
use tests::command::{Agent, minimizer};
use tests::ipfix::collectors::{Nfacctd, Nfcapd, datagrams_lost, free_port, tshark, wait};
use tests::ipfix::decoded::Decoded;
use tests::ipfix::sinks::{only_file, sink};
use tests::ipfix::{ALL_FIELDS, Offer, exact, many, one_of_each, totals};
use tests::network::Network;

#[test]
#[cfg_attr(without_tshark, ignore = "needs tshark: cargo xtask test")]
fn tshark_reads_every_record_of_a_file_and_how_it_was_anonymized() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut sink = sink(&format!("directory = \"{}\"", folder.path().display()))?;
    let mut offer = Offer::exact(&ALL_FIELDS)?;
    let brought = offer.bring(sink.as_mut(), &one_of_each())?;
    assert_eq!(brought.taken, Taken::Delivered);
    // Nothing has its name before it is whole.
    for entry in fs::read_dir(folder.path())?.chain(fs::read_dir(folder.path().join(".minimizer"))?) {
        let name = entry?.file_name().to_string_lossy().into_owned();
        assert!(name == ".minimizer" || name.ends_with(".tmp"), "{name}");
    }
    sink.close()?;
    let file = only_file(folder.path())?;
    let messages = tshark(&file)?;
    let mut flows = Vec::new();
    let mut anonymized = 0;
    for message in &messages {
        visit(message, &mut |object| {
            if object.contains_key("cflow.octets") {
                flows.push(object.clone());
            }
            anonymized += usize::from(object.contains_key("cflow.anonymization_technique"));
        });
        assert!(!message.to_string().contains("_ws.malformed"), "{message:#}");
    }
    let sum = |key: &str| -> u64 {
        let value = |flow: &serde_json::Map<String, Value>| flow[key].as_str()?.parse::<u64>().ok();
        flows.iter().filter_map(value).sum::<u64>()
    };
    assert_eq!((flows.len(), sum("cflow.packets"), sum("cflow.octets")), totals(&one_of_each()));
    // One for each element of each template that occurred.
    let mut decoded = Decoded::default();
    decoded.stream(&fs::read(&file)?)?;
    let elements: usize =
        decoded.templates.iter().filter(|(id, _)| **id >= 384).map(|(_, elements)| elements.len()).sum();
    assert_eq!(anonymized, elements, "{messages:#?}");
    Ok(())
}

/// Calls `look` with every object in a value.
fn visit(value: &Value, look: &mut impl FnMut(&serde_json::Map<String, Value>)) {
    match value {
        Value::Object(object) => {
            look(object);
            object.values().for_each(|value| visit(value, look));
        }
        Value::Array(values) => values.iter().for_each(|value| visit(value, look)),
        _ => {}
    }
}

#[test]
#[cfg_attr(without_nfdump, ignore = "needs nfdump: cargo xtask test")]
fn nfdump_reads_every_record() -> Result<()> {
    let nfcapd = Nfcapd::start(free_port()?)?;
    let mut sink = sink(&format!("collector = \"127.0.0.1:{}\"", nfcapd.port))?;
    let mut offer = Offer::exact(&ALL_FIELDS)?;
    let mut records = one_of_each();
    records.extend(many(2000));
    offer.bring(sink.as_mut(), &records)?;
    assert!(matches!(sink.close()?, Taken::Sent { .. }));
    let flows = nfcapd.stop()?;
    let sum = |key: &str| flows.iter().filter_map(|flow| flow[key].as_u64()).sum::<u64>();
    assert_eq!((flows.len(), sum("in_packets"), sum("in_bytes")), totals(&records), "{:#?}", flows.first());
    // It knows the sampling and multiplies with it: by 1, since the sums are right.
    assert!(flows.iter().all(|flow| flow["sampled"] == 1), "{flows:#?}");
    let of = |proto: u64, host: &str| {
        let is_it =
            |flow: &&Value| flow["proto"] == proto && flow["src4_addr"] == host || flow["src6_addr"] == host;
        flows.iter().find(is_it).cloned().unwrap_or_default()
    };
    let (tcp, icmp, tagged) = (of(6, "192.0.2.1"), of(1, "192.0.2.4"), of(6, "192.0.2.6"));
    assert_eq!(
        (&tcp["tcp_flags"], &tcp["src_port"], &tcp["input_snmp"]),
        (&json!("...AP.SF"), &json!(40_001), &json!(17))
    );
    assert_eq!((&tcp["first"], &tcp["src_tos"]), (&json!("2026-09-21T14:13:20.000"), &json!(184)));
    assert_eq!((&icmp["icmp_type"], &icmp["icmp_code"]), (&json!(3), &json!(1)), "{icmp:#}");
    assert_eq!(tagged["src_vlan"], 100, "{tagged:#}");
    assert_eq!(of(58, "2001:db8:1::3")["icmp_type"], 135);
    Ok(())
}

#[test]
#[cfg_attr(without_pmacct, ignore = "needs pmacct: cargo xtask test")]
fn nfacctd_reads_every_record() -> Result<()> {
    let nfacctd = Nfacctd::start(
        free_port()?,
        "src_host,dst_host,src_port,dst_port,proto,tos,tcpflags,in_iface,vlan,timestamp_start,timestamp_end,sampling_rate",
    )?;
    let mut sink = sink(&format!("collector = \"127.0.0.1:{}\"", nfacctd.port))?;
    let mut offer = Offer::exact(&ALL_FIELDS)?;
    offer.bring(sink.as_mut(), &one_of_each())?;
    let flows = nfacctd.records(one_of_each().len())?;
    let sum = |key: &str| flows.iter().filter_map(|flow| flow[key].as_u64()).sum::<u64>();
    assert_eq!((flows.len(), sum("packets"), sum("bytes")), totals(&one_of_each()), "{flows:#?}");
    assert!(flows.iter().all(|flow| flow["sampling_rate"] == 1), "{flows:#?}");
    let of = |host: &str| flows.iter().find(|flow| flow["ip_src"] == host).cloned().unwrap_or_default();
    assert_eq!((&of("192.0.2.1")["tcp_flags"], &of("192.0.2.6")["vlan"]), (&json!("27"), &json!(100)));
    assert_eq!(of("2001:db8:1::5")["iface_in"], 17);
    // It warns of numbers that do not follow each other.
    assert!(!nfacctd.said().to_lowercase().contains("sequence"), "{}", nfacctd.said());
    Ok(())
}

#[test]
#[cfg_attr(without_pmacct, ignore = "needs pmacct: cargo xtask test")]
fn nfacctd_counts_records_without_addresses_and_sums_without_keys() -> Result<()> {
    let nfacctd = Nfacctd::start(free_port()?, "proto")?;
    let mut sink = sink(&format!("collector = \"127.0.0.1:{}\"", nfacctd.port))?;
    let mut offer = Offer::exact(&["protocolIdentifier", "packetDeltaCount", "octetDeltaCount"])?;
    let records = one_of_each();
    offer.bring(sink.as_mut(), &records)?;
    // What too few sources made.
    let counts = [Field::PacketDeltaCount, Field::OctetDeltaCount].into_iter().collect();
    sink.begin(&offer.heading())?;
    sink.take(&records[..1], counts)?;
    sink.end()?;
    let (_, packets, octets) = totals(&records);
    let expected = (packets + records[0].packets, octets + records[0].octets);
    let reads_all = || {
        let flows = nfacctd.records(1)?;
        let sum = |key: &str| flows.iter().filter_map(|flow| flow[key].as_u64()).sum::<u64>();
        Ok((sum("packets"), sum("bytes")) == expected)
    };
    wait(reads_all, "nfacctd drops records without addresses")
}

#[test]
#[cfg_attr(without_nfdump, ignore = "needs nfdump: cargo xtask test")]
fn nfdump_shows_no_nonsense_where_the_recipient_gets_half_of_the_times() -> Result<()> {
    for fields in [&["flowStartMilliseconds"][..], &["flowEndMilliseconds"], &ALL_FIELDS] {
        let nfcapd = Nfcapd::start(free_port()?)?;
        let mut sink = sink(&format!("collector = \"127.0.0.1:{}\"", nfcapd.port))?;
        let fields = [&["sourceIPv4Address", "packetDeltaCount"], fields].concat();
        let fields: BTreeSet<_> = fields.into_iter().collect();
        let mut offer = Offer::exact(&fields.iter().copied().collect::<Vec<_>>())?;
        offer.bring(sink.as_mut(), &one_of_each()[..1])?;
        sink.close()?;
        let flows = nfcapd.stop()?;
        let (first, last) = (flows[0]["first"].as_str(), flows[0]["last"].as_str());
        assert!(first <= last, "{fields:?}: {flows:#?}");
    }
    Ok(())
}

#[test]
#[cfg_attr(without_nfdump, ignore = "needs nfdump: cargo xtask test")]
fn nfcapd_counts_options_as_sequence_errors_and_none_when_they_are_left_out() -> Result<()> {
    for (options, has_errors) in [("true", true), ("false", false)] {
        let nfcapd = Nfcapd::start(free_port()?)?;
        let mut sink = sink(&format!("collector = \"127.0.0.1:{}\"\noptions = {options}", nfcapd.port))?;
        let mut offer = Offer::exact(&ALL_FIELDS)?;
        for _ in 0..3 {
            offer.bring(sink.as_mut(), &one_of_each())?;
        }
        sink.close()?;
        let (flows, errors) = nfcapd.end()?;
        assert_eq!(flows.len(), 3 * one_of_each().len());
        assert_eq!(errors > 0, has_errors, "{options}: {errors}");
    }
    Ok(())
}

#[test]
#[cfg_attr(without_nfdump, ignore = "needs nfdump: cargo xtask test")]
fn a_collector_that_comes_back_gets_every_record_once() -> Result<()> {
    let port = free_port()?;
    let mut sink = sink(&format!("collector = \"127.0.0.1:{port}\""))?;
    let mut offer = Offer::exact(&ALL_FIELDS)?;
    let records = many(9000);
    let mut next = 0;
    offer.number += 1;
    let refused = offer.try_to_bring(sink.as_mut(), &records[..3000], &mut next);
    assert_eq!(refused.err().map(|error| error.loss), Some(Loss::Unreachable));
    assert_eq!(next, 0, "nothing was taken while nobody was there");
    let first = Nfcapd::start(port)?;
    offer.bring(sink.as_mut(), &records[..3000])?;
    let mut flows = first.stop()?;
    // The collector is gone; what is sent now comes back, and is sent again.
    let socket = thread::scope(|scope| -> Result<_> {
        let waiting = scope.spawn(|| Nfcapd::start(port));
        offer.bring(sink.as_mut(), &records[3000..6000])?;
        waiting.join().expect("it does not panic")
    })?;
    offer.bring(sink.as_mut(), &records[6000..])?;
    assert!(matches!(sink.close()?, Taken::Sent { .. }));
    flows.append(&mut socket.stop()?);
    let sum = |key: &str| flows.iter().filter_map(|flow| flow[key].as_u64()).sum::<u64>();
    assert_eq!((flows.len(), sum("in_packets"), sum("in_bytes")), totals(&records));
    Ok(())
}

/// Sinks for an agent whose policy gives one recipient everything, and another the first 24 bits of sources.
const SINKS: [(&str, &str, &str); 4] = [
    ("nfcapd", "soc", "collector = \"127.0.0.1:4739\""),
    ("nfacctd", "soc", "collector = \"127.0.0.1:4740\", observation_domain = 2"),
    ("file", "soc", "directory = \"exact\", rotate_every = \"1d\""),
    ("truncated", "abroad", "directory = \"truncated\", rotate_every = \"1d\""),
];

#[test]
#[cfg_attr(
    any(without_kernel, without_nfdump, without_pmacct, without_tshark),
    ignore = "needs root, the kernel program, nfdump, pmacct and tshark: cargo xtask test"
)]
fn everybody_reads_what_the_ledger_of_the_agent_says() -> Result<()> {
    let mut network = Network::new(1, 1500)?;
    let folder = tempfile::tempdir()?;
    let nfcapd = Nfcapd::start(4739)?;
    let nfacctd = Nfacctd::start(4740, "proto,sampling_rate")?;
    let fields = "sourceIPv4Address = { truncate = 24 }\nprotocolIdentifier = \"exact\"\n\
                  packetDeltaCount = \"exact\"\noctetDeltaCount = \"exact\"\n";
    let abroad =
        format!("[[recipients]]\nname = \"abroad\"\npurpose = \"to test\"\n[recipients.fields]\n{fields}");
    fs::write(folder.path().join("policy.toml"), exact(&ALL_FIELDS) + &abroad)?;
    let mut text = "interfaces = [\"receive0\"]\npolicy = \"policy.toml\"\nlisten = \"127.0.0.1:0\"\n\
                    interval = \"500ms\"\nledger = \"ledger.json\"\n"
        .to_owned();
    for (name, recipient, ipfix) in SINKS {
        text +=
            &format!("[[sinks]]\nname = \"{name}\"\nrecipient = \"{recipient}\"\nipfix = {{ {ipfix} }}\n");
    }
    let config = folder.path().join("agent.toml");
    fs::write(&config, text)?;
    let agent = Agent::start(Command::new(minimizer()).args(["run", "--config"]).arg(&config))?;
    let sender = network.send(0, &Arc::new(Traffic::mixed(7)), None)?;
    agent.wait_for(|status| status["ledger"]["exported"]["packets"].as_u64() > Some(20_000))?;
    let handed = sender.finish()?;
    network.settle(0, handed)?;
    let (ended, said) = agent.stop()?;
    assert!(ended.success(), "{said}");
    let ledger: Value = serde_json::from_slice(&fs::read(folder.path().join("ledger.json"))?)?;
    assert_eq!(ledger["balanced"], true, "{ledger:#}");
    let exported = |sink: &str| {
        let number = |name: &str| ledger["sinks"][sink]["exported"][name].as_u64().unwrap_or_default();
        (number("records"), number("packets"), number("octets"))
    };
    assert!(exported("nfcapd").1 > 20_000, "{ledger:#}");

    let flows = nfcapd.stop()?;
    let sum = |key: &str| flows.iter().filter_map(|flow| flow[key].as_u64()).sum::<u64>();
    assert_eq!((flows.len() as u64, sum("in_packets"), sum("in_bytes")), exported("nfcapd"));
    // Its buffer is the default one, and the records of a second come together.
    assert_eq!(datagrams_lost(nfacctd.port)?, Some(0));
    // It adds up flows of one protocol.
    let (_, packets, octets) = exported("nfacctd");
    let reads_all = || {
        let flows = nfacctd.records(1)?;
        let sum = |key: &str| flows.iter().filter_map(|flow| flow[key].as_u64()).sum::<u64>();
        anyhow::ensure!(flows.iter().all(|flow| flow["sampling_rate"] == 1), "{flows:#?}");
        Ok((sum("packets"), sum("bytes")) == (packets, octets))
    };
    wait(reads_all, "nfacctd does not print all packets and octets")?;
    assert!(!nfacctd.said().to_lowercase().contains("sequence"), "{}", nfacctd.said());
    for (sink, directory, technique) in [("file", "exact", "1"), ("truncated", "truncated", "2")] {
        let file = only_file(&folder.path().join(directory))?;
        let mut decoded = Decoded::default();
        decoded.stream(&fs::read(&file)?)?;
        let sum = |element: u16| -> u64 {
            let value = |octets: &Vec<u8>| octets.iter().fold(0, |sum, octet| sum << 8 | u64::from(*octet));
            decoded.flows.iter().filter_map(|(_, values)| values.get(&element)).map(value).sum()
        };
        assert_eq!((decoded.flows.len() as u64, sum(2), sum(1)), exported(sink), "{sink}");
        assert_eq!(decoded.missing, 0, "{sink}");
        let (mut sums, mut techniques) = ((0, 0, 0), Vec::new());
        for message in tshark(&file)? {
            visit(&message, &mut |object| {
                let text = |key: &str| object.get(key).and_then(Value::as_str);
                let number = |key: &str| text(key).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
                if object.contains_key("cflow.octets") {
                    sums = (sums.0 + 1, sums.1 + number("cflow.packets"), sums.2 + number("cflow.octets"));
                }
                if text("cflow.information_element_id") == Some("8") {
                    techniques.extend(text("cflow.anonymization_technique").map(str::to_owned));
                }
            });
        }
        assert_eq!(sums, exported(sink), "{sink}, by tshark");
        assert!(!techniques.is_empty() && techniques.iter().all(|one| one == technique), "{techniques:?}");
    }
    Ok(())
}
