//! A directory of files as readers meet it: whole files of records, and nothing else that they would stumble over.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use minimizer::delivery::sink::{CHUNK_RECORDS_MAX, Heading, Losses, Sink, Taken};
use minimizer::policy::field::Fields;
use minimizer::policy::model::Policy;
use minimizer::records::record::Record;
use minimizer::sinks::files::{FilesConfig, Format};
use rand::SeedableRng as _;
use rand::rngs::ChaCha8Rng;
use tests::records::{Mix, record};
use tests::tools;

const BEGIN_MS: u64 = 1_795_402_055_123;

/// Brings a batch to a sink.
fn bring(sink: &mut dyn Sink, number: u64, records: &[Record]) -> Result<Taken> {
    let policy = Policy::load("full-record", &[])?;
    let fields: Fields = policy.recipients[0].fields.keys().copied().collect();
    let heading = Heading {
        number,
        begin_ms: BEGIN_MS + number * 1000,
        end_ms: BEGIN_MS + number * 1000 + 1000,
        policy: &policy,
        recipient: &policy.recipients[0],
        has_ranks: false,
        fields,
        interfaces: &[],
        losses: Losses::default(),
        records: 0,
        program_tag: "0123456789abcdef",
    };
    sink.begin(&heading)?;
    for chunk in records.chunks(CHUNK_RECORDS_MAX) {
        sink.take(chunk, fields)?;
    }
    Ok(sink.end()?)
}

fn records(seed: u64, number: usize) -> Vec<Record> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..number).map(|_| record(&mut random, Mix::Mixed)).collect()
}

/// Reads a directory as each reader is usually told to, and prints what it counts of records and packets. A line that begins a
/// file of JSON Lines has no packets.
const READ: &str = r#"
import json, sys
folder, kind = sys.argv[1:]
import chdb, duckdb, polars, pyarrow.compute as compute, pyarrow.dataset as dataset
def arrow(path):
    table = dataset.dataset(path, format="json" if kind == "jsonl" else kind).to_table(columns=["packetDeltaCount"])
    packets = table["packetDeltaCount"]
    return [len(packets) - packets.null_count, compute.sum(packets).as_py()]
def of_polars(frame):
    packets = frame.select("packetDeltaCount").collect()["packetDeltaCount"].drop_nulls()
    return [len(packets), packets.sum()]
def of_duckdb(source):
    return list(map(int, duckdb.sql(f"SELECT count(packetDeltaCount), sum(packetDeltaCount) FROM {source}").fetchall()[0]))
def of_clickhouse(source):
    row = str(chdb.query(f"SELECT count(packetDeltaCount), sum(packetDeltaCount) FROM {source}", "TSV"))
    return list(map(int, row.split()))
if kind == "parquet":
    readers = {
        "pyarrow folder": lambda: arrow(folder),
        "polars *": lambda: of_polars(polars.scan_parquet(folder + "/*")),
        "duckdb *": lambda: of_duckdb(f"read_parquet('{folder}/*')"),
        "clickhouse *": lambda: of_clickhouse(f"file('{folder}/*', 'Parquet')"),
    }
else:
    readers = {
        "pyarrow folder": lambda: arrow(folder),
        "polars *": lambda: of_polars(polars.scan_ndjson(folder + "/*", infer_schema_length=None)),
        "duckdb *": lambda: of_duckdb(
            f"read_json('{folder}/*', format = 'newline_delimited', columns = {{packetDeltaCount: 'UBIGINT'}})"),
        "clickhouse *": lambda: of_clickhouse(
            f"file('{folder}/*', 'JSONEachRow', 'packetDeltaCount Nullable(UInt64)')"),
    }
found = {}
for name, read in readers.items():
    try:
        found[name] = read()
    except Exception as error:
        found[name] = str(error)
print(json.dumps(found))
"#;

#[test]
#[cfg_attr(without_python, ignore = "needs the Python packages: cargo xtask test")]
fn a_directory_reads_as_a_data_set() -> Result<()> {
    for format in [Format::JsonLines, Format::Parquet] {
        let folder = tempfile::tempdir()?;
        let mut expected = (0, 0);
        let mut sink = FilesConfig::new(folder.path().to_owned(), format).sink("soc");
        for number in 1..=3 {
            let batch = records(number, 1000);
            bring(sink.as_mut(), number, &batch)?;
            ensure!(sink.close()? == Taken::Delivered);
            expected.0 += batch.len();
            expected.1 += batch.iter().map(|record| record.packets).sum::<u64>();
        }
        // A file that is not whole, with its manifest and journal, and the list of deletions.
        ensure!(bring(sink.as_mut(), 4, &records(4, 1000))? == Taken::Held);
        fs::write(folder.path().join(".minimizer/deletions.jsonl"), "{}\n")?;
        let found = read(folder.path(), format)?;
        for (reader, found) in &found {
            let (records, packets) = expected;
            ensure!(
                *found == serde_json::json!([records, packets]),
                "{format:?}, {reader}: {found}, not {expected:?}"
            );
        }
        ensure!(found.len() >= 4, "{found:?}");
    }
    Ok(())
}

fn read(folder: &Path, format: Format) -> Result<BTreeMap<String, serde_json::Value>> {
    let mut command = tools::python();
    command.args(["-c", READ]).arg(folder).arg(format.extension()).stderr(Stdio::inherit());
    let output = command.output().context("cannot start Python: `cargo xtask setup` installs it")?;
    ensure!(output.status.success(), "the readers do not start: `cargo xtask setup` installs them");
    Ok(serde_json::from_slice(&output.stdout)?)
}
