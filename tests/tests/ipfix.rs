//! What an IPFIX message says of records, templates, interfaces and anonymization, and which configurations are refused.

use std::fs;
use std::net::UdpSocket;

use anyhow::{Context as _, Result};
use minimizer::delivery::sink::{Sink, Taken};
use minimizer::policy::field::Field;
use tests::authority::Authority;
use tests::ipfix::decoded::{Decoded, all_expected};
use tests::ipfix::sinks::{configured, sink};
use tests::ipfix::{ALL_FIELDS, Offer, many, one_of_each, recipient};

/// A socket of this test, and a sink that sends to it.
fn to_socket() -> Result<(UdpSocket, Box<dyn Sink>)> {
    to_socket_with("")
}

/// The same with further lines of configuration.
fn to_socket_with(text: &str) -> Result<(UdpSocket, Box<dyn Sink>)> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBuf, &(64 << 20))?;
    socket.set_nonblocking(true)?;
    let sink = sink(&format!("collector = \"{}\"\n{text}", socket.local_addr()?))?;
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
fn who_does_not_learn_where_packets_came_in_gets_no_names_of_interfaces() -> Result<()> {
    let (socket, mut sink) = to_socket()?;
    let mut offer = Offer::exact(&["protocolIdentifier", "packetDeltaCount"])?;
    let mut decoded = Decoded::default();
    for _ in 0..2 {
        offer.bring(sink.as_mut(), &one_of_each())?;
        receive(&socket, &mut decoded)?;
        offer.interfaces.pop();
    }
    assert!(!decoded.flows.is_empty());
    assert_eq!(decoded.options.iter().find(|(_, values)| values.contains_key(&82)), None);
    Ok(())
}

#[test]
fn no_record_is_missing_over_many_batches_and_no_message_is_too_long() -> Result<()> {
    let (socket, mut sink) = to_socket()?;
    let mut offer = Offer::exact(&ALL_FIELDS)?;
    let mut decoded = Decoded::default();
    let records = many(10_000);
    for batch in records.chunks(1000) {
        let taken = offer.bring(sink.as_mut(), batch)?.taken;
        assert!(matches!(taken, Taken::Sent { .. }), "{taken:?}");
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
        (&["destinationIPv6Address"], &[28]),
        // Half of an interval would be read as one of minus some years.
        (&["packetDeltaCount", "flowStartMilliseconds"], &[2]),
        (&["packetDeltaCount", "flowEndMilliseconds"], &[2]),
        (&["flowStartMilliseconds", "flowEndMilliseconds"], &[152, 153]),
    ] {
        let (socket, mut sink) = to_socket()?;
        let mut offer = Offer::exact(fields)?;
        offer.bring(sink.as_mut(), &one_of_each())?;
        let mut decoded = Decoded::default();
        receive(&socket, &mut decoded)?;
        assert_eq!(decoded.flows.len(), one_of_each().len());
        for (element, _) in decoded.flows.iter().flat_map(|(id, _)| &decoded.templates[id]) {
            // The version is in every record.
            assert!(elements.contains(element) || *element == 60, "{fields:?}: {element}");
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
    assert_eq!(decoded.templates[id].iter().map(|(element, _)| *element).collect::<Vec<_>>(), [60, 2, 1]);
    // It is of both versions, and of none.
    assert_eq!(decoded.anonymization(*id, 60), Some((3, 3)));
    Ok(())
}

#[test]
fn options_are_left_out_or_have_names_of_a_fixed_length() -> Result<()> {
    for text in ["options = false", "fixed_interface_names = true"] {
        let (socket, mut sink) = to_socket_with(text)?;
        let mut offer = Offer::exact(&ALL_FIELDS)?;
        for _ in 0..2 {
            offer.bring(sink.as_mut(), &one_of_each())?;
        }
        let mut decoded = Decoded::default();
        receive(&socket, &mut decoded)?;
        assert_eq!(decoded.flows.len(), 2 * one_of_each().len());
        assert_eq!(decoded.missing, 0);
        if text == "options = false" {
            assert!(decoded.options.is_empty() && decoded.templates.keys().all(|id| *id > 262));
            continue;
        }
        for (index, name) in [(2_u32, b"eth0\0\0\0\0\0\0\0\0\0\0\0\0"), (17, b"uplink-to-the-ix")] {
            let interface = decoded.option(10, &index.to_be_bytes()).context("there is the interface")?;
            assert_eq!(interface[&82], name);
        }
    }
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
                  flowStartMilliseconds = { coarsen = \"1m\" }\nflowEndMilliseconds = { coarsen = \"1m\" }\nsourceIPv6Address = \"pseudonym\"\n\
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
        // A keyed hash, for which RFC 6235 has no name.
        (27, (0, 0)),
        (28, (0, 6)),
        (60, (0, 1)),
    ] {
        assert_eq!(with(element), Some(expected), "element {element}");
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
        (
            "collector = \"c.example:1\"\noptions = false\nfixed_interface_names = true".to_owned(),
            "3:25: names of interfaces are options",
        ),
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
