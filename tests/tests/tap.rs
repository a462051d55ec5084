//! Taps: frames are counted and go nowhere, beside interfaces whose frames pass, and never by mistake.

use std::io;
use std::process::{Command, Output};
use std::sync::Arc;

use anyhow::{Result, ensure};
use minimizer::commands::demo::generator::Traffic;
use serde_json::Value;
use tests::command::{Agent, minimizer};
use tests::expected::Expected;
use tests::listener::Listener;
use tests::network::Network;
use tests::veth::{RECEIVER, Veth, ip};

const FRAMES: u64 = 20_000;

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_tap_counts_every_frame_and_lets_none_through() -> Result<()> {
    let mut network = Network::new(2, 1500)?;
    let [tapped, passing] = [0, 1].map(|cable| network.cables()[cable].receiver.clone());
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("ledger");
    let mut command = Command::new(minimizer());
    command.args(["run", "--tap", &tapped.name, "-i", &passing.name, "--interval", "100ms"]);
    command.args(["--listen", "127.0.0.1:0", "--ledger"]).arg(&file);
    let agent = Agent::start(&mut command)?;
    let listener = Listener::open()?;

    let traffic = Arc::new(Traffic::mixed(1));
    let mut sent = Vec::new();
    for cable in 0..2 {
        sent.push(network.send_all(cable, &traffic, FRAMES)?);
    }
    let (_, _, status) = agent.get("/status", "")?;
    let (_, _, metrics) = agent.get("/metrics", "")?;
    let (ended, said) = agent.stop()?;
    ensure!(ended.success(), "{said}");
    let heard = listener.heard()?;
    assert_eq!(heard.get(&tapped.index), None, "the network stack above a tap hears nothing");
    assert_eq!(heard.get(&passing.index), Some(&FRAMES), "above any other interface it hears everything");

    let ledger: Value = serde_json::from_slice(&std::fs::read(file)?)?;
    assert_eq!(ledger["balanced"], true, "{ledger}");
    for (link, sent) in [&tapped, &passing].into_iter().zip(sent) {
        let interface = &ledger["interfaces"][&link.name];
        assert_eq!(interface["seen"].as_u64(), Some(sent), "{}", link.name);
        let expected = Expected::of(traffic.round(), sent, 0);
        assert_eq!(interface["octets_counted"].as_u64(), Some(expected.octets()), "{}", link.name);
    }
    let tap = format!("minimizer_interface_tap{{interface=\"{}\"}} 1\n", tapped.name);
    assert!(metrics.contains(&tap), "{metrics}");
    let status: Value = serde_json::from_str(&status)?;
    for interface in status["interfaces"].as_array().into_iter().flatten() {
        assert_eq!(interface["tap"], interface["name"] == tapped.name, "{status}");
    }
    Ok(())
}

fn tap(arguments: &[&str]) -> io::Result<Output> {
    let mut command = Command::new(minimizer());
    command.args(["run", "--tap", RECEIVER, "--listen", "127.0.0.1:0", "--flows-per-cpu", "64"]);
    command.args(arguments).output()
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn an_interface_that_this_host_is_reached_through_is_no_tap() -> Result<()> {
    let _veth = Veth::new()?;
    for (use_it, words, free_it) in [
        (
            format!("address add 198.51.100.1/24 dev {RECEIVER}"),
            "it has the address 198.51.100.1/24".to_owned(),
            format!("address flush dev {RECEIVER}"),
        ),
        (
            format!("route add default dev {RECEIVER}"),
            "it carries a default route".to_owned(),
            format!("route del default dev {RECEIVER}"),
        ),
    ] {
        ip(&use_it)?;
        let output = tap(&[])?;
        let said = String::from_utf8(output.stderr)?;
        assert_eq!(output.status.code(), Some(1), "{said}");
        for part in [&format!("{RECEIVER} cannot be a tap"), &words, &"--force-tap".to_owned()] {
            assert!(said.contains(part), "{part} is missing in {said}");
        }
        assert!(!ip(&format!("link show dev {RECEIVER}"))?.contains("xdp"), "nothing is attached");
        let mut forced = Command::new(minimizer());
        forced.args(["run", "--tap", RECEIVER, "--force-tap", "--listen", "127.0.0.1:0"]);
        let (ended, said) = Agent::start(forced.args(["--flows-per-cpu", "64"]))?.stop()?;
        ensure!(ended.success(), "{said}");
        ip(&free_it)?;
    }
    let output = tap(&["-i", RECEIVER])?;
    let said = String::from_utf8(output.stderr)?;
    assert!(said.contains(&format!("interface {RECEIVER} is given twice")), "{said}");
    Ok(())
}
