//! The queue of a sink: the batches that wait for it, within bounds, and the account of everything that went through.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use minimizer_common::generation::Counts;

use crate::delivery::account::Account;
use crate::delivery::batch::Batch;
use crate::delivery::loss::Loss;
use crate::delivery::settlement::{Claim, Contribution, Entry, Share};
use crate::delivery::sink::SinkError;
use crate::delivery::tally::{Portion, Tally};
use crate::delivery::units::{GaveWay, Piece};
use crate::delivery::waiting::{Bounds, Size, Waiting};
use crate::support::clock;

/// Longest time that a sink may take for one call. One that takes longer is told to have stalled: nothing interrupts a
/// file system that hangs.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// Batches on their way to one sink: the drain appends them, and one sender takes them.
pub struct Queue {
    recipient: Option<String>,
    /// How old a record can be before the sink lets anybody read it.
    unreadable_for: Option<Duration>,
    /// Records whose times are coarser are held and merged until their unit has ended.
    held_beyond: Option<Duration>,
    state: Mutex<State>,
    changed: Condvar,
}

/// A batch that waits.
struct Queued {
    batch: Arc<Batch>,
    /// It does not leave before this moment.
    leaves_at: Option<Instant>,
}

struct State {
    waiting: Waiting<Queued>,
    /// Octets of what the sender has taken out and is handing over, and of the units that it holds.
    handed_octets: u64,
    held_octets: u64,
    is_closed: bool,
    account: Account,
    hands: Hands,
}

/// What the sender and its sink have in hand. It lies in the queue, so that the queue can be abandoned without them.
#[derive(Default)]
struct Hands {
    /// The share of what is being handed over.
    current: Option<Share>,
    /// That of the batch that was taken out before, with its octets: what was held leaves first.
    aside: Option<(Share, u64)>,
    /// What the units have that the sender holds, by their names.
    units: BTreeMap<u64, Vec<Contribution>>,
    /// The shares of the batches of which the sink still holds something, from the oldest on.
    held: VecDeque<Share>,
    /// Since when the sink has been at work on one call.
    busy_since: Option<Instant>,
    /// The sender and its sink take too long for the end of the agent: nothing that they do counts any more.
    is_abandoned: bool,
}

/// What a sender does next.
pub enum Next {
    /// Delivers a batch.
    Batch(Arc<Batch>),
    /// Tends the sink: the time it asked for has come.
    Tend,
    /// Ends: no batch will come any more.
    End,
}

impl Queue {
    /// An empty queue to the sink of that name and kind. It gets the records of that recipient, or of the first one of the
    /// policy.
    #[must_use]
    pub fn new(name: &str, recipient: Option<&str>, kind: &str, bounds: Bounds) -> Self {
        let account = Account::new(name, recipient.unwrap_or_default(), kind);
        let state = State {
            waiting: Waiting::new(bounds),
            handed_octets: 0,
            held_octets: 0,
            is_closed: false,
            account,
            hands: Hands::default(),
        };
        let recipient = recipient.map(str::to_owned);
        let (unreadable_for, held_beyond) = (None, None);
        Self { recipient, unreadable_for, held_beyond, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Has records held and merged until the unit of their times has ended, where it is longer than this: the time between drains.
    /// The sink leads over a network, where everybody on the way sees when a record leaves.
    #[must_use]
    pub const fn held_beyond(mut self, interval: Duration) -> Self {
        self.held_beyond = Some(interval);
        self
    }

    /// The unit until whose end records are held, if that of their times is this one.
    pub(super) fn held_for(&self, unit: Option<Duration>) -> Option<Duration> {
        unit.filter(|unit| self.held_beyond.is_some_and(|interval| *unit > interval))
    }

    /// How much may wait and be held.
    pub(super) fn bounds(&self) -> Bounds {
        self.lock().waiting.bounds()
    }

    /// Notes how old a record can be before the sink lets anybody read it.
    #[must_use]
    pub const fn unreadable_for(mut self, age: Option<Duration>) -> Self {
        self.unreadable_for = age;
        self
    }

    /// How old a record can be before the sink lets anybody read it; `None` where it does not wait.
    #[must_use]
    pub const fn readable_from(&self) -> Option<Duration> {
        self.unreadable_for
    }

    /// Whose records go this way; `None` for the first recipient of the policy.
    #[must_use]
    pub fn recipient(&self) -> Option<&str> {
        self.recipient.as_deref()
    }

    /// A copy of the account.
    #[must_use]
    pub fn account(&self) -> Account {
        self.lock().account.clone()
    }

    /// Appends a batch. The oldest give way when too many wait, so that it waits for nobody. Returns what the ledger has to
    /// enter for them.
    #[must_use]
    pub(super) fn push(&self, batch: &Arc<Batch>) -> Vec<Entry> {
        let mut state = self.lock();
        if self.recipient.is_none()
            && let Some(first) = batch.terms.compiled.policy.recipients.first()
        {
            state.account.recipient.clone_from(&first.name);
        }
        let tally = collected(batch);
        state.account.offer(tally);
        let size = Size { records: tally.records, octets: batch.octets() };
        let leaves_at = self.leaves_at(batch);
        let gone = state.waiting.push(Queued { batch: Arc::clone(batch), leaves_at }, size);
        let loss = state.account.loss();
        for Queued { batch, .. } in &gone {
            state.account.lose(collected(batch), loss);
        }
        state.count_octets();
        drop(state);
        self.changed.notify_all();
        gone.iter()
            .filter_map(|gone| gone.batch.settlement.settle(Portion::default(), Counts::default()))
            .collect()
    }

    /// When the batch may leave: when the unit of its recipient's times has ended in which its interval ended. Where units are
    /// longer than intervals the sender sees to that.
    fn leaves_at(&self, batch: &Batch) -> Option<Instant> {
        let interval = self.held_beyond?;
        let terms = &batch.terms;
        let recipient = &terms.compiled.policy.recipients[terms.position(self.recipient()).ok()?];
        let unit = recipient.time_unit().filter(|unit| *unit <= interval)?;
        let unit_ms = u64::try_from(unit.as_millis()).unwrap_or(u64::MAX).max(1);
        let ends_ms = batch.origin.interval_ms.1.next_multiple_of(unit_ms);
        // Whoever sets the clock holds nothing up.
        let left_ms = ends_ms.saturating_sub(clock::realtime_ms()).min(unit_ms);
        Some(Instant::now() + Duration::from_millis(left_ms))
    }

    /// Waits for a batch, for `tend_at`, or for the end.
    pub fn next(&self, tend_at: Option<Instant>) -> Next {
        let mut state = self.lock();
        loop {
            let leaves_at = state.waiting.oldest().and_then(|oldest| oldest.leaves_at);
            let leaves_at = leaves_at.filter(|at| !state.is_closed && *at > Instant::now());
            if leaves_at.is_none()
                && let Some((Queued { batch, .. }, size)) = state.waiting.pop()
            {
                state.hands.current = Some(Share::new(&batch.settlement));
                state.handed_octets = size.octets;
                state.count_octets();
                return Next::Batch(batch);
            }
            if state.is_closed {
                return Next::End;
            }
            if tend_at.is_some_and(|at| at <= Instant::now()) {
                return Next::Tend;
            }
            state = match tend_at.into_iter().chain(leaves_at).min() {
                Some(at) => {
                    let left = at.saturating_duration_since(Instant::now());
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Waits for the next batch; `None` when the agent has ended and all batches are out.
    pub fn next_batch(&self) -> Option<Arc<Batch>> {
        match self.next(None) {
            Next::Batch(batch) => Some(batch),
            Next::Tend | Next::End => None,
        }
    }

    /// Says that nothing more will be appended.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// Enters a batch that was handed over as a whole: this many records with their keys, and `suppressed` of its packets
    /// without. Returns what the ledger has to enter.
    #[must_use]
    pub(super) fn exported(&self, batch: &Batch, records: usize, suppressed: Counts) -> Vec<Entry> {
        let recorded = batch.totals.recorded;
        let exported = Counts {
            packets: recorded.packets - suppressed.packets,
            octets: recorded.octets - suppressed.octets,
        };
        let residuals = usize::from(suppressed.packets != 0);
        let portion =
            Portion { records: Tally::new(records, exported), suppressed: Tally::new(residuals, suppressed) };
        let mut state = self.lock();
        let Some(share) = state.hands.current.take() else { return Vec::new() };
        state.account.view(collected(batch).records, portion.sum().records);
        state.account.export(portion);
        state.account.succeed(true);
        state.done();
        share.settle_as(portion)
    }

    /// Enters a batch that was lost as a whole. Returns what the ledger has to enter.
    #[must_use]
    pub(super) fn lost(&self, batch: &Batch, loss: Loss) -> Vec<Entry> {
        let mut state = self.lock();
        let Some(share) = state.hands.current.take() else { return Vec::new() };
        state.account.lose(collected(batch), loss);
        state.done();
        share.settle()
    }

    /// The sender holds the records of the batch that it took out: what the units have of it, which of them gave way before, and
    /// how much is held now. Returns what the ledger has to enter.
    #[must_use]
    pub(super) fn hold(&self, batch: &Batch, pieces: &[Piece], gone: &[GaveWay], held: Size) -> Vec<Entry> {
        let mut state = self.lock();
        let State { account, hands, .. } = &mut *state;
        // None once nothing counts any more.
        let Some(share) = hands.current.take() else { return Vec::new() };
        let mut entries = Vec::new();
        let loss = account.loss();
        for GaveWay { unit, lost } in gone {
            account.lose(*lost, loss);
            entries.extend(Share::of(hands.units.remove(unit).unwrap_or_default()).settle());
        }
        account.view(collected(batch).records, pieces.iter().map(|piece| piece.growth).sum());
        if pieces.is_empty() {
            entries.extend(share.settle());
        }
        let claim = Claim::new(&batch.settlement, pieces.len());
        for Piece { unit, portion, .. } in pieces {
            let contribution = Contribution { claim: Arc::clone(&claim), portion: *portion };
            hands.units.entry(*unit).or_default().push(contribution);
        }
        state.note_held(held);
        state.done();
        entries
    }

    /// The sender hands over a unit of these octets, and `held` is still held. Returns whether it may.
    #[must_use]
    pub(super) fn release(&self, unit: u64, octets: u64, held: Size) -> bool {
        let mut state = self.lock();
        if state.hands.is_abandoned {
            return false;
        }
        let handed = state.handed_octets;
        state.handed_octets += octets;
        let hands = &mut state.hands;
        hands.aside = hands.current.take().map(|share| (share, handed));
        hands.current = Some(Share::of(hands.units.remove(&unit).unwrap_or_default()));
        state.note_held(held);
        state.count_octets();
        true
    }

    /// The batch that was taken out has this many records for the recipient.
    pub(super) fn view(&self, batch: &Batch, records: u64) {
        self.lock().enter(|account, _| account.view(collected(batch).records, records));
    }

    /// The sink has taken this much of the batch, and can still lose it.
    pub(super) fn held(&self, portion: Portion) {
        self.lock().enter(|_, hands| hands.current.iter_mut().for_each(|share| share.hold(portion)));
    }

    /// Everything that the sink held is out of the agent's hands. Returns what the ledger has to enter.
    #[must_use]
    pub(super) fn delivered(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        self.lock().enter(|account, hands| {
            for mut share in hands.held.drain(..) {
                account.export(share.deliver());
                entries.extend(share.settle());
            }
            if let Some(share) = &mut hands.current {
                account.export(share.deliver());
            }
        });
        entries
    }

    /// What the sink took up to that moment was sent, and nobody confirms it. Returns what the ledger has to enter, and whether
    /// everything that was taken of the batch that is being handed over is sent.
    #[must_use]
    pub(super) fn sent(&self, until: Instant) -> (Vec<Entry>, bool) {
        let (mut entries, mut all) = (Vec::new(), false);
        self.lock().enter(|account, hands| {
            while let Some(mut share) = hands.held.pop_front() {
                let Some(portion) = share.send(until) else { return hands.held.push_front(share) };
                account.send(portion);
                entries.extend(share.settle());
            }
            if let Some(portion) = hands.current.as_mut().and_then(|share| share.send(until)) {
                account.send(portion);
                all = true;
            }
        });
        (entries, all)
    }

    /// The sink has lost what it held. What it held of the batch that is being handed over is handed over again. Returns what
    /// the ledger has to enter.
    #[must_use]
    pub(super) fn lose_held(&self, loss: Loss) -> Vec<Entry> {
        let mut entries = Vec::new();
        self.lock().enter(|account, hands| {
            for mut share in hands.held.drain(..) {
                account.lose(share.lose().sum(), loss);
                entries.extend(share.settle());
            }
            if let Some(share) = &mut hands.current {
                share.lose();
            }
        });
        entries
    }

    /// The sender is done with what it handed over; `rest`, which the sink has not taken, is lost. Returns what the ledger has to
    /// enter, unless the sink still holds something.
    #[must_use]
    pub(super) fn put_down(&self, rest: Tally, loss: Loss) -> Vec<Entry> {
        let mut state = self.lock();
        let Some(share) = state.hands.current.take() else { return Vec::new() };
        state.account.lose(rest, loss);
        state.done();
        if share.is_held() {
            state.hands.held.push_back(share);
            return Vec::new();
        }
        share.settle()
    }

    /// Whether the sink still holds something.
    pub(super) fn has_held(&self) -> bool {
        !self.lock().hands.held.is_empty()
    }

    /// The sink begins with a call. Returns whether the call may be made.
    pub fn begin_call(&self) -> bool {
        let mut state = self.lock();
        state.hands.busy_since = Some(Instant::now());
        !state.hands.is_abandoned
    }

    /// The sink has ended a call.
    pub fn end_call(&self) {
        self.lock().hands.busy_since = None;
    }

    /// Enters that the sink has stalled, if a call takes too long. Returns why, if that is new.
    pub fn look_for_stall(&self) -> Option<String> {
        let mut state = self.lock();
        let busy = state.hands.busy_since?.elapsed();
        if busy < CALL_LIMIT || state.account.failing.is_some() {
            return None;
        }
        let message = format!(
            "it has been at work on one call for more than {} s; look whether the file system, or whoever reads, hangs",
            CALL_LIMIT.as_secs()
        );
        state.account.fail(Loss::Stalled, &message);
        Some(message)
    }

    /// Gives up what has not left the agent: all of it is lost at the end of the agent, and nothing that the sender does
    /// from now on counts. Returns what the ledger has to enter.
    #[must_use]
    pub(super) fn abandon(&self) -> Vec<Entry> {
        let mut state = self.lock();
        let State { account, hands, waiting, .. } = &mut *state;
        let queued = account.queued;
        account.lose(queued, Loss::Shutdown);
        let mut entries = Vec::new();
        while let Some((Queued { batch, .. }, _)) = waiting.pop() {
            entries.extend(batch.settlement.settle(Portion::default(), Counts::default()));
        }
        let units = std::mem::take(&mut hands.units).into_values().map(Share::of);
        let aside = hands.aside.take().map(|(share, _)| share);
        for mut share in hands.held.drain(..).chain(hands.current.take()).chain(aside).chain(units) {
            share.lose();
            entries.extend(share.settle());
        }
        hands.is_abandoned = true;
        state.is_closed = true;
        state.note_held(Size::default());
        state.done();
        drop(state);
        self.changed.notify_all();
        entries
    }

    /// Enters that the sink failed. Returns whether it worked before.
    pub(super) fn failed(&self, error: &SinkError) -> bool {
        let mut worked = false;
        self.lock().enter(|account, _| {
            worked = account.failing.is_none();
            account.fail(error.loss, &error.message);
        });
        worked
    }

    /// Makes an entry in the account that moves no record.
    pub(super) fn enter<T>(&self, entry: impl FnOnce(&mut Account) -> T) -> T {
        entry(&mut self.lock().account)
    }

    /// Every entry is complete when the lock is released.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Makes an entry, unless nothing that the sender does counts any more.
    fn enter(&mut self, entry: impl FnOnce(&mut Account, &mut Hands)) {
        if !self.hands.is_abandoned {
            entry(&mut self.account, &mut self.hands);
        }
    }

    /// The sender has handed over what it had in hand. It goes on with what it had put aside for that.
    fn done(&mut self) {
        let aside = self.hands.aside.take();
        self.handed_octets = aside.as_ref().map_or(0, |(_, octets)| *octets);
        self.hands.current = aside.map(|(share, _)| share);
        self.count_octets();
    }

    /// So much is held now; it takes the room of what may wait.
    const fn note_held(&mut self, held: Size) {
        self.waiting.leave_room_for(held);
        self.held_octets = held.octets;
    }

    fn count_octets(&mut self) {
        self.account.queue_bytes = self.waiting.octets() + self.handed_octets + self.held_octets;
    }
}

/// A batch as it was collected.
pub(super) fn collected(batch: &Batch) -> Tally {
    Tally::new(batch.records.len(), batch.totals.recorded)
}
