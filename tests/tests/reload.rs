//! Policies replaced under traffic: no packet is lost or counted twice, and one that is refused changes nothing.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use minimizer::commands::demo::generator::Traffic;
use serde_json::Value;
use tempfile::TempDir;
use tests::command::{Agent, minimizer};
use tests::network::Network;

const RELOADS: u64 = 100;
/// Frames to be seen under each of two policies at least, so that both have records.
const FRAMES: u64 = 1000;

/// Addresses, ports, and times to the second.
const WHOLE: &str = "name = \"whole\"\n[[recipients]]\nname = \"r\"\npurpose = \"to test\"\n[recipients.fields]\n\
    sourceIPv4Address = \"exact\"\ndestinationIPv4Address = \"exact\"\nsourceTransportPort = \"exact\"\n\
    destinationTransportPort = \"exact\"\nprotocolIdentifier = \"exact\"\npacketDeltaCount = \"exact\"\n\
    octetDeltaCount = \"exact\"\nflowStartMilliseconds = { coarsen = \"1s\" }\n";
/// Prefixes, no ports, and times to the minute.
const COARSE: &str = "name = \"coarse\"\n[[recipients]]\nname = \"r\"\npurpose = \"to test\"\n[recipients.fields]\n\
    sourceIPv4Address = { truncate = 24 }\ndestinationIPv4Address = { truncate = 16 }\n\
    protocolIdentifier = \"exact\"\npacketDeltaCount = \"exact\"\nflowEndMilliseconds = { coarsen = \"1m\" }\n";

/// UDP between hosts and ports that are not 0, so that each policy leaves its mark on every record.
fn traffic() -> Arc<Traffic> {
    let frames = (1..=64_u8).map(|host| {
        let ethernet = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
        let ipv4 = [0x45, 0, 0, 36, 0, 0, 0, 0, 64, 17, 0, 0, 198, 51, 100, host, 203, 0, 113, 128 | host];
        let udp = [0x80, host, 1, 0xbb, 0, 16, 0, 0];
        [&ethernet[..], &ipv4, &udp, &[0x55; 8]].concat()
    });
    Arc::new(Traffic::of_frames(frames))
}

/// Which of the two policies a record was made under.
fn policy_of(record: &Value) -> Option<&'static str> {
    let keys: Vec<_> = record.as_object()?.keys().map(String::as_str).collect();
    let has = |wanted: &[&str]| keys.len() == wanted.len() && wanted.iter().all(|key| keys.contains(key));
    let text = |key: &str| record[key].as_str().unwrap_or("");
    let time = |key: &str| record[key].as_u64().unwrap_or(1);
    let (source, destination) = (text("sourceIPv4Address"), text("destinationIPv4Address"));
    let is_whole = has(&[
        "sourceIPv4Address",
        "destinationIPv4Address",
        "sourceTransportPort",
        "destinationTransportPort",
        "protocolIdentifier",
        "packetDeltaCount",
        "octetDeltaCount",
        "flowStartMilliseconds",
    ]) && source.starts_with("198.51.100.")
        && source != "198.51.100.0"
        && destination.starts_with("203.0.113.")
        && destination != "203.0.113.0"
        && record["destinationTransportPort"] == 443
        && record["sourceTransportPort"].as_u64() > Some(0x8000)
        && time("flowStartMilliseconds") % 1000 == 0;
    let is_coarse = has(&[
        "sourceIPv4Address",
        "destinationIPv4Address",
        "protocolIdentifier",
        "packetDeltaCount",
        "flowEndMilliseconds",
    ]) && (source, destination) == ("198.51.100.0", "203.0.0.0")
        && time("flowEndMilliseconds") % 60_000 == 0;
    match (is_whole, is_coarse) {
        (true, false) => Some("whole"),
        (false, true) => Some("coarse"),
        _ => None,
    }
}

/// An agent whose policy is a file, with its records and its ledger in files beside it.
struct Run {
    folder: TempDir,
    agent: Agent,
}

impl Run {
    fn start(policy: &str, arguments: &[&str]) -> Result<Self> {
        Self::start_signed(policy, arguments, |_| Ok(()))
    }

    /// The same once `sign` has been given the path of the policy.
    fn start_signed(policy: &str, arguments: &[&str], sign: impl FnOnce(&str) -> Result<()>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        put(folder.path(), policy)?;
        sign(folder.path().join("policy.toml").to_str().context("is UTF-8")?)?;
        let mut command = Command::new(minimizer());
        command.args(["run", "-i", "receive0", "--interval", "100ms", "--listen", "127.0.0.1:0"]);
        command.args(["--output", "json", "--flows-per-cpu", "1024"]);
        command.arg("--ledger").arg(folder.path().join("ledger"));
        command.arg("--policy").arg(folder.path().join("policy.toml")).args(arguments);
        let agent = Agent::start_into(&mut command, File::create(folder.path().join("records"))?)?;
        Ok(Self { folder, agent })
    }

    /// Calls `minimizer reload`.
    fn reload(&self) -> Result<Output> {
        let address = self.agent.address().to_string();
        Ok(Command::new(minimizer()).args(["reload", "--listen", &address]).output()?)
    }

    /// Stops the agent; returns its ledger, its records, and what it said.
    fn stop(self) -> Result<(Value, Vec<Value>, String)> {
        let (ended, said) = self.agent.stop()?;
        ensure!(ended.success(), "{said}");
        let read = |name: &str| fs::read_to_string(Path::join(self.folder.path(), name));
        let ledger: Value = serde_json::from_str(&read("ledger")?)?;
        ensure!(ledger["balanced"] == true, "{ledger:#}");
        let records = read("records")?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        Ok((ledger, records, said))
    }
}

/// Puts a policy into the file at once, as an editor does.
fn put(folder: &Path, policy: &str) -> Result<()> {
    let unfinished: PathBuf = folder.join("unfinished");
    fs::write(&unfinished, policy)?;
    Ok(fs::rename(unfinished, folder.join("policy.toml"))?)
}

fn seen(status: &Value) -> u64 {
    status["ledger"]["interfaces"]["receive0"]["seen"].as_u64().unwrap_or(0)
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_hundred_policies_under_traffic_lose_nothing() -> Result<()> {
    let mut network = Network::new(1, 1500)?;
    let run = Run::start(WHOLE, &[])?;
    let sender = network.send(0, &traffic(), None)?;
    let mut before = seen(&run.agent.wait_for(|status| seen(status) > FRAMES)?);
    for number in 1..=RELOADS {
        let (name, policy) = if number % 2 == 0 { ("whole", WHOLE) } else { ("coarse", COARSE) };
        put(run.folder.path(), policy)?;
        // Both ways to ask for it, in turn.
        if number % 4 < 2 {
            run.agent.hang_up()?;
        } else {
            let output = run.reload()?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "{said}");
            let printed = String::from_utf8(output.stdout)?;
            ensure!(printed.starts_with(&format!("in force: {name}, sha256 ")), "{printed}");
        }
        let status = run.agent.wait_for(|status| status["policy"]["reloads"] == number)?;
        assert_eq!(status["policy"]["name"], name, "{status:#}");
        assert_eq!(status["policy"]["reload_failures"], 0, "{status:#}");
        if number <= 2 {
            run.agent.wait_for(|status| seen(status) > before + FRAMES)?;
        }
        before = seen(&status);
        ensure!(!sender.is_finished(), "the sender ended early");
    }
    let sent = network.settle(0, sender.finish()?)?;
    let status = run.agent.wait_for(|status| seen(status) == sent)?;
    assert_eq!(status["policy"]["reloads"], RELOADS);
    let (ledger, records, _) = run.stop()?;

    let interface = &ledger["interfaces"]["receive0"];
    assert_eq!(interface["seen"], sent, "{ledger:#}");
    assert_eq!(interface["outcomes"]["counted"], sent, "{ledger:#}");
    assert_eq!(interface.get("unwatched_times"), None, "{ledger:#}");
    let packets = |key: &str| ledger[key]["packets"].as_u64().unwrap_or(0);
    eprintln!("{sent} frames, {} records, {} packets dropped", records.len(), packets("dropped"));
    assert_eq!(packets("exported") + packets("dropped"), sent, "{ledger:#}");
    assert_eq!([packets("queued"), packets("overflow"), packets("suppressed")], [0; 3], "{ledger:#}");
    let mut recorded = [0, 0];
    for record in &records {
        let policy = policy_of(record).with_context(|| format!("no policy gives {record}"))?;
        recorded[usize::from(policy == "coarse")] +=
            record["packetDeltaCount"].as_u64().context("a number")?;
    }
    assert!(recorded[0] > 0 && recorded[1] > 0, "{recorded:?}");
    assert_eq!(recorded[0] + recorded[1], packets("exported"), "{ledger:#}");
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_policy_that_is_refused_leaves_the_one_before_in_force() -> Result<()> {
    let mut network = Network::new(1, 1500)?;
    let run = Run::start(WHOLE, &["--recipient", "r"])?;
    let sender = network.send(0, &traffic(), None)?;
    let status = run.agent.wait_for(|status| seen(status) > FRAMES)?;
    let in_force = status["policy"]["sha256"].clone();
    put(run.folder.path(), "name = \"broken\"\n")?;
    run.agent.hang_up()?;
    let status = run.agent.wait_for(|status| status["policy"]["reload_failures"] == 1)?;
    let reason = status["policy"]["reload_error"].as_str().context("a reason")?;
    ensure!(reason.contains("policy.toml") && reason.contains("recipients"), "{reason}");
    let (_, _, metrics) = run.agent.get("/metrics", "")?;
    ensure!(metrics.lines().any(|line| line == "minimizer_policy_reload_failures_total 1"), "{metrics}");
    let output =
        Command::new(minimizer()).args(["status", "--listen", &run.agent.address().to_string()]).output()?;
    let table = String::from_utf8(output.stdout)?;
    ensure!(table.contains("the latest reload failed, and this policy stays: "), "{table}");

    let mandate = "acknowledged = [\"every communication is collected, between domestic parties too\"]\n\
                   [mandate]\nid = \"7\"\npurpose = \"to test\"\nlegal_basis = \"none\"\n\
                   valid_from = 2020-01-01T00:00:00Z\nvalid_until = 2020-01-02T00:00:00Z\n";
    let ended = WHOLE.replace("[[recipients]]", &format!("{mandate}[[recipients]]"));
    let without = WHOLE.replace("\"r\"", "\"other\"");
    for (policy, reason) in
        [(&*ended, "the mandate 7 ended at 2020-01-02"), (&without, "has no recipient r; it has: other")]
    {
        put(run.folder.path(), policy)?;
        let output = run.reload()?;
        let said = String::from_utf8(output.stderr)?;
        assert_eq!(output.status.code(), Some(78), "{said}");
        ensure!(
            said.contains("the policy in force stays: whole, sha256 ") && said.contains(reason),
            "{said}"
        );
    }
    // Traffic is counted as before.
    let before = seen(&status);
    let status = run.agent.wait_for(|status| seen(status) > before + FRAMES)?;
    assert_eq!(status["policy"]["sha256"], in_force, "{status:#}");
    assert_eq!([&status["policy"]["reloads"], &status["policy"]["reload_failures"]], [0, 3], "{status:#}");

    put(run.folder.path(), COARSE)?;
    ensure!(run.reload()?.status.success(), "a policy that is right is put in force");
    let status = run.agent.wait_for(|status| status["policy"]["reloads"] == 1)?;
    assert_eq!(status["policy"].get("reload_error"), None, "{status:#}");
    let sent = network.settle(0, sender.finish()?)?;
    let (ledger, records, said) = run.stop()?;
    assert_eq!(ledger["interfaces"]["receive0"]["seen"], sent, "{ledger:#}");
    assert_eq!(ledger["policy"]["name"], "coarse", "{ledger:#}");
    ensure!(records.iter().all(|record| policy_of(record).is_some()), "a record of no policy");
    ensure!(said.matches("the policy in force stays: ").count() == 3, "{said}");
    Ok(())
}

/// What `policy` prints with these arguments.
fn policy_verb(arguments: &[&str], path: impl AsRef<Path>) -> Result<String> {
    let output = Command::new(minimizer()).arg("policy").args(arguments).arg(path.as_ref()).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_signature_that_is_required_is_required_again() -> Result<()> {
    let _network = Network::new(1, 1500)?;
    let keys = tempfile::tempdir()?;
    let private = keys.path().join("officer.key");
    let public = policy_verb(&["keygen", "officer", "--out"], &private)?;
    let run = Run::start_signed(WHOLE, &["--require-signature", &public], |policy| {
        policy_verb(&["sign", policy, "--key"], &private).map(drop)
    })?;
    put(run.folder.path(), COARSE)?;
    let output = run.reload()?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(78), "{said}");
    ensure!(
        said.contains("a signature is required") && said.contains("was changed after it was signed"),
        "{said}"
    );
    let policy = run.folder.path().join("policy.toml");
    policy_verb(&["sign", policy.to_str().context("is UTF-8")?, "--key"], &private)?;
    let output = run.reload()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (ledger, ..) = run.stop()?;
    assert_eq!(ledger["policy"]["name"], "coarse", "{ledger:#}");
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn agent_toml_names_the_policy_anew() -> Result<()> {
    let _network = Network::new(1, 1500)?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("agent.toml");
    let configure = |policy: &str| {
        let text = "interfaces = [\"receive0\"]\ninterval = \"100ms\"\nflows_per_cpu = 1024\nlisten = \"127.0.0.1:0\"\n";
        fs::write(&file, format!("{text}policy = \"{policy}\"\n"))
    };
    configure("full-record")?;
    let mut command = Command::new(minimizer());
    let agent = Agent::start(command.args(["run", "--config"]).arg(&file))?;
    agent.wait_for(|status| status["policy"]["name"] == "full-record")?;
    put(folder.path(), COARSE)?;
    configure("policy.toml")?;
    agent.hang_up()?;
    let status = agent.wait_for(|status| status["policy"]["reloads"] == 1)?;
    assert_eq!(status["policy"]["name"], "coarse", "{status:#}");
    fs::write(&file, "policy = 1")?;
    agent.hang_up()?;
    let status = agent.wait_for(|status| status["policy"]["reload_failures"] == 1)?;
    assert_eq!(status["policy"]["name"], "coarse", "{status:#}");
    let (ended, said) = agent.stop()?;
    ensure!(ended.success() && said.contains("agent.toml:1:10"), "{said}");
    Ok(())
}

#[test]
fn a_reload_without_an_agent_says_so() -> Result<()> {
    let output = Command::new(minimizer()).args(["reload", "--listen", "127.0.0.1:1"]).output()?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(1) && said.contains("no agent answers at 127.0.0.1:1"), "{said}");
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn only_who_may_signal_the_agent_reloads_it() -> Result<()> {
    let _network = Network::new(1, 1500)?;
    let run = Run::start(WHOLE, &[])?;
    // A copy that any user can run.
    fs::set_permissions(run.folder.path(), fs::Permissions::from_mode(0o755))?;
    let copy = run.folder.path().join("minimizer");
    fs::copy(minimizer(), &copy)?;
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--inh-caps=-all",
        "--bounding-set=-all",
    ]);
    command.arg(&copy).args(["reload", "--listen", &run.agent.address().to_string()]);
    let output = command.output()?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(1) && said.contains("run this as root or as the user of"), "{said}");
    let status: Value = serde_json::from_str(&run.agent.get("/status", "")?.2)?;
    assert_eq!([&status["policy"]["reloads"], &status["policy"]["reload_failures"]], [0, 0], "{status:#}");
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_reload_under_way_does_not_outlive_the_agent() -> Result<()> {
    let _network = Network::new(1, 1500)?;
    for _ in 0..5 {
        let run = Run::start(WHOLE, &[])?;
        run.agent.hang_up()?;
        let (ledger, ..) = run.stop()?;
        assert_eq!(ledger["policy"]["name"], "whole", "{ledger:#}");
    }
    Ok(())
}

/// An older policy is as signed as the one that replaced it.
#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn an_older_signed_policy_is_not_put_back() -> Result<()> {
    let _network = Network::new(1, 1500)?;
    let folder = tempfile::tempdir()?;
    let private = folder.path().join("officer.key");
    let public = policy_verb(&["keygen", "officer", "--out"], &private)?;
    let state = folder.path().display().to_string();
    let with = |serial: &str| WHOLE.replace("[[recipients]]", &format!("{serial}\n[[recipients]]"));
    let sign = |policy: &str| policy_verb(&["sign", policy, "--key"], &private).map(drop);
    let start =
        |policy: &str| Run::start_signed(policy, &["--require-signature", &public, "--state", &state], sign);
    let run = start(&with("serial = 7"))?;
    let reload = |run: &Run, serial: &str| -> Result<(Option<i32>, String)> {
        put(run.folder.path(), &with(serial))?;
        sign(run.folder.path().join("policy.toml").to_str().context("is UTF-8")?)?;
        let output = run.reload()?;
        Ok((output.status.code(), String::from_utf8(output.stderr)?))
    };
    for older in ["serial = 6", ""] {
        let (code, said) = reload(&run, older)?;
        ensure!(code == Some(78) && said.contains("an older signed policy is not put back"), "{said}");
    }
    let (code, said) = reload(&run, "serial = 9\nallow_serial = 7")?;
    ensure!(code == Some(0), "{said}");
    let (code, said) = reload(&run, "serial = 6")?;
    ensure!(code == Some(78) && said.contains("and whole, which was in force last, has 9"), "{said}");
    let (code, said) = reload(&run, "serial = 7")?;
    ensure!(code == Some(0), "{said}");
    let (_, _, said) = run.stop()?;
    ensure!(
        said.contains("with the serial number 7 comes back after whole with 9, which allowed it"),
        "{said}"
    );
    // The agent that comes next knows it too.
    let Err(refused) = start(&with("serial = 6")) else { anyhow::bail!("an older one is in force") };
    ensure!(refused.to_string().contains("an older signed policy is not put back"), "{refused:#}");
    start(&with("serial = 7"))?.stop()?;
    Ok(())
}
