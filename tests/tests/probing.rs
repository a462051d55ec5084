//! Probing through the program in the kernel: packets with a mark in them, and what mitigations leave of them.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::captures::{Captured, pcap};
use tests::command::minimizer;

const PROBER: [u8; 4] = [198, 51, 100, 7];
const SUBSCRIBERS: u8 = 127;

/// UDP between these ends, with a header of this version that does not depend on the direction.
fn frame(from: ([u8; 4], u16), to: ([u8; 4], u16)) -> Captured {
    let ethernet = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    let ipv4 = [0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0];
    let [from_port, to_port] = [from.1, to.1].map(u16::to_be_bytes);
    let udp = [from_port, to_port, [0, 12], [0, 0]].concat();
    let data = [&ethernet[..], &ipv4, &from.0, &to.0, &udp, &[0x55; 4]].concat();
    Captured::whole(1_767_225_600_000_000_000, data)
}

fn subscriber(number: u8) -> [u8; 4] {
    [203, 0, 113, number]
}

/// Ports of the records that a recipient with these keys gets of the frames, and the ledger.
fn replayed(keys: &str, frames: &[Captured], folder: &Path) -> Result<(Vec<u64>, Value)> {
    let addresses: String = ["sourceIPv4", "destinationIPv4", "sourceIPv6", "destinationIPv6"]
        .map(|side| format!("{side}Address = {{ foreign = \"exact\", domestic = \"pseudonym\" }}\n"))
        .concat();
    replayed_with(&addresses, keys, frames, folder)
}

/// The same of a recipient with these address fields.
fn replayed_with(
    addresses: &str,
    keys: &str,
    frames: &[Captured],
    folder: &Path,
) -> Result<(Vec<u64>, Value)> {
    let [policy, capture, ledger] =
        ["policy.toml", "capture.pcap", "ledger.json"].map(|name| folder.join(name));
    let text = format!(
        "name = \"p\"\ninterval = \"10s\"\n[scope]\ndomestic = [\"203.0.113.0/24\"]\ndirections = [\"foreign-domestic\", \"domestic-foreign\"]\n\
         [[recipients]]\nname = \"soc\"\npurpose = \"to test\"\n{keys}\n[recipients.fields]\n{addresses}\
         destinationTransportPort = {{ services_below = 1024 }}\nprotocolIdentifier = \"exact\"\npacketDeltaCount = \"exact\"\n"
    );
    fs::write(&policy, text)?;
    fs::write(&capture, pcap(frames))?;
    let output = Command::new(minimizer())
        .args(["replay", "--output", "json", "--policy"])
        .args([&policy, &capture])
        .arg("--ledger")
        .arg(&ledger)
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut ports = Vec::new();
    for line in String::from_utf8(output.stdout)?.lines() {
        let record: Value = serde_json::from_str(line)?;
        ports.extend(record.get("destinationTransportPort").map(|port| port.as_u64().context("a port")));
    }
    let ledger: Value = serde_json::from_slice(&fs::read(ledger)?)?;
    ensure!(ledger["balanced"] == true, "{ledger:#}");
    Ok((ports.into_iter().collect::<Result<_>>()?, ledger))
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_number_in_the_port_tells_every_pseudonym_unless_a_mitigation_holds_it_back() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut frames: Vec<_> = (1..=SUBSCRIBERS)
        .map(|number| frame((PROBER, 40_000), (subscriber(number), number.into())))
        .collect();
    let probes = u64::from(SUBSCRIBERS);
    let (mut ports, ledger) = replayed("", &frames, folder.path())?;
    ports.sort_unstable();
    ensure!(ports.iter().copied().eq(1..=probes), "each number is beside its subscriber's pseudonym");
    ensure!(ledger["suppressed"]["packets"] == 0, "{ledger:#}");
    for keys in ["established_only = true", "min_packets = 2"] {
        let (ports, ledger) = replayed(keys, &frames, folder.path())?;
        ensure!(ports.is_empty(), "{keys}: {ports:?}");
        ensure!(ledger["suppressed"]["packets"] == probes, "nothing vanishes: {ledger:#}");
    }
    // What remains: one subscriber answers, and one is sent two packets.
    frames.push(frame((subscriber(53), 53), (PROBER, 40_000)));
    let (mut ports, ledger) = replayed("established_only = true", &frames, folder.path())?;
    ports.sort_unstable();
    ensure!(ports == [0, 53], "both directions of the flow that was answered: {ports:?}");
    ensure!(ledger["suppressed"]["packets"] == probes - 1, "{ledger:#}");
    frames.push(frame((PROBER, 40_000), (subscriber(7), 7)));
    let (ports, ledger) = replayed("min_packets = 2", &frames, folder.path())?;
    ensure!(ports == [7], "{ports:?}");
    ensure!(ledger["suppressed"]["packets"] == probes, "{ledger:#}");
    Ok(())
}

/// A recipient that is told other things of sources than of destinations: the two directions of a flow are matched all the same.
#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn an_answer_is_one_whatever_the_recipient_gets_of_either_side() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let frames = [
        frame((PROBER, 40_000), (subscriber(53), 53)),
        frame((subscriber(53), 53), (PROBER, 40_000)),
        frame((PROBER, 40_000), (subscriber(54), 54)),
    ];
    let pseudonym = "{ foreign = \"omit\", domestic = \"pseudonym\" }";
    for source in ["\"pseudonym\"", "{ foreign = \"exact\", domestic = \"omit\" }", "{ truncate = 24 }"] {
        for (one, other) in [(source, pseudonym), (pseudonym, source)] {
            let addresses = format!("sourceIPv4Address = {one}\ndestinationIPv4Address = {other}\n");
            let (mut ports, ledger) =
                replayed_with(&addresses, "established_only = true", &frames, folder.path())?;
            ports.sort_unstable();
            ensure!(ports == [0, 53], "{addresses}: {ports:?}");
            ensure!(ledger["suppressed"]["packets"] == 1, "{addresses}: {ledger:#}");
        }
    }
    Ok(())
}
