//! IPFIX over TCP and TLS and into files: what breaks, stalls or is turned away, and that no record is lost or doubled by it.

use std::fs;
use std::io::Read as _;
use std::net::TcpListener;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use minimizer::delivery::loss::Loss;
use minimizer::delivery::sink::{Heading, Losses, Taken};
use minimizer_common::generation::Counts;
use tests::authority::Authority;
use tests::ipfix::decoded::{Decoded, all_expected};
use tests::ipfix::sinks::{configured, sink};
use tests::ipfix::streams::{accept, read_tls, read_to_end};
use tests::ipfix::{ALL_FIELDS, LIMIT, Offer, exact, many, one_of_each, recipient, settle};

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
fn losses_are_told_no_finer_than_counts_and_times_of_the_records() -> Result<()> {
    const IGNORED: [u16; 2] = [164, 165];
    const NOT_SENT: [u16; 2] = [167, 168];
    const OBSERVED: u16 = 323;
    let counts = |of: &str| {
        format!(
            "packetDeltaCount = \"{of}\"\noctetDeltaCount = \"{of}\"\nflowEndMilliseconds = {{ coarsen = \"1h\" }}\n"
        )
    };
    for (fields, ignored, not_sent) in [
        (counts("log2"), [4, 256], [8, 512]),
        (counts("exact"), [7, 300], [9, 1000]),
        ("flowEndMilliseconds = { coarsen = \"1h\" }\n".to_owned(), [4, 256], [8, 512]),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut sink = sink(&format!("collector = \"{}\"\ntransport = \"tcp\"", listener.local_addr()?))?;
        let mut offer = Offer::new(&recipient(&fields))?;
        offer.number = 1;
        let octets = thread::scope(|scope| -> Result<_> {
            let reading = scope.spawn(|| read_to_end(&mut accept(&listener)?));
            let losses = Losses {
                overflow: Counts { packets: 7, octets: 300 },
                dropped: Counts { packets: 9, octets: 1000 },
            };
            let heading = offer.heading();
            sink.begin(&Heading { losses, end_ms: heading.end_ms / 1000 * 1000 + 123, ..heading })?;
            sink.end()?;
            settle(sink.as_mut())?;
            assert_eq!(sink.close()?, Taken::Delivered);
            reading.join().expect("it does not panic")
        })?;
        let mut decoded = Decoded::default();
        decoded.stream(&octets)?;
        let told = |element: u16| -> Vec<u64> {
            let number = |octets: &Vec<u8>| octets.iter().fold(0, |sum, octet| sum << 8 | u64::from(*octet));
            decoded.options.iter().filter_map(|(_, values)| values.get(&element)).map(number).collect()
        };
        assert_eq!(IGNORED.map(&told), ignored.map(|count| vec![count]), "{fields}");
        assert_eq!(NOT_SENT.map(&told), not_sent.map(|count| vec![count]), "{fields}");
        let hour = offer.heading().end_ms / 3_600_000 * 3_600_000;
        assert!(!told(OBSERVED).is_empty() && told(OBSERVED).iter().all(|time| *time == hour), "{fields}");
    }
    Ok(())
}
