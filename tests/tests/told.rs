//! What is exact in the ledger file alone: how many packets a single indicator selected, and how many a threshold suppressed.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::command::{Agent, minimizer};
use tests::veth::{RECEIVER, Veth};

/// Packets of the one source that the indicator selects, and what is told of their number.
const PACKETS: u64 = 13;
const TOLD: u64 = 8;

const POLICY: &str = "name = \"told\"\ninterval = \"200ms\"\n[selectors]\nindicators = [\"1001 - 192.0.2.1\"]\n\
                      [[recipients]]\nname = \"soc\"\npurpose = \"to look\"\nk_threshold = 2\n[recipients.fields]\n\
                      protocolIdentifier = \"exact\"\nselectorId = \"exact\"\npacketDeltaCount = \"log2\"\n";

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn exact_counts_of_an_indicator_and_of_what_was_suppressed_are_in_the_ledger_file_alone() -> Result<()> {
    let veth = Veth::new()?;
    let folder = tempfile::tempdir()?;
    let (policy, file) = (folder.path().join("policy.toml"), folder.path().join("ledger.json"));
    fs::write(&policy, POLICY)?;
    for output in ["json", "table"] {
        let mut run = Command::new(minimizer());
        run.args([
            "run",
            "-i",
            RECEIVER,
            "--output",
            output,
            "--listen",
            "127.0.0.1:0",
            "--flows-per-cpu",
            "1024",
        ]);
        let agent = Agent::start(run.arg("--policy").arg(&policy).arg("--ledger").arg(&file))?;
        veth.send(PACKETS, 100)?;
        let status = agent.wait_for(|status| status["ledger"]["exported"]["packets"] == PACKETS)?;
        let places = [&status["ledger"], &status["ledger"]["sinks"]["stdout"], &status["sinks"][0]];
        for place in places {
            ensure!(
                place["suppressed"]["packets"] == TOLD && place["exported"]["packets"] == PACKETS,
                "{place:#}"
            );
        }
        ensure!(status["ledger"]["balanced"] == true && !status.to_string().contains("1001"), "{status:#}");
        let metrics = agent.get("/metrics", "")?.2;
        for line in [
            format!("minimizer_suppressed_packets_total {TOLD}\n"),
            format!("minimizer_exported_packets_total {PACKETS}\n"),
            format!("minimizer_sink_suppressed_packets_total{{sink=\"stdout\"}} {TOLD}\n"),
            format!("minimizer_sink_exported_packets_total{{sink=\"stdout\"}} {PACKETS}\n"),
        ] {
            ensure!(metrics.contains(&line), "{line} is missing in {metrics}");
        }
        let page = agent.get("/", "")?.2;
        ensure!(
            page.contains("of the exported packets went in sums without keys") && !page.contains("1001"),
            "{page}"
        );
        ensure!(page.matches("adds up").count() >= 2 && !page.contains("does not add up"), "{page}");
        let (ended, said) = agent.stop()?;
        ensure!(ended.success(), "{said}");
        let ledger: Value = serde_json::from_slice(&fs::read(&file)?)?;
        ensure!(
            ledger["suppressed"]["packets"] == PACKETS && ledger["exported"]["packets"] == 0,
            "{ledger:#}"
        );
        ensure!(ledger["selected"] == json!({"1001": PACKETS}) && ledger["balanced"] == true, "{ledger:#}");
        ensure!(!said.contains("1001"), "{said}");
        if output == "json" {
            let printed = said.lines().find(|line| line.starts_with('{')).context("a ledger")?;
            let printed: Value = serde_json::from_str(printed)?;
            ensure!(
                printed["suppressed"]["packets"] == TOLD && printed.get("selected").is_none(),
                "{printed:#}"
            );
            ensure!(printed["balanced"] == true && printed["complete"] == true, "{printed:#}");
        }
    }
    Ok(())
}
