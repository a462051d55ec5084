//! Records of coarse times over a network: when they leave, and that everything is accounted for meanwhile.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use minimizer_common::generation::Counts;
use minimizer_common::slot::{Counted, Wide};
use minimizer_common::tuple::{Tags, Tuple};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt as _, SeedableRng as _};

use super::{End, Fickle, entered};
use crate::delivery::accounting::Accounting;
use crate::delivery::batch::{Batch, Origin};
use crate::delivery::ending::Ending;
use crate::delivery::ledger::Ledger;
use crate::delivery::queue::{Next, Queue};
use crate::delivery::sender::Sender;
use crate::delivery::sink::{Heading, Losses, Sink, SinkError, Taken};
use crate::delivery::waiting::Bounds;
use crate::kernel::wall_clock::TimeUnits;
use crate::policy::compile::CompiledPolicy;
use crate::policy::field::Fields;
use crate::policy::model::Policy;
use crate::records::keys::Keys;
use crate::records::packed::{Packing, SlotDecoder};
use crate::records::record::Record;
use crate::records::terms::{Keyring, Terms};
use crate::support::clock;

/// A minute: the unit of the recipient's times in these tests.
const UNIT: u32 = 60_000;

/// What a sink was told of a batch, and its records.
#[derive(Clone, Debug)]
struct Left {
    policy: String,
    number: u64,
    times_ms: (u64, u64),
    records: Vec<Record>,
}

/// Of each record port, packets and both times.
type Flows = Vec<(u16, u64, u64, u64)>;

/// Keeps everything.
struct Keeping(Arc<Mutex<Vec<Left>>>);

impl Sink for Keeping {
    fn begin(&mut self, heading: &Heading<'_>) -> Result<(), SinkError> {
        let (policy, number) = (heading.policy.name.clone(), heading.number);
        let times_ms = (heading.begin_ms, heading.end_ms);
        let left = Left { policy, number, times_ms, records: Vec::new() };
        self.0.lock().expect("nobody panics").push(left);
        Ok(())
    }

    fn take(&mut self, records: &[Record], _fields: Fields) -> Result<Taken, SinkError> {
        let mut left = self.0.lock().expect("nobody panics");
        left.last_mut().expect("has begun").records.extend_from_slice(records);
        Ok(Taken::Delivered)
    }

    fn end(&mut self) -> Result<Taken, SinkError> {
        Ok(Taken::Delivered)
    }

    fn close(&mut self) -> Result<Taken, SinkError> {
        Ok(Taken::Delivered)
    }

    fn octets_written(&self) -> u64 {
        0
    }
}

/// A policy of this name whose recipient gets exact counts, times to the minute, and more.
fn policy(name: &str, more: &str) -> Arc<CompiledPolicy> {
    let text = format!(
        "name = \"{name}\"\n{more}\nsourceTransportPort = \"exact\"\nprotocolIdentifier = \"exact\"\n\
         packetDeltaCount = \"exact\"\noctetDeltaCount = \"exact\"\nflowStartMilliseconds = {{ coarsen = \"1m\" }}\n\
         flowEndMilliseconds = {{ coarsen = \"1m\" }}\n"
    );
    let policy = Policy::parse(&text, Path::new("p.toml")).unwrap_or_else(|error| panic!("{error}"));
    Arc::new(CompiledPolicy::compile(policy).expect("compiles"))
}

const RECIPIENT: &str = "[[recipients]]\nname = \"statistics\"\npurpose = \"to count\"\n[recipients.fields]";

fn terms(name: &str) -> Arc<Terms> {
    let mut keyring = Keyring::new(Keys::load(None).expect("keys"));
    keyring.terms(&policy(name, RECIPIENT), Timestamp::now()).expect("terms")
}

/// A sender whose thread is the test's own, and what left through it.
struct World {
    accounting: Accounting,
    queue: Arc<Queue>,
    sender: Sender,
    left: Arc<Mutex<Vec<Left>>>,
    ending: Ending,
    number: u64,
}

impl World {
    fn new(bounds: Bounds) -> Self {
        let left: Arc<Mutex<Vec<Left>>> = Arc::default();
        let (sink, ending) = (Box::new(Keeping(Arc::clone(&left))), Ending::default());
        let queue = Queue::new("net", None, "test", bounds).held_beyond(Duration::from_secs(10));
        let queue = Arc::new(queue);
        let accounting = Accounting::new(vec![Arc::clone(&queue)]);
        let sender = Sender::new("net", accounting.clone(), Arc::clone(&queue), sink, ending.clone(), || ());
        Self { accounting, queue, sender, left, ending, number: 0 }
    }

    /// Drains a batch whose interval ends then, with these flows: port, packets, times of the first and the last.
    fn drain(&mut self, terms: &Arc<Terms>, end_ms: u32, flows: &[(u16, u64, u32, u32)]) {
        self.number += 1;
        let batch = batch(self.number, terms, end_ms, flows, &self.accounting);
        self.accounting.push(&batch);
        drop(batch);
        let Next::Batch(batch) = self.queue.next(None) else { panic!("one waits") };
        self.sender.take_up(&batch);
    }

    /// What left since the last call, each with port, packets and both times.
    fn left(&self) -> Vec<(Left, Flows)> {
        let left = std::mem::take(&mut *self.left.lock().expect("nobody panics"));
        let flows = |left: &Left| {
            let flow = |it: &Record| (it.tuple.source_port(), it.packets, it.start_ms, it.end_ms);
            let mut flows: Flows = left.records.iter().map(flow).collect();
            flows.sort_unstable();
            flows
        };
        left.into_iter().map(|left| (left.clone(), flows(&left))).collect()
    }

    /// Packets that wait for the sink or are held, after a look whether everything adds up. The ledger enters a batch as a whole.
    fn queued(&self) -> u64 {
        let ledger = self.accounting.ledger();
        assert!(ledger.is_balanced(), "{:?}", ledger.sinks());
        let queued = ledger.sinks()[0].queued.packets;
        assert!(ledger.queued().packets >= queued);
        queued
    }

    /// Ends the agent. The ledger is complete then.
    fn end(self) -> (Ledger, Vec<Left>) {
        let Self { accounting, queue, sender, left, ending, .. } = self;
        queue.close();
        ending.set(Instant::now() + Duration::from_secs(60));
        sender.work();
        let ledger = accounting.ledger();
        assert!(ledger.is_balanced(), "{:?}", ledger.sinks());
        assert_eq!(ledger.queued(), Counts::default());
        (ledger, std::mem::take(&mut *left.lock().expect("nobody panics")))
    }
}

fn batch(
    number: u64,
    terms: &Arc<Terms>,
    end_ms: u32,
    flows: &[(u16, u64, u32, u32)],
    accounting: &Accounting,
) -> Arc<Batch> {
    let mut packing = Packing::default();
    for (port, packets, first, last) in flows.iter().copied() {
        let tuple = Tuple::new([0; 4], (port, 0), Tags::NONE, 17, 0);
        let counted = Counted { tuple, packets, octets: 100 * packets, first, last, ..Counted::default() };
        packing.add_wide(&Wide::of_many(&counted).expect("fits"));
    }
    let decoder = SlotDecoder::new(&terms.compiled, TimeUnits { base: 0, unit_ms: 1 }, &[]);
    let records = packing.take(decoder);
    let totals = entered(accounting, &records);
    let end_ms = u64::from(end_ms);
    let origin = Origin {
        number,
        interval_ms: (end_ms.saturating_sub(10_000), end_ms),
        interfaces: Vec::new(),
        losses: Losses::default(),
        program_tag: "".into(),
    };
    Arc::new(Batch::new(records, totals, Arc::clone(terms), origin, accounting.queues().len()))
}

#[test]
fn records_of_a_unit_leave_merged_once_a_batch_begins_a_later_one() {
    let (terms, mut world) = (terms("p"), World::new(Bounds::default()));
    world.drain(&terms, 13_000, &[(1, 3, 5000, 8000), (2, 1, 12_000, 12_000)]);
    world.drain(&terms, 23_000, &[(1, 4, 14_000, 22_000)]);
    world.drain(&terms, 59_999, &[(3, 2, 59_998, 59_998)]);
    assert_eq!(world.left().len(), 0, "the minute has not ended");
    assert_eq!((world.queued(), world.queue.account().queued.records), (10, 3));
    // A batch across the border: what is of the next minute stays.
    world.drain(&terms, 63_000, &[(1, 5, 55_000, 59_000), (2, 7, 58_000, 61_000), (4, 9, 60_500, 60_500)]);
    let left = world.left();
    let [(told, flows)] = &left[..] else { panic!("{left:?}") };
    assert_eq!(*flows, [(1, 12, 0, 0), (2, 1, 0, 0), (3, 2, 0, 0)]);
    assert_eq!((told.number, told.times_ms), (4, (0, u64::from(UNIT))));
    assert_eq!((world.queued(), world.queue.account().queued.records), (16, 2));
    world.drain(&terms, 2 * UNIT, &[]);
    let left = world.left();
    let [(told, flows)] = &left[..] else { panic!("{left:?}") };
    assert_eq!(*flows, [(2, 7, 0, 60_000), (4, 9, 60_000, 60_000)]);
    assert_eq!(told.times_ms, (60_000, 120_000));
    assert_eq!(world.queued(), 0);
    let (ledger, _) = world.end();
    assert_eq!((ledger.exported().packets, ledger.sinks()[0].exported.records), (31, 5));
}

#[test]
fn a_unit_without_records_is_told_and_a_stall_ends_several() {
    let (terms, mut world) = (terms("p"), World::new(Bounds::default()));
    world.drain(&terms, 13_000, &[]);
    world.drain(&terms, 3 * UNIT + 1000, &[(1, 1, 1000, 1000), (2, 2, UNIT, UNIT + 1), (3, 4, 1, 3 * UNIT)]);
    let told: Vec<_> = world.left().into_iter().map(|(left, flows)| (left.times_ms.0, flows.len())).collect();
    assert_eq!(told, [(0, 1), (60_000, 1)]);
    assert_eq!(world.queued(), 4);
}

#[test]
fn a_clock_that_is_set_back_holds_nothing_longer() {
    let (terms, mut world) = (terms("p"), World::new(Bounds::default()));
    world.drain(&terms, 10 * UNIT + 5000, &[(1, 1, 10 * UNIT, 10 * UNIT)]);
    world.drain(&terms, 2 * UNIT + 5000, &[(1, 2, 2 * UNIT, 2 * UNIT)]);
    let left = world.left();
    assert!(matches!(&left[..], [(_, flows)] if *flows == [(1, 1, 600_000, 600_000)]), "{left:?}");
    assert_eq!(world.queued(), 2);
}

#[test]
fn what_is_held_leaves_at_the_end_and_under_its_own_policy_at_a_reload() {
    let (before, after) = (terms("before"), terms("after"));
    let mut world = World::new(Bounds::default());
    world.drain(&before, 13_000, &[(1, 1, 5000, 5000)]);
    // The same text again, as after larger tables or other hash keys.
    world.drain(&terms("before"), 23_000, &[(1, 2, 15_000, 15_000)]);
    assert_eq!(world.left().len(), 0);
    world.drain(&after, 33_000, &[(1, 4, 25_000, 25_000)]);
    let left = world.left();
    assert!(matches!(&left[..], [(told, flows)] if told.policy == "before" && *flows == [(1, 3, 0, 0)]));
    assert_eq!(world.queued(), 4);
    let (ledger, left) = world.end();
    assert!(matches!(&left[..], [told] if told.policy == "after" && told.times_ms == (0, 0)), "{left:?}");
    assert_eq!((ledger.exported().packets, ledger.dropped().packets), (7, 0));
}

#[test]
fn pseudonyms_of_two_epochs_stay_apart_and_leave_together() {
    let epochs = "[pseudonyms]\nepoch = \"1m\"\n[[recipients]]\nname = \"r\"\npurpose = \"x\"\n[recipients.fields]\n\
                  sourceIPv4Address = \"pseudonym\"";
    let compiled = policy("p", epochs);
    let mut keyring = Keyring::new(Keys::load(None).expect("keys"));
    let mut terms =
        |second| keyring.terms(&compiled, Timestamp::from_second(second).expect("a time")).expect("terms");
    let mut world = World::new(Bounds::default());
    let first = terms(1);
    world.drain(&first, 1000, &[(1, 1, 500, 500)]);
    world.drain(&first, 1001, &[(1, 2, 1000, 1000)]);
    world.drain(&terms(61), 2000, &[(1, 4, 1500, 1500)]);
    drop(first);
    assert_eq!((world.left().len(), world.queued()), (0, 7));
    world.drain(&terms(121), UNIT, &[]);
    let packets: Vec<_> = world.left().iter().map(|(_, flows)| flows[0].1).collect();
    assert_eq!(packets, [3, 4]);
}

#[test]
fn the_oldest_unit_gives_way_when_more_is_held_than_may_wait() {
    let (terms, bounds) = (terms("p"), Bounds { records: 5, ..Bounds::default() });
    let mut world = World::new(bounds);
    let flows = |ports: std::ops::Range<u16>| ports.map(|port| (port, 1, 5000, 5000)).collect::<Vec<_>>();
    world.drain(&terms, 13_000, &flows(1..5));
    world.drain(&terms, 23_000, &flows(1..6));
    assert_eq!(
        (world.queued(), world.queue.account().queued.records),
        (9, 5),
        "flows that are known take no room"
    );
    world.drain(&terms, 33_000, &flows(6..8));
    let account = world.queue.account();
    assert_eq!((world.queued(), account.dropped["queue_full"].packets), (2, 9), "{account:?}");
    // One batch may always be held, and what is of an ended unit is on its way.
    world.drain(&terms, 43_000, &flows(1..20));
    assert_eq!((world.queued(), world.queue.account().dropped["queue_full"].packets), (19, 11));
    world.drain(&terms, 61_000, &flows(1..30));
    let left = world.left();
    assert!(matches!(&left[..], [(_, flows)] if flows.len() == 29 && flows[0].1 == 2), "{left:?}");
    // Octets bound it, too.
    let mut world = World::new(Bounds { octets: 1, ..Bounds::default() });
    world.drain(&terms, 13_000, &flows(1..5));
    world.drain(&terms, 23_000, &flows(1..3));
    assert_eq!((world.queued(), world.queue.account().dropped["queue_full"].packets), (2, 4));
    assert!(world.queue.account().queue_bytes > 0, "what is held takes memory");
}

#[test]
fn what_is_held_when_the_time_is_over_is_lost_and_counted() {
    let (terms, mut world) = (terms("p"), World::new(Bounds::default()));
    world.drain(&terms, 13_000, &[(1, 1, 5000, 5000), (2, 2, 5000, 5000)]);
    world.accounting.abandon();
    let ledger = world.accounting.ledger();
    assert!(ledger.is_balanced());
    assert_eq!((ledger.dropped().packets, ledger.queued().packets), (3, 0));
    assert_eq!(ledger.sinks()[0].dropped["shutdown"].packets, 3);
    let (ledger, left) = world.end();
    assert_eq!((ledger.dropped().packets, left.len()), (3, 0), "nothing counts any more");
}

#[test]
fn finer_times_wait_for_the_end_of_their_unit_and_are_not_merged() {
    let terms = terms("p");
    let interval = Duration::from_millis(u64::from(UNIT));
    let queue = Arc::new(Queue::new("net", None, "test", Bounds::default()).held_beyond(interval));
    let other = Arc::new(Queue::new("screen", None, "test", Bounds::default()));
    let accounting = Accounting::new(vec![Arc::clone(&queue), Arc::clone(&other)]);
    let push = |end_ms: u64| {
        let batch = batch(1, &terms, 13_000, &[(1, 1, 5000, 5000)], &accounting);
        let Ok(mut batch) = Arc::try_unwrap(batch) else { panic!("nobody else has it") };
        batch.origin.interval_ms.1 = end_ms;
        accounting.push(&Arc::new(batch));
        assert!(matches!(other.next(None), Next::Batch(_)), "a screen is no network");
    };
    // A unit that has ended, or that ends just then.
    let now_ms = clock::realtime_ms();
    let ended_ms = now_ms - now_ms % u64::from(UNIT);
    push(ended_ms);
    push(ended_ms - 1);
    for _ in 0..2 {
        assert!(matches!(queue.next(Some(Instant::now())), Next::Batch(_)));
    }
    // One that has not: nothing comes but the time to tend, until the agent ends.
    push(ended_ms + 10 * u64::from(UNIT) + 1);
    assert!(matches!(queue.next(Some(Instant::now())), Next::Tend));
    assert_eq!(queue.account().queued.packets, 3);
    queue.close();
    assert!(matches!(queue.next(None), Next::Batch(_)));
    assert!(matches!(queue.next(None), Next::End));
}

#[test]
fn merged_records_are_delivered_or_counted_as_lost_however_the_sink_fails() {
    let terms = terms("p");
    for seed in 0..20 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let end = Arc::new(Mutex::new(End::default()));
        let sink = Fickle { random: ChaCha8Rng::seed_from_u64(seed), failing: 15, end: Arc::clone(&end) };
        let bounds = Bounds { records: 3000, ..Bounds::default() };
        let queue = Arc::new(Queue::new("net", None, "test", bounds).held_beyond(Duration::from_secs(10)));
        let other = Arc::new(Queue::new("other", None, "test", Bounds::default()));
        let accounting = Accounting::new(vec![Arc::clone(&queue), Arc::clone(&other)]);
        let ending = Ending::default();
        let sender =
            Sender::new("net", accounting.clone(), queue.clone(), Box::new(sink), ending.clone(), || ());
        let sender = sender.start(()).expect("a thread");
        for number in 1..=30 {
            let end_ms = 13_000 * u32::try_from(number).expect("is small");
            let flows: Vec<_> = (0..random.random_range(0..1500))
                .map(|port| {
                    let first = end_ms - random.random_range(0..10_000);
                    (port, random.random_range(1..9), first, first + (end_ms - first) / 2)
                })
                .collect();
            accounting.push(&batch(number, &terms, end_ms, &flows, &accounting));
            let batch = other.next_batch().expect("one waits");
            // The other sink takes some, and loses the others.
            if random.random_bool(0.5) {
                accounting.exported(&other, &batch, flows.len(), Counts::default());
            } else {
                accounting.lost(&other, &batch, crate::delivery::loss::Loss::Unreachable);
            }
        }
        queue.close();
        ending.set(Instant::now() + Duration::from_millis(500));
        sender.join().expect("the sender ends");
        let (ledger, end) = (accounting.ledger(), end.lock().expect("nobody panics"));
        let account = &ledger.sinks()[0];
        assert!(ledger.is_balanced(), "{account:?}");
        assert_eq!((account.queued.counts(), ledger.queued()), Default::default(), "{account:?}");
        assert_eq!(account.exported.counts(), super::super::counts(&end.arrived), "{account:?}");
    }
}
