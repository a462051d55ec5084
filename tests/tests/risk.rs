//! `minimizer policy risk`: what it measures on captures of which the answer is known.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::captures::{Captured, pcap};
use tests::command::minimizer;

/// UDP from a foreign host of a /24 of its own to a domestic one, with a payload of this length.
fn frame(time_ms: u64, network: u8, host: u8, subscriber: u8, port: u16, payload: u16) -> Captured {
    let ethernet = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    let [high, low] = (28 + payload).to_be_bytes();
    let ipv4 =
        [0x45, 0, high, low, 0, 0, 0, 0, 64, 17, 0, 0, 198, 18, network, host, 203, 0, 113, subscriber];
    let [high, low] = (8 + payload).to_be_bytes();
    let [port_high, port_low] = port.to_be_bytes();
    let udp = [0x9c, 0x40, port_high, port_low, high, low, 0, 0];
    let data = [&ethernet[..], &ipv4, &udp, &vec![0x55; usize::from(payload)]].concat();
    Captured::whole((1_767_225_600_000 + time_ms) * 1_000_000, data)
}

fn risk(policy: &Path, frames: &[Captured], folder: &Path) -> Result<Value> {
    let capture = folder.join("capture.pcap");
    fs::write(&capture, pcap(frames))?;
    let output = Command::new(minimizer())
        .args(["policy", "risk", "--output", "json"])
        .args([policy, &capture])
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Records of the first that find their twin among those of the second.
fn found<'risk>(risk: &'risk Value, one: &str, other: &str) -> Result<&'risk Value> {
    let pairs = risk["pairs"].as_array().context("pairs")?;
    let is_wanted = |pair: &&Value| pair["recipients"] == serde_json::json!([one, other]);
    Ok(&pairs.iter().find(is_wanted).context("the pair")?["found"])
}

fn view<'risk>(risk: &'risk Value, recipient: &str) -> Result<&'risk Value> {
    let views = risk["views"].as_array().context("views")?;
    views.iter().find(|view| view["recipient"] == recipient).context("the recipient")
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn foreign_prefixes_join_the_records_of_recipient_abroad_and_statistics_stay_apart() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let policy = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../policies/recipient-abroad.toml");
    let frames: Vec<_> =
        (1..=254).map(|network| frame(u64::from(network), network, 9, network, 53, 20)).collect();
    let risk = risk(&policy, &frames, folder.path())?;
    ensure!(risk["communications"] == 254 && risk["batches"] == 1, "{risk:#}");
    for (one, other) in [("own-soc", "partner-abroad"), ("partner-abroad", "own-soc")] {
        ensure!(found(&risk, one, other)?["by_fields"] == 1.0, "{risk:#}");
    }
    for of in ["by_fields", "by_counts", "in_batch"] {
        for one in ["own-soc", "partner-abroad"] {
            ensure!(found(&risk, one, "statistics")?[of] == 0.0, "{risk:#}");
        }
    }
    let statistics = view(&risk, "statistics")?;
    ensure!(statistics["records"] == 1 && statistics["k_least"] == 254, "{risk:#}");
    ensure!(view(&risk, "own-soc")?["k_least"] == 1, "{risk:#}");
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn pseudonyms_are_joined_by_exact_counts_and_by_batches() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let policy = folder.path().join("policy.toml");
    let recipient = |name: &str, counts: &str| {
        format!(
            "[[recipients]]\nname = \"{name}\"\npurpose = \"to test\"\n[recipients.fields]\n\
             sourceIPv4Address = \"pseudonym\"\ndestinationIPv4Address = \"pseudonym\"\n\
             protocolIdentifier = \"exact\"\noctetDeltaCount = \"{counts}\"\n"
        )
    };
    let exact = [recipient("one", "exact"), recipient("other", "exact"), recipient("rounded", "log2")];
    fs::write(&policy, format!("name = \"p\"\n{}", exact.concat()))?;
    // Twice a hundred communications, of which the second hundred repeats the octets of the first half a minute later.
    let frames: Vec<_> = (0..200_u8)
        .map(|number| {
            let (time_ms, payload) = (u64::from(number / 100) * 30_000, 20 + u16::from(number % 100));
            frame(time_ms, number, 1, number, 53, payload)
        })
        .collect();
    let risk = risk(&policy, &frames, folder.path())?;
    ensure!(risk["communications"] == 200 && risk["batches"] == 2, "{risk:#}");
    let pair = found(&risk, "one", "other")?;
    ensure!(pair["by_fields"] == 0.0 && pair["by_counts"] == 0.0 && pair["in_batch"] == 1.0, "{risk:#}");
    let pair = found(&risk, "one", "rounded")?;
    ensure!(pair["in_batch"] == 0.0, "{risk:#}");
    Ok(())
}

#[test]
fn what_is_wrong_with_a_policy_comes_first() -> Result<()> {
    let output =
        Command::new(minimizer()).args(["policy", "risk", "no-such-policy", "no-such-capture"]).output()?;
    ensure!(output.status.code() == Some(78), "{output:?}");
    Ok(())
}

/// Batches are those of the policy, which the agent drains.
#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn the_policy_says_how_long_a_batch_is() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let policy = folder.path().join("policy.toml");
    let text = "name = \"p\"\ninterval = \"2s\"\n[[recipients]]\nname = \"soc\"\npurpose = \"to test\"\n\
                [recipients.fields]\nprotocolIdentifier = \"exact\"\n";
    fs::write(&policy, text)?;
    let frames: Vec<_> =
        (0..3).map(|number| frame(u64::from(number) * 2_000, 1, 9, number, number.into(), 20)).collect();
    let risk = risk(&policy, &frames, folder.path())?;
    ensure!(risk["interval_ms"] == 2_000 && risk["batches"] == 3, "{risk:#}");
    Ok(())
}

/// What mitigations hold back is in no share, and counted.
#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn what_is_held_back_is_counted_as_the_agent_would() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let policy = folder.path().join("policy.toml");
    let frames: Vec<_> = (1..=20).map(|number| frame(0, 1, 9, number, number.into(), 20)).collect();
    for (keys, records, withheld) in
        [("", 20, 0), ("established_only = true", 0, 20), ("min_packets = 2", 0, 20)]
    {
        let text = format!(
            "name = \"p\"\ninterval = \"10s\"\n[[recipients]]\nname = \"soc\"\npurpose = \"to test\"\n{keys}\n[recipients.fields]\n\
             destinationIPv4Address = \"pseudonym\"\nprotocolIdentifier = \"exact\"\n"
        );
        fs::write(&policy, text)?;
        let risk = risk(&policy, &frames, folder.path())?;
        let soc = view(&risk, "soc")?;
        ensure!(soc["records"] == records && soc["withheld"] == withheld, "{keys}: {risk:#}");
    }
    Ok(())
}
