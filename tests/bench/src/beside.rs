//! The agent of another build, started as its users start it. Only what every build has is used of it: its options, the
//! number of its program on the interface, and its ledger. How it lays out its tables is its own.
//!
//! It is stopped (`SIGSTOP`) except while it is asked for an account, so that none of its drains falls into a
//! measurement, however long that is.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use ::tests::command::Agent;
use ::tests::network::Network;
use anyhow::{Context as _, Result, bail, ensure};
use aya::programs::{ProgramFd, ProgramInfo, loaded_programs};
use minimizer_common::tunnel::{Tunnel, Tunnels};
use nix::sched::{CloneFlags, setns};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::account::Account;
use super::on_any_cpu;

/// Between its drains while it runs. They come soon after it has been woken, and none comes while it sleeps.
const INTERVAL: &str = "500ms";
/// Longest wait for its ledger.
const LIMIT: Duration = Duration::from_secs(120);
const PACE: Duration = Duration::from_millis(10);

/// What an agent is started for.
#[derive(Clone, Copy)]
pub struct Order<'text> {
    /// The executable.
    pub executable: &'text Path,
    /// Name of a built-in policy, or a policy's file.
    pub policy: &'text str,
    /// Tunnels whose inner packets it counts.
    pub tunnels: Tunnels,
    /// Flows that fill half of each CPU's table.
    pub flows_per_cpu: u32,
    /// The interface, which is native and in the calling thread's network namespace.
    pub interface: &'text str,
    /// Whether it drops the frames that it has counted.
    pub is_tap: bool,
}

/// An agent that sleeps until it is asked. Dropped, it is killed.
pub struct OtherAgent {
    agent: Agent,
    folder: TempDir,
    program: u64,
    /// What it has given account of.
    told: Account,
}

impl OtherAgent {
    /// Starts an agent.
    ///
    /// # Errors
    /// When it does not run, or its program is not found.
    pub fn start(order: Order<'_>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut command = Command::new(order.executable);
        command.args(["run", "--listen", "127.0.0.1:0", "--mode", "native", "--output", "json"]);
        command.args(["--interval", INTERVAL, "--policy", order.policy]);
        command.args(["--flows-per-cpu", &order.flows_per_cpu.to_string()]);
        command.args([if order.is_tap { "--tap" } else { "--interface" }, order.interface]);
        for tunnel in Tunnel::ALL.iter().filter(|tunnel| order.tunnels.has(**tunnel)) {
            command.args(["--tunnel", tunnel.name()]);
        }
        command.arg("--ledger").arg(folder.path().join("ledger")).arg("--state").arg(folder.path());
        let agent = on_any_cpu(|| Agent::start(&mut command))
            .with_context(|| format!("{} does not run", order.executable.display()))?;
        let status = agent.wait_for(|status| status["interfaces"][0]["program_id"].is_u64())?;
        let program = status["interfaces"][0]["program_id"].as_u64().context("a number")?;
        agent.signal(Signal::STOP)?;
        Ok(Self { agent, folder, program, told: Account::default() })
    }

    /// Its program on the interface.
    ///
    /// # Errors
    /// When it is not loaded any more.
    pub fn known(&self) -> Result<(ProgramInfo, ProgramFd)> {
        let info = program(self.program)?;
        let program = info.fd()?;
        Ok((info, program))
    }

    /// Wakes the agent until its ledger has `sent` packets of all that it was ever sent, and returns what came since the
    /// last account.
    ///
    /// # Errors
    /// When it never has so many; when it has more; when its ledger is not in balance.
    pub fn account(&mut self, sent: u64) -> Result<Account> {
        self.agent.signal(Signal::CONT)?;
        let begin = Instant::now();
        let total = loop {
            let ledger = self.ledger()?;
            let seen = ledger.as_ref().map_or(0, seen);
            match ledger {
                Some(ledger) if seen >= sent => break balanced(&ledger, sent)?,
                ledger if begin.elapsed() > LIMIT => {
                    bail!("{sent} packets were sent; the ledger is {ledger:#?}")
                }
                _ => thread::park_timeout(PACE),
            }
        };
        self.agent.signal(Signal::STOP)?;
        let Account { packets, octets, missed, flows } = std::mem::replace(&mut self.told, total);
        Ok(Account {
            packets: total.packets - packets,
            octets: total.octets - octets,
            missed: total.missed - missed,
            flows: total.flows.map(|total| total - flows.unwrap_or(0)),
        })
    }

    /// Ends the agent, whose last ledger must say that it was sent exactly so many packets, and be complete.
    ///
    /// # Errors
    /// When it does not.
    pub fn end(self, sent: u64) -> Result<()> {
        self.agent.terminate()?;
        self.agent.signal(Signal::CONT)?;
        let (ended, said) = self.agent.wait()?;
        ensure!(ended.success(), "the agent ended with {ended}: {said}");
        let ledger = read(self.folder.path())?.context("the agent left no ledger")?;
        balanced(&ledger, sent)?;
        ensure!(ledger["complete"] == true, "the ledger is not complete: {ledger:#}");
        Ok(())
    }

    fn ledger(&self) -> Result<Option<Value>> {
        ensure!(!self.agent.has_ended(), "the agent has ended");
        read(self.folder.path())
    }
}

/// The ledger; `None` while there is none.
fn read(folder: &Path) -> Result<Option<Value>> {
    let text = fs::read_to_string(folder.join("ledger")).unwrap_or_default();
    if text.is_empty() {
        return Ok(None);
    }
    Ok(Some(serde_json::from_str(&text)?))
}

fn interfaces(ledger: &Value) -> impl Iterator<Item = &Value> {
    ledger["interfaces"].as_object().into_iter().flat_map(|interfaces| interfaces.values())
}

/// Packets that the ledger says were seen on the interface.
fn seen(ledger: &Value) -> u64 {
    interfaces(ledger).filter_map(|interface| interface["seen"].as_u64()).sum()
}

/// The account that a ledger gives of exactly `sent` packets, all of which were counted or overflowed.
fn balanced(ledger: &Value, sent: u64) -> Result<Account> {
    let sum = |of: &dyn Fn(&Value) -> &Value| -> Result<u64> {
        interfaces(ledger).map(|interface| of(interface).as_u64().context("the ledger lacks a number")).sum()
    };
    let counted = sum(&|interface| &interface["outcomes"]["counted"])?;
    let missed = sum(&|interface| &interface["outcomes"]["overflow"])?;
    let octets = sum(&|interface| &interface["octets_counted"])?;
    let lost_octets = ledger["overflow"]["octets"].as_u64().context("the ledger lacks a number")?;
    ensure!(
        seen(ledger) == sent && counted + missed == sent && ledger["balanced"] == true,
        "{sent} packets were sent; the ledger is {ledger:#}"
    );
    let sinks = ledger["sinks"].as_object().into_iter().flat_map(|sinks| sinks.values());
    // Folding makes other records of them.
    let is_folded = ledger["suppressed"]["packets"] != 0;
    let records = sinks.filter_map(|sink| sink["offered"]["records"].as_u64()).max().filter(|_| !is_folded);
    Ok(Account { packets: counted, octets: octets - lost_octets, missed, flows: records })
}

/// A loaded program, by its number.
///
/// # Errors
/// When no program has it.
pub fn program(id: u64) -> Result<ProgramInfo> {
    let mut programs = loaded_programs().filter_map(std::result::Result::ok);
    programs.find(|program| u64::from(program.id()) == id).context("the program is not loaded")
}

/// An agent on a cable in a network namespace of its own, for test runs.
///
/// A test run shows the program the loopback interface, which no agent watches natively. It is told another one by its
/// context, and looks for that in the namespace of the calling thread.
pub struct Placed {
    /// The agent.
    pub agent: OtherAgent,
    /// Index of its interface in its namespace.
    pub if_index: u32,
    namespace: File,
    _network: Network,
}

impl Placed {
    /// Starts an agent on a new cable; the interface of `order` is this cable's.
    ///
    /// # Errors
    /// Those of [`OtherAgent::start`], and the kernel's answers.
    pub fn start(order: Order<'_>) -> Result<Self> {
        let home = own_namespace()?;
        let placed = (|| {
            let network = Network::new(1, 1500)?;
            let receiver = network.cables()[0].receiver.clone();
            let agent = OtherAgent::start(Order { interface: &receiver.name, ..order })?;
            Ok(Self { agent, if_index: receiver.index, namespace: own_namespace()?, _network: network })
        })();
        setns(home, CloneFlags::CLONE_NEWNET)?;
        placed
    }

    /// Does something in the agent's namespace.
    ///
    /// # Errors
    /// Those of `work`; the kernel's.
    pub fn within<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let home = own_namespace()?;
        setns(&self.namespace, CloneFlags::CLONE_NEWNET)?;
        let result = work();
        setns(home, CloneFlags::CLONE_NEWNET)?;
        result
    }
}

/// The network namespace of the calling thread.
///
/// # Errors
/// When the kernel does not tell.
pub fn own_namespace() -> Result<File> {
    Ok(File::open("/proc/thread-self/ns/net")?)
}

#[cfg(test)]
mod tests {
    use super::{Account, balanced};
    use serde_json::{Value, json};

    fn ledger(seen: u64, counted: u64, overflow: u64) -> Value {
        json!({
            "interfaces": {"receive0": {
                "seen": seen, "outcomes": {"counted": counted, "overflow": overflow}, "octets_counted": seen * 40,
            }},
            "overflow": {"packets": overflow, "octets": overflow * 40},
            "suppressed": {"packets": 0},
            "sinks": {"stdout": {"offered": {"records": 3}}},
            "balanced": true,
        })
    }

    #[test]
    fn a_ledger_gives_account_of_exactly_what_was_sent() {
        let account = balanced(&ledger(10, 8, 2), 10).expect("it does");
        assert_eq!(account, Account { packets: 8, octets: 320, missed: 2, flows: Some(3) });
        for (text, sent) in [(ledger(10, 8, 2), 9), (ledger(10, 8, 2), 11), (ledger(10, 8, 1), 10)] {
            assert!(balanced(&text, sent).is_err(), "{text}");
        }
        let mut out_of_balance = ledger(10, 8, 2);
        out_of_balance["balanced"] = json!(false);
        assert!(balanced(&out_of_balance, 10).is_err());
    }
}
