//! Files as a sender makes the sink write them: names, digests, rotation, retention, what earlier runs left.

mod leftovers;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rand::SeedableRng as _;
use rand::rngs::ChaCha8Rng;
use rustix::fs::{CWD, Mode, mkfifoat};
use serde_json::Value;
use tempfile::TempDir;

use super::FilesSink;
use crate::delivery::loss::Loss;
use crate::delivery::sink::{Heading, Losses, Sink as _, Taken};
use crate::policy::field::{Field, Fields};
use crate::policy::model::Policy;
use crate::policy::transform::Transform;
use crate::records::record::Record;
use crate::sinks::files::{FilesConfig, Format};
use crate::sinks::json_lines::tests::record;
use crate::support::clock;
use crate::support::digest::sha256;

const BEGIN_MS: u64 = 1_795_402_055_123;

struct World {
    folder: TempDir,
    policy: Policy,
    random: ChaCha8Rng,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let policy = Policy::load("full-record", &[]).unwrap();
        Self { folder, policy, random: ChaCha8Rng::seed_from_u64(3) }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn sink(&self, format: Format) -> FilesSink {
        FilesSink::new("soc", &FilesConfig::new(self.path().to_owned(), format))
    }

    fn heading(&self, number: u64) -> Heading<'_> {
        Heading {
            number,
            begin_ms: BEGIN_MS + number * 1000,
            end_ms: BEGIN_MS + number * 1000 + 1000,
            policy: &self.policy,
            recipient: &self.policy.recipients[0],
            has_ranks: false,
            fields: Fields::ALL,
            interfaces: &[],
            losses: Losses::default(),
            records: 0,
            program_tag: "0123456789abcdef",
        }
    }

    fn records(&mut self, number: usize) -> Vec<Record> {
        (0..number).map(|_| record(&mut self.random)).collect()
    }

    /// A batch of such records, from its begin to its end.
    fn bring(&self, sink: &mut FilesSink, number: u64, records: &[Record]) -> Taken {
        sink.begin(&self.heading(number)).unwrap();
        for chunk in records.chunks(crate::delivery::sink::CHUNK_RECORDS_MAX) {
            sink.take(chunk, Fields::ALL).unwrap();
        }
        sink.end().unwrap()
    }

    fn notes(&self) -> PathBuf {
        self.path().join(".minimizer")
    }

    /// Names and contents of all files of records.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        content(self.path())
    }

    /// Names of everything else.
    fn noted(&self) -> Vec<String> {
        content(&self.notes()).into_keys().collect()
    }

    fn manifest(&self, name: &str) -> Value {
        let path = self.notes().join(format!("{name}.manifest.json"));
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }

    /// Writes a manifest with that value changed.
    fn edit(&self, name: &str, key: &str, value: impl Into<Value>) {
        let mut manifest = self.manifest(name);
        manifest[key] = value.into();
        fs::write(self.notes().join(format!("{name}.manifest.json")), manifest.to_string()).unwrap();
    }

    fn deletions(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.notes().join("deletions.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn content(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
    let content = |entry: &fs::DirEntry| fs::read(entry.path()).unwrap();
    files.map(|entry| (entry.file_name().into_string().unwrap(), content(&entry))).collect()
}

fn sum(records: &[Record], of: fn(&Record) -> u64) -> u64 {
    records.iter().map(of).fold(0, u64::saturating_add)
}

#[test]
fn nothing_is_delivered_before_it_has_its_name() {
    for format in [Format::JsonLines, Format::Parquet] {
        let mut world = World::new();
        let records = world.records(5000);
        let mut sink = world.sink(format);
        assert_eq!(world.bring(&mut sink, 1, &[]), Taken::Delivered, "there was nothing");
        assert_eq!(world.bring(&mut sink, 2, &records), Taken::Held);
        assert!(world.files().is_empty(), "{:?}", world.files().keys());
        assert!(sink.tend_at().unwrap() > Instant::now() + Duration::from_secs(50));
        assert_eq!(sink.tend().unwrap(), Taken::Held);
        assert_eq!(sink.close().unwrap(), Taken::Delivered);
        let name = format!("soc-20261123T024737.000Z-000001.{}", format.extension());
        let files = world.files();
        let names: Vec<_> = files.keys().cloned().collect();
        assert_eq!((names, world.noted()), (vec![name.clone()], vec![format!("{name}.manifest.json")]));
        assert_eq!(sink.octets_written(), u64::try_from(files[&name].len()).unwrap());
        assert_eq!(sink.close().unwrap(), Taken::Delivered, "what is closed stays closed");
        assert_eq!(world.files(), files);
    }
}

#[test]
fn the_first_line_and_the_manifest_say_who_and_why_and_the_digest_is_that_of_the_file() {
    let mut world = World::new();
    // So long that it is not over by the clock of the machine.
    world.policy.recipients[0].retention = Some(Duration::from_secs(3_600_000_000));
    let records = world.records(4097);
    let mut sink = world.sink(Format::JsonLines);
    world.bring(&mut sink, 7, &records[..4097]);
    world.bring(&mut sink, 8, &[]);
    world.bring(&mut sink, 9, &records[..2]);
    sink.close().unwrap();
    let (name, content) = world.files().into_iter().find(|(name, _)| name.ends_with(".jsonl")).unwrap();
    let text = String::from_utf8(content.clone()).unwrap();
    let (first, rest) = text.split_once('\n').unwrap();
    let recipient = &world.policy.recipients[0];
    let header = serde_json::json!({
        "begin": "2026-11-23T02:47:42Z",
        "sink": "soc",
        "policy": { "name": world.policy.name, "sha256": world.policy.digest },
        "recipient": recipient.name,
        "purpose": recipient.purpose,
        "retention_seconds": 3_600_000_000_u64,
        "program_tag": "0123456789abcdef",
        "agent_version": env!("CARGO_PKG_VERSION"),
        "time_unit_milliseconds": 1000,
        "fields": Field::ALL,
    });
    assert_eq!(serde_json::from_str::<Value>(first).unwrap(), serde_json::json!({ "minimizer": header }));
    let mut lines = rest.lines();
    for record in records.iter().chain(&records[..2]) {
        assert_eq!(lines.next().unwrap(), serde_json::to_string(&record.with(Fields::ALL)).unwrap());
    }
    assert_eq!(lines.next(), None);
    let manifest = world.manifest(&name);
    let part = |number: u64, begin: &str, end: &str, records: &[Record]| {
        serde_json::json!({
            "number": number, "begin": begin, "end": end, "records": records.len(),
            "packets": sum(records, |record| record.packets), "octets": sum(records, |record| record.octets),
        })
    };
    let mut expected = serde_json::json!({
        "file": name,
        "format": "json-lines",
        "octets": content.len(),
        "sha256": sha256(&content),
        "records": 4099,
        "recovered": false,
        "end": "2026-11-23T02:47:45Z",
        "batches": [
            part(7, "2026-11-23T02:47:42Z", "2026-11-23T02:47:43Z", &records),
            part(8, "2026-11-23T02:47:43Z", "2026-11-23T02:47:44Z", &[]),
            part(9, "2026-11-23T02:47:44Z", "2026-11-23T02:47:45Z", &records[..2]),
        ],
    });
    expected.as_object_mut().unwrap().extend(header.as_object().unwrap().clone());
    assert_eq!(manifest, expected);
}

#[test]
fn nothing_that_is_said_of_a_file_is_finer_than_the_recipients_times() {
    let hour_ms = 3_600_000;
    for format in [Format::JsonLines, Format::Parquet] {
        let mut world = World::new();
        for transform in world.policy.recipients[0].fields.values_mut() {
            if let Transform::Coarsened { unit } = transform {
                *unit = Duration::from_millis(hour_ms);
            }
        }
        let records = world.records(3);
        let mut sink = world.sink(format);
        world.bring(&mut sink, 1, &records);
        world.bring(&mut sink, 2, &[]);
        sink.close().unwrap();
        let name = format!("soc-20261123T020000.000Z-000001.{}", format.extension());
        let manifest = world.manifest(&name);
        assert_eq!(manifest["time_unit_milliseconds"], hour_ms);
        let times = [&manifest, &manifest["batches"][0], &manifest["batches"][1]];
        for told in times.iter().flat_map(|part| [&part["begin"], &part["end"]]) {
            assert_eq!(told, "2026-11-23T02:00:00Z", "{manifest:#}");
        }
        let begin = SystemTime::UNIX_EPOCH + Duration::from_millis(BEGIN_MS - BEGIN_MS % hour_ms);
        for path in [world.path().join(&name), world.notes().join(format!("{name}.manifest.json"))] {
            assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), begin, "{path:?}");
        }
        if format == Format::JsonLines {
            let content = String::from_utf8(world.files()[&name].clone()).unwrap();
            let first: Value = serde_json::from_str(content.lines().next().unwrap()).unwrap();
            assert_eq!(first["minimizer"]["begin"], "2026-11-23T02:00:00Z");
        }
    }
}

#[test]
fn what_a_recipient_does_not_get_is_in_no_sum() {
    let mut world = World::new();
    let records = world.records(3);
    let mut sink = world.sink(Format::JsonLines);
    let fields = Fields::NONE.with(Field::SourceIPv4Address).with(Field::OctetDeltaCount);
    sink.begin(&Heading { fields, ..world.heading(1) }).unwrap();
    sink.take(&records, fields).unwrap();
    sink.end().unwrap();
    sink.close().unwrap();
    let manifest = world.manifest("soc-20261123T024736.000Z-000001.jsonl");
    assert_eq!(manifest["batches"][0]["packets"], Value::Null);
    assert_eq!(manifest["batches"][0]["octets"], sum(&records, |record| record.octets));
    assert_eq!(manifest["fields"], serde_json::json!(["sourceIPv4Address", "octetDeltaCount"]));
}

#[test]
fn a_file_is_closed_in_time_or_when_it_is_full() {
    let mut world = World::new();
    let records = world.records(4096);
    let config = FilesConfig::new(world.path().to_owned(), Format::JsonLines);
    let mut sink = FilesSink::new("soc", &FilesConfig { rotate_every: Duration::ZERO, ..config.clone() });
    assert_eq!(world.bring(&mut sink, 1, &records[..1]), Taken::Delivered);
    assert_eq!(world.bring(&mut sink, 2, &records[..1]), Taken::Delivered);
    let mut full = FilesSink::new("full", &FilesConfig { rotate_octets: 1 << 20, ..config });
    full.begin(&world.heading(3)).unwrap();
    assert_eq!(full.take(&records[..100], Fields::ALL).unwrap(), Taken::Held);
    assert_eq!(full.take(&records, Fields::ALL).unwrap(), Taken::Delivered);
    assert_eq!(full.take(&records[..100], Fields::ALL).unwrap(), Taken::Held);
    assert_eq!(full.end().unwrap(), Taken::Held);
    assert_eq!(full.close().unwrap(), Taken::Delivered);
    let files = world.files();
    let names: Vec<_> = files.keys().map(String::as_str).collect();
    let expected = [
        "full-20261123T024738.000Z-000001.jsonl",
        "full-20261123T024738.000Z-000002.jsonl",
        "soc-20261123T024736.000Z-000001.jsonl",
        "soc-20261123T024737.000Z-000002.jsonl",
    ];
    assert_eq!(names, expected);
    let [first, second] = [0, 1].map(|file| world.manifest(expected[file])["batches"].clone());
    assert_eq!((&first[0]["number"], &first[0]["records"]), (&3.into(), &4196.into()));
    assert_eq!((&second[0]["number"], &second[0]["records"]), (&3.into(), &100.into()));
}

#[test]
fn another_policy_is_another_file() {
    let mut world = World::new();
    let records = world.records(2);
    let mut sink = world.sink(Format::Parquet);
    assert_eq!(world.bring(&mut sink, 1, &records), Taken::Held);
    world.policy.digest = "0".repeat(64);
    // The file before is closed first, which the sender is told before anything else is held.
    sink.begin(&world.heading(2)).unwrap();
    assert!(sink.holds_nothing());
    assert_eq!(world.bring(&mut sink, 3, &records), Taken::Held);
    assert!(!sink.holds_nothing());
    sink.close().unwrap();
    assert_eq!(world.files().keys().filter(|name| name.ends_with("parquet")).count(), 2);
}

#[test]
fn no_name_is_used_twice() {
    let mut world = World::new();
    let records = world.records(1);
    let write = |at_the_end: &dyn Fn()| {
        let mut sink = world.sink(Format::JsonLines);
        world.bring(&mut sink, 1, &records);
        at_the_end();
        assert_eq!(sink.close().unwrap(), Taken::Delivered);
    };
    write(&|| ());
    let before = world.files();
    // As after a restart with the clock set back; and somebody takes the name that the file was to get.
    write(&|| fs::write(world.path().join("soc-20261123T024736.000Z-000002.jsonl"), "not ours").unwrap());
    let files = world.files();
    assert!(before.iter().all(|(name, content)| files[name] == *content));
    assert_eq!(files["soc-20261123T024736.000Z-000002.jsonl"], b"not ours");
    let manifest = world.manifest("soc-20261123T024736.000Z-000003.jsonl");
    assert_eq!(manifest["file"], "soc-20261123T024736.000Z-000003.jsonl");
    assert_eq!((files.len(), world.noted().len()), (3, 2));
}

#[test]
fn files_are_deleted_when_their_time_is_over_and_others_are_not() {
    let mut world = World::new();
    let records = world.records(3);
    for sink in ["soc", "soc-b"] {
        let mut sink = FilesSink::new(sink, &FilesConfig::new(world.path().to_owned(), Format::JsonLines));
        // In 1970, and in a year that lies ahead.
        for (number, begin_ms) in [(1, 0), (2, 1000), (3, 4_000_000_000_000)] {
            let heading = Heading { begin_ms, end_ms: begin_ms, ..world.heading(number) };
            sink.begin(&heading).unwrap();
            sink.take(&records, Fields::ALL).unwrap();
            sink.end().unwrap();
            assert_eq!(sink.close().unwrap(), Taken::Delivered);
        }
    }
    // `soc-b` does not run any more: its manifests say how long its files may be kept.
    let first = "soc-19700101T000000.000Z-000001.jsonl";
    let gone_sink = "soc-b-19700101T000000.000Z-000001.jsonl";
    let later = world.files().into_keys().find(|name| name.starts_with("soc-2")).unwrap();
    for file in [first, gone_sink, &later] {
        world.edit(file, "retention_seconds", 60);
    }
    let digest = world.manifest(first)["sha256"].clone();
    fs::write(world.path().join("soc-19700101T000000.000Z-000009.jsonl"), "no manifest").unwrap();
    fs::write(world.path().join("soc-19700101T000000.000Z-000008.jsonl"), "another's manifest").unwrap();
    let foreign = world.notes().join("soc-19700101T000000.000Z-000008.jsonl.manifest.json");
    fs::write(&foreign, world.manifest(gone_sink).to_string()).unwrap();
    let before = world.files();
    let mut sink = world.sink(Format::JsonLines);
    sink.tend().unwrap();
    let files = world.files();
    let gone: Vec<_> = before.keys().filter(|name| !files.contains_key(*name)).collect();
    assert_eq!(gone, [first, gone_sink]);
    assert!(!world.noted().iter().any(|name| name.starts_with(first) || name.starts_with(gone_sink)));
    assert!(foreign.exists());
    let deletions = world.deletions();
    assert_eq!(deletions.len(), 2);
    let deletion = deletions.iter().find(|line| line["file"] == first).unwrap();
    assert_eq!((&deletion["why"], &deletion["sha256"]), (&"retention".into(), &digest));
    assert_eq!((&deletion["sink"], &deletion["records"]), (&"soc".into(), &3.into()));
    assert!(deletion["time"].as_str().unwrap().starts_with("20"), "{deletion}");
    assert!(deletions.iter().any(|line| line["file"] == gone_sink && line["sink"] == "soc-b"));
    // The next one is looked for in an hour at the latest; the clock may be set.
    assert!(sink.tend_at().unwrap() <= Instant::now() + Duration::from_secs(3600));
    assert_eq!(sink.retention_failures(), 0);
    // A policy that gives less time counts at once, also for what was written under another; but not for files of others.
    world.policy.recipients[0].retention = Some(Duration::from_secs(30));
    world.bring(&mut sink, 3, &[]);
    assert_eq!(world.files().len(), before.len() - 2 - 1, "{:?}", world.files().keys());
    assert_eq!(world.deletions().len(), 3);
}

#[test]
fn what_cannot_be_deleted_stops_nothing_behind_it_and_is_counted() {
    let mut world = World::new();
    world.policy.recipients[0].retention = Some(Duration::from_secs(60));
    let records = world.records(3);
    let mut sink = world.sink(Format::JsonLines);
    for number in 1..=6 {
        // Of records whose time is over, nothing is kept: what is named here waits for the next start.
        let begin_ms = number * 1000;
        sink.batch = None;
        let heading = Heading { begin_ms, end_ms: begin_ms, ..world.heading(number) };
        sink.begin(&heading).unwrap();
        sink.take(&records, Fields::ALL).unwrap();
        assert_eq!(sink.close().unwrap(), Taken::Delivered);
    }
    drop(sink);
    let names: Vec<_> = world.files().into_keys().collect();
    assert_eq!(names.len(), 6);
    // A directory and a link have the names of files, and a FIFO, a directory, a link and a long file those of manifests.
    let outside = tempfile::tempdir().unwrap();
    fs::remove_file(world.path().join(&names[0])).unwrap();
    fs::create_dir(world.path().join(&names[0])).unwrap();
    fs::rename(world.path().join(&names[1]), outside.path().join("moved")).unwrap();
    symlink(outside.path().join("moved"), world.path().join(&names[1])).unwrap();
    let odd = |name: &str| world.notes().join(format!("{name}.manifest.json"));
    let fifo = odd("soc-19700101T000000.000Z-000101.jsonl");
    mkfifoat(CWD, &fifo, Mode::RWXU).unwrap();
    fs::create_dir(odd("soc-19700101T000000.000Z-000102.jsonl")).unwrap();
    symlink("nothing", odd("soc-19700101T000000.000Z-000103.jsonl")).unwrap();
    // Somebody who may read it has locked the manifest of a file: the sink comes back for it.
    let locked = fs::File::open(odd(&names[2])).unwrap();
    locked.lock().unwrap();
    let long = fs::File::create(odd("soc-19700101T000000.000Z-000104.jsonl")).unwrap();
    long.set_len(1 << 40).unwrap();
    // The same among what was left unfinished.
    mkfifoat(CWD, world.notes().join("soc-19700101T000000.000Z-000105.jsonl.tmp"), Mode::RWXU).unwrap();
    let mut next = world.sink(Format::JsonLines);
    next.tend().unwrap();
    let left: Vec<_> = world.files().into_keys().collect();
    assert_eq!(left, [names[2].clone()]);
    assert!(world.path().join(&names[0]).is_dir() && world.path().join(&names[1]).is_symlink());
    assert!(outside.path().join("moved").exists());
    assert_eq!(world.deletions().len(), 3);
    assert_eq!(next.retention_failures(), 2 + 4 + 1);
    // It takes records meanwhile, and does not try again at once.
    world.policy.recipients[0].retention = None;
    assert_eq!(world.bring(&mut next, 7, &records), Taken::Held);
    assert_eq!(next.close().unwrap(), Taken::Delivered);
    assert!(next.tend_at().unwrap() > Instant::now() + Duration::from_secs(30));
    next.tend().unwrap();
    assert_eq!(next.retention_failures(), 2 + 4 + 1);
}

#[test]
fn a_link_does_not_make_the_sink_write_outside() {
    let mut world = World::new();
    let records = world.records(3);
    let outside = tempfile::tempdir().unwrap();
    let elsewhere = outside.path().join("elsewhere");
    fs::write(&elsewhere, "").unwrap();
    world.policy.recipients[0].retention = Some(Duration::from_secs(60));
    let mut sink = world.sink(Format::JsonLines);
    sink.begin(&Heading { begin_ms: 0, end_ms: 0, ..world.heading(1) }).unwrap();
    sink.take(&records, Fields::ALL).unwrap();
    sink.close().unwrap();
    symlink(&elsewhere, world.notes().join("deletions.jsonl")).unwrap();
    sink.tend().unwrap();
    assert_eq!(fs::read(&elsewhere).unwrap(), b"");
    assert_eq!(sink.retention_failures(), 1);
    // The directory of notes itself.
    let linked = tempfile::tempdir().unwrap();
    symlink(outside.path(), linked.path().join(".minimizer")).unwrap();
    let mut sink = FilesSink::new("soc", &FilesConfig::new(linked.path().to_owned(), Format::JsonLines));
    let error = sink.begin(&world.heading(1)).unwrap_err();
    assert_eq!(error.loss, Loss::Unwritable);
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn a_file_is_closed_before_its_retention_is_over() {
    let mut world = World::new();
    let records = world.records(3);
    world.policy.recipients[0].retention = Some(Duration::from_secs(1000));
    let mut sink = world.sink(Format::JsonLines);
    sink.config.rotate_every = Duration::from_secs(86_400);
    let begin_ms = clock::realtime_ms();
    let heading = Heading { begin_ms, end_ms: begin_ms, ..world.heading(1) };
    sink.begin(&heading).unwrap();
    sink.take(&records, Fields::ALL).unwrap();
    assert_eq!(sink.end().unwrap(), Taken::Held);
    assert!(sink.tend_at().unwrap() <= Instant::now() + Duration::from_secs(1000));
    sink.close().unwrap();
    // A record that comes too late is readable no longer than it may be.
    let heading = Heading { begin_ms: 1, end_ms: 1, ..heading };
    sink.begin(&heading).unwrap();
    sink.take(&records, Fields::ALL).unwrap();
    assert_eq!(sink.end().unwrap(), Taken::Delivered);
    assert_eq!((world.files().len(), world.deletions().len()), (1, 1));
}
