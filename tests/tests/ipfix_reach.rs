//! IPFIX to collectors that are dead, silent, restarted, moved, or reached by one of their addresses only: what the agent can
//! know of them, and that it claims no more.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use minimizer::commands::demo::generator::Traffic;
use minimizer::delivery::loss::Loss;
use minimizer::delivery::sink::{Sink, Taken};
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;
use tests::command::{Agent, minimizer};
use tests::far::{Far, Hosts};
use tests::ipfix::decoded::{Decoded, all_expected};
use tests::ipfix::sinks::sink;
use tests::ipfix::streams::{accept, read_to_end};
use tests::ipfix::{ALL_FIELDS, LIMIT, Offer, many, one_of_each};
use tests::network::Network;

/// Where collectors listen.
const PORT: u16 = 4739;

/// A namespace of the calling thread, in which the loopback interface is up.
fn private() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    tests::veth::ip("link set dev lo up")?;
    Ok(())
}

/// Listens on one of the far host's addresses.
fn listen(far: &Far, address: IpAddr) -> Result<UdpSocket> {
    let socket = far.run(move || UdpSocket::bind((address, PORT)))??;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Decodes what a socket has got; `Err` when that is impossible, as with flows whose templates are missing.
fn receive(socket: &UdpSocket, decoded: &mut Decoded) -> Result<()> {
    let (mut messages, mut octets) = (Vec::new(), vec![0; 65_536]);
    while let Ok(length) = socket.recv(&mut octets) {
        messages.push(octets[..length].to_vec());
    }
    messages.iter().try_for_each(|message| decoded.message(message))
}

/// Whether each flow is one of those that batches had. How many batches came in one piece depends on the kernel.
fn is_of_batches(decoded: &Decoded, offer: &Offer) -> bool {
    let expected = all_expected(&one_of_each(), offer.fields());
    decoded.flows.iter().all(|(_, flow)| expected.contains(flow))
}

/// Brings batches until the socket has got flows, which must come behind their templates.
fn until_received(offer: &mut Offer, sink: &mut dyn Sink, socket: &UdpSocket) -> Result<Decoded> {
    let (begin, mut decoded) = (Instant::now(), Decoded::default());
    loop {
        offer.bring(sink, &one_of_each())?;
        receive(socket, &mut decoded)?;
        if !decoded.flows.is_empty() {
            return Ok(decoded);
        }
        ensure!(begin.elapsed() < LIMIT, "nothing arrives");
    }
}

/// An agent that sends what comes from `receive0` to these collectors, with the text of each sink's `ipfix`.
fn agent(folder: &Path, sinks: &[(&str, String)]) -> Result<Agent> {
    let mut text = "interfaces = [\"receive0\"]\npolicy = \"full-record\"\nlisten = \"127.0.0.1:0\"\n\
                    interval = \"500ms\"\nledger = \"ledger.json\"\nshutdown_timeout = \"4s\"\n"
        .to_owned();
    for (name, ipfix) in sinks {
        text += &format!("[[sinks]]\nname = \"{name}\"\nrecipient = \"laboratory\"\nipfix = {{ {ipfix} }}\n");
    }
    let path = folder.join("agent.toml");
    fs::write(&path, text)?;
    Agent::start(Command::new(minimizer()).args(["run", "--config"]).arg(&path))
}

fn ledger(folder: &Path) -> Result<Value> {
    Ok(serde_json::from_slice(&fs::read(folder.join("ledger.json"))?)?)
}

fn packets(tally: &Value) -> u64 {
    tally["packets"].as_u64().unwrap_or(0)
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn nothing_is_delivered_to_a_dead_host_whose_icmp_is_limited() -> Result<()> {
    let mut network = Network::new(1, 1500)?;
    let far = Far::new()?;
    let folder = tempfile::tempdir()?;
    let to =
        |domain: u32| format!("collector = \"{}:{PORT}\", observation_domain = {domain}", far.addresses[0]);
    let agent = agent(folder.path(), &[("one", to(1)), ("two", to(2))])?;
    let sender = network.send(0, &Arc::new(Traffic::mixed(5)), None)?;
    // Long enough for the host to hold errors back: it has sent many to both.
    let status = agent.wait_for(|status| {
        let failures = |sink: &str| status["ledger"]["sinks"][sink]["failures"].as_u64() >= Some(5);
        let is_up = |sink: &str| status["ledger"]["sinks"][sink]["state"] == "up";
        assert!(!is_up("one") && !is_up("two"), "{status:#}");
        failures("one") && failures("two")
    })?;
    ensure!(status["ledger"]["exported"]["packets"] == 0, "{status:#}");
    let metrics = agent.get("/metrics", "")?.2;
    for sink in ["one", "two"] {
        let labels = format!("sink=\"{sink}\",recipient=\"laboratory\",kind=\"ipfix\"");
        ensure!(!metrics.contains(&format!("minimizer_sink_up{{{labels}}} 1")), "{metrics}");
        ensure!(metrics.contains(&format!("minimizer_sink_state{{{labels},state=\"up\"}} 0")), "{metrics}");
    }
    let handed = sender.finish()?;
    network.settle(0, handed)?;
    let (ended, said) = agent.stop()?;
    ensure!(ended.success() && !said.contains("works again"), "{said}");
    let ledger = ledger(folder.path())?;
    ensure!(ledger["balanced"] == true && packets(&ledger["exported"]) == 0, "{ledger:#}");
    ensure!(packets(&ledger["dropped"]) > 0, "{ledger:#}");
    for sink in ["one", "two"] {
        ensure!(packets(&ledger["sinks"][sink]["exported"]) == 0, "{ledger:#}");
    }
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn what_nobody_answers_is_unconfirmed_and_its_sink_is_unknown() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let files = folder.path().join("files");
    for count in [1, 2] {
        let mut network = Network::new(1, 1500)?;
        let far = Far::new()?;
        let sinks = [
            ("silent", format!("collector = \"{}:{PORT}\"", far.silent[0])),
            ("files", format!("directory = \"{}\", rotate_every = \"1d\"", files.display())),
        ];
        let sinks = &sinks[..count];
        let agent = agent(folder.path(), sinks)?;
        network.send_all(0, &Arc::new(Traffic::mixed(5)), 2000)?;
        let status =
            agent.wait_for(|status| packets(&status["ledger"]["sinks"]["silent"]["exported"]) > 0)?;
        ensure!(status["ledger"]["sinks"]["silent"]["state"] == "unknown", "{status:#}");
        let text = agent.get("/metrics", "")?.2;
        let labels = "sink=\"silent\",recipient=\"laboratory\",kind=\"ipfix\"";
        ensure!(!text.contains("minimizer_sink_up{sink=\"silent\""), "{text}");
        ensure!(text.contains(&format!("minimizer_sink_state{{{labels},state=\"unknown\"}} 1")), "{text}");
        let (ended, said) = agent.stop()?;
        ensure!(ended.success(), "{said}");
        let ledger = ledger(folder.path())?;
        ensure!(ledger["balanced"] == true && packets(&ledger["exported"]) > 0, "{ledger:#}");
        let silent = &ledger["sinks"]["silent"];
        ensure!(silent["sent_unconfirmed"] == silent["exported"], "{ledger:#}");
        // A file confirms what it got, and then the packets are confirmed.
        let is_confirmed = sinks.len() == 2;
        let unconfirmed = if is_confirmed { 0 } else { packets(&ledger["exported"]) };
        ensure!(packets(&ledger["sent_unconfirmed"]) == unconfirmed, "{ledger:#}");
        if is_confirmed {
            ensure!(ledger["sinks"]["files"]["state"] == "up", "{ledger:#}");
            ensure!(packets(&ledger["sinks"]["files"]["sent_unconfirmed"]) == 0, "{ledger:#}");
        }
    }
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root: cargo xtask test")]
fn what_was_sent_just_before_an_error_is_not_delivered() -> Result<()> {
    private()?;
    let far = Far::new()?;
    let socket = listen(&far, far.addresses[0])?;
    let mut sink = sink(&format!("collector = \"{}:{PORT}\"", far.addresses[0]))?;
    let mut offer = Offer::exact(&ALL_FIELDS)?;
    let first = until_received(&mut offer, sink.as_mut(), &socket)?;
    ensure!(is_of_batches(&first, &offer));
    offer.number += 1;
    sink.begin(&offer.heading())?;
    drop(socket);
    let before = Instant::now();
    match sink.take(&one_of_each(), offer.fields())? {
        Taken::Sent { until } => ensure!(until <= before, "an error can still come"),
        taken => ensure!(taken == Taken::Held, "{taken:?}"),
    }
    // The error comes at the latest while the sink closes, and from then on again and again.
    let error = sink.close().err().context("it is refused")?;
    ensure!(error.loss == Loss::Unreachable, "{error}");
    let error = sink.close().err().context("it is refused again")?;
    ensure!(error.loss == Loss::Unreachable, "{error}");
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root: cargo xtask test")]
fn an_error_to_one_sink_is_known_to_the_other_of_the_same_collector() -> Result<()> {
    private()?;
    let far = Far::new()?;
    let socket = listen(&far, far.addresses[0])?;
    let of = |domain: u32| {
        sink(&format!("collector = \"{}:{PORT}\"\nobservation_domain = {domain}", far.addresses[0]))
    };
    let (mut one, mut other) = (of(1)?, of(2)?);
    let mut offer = Offer::exact(&ALL_FIELDS)?;
    for sink in [&mut one, &mut other] {
        until_received(&mut offer, sink.as_mut(), &socket)?;
    }
    drop(socket);
    let begin = Instant::now();
    offer.number += 1;
    while offer.try_to_bring(one.as_mut(), &one_of_each(), &mut 0).is_ok() {
        ensure!(begin.elapsed() < LIMIT, "no error comes");
    }
    // The host answers nobody any more: the other sink hears nothing, and is told all the same.
    far.run(|| fs::write("/proc/sys/net/ipv4/icmp_ratelimit", "3600000"))??;
    let error = offer.try_to_bring(other.as_mut(), &one_of_each(), &mut 0).err();
    let error = error.context("the agent can know it")?;
    ensure!(error.loss == Loss::Unreachable, "{error}");
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root: cargo xtask test")]
fn a_collector_that_was_restarted_between_two_batches_gets_templates_first() -> Result<()> {
    private()?;
    let far = Far::new()?;
    let socket = listen(&far, far.addresses[0])?;
    let mut sink = sink(&format!("collector = \"{}:{PORT}\"\ntemplate_interval = \"1h\"", far.addresses[0]))?;
    let mut offer = Offer::exact(&ALL_FIELDS)?;
    until_received(&mut offer, sink.as_mut(), &socket)?;
    // The same socket of a collector that has forgotten everything: batches begin with templates, as soon as those that it had
    // are not of a moment ago.
    let begin = Instant::now();
    let knows_all = loop {
        offer.bring(sink.as_mut(), &one_of_each())?;
        let mut decoded = Decoded::default();
        let is_decoded = receive(&socket, &mut decoded);
        if is_decoded.is_ok() || begin.elapsed() > LIMIT {
            break is_decoded.map(|()| decoded);
        }
    };
    let decoded = knows_all?;
    ensure!(is_of_batches(&decoded, &offer));
    ensure!(decoded.option(10, &17_u32.to_be_bytes()).is_some(), "interfaces have names");
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root: cargo xtask test")]
fn a_name_that_moves_is_followed_and_an_address_that_refuses_is_left() -> Result<()> {
    private()?;
    let hosts = Hosts::new()?;
    let far = Far::new()?;
    // Only IPv4 listens, and the name has IPv6 first.
    hosts.set("coll.example", &[far.addresses[2], far.addresses[0]])?;
    let socket = listen(&far, far.addresses[0])?;
    let mut sink = sink(&format!("collector = \"coll.example:{PORT}\"\ntemplate_interval = \"1s\""))?;
    let mut offer = Offer::exact(&ALL_FIELDS)?;
    until_received(&mut offer, sink.as_mut(), &socket)?;
    // The former place stays silent: what is sent there is swallowed.
    let moved = listen(&far, far.addresses[1])?;
    hosts.set("coll.example", &[far.addresses[1]])?;
    until_received(&mut offer, sink.as_mut(), &moved)?;
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root: cargo xtask test")]
fn a_silent_address_does_not_keep_a_stream_from_the_other() -> Result<()> {
    private()?;
    let hosts = Hosts::new()?;
    let far = Far::new()?;
    hosts.set("coll.example", &[far.silent[1], far.silent[0], far.addresses[0]])?;
    let listener = {
        let address = far.addresses[0];
        far.run(move || TcpListener::bind((address, PORT)))??
    };
    let mut sink = sink(&format!("collector = \"coll.example:{PORT}\"\ntransport = \"tcp\""))?;
    let mut offer = Offer::exact(&ALL_FIELDS)?;
    let records = many(3000);
    let octets = thread::scope(|scope| -> Result<_> {
        let reading = scope.spawn(|| read_to_end(&mut accept(&listener)?));
        let brought = offer.bring(sink.as_mut(), &records)?;
        ensure!(brought.errors.is_empty(), "{brought:?}");
        ensure!(sink.close()? == Taken::Delivered);
        reading.join().expect("it does not panic")
    })?;
    let mut decoded = Decoded::default();
    decoded.stream(&octets)?;
    ensure!(decoded.sorted_flows() == all_expected(&records, offer.fields()));
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root: cargo xtask test")]
fn two_sinks_of_one_observation_domain_to_one_collector_are_refused() -> Result<()> {
    private()?;
    let hosts = Hosts::new()?;
    hosts.set("coll.example", &["10.9.0.2".parse()?])?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("agent.toml");
    let run = |one: &str, other: &str| -> Result<(Option<i32>, String)> {
        let mut text = "interfaces = [\"none0\"]\npolicy = \"full-record\"\n".to_owned();
        for (name, ipfix) in [("one", one), ("other", other)] {
            text +=
                &format!("[[sinks]]\nname = \"{name}\"\nrecipient = \"laboratory\"\nipfix = {{ {ipfix} }}\n");
        }
        fs::write(&path, text)?;
        let output = Command::new(minimizer()).args(["run", "--config"]).arg(&path).output()?;
        Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
    };
    for (one, other) in [
        ("collector = \"10.9.0.2:4739\"", "collector = \"10.9.0.2:4739\""),
        ("collector = \"10.9.0.2:4739\"", "collector = \"coll.example:4739\", observation_domain = 1"),
        ("collector = \"COLL.example:4739\"", "collector = \"coll.example.:4739\""),
        (
            "collector = \"10.9.0.2:4739\", transport = \"tcp\", observation_domain = 7",
            "collector = \"[::ffff:10.9.0.2]:4739\", transport = \"tcp\", observation_domain = 7",
        ),
    ] {
        let (code, said) = run(one, other)?;
        ensure!(code == Some(78), "{one} {other}: {code:?} {said}");
        ensure!(said.contains("the sink `one` sends the observation domain"), "{said}");
    }
    for (one, other) in [
        ("collector = \"10.9.0.2:4739\"", "collector = \"10.9.0.2:4739\", observation_domain = 2"),
        ("collector = \"10.9.0.2:4739\"", "collector = \"10.9.0.2:4740\""),
        ("collector = \"10.9.0.2:4739\"", "collector = \"10.9.0.2:4739\", transport = \"tcp\""),
        ("collector = \"10.9.0.3:4739\"", "collector = \"coll.example:4739\""),
    ] {
        let (_, said) = run(one, other)?;
        ensure!(!said.contains("observation domain"), "{one} {other}: {said}");
    }
    Ok(())
}

#[test]
fn a_collector_on_this_host_may_listen_on_ipv4_only() -> Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_nonblocking(true)?;
    let port = SocketAddr::port(&socket.local_addr()?);
    let mut sink = sink(&format!("collector = \"localhost:{port}\""))?;
    let mut offer = Offer::exact(&ALL_FIELDS)?;
    until_received(&mut offer, sink.as_mut(), &socket)?;
    Ok(())
}
