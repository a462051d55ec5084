//! The IPFIX sink, as nfcapd, nfacctd, tshark and another decoder read it.

use std::fs;
use std::io::Read as _;
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use minimizer::commands::demo::generator::Traffic;
use minimizer::delivery::loss::Loss;
use minimizer::delivery::sink::{Sink, Taken};
use minimizer::policy::field::Field;
use minimizer::sinks::ipfix::{IpfixConfig, IpfixFile};
use minimizer::support::toml::Document;
use serde_json::{Value, json};
use tests::authority::Authority;
use tests::command::{Agent, minimizer};
use tests::ipfix::collectors::{Nfacctd, Nfcapd, free_port, tshark, wait};
use tests::ipfix::decoded::{Decoded, all_expected};
use tests::ipfix::streams::{accept, read_tls, read_to_end};
use tests::ipfix::{ALL_FIELDS, LIMIT, Offer, exact, many, one_of_each, recipient, settle, totals};
use tests::network::Network;
use tests::privilege::can_use_kernel;

/// The sink of this configuration, in this folder.
fn configured(text: &str, folder: &Path) -> Result<Box<dyn Sink>, String> {
    let mut document = Document::new("agent.toml".to_owned(), text);
    let file: IpfixFile = document.read().map_err(|findings| findings.to_string())?;
    let config = IpfixConfig::check(&file, &mut document, folder);
    document.finish().map_err(|findings| findings.to_string())?;
    Ok(config.ok_or("what is not refused is a configuration")?.sink("soc"))
}

fn sink(text: &str) -> Result<Box<dyn Sink>> {
    configured(text, Path::new("")).map_err(anyhow::Error::msg)
}

/// A socket of this test, and a sink that sends to it.
fn to_socket() -> Result<(UdpSocket, Box<dyn Sink>)> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBuf, &(64 << 20))?;
    socket.set_nonblocking(true)?;
    let sink = sink(&format!("collector = \"{}\"", socket.local_addr()?))?;
    Ok((socket, sink))
}

/// Decodes what a socket has got.
fn receive(socket: &UdpSocket, decoded: &mut Decoded) -> Result<()> {
    let mut octets = vec![0; 65_536];
    while let Ok(length) = socket.recv(&mut octets) {
        decoded.message(&octets[..length])?;
    }
    Ok(())
}

/// The only file of messages in a folder, where nothing else is but its manifest.
fn only_file(folder: &Path) -> Result<std::path::PathBuf> {
    let entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut paths: Vec<_> = entries.collect::<std::io::Result<_>>()?;
    paths.sort();
    let [file, manifest] = &paths[..] else { anyhow::bail!("{paths:?}") };
    anyhow::ensure!(file.extension().is_some_and(|extension| extension == "ipfix"), "{paths:?}");
    anyhow::ensure!(*manifest == file.with_extension("ipfix.manifest.json"), "{paths:?}");
    Ok(file.clone())
}

#[test]
fn every_kind_of_record_is_decoded_as_it_was_sent() -> Result<()> {
    let (socket, mut sink) = to_socket()?;
    let mut offer = Offer::exact(&ALL_FIELDS)?;
    let mut records = one_of_each();
    for protocol in 0..=u8::MAX {
        records.push(tests::ipfix::ipv4(
            (7, protocol),
            (3, 1),
            protocol,
            minimizer_common::tuple::Tags::NONE,
        ));
    }
    offer.bring(sink.as_mut(), &records)?;
    let mut decoded = Decoded::default();
    receive(&socket, &mut decoded)?;
    assert_eq!(decoded.sorted_flows(), all_expected(&records, offer.fields()));
    // Every element of every template has its record, and says that nothing was changed but times.
    let templates: Vec<_> = decoded.flows.iter().map(|(id, _)| *id).collect();
    for id in templates {
        for (element, _) in &decoded.templates[&id] {
            let expected = if [152, 153].contains(element) { (3, 2) } else { (0, 1) };
            assert_eq!(decoded.anonymization(id, *element), Some(expected), "{id} {element}");
        }
    }
    let interface = decoded.option(10, &17_u32.to_be_bytes()).context("there is the interface")?;
    assert_eq!(interface[&82], b"uplink-to-the-ix");
    assert_eq!(
        decoded.option(149, &1_u32.to_be_bytes()).context("there is sampling")?[&34],
        1_u32.to_be_bytes()
    );
    assert_eq!(
        decoded.option(302, &0_u64.to_be_bytes()).context("there is sampling")?[&305],
        1_u32.to_be_bytes()
    );
    Ok(())
}

#[test]
fn no_record_is_missing_over_many_batches_and_no_message_is_too_long() -> Result<()> {
    let (socket, mut sink) = to_socket()?;
    let mut offer = Offer::exact(&ALL_FIELDS)?;
    let mut decoded = Decoded::default();
    let records = many(10_000);
    for batch in records.chunks(1000) {
        assert_eq!(offer.bring(sink.as_mut(), batch)?.taken, Taken::Delivered);
        receive(&socket, &mut decoded)?;
    }
    assert_eq!(decoded.sorted_flows(), all_expected(&records, offer.fields()));
    assert_eq!(decoded.missing, 0);
    assert!((1300..=1400).contains(&decoded.longest), "{}", decoded.longest);
    let statistics = decoded.options.iter().filter(|(_, values)| values.contains_key(&42)).count();
    assert_eq!(statistics, 10, "one a batch");
    Ok(())
}

#[test]
fn what_a_recipient_does_not_get_is_in_no_template() -> Result<()> {
    for (fields, elements) in [
        (&["packetDeltaCount", "octetDeltaCount"][..], &[2, 1][..]),
        (&["sourceTransportPort", "protocolIdentifier"], &[7, 4]),
        (&["icmpTypeIPv4", "protocolIdentifier"], &[176, 4]),
        (&["ingressInterface"], &[10, 61]),
        (&["destinationIPv6Address"], &[28, 60]),
    ] {
        let (socket, mut sink) = to_socket()?;
        let mut offer = Offer::exact(fields)?;
        offer.bring(sink.as_mut(), &one_of_each())?;
        let mut decoded = Decoded::default();
        receive(&socket, &mut decoded)?;
        assert_eq!(decoded.flows.len(), one_of_each().len());
        for (element, _) in decoded.flows.iter().flat_map(|(id, _)| &decoded.templates[id]) {
            // A record of which nothing is left has an octet of padding.
            assert!(elements.contains(element) || *element == 210, "{fields:?}: {element}");
        }
    }
    Ok(())
}

#[test]
fn the_sum_of_too_few_sources_has_a_template_of_its_own() -> Result<()> {
    let (socket, mut sink) = to_socket()?;
    let offer = Offer::exact(&ALL_FIELDS)?;
    let counts = [Field::PacketDeltaCount, Field::OctetDeltaCount].into_iter().collect();
    let records = one_of_each();
    sink.begin(&offer.heading())?;
    sink.take(&records[1..], offer.fields())?;
    sink.take(&records[..1], counts)?;
    sink.end()?;
    let mut decoded = Decoded::default();
    receive(&socket, &mut decoded)?;
    let (id, sum) = decoded.flows.last().context("there is the sum")?;
    assert_eq!(Some(sum), all_expected(&records[..1], counts).first());
    assert_eq!(decoded.templates[id].iter().map(|(element, _)| *element).collect::<Vec<_>>(), [2, 1]);
    Ok(())
}

#[test]
fn indicators_that_selected_packets_are_described() -> Result<()> {
    let (socket, mut sink) = to_socket()?;
    let (mut records, mut fields) = (one_of_each(), Offer::exact(&ALL_FIELDS)?.fields());
    fields = fields.with(Field::SelectorId);
    records.iter_mut().zip(1001..).for_each(|(record, id)| record.selector_id = id);
    let offer = Offer::exact(&ALL_FIELDS)?;
    sink.begin(&offer.heading())?;
    sink.take(&records, fields)?;
    sink.end()?;
    let mut decoded = Decoded::default();
    receive(&socket, &mut decoded)?;
    assert_eq!(decoded.sorted_flows(), all_expected(&records, fields));
    let indicator = decoded.option(302, &1003_u64.to_be_bytes()).context("there is the indicator")?;
    assert_eq!((&*indicator[&304], &*indicator[&305]), (&5_u16.to_be_bytes()[..], &1_u32.to_be_bytes()[..]));
    Ok(())
}

#[test]
fn transforms_are_named_as_rfc_6235_names_them() -> Result<()> {
    let fields = "sourceIPv4Address = { truncate = 24 }\ndestinationIPv4Address = \"exact\"\n\
                  sourceTransportPort = \"classes\"\ndestinationTransportPort = { services_below = 1024 }\n\
                  protocolIdentifier = \"exact\"\ntcpControlBits = { mask = [\"SYN\"] }\npacketDeltaCount = \"log2\"\n\
                  flowStartMilliseconds = { coarsen = \"1m\" }\nsourceIPv6Address = \"pseudonym\"\n\
                  destinationIPv6Address = \"prefix-preserving\"\n";
    let (socket, mut sink) = to_socket()?;
    let mut offer = Offer::new(&recipient(fields))?;
    offer.bring(sink.as_mut(), &one_of_each())?;
    let mut decoded = Decoded::default();
    receive(&socket, &mut decoded)?;
    let with = |element: u16| {
        let has = |(id, _): &&(u16, _)| decoded.templates[id].iter().any(|(other, _)| *other == element);
        let id = decoded.flows.iter().find(has).map(|(id, _)| *id);
        id.and_then(|id| decoded.anonymization(id, element))
    };
    for (element, expected) in [
        (8, (3, 2)),
        (12, (0, 1)),
        (7, (3, 3)),
        (11, (3, 3)),
        (4, (0, 1)),
        (6, (3, 2)),
        (2, (3, 3)),
        (152, (3, 2)),
        (27, (0, 5)),
        (28, (0, 6)),
        (60, (0, 1)),
    ] {
        assert_eq!(with(element), Some(expected), "element {element}");
    }
    Ok(())
}

#[test]
fn tshark_reads_every_record_of_a_file_and_how_it_was_anonymized() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut sink = sink(&format!("directory = \"{}\"", folder.path().display()))?;
    let mut offer = Offer::exact(&ALL_FIELDS)?;
    let brought = offer.bring(sink.as_mut(), &one_of_each())?;
    assert_eq!(brought.taken, Taken::Delivered);
    // Nothing has its name before it is whole.
    for entry in fs::read_dir(folder.path())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        assert!(name.starts_with(".soc-") && name.ends_with(".tmp"), "{name}");
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
fn nfdump_reads_every_record() -> Result<()> {
    let nfcapd = Nfcapd::start(free_port()?)?;
    let mut sink = sink(&format!("collector = \"127.0.0.1:{}\"", nfcapd.port))?;
    let mut offer = Offer::exact(&ALL_FIELDS)?;
    let mut records = one_of_each();
    records.extend(many(2000));
    offer.bring(sink.as_mut(), &records)?;
    assert_eq!(sink.close()?, Taken::Delivered);
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
    assert_eq!(sink.close()?, Taken::Delivered);
    flows.append(&mut socket.stop()?);
    let sum = |key: &str| flows.iter().filter_map(|flow| flow[key].as_u64()).sum::<u64>();
    assert_eq!((flows.len(), sum("in_packets"), sum("in_bytes")), totals(&records));
    Ok(())
}

#[test]
fn a_stream_that_breaks_goes_on_in_the_next() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut sink = sink(&format!("collector = \"{}\"\ntransport = \"tcp\"", listener.local_addr()?))?;
    let mut offer = Offer::exact(&ALL_FIELDS)?;
    let records = many(6000);
    let (close, closing) = mpsc::channel::<()>();
    let (first, second) = thread::scope(|scope| -> Result<_> {
        let from = &listener;
        let reading = scope.spawn(move || -> Result<_> {
            let mut stream = accept(from)?;
            stream.set_read_timeout(Some(Duration::from_millis(20)))?;
            let (mut first, mut piece) = (Vec::new(), [0; 65_536]);
            while closing.try_recv().is_err() {
                if let Ok(count) = stream.read(&mut piece) {
                    first.extend_from_slice(&piece[..count]);
                }
            }
            Ok(first)
        });
        offer.bring(sink.as_mut(), &records[..3000])?;
        settle(sink.as_mut())?;
        close.send(())?;
        let first = reading.join().expect("it does not panic")?;
        let reading = scope.spawn(|| read_to_end(&mut accept(&listener)?));
        let brought = offer.bring(sink.as_mut(), &records[3000..])?;
        assert!(brought.errors.is_empty(), "{brought:?}");
        assert_eq!(sink.close()?, Taken::Delivered);
        Ok((first, reading.join().expect("it does not panic")?))
    })?;
    let (mut one, mut other) = (Decoded::default(), Decoded::default());
    one.stream(&first)?;
    other.stream(&second)?;
    assert_eq!(one.sorted_flows(), all_expected(&records[..3000], offer.fields()));
    assert_eq!(other.sorted_flows(), all_expected(&records[3000..], offer.fields()));
    assert_eq!((one.missing, other.missing), (0, 0));
    assert_eq!(
        one.sequence.map(|next| next.to_be_bytes()).as_ref().map(|octets| &octets[..]),
        second.get(8..12)
    );
    Ok(())
}

#[test]
fn a_stream_that_is_not_read_is_an_error_and_goes_on_where_it_stopped() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut sink = sink(&format!("collector = \"{}\"\ntransport = \"tcp\"", listener.local_addr()?))?;
    let mut offer = Offer::exact(&ALL_FIELDS)?;
    let records = many(200_000);
    let mut next = 0;
    offer.number += 1;
    let begin = std::time::Instant::now();
    let stalled =
        offer.try_to_bring(sink.as_mut(), &records, &mut next).err().context("it does not stall")?;
    assert_eq!(stalled.loss, Loss::Stalled, "{stalled}");
    assert!(!stalled.held_is_lost && next > 0 && next < records.len(), "{next}");
    // Two calls at most found out, and none of them waits longer than a few seconds.
    assert!(begin.elapsed() < LIMIT);
    let octets = thread::scope(|scope| -> Result<_> {
        let reading = scope.spawn(|| read_to_end(&mut accept(&listener)?));
        while next < records.len() {
            if offer.try_to_bring(sink.as_mut(), &records, &mut next).is_ok() {
                break;
            }
        }
        settle(sink.as_mut())?;
        assert_eq!(sink.close()?, Taken::Delivered);
        reading.join().expect("it does not panic")
    })?;
    let mut decoded = Decoded::default();
    decoded.stream(&octets)?;
    assert_eq!(decoded.flows.len(), records.len());
    assert!(decoded.sorted_flows() == all_expected(&records, offer.fields()), "records differ");
    assert_eq!(decoded.missing, 0);
    assert_eq!(sink.octets_written(), u64::try_from(octets.len())?);
    Ok(())
}

#[test]
fn templates_of_a_former_policy_are_withdrawn() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut sink = sink(&format!("collector = \"{}\"\ntransport = \"tcp\"", listener.local_addr()?))?;
    let mut offer = Offer::exact(&ALL_FIELDS)?;
    let records = one_of_each();
    let octets = thread::scope(|scope| -> Result<_> {
        let reading = scope.spawn(|| read_to_end(&mut accept(&listener)?));
        offer.bring(sink.as_mut(), &records)?;
        offer.replace(&exact(&["sourceIPv4Address", "packetDeltaCount"]))?;
        offer.bring(sink.as_mut(), &records)?;
        offer.replace(&exact(&ALL_FIELDS))?;
        offer.bring(sink.as_mut(), &records)?;
        assert_eq!(sink.close()?, Taken::Delivered);
        reading.join().expect("it does not panic")
    })?;
    let mut decoded = Decoded::default();
    decoded.stream(&octets)?;
    let ids = |range: std::ops::Range<usize>| -> std::collections::BTreeSet<u16> {
        decoded.flows[range].iter().map(|(id, _)| *id).collect()
    };
    let count = records.len();
    assert_eq!(decoded.flows.len(), 3 * count);
    assert!(ids(0..count).is_disjoint(&ids(count..2 * count)));
    let withdrawn: std::collections::BTreeSet<_> = decoded.withdrawn.iter().copied().collect();
    assert_eq!(withdrawn, &ids(0..count) | &ids(count..2 * count));
    assert_eq!(ids(0..count), ids(2 * count..3 * count), "numbers follow from the fields");
    assert_eq!(decoded.missing, 0);
    Ok(())
}

#[test]
fn tls_lets_in_whom_the_collector_trusts_and_nobody_else() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (servers, clients, others) =
        (Authority::new("servers")?, Authority::new("clients")?, Authority::new("others")?);
    fs::write(folder.path().join("ca.pem"), servers.pem())?;
    fs::write(folder.path().join("others.pem"), others.pem())?;
    clients.write(folder.path(), "agent", "agent.example")?;
    others.write(folder.path(), "stranger", "agent.example")?;
    let config = servers.server("collector.example", &clients)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let text = |tls: &str| {
        let collector = listener.local_addr().map(|address| address.to_string()).unwrap_or_default();
        format!("collector = \"{collector}\"\ntransport = \"tls\"\ntls = {{ {tls} }}")
    };
    let records = many(3000);
    for (tls, expected) in [
        (
            "ca = \"ca.pem\", server_name = \"collector.example\", certificate = \"stranger.pem\", key = \"stranger.key\"",
            "it does not accept this agent",
        ),
        ("ca = \"ca.pem\", server_name = \"collector.example\"", "it does not accept this agent"),
        (
            "ca = \"others.pem\", server_name = \"collector.example\", certificate = \"agent.pem\", key = \"agent.key\"",
            "name the authority",
        ),
        ("ca = \"ca.pem\", certificate = \"agent.pem\", key = \"agent.key\"", "write the name"),
        (
            "ca = \"ca.pem\", server_name = \"collector.example\", certificate = \"agent.pem\", key = \"agent.key\"",
            "",
        ),
    ] {
        let mut sink = configured(&text(tls), folder.path()).map_err(anyhow::Error::msg)?;
        let offer = Offer::exact(&ALL_FIELDS)?;
        let read = thread::scope(|scope| -> Result<_> {
            let reading = scope.spawn(|| read_tls(accept(&listener)?, config.clone()));
            let mut next = 0;
            let brought = offer.try_to_bring(sink.as_mut(), &records, &mut next);
            if expected.is_empty() {
                brought?;
                assert_eq!(sink.close()?, Taken::Delivered);
            } else {
                let error = brought.err().context("it is refused")?;
                assert_eq!((error.loss, next), (Loss::Refused, 0), "{error}");
                assert!(error.message.contains(expected), "{error}");
            }
            drop(sink);
            Ok(reading.join().expect("it does not panic"))
        })?;
        if expected.is_empty() {
            let mut decoded = Decoded::default();
            decoded.stream(&read?)?;
            assert_eq!(decoded.sorted_flows(), all_expected(&records, offer.fields()));
        } else {
            assert!(read.is_err(), "{tls}");
        }
    }
    Ok(())
}

#[test]
fn what_cannot_be_is_refused_with_its_place() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::new("authority")?;
    authority.write(folder.path(), "agent", "agent.example")?;
    authority.write(folder.path(), "other", "agent.example")?;
    fs::write(folder.path().join("ca.pem"), authority.pem())?;
    fs::copy(folder.path().join("agent.key"), folder.path().join("open.key"))?;
    fs::set_permissions(folder.path().join("open.key"), std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    let tls = |tls: &str| format!("collector = \"c.example:4740\"\ntransport = \"tls\"\ntls = {{ {tls} }}");
    for (text, part) in [
        (String::new(), "either `collector` or `directory`"),
        (
            "collector = \"192.0.2.1:1\"\ndirectory = \"d\"".to_owned(),
            "agent.toml:2:13: `collector` is given too",
        ),
        ("collector = \"192.0.2.1\"".to_owned(), "1:13: `192.0.2.1`: a collector is a host and a port"),
        ("collector = \"c.example:0\"".to_owned(), "a host and a port"),
        (
            "collector = \"c.example:1\"\ntls = { ca = \"ca.pem\" }".to_owned(),
            "2:7: keys and certificates need `transport",
        ),
        ("collector = \"c.example:1\"\ntransport = \"sctp\"".to_owned(), "unknown variant `sctp`"),
        ("collector = \"c.example:1\"\nmessage_octets = 100".to_owned(), "2:18: allowed are 512 to 65507"),
        ("collector = \"c.example:1\"\nobservation_domain = 0".to_owned(), "2:22: 0 stands for"),
        ("collector = \"c.example:1\"\nrotate_every = \"5m\"".to_owned(), "no files"),
        (
            "collector = \"c.example:1\"\ntransport = \"tcp\"\ntemplate_interval = \"5m\"".to_owned(),
            "over \"udp\" only",
        ),
        ("collector = \"c.example:1\"\ntemplate_interval = \"1ms\"".to_owned(), "allowed are 1s to 1h"),
        ("directory = \"d\"\ntransport = \"tcp\"".to_owned(), "nothing is sent"),
        ("directory = \"d\"\nrotate_octets = \"1kiB\"".to_owned(), "from \"1MiB\" on"),
        ("directory = \"ca.pem\"".to_owned(), "is not a folder"),
        (tls("ca = \"none.pem\""), "none.pem: no certificates can be read"),
        (tls("ca = \"agent.key\""), "agent.key: has no certificate in it"),
        (tls("ca = \"ca.pem\", key = \"agent.key\""), "without its `certificate`"),
        (tls("ca = \"ca.pem\", certificate = \"agent.pem\""), "without its `key`"),
        (
            tls("ca = \"ca.pem\", certificate = \"agent.pem\", key = \"open.key\""),
            "mode 0644 lets users other than its owner",
        ),
        (
            tls("ca = \"ca.pem\", certificate = \"agent.pem\", key = \"other.key\""),
            "is it the key of the certificate",
        ),
        (tls("ca = \"ca.pem\", certificate = \"agent.pem\", key = \"agent.pem\""), "agent.pem"),
        (tls("ca = \"ca.pem\", server_name = \"a b\""), "cannot be in a certificate"),
    ] {
        let said = configured(&text, folder.path()).err().context(text.clone())?;
        assert!(said.contains(part), "{text}: {said}");
    }
    for text in ["collector = \"[2001:db8::1]:4739\"", "directory = \"d\"\nrotate_every = \"1h\""] {
        configured(text, folder.path()).map_err(anyhow::Error::msg)?;
    }
    configured(&tls("ca = \"ca.pem\", certificate = \"agent.pem\", key = \"agent.key\""), folder.path())
        .map_err(anyhow::Error::msg)?;
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
fn everybody_reads_what_the_ledger_of_the_agent_says() -> Result<()> {
    if !can_use_kernel() {
        return Ok(());
    }
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
