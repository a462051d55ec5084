//! What the agent says when the kernel refuses something: the error by its name, and what helps against this one.

use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result, anyhow, ensure};
use caps::{CapSet, Capability};
use minimizer::kernel::attach::Mode;
use minimizer::kernel::prepared::Options;
use minimizer::kernel::program::Program;
use tests::command::{Agent, minimizer};
use tests::network::Network;
use tests::veth::ip;

const RUN: [&str; 5] = ["run", "--listen", "127.0.0.1:0", "--flows-per-cpu", "64"];

/// Whichever open file is one too many, the message names the limit, and blames nothing else.
#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn too_many_open_files_are_never_told_as_memory() -> Result<()> {
    let _network = Network::new(1, 1500)?;
    let mut told = Vec::new();
    for files in 8..100 {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {files}; exec \"$@\""), "sh"]).arg(minimizer());
        command.args(RUN).args(["-i", "receive0"]);
        match Agent::start(&mut command) {
            Ok(agent) => {
                agent.stop()?;
                break;
            }
            Err(error) => told.push(format!("{error:#}")),
        }
    }
    for text in &told {
        assert!(text.contains("EMFILE") && text.contains("RLIMIT_NOFILE"), "{text}");
        assert!(!text.contains("lower --flows") && !text.contains("memory"), "{text}");
    }
    for part in ["maps", "flow table"] {
        assert!(told.iter().any(|text| text.contains(part)), "{part} in {told:#?}");
    }
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_refused_map_names_the_error_and_the_capabilities() -> Result<()> {
    let text = thread::scope(|scope| {
        let thread = scope.spawn(|| -> Result<String> {
            caps::set(None, CapSet::Effective, &[Capability::CAP_NET_ADMIN].into_iter().collect())?;
            let loaded = Program::load(&Options { flows_per_cpu: 64, ..Options::default() });
            Ok(loaded.err().context("it is refused")?.to_string())
        });
        thread.join().map_err(|_| anyhow!("the thread panicked"))?
    })?;
    for part in ["(EPERM)", "CAP_BPF", "map"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!text.contains("memory"), "{text}");
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_user_namespace_is_named_where_capabilities_do_not_help() -> Result<()> {
    let output =
        Command::new("unshare").args(["-Urn"]).arg(minimizer()).args(RUN).args(["-i", "lo"]).output()?;
    let text = String::from_utf8(output.stderr)?;
    ensure!(!output.status.success(), "{text}");
    assert!(text.contains("user namespace") && !text.contains("setcap"), "{text}");
    Ok(())
}

/// A bridge has no native XDP. The message names the other mode, and in it the program runs.
#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_driver_without_native_xdp_is_told_with_the_mode_that_works() -> Result<()> {
    let _network = Network::new(0, 1500)?;
    ip("link add bridge0 type bridge")?;
    ip("link property add dev bridge0 altname exchange")?;
    let output = Command::new(minimizer()).args(RUN).args(["-i", "exchange"]).output()?;
    let text = String::from_utf8(output.stderr)?;
    ensure!(!output.status.success(), "{text}");
    for part in ["bridge0 (exchange): ", "mode native", "(EOPNOTSUPP)", "'--mode skb'", "'minimizer doctor'"]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
    let mut command = Command::new(minimizer());
    let agent = Agent::start(command.args(RUN).args(["-i", "exchange", "--mode", "skb"]))?;
    agent.wait_for(|status| status["interfaces"][0]["mode"] == "skb")?;
    agent.stop()?;
    Ok(())
}

/// Native and generic programs exclude each other: the second is told as what it is.
#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_program_in_the_other_mode_is_told_as_a_program_that_is_there() -> Result<()> {
    let network = Network::new(1, 1500)?;
    let mut program = Program::load(&Options { flows_per_cpu: 64, ..Options::default() })?;
    let if_index = network.cables()[0].receiver.index;
    program.watch(if_index, 0)?;
    program.attach(if_index, Mode::Skb)?;
    let output = Command::new(minimizer()).args(RUN).args(["-i", "receive0"]).output()?;
    let text = String::from_utf8(output.stderr)?;
    assert!(text.contains("receive0 already has an XDP program (id ") && text.contains(", skb)"), "{text}");
    Ok(())
}
