//! The worker: the thread that drains the program in force, follows the interfaces and reloads.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tracing::{info, warn};

use crate::agent::error::AgentError;
use crate::agent::events::{Event, Events};
use crate::agent::progress::Progress;
use crate::agent::table_growth::TableGrowth;
use crate::agent::time_mark::TimeMark;
use crate::delivery::accounting::Accounting;
use crate::delivery::batch::{Batch, Origin};
use crate::delivery::ledger::Ledger;
use crate::delivery::sink::{Interface, Losses};
use crate::interfaces::slots::InterfaceSlots;
use crate::kernel::error::ProgramError;
use crate::kernel::program::Program;
use crate::kernel::table_size;
use crate::kernel::wall_clock::WallClock;
use crate::policy::mandate::Standing;
use crate::records::drain::{Occupancy, Totals, drain};
use crate::records::keys::Stretch;
use crate::records::packed::{Packing, SlotDecoder};
use crate::records::terms::{Keyring, Terms};
use crate::support::clock::Clocks;
use crate::support::panics;

/// A reload that somebody asks for: the new program, and who waits for the result.
pub(super) struct Reload {
    pub(super) program: Program,
    pub(super) asker: mpsc::Sender<Result<(), AgentError>>,
}

/// What the drain thread is asked for.
pub(super) struct Requests {
    pub(super) events: Events,
    /// One for each [`Event::Reload`].
    pub(super) reloads: mpsc::Receiver<Reload>,
}

/// The state of the drain thread.
pub(super) struct Worker<F> {
    program: Program,
    keyring: Keyring,
    terms: Arc<Terms>,
    slots: InterfaceSlots,
    requests: Requests,
    packing: Packing,
    /// Index of the interface by slot number.
    if_indices: Vec<u32>,
    clocks: Arc<dyn Clocks>,
    /// The kernel's tag of the program: a digest of its instructions, the same under every policy.
    program_tag: Arc<str>,
    /// When the latest drain was, in milliseconds since 1970, by the clock of the generation that it began.
    drained_ms: u64,
    batches: u64,
    /// Packets seen by slot since they were last compared with what the drivers received.
    seen: Vec<u64>,
    /// How full the latest generation was.
    occupancy: Occupancy,
    growth: TableGrowth,
    /// The epoch in which the hash keys of the program were drawn.
    hashed: Stretch,
    accounting: Accounting,
    mark: TimeMark,
    observe: F,
}

impl<F: FnMut(&Progress<'_>)> Worker<F> {
    /// Attaches the program to the interfaces.
    pub(super) fn start(
        program: Program,
        mut keyring: Keyring,
        slots: InterfaceSlots,
        requests: Requests,
        accounting: Accounting,
        mark: TimeMark,
        observe: F,
    ) -> Result<Self, AgentError> {
        let terms = keyring.terms(program.compiled(), wall(&**program.clocks()))?;
        let hashed = hashed_now(&program);
        let mut worker = Self {
            program_tag: program.tag()?.into(),
            clocks: Arc::clone(program.clocks()),
            program,
            keyring,
            terms,
            slots,
            requests,
            packing: Packing::default(),
            if_indices: Vec::new(),
            drained_ms: 0,
            batches: 0,
            seen: Vec::new(),
            occupancy: Occupancy::default(),
            growth: TableGrowth::default(),
            hashed,
            accounting,
            mark,
            observe,
        };
        worker.prepare_first_generation();
        worker.drained_ms = worker.program.wall_clock().milliseconds(worker.clocks.monotonic_ns());
        // A clock that is wrong from the start: the interfaces are known, and nothing is attached.
        worker.follow_mandate()?;
        worker.follow_interfaces(Instant::now(), true)?;
        Ok(worker)
    }

    /// Drains whenever this time has passed, until the agent is stopped, and once more after that.
    pub(super) fn work(mut self, interval: Duration) -> Result<(), AgentError> {
        let result = self.drain_until_stopped(interval);
        self.program.detach_all();
        // The flip waits for packets that were in the program when it was detached.
        let last = self.drain();
        self.mark.keep_now();
        match (result, last) {
            // An error of the last drain weighs more: the ledger lacks what it would have found.
            (Err(AgentError::Mandate(_)), Err(last)) => Err(last),
            (result, last) => result.and(last),
        }
    }

    fn drain_until_stopped(&mut self, interval: Duration) -> Result<(), AgentError> {
        let mut next = Instant::now() + interval;
        loop {
            let again = self.follow_mandate()?;
            let deadline = [self.slots.next_look(), again].into_iter().flatten().fold(next, Instant::min);
            match self.requests.events.wait(deadline).map_err(AgentError::Wait)? {
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
                if !self.look_for_epoch()? {
                    self.drain()?;
                }
                self.look_for_blindness()?;
                self.look_for_room()?;
                // After a stall, drain once, not once for every interval that was missed.
                next = (next + interval).max(Instant::now());
            }
        }
    }

    /// Compares the mandate with the clock: takes the program off the interfaces while the clock is wrong, and puts it
    /// back when it is right. Returns when to call this again. An error ends the agent: the mandate has ended.
    fn follow_mandate(&mut self) -> Result<Option<Instant>, AgentError> {
        let (wall, mark) = self.mark.now();
        self.mark.keep();
        let (standing, again) = match &self.program.compiled().policy.mandate {
            Some(mandate) => {
                (mandate.standing(wall, mark)?, Some(Instant::now() + mandate.ask_again(wall, mark)))
            }
            None => (Standing::Permits, None),
        };
        match (standing, self.slots.paused().is_some()) {
            (Standing::Paused(reason), false) => {
                warn!("{reason}");
                self.slots.pause(&mut self.program, reason.to_string());
                // The ledger has everything up to now, and the gap begins.
                self.drain()?;
            }
            (Standing::Permits, true) => {
                info!("the clock is right again; the interfaces are watched");
                self.slots.resume();
                // The next generation has the right clock.
                self.drain()?;
                self.follow_interfaces(Instant::now(), false)?;
            }
            _ => {}
        }
        Ok(again)
    }

    /// Whether the mandate of another program permits collection now.
    fn permit(&mut self, program: &Program) -> Result<(), AgentError> {
        let Some(mandate) = &program.compiled().policy.mandate else { return Ok(()) };
        let (wall, mark) = self.mark.now();
        match mandate.standing(wall, mark)? {
            Standing::Permits => Ok(()),
            Standing::Paused(reason) => Err(reason.into()),
        }
    }

    /// Drains the program in force. The next generation gets a new key when an epoch has ended.
    fn drain(&mut self) -> Result<(), AgentError> {
        let next = self.keyring.follow(&self.terms, wall(&*self.clocks))?;
        if let Some(key) = next.pseudonym_key() {
            self.program.generations().set_pseudonym_key(key);
        }
        let terms = std::mem::replace(&mut self.terms, next);
        self.drain_under(terms)
    }

    /// Drains the program in force, whose records were collected under these terms.
    fn drain_under(&mut self, terms: Arc<Terms>) -> Result<(), AgentError> {
        let start = Instant::now();
        let (time, clock) = (self.program.time(), self.program.wall_clock());
        let mut quiet = self.program.generations().flip().map_err(ProgramError::from)?;
        let decoder = SlotDecoder::new(&terms.compiled, time, &self.if_indices);
        let (records, totals) = drain(&mut quiet, &mut self.packing, decoder);
        self.occupancy = totals.occupancy;
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
        let origin = self.origin(losses, clock);
        let batch = Arc::new(Batch::new(records, totals, terms, origin, accounting.queues().len()));
        accounting.push(&batch);
        let ledger = accounting.ledger();
        self.report(&ledger, Some((&batch.totals, start.elapsed())));
        Ok(())
    }

    /// When and where the batch was drained that is drained now. Its interval is by the wall clock of its generation,
    /// as its records are: if somebody set the clock meanwhile, the next interval begins by the new clock.
    fn origin(&mut self, losses: Losses, clock: WallClock) -> Origin {
        self.batches += 1;
        let monotonic_ns = self.clocks.monotonic_ns();
        let end_ms = clock.milliseconds(monotonic_ns);
        let next_ms = self.program.wall_clock().milliseconds(monotonic_ns);
        let begin_ms = std::mem::replace(&mut self.drained_ms, next_ms);
        let attached =
            self.slots.watched().into_iter().filter_map(|watched| {
                Some(Interface { index: watched.attached?.if_index, name: watched.name })
            });
        Origin {
            number: self.batches,
            interval_ms: (begin_ms, end_ms.max(begin_ms)),
            interfaces: attached.collect(),
            losses,
            program_tag: Arc::clone(&self.program_tag),
        }
    }

    /// Sets the clock and the key of pseudonyms for the packets of the first generation.
    fn prepare_first_generation(&mut self) {
        self.program.date_first_generation();
        if let Some(key) = self.terms.pseudonym_key() {
            self.program.generations().set_first_pseudonym_key(key);
        }
    }

    /// Reloads: puts the new program into force. If the kernel refuses it, who asked is told, and the current one stays. An
    /// error here ends the agent.
    fn reload(&mut self) -> Result<(), AgentError> {
        panics::planted("drain");
        let Ok(Reload { program, asker }) = self.requests.reloads.try_recv() else { return Ok(()) };
        let result = match self.permit(&program) {
            Ok(()) => self.put_in_force(program)?.map_or(Ok(()), |error| Err(error.into())),
            Err(error) => Err(error),
        };
        // Whoever asked may have gone.
        let _unheard = asker.send(result);
        Ok(())
    }

    /// Puts a program into force. Returns why the kernel refused it; the current one then stays.
    fn put_in_force(&mut self, program: Program) -> Result<Option<ProgramError>, AgentError> {
        // This settles slots whose interfaces are gone, and leaves little to drain while both programs are loaded.
        self.drain()?;
        let terms = self.keyring.terms(program.compiled(), wall(&*self.clocks))?;
        let program_tag = program.tag()?.into();
        let mut other = std::mem::replace(&mut self.program, program);
        let other_terms = std::mem::replace(&mut self.terms, terms);
        let hashed = std::mem::replace(&mut self.hashed, hashed_now(&self.program));
        self.prepare_first_generation();
        let reloaded = self.program.reload_from(&mut other, &self.slots.slots());
        let refused = reloaded.err();
        if refused.is_some() {
            // Interfaces that have the new program already get the former one again.
            let back = other.reload_from(&mut self.program, &[]);
            std::mem::swap(&mut self.program, &mut other);
            let new_terms = std::mem::replace(&mut self.terms, other_terms);
            self.hashed = hashed;
            back?;
            self.drain_other(other, new_terms)?;
        } else {
            self.slots.reloaded(&self.program)?;
            self.drain_other(other, other_terms)?;
            self.program_tag = program_tag;
        }
        Ok(refused)
    }

    /// Puts the same program with other hash keys in force when an epoch of the policy has ended: the places of flows in the
    /// table then say nothing of those before. Returns whether it was put in force, and everything drained.
    fn look_for_epoch(&mut self) -> Result<bool, AgentError> {
        if self.hashed.is_of(self.program.compiled().policy.pseudonym_epoch, wall(&*self.clocks))
            || self.slots.paused().is_some()
        {
            return Ok(false);
        }
        let refused = match self.program.load_again(self.program.flows_per_cpu()) {
            Ok(program) => self.put_in_force(program)?,
            Err(error) => Some(error),
        };
        match &refused {
            None => info!("an epoch has ended: the flow tables have other hash keys"),
            Some(error) => {
                warn!("the flow tables keep their hash keys for an epoch more: {error}");
                self.hashed = hashed_now(&self.program);
            }
        }
        Ok(refused.is_none())
    }

    /// Reloads the same program where a driver does not run this one.
    fn look_for_blindness(&mut self) -> Result<(), AgentError> {
        let seen = std::mem::take(&mut self.seen);
        if !self.slots.observe(&seen) {
            return Ok(());
        }
        let refused = match self.program.load_again(self.program.flows_per_cpu()) {
            Ok(program) => self.put_in_force(program)?,
            Err(error) => Some(error),
        };
        if let Some(error) = refused {
            warn!("another copy of the program cannot be put in place: {error}");
        }
        Ok(())
    }

    /// Puts the same program with larger tables in force when a CPU has used up its own.
    fn look_for_room(&mut self) -> Result<(), AgentError> {
        let Some(larger) = self.growth.larger(&self.occupancy, &self.program) else { return Ok(()) };
        let flows_per_cpu = larger.as_ref().ok().map(Program::flows_per_cpu);
        let refused = match larger {
            Ok(program) => self.put_in_force(program)?,
            Err(error) => Some(error),
        };
        match (refused, flows_per_cpu) {
            (None, Some(flows_per_cpu)) => self.program.room().grown(flows_per_cpu),
            (Some(error), _) => self.growth.refused(&error),
            (None, None) => {}
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
        let table_bytes = table_size::bytes(&self.program.generations().shape());
        (self.observe)(&Progress {
            ledger,
            watched,
            paused: self.slots.paused(),
            refused,
            drained,
            table_bytes,
            costs,
        });
    }
}

/// The epoch in which a program draws its hash keys if it is loaded now.
fn hashed_now(program: &Program) -> Stretch {
    Stretch::of(program.compiled().policy.pseudonym_epoch, wall(&**program.clocks()))
}

/// The time of the wall clock.
fn wall(clocks: &dyn Clocks) -> Timestamp {
    Timestamp::from_nanosecond(clocks.realtime_ns().into()).unwrap_or(Timestamp::MAX)
}

/// Enters the names of interfaces into the ledger, and how long nobody watched them.
fn write_unwatched(slots: &InterfaceSlots, ledger: &mut Ledger) {
    for (slot, (name, unwatched)) in slots.unwatched().enumerate() {
        ledger.enter(slot, name, unwatched);
    }
}
