//! The memory that a policy of half a million prefixes takes is what `policy check` says: after the start, and after
//! reloads.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use procfs::process::Process;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt as _, SeedableRng as _};
use tests::command::{Agent, minimizer};
use tests::veth::{RECEIVER, Veth};

const MIB: f64 = (1 << 20) as f64;
const IPV4_PREFIXES: usize = 400_000;
const IPV6_PREFIXES: usize = 100_000;

/// The classes of addresses decide what the recipient gets, so that the agent needs them, too.
const POLICY: &str = "name = \"big\"\n[[recipients]]\nname = \"r\"\npurpose = \"to test\"\n[recipients.fields]\n\
    sourceIPv4Address = { foreign = \"exact\", domestic = \"omit\" }\n\
    sourceIPv6Address = { foreign = \"exact\", domestic = \"omit\" }\n\
    protocolIdentifier = \"exact\"\npacketDeltaCount = \"exact\"\n";

/// Prefixes like those of networks, most of them /24 and /48, as `tables/tests/sizes.rs` draws them.
fn write_prefixes(folder: &Path) -> Result<()> {
    let mut random = ChaCha8Rng::seed_from_u64(2);
    let mut text = String::new();
    for _ in 0..IPV4_PREFIXES {
        let bits = if random.random_range(0..10) < 6 { 24 } else { random.random_range(12..24) };
        let address = random.random_range(1 << 24..224_u32 << 24) & u32::MAX << (32 - bits);
        writeln!(text, "{}/{bits}", std::net::Ipv4Addr::from(address))?;
    }
    fs::write(folder.join("p4"), &text)?;
    text.clear();
    for _ in 0..IPV6_PREFIXES {
        let bits = if random.random_range(0..10) < 6 { 48 } else { random.random_range(32..48) };
        let parent = 0x2a00_0000 | random.random_range(0..30_000_u32).wrapping_mul(0x9e37_79b1) >> 12;
        let low = u128::from(random.random::<u64>()) << 32;
        let address = (u128::from(parent) << 96 | low) & u128::MAX << (128 - bits);
        writeln!(text, "{}/{bits}", std::net::Ipv6Addr::from(address))?;
    }
    Ok(fs::write(folder.join("p6"), &text)?)
}

fn start(policy: &Path) -> Result<Agent> {
    let mut command = Command::new(minimizer());
    command.args(["run", "-i", RECEIVER, "--listen", "127.0.0.1:0", "--flows-per-cpu", "64"]);
    Agent::start(command.arg("--policy").arg(policy))
}

/// What a process takes, in MiB.
#[derive(Clone, Copy, Debug)]
struct Taken {
    /// Of the kernel, for its maps.
    kernel: f64,
    resident: f64,
    /// The most that was resident so far.
    peak: f64,
}

fn taken(agent: &Agent) -> Result<Taken> {
    let process = Process::new(i32::try_from(agent.process())?)?;
    let status = process.status()?;
    let mut maps = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{}/fdinfo", agent.process()))? {
        // A descriptor may have been closed meanwhile.
        let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
        let value =
            |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<u64>().ok());
        if let (Some(map), Some(octets)) = (value("map_id:"), value("memlock:")) {
            maps.insert(map, octets);
        }
    }
    let kib = |kib: Option<u64>| Ok::<_, anyhow::Error>(kib.context("the kernel tells")? as f64 / 1024.0);
    Ok(Taken {
        kernel: maps.values().sum::<u64>() as f64 / MIB,
        resident: kib(status.vmrss)?,
        peak: kib(status.vmhwm)?,
    })
}

/// What `policy check` says: in the kernel, in the agent, in the agent while it reads the policy.
fn told(policy: &Path) -> Result<[f64; 3]> {
    let output = Command::new(minimizer()).args(["policy", "check"]).arg(policy).output()?;
    let text = String::from_utf8(output.stdout)?;
    let line = text.lines().find(|line| line.starts_with("memory: ")).with_context(|| text.clone())?;
    let mut numbers = line.split(' ').filter_map(|word| word.parse().ok());
    let mut next = || numbers.next().context("three numbers");
    Ok([next()?, next()?, next()?])
}

fn check(case: &str, none: Taken, big: Taken, [kernel, agent, _]: [f64; 3]) -> Result<()> {
    let (in_kernel, in_agent) = (big.kernel - none.kernel, big.resident - none.resident);
    let peak = big.peak - none.resident;
    println!(
        "{case}: {in_kernel:.1} MiB in the kernel, {in_agent:.1} MiB in the agent, {peak:.1} MiB at most"
    );
    let (told, measured) = (kernel + agent, in_kernel + in_agent);
    ensure!((measured - told).abs() <= 0.2 * told, "{case}: {measured} of {told} MiB: {none:?}, {big:?}");
    ensure!((in_kernel - kernel).abs() <= 0.2 * kernel, "{case}: {in_kernel} of {kernel} MiB in the kernel");
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn half_a_million_prefixes_take_what_is_said() -> Result<()> {
    let _veth = Veth::new()?;
    let folder = tempfile::tempdir()?;
    write_prefixes(folder.path())?;
    let [small, big]: [PathBuf; 2] = ["small.toml", "big.toml"].map(|name| folder.path().join(name));
    let scope = |listed: &str| {
        format!("{POLICY}[scope]\n{listed}\ndirections = [\"foreign-foreign\", \"domestic-foreign\"]\n")
    };
    fs::write(&small, scope("domestic = [\"192.0.2.0/24\"]"))?;
    fs::write(&big, scope("domestic_files = [\"p4\", \"p6\"]"))?;

    // After a reload, as after the start with a large policy, an agent has given back what its start took. Until then one with a
    // small policy keeps some MiB of that.
    let agent = start(&small)?;
    agent.hang_up()?;
    agent.wait_for(|status| status["policy"]["reloads"] == 1)?;
    let none = taken(&agent)?;
    agent.stop()?;
    let ([small_kernel, small_agent, _], [kernel, in_agent, loading]) = (told(&small)?, told(&big)?);
    let told = [kernel - small_kernel, in_agent - small_agent, loading];
    println!("told: {kernel} MiB in the kernel, {in_agent} MiB in the agent, {loading} MiB while it is read");

    let agent = start(&big)?;
    let at_start = taken(&agent)?;
    check("start", none, at_start, told)?;
    for reloads in 1..=3_u64 {
        agent.hang_up()?;
        agent.wait_for(|status| status["policy"]["reloads"] == reloads)?;
        check(&format!("reload {reloads}"), none, taken(&agent)?, told)?;
    }
    let peak = taken(&agent)?.peak - none.resident;
    println!("at most {peak:.1} MiB in the agent");
    ensure!((peak - loading).abs() <= 0.2 * loading, "{peak} of {loading} MiB");
    Ok(())
}
