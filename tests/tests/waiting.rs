//! Memory of batches that nobody reads: batches of idle interfaces do not pile up, and others stay within the bounds.
//!
//! It is a program of its own with one test, so that nothing else allocates memory meanwhile.

use std::sync::Arc;

use anyhow::{Result, ensure};
use jiff::Timestamp;
use minimizer::delivery::accounting::Accounting;
use minimizer::delivery::batch::{Batch, Origin};
use minimizer::delivery::queue::Queue;
use minimizer::delivery::sink::{Interface, Losses};
use minimizer::delivery::waiting::Bounds;
use minimizer::kernel::wall_clock::TimeUnits;
use minimizer::policy::compile::CompiledPolicy;
use minimizer::records::drain::{InterfaceTotals, Totals};
use minimizer::records::keys::Keys;
use minimizer::records::packed::{Packing, SlotDecoder};
use minimizer::records::terms::{Keyring, Terms};
use minimizer_common::generation::Counts;
use minimizer_common::slot::{Counted, Wide};
use minimizer_common::tuple::{Tags, Tuple};
use procfs::process::Process;

const INTERFACES: u32 = 15;
const BATCHES: u64 = 2000;
/// Batches before memory is measured: more than may wait.
const WARM_UP: u64 = 500;
/// Memory that may come and go for other reasons.
const SLACK_OCTETS: u64 = 2 << 20;

/// Resident memory of this process.
fn resident_octets() -> Result<u64> {
    Ok(Process::myself()?.stat()?.rss * procfs::page_size())
}

/// A drain of many interfaces and so many flows of one packet.
fn batch(number: u64, flows: u64, terms: &Arc<Terms>, accounting: &Accounting) -> Arc<Batch> {
    let indices: Vec<_> = (1..=INTERFACES).collect();
    let mut packing = Packing::default();
    for flow in 0..flows {
        let tuple = Tuple::new([flow, number, 0, 0], (1, 2), Tags::NONE, 6, 0);
        let counted = Counted { tuple, packets: 1, octets: 40, first: 1, last: 2, ..Counted::default() };
        packing.add_wide(&Wide::of_many(&counted).expect("fits"));
    }
    let decoder = SlotDecoder::new(&terms.compiled, TimeUnits { base: 0, unit_ms: 1 }, &indices);
    let totals = Totals {
        interfaces: indices.iter().map(|_| InterfaceTotals::ZERO).collect(),
        recorded: Counts { packets: flows, octets: flows * 40 },
        ..Totals::default()
    };
    accounting.lock().add(&totals);
    let interface = |index: &u32| Interface { index: *index, name: format!("interface{index}") };
    let origin = Origin {
        number,
        interval_ms: (number * 100, (number + 1) * 100),
        interfaces: indices.iter().map(interface).collect(),
        losses: Losses::default(),
        program_tag: "0123456789abcdef".into(),
    };
    let sinks = accounting.queues().len();
    Arc::new(Batch::new(packing.take(decoder), totals, Arc::clone(terms), origin, sinks))
}

/// Pushes batches of so many flows into a queue that nobody reads. Returns the growth of resident memory after the
/// warm-up, and the memory that the account says.
fn grow(terms: &Arc<Terms>, flows: u64, bounds: Bounds, warm_up: u64) -> Result<(u64, u64)> {
    let queue = Arc::new(Queue::new("dead", None, "test", bounds));
    let accounting = Accounting::new(vec![queue]);
    (1..=warm_up).for_each(|number| accounting.push(&batch(number, flows, terms, &accounting)));
    let before = resident_octets()?;
    let numbers = warm_up + 1..=warm_up + BATCHES;
    numbers.for_each(|number| accounting.push(&batch(number, flows, terms, &accounting)));
    let grown = resident_octets()?.saturating_sub(before);
    let ledger = accounting.ledger();
    ensure!(ledger.sinks()[0].is_balanced(), "{:?}", ledger.sinks());
    let octets = ledger.sinks()[0].queue_bytes;
    println!("{flows} flows, {bounds:?}: grew by {grown} octets, {octets} wait");
    Ok((grown, octets))
}

#[test]
fn batches_that_nobody_reads_stay_within_the_bounds_of_their_memory() -> Result<()> {
    let compiled = CompiledPolicy::load("full-record", &[])?;
    let terms = Keyring::new(Keys::load(None)?).terms(&compiled, Timestamp::now())?;
    let (grown, octets) = grow(&terms, 0, Bounds::default(), WARM_UP)?;
    ensure!(octets > 0, "the latest one waits");
    ensure!(grown <= SLACK_OCTETS, "2000 batches of 15 idle interfaces: {grown} octets more");
    let (grown, octets) = grow(&terms, 1, Bounds { octets: 1 << 20, ..Bounds::default() }, WARM_UP)?;
    ensure!(octets <= 1 << 20 && grown <= SLACK_OCTETS, "octets: {octets} wait, {grown} more");
    let (grown, octets) = grow(&terms, 1, Bounds { batches: 100, ..Bounds::default() }, WARM_UP)?;
    ensure!(octets <= 1 << 20 && grown <= SLACK_OCTETS, "batches: {octets} wait, {grown} more");
    // Last, because memory that was resident once is used again: the account says what the batches take.
    let (grown, octets) = grow(&terms, 10, Bounds::default(), 0)?;
    ensure!(octets.abs_diff(grown) <= octets / 8 + SLACK_OCTETS, "{octets} wait, {grown} more");
    Ok(())
}
