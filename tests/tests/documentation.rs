//! The documents say what the code says.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use minimizer::commands::config::Config;
use minimizer::delivery::loss::Loss;
use minimizer::kernel::table_size::{bytes, flows_per_cpu};
use minimizer::policy::field::Field;
use minimizer::policy::model::Policy;
use minimizer::policy::special::RANGES;
use minimizer::policy::translation::WELL_KNOWN;
use minimizer_common::generation::{BLOCK_BYTES, RESIDUAL_BLOCKS, Shape};
use minimizer_common::outcome::Outcome;
use tests::authority::Authority;

const README: &str = include_str!("../../README.md");
const RECORD: &str = include_str!("../../docs/RECORD.md");
const POLICY: &str = include_str!("../../docs/POLICY.md");
const OPERATIONS: &str = include_str!("../../docs/OPERATIONS.md");
const IPFIX: &str = include_str!("../../docs/IPFIX.md");
const FILES: &str = include_str!("../../docs/FILES.md");
const THREATS: &str = include_str!("../../docs/THREATS.md");
const KAFKA: &str = include_str!("../../docs/KAFKA.md");

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
fn every_special_range_is_documented_and_no_other() {
    let rows =
        POLICY.lines().skip_while(|line| !line.starts_with("| range | what it is for | says |")).skip(2);
    let written: Vec<_> = rows.take_while(|line| line.starts_with('|')).map(str::to_owned).collect();
    let listed =
        RANGES.iter().map(|range| format!("| `{}` | {} | RFC {} |", range.prefix, range.purpose, range.rfc));
    assert_eq!(written, listed.collect::<Vec<_>>());
    for known in WELL_KNOWN {
        let row =
            format!("| `{}` | {} | RFC {} |", known.prefix, known.mechanism.name(), known.mechanism.rfc());
        assert!(POLICY.contains(&row), "{row}");
    }
}

#[test]
fn every_reason_for_a_loss_is_documented_and_no_other() {
    let rows = OPERATIONS.lines().skip_while(|line| !line.starts_with("| reason | when |")).skip(2);
    let written: Vec<_> = rows.take_while(|line| line.starts_with('|')).map(str::to_owned).collect();
    let listed = Loss::ALL.iter().map(|loss| format!("| `{}` | {} |", loss.name(), loss.description()));
    assert_eq!(written, listed.collect::<Vec<_>>());
}

#[test]
fn every_field_is_documented_with_its_number_and_no_other() {
    let rows = RECORD.lines().skip_while(|line| !line.starts_with("| field |")).skip(2);
    let mut written = Vec::new();
    for row in rows.take_while(|line| line.starts_with('|')) {
        let mut cells = row.split('|').skip(1).map(|cell| cell.trim().split(", "));
        let (names, numbers) = cells.next().zip(cells.next()).expect("two cells");
        let names = names.map(|name| name.trim_matches('`').to_owned());
        written.extend(names.zip(numbers.map(str::to_owned)));
    }
    let mut listed: Vec<_> =
        Field::ALL.iter().map(|field| (field.name().to_owned(), field.number().to_string())).collect();
    written.sort();
    listed.sort();
    assert_eq!(written, listed);
}

#[test]
fn what_leaves_this_host_is_what_explain_prints() {
    let shown = README.split("minimizer policy explain carrier-default\nPolicy ").nth(1);
    let shown = shown.and_then(|rest| rest.split("```").next()).expect("it is shown");
    let policy = Policy::load("carrier-default", &[]).unwrap_or_else(|error| panic!("{error}"));
    let printed = policy.explain().to_string();
    let mut left = printed.strip_prefix("Policy ").expect("it says what it is");
    // A line with nothing but this mark stands for lines that are left out.
    for (number, part) in shown.split("\n…\n").enumerate() {
        let (cut, rest) = left.split_once(part).unwrap_or_else(|| panic!("not printed:\n{part}"));
        assert_eq!(cut.trim().is_empty(), number == 0, "left out before:\n{part}");
        left = rest;
    }
    assert_eq!(left, "", "left out without a mark");
}

#[test]
fn the_memory_of_a_table_is_as_documented() {
    let counters = u64::from(1 + RESIDUAL_BLOCKS) * BLOCK_BYTES as u64;
    assert!(
        OPERATIONS.contains(&format!("{},{:03} bytes of counters", counters / 1000, counters % 1000)),
        "{counters}"
    );
    let shape = Shape::for_flows(1, 65_536).expect("fits");
    let mebibytes = 2.0 * shape.bytes() as f64 / f64::from(1 << 20);
    assert!(OPERATIONS.contains(&format!("{mebibytes:.1} MiB a CPU")), "{mebibytes}");
}

/// Nanoseconds that a record costs in the drain of tables with 65,536 flows on each CPU, and with a million.
const DRAIN_NS: [f64; 2] = [114.0, 36.0];

#[test]
fn the_table_of_hosts_is_as_calculated() {
    let mebibytes = |cpus, flows| {
        let shape = Shape::for_flows(cpus, flows).expect("fits");
        (bytes(&shape) as f64 / f64::from(1 << 20)).round()
    };
    let seconds = |records: u32, ns: f64| f64::from(records) * ns / 1e9;
    for cpus in [2, 16, 64, 128] {
        let full = seconds(cpus * 65_536, DRAIN_NS[0]);
        let total = mebibytes(cpus, flows_per_cpu(1 << 20, cpus));
        let million = seconds(1 << 20, DRAIN_NS[1]);
        let line = format!(
            "| {cpus} | {} MiB | {full:.2} s | {total} MiB | {million:.2} s |",
            mebibytes(cpus, 65_536)
        );
        assert!(OPERATIONS.contains(&line), "{line}");
    }
}

/// The blocks of a document that are written in TOML.
fn toml_of(document: &str) -> impl Iterator<Item = &str> {
    document.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next())
}

#[test]
fn the_agent_toml_that_is_shown_is_accepted() {
    let shown = toml_of(OPERATIONS).next().expect("there is one");
    let config = Config::parse(shown, Path::new("/etc/minimizer/agent.toml"));
    let config = config.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.policy.as_deref(), Some("/etc/minimizer/policy.toml"));
    assert_eq!(config.require_signature.map(|key| key.name().to_owned()).as_deref(), Some("privacy-officer"));
}

#[test]
fn the_sinks_that_are_shown_are_accepted() -> Result<()> {
    // What they name must be there: certificates with their keys, and a password, which only the owner may read.
    let folder = tempfile::tempdir()?;
    let authority = Authority::new("authority")?;
    for name in ["ca", "kafka-ca"] {
        authority.write_own(folder.path(), name)?;
    }
    for name in ["agent", "edge-1"] {
        authority.write(folder.path(), name, &format!("{name}.example"))?;
    }
    let password = folder.path().join("kafka.password");
    fs::write(&password, "secret\n")?;
    fs::set_permissions(&password, fs::Permissions::from_mode(0o600))?;
    let agent = folder.path().join("agent.toml");
    for (name, document, sinks) in
        [("OPERATIONS", OPERATIONS, 3), ("IPFIX", IPFIX, 3), ("FILES", FILES, 1), ("KAFKA", KAFKA, 1)]
    {
        let shown = toml_of(document).find(|shown| shown.contains("[[sinks]]")).expect("there are sinks");
        let config = Config::parse(shown, &agent).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(config.sinks.len(), sinks, "{name}");
    }
    Ok(())
}

/// The tests that a text names, as file and function.
fn tests_named(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .filter_map(|code| code.split_once("::"))
        .filter(|(file, _)| file.ends_with(".rs"))
}

#[test]
fn every_claim_about_threats_has_a_test_that_exists() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the tests lie in the repository")?;
    let (mut claims, mut has_tests) = (0, false);
    for line in THREATS.lines() {
        let Some(row) = line.strip_prefix("| ") else { continue };
        if row.ends_with("| test |") || !row.contains('`') && row.contains("| wants |") {
            has_tests = row.ends_with("| test |");
        } else if has_tests {
            claims += 1;
            let (_, cell) = row.trim_end_matches(" |").rsplit_once(" | ").context("a row has cells")?;
            ensure!(tests_named(cell).count() > 0, "no test shows it: {line}");
        }
    }
    ensure!(claims >= 20 && tests_named(THREATS).count() >= claims, "{claims} claims are not all of them");
    for (file, name) in tests_named(THREATS) {
        let source = fs::read_to_string(root.join(file)).with_context(|| file.to_owned())?;
        let (before, _) =
            source.split_once(&format!("fn {name}()")).with_context(|| format!("{file} has no {name}"))?;
        // Attributes and comments stand between.
        let item = before.rsplit_once("\n\n").map_or(before, |(_, item)| item);
        ensure!(item.contains("#[test]"), "{file}: {name} is no test");
    }
    Ok(())
}
