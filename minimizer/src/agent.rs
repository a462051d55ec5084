//! The agent at work: the thread that drains and follows the interfaces, and the way out for records.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use thiserror::Error;

use minimizer_common::generation::Residual;

use crate::drain::{Records, Totals, drain};
use crate::events::{Bell, Event, Events};
use crate::keys::KeyError;
use crate::ledger::Ledger;
use crate::mandate::MandateError;
use crate::netlink::{LinkNotifications, NetlinkError};
use crate::program::{Mode, Program, ProgramError};
use crate::queue::Queue;
use crate::record::Record;
use crate::selection::Selection;
use crate::tap::TapRefused;
use crate::terms::{Keyring, Terms};
use crate::watch::{Watch, Watched};

/// Batches that wait while the exporter is busy; with more the oldest gives way.
const BATCHES_QUEUED_MAX: usize = 2;

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
    /// A tap would cut this host off.
    #[error(transparent)]
    Tap(#[from] TapRefused),
    /// The drain thread cannot wait.
    #[error("cannot wait for stop, interfaces and time: {0}")]
    Wait(std::io::Error),
    /// The mandate has ended.
    #[error(transparent)]
    Mandate(#[from] MandateError),
    /// No key for pseudonyms.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// It ends, and takes no other program.
    #[error("the agent is ending")]
    Ending,
    /// The drain thread panicked.
    #[error("the drain thread ended unexpectedly")]
    Panicked,
}

/// What to attach to, and how.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// The interfaces to watch, and what becomes of their frames.
    pub selection: Selection,
    /// Whether interfaces through which this host is reached may be taps.
    pub force_tap: bool,
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
    /// The policy under which they were collected, and what each recipient sees of them.
    pub terms: Arc<Terms>,
}

/// What is known after each drain, and when interfaces have changed.
#[derive(Debug)]
pub struct Progress<'drain> {
    /// Totals since the start.
    pub ledger: &'drain Ledger,
    /// The watched interfaces, in the order of the ledger's.
    pub watched: Vec<Watched>,
    /// Interfaces that are selected and find no slot.
    pub refused: usize,
    /// What the drain found beside the records, and how long flip, copy, zeroing and merge took; `None`
    /// when there was none.
    pub drained: Option<(&'drain Totals, Duration)>,
}

/// State that the drain, the exporter and whoever asks share.
struct Shared {
    ledger: Mutex<Ledger>,
    queue: Queue<Batch>,
    bell: Bell,
}

/// A program that is to take the place of the one in force, and who waits for that.
struct Replacement {
    program: Program,
    asker: mpsc::Sender<Result<(), AgentError>>,
}

/// The running agent. It ends as [`Stopper::stop`] says, also when it is dropped.
pub struct Agent {
    shared: Arc<Shared>,
    replacements: mpsc::Sender<Replacement>,
    drain: Option<JoinHandle<Result<(), AgentError>>>,
}

/// Takes batches out of the agent and says what became of them.
#[derive(Clone)]
pub struct Outlet(Arc<Shared>);

/// Asks the agent to stop, from anywhere.
#[derive(Clone)]
pub struct Stopper(Arc<Shared>);

/// Puts another program in the place of the one in force.
#[derive(Clone)]
pub struct Replacer {
    shared: Arc<Shared>,
    replacements: mpsc::Sender<Replacement>,
}

impl Agent {
    /// Attaches the program to the interfaces and starts to drain. `observe` is called after every drain
    /// and whenever interfaces have changed, on the drain's thread: it must not wait for anything.
    ///
    /// # Errors
    /// See [`AgentError`]; then nothing is left attached.
    pub fn start(
        program: Program,
        keyring: Keyring,
        options: AgentOptions,
        observe: impl FnMut(&Progress<'_>) + Send + 'static,
    ) -> Result<Self, AgentError> {
        // Before the interfaces are listed: what changes meanwhile is notified.
        let notifications = LinkNotifications::subscribe()?;
        let (events, bell) = Events::new(notifications).map_err(AgentError::Wait)?;
        let shared = Arc::new(Shared {
            ledger: Mutex::new(Ledger::new(Vec::new())),
            queue: Queue::new(BATCHES_QUEUED_MAX),
            bell,
        });
        // Gone with the worker, and with it whatever still waits there.
        let (replacements, waiting) = mpsc::channel();
        let mut keyring = keyring;
        let terms = keyring.terms(program.enforced(), Timestamp::now())?;
        let mut worker = Worker {
            program,
            keyring,
            terms,
            watch: Watch::new(options.selection, options.mode, options.force_tap)?,
            events,
            records: Records::new(Vec::new()),
            interval: options.interval,
            shared: Arc::clone(&shared),
            replacements: waiting,
            observe,
        };
        worker.put_first_key();
        worker.follow_interfaces(Instant::now(), true)?;
        let drain = thread::Builder::new()
            .name("drain".to_owned())
            .spawn(move || worker.work())
            .map_err(AgentError::Thread)?;
        Ok(Self { shared, replacements, drain: Some(drain) })
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

    /// A handle that puts another program in the place of the one in force.
    #[must_use]
    pub fn replacer(&self) -> Replacer {
        Replacer { shared: Arc::clone(&self.shared), replacements: self.replacements.clone() }
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
        self.shared.bell.stop();
        // An error that nobody waited for has nobody to go to.
        let _unheard = self.join();
    }
}

impl Stopper {
    /// Asks the agent to detach, drain once more and end. Batches still wait in the outlet.
    pub fn stop(&self) {
        self.0.bell.stop();
    }
}

impl Replacer {
    /// Puts `program` in the place of the one in force, on every interface, and waits until it is. What the other
    /// one counted is drained under its own policy.
    ///
    /// # Errors
    /// Why the one in force stays.
    pub fn replace(&self, program: Program) -> Result<(), AgentError> {
        let (asker, done) = mpsc::channel();
        let ending = |_| AgentError::Ending;
        self.replacements.send(Replacement { program, asker }).map_err(ending)?;
        self.shared.bell.call().map_err(|_| AgentError::Ending)?;
        done.recv().unwrap_or(Err(AgentError::Ending))
    }
}

impl Outlet {
    /// Waits for the next batch; `None` when the agent has ended and all batches are out.
    #[must_use]
    pub fn next(&self) -> Option<Batch> {
        self.0.queue.pop()
    }

    /// Enters a batch whose records were handed over, `suppressed` of their packets in sums without keys.
    pub fn exported(&self, batch: &Batch, suppressed: Residual) {
        self.0.ledger().add_exported(batch.totals.recorded, suppressed);
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

struct Worker<F> {
    program: Program,
    keyring: Keyring,
    terms: Arc<Terms>,
    watch: Watch,
    events: Events,
    records: Records,
    interval: Duration,
    shared: Arc<Shared>,
    replacements: mpsc::Receiver<Replacement>,
    observe: F,
}

impl<F: FnMut(&Progress<'_>)> Worker<F> {
    fn work(mut self) -> Result<(), AgentError> {
        let result = self.drain_until_stopped();
        self.program.detach_all();
        // Packets that were in the program when it was detached end before the flip returns.
        let last = self.drain();
        self.shared.queue.close();
        result.and(last)
    }

    fn drain_until_stopped(&mut self) -> Result<(), AgentError> {
        let mut next = Instant::now() + self.interval;
        loop {
            let mut deadline = self.watch.next_look().map_or(next, |look| look.min(next));
            if let Some(mandate) = &self.program.enforced().policy.mandate {
                let now = Timestamp::now();
                mandate.permits(now)?;
                deadline = deadline.min(Instant::now() + mandate.ask_again(now));
            }
            match self.events.wait(deadline).map_err(AgentError::Wait)? {
                Event::Stop => return Ok(()),
                Event::Call => self.replace()?,
                Event::Links(since) => self.follow_interfaces(since, false)?,
                Event::Deadline => {
                    let now = Instant::now();
                    if self.watch.next_look().is_some_and(|look| look <= now) {
                        self.follow_interfaces(now, false)?;
                    }
                }
            }
            if Instant::now() >= next {
                self.drain()?;
                // After a stall the next drain is a whole interval away, not several at once.
                next = (next + self.interval).max(Instant::now());
            }
        }
    }

    /// Drains the program in force; the next generation may have a new key.
    fn drain(&mut self) -> Result<(), AgentError> {
        let next = self.keyring.follow(&self.terms, Timestamp::now())?;
        if let Some(key) = next.pseudonym_key() {
            self.program.generations().set_pseudonym_key(key);
        }
        let terms = std::mem::replace(&mut self.terms, next);
        self.drain_under(terms)
    }

    /// Drains the program in force. Its records were collected under these terms.
    fn drain_under(&mut self, terms: Arc<Terms>) -> Result<(), AgentError> {
        let start = Instant::now();
        let time = self.program.time();
        let mut quiet = self.program.generations().flip().map_err(ProgramError::from)?;
        let totals = drain(&mut quiet, &mut self.records, |units| time.milliseconds(units));
        self.program.settled();
        self.watch.drained();
        let mut records = self.records.take();
        terms.enforced.finish(&mut records);
        let batch = Batch { records, totals, terms };
        let shared = Arc::clone(&self.shared);
        let mut ledger = shared.ledger();
        self.watch.write(&mut ledger);
        ledger.add(&batch.totals);
        ledger.add_selected(&batch.records);
        let totals = batch.totals.clone();
        if let Some(oldest) = shared.queue.push(batch) {
            ledger.add_dropped(oldest.totals.recorded);
        }
        let ledger = ledger.clone();
        self.report(&ledger, Some((&totals, start.elapsed())));
        Ok(())
    }

    /// The key of pseudonyms under which packets are counted from the first one on.
    fn put_first_key(&mut self) {
        if let Some(key) = self.terms.pseudonym_key() {
            self.program.generations().set_first_pseudonym_key(key);
        }
    }

    /// Puts the program that is waiting in the place of the one in force. Only what ends the agent is an error
    /// here; what keeps the other program out goes to whoever asked.
    fn replace(&mut self) -> Result<(), AgentError> {
        let Ok(Replacement { program, asker }) = self.replacements.try_recv() else { return Ok(()) };
        // Slots whose interfaces are gone are settled, and little is left to drain while both are there.
        self.drain()?;
        let terms = self.keyring.terms(program.enforced(), Timestamp::now())?;
        let mut other = std::mem::replace(&mut self.program, program);
        let other_terms = std::mem::replace(&mut self.terms, terms);
        self.put_first_key();
        let replaced = self.program.replace(&mut other, &self.watch.slots());
        let refused = replaced.err();
        if refused.is_some() {
            // Back to the one before; the interfaces that have the new one already are taken from it again.
            let back = other.replace(&mut self.program, &[]);
            std::mem::swap(&mut self.program, &mut other);
            let new_terms = std::mem::replace(&mut self.terms, other_terms);
            back?;
            self.drain_other(other, new_terms)?;
        } else {
            self.watch.replaced(&self.program)?;
            self.drain_other(other, other_terms)?;
        }
        // Whoever asked may have gone.
        let _unheard = asker.send(refused.map_or(Ok(()), |error| Err(error.into())));
        Ok(())
    }

    /// Drains a program that is attached nowhere any more, for the last time.
    fn drain_other(&mut self, other: Program, terms: Arc<Terms>) -> Result<(), AgentError> {
        let in_force = std::mem::replace(&mut self.program, other);
        let drained = self.drain_under(terms);
        self.program = in_force;
        drained
    }

    /// Attaches to what appeared, and detaches from what is gone. At the start an interface that was named
    /// must be there and take the program; later only the drain can fail.
    fn follow_interfaces(&mut self, since: Instant, is_start: bool) -> Result<(), AgentError> {
        let candidates = match self.watch.look(&mut self.program, since) {
            Ok(candidates) => candidates,
            Err(error) if is_start => return Err(error.into()),
            Err(error) => {
                eprintln!("minimizer: {error}; asked again in a second");
                return Ok(());
            }
        };
        if is_start && self.watch.refused() > 0 {
            return Err(ProgramError::TooManyInterfaces.into());
        }
        if self.watch.needs_drain(&self.program, &candidates) {
            self.drain()?;
        }
        let shared = Arc::clone(&self.shared);
        let mut ledger = shared.ledger();
        self.watch.attach(&mut self.program, &mut ledger, candidates, is_start)?;
        self.records.set_if_indices(self.watch.if_indices());
        self.watch.write(&mut ledger);
        let ledger = ledger.clone();
        self.report(&ledger, None);
        Ok(())
    }

    fn report(&mut self, ledger: &Ledger, drained: Option<(&Totals, Duration)>) {
        let (watched, refused) = (self.watch.watched(), self.watch.refused());
        (self.observe)(&Progress { ledger, watched, refused, drained });
    }
}
