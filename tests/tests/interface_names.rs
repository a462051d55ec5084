//! Interfaces whose names no terminal shows, and interfaces with several names.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::net::UdpSocket;
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Command, Output};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use minimizer::commands::demo::generator::Traffic;
use serde_json::Value;
use tests::command::{Agent, minimizer};
use tests::network::Network;
use tests::veth::ip;

/// Names as the kernel has them, and as everything else shows them.
const NAMES: [(&[u8], &str); 5] = [
    (b"\xff", "\\xff"),
    (b"\xfe", "\\xfe"),
    (b"\\xff", "\\\\xff"),
    (b"\x1b[2J\x07", "\\x1b[2J\\x07"),
    ("br\u{fc}cke".as_bytes(), "br\u{fc}cke"),
];

fn traffic() -> Arc<Traffic> {
    let frames: Vec<_> = Traffic::mixed(1).round().take(64).map(<[u8]>::to_vec).collect();
    Arc::new(Traffic::of_frames(frames))
}

/// Runs `ip` with arguments of any octets.
fn ip_raw(arguments: &[&[u8]]) -> Result<()> {
    let output = Command::new("ip").args(arguments.iter().map(|it| OsStr::from_bytes(it))).output()?;
    ensure!(output.status.success(), "ip {arguments:?}: {output:?}");
    Ok(())
}

fn run() -> Command {
    let mut command = Command::new(minimizer());
    command.args(["run", "--interval", "100ms", "--listen", "127.0.0.1:0", "--flows-per-cpu", "1024"]);
    command
}

fn is_attached(status: &Value, name: &str) -> bool {
    let mut interfaces = status["interfaces"].as_array().into_iter().flatten();
    interfaces.any(|interface| interface["name"] == name && interface["mode"] == "native")
}

fn seen(status: &Value, name: &str) -> u64 {
    status["ledger"]["interfaces"][name]["seen"].as_u64().unwrap_or(0)
}

/// What a command writes to its standard output, which must succeed.
fn printed(output: &Output) -> Result<String> {
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout.clone())?)
}

fn has_no_control_character(text: &str) -> bool {
    text.chars().all(|character| character == '\n' || !character.is_control())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn every_name_has_an_entry_of_its_own_and_moves_no_cursor() -> Result<()> {
    let mut network = Network::new(0, 1500)?;
    for (number, (raw, _)) in NAMES.iter().enumerate() {
        network.lay(&format!("odd{number}"))?;
        ip_raw(&[b"link", b"set", b"dev", format!("odd{number}").as_bytes(), b"name", raw])?;
    }
    let folder = tempfile::tempdir()?;
    let collector = UdpSocket::bind("127.0.0.1:0")?;
    collector.set_nonblocking(true)?;
    let config = folder.path().join("agent.toml");
    fs::write(
        &config,
        format!(
            "[[sinks]]\nname = \"soc\"\nrecipient = \"laboratory\"\nipfix = {{ collector = \"{}\" }}\n",
            collector.local_addr()?
        ),
    )?;
    let mut command = run();
    command
        .args(["--policy", "full-record"])
        .arg("--ledger")
        .arg(folder.path().join("ledger"))
        .arg("--config")
        .arg(&config);
    // As it is shown, in another writing, as it is, and by a pattern.
    command.args(["-i", "\\xff", "-i", "\\xFE", "-i", "\\\\xff"]);
    command.arg("-i").arg(OsStr::from_bytes(b"\x1b[[]2J\x07*")).args(["-i", "br*"]);
    let agent = Agent::start(&mut command)?;
    let mut sent = Vec::new();
    for cable in 0..NAMES.len() {
        sent.push(network.send_all(cable, &traffic(), 100 + cable as u64)?);
    }
    let all: u64 = sent.iter().sum();
    let expected = || NAMES.iter().map(|(_, name)| *name).zip(&sent);
    let status = agent
        .wait_for(|status| expected().map(|(name, _)| seen(status, name)).sum::<u64>() >= all)
        .context("every name is a key")?;
    for (name, sent) in expected() {
        assert!(is_attached(&status, name), "{status:#}");
        assert_eq!(seen(&status, name), *sent, "{name}");
    }
    let metrics = agent.get("/metrics", "")?.2;
    for (name, sent) in expected() {
        let label = name.replace('\\', "\\\\");
        let line = format!("minimizer_seen_packets_total{{interface=\"{label}\"}} {sent}\n");
        assert!(metrics.contains(&line), "{line} in {metrics}");
    }
    let page = agent.get("/", "")?.2;
    let listen = format!("--listen={}", agent.address());
    let asked =
        |arguments: &[&str]| printed(&Command::new(minimizer()).args(arguments).arg(&listen).output()?);
    for text in [page, metrics, asked(&["status"])?, asked(&["top"])?] {
        assert!(has_no_control_character(&text), "{text:?}");
        for (name, _) in NAMES.iter().map(|(_, name)| (*name, ())) {
            let label = name.replace('\\', "\\\\");
            assert!(text.contains(name) || text.contains(&label), "{name} in {text}");
        }
    }
    let top: Value = serde_json::from_str(&asked(&["top", "--output", "json", "-i", "\\xf?"])?)?;
    assert_eq!(top["interfaces"].as_array().map(Vec::len), Some(2), "{top:#}");
    let (ended, said) = agent.stop()?;
    ensure!(ended.success(), "{said}");
    assert!(has_no_control_character(&said), "{said:?}");
    let ledger = fs::read_to_string(folder.path().join("ledger"))?;
    for (name, sent) in expected() {
        let key = format!("{}:", serde_json::to_string(name)?);
        assert_eq!(ledger.split(": ").collect::<Vec<_>>().join(":").matches(&key).count(), 1, "{ledger}");
        let ledger: Value = serde_json::from_str(&ledger)?;
        assert_eq!(ledger["interfaces"][name]["seen"], *sent, "{ledger:#}");
    }
    let mut exported = Vec::new();
    let mut room = vec![0; 65_536];
    while let Ok(length) = collector.recv(&mut room) {
        exported.extend_from_slice(&room[..length]);
    }
    for (name, _) in expected() {
        // RFC 7011, 7: a length of one octet before a value of variable length.
        let value = [&[u8::try_from(name.len())?], name.as_bytes()].concat();
        assert!(exported.windows(value.len()).any(|window| window == value), "{name} is an interfaceName");
    }
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn doctor_and_errors_show_names_that_can_be_typed_again() -> Result<()> {
    let mut network = Network::new(0, 1500)?;
    network.lay("odd0")?;
    ip_raw(&[b"link", b"set", b"dev", b"odd0", b"name", b"\xff\x1b"])?;
    for name in [OsString::from("\\xff\\x1b"), OsStr::from_bytes(b"\xff\x1b").to_owned()] {
        let output = Command::new(minimizer()).arg("doctor").arg("-i").arg(name).output()?;
        let said = String::from_utf8(output.stdout)?;
        assert!(said.contains("\\xff\\x1b") && !said.contains("no such interface"), "{said}");
        assert!(has_no_control_character(&said), "{said:?}");
    }
    for (name, expected) in [
        ("\\x00", "there is no interface '\\x00'; this network namespace has: lo, \\xff\\x1b, s-odd0"),
        ("\\q", "write '\\\\' for a backslash"),
    ] {
        let output = run().args(["-i", name]).output()?;
        let said = String::from_utf8(output.stderr)?;
        assert!(!output.status.success() && said.contains(expected), "{said}");
    }
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn an_interface_is_watched_by_its_alternative_name_also_when_it_comes_back() -> Result<()> {
    let mut network = Network::new(1, 1500)?;
    ip("link property add dev receive0 altname uplink-to-the-exchange")?;
    ip_raw(&[b"link", b"property", b"add", b"dev", b"receive0", b"altname", b"odd\xff"])?;
    let agent = Agent::start(run().args(["-i", "uplink-to-the-exchange"]))?;
    agent.wait_for(|status| is_attached(status, "receive0"))?;
    let sent = network.send_all(0, &traffic(), 100)?;
    agent.wait_for(|status| seen(status, "receive0") == sent)?;
    // It comes back under another name; the alternative one is the same.
    ip("link del send0")?;
    agent.wait_for(|status| !is_attached(status, "receive0"))?;
    let cable = network.lay("other0")?;
    ip("link property add dev other0 altname uplink-to-the-exchange")?;
    agent.wait_for(|status| is_attached(status, "other0"))?;
    let again = network.send_all(cable, &traffic(), 100)?;
    let status = agent.wait_for(|status| seen(status, "other0") == sent + again)?;
    assert_eq!(status["ledger"]["interfaces"].as_object().map(serde_json::Map::len), Some(1), "{status:#}");
    let (ended, said) = agent.stop()?;
    ensure!(ended.success(), "{said}");

    for (arguments, expected) in [
        (
            &["-i", "other0", "-i", "uplink-to-the-exchange"][..],
            "interface other0 (also uplink-to-the-exchange) is given twice, as 'other0' and as 'uplink-to-the-exchange'",
        ),
        (&["-i", "absent"], "this network namespace has: lo, other0 (also uplink-to-the-exchange), s-other0"),
    ] {
        let said = String::from_utf8(run().args(arguments).output()?.stderr)?;
        assert!(said.contains(expected), "{said}");
    }
    // A tap that would cut this host off is refused by both of its names.
    ip("address add 192.0.2.1/24 dev other0")?;
    let output = run().args(["--tap", "uplink-to-the-exchange"]).output()?;
    let said = String::from_utf8(output.stderr)?;
    assert!(said.contains("other0 (uplink-to-the-exchange) cannot be a tap"), "{said}");
    let said = Command::new(minimizer()).args(["doctor", "-i", "uplink-to-the-exchange"]).output()?.stdout;
    let said = String::from_utf8(said)?;
    assert!(said.contains("other0") && !said.contains("no such interface"), "{said}");
    Ok(())
}
