//! The documents say what the code says.

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
