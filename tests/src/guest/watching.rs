//! The agent at work in this process, and frames for the interfaces that it watches.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use minimizer::agent::error::AgentError;
use minimizer::agent::progress::Progress;
use minimizer::agent::time_mark::TimeMark;
use minimizer::agent::{Agent, AgentOptions};
use minimizer::delivery::accounting::Accounting;
use minimizer::delivery::ledger::Ledger;
use minimizer::delivery::queue::Queue;
use minimizer::delivery::waiting::Bounds;
use minimizer::interfaces::netlink::Netlink;
use minimizer::interfaces::selection::Selection;
use minimizer::interfaces::slot::{Unwatched, Watched};
use minimizer::kernel::attach::Mode;
use minimizer::kernel::prepared::Options;
use minimizer::kernel::program::Program;
use minimizer::records::keys::Keys;
use minimizer::records::terms::Keyring;
use minimizer::support::sys::packet_socket::PacketSocket;

const INTERVAL: Duration = Duration::from_millis(250);
const FLOWS_PER_CPU: u32 = 64;
/// Longer than anything takes that a check waits for, in an emulated machine on a busy host.
const LIMIT: Duration = Duration::from_secs(60);

/// A running agent.
pub struct Watching {
    agent: Agent,
    accounting: Accounting,
    latest: Arc<Latest>,
}

/// The latest that the agent told.
#[derive(Default)]
struct Latest {
    told: Mutex<Told>,
    changed: Condvar,
}

#[derive(Default)]
struct Told {
    watched: Vec<Watched>,
    drains: u64,
}

impl Latest {
    fn update(&self, progress: &Progress<'_>) {
        let mut told = self.told();
        told.watched.clone_from(&progress.watched);
        told.drains += u64::from(progress.drained.is_some());
        drop(told);
        self.changed.notify_all();
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an agent leaves.
pub struct Ended {
    pub ledger: Ledger,
    /// Packets in records by index of the interface.
    pub recorded: HashMap<u32, u64>,
}

impl Watching {
    /// Starts an agent for these interfaces, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// Why it does not start.
    pub fn start(interfaces: &[&str], mode: Mode) -> Result<Self, AgentError> {
        let program = Program::load(&Options { flows_per_cpu: FLOWS_PER_CPU, ..Options::default() })?;
        let interfaces: Vec<_> = interfaces.iter().map(|name| (*name).to_owned()).collect();
        let selection = Selection::new(&interfaces, &[]).expect("no name is given twice");
        let options = AgentOptions { selection, force_tap: false, mode, interval: INTERVAL };
        let queue = Arc::new(Queue::new("check", None, "check", Bounds::default()));
        let accounting = Accounting::new(vec![queue]);
        let mark = TimeMark::in_memory(Arc::clone(program.clocks()));
        let latest = Arc::new(Latest::default());
        let observe = {
            let latest = Arc::clone(&latest);
            move |progress: &Progress<'_>| latest.update(progress)
        };
        let keyring = Keyring::new(Keys::load(None)?);
        let agent = Agent::start(program, keyring, options, accounting.clone(), mark, observe)?;
        Ok(Self { agent, accounting, latest })
    }

    /// Packets that an interface saw by the latest drain.
    pub fn seen(&self, name: &str) -> u64 {
        seen(&self.accounting.ledger(), name)
    }

    /// Whether the agent says of an interface that its program sees nothing.
    pub fn is_blind(&self, name: &str) -> bool {
        let told = self.latest.told();
        told.watched.iter().any(|watched| watched.name == name && watched.is_blind)
    }

    /// Waits for the end of the next drain, which begins at this moment at the earliest.
    ///
    /// # Errors
    /// When the agent does not drain any more.
    pub fn drained(&self) -> Result<()> {
        let told = self.latest.told();
        // A drain that is under way began earlier.
        let drains = told.drains + 2;
        let changed = &self.latest.changed;
        let waited = changed.wait_timeout_while(told, LIMIT, |told| told.drains < drains);
        let waited = waited.unwrap_or_else(PoisonError::into_inner);
        ensure!(!waited.1.timed_out(), "the agent does not drain");
        Ok(())
    }

    /// Stops the agent and takes its records.
    ///
    /// # Errors
    /// Why it ended, or what is wrong with the ledger.
    pub fn end(self) -> Result<Ended> {
        self.agent.stopper().stop();
        self.agent.wait()?;
        let mut recorded = HashMap::new();
        let queue = &self.accounting.queues()[0];
        while let Some(batch) = queue.next_batch() {
            let offered = batch.offered(None)?;
            offered.each(|records| {
                for record in records {
                    *recorded.entry(record.ingress_interface).or_default() += record.packets;
                }
                anyhow::Ok(())
            })?;
            self.accounting.exported(queue, &batch, offered.len(), offered.suppressed);
        }
        self.accounting.lock().complete();
        let ledger = self.accounting.ledger();
        ensure!(ledger.is_balanced(), "not balanced: {ledger:?}");
        Ok(Ended { ledger, recorded })
    }
}

/// Packets that an interface saw by a ledger.
pub fn seen(ledger: &Ledger, name: &str) -> u64 {
    ledger.interfaces().filter(|(known, _)| *known == name).map(|(_, totals)| totals.seen_packets).sum()
}

/// How long an interface was not watched by a ledger.
///
/// # Errors
/// When the ledger does not know it.
pub fn unwatched(ledger: &Ledger, name: &str) -> Result<Unwatched> {
    let entry = ledger.unwatched().find(|(known, _)| *known == name);
    Ok(entry.with_context(|| format!("the ledger does not know {name}"))?.1)
}

/// Waits until something is so.
///
/// # Errors
/// When it does not become so, with what was waited for.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    while !condition()? {
        ensure!(begin.elapsed() < LIMIT, "never: {what}");
        thread::yield_now();
    }
    Ok(())
}

/// Sends small UDP packets to everybody on an interface.
///
/// # Errors
/// The kernel's answer.
pub fn send(interface: &str, frames: u64) -> Result<()> {
    let socket = PacketSocket::open(Netlink::open()?.link(interface)?.index)?;
    let frame = frame();
    let frames = vec![&frame[..]; usize::try_from(frames)?];
    let mut sent = 0;
    wait_for(&format!("{interface} has room"), || {
        match socket.send(&frames[sent..]) {
            Ok(taken) => sent += taken,
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
            Err(error) => return Err(error).with_context(|| format!("sending on {interface}")),
        }
        Ok(sent == frames.len())
    })
}

/// A frame from nobody to everybody with an empty UDP packet, padded to the least length.
fn frame() -> Vec<u8> {
    let mut frame = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 9], &[8, 0]].concat();
    frame.extend([0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 255]);
    frame.extend([0, 9, 0, 9, 0, 8, 0, 0]);
    frame.resize(60, 0);
    frame
}
