//! The documents say what the code says.

use minimizer::size::{bytes, flows_per_cpu};
use minimizer_common::generation::{BLOCK_BYTES, SPILL_BLOCK, Shape};
use minimizer_common::outcome::Outcome;

const RECORD: &str = include_str!("../../docs/RECORD.md");
const OPERATIONS: &str = include_str!("../../docs/OPERATIONS.md");

#[test]
fn every_outcome_is_documented_and_no_other() {
    let written: Vec<_> = RECORD
        .lines()
        .skip_while(|line| !line.starts_with("| outcome |"))
        .skip(2)
        .map(str::to_owned)
        .collect();
    let listed: Vec<_> = Outcome::ALL
        .iter()
        .map(|outcome| {
            let reason = outcome.reason().unwrap_or("");
            format!("| `{}` | {reason} | {} |", outcome.name(), outcome.description())
        })
        .collect();
    assert_eq!(written, listed);
}

#[test]
fn the_memory_of_a_table_is_as_documented() {
    let counters = u64::from(SPILL_BLOCK) * BLOCK_BYTES as u64;
    assert!(
        OPERATIONS.contains(&format!("{},{:03} bytes of counters", counters / 1000, counters % 1000)),
        "{counters}"
    );
    let shape = Shape::for_flows(1, 65_536).expect("fits");
    let mebibytes = 2.0 * shape.bytes() as f64 / f64::from(1 << 20);
    assert!(OPERATIONS.contains(&format!("{mebibytes:.1} MiB a CPU")), "{mebibytes}");
}

/// Nanoseconds that a record costs at a million flows: the whole drain, and its reading and clearing.
const DRAIN_NS: [f64; 2] = [792.0, 60.0];

#[test]
fn the_table_of_hosts_is_as_calculated() {
    let mebibytes = |cpus, flows| {
        let shape = Shape::for_flows(cpus, flows).expect("fits");
        (bytes(&shape) as f64 / f64::from(1 << 20)).round()
    };
    let seconds = |records: u32| DRAIN_NS.map(|ns| f64::from(records) * ns / 1e9);
    for cpus in [2, 16, 64, 128] {
        let [full, clear] = seconds(cpus * 65_536);
        let total = mebibytes(cpus, flows_per_cpu(1 << 20, cpus));
        let [million, million_clear] = seconds(1 << 20);
        let line = format!(
            "| {cpus} | {} MiB | {full:.2} s, {clear:.2} s | {total} MiB | {million:.2} s, {million_clear:.2} s |",
            mebibytes(cpus, 65_536)
        );
        assert!(OPERATIONS.contains(&line), "{line}");
    }
}
