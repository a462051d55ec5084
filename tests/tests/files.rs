//! Files: read by databases, on disks that are full or cannot be written, and written by the agent.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::ops::AddAssign;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use minimizer::commands::demo::generator::Traffic;
use minimizer::delivery::loss::Loss;
use minimizer::delivery::sink::{CHUNK_RECORDS_MAX, Heading, Losses, Sink, Taken};
use minimizer::policy::field::Fields;
use minimizer::policy::model::Policy;
use minimizer::records::record::Record;
use minimizer::sinks::files::{FilesConfig, Format};
use rand::SeedableRng as _;
use rand::rngs::ChaCha8Rng;
use rustix::mount::{MountFlags, mount_bind, mount_remount};
use serde_json::Value;
use tests::command::{Agent, minimizer};
use tests::network::Network;
use tests::records::{Mix, record};
use tests::tmpfs::Tmpfs;
use tests::tools;

const FORMATS: [Format; 2] = [Format::JsonLines, Format::Parquet];
const BEGIN_MS: u64 = 1_795_402_055_123;
/// The directory that the documentation speaks of.
const DOCUMENTED: &str = "/var/lib/minimizer/soc";

/// What records, files or a ledger count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    records: u64,
    packets: u64,
    octets: u64,
}

impl Sums {
    fn of(records: &[Record]) -> Self {
        let mut sums = Self::default();
        for Record { packets, octets, .. } in records {
            sums += Self { records: 1, packets: *packets, octets: *octets };
        }
        sums
    }

    /// Of all files in a folder that have their names, as their manifests have it, each checked against its file.
    fn of_files(folder: &Path) -> Result<Self> {
        let mut sums = Self::default();
        for (name, manifest) in manifests(folder)? {
            let content = fs::read(folder.join(&name))?;
            ensure!(manifest["octets"] == content.len(), "{name}: {manifest:#}");
            ensure!(manifest["sha256"] == sha256(&folder.join(&name))?, "{name}: {manifest:#}");
            for batch in manifest["batches"].as_array().context("batches")? {
                let count = |key: &str| batch[key].as_u64().context("a count");
                sums +=
                    Self { records: count("records")?, packets: count("packets")?, octets: count("octets")? };
            }
        }
        Ok(sums)
    }
}

impl AddAssign for Sums {
    fn add_assign(&mut self, other: Self) {
        self.records += other.records;
        self.packets += other.packets;
        self.octets += other.octets;
    }
}

/// Manifests by the names of their files; every file that has a name has one.
fn manifests(folder: &Path) -> Result<BTreeMap<String, Value>> {
    let mut manifests = BTreeMap::new();
    for name in names(folder)? {
        if name.ends_with(".jsonl") || name.ends_with(".parquet") {
            let path = folder.join(format!(".minimizer/{name}.manifest.json"));
            let text = fs::read(path).context(name.clone())?;
            manifests.insert(name, serde_json::from_slice(&text)?);
        }
    }
    Ok(manifests)
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder)?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// Whether something in the folder is not whole.
fn unfinished(folder: &Path) -> Result<bool> {
    Ok(names(&folder.join(".minimizer"))?.iter().any(|name| name.ends_with(".tmp")))
}

fn sha256(path: &Path) -> Result<String> {
    let output = Command::new("sha256sum").arg(path).output()?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.split_whitespace().next().unwrap_or_default().to_owned())
}

/// Brings batches to a sink as a sender does: what was not taken is tried again.
struct Sender {
    sink: Box<dyn Sink>,
    policy: Policy,
    fields: Fields,
    number: u64,
}

impl Sender {
    fn new(name: &str, config: &FilesConfig) -> Result<Self> {
        let policy = Policy::load("full-record", &[])?;
        let fields = policy.recipients[0].fields.keys().copied().collect();
        Ok(Self { sink: config.sink(name), policy, fields, number: 0 })
    }

    /// Brings a batch; returns how many records were taken, what became of them, and the error that stopped it.
    fn bring(&mut self, records: &[Record]) -> (usize, Taken, Option<minimizer::delivery::sink::SinkError>) {
        self.number += 1;
        let heading = Heading {
            number: self.number,
            begin_ms: BEGIN_MS + self.number * 1000,
            end_ms: BEGIN_MS + self.number * 1000 + 1000,
            policy: &self.policy,
            recipient: &self.policy.recipients[0],
            has_ranks: false,
            fields: self.fields,
            interfaces: &[],
            losses: Losses::default(),
            records: 0,
            program_tag: "0123456789abcdef",
        };
        let (mut count, mut last) = (0, Taken::Held);
        let mut all = || {
            self.sink.begin(&heading)?;
            for chunk in records.chunks(CHUNK_RECORDS_MAX) {
                last = self.sink.take(chunk, self.fields)?;
                count += chunk.len();
            }
            last = self.sink.end()?;
            Ok(())
        };
        let error = all().err();
        (count, last, error)
    }
}

fn records(seed: u64, number: usize) -> Vec<Record> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..number).map(|_| record(&mut random, Mix::Mixed)).collect()
}

#[test]
#[cfg_attr(
    any(without_kernel, without_python),
    ignore = "needs root, the kernel program and the Python packages: cargo xtask test"
)]
fn a_full_disk_costs_nothing_that_was_taken_and_is_gone_on_with() -> Result<()> {
    for format in FORMATS {
        let folder = tempfile::tempdir()?;
        let disk = Tmpfs::mount(folder.path().join("disk"), 4 << 20)?;
        let ballast = disk.0.join("ballast");
        fs::write(&ballast, vec![1; 2 << 20])?;
        let mut sender = Sender::new("soc", &FilesConfig::new(disk.0.clone(), format))?;
        let mut taken = Sums::default();
        let mut batches = 0;
        let error = loop {
            let batch = records(batches, 6000);
            let (count, _, error) = sender.bring(&batch);
            taken += Sums::of(&batch[..count]);
            batches += 1;
            if let Some(error) = error {
                break error;
            }
            ensure!(batches < 1000, "the disk never becomes full");
        };
        ensure!(error.loss == Loss::DiskFull && !error.held_is_lost, "{error:?}");
        ensure!(error.to_string().contains("free space there"), "{error}");
        ensure!(taken.records > 0);
        // What was taken is whole, without another call; nothing that is not whole has a name.
        ensure!(Sums::of_files(&disk.0)? == taken, "{format:?}");
        for _ in 0..3 {
            let (count, _, error) = sender.bring(&records(7, 6000));
            taken += Sums::of(&records(7, 6000)[..count]);
            // A file that was closed may have left room: columns take less than was reserved for them.
            let Some(error) = error else { continue };
            ensure!(error.loss == Loss::DiskFull && !error.held_is_lost, "{error:?}");
            ensure!(Sums::of_files(&disk.0)? == taken, "{format:?}");
        }
        ensure!(sender.sink.close()? == Taken::Delivered);
        ensure!(!unfinished(&disk.0)?, "{:?}", names(&disk.0.join(".minimizer"))?);
        fs::remove_file(&ballast)?;
        let batch = records(8, 3000);
        let (count, last, error) = sender.bring(&batch);
        ensure!((count, error.is_none()) == (3000, true), "{error:?}");
        // The files before were closed without a word, which is told as soon as nothing is held.
        ensure!(last == Taken::Delivered || sender.sink.close()? == Taken::Delivered);
        taken += Sums::of(&batch);
        ensure!(Sums::of_files(&disk.0)? == taken, "{format:?}");
        ensure!(query(&disk.0, format, "duckdb")?.iter().all(|sums| *sums == taken));
        println!("{format:?}: {} records in {} files", taken.records, manifests(&disk.0)?.len());
    }
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_directory_that_cannot_be_written_is_survived() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let batch = records(1, 100);
    for format in FORMATS {
        // A file where the directory should be.
        let path = folder.path().join(format.extension());
        fs::write(&path, "")?;
        let mut sender = Sender::new("soc", &FilesConfig::new(path.clone(), format))?;
        let error = sender.sink.tend().err().context("it is no directory")?;
        ensure!(error.loss == Loss::Unwritable && error.to_string().contains(path.to_str().unwrap_or("?")));
        let (count, _, error) = sender.bring(&batch);
        ensure!(count == 0 && error.is_some_and(|error| error.loss == Loss::Unwritable));
        fs::remove_file(&path)?;
        ensure!(sender.bring(&batch).0 == 100);
        ensure!(sender.sink.close()? == Taken::Delivered);
        ensure!(Sums::of_files(&path)? == Sums::of(&batch));

        // Mounted read-only while a file is open, and writable again.
        mount_bind(&path, &path)?;
        let mounted = Tmpfs(path.clone());
        let (count, last, error) = sender.bring(&batch);
        ensure!((count, last, error.is_none()) == (100, Taken::Held, true));
        drop(mounted);
        let disk = Tmpfs::mount(folder.path().join(format!("{}-disk", format.extension())), 4 << 20)?;
        let mut sender = Sender::new("soc", &FilesConfig::new(disk.0.clone(), format))?;
        let taken = sender.bring(&batch);
        ensure!(taken.0 == 100);
        // The open file keeps the disk from becoming read-only; what is under it does not.
        ensure!(sender.sink.close()? == Taken::Delivered);
        mount_remount(&disk.0, MountFlags::RDONLY, c"")?;
        let (count, _, error) = sender.bring(&batch);
        ensure!(
            count == 0 && error.as_ref().is_some_and(|error| error.loss == Loss::Unwritable),
            "{error:?}"
        );
        ensure!(error.is_some_and(|error| error.to_string().contains("mount it writable")));
        mount_remount(&disk.0, MountFlags::empty(), c"")?;
        ensure!(sender.bring(&batch).0 == 100);
        ensure!(sender.sink.close()? == Taken::Delivered);
        ensure!(Sums::of_files(&disk.0)?.records == 200);

        // Somebody removes the directory under an open file: what was in it is lost, and said to be.
        let removed = folder.path().join("removed").join(format.extension());
        let mut sender = Sender::new("soc", &FilesConfig::new(removed.clone(), format))?;
        ensure!(sender.bring(&batch).0 == 100);
        fs::remove_dir_all(&removed)?;
        let (_, _, error) = sender.bring(&batch);
        let error = error.context("the file is gone")?;
        ensure!(error.loss == Loss::Unwritable && error.held_is_lost, "{error:?}");
        let (count, _, error) = sender.bring(&batch);
        ensure!(count == 100 && error.is_none(), "{error:?}");
        ensure!(sender.sink.close()? == Taken::Delivered);
        ensure!(Sums::of_files(&removed)? == Sums::of(&batch));
    }
    Ok(())
}

#[test]
#[cfg_attr(without_python, ignore = "needs the Python packages: cargo xtask test")]
fn databases_read_what_the_documentation_says_with_its_own_queries() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut expected, mut seed) = (BTreeMap::<&str, Sums>::new(), 0);
    for format in FORMATS {
        for _ in 0..3 {
            seed += 1;
            let mut sender = Sender::new("soc", &FilesConfig::new(folder.path().to_owned(), format))?;
            sender.number = seed;
            // More than one row group.
            let batch = records(seed, 70_000);
            let (count, _, error) = sender.bring(&batch);
            ensure!(count == batch.len(), "{error:?}");
            ensure!(sender.sink.close()? == Taken::Delivered);
            *expected.entry(format.extension()).or_default() += Sums::of(&batch);
        }
    }
    for format in FORMATS {
        for engine in ["duckdb", "clickhouse"] {
            let found = query(folder.path(), format, engine)?;
            ensure!(found.len() >= 2, "{format:?} {engine}: {} queries are documented", found.len());
            for sums in found {
                ensure!(sums == expected[format.extension()], "{format:?} {engine}: {sums:?} {expected:?}");
            }
        }
    }
    Ok(())
}

#[test]
#[cfg_attr(
    any(without_kernel, without_python),
    ignore = "needs root, the kernel program and the Python packages: cargo xtask test"
)]
fn the_agent_writes_what_its_ledger_has() -> Result<()> {
    let mut network = Network::new(1, 1500)?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("agent.toml");
    fs::write(
        &path,
        "interfaces = [\"receive0\"]\npolicy = \"full-record\"\nlisten = \"127.0.0.1:0\"\ninterval = \"1s\"\n\
         ledger = \"ledger.json\"\n\
         [[sinks]]\nname = \"soc\"\nrecipient = \"laboratory\"\n\
         files = { directory = \"jsonl\", rotate_every = \"1s\" }\n\
         [[sinks]]\nname = \"soc-columns\"\nrecipient = \"laboratory\"\n\
         files = { directory = \"parquet\", format = \"parquet\", rotate_every = \"1s\" }\n",
    )?;
    let agent = Agent::start(Command::new(minimizer()).args(["run", "--config"]).arg(&path))?;
    // So long that each sink has several files.
    let sender = network.send(0, &Arc::new(Traffic::mixed(1)), None)?;
    agent.wait_for(|status| status["drains"]["succeeded"].as_u64() >= Some(5))?;
    let handed = sender.finish()?;
    let arrived = network.settle(0, handed)?;
    let (exit, said) = agent.stop()?;
    ensure!(exit.success(), "{exit}: {said}");
    let ledger: Value = serde_json::from_slice(&fs::read(folder.path().join("ledger.json"))?)?;
    ensure!(ledger["balanced"] == true && ledger["interfaces"]["receive0"]["seen"] == arrived, "{ledger:#}");
    for (name, format) in [("soc", Format::JsonLines), ("soc-columns", Format::Parquet)] {
        let count = |key: &str| ledger["sinks"][name]["exported"][key].as_u64().context("is counted");
        let exported =
            Sums { records: count("records")?, packets: count("packets")?, octets: count("octets")? };
        ensure!(ledger["exported"]["packets"] == exported.packets && exported.packets > 0, "{ledger:#}");
        let directory = folder.path().join(format.extension());
        ensure!(Sums::of_files(&directory)? == exported, "{name}: {exported:?}");
        let manifests = manifests(&directory)?;
        ensure!(manifests.len() > 1, "{name}: {:?}", manifests.keys());
        for manifest in manifests.values() {
            ensure!(manifest["policy"]["sha256"] == ledger["policy"]["sha256"], "{manifest:#}");
            ensure!(manifest["program_tag"] == ledger["program_tag"], "{manifest:#}");
        }
        for engine in ["duckdb", "clickhouse"] {
            for sums in query(&directory, format, engine)? {
                ensure!(sums == exported, "{name}, {engine}: {sums:?} {exported:?}");
            }
        }
        let octets: u64 = manifests.values().filter_map(|manifest| manifest["octets"].as_u64()).sum();
        ensure!(ledger["sinks"][name]["octets_written"] == octets, "{name}: {octets} {ledger:#}");
        ensure!(!unfinished(&directory)?, "all is whole");
    }
    Ok(())
}

/// Runs queries and prints the rows of each, with the names of their columns.
const RUN: &str = "
import json, sys
engine, queries = sys.argv[1], json.load(sys.stdin)
if engine == 'duckdb':
    import duckdb
    connection = duckdb.connect()
    def run(sql):
        rows = connection.sql(sql)
        return [dict(zip(rows.columns, map(str, row))) for row in rows.fetchall()]
else:
    import chdb
    def run(sql):
        return [json.loads(line) for line in str(chdb.query(sql, 'JSONEachRow')).splitlines()]
print(json.dumps([run(sql) for sql in queries]))
";

/// Runs the documented queries of a database on files of this format, and returns what the rows of each add up to.
fn query(folder: &Path, format: Format, engine: &str) -> Result<Vec<Sums>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("tests lie in the repository")?;
    let text = fs::read_to_string(root.join("docs/FILES.md"))?;
    let fence = format!("```sql {engine}\n");
    let queries = text.split(&fence).skip(1).filter_map(|rest| Some(rest.split_once("\n```")?.0));
    let is_of = |query: &&str| query.contains(&format!("*.{}'", format.extension()));
    let folder = folder.to_str().context("the folder's name is text")?;
    let queries: Vec<String> = queries.filter(is_of).map(|query| query.replace(DOCUMENTED, folder)).collect();
    ensure!(!queries.is_empty(), "docs/FILES.md has no query for {engine} and {format:?}");
    let mut command = tools::python();
    command.args(["-c", RUN, engine]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot start Python: `cargo xtask setup` installs it")?;
    child.stdin.take().context("is piped")?.write_all(&serde_json::to_vec(&queries)?)?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{engine} refused one of {queries:#?}");
    let results: Vec<Vec<BTreeMap<String, Value>>> = serde_json::from_slice(&output.stdout)?;
    let sum = |rows: &Vec<BTreeMap<String, Value>>| -> Result<Sums> {
        let mut sums = Sums::default();
        for row in rows {
            let count = |key: &str| -> Result<u64> {
                let value = row.get(key).with_context(|| format!("a query gives no {key}: {row:?}"))?;
                Ok(value.to_string().trim_matches('"').parse()?)
            };
            sums += Sums { records: count("records")?, packets: count("packets")?, octets: count("octets")? };
        }
        Ok(sums)
    };
    results.iter().map(sum).collect()
}
