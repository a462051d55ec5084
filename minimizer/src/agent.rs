//! The agent at work: attached interfaces, the thread that drains them, and the way out for records.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::drain::{Records, Totals, drain};
use crate::ledger::Ledger;
use crate::netlink::{Link, Netlink, NetlinkError};
use crate::program::{Action, Mode, Program, ProgramError};
use crate::queue::Queue;
use crate::record::Record;

/// Batches that wait while the exporter is busy; with more the oldest gives way.
const BATCHES_QUEUED_MAX: usize = 2;
/// How often a missing interface is noticed at the latest.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// Why the agent does not start, or stopped.
#[derive(Debug, Error)]
pub enum AgentError {
    /// The program cannot be loaded, attached or drained.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The kernel does not list its interfaces.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The program does not attach to an interface.
    #[error("{name}: {source}")]
    Attach {
        /// Name of the interface.
        name: String,
        /// Why.
        source: ProgramError,
    },
    /// Another program is attached.
    #[error(
        "{name} already has an XDP program ({programs}), which is left alone; 'minimizer doctor -i {name}' \
         says whose it is and how it is detached"
    )]
    Busy {
        /// Name of the interface.
        name: String,
        /// Numbers and modes of the programs.
        programs: String,
    },
    /// No thread for the drain.
    #[error("cannot start the drain thread: {0}")]
    Thread(std::io::Error),
    /// The last interface is gone.
    #[error("{0} is gone: the kernel has no such interface any more; start again when it is back")]
    Vanished(String),
    /// The drain thread panicked.
    #[error("the drain thread ended unexpectedly")]
    Panicked,
}

/// What to attach to, and how.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// The interfaces to watch, and what becomes of their frames.
    pub interfaces: Vec<(Link, Action)>,
    /// How the program is attached.
    pub mode: Mode,
    /// Time between drains.
    pub interval: Duration,
}

/// Records of one interval, on their way out.
#[derive(Debug)]
pub struct Batch {
    /// One record for each distinct tuple.
    pub records: Vec<Record>,
    /// What the drain found beside them, with the sums of the records.
    pub totals: Totals,
}

/// What is known after each drain.
#[derive(Debug)]
pub struct Progress<'drain> {
    /// Totals since the start.
    pub ledger: &'drain Ledger,
    /// What this drain found beside the records.
    pub totals: &'drain Totals,
    /// How long flip, copy, zeroing and merge took.
    pub duration: Duration,
    /// By interface slot, whether the program is attached.
    pub attached: &'drain [bool],
}

/// State that the drain, the exporter and whoever asks share.
struct Shared {
    ledger: Mutex<Ledger>,
    queue: Queue<Batch>,
    stop: Queue<()>,
}

/// The running agent. It ends as [`Stopper::stop`] says, also when it is dropped.
pub struct Agent {
    shared: Arc<Shared>,
    drain: Option<JoinHandle<Result<(), AgentError>>>,
}

/// Takes batches out of the agent and says what became of them.
#[derive(Clone)]
pub struct Outlet(Arc<Shared>);

/// Asks the agent to stop, from anywhere.
#[derive(Clone)]
pub struct Stopper(Arc<Shared>);

impl Agent {
    /// Attaches the program to all interfaces and starts to drain. `observe` is called after every
    /// drain, on the drain's thread: it must not wait for anything.
    ///
    /// # Errors
    /// See [`AgentError`]; then nothing is left attached.
    pub fn start(
        mut program: Program,
        options: AgentOptions,
        observe: impl FnMut(&Progress<'_>) + Send + 'static,
    ) -> Result<Self, AgentError> {
        for (slot, (interface, _)) in (0..).zip(&options.interfaces) {
            program.watch(interface.index, slot)?;
        }
        for (interface, action) in &options.interfaces {
            program
                .attach_for(*action, interface.index, options.mode)
                .map_err(|source| not_attached(interface, source))?;
        }
        let names = options.interfaces.iter().map(|(interface, _)| interface.name.clone()).collect();
        let shared = Arc::new(Shared {
            ledger: Mutex::new(Ledger::new(names)),
            queue: Queue::new(BATCHES_QUEUED_MAX),
            stop: Queue::new(1),
        });
        let worker = Worker {
            attached: vec![true; options.interfaces.len()],
            records: Records::new(options.interfaces.iter().map(|(interface, _)| interface.index).collect()),
            program,
            interfaces: options.interfaces.into_iter().map(|(interface, _)| interface).collect(),
            interval: options.interval,
            shared: Arc::clone(&shared),
            observe,
        };
        let drain = thread::Builder::new()
            .name("drain".to_owned())
            .spawn(move || worker.work())
            .map_err(AgentError::Thread)?;
        Ok(Self { shared, drain: Some(drain) })
    }

    /// The way out for records.
    #[must_use]
    pub fn outlet(&self) -> Outlet {
        Outlet(Arc::clone(&self.shared))
    }

    /// A handle that stops the agent.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.shared))
    }

    /// Waits for the drain to end: because it was stopped, or because of an error.
    ///
    /// # Errors
    /// What ended the drain before it was asked to.
    pub fn wait(mut self) -> Result<(), AgentError> {
        self.join()
    }

    fn join(&mut self) -> Result<(), AgentError> {
        self.drain.take().map_or(Ok(()), |drain| drain.join().unwrap_or(Err(AgentError::Panicked)))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.shared.stop.close();
        // An error that nobody waited for has nobody to go to.
        let _unheard = self.join();
    }
}

impl Stopper {
    /// Asks the agent to detach, drain once more and end. Batches still wait in the outlet.
    pub fn stop(&self) {
        self.0.stop.close();
    }
}

impl Outlet {
    /// Waits for the next batch; `None` when the agent has ended and all batches are out.
    #[must_use]
    pub fn next(&self) -> Option<Batch> {
        self.0.queue.pop()
    }

    /// Enters a batch whose records were handed over.
    pub fn exported(&self, batch: &Batch) {
        self.0.ledger().add_exported(batch.totals.recorded);
    }

    /// Enters a batch whose records were lost.
    pub fn dropped(&self, batch: &Batch) {
        self.0.ledger().add_dropped(batch.totals.recorded);
    }

    /// A copy of the ledger as it stands.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.0.ledger().clone()
    }
}

impl Shared {
    /// Every entry into the ledger is complete when the lock is released.
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why the program is not attached; for an interface that is taken, with what takes it.
fn not_attached(interface: &Link, source: ProgramError) -> AgentError {
    let name = interface.name.clone();
    if !matches!(source, ProgramError::Busy { .. }) {
        return AgentError::Attach { name, source };
    }
    let attached = Netlink::open().and_then(|mut netlink| netlink.link(&name)).map(|link| link.xdp);
    let programs: Vec<_> = attached
        .unwrap_or_default()
        .iter()
        .map(|program| format!("id {}, {}", program.program_id, program.mode.name()))
        .collect();
    AgentError::Busy { name, programs: programs.join("; ") }
}

struct Worker<F> {
    program: Program,
    interfaces: Vec<Link>,
    attached: Vec<bool>,
    records: Records,
    interval: Duration,
    shared: Arc<Shared>,
    observe: F,
}

impl<F: FnMut(&Progress<'_>)> Worker<F> {
    fn work(mut self) -> Result<(), AgentError> {
        let result = self.drain_until_stopped();
        self.program.detach_all();
        // Packets that were in the program when it was detached end before the flip returns.
        let last = self.drain();
        self.shared.queue.close();
        self.shared.stop.close();
        result.and(last)
    }

    fn drain_until_stopped(&mut self) -> Result<(), AgentError> {
        let mut next = Instant::now() + self.interval;
        loop {
            let left = next.saturating_duration_since(Instant::now());
            if self.shared.stop.wait_closed(left.min(WATCH_INTERVAL)) {
                return Ok(());
            }
            self.watch_interfaces()?;
            if Instant::now() >= next {
                self.drain()?;
                // After a stall the next drain is a whole interval away, not several at once.
                next = (next + self.interval).max(Instant::now());
            }
        }
    }

    fn drain(&mut self) -> Result<(), AgentError> {
        let start = Instant::now();
        let time = self.program.time();
        let mut quiet = self.program.generations().flip().map_err(ProgramError::from)?;
        let totals = drain(&mut quiet, &mut self.records, |units| time.milliseconds(units));
        let batch = Batch { records: self.records.take(), totals };
        let mut ledger = self.shared.ledger();
        ledger.add(&batch.totals);
        let totals = batch.totals.clone();
        if let Some(oldest) = self.shared.queue.push(batch) {
            ledger.add_dropped(oldest.totals.recorded);
        }
        let ledger = ledger.clone();
        let duration = start.elapsed();
        (self.observe)(&Progress { ledger: &ledger, totals: &totals, duration, attached: &self.attached });
        Ok(())
    }

    /// Notices interfaces that are gone; the agent goes on with those that are left.
    fn watch_interfaces(&mut self) -> Result<(), AgentError> {
        let present = Netlink::open().and_then(|mut netlink| netlink.links())?;
        for (interface, attached) in self.interfaces.iter().zip(&mut self.attached) {
            if *attached && present.iter().all(|link| link.index != interface.index) {
                *attached = false;
                self.program.detach(interface.index);
                eprintln!("minimizer: {} is gone; what it saw until then is counted", interface.name);
            }
        }
        if self.attached.contains(&true) {
            return Ok(());
        }
        let names: Vec<_> = self.interfaces.iter().map(|interface| interface.name.as_str()).collect();
        Err(AgentError::Vanished(names.join(", ")))
    }
}
