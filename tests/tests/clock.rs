//! The wall clock is set while the program runs: records have the times of the clock that their generation had.

use std::fs;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use minimizer::kernel::prepared::Options;
use minimizer::kernel::program::Program;
use minimizer::policy::compile::CompiledPolicy;
use minimizer::records::drain::{Records, drain};
use minimizer::records::record::Record;
use minimizer::support::clock::Clocks as _;
use tests::clocks::SetClocks;
use tests::privilege::can_use_kernel;

const HOUR: i64 = 3600;
const YEAR: i64 = 365 * 24 * HOUR;

/// An IPv4 UDP packet in an untagged Ethernet frame.
fn frame() -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
    frame.extend([0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 1, 198, 51, 100, 2]);
    frame.extend([0x12, 0x34, 0, 53, 0, 26, 0, 0]);
    frame.resize(60, 0);
    frame
}

/// Flips, and returns the one record of the generation that was written.
fn drained(program: &mut Program) -> Result<Record> {
    let time = program.time();
    let mut records = Records::new(vec![1]);
    let mut quiet = program.generations().flip()?;
    drain(&mut quiet, &mut records, |units| time.milliseconds(units));
    let records = records.take();
    ensure!(records.len() == 1, "{} records", records.len());
    records.first().copied().context("a record")
}

/// Runs packets while the wall clock goes through these steps, in seconds from the machine's clock.
fn follow(compiled: Arc<CompiledPolicy>, steps: &[i64]) -> Result<()> {
    let unit_ms = u64::try_from(compiled.time_unit.as_millis())?;
    let clocks = Arc::new(SetClocks::default());
    let options = Options { flows_per_cpu: 64, compiled, clocks: clocks.clone(), ..Options::default() };
    let mut program = Program::load(&options)?;
    program.watch(1, 0)?;
    let now_ms = || clocks.realtime_ns() / 1_000_000;
    for step in steps {
        let earliest_ms = now_ms();
        program.run(&frame())?;
        let latest_ms = now_ms();
        clocks.set_ahead(*step);
        // By the clock of its generation, although the clock has been set before the flip.
        program.run(&frame())?;
        let Record { packets, start_ms, end_ms, .. } = drained(&mut program)?;
        let case = format!("{step} s, unit {unit_ms} ms: {start_ms} to {end_ms}, sent at {earliest_ms}");
        assert_eq!((packets, start_ms % unit_ms, end_ms % unit_ms), (2, 0, 0), "{case}");
        // The remembered unit is used for one tick too long at the most.
        ensure!(start_ms + 2 * unit_ms > earliest_ms && start_ms <= latest_ms, "{case}");
        ensure!(start_ms <= end_ms && end_ms <= latest_ms + unit_ms, "{case}");
    }
    Ok(())
}

#[test]
fn records_have_the_time_of_the_clock_that_was_set() -> Result<()> {
    if !can_use_kernel() {
        return Ok(());
    }
    let steps = [0, -HOUR, -10 * YEAR, 0, HOUR, 2 * HOUR, 100 * YEAR, -50 * YEAR, -1, 1, 0, 0];
    let folder = tempfile::tempdir()?;
    for unit in ["10ms", "1s", "1h"] {
        let text = format!(
            "name = \"test\"\n[[recipients]]\nname = \"r\"\npurpose = \"to test\"\n[recipients.fields]\n\
             protocolIdentifier = \"exact\"\npacketDeltaCount = \"exact\"\n\
             flowStartMilliseconds = {{ coarsen = \"{unit}\" }}\n\
             flowEndMilliseconds = {{ coarsen = \"{unit}\" }}\n"
        );
        let path = folder.path().join("policy.toml");
        fs::write(&path, text)?;
        follow(CompiledPolicy::load(&path.display().to_string(), &[])?, &steps)?;
    }
    Ok(())
}
