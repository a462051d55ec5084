//! The worker: the thread that drains the program in force, follows the interfaces and reloads.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tracing::warn;

use crate::agent::error::AgentError;
use crate::agent::events::{Event, Events};
use crate::agent::progress::Progress;
use crate::delivery::accounting::Accounting;
use crate::delivery::batch::{Batch, Origin};
use crate::delivery::ledger::Ledger;
use crate::delivery::sink::{Interface, Losses};
use crate::interfaces::slots::InterfaceSlots;
use crate::kernel::error::ProgramError;
use crate::kernel::program::Program;
use crate::records::drain::{Totals, drain};
use crate::records::packed::{Packing, SlotDecoder};
use crate::records::terms::{Keyring, Terms};
use crate::support::clock;

/// A reload that somebody asks for: the new program, and who waits for the result.
pub(super) struct Reload {
    pub(super) program: Program,
    pub(super) asker: mpsc::Sender<Result<(), AgentError>>,
}

/// The state of the drain thread.
pub(super) struct Worker<F> {
    program: Program,
    keyring: Keyring,
    terms: Arc<Terms>,
    slots: InterfaceSlots,
    events: Events,
    packing: Packing,
    /// Index of the interface by slot number.
    if_indices: Vec<u32>,
    /// The kernel's digest of the program.
    program_tag: Arc<str>,
    /// Time of the latest drain, in milliseconds since 1970.
    drained_ms: u64,
    batches: u64,
    /// Packets seen by slot since they were last compared with what the drivers received.
    seen: Vec<u64>,
    accounting: Accounting,
    reloads: mpsc::Receiver<Reload>,
    observe: F,
}

impl<F: FnMut(&Progress<'_>)> Worker<F> {
    /// Attaches the program to the interfaces.
    pub(super) fn start(
        program: Program,
        mut keyring: Keyring,
        slots: InterfaceSlots,
        events: Events,
        accounting: Accounting,
        reloads: mpsc::Receiver<Reload>,
        observe: F,
    ) -> Result<Self, AgentError> {
        let terms = keyring.terms(program.compiled(), Timestamp::now())?;
        let mut worker = Self {
            program_tag: program.tag()?.into(),
            program,
            keyring,
            terms,
            slots,
            events,
            packing: Packing::default(),
            if_indices: Vec::new(),
            drained_ms: clock::realtime_ms(),
            batches: 0,
            seen: Vec::new(),
            accounting,
            reloads,
            observe,
        };
        worker.put_first_key();
        worker.follow_interfaces(Instant::now(), true)?;
        Ok(worker)
    }

    /// Drains whenever this time has passed, until the agent is stopped, and once more after that.
    pub(super) fn work(mut self, interval: Duration) -> Result<(), AgentError> {
        let result = self.drain_until_stopped(interval);
        self.program.detach_all();
        // The flip waits for packets that were in the program when it was detached.
        let last = self.drain();
        self.accounting.queues().iter().for_each(|queue| queue.close());
        result.and(last)
    }

    fn drain_until_stopped(&mut self, interval: Duration) -> Result<(), AgentError> {
        let mut next = Instant::now() + interval;
        loop {
            let mut deadline = self.slots.next_look().map_or(next, |look| look.min(next));
            if let Some(mandate) = &self.program.compiled().policy.mandate {
                let now = Timestamp::now();
                mandate.permits(now)?;
                deadline = deadline.min(Instant::now() + mandate.ask_again(now));
            }
            match self.events.wait(deadline).map_err(AgentError::Wait)? {
                Event::Stop => return Ok(()),
                Event::Reload => self.reload()?,
                Event::Links(since) => self.follow_interfaces(since, false)?,
                Event::Deadline => {
                    let now = Instant::now();
                    if self.slots.next_look().is_some_and(|look| look <= now) {
                        self.follow_interfaces(now, false)?;
                    }
                }
            }
            if Instant::now() >= next {
                self.drain()?;
                self.look_for_blindness()?;
                // After a stall, drain once, not once for every interval that was missed.
                next = (next + interval).max(Instant::now());
            }
        }
    }

    /// Drains the program in force. The next generation gets a new key when an epoch has ended.
    fn drain(&mut self) -> Result<(), AgentError> {
        let next = self.keyring.follow(&self.terms, Timestamp::now())?;
        if let Some(key) = next.pseudonym_key() {
            self.program.generations().set_pseudonym_key(key);
        }
        let terms = std::mem::replace(&mut self.terms, next);
        self.drain_under(terms)
    }

    /// Drains the program in force, whose records were collected under these terms.
    fn drain_under(&mut self, terms: Arc<Terms>) -> Result<(), AgentError> {
        let start = Instant::now();
        let time = self.program.time();
        let mut quiet = self.program.generations().flip().map_err(ProgramError::from)?;
        let decoder = SlotDecoder::new(&terms.compiled, time, &self.if_indices);
        let (records, totals) = drain(&mut quiet, &mut self.packing, decoder);
        self.program.settled();
        self.slots.drained();
        self.seen.resize(self.if_indices.len(), 0);
        for (seen, interface) in self.seen.iter_mut().zip(&totals.interfaces) {
            *seen += interface.seen_packets;
        }
        let accounting = self.accounting.clone();
        let mut ledger = accounting.lock();
        write_unwatched(&self.slots, &mut ledger);
        ledger.add(&totals);
        let losses = Losses { overflow: ledger.overflow(), dropped: ledger.dropped() };
        drop(ledger);
        let origin = self.origin(losses);
        let batch = Arc::new(Batch::new(records, totals, terms, origin, accounting.queues().len()));
        accounting.push(&batch);
        let ledger = accounting.ledger();
        self.report(&ledger, Some((&batch.totals, start.elapsed())));
        Ok(())
    }

    /// When and where the present batch is drained.
    fn origin(&mut self, losses: Losses) -> Origin {
        self.batches += 1;
        let begin_ms = std::mem::replace(&mut self.drained_ms, clock::realtime_ms());
        let attached =
            self.slots.watched().into_iter().filter_map(|watched| {
                Some(Interface { index: watched.attached?.if_index, name: watched.name })
            });
        Origin {
            number: self.batches,
            interval_ms: (begin_ms, self.drained_ms.max(begin_ms)),
            interfaces: attached.collect(),
            losses,
            program_tag: Arc::clone(&self.program_tag),
        }
    }

    /// Gives the program the key of pseudonyms for its first packets.
    fn put_first_key(&mut self) {
        if let Some(key) = self.terms.pseudonym_key() {
            self.program.generations().set_first_pseudonym_key(key);
        }
    }

    /// Reloads: puts the new program into force. If the kernel refuses it, who asked is told, and the current one stays. An
    /// error here ends the agent.
    fn reload(&mut self) -> Result<(), AgentError> {
        let Ok(Reload { program, asker }) = self.reloads.try_recv() else { return Ok(()) };
        let refused = self.put_in_force(program)?;
        // Who asked may have gone.
        let _unheard = asker.send(refused.map_or(Ok(()), |error| Err(error.into())));
        Ok(())
    }

    /// Puts a program into force. Returns why the kernel refused it; the current one then stays.
    fn put_in_force(&mut self, program: Program) -> Result<Option<ProgramError>, AgentError> {
        // This settles slots whose interfaces are gone, and leaves little to drain while both programs are loaded.
        self.drain()?;
        let terms = self.keyring.terms(program.compiled(), Timestamp::now())?;
        let program_tag = program.tag()?.into();
        let mut other = std::mem::replace(&mut self.program, program);
        let other_terms = std::mem::replace(&mut self.terms, terms);
        self.put_first_key();
        let reloaded = self.program.reload_from(&mut other, &self.slots.slots());
        let refused = reloaded.err();
        if refused.is_some() {
            // Interfaces that have the new program already get the former one again.
            let back = other.reload_from(&mut self.program, &[]);
            std::mem::swap(&mut self.program, &mut other);
            let new_terms = std::mem::replace(&mut self.terms, other_terms);
            back?;
            self.drain_other(other, new_terms)?;
        } else {
            self.slots.reloaded(&self.program)?;
            self.drain_other(other, other_terms)?;
            self.program_tag = program_tag;
        }
        Ok(refused)
    }

    /// Reloads the same program where a driver does not run this one.
    fn look_for_blindness(&mut self) -> Result<(), AgentError> {
        let seen = std::mem::take(&mut self.seen);
        if !self.slots.observe(&seen) {
            return Ok(());
        }
        let refused = match self.program.load_again() {
            Ok(program) => self.put_in_force(program)?,
            Err(error) => Some(error),
        };
        if let Some(error) = refused {
            warn!("another copy of the program cannot be put in place: {error}");
        }
        Ok(())
    }

    /// Drains a program for the last time, when it is attached nowhere any more.
    fn drain_other(&mut self, other: Program, terms: Arc<Terms>) -> Result<(), AgentError> {
        let in_force = std::mem::replace(&mut self.program, other);
        let drained = self.drain_under(terms);
        self.program = in_force;
        drained
    }

    /// Attaches the program to interfaces that have appeared, and detaches it from those that are gone. At the start every
    /// interface that was named must be there and take the program; later only a drain can fail.
    fn follow_interfaces(&mut self, since: Instant, is_start: bool) -> Result<(), AgentError> {
        let candidates = match self.slots.look(&mut self.program, since) {
            Ok(candidates) => candidates,
            Err(error) if is_start => return Err(error.into()),
            Err(error) => {
                warn!("{error}; asked again in a second");
                return Ok(());
            }
        };
        if is_start && self.slots.refused() > 0 {
            return Err(ProgramError::TooManyInterfaces.into());
        }
        if self.slots.needs_drain(&self.program, &candidates) {
            self.drain()?;
        }
        let accounting = self.accounting.clone();
        let mut ledger = accounting.lock();
        for slot in self.slots.attach(&mut self.program, candidates, is_start)? {
            ledger.retire(slot);
        }
        self.if_indices = self.slots.if_indices().collect();
        write_unwatched(&self.slots, &mut ledger);
        let ledger = accounting.copy(&mut ledger);
        self.report(&ledger, None);
        Ok(())
    }

    fn report(&mut self, ledger: &Ledger, drained: Option<(&Totals, Duration)>) {
        let (watched, refused) = (self.slots.watched(), self.slots.refused());
        let costs = self.program.costs();
        (self.observe)(&Progress { ledger, watched, refused, drained, costs });
    }
}

/// Enters the names of interfaces into the ledger, and how long nobody watched them.
fn write_unwatched(slots: &InterfaceSlots, ledger: &mut Ledger) {
    for (slot, (name, unwatched)) in slots.unwatched().enumerate() {
        ledger.enter(slot, name, unwatched);
    }
}
