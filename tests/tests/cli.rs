//! Verbs that need no program in the kernel, and what the command says when it cannot do what it is told.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::command::{Agent, minimizer};
use tests::veth::{RECEIVER, Veth};

fn run(arguments: &[&str]) -> Result<Output> {
    Ok(Command::new(minimizer()).args(arguments).output()?)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn status_asks_the_running_agent() -> Result<()> {
    let veth = Veth::new()?;
    let mut command = Command::new(minimizer());
    command.args(["run", "-i", RECEIVER, "--interval", "100ms", "--listen", "127.0.0.1:0"]);
    let agent = Agent::start(&mut command)?;
    let address = agent.address().to_string();
    veth.send(10, 10)?;
    let table = run(&["status", "--listen", &address])?;
    let text = String::from_utf8(table.stdout)?;
    ensure!(table.status.success() && text.contains("receive0     native, seen "), "{text}");
    let json = run(&["status", "--listen", &address, "--output", "json"])?;
    let report: Value = serde_json::from_slice(&json.stdout)?;
    assert_eq!(report["interfaces"][0]["name"], RECEIVER, "{report}");
    assert_eq!(report["ledger"]["balanced"], true, "{report}");
    Ok(())
}

#[test]
fn status_without_an_agent_says_how_to_get_one() -> Result<()> {
    let port = TcpListener::bind("127.0.0.1:0")?;
    let address = port.local_addr()?.to_string();
    // A server that speaks something else.
    let server = thread::spawn(move || -> Result<()> {
        let (mut client, _) = port.accept()?;
        let read = client.read(&mut [0; 512])?;
        ensure!(read > 0, "the client says nothing");
        client.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")?;
        Ok(())
    });
    let output = run(&["status", "--listen", &address])?;
    server.join().map_err(|_| anyhow::anyhow!("the server panicked"))??;
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&format!("what answers at {address} is not a minimizer agent")), "{text}");

    // The port is closed now.
    let output = run(&["status", "--listen", &address])?;
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&format!("no agent answers at {address}")), "{text}");
    assert!(text.contains("minimizer run -i INTERFACE"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_port_in_use_is_named_and_nothing_is_attached() -> Result<()> {
    let _veth = Veth::new()?;
    let port = TcpListener::bind("127.0.0.1:0")?;
    let address = port.local_addr()?.to_string();
    let output = run(&["run", "-i", RECEIVER, "--listen", &address])?;
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let holder = format!("in use by process {}", std::process::id());
    for part in [&format!("cannot listen on {address}"), &holder, "another address with '--listen'"] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    let links = tests::veth::ip(&format!("link show dev {RECEIVER}"))?;
    assert!(!links.contains("xdp"), "{links}");
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn tables_beyond_the_memory_are_refused_with_what_would_fit() -> Result<()> {
    let _veth = Veth::new()?;
    for option in ["--flows", "--flows-per-cpu"] {
        let output = run(&["run", "-i", RECEIVER, "--listen", "127.0.0.1:0", option, "4294967295"])?;
        let text = said(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        let (_, fits) = text.split_once(&format!("'{option} ")).with_context(|| text.clone())?;
        let fits: u32 = fits.split('\'').next().context("a number")?.parse()?;
        assert!(fits > 1000 && text.contains("are available (MemAvailable"), "{text}");
    }
    let output = run(&["run", "-i", RECEIVER, "--flows", "1000", "--flows-per-cpu", "1000"])?;
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    let mut command = Command::new(minimizer());
    command.args(["run", "-i", RECEIVER, "--listen", "127.0.0.1:0", "--flows", "1000"]);
    let (ended, text) = Agent::start(&mut command)?.stop()?;
    ensure!(ended.success(), "{text}");
    Ok(())
}

/// Checks that `minimizer` with these arguments prints what another program reads without a complaint.
fn accepts(checker: &mut Command, arguments: &[&str]) -> Result<()> {
    let output = run(arguments)?;
    ensure!(output.status.success(), "{}", said(&output));
    let mut check = checker.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    check.stdin.take().context("stdin is piped")?.write_all(&output.stdout)?;
    let checked = check.wait_with_output()?;
    ensure!(checked.status.success() && checked.stderr.is_empty(), "{}", said(&checked));
    Ok(())
}

#[test]
fn bash_accepts_its_completions() -> Result<()> {
    accepts(Command::new("bash").arg("-n"), &["completions", "bash"])
}

#[test]
#[cfg_attr(without_man, ignore = "needs man: cargo xtask test")]
fn man_accepts_its_page() -> Result<()> {
    let options = ["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", "-"];
    accepts(Command::new("man").args(options), &["man"])
}

#[test]
fn every_verb_has_its_options_in_the_manual() -> Result<()> {
    let page = String::from_utf8(run(&["man"])?.stdout)?;
    for part in [
        "MINIMIZER RUN",
        "MINIMIZER REPLAY",
        "MINIMIZER STATUS",
        "MINIMIZER RELOAD",
        "MINIMIZER DOCTOR",
        "\\-\\-flows\\-per\\-cpu",
    ] {
        assert!(page.contains(part), "{part} is missing");
    }
    Ok(())
}

#[test]
fn wrong_usage_is_exit_code_2() -> Result<()> {
    for arguments in
        [&["run"][..], &["nonsense"], &["status", "--listen", "nowhere"], &["completions", "csh"]]
    {
        assert_eq!(run(arguments)?.status.code(), Some(2), "{arguments:?}");
    }
    Ok(())
}

#[test]
fn nothing_to_watch_is_said_with_every_way_to_name_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("agent.toml");
    std::fs::write(&file, "interval = \"1s\"\n")?;
    let file = file.to_str().context("is UTF-8")?;
    for (arguments, code) in [(&["run"][..], 2), (&["run", "--config", file], 78)] {
        let output = run(arguments)?;
        let text = said(&output);
        assert_eq!(output.status.code(), Some(code), "{text}");
        for way in ["'-i IFACE'", "'--tap IFACE'", "`interfaces`"] {
            assert!(text.contains(way), "{way} is missing in {text}");
        }
        assert_eq!(text.lines().count(), 1, "{text}");
    }
    std::fs::write(file, "interval = 1\n")?;
    for arguments in [&["run", "--config", file][..], &["run", "--config", "/nowhere/agent.toml"]] {
        let output = run(arguments)?;
        let text = said(&output);
        assert_eq!(output.status.code(), Some(78), "{text}");
        assert!(text.contains("agent.toml"), "{text}");
    }
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn the_command_line_wins_over_agent_toml() -> Result<()> {
    let _veth = Veth::new()?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("agent.toml");
    let text = format!(
        "interfaces = [\"{RECEIVER}\"]\ninterval = \"200ms\"\nflows_per_cpu = 1024\nlisten = \"127.0.0.1:0\"\n\
         policy = \"full-record\"\nledger = \"ledger\"\n"
    );
    std::fs::write(&file, text)?;
    for (arguments, interval, policy) in [
        (&[][..], 200, "full-record"),
        (&["--interval", "300ms", "--policy", "carrier-default"], 300, "carrier-default"),
    ] {
        let mut command = Command::new(minimizer());
        let agent = Agent::start(command.args(["run", "--config"]).arg(&file).args(arguments))?;
        let status = agent.wait_for(|status| status["interfaces"][0]["mode"] == "native")?;
        assert_eq!(status["drains"]["interval_milliseconds"], interval, "{status:#}");
        assert_eq!(status["policy"]["name"], policy, "{status:#}");
        let (ended, text) = agent.stop()?;
        ensure!(ended.success(), "{text}");
        let ledger: Value = serde_json::from_str(&std::fs::read_to_string(folder.path().join("ledger"))?)?;
        assert_eq!(ledger["policy"]["name"], policy, "{ledger:#}");
    }
    Ok(())
}
