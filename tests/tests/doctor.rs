//! `minimizer doctor` on interfaces that lack something.

use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use aya::EbpfLoader;
use aya::programs::{Xdp, XdpMode};
use serde_json::Value;
use tests::command::{Agent, minimizer};
use tests::foreign;
use tests::veth::{RECEIVER, SENDER, Veth, ip};

fn doctor(arguments: &[&str]) -> Result<Output> {
    Ok(Command::new(minimizer()).arg("doctor").args(arguments).output()?)
}

/// The exit code, and the check `name` of `interface`.
fn check(interface: &str, name: &str) -> Result<(Option<i32>, Value)> {
    let output = doctor(&["-i", interface, "--output", "json"])?;
    let diagnosis: Value = serde_json::from_slice(&output.stdout)?;
    let checks = diagnosis["checks"].as_array().context("checks are a list")?;
    let find = |check: &&Value| check["subject"] == interface && check["check"] == name;
    let check = checks.iter().find(find).with_context(|| format!("{name} is missing in {diagnosis}"))?;
    Ok((output.status.code(), check.clone()))
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn an_interface_that_lacks_nothing_passes() -> Result<()> {
    let _veth = Veth::new()?;
    for (name, evidence) in [
        ("link", "up"),
        ("native xdp", "driver veth offers it"),
        ("xdp program", "none attached"),
        ("mtu", "1500: a frame fits one buffer"),
    ] {
        let (code, check) = check(RECEIVER, name)?;
        assert_eq!(
            (code, &check["verdict"], &check["evidence"]),
            (Some(0), &"pass".into(), &evidence.into())
        );
    }
    let table = doctor(&["-i", RECEIVER])?;
    let text = String::from_utf8(table.stdout)?;
    assert!(text.ends_with(" 0 failed\n") && table.status.success(), "{text}");
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_foreign_program_fails_with_a_way_out() -> Result<()> {
    let _veth = Veth::new()?;
    let mut foreign = EbpfLoader::new().load(&foreign::object()?)?;
    let program: &mut Xdp = foreign.program_mut(foreign::NAME).context("the object has it")?.try_into()?;
    program.load()?;
    let id = program.info()?.id();
    let link = program.attach(RECEIVER, XdpMode::Driver)?;
    let (code, found) = check(RECEIVER, "xdp program")?;
    assert_eq!((code, &found["verdict"]), (Some(1), &"fail".into()), "{found}");
    let evidence = format!("foreign program {}, id {id}, native: it is never replaced", foreign::NAME);
    assert_eq!(found["evidence"], evidence);
    let fix = found["fix"].as_str().context("there is a fix")?;
    assert!(fix.contains(&format!("ip link set dev {RECEIVER} xdpdrv off")), "{fix}");
    program.detach(link)?;
    assert_eq!(check(RECEIVER, "xdp program")?.1["evidence"], "none attached");
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn the_agents_own_program_is_not_foreign() -> Result<()> {
    let _veth = Veth::new()?;
    let mut command = Command::new(minimizer());
    let agent = Agent::start(command.args(["run", "-i", RECEIVER, "--listen", "127.0.0.1:0"]))?;
    let (code, found) = check(RECEIVER, "xdp program")?;
    assert_eq!((code, &found["verdict"]), (Some(0), &"pass".into()), "{found}");
    let evidence = found["evidence"].as_str().context("there is evidence")?;
    assert!(evidence.starts_with("minimizer, id ") && evidence.contains(", native"), "{evidence}");
    let (ended, said) = agent.stop()?;
    ensure!(ended.success(), "{said}");
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn what_is_down_unknown_or_without_driver_support_is_named() -> Result<()> {
    let _veth = Veth::new()?;
    ip(&format!("link set dev {SENDER} down"))?;
    let (code, link) = check(SENDER, "link")?;
    assert_eq!((code, &link["verdict"], &link["evidence"]), (Some(0), &"warn".into(), &"down".into()));
    assert_eq!(link["fix"], format!("ip link set dev {SENDER} up"));
    assert_eq!(check(RECEIVER, "link")?.1["evidence"], "up, without carrier");

    let (code, native) = check("lo", "native xdp")?;
    assert_eq!((code, &native["verdict"]), (Some(1), &"fail".into()), "{native}");
    assert_eq!(native["evidence"], "driver loopback does not offer it");

    let (code, unknown) = check("eth99", "link")?;
    assert_eq!((code, &unknown["verdict"]), (Some(1), &"fail".into()), "{unknown}");
    assert_eq!(unknown["fix"], format!("name one of: lo, {RECEIVER}, {SENDER}"));
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn jumbo_frames_pass_where_the_driver_splits_them() -> Result<()> {
    let _veth = Veth::new()?;
    ip(&format!("link set dev {RECEIVER} mtu 9000"))?;
    let (code, mtu) = check(RECEIVER, "mtu")?;
    assert_eq!((code, &mtu["verdict"]), (Some(0), &"pass".into()), "{mtu}");
    assert!(mtu["evidence"].as_str().is_some_and(|evidence| evidence.contains("xdp.frags")), "{mtu}");
    // The verdict is true: the program does attach.
    let mut command = Command::new(minimizer());
    Agent::start(command.args(["run", "-i", RECEIVER, "--listen", "127.0.0.1:0"]))?.stop()?;
    Ok(())
}
