//! What earlier runs left behind, and what becomes of it.

use std::fs;
use std::path::Path;
use std::time::Instant;

use bytes::Bytes;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::Field as Cell;
use serde_json::Value;

use super::{World, content, sum};
use crate::delivery::sink::{Sink as _, Taken};
use crate::policy::field::Fields;
use crate::sinks::files::writing::FilesSink;
use crate::sinks::files::{FilesConfig, Format};
use crate::support::digest::sha256;

#[test]
fn what_an_earlier_run_did_not_finish_is_removed_and_noted() {
    let mut world = World::new();
    let records = world.records(10);
    let mut running = FilesSink::new("other", &FilesConfig::new(world.path().to_owned(), Format::Parquet));
    world.bring(&mut running, 1, &records);
    for (name, content) in [
        ("soc-20261123T024736.000Z-000001.jsonl.tmp", "{\"half\":"),
        ("soc-20261123T024736.000Z-000001.jsonl.manifest.json.tmp", ""),
        // Of a sink that does not run any more.
        ("soc-a-20261123T024736.000Z-000001.jsonl.tmp", ""),
        // Of nobody.
        ("soc-notes.tmp", ""),
    ] {
        fs::write(world.notes().join(name), content).unwrap();
    }
    // Whole, but for the name of the manifest.
    fs::write(world.path().join("soc-20261123T024736.000Z-000002.parquet"), "1234").unwrap();
    fs::write(world.path().join("soc-20261123T024736.000Z-000009.jsonl"), "without a manifest").unwrap();
    let mut sink = world.sink(Format::JsonLines);
    world.bring(&mut sink, 1, &records);
    sink.close().unwrap();
    let mut manifest = world.manifest("soc-20261123T024736.000Z-000001.jsonl");
    manifest["file"] = "soc-20261123T024736.000Z-000002.parquet".into();
    manifest["octets"] = 4.into();
    let waiting = world.notes().join("soc-20261123T024736.000Z-000002.parquet.manifest.json.tmp");
    fs::write(&waiting, manifest.to_string()).unwrap();
    let mut next = world.sink(Format::JsonLines);
    assert!(next.tend_at().unwrap() <= Instant::now());
    next.tend().unwrap();
    let noted = world.noted();
    let left: Vec<_> = noted.iter().filter(|name| !name.starts_with("other-")).map(String::as_str).collect();
    let expected = [
        "deletions.jsonl",
        "soc-20261123T024736.000Z-000001.jsonl.manifest.json",
        "soc-20261123T024736.000Z-000002.parquet.manifest.json",
        "soc-notes.tmp",
    ];
    assert_eq!(left, expected);
    assert!(world.files().contains_key("soc-20261123T024736.000Z-000009.jsonl"));
    let mut deleted: Vec<_> = world.deletions().iter().map(|line| line["file"].clone()).collect();
    deleted.sort_by_key(Value::to_string);
    let expected = ["soc-20261123T024736.000Z-000001.jsonl", "soc-a-20261123T024736.000Z-000001.jsonl"];
    assert_eq!(deleted, expected);
    let deletion = &world.deletions()[0];
    assert_eq!(deletion["why"], "unfinished");
    // A file that somebody has open is no leftover.
    let mut twin = FilesSink::new("other", &FilesConfig::new(world.path().to_owned(), Format::Parquet));
    twin.tend().unwrap();
    assert_eq!(running.close().unwrap(), Taken::Delivered);
}

#[test]
fn what_an_earlier_version_left_beside_the_files_is_found() {
    let mut world = World::new();
    let records = world.records(3);
    let mut sink = world.sink(Format::JsonLines);
    world.bring(&mut sink, 1, &records);
    sink.close().unwrap();
    let name = "soc-20261123T024736.000Z-000001.jsonl";
    world.edit(name, "begin", "1970-01-01T00:00:00Z");
    world.edit(name, "retention_seconds", 60);
    let mut manifest = world.manifest(name);
    manifest.as_object_mut().unwrap().remove("recovered");
    let old = world.path().join(format!("{name}.manifest.json"));
    fs::remove_dir_all(world.notes()).unwrap();
    fs::write(&old, manifest.to_string()).unwrap();
    fs::write(world.path().join("deletions.jsonl"), "{\"earlier\":1}\n").unwrap();
    fs::write(world.path().join(".soc-20261123T024736.000Z-000002.jsonl.tmp"), "half").unwrap();
    fs::write(world.path().join(".soc-20261123T024736.000Z-000002.jsonl.manifest.json.tmp"), "").unwrap();
    let mut next = world.sink(Format::JsonLines);
    next.tend().unwrap();
    assert!(world.files().is_empty(), "{:?}", world.files().keys());
    assert_eq!(world.noted(), ["deletions.jsonl"]);
    let deletions = world.deletions();
    assert_eq!(deletions[0]["earlier"], 1);
    assert_eq!((&deletions[1]["why"], &deletions[2]["why"]), (&"unfinished".into(), &"retention".into()));
}

#[test]
fn what_was_whole_of_an_unfinished_file_is_recovered() {
    for format in [Format::JsonLines, Format::Parquet] {
        let mut world = World::new();
        let records = world.records(70_000);
        let mut sink = world.sink(format);
        for (number, batch) in (1..).zip(records.chunks(40_000)) {
            assert_eq!(world.bring(&mut sink, number, batch), Taken::Held);
        }
        // Killed: nothing is tidied up.
        let killed = world.path().join("killed");
        fs::create_dir(&killed).unwrap();
        let name = format!("soc-20261123T024736.000Z-000001.{}", format.extension());
        for (file, mut content) in content(&world.notes()) {
            // A piece that no line of the journal knows, and a line that is torn.
            content.extend_from_slice(b"{\"half");
            fs::write(killed.join(file), content).unwrap();
        }
        drop(sink);
        assert!(world.noted().is_empty(), "what is dropped is no leftover: {:?}", world.noted());
        for entry in fs::read_dir(&killed).unwrap().map(Result::unwrap) {
            fs::rename(entry.path(), world.notes().join(entry.file_name())).unwrap();
        }
        world.sink(format).tend().unwrap();
        let manifest = world.manifest(&name);
        let content = &world.files()[&name];
        assert_eq!(manifest["sha256"], sha256(content));
        assert_eq!((&manifest["octets"], &manifest["recovered"]), (&content.len().into(), &true.into()));
        // A row group has 65,536 rows, or those of some chunks more.
        let whole = usize::try_from(manifest["records"].as_u64().unwrap()).unwrap();
        assert!(whole >= if format == Format::JsonLines { 70_000 } else { 65_536 }, "{format:?}: {whole}");
        let packets =
            manifest["batches"].as_array().unwrap().iter().map(|batch| batch["packets"].as_u64().unwrap());
        let expected = sum(&records[..whole], |record| record.packets);
        assert_eq!(packets.fold(0, u64::saturating_add), expected);
        if format == Format::JsonLines {
            let lines = String::from_utf8(content.clone()).unwrap();
            for (line, record) in lines.lines().skip(1).zip(&records) {
                assert_eq!(line, serde_json::to_string(&record.with(Fields::ALL)).unwrap());
            }
            assert_eq!(lines.lines().count(), 1 + whole);
        } else {
            let file = SerializedFileReader::new(Bytes::from(content.clone())).unwrap();
            let packets = file.get_row_iter(None).unwrap().map(|row| {
                let row = row.unwrap();
                let column = row.get_column_iter().find(|(name, _)| *name == "packetDeltaCount");
                let (_, Cell::ULong(packets)) = column.unwrap() else { panic!("{row}") };
                *packets
            });
            let packets: Vec<_> = packets.collect();
            let expected: Vec<_> = records[..whole].iter().map(|record| record.packets).collect();
            assert!(packets == expected, "{} rows", packets.len());
            let keys = file.metadata().file_metadata().key_value_metadata().unwrap();
            assert_eq!(keys[0].key, "minimizer");
        }
        assert_eq!(world.noted(), [format!("{name}.manifest.json")]);
    }
}

#[test]
fn a_journal_that_is_ahead_of_its_file_is_not_believed() {
    let mut world = World::new();
    let records = world.records(30);
    let mut sink = world.sink(Format::JsonLines);
    let name = "soc-20261123T024736.000Z-000001.jsonl";
    world.bring(&mut sink, 1, &records[..10]);
    world.bring(&mut sink, 2, &records[10..]);
    let mut left = content(&world.notes());
    drop(sink);
    // The machine failed: the end of the file did not come to the disk.
    let file = left.get_mut(&format!("{name}.tmp")).unwrap();
    let end = file.len() - 100;
    file[end..].fill(0);
    left.iter().for_each(|(name, content)| fs::write(world.notes().join(name), content).unwrap());
    world.sink(Format::JsonLines).tend().unwrap();
    assert_eq!(world.manifest(name)["records"], 10);
    assert_eq!(world.files()[name].iter().filter(|octet| **octet == b'\n').count(), 11);
}

#[test]
fn a_directory_that_is_moved_has_what_was_delivered_and_another_is_made() {
    for format in [Format::JsonLines, Format::Parquet] {
        let mut world = World::new();
        let records = world.records(20);
        let path = world.path().join("here");
        let mut sink = FilesSink::new("soc", &FilesConfig::new(path.clone(), format));
        assert_eq!(world.bring(&mut sink, 1, &records[..10]), Taken::Held);
        let moved = world.path().join("moved");
        fs::rename(&path, &moved).unwrap();
        // The file is finished where it is.
        assert_eq!(world.bring(&mut sink, 2, &records[10..15]), Taken::Delivered);
        assert_eq!(content(&moved).len(), 1);
        assert_eq!(world.bring(&mut sink, 3, &records[15..]), Taken::Held);
        assert_eq!(sink.close().unwrap(), Taken::Delivered);
        assert_eq!((content(&moved).len(), content(&path).len()), (1, 1));
        let of = |folder: &Path| -> u64 {
            let notes = content(&folder.join(".minimizer"));
            let manifests = notes.values().map(|text| serde_json::from_slice::<Value>(text).unwrap());
            manifests.map(|manifest| manifest["records"].as_u64().unwrap()).sum()
        };
        assert_eq!((of(&moved), of(&path)), (15, 5), "{format:?}");
    }
}
