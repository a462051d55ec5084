//! Files of IPFIX messages: named, described, kept and deleted as files of records are.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use minimizer::delivery::sink::{Sink, Taken};
use minimizer::sinks::ipfix::{IpfixConfig, IpfixFile};
use minimizer::support::toml::Document;
use serde_json::Value;
use tests::ipfix::decoded::{Decoded, all_expected};
use tests::ipfix::{ALL_FIELDS, Offer, exact, many, one_of_each};

/// Set for a copy of a test that runs under a umask of its own: the folder that it writes to.
const FOLDER: &str = "MINIMIZER_TEST_FOLDER";

fn sink(text: &str, folder: &Path) -> Result<Box<dyn Sink>> {
    let mut document = Document::new("agent.toml".to_owned(), text);
    let file: IpfixFile = document.read().map_err(|findings| anyhow::anyhow!("{findings}"))?;
    let config = IpfixConfig::check(&file, &mut document, folder);
    document.finish().map_err(|findings| anyhow::anyhow!("{findings}"))?;
    Ok(config.context("what is not refused is a configuration")?.sink("soc"))
}

fn paths(folder: &Path, suffix: &str) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(suffix) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Where everything is that is no whole file.
fn notes(folder: &Path) -> PathBuf {
    folder.join(".minimizer")
}

fn manifest_path(file: &Path) -> PathBuf {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    notes(file.parent().unwrap_or(file)).join(format!("{name}.manifest.json"))
}

fn manifest(file: &Path) -> Result<Value> {
    let path = manifest_path(file);
    let text = fs::read(&path).with_context(|| format!("{} is missing", path.display()))?;
    Ok(serde_json::from_slice(&text)?)
}

fn deletions(folder: &Path) -> Result<Vec<Value>> {
    let text =
        fs::read_to_string(notes(folder).join("deletions.jsonl")).context("deletions.jsonl is missing")?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn sha256(file: &Path) -> Result<String> {
    let output = Command::new("sha256sum").arg(file).output()?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.split_whitespace().next().unwrap_or_default().to_owned())
}

/// Checks a manifest against its file, and returns the records of each batch.
fn check_manifest(file: &Path) -> Result<BTreeMap<u64, u64>> {
    let (manifest, content) = (manifest(file)?, fs::read(file)?);
    let name = file.file_name().and_then(|name| name.to_str()).context("a name")?;
    ensure!(manifest["file"] == name && manifest["format"] == "ipfix", "{manifest:#}");
    ensure!(manifest["octets"] == content.len() && manifest["sha256"] == sha256(file)?, "{manifest:#}");
    let mut decoded = Decoded::default();
    decoded.stream(&content)?;
    ensure!(decoded.missing == 0);
    ensure!(manifest["records"] == decoded.flows.len(), "{manifest:#}");
    let sum = |element: u16| -> u64 {
        let value = |octets: &Vec<u8>| octets.iter().fold(0, |sum, octet| sum << 8 | u64::from(*octet));
        let values = decoded.flows.iter().filter_map(|(_, values)| values.get(&element)).map(value);
        values.fold(0, u64::saturating_add)
    };
    let batches = manifest["batches"].as_array().context("batches")?;
    let total = |key: &str| -> u64 {
        batches.iter().filter_map(|batch| batch[key].as_u64()).fold(0, u64::saturating_add)
    };
    ensure!((total("packets"), total("octets")) == (sum(2), sum(1)), "{manifest:#}");
    let number = |value: &Value| value.as_u64().context("a number");
    batches.iter().map(|batch| Ok((number(&batch["number"])?, number(&batch["records"])?))).collect()
}

/// Writes one batch and closes the file.
fn write_one(folder: &Path) -> Result<()> {
    let mut sink = sink("directory = \"a/b\"", folder)?;
    Offer::exact(&ALL_FIELDS)?.bring(sink.as_mut(), &one_of_each())?;
    ensure!(sink.close()? == Taken::Delivered);
    Ok(())
}

#[test]
fn files_and_folders_have_the_same_modes_under_every_umask() -> Result<()> {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return write_one(Path::new(&folder));
    }
    for umask in ["000", "022", "077"] {
        let folder = tempfile::tempdir()?;
        // The umask belongs to the whole process: other tests must not run under it.
        let ended = Command::new("sh")
            .args(["-c", "umask \"$1\" && shift && exec \"$@\"", "sh", umask])
            .arg(std::env::current_exe()?)
            .args(["--exact", "files_and_folders_have_the_same_modes_under_every_umask"])
            .env(FOLDER, folder.path())
            .output()?;
        ensure!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stdout));
        let mode =
            |path: &Path| -> Result<String> { Ok(format!("{:04o}", fs::metadata(path)?.mode() & 0o7777)) };
        let inner = folder.path().join("a/b");
        for path in [folder.path().join("a"), inner.clone(), notes(&inner)] {
            let mode = mode(&path)?;
            ensure!(mode == "0750", "umask {umask}: {} has mode {mode}", path.display());
        }
        for path in [paths(&inner, ".ipfix")?, paths(&notes(&inner), "")?].concat() {
            let mode = mode(&path)?;
            ensure!(mode == "0640", "umask {umask}: {} has mode {mode}", path.display());
        }
        ensure!(!paths(&inner, ".ipfix")?.is_empty() && !paths(&notes(&inner), "")?.is_empty());
    }
    Ok(())
}

#[test]
fn a_file_has_a_manifest_that_counts_what_is_in_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut sink = sink("directory = \".\"", folder.path())?;
    let mut offer = Offer::exact(&ALL_FIELDS)?;
    for records in [&many(5000)[..], &[], &one_of_each()] {
        offer.bring(sink.as_mut(), records)?;
    }
    ensure!(sink.close()? == Taken::Delivered);
    let [file] = &paths(folder.path(), ".ipfix")?[..] else { panic!("one file") };
    let batches = check_manifest(file)?;
    let few = u64::try_from(one_of_each().len())?;
    ensure!(batches == BTreeMap::from([(1, 5000), (2, 0), (3, few)]), "{batches:?}");
    let manifest = manifest(file)?;
    let heading = offer.heading();
    ensure!(manifest["policy"]["sha256"] == *heading.policy.digest, "{manifest:#}");
    ensure!(manifest["recipient"] == *heading.recipient.name, "{manifest:#}");
    ensure!(manifest["purpose"] == *heading.recipient.purpose && manifest["sink"] == "soc", "{manifest:#}");
    ensure!(manifest["retention_seconds"].is_null() && manifest["program_tag"] == heading.program_tag);
    ensure!(manifest["fields"].as_array().map(Vec::len) == Some(ALL_FIELDS.len()), "{manifest:#}");
    Ok(())
}

#[test]
fn a_deletion_is_recorded() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut first = sink("directory = \".\"", folder.path())?;
    let mut offer = Offer::exact(&ALL_FIELDS)?;
    offer.bring(first.as_mut(), &many(10))?;
    ensure!(first.close()? == Taken::Delivered);
    let [file] = &paths(folder.path(), ".ipfix")?[..] else { panic!("one file") };
    let (octets, digest) = (fs::metadata(file)?.len(), sha256(file)?);
    fs::File::options().append(true).open(file)?.set_modified(std::time::UNIX_EPOCH)?;
    // A policy that gives less time counts at once.
    offer.replace(&exact(&ALL_FIELDS).replace("purpose =", "retention = \"1 day\"\npurpose ="))?;
    let mut next = sink("directory = \".\"", folder.path())?;
    offer.bring(next.as_mut(), &[])?;
    ensure!(!file.exists(), "{} is still there", file.display());
    ensure!(!manifest_path(file).exists());
    // The file of the batch without records is as old, and may not be kept either.
    let [deletion, _] = &deletions(folder.path())?[..] else { panic!("two lines") };
    ensure!(deletion["file"] == file.file_name().and_then(|name| name.to_str()).unwrap_or_default());
    ensure!(deletion["why"] == "retention" && deletion["sha256"] == digest, "{deletion}");
    ensure!(deletion["records"] == 10 && deletion["octets"] == octets, "{deletion}");
    Ok(())
}

#[test]
fn files_are_complete_rotated_recovered_and_removed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let text = "directory = \"flows\"\nrotate_octets = \"1MiB\"";
    let mut first = sink(text, folder.path())?;
    let mut offer = Offer::exact(&ALL_FIELDS)?;
    let records = many(30_000);
    for batch in records.chunks(10_000) {
        ensure!(offer.bring(first.as_mut(), batch)?.taken == Taken::Delivered);
    }
    // An agent that is interrupted leaves a piece of a message behind; the next one keeps what was delivered.
    let flows = folder.path().join("flows");
    drop(first);
    let [part] = &paths(&notes(&flows), ".ipfix.tmp")?[..] else { panic!("a file is not complete") };
    let mut octets = fs::read(part)?;
    octets.extend([0, 10, 5, 0]);
    fs::write(part, octets)?;
    // A whole file of another time, and files of others.
    let [whole, ..] = &paths(&flows, ".ipfix")?[..] else { panic!("no file is complete") };
    let old = |name: &str| -> Result<PathBuf> {
        let path = flows.join(name);
        fs::copy(whole, &path)?;
        let mut manifest = manifest(whole)?;
        manifest["file"] = name.into();
        manifest["begin"] = "1970-01-01T00:00:00Z".into();
        fs::write(manifest_path(&path), manifest.to_string())?;
        Ok(path)
    };
    let ours = old("soc-19700101T000000.000Z-000001.ipfix")?;
    let others = [
        old("soc-b-19700101T000000.000Z-000001.ipfix")?,
        old("soc.ipfix")?,
        old("soc-19700101T000000.000Z-000002.ipfix")?,
    ];
    fs::remove_file(manifest_path(&others[2]))?;
    offer.replace(&exact(&ALL_FIELDS).replace("purpose =", "retention = \"9000 days\"\npurpose ="))?;
    let mut next = sink(text, folder.path())?;
    offer.bring(next.as_mut(), &one_of_each())?;
    ensure!(!ours.exists() && !manifest_path(&ours).exists());
    for path in &others {
        ensure!(path.exists(), "{} is gone", path.display());
        fs::remove_file(path)?;
        fs::remove_file(manifest_path(path)).ok();
    }
    ensure!(next.close()? == Taken::Delivered);
    ensure!(paths(&notes(&flows), ".tmp")?.is_empty(), "{:?}", paths(&notes(&flows), "")?);
    let [deletion] = &deletions(&flows)?[..] else { panic!("one line") };
    ensure!(deletion["file"] == "soc-19700101T000000.000Z-000001.ipfix", "{deletion}");
    let mut found = Vec::new();
    let mut counted = 0;
    for path in paths(&flows, ".ipfix")? {
        let mut decoded = Decoded::default();
        // Each begins with all that it needs.
        decoded.stream(&fs::read(&path)?)?;
        ensure!(decoded.missing == 0);
        found.extend(decoded.sorted_flows());
        counted += check_manifest(&path)?.values().sum::<u64>();
    }
    found.sort();
    let mut all = records;
    all.extend(one_of_each());
    ensure!(found == all_expected(&all, offer.fields()), "{} of {}", found.len(), all.len());
    ensure!(counted == u64::try_from(all.len())?, "manifests count {counted} of {}", all.len());
    ensure!(paths(&flows, ".ipfix")?.len() == 3, "{:?}", paths(&flows, "")?);
    Ok(())
}

#[test]
fn what_was_not_delivered_is_not_in_a_recovered_file() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut first = sink("directory = \".\"", folder.path())?;
    let mut offer = Offer::exact(&ALL_FIELDS)?;
    offer.bring(first.as_mut(), &many(100))?;
    // A batch that never ends.
    offer.number += 1;
    first.begin(&offer.heading())?;
    ensure!(first.take(&many(100), offer.fields())? == Taken::Held);
    drop(first);
    // A journal's last line may be torn.
    let [journal] = &paths(&notes(folder.path()), ".journal.tmp")?[..] else { panic!("a journal") };
    let text = fs::read_to_string(journal)? + "{\"octets\":99";
    fs::write(journal, text)?;
    // A file of which nothing was delivered.
    for name in ["", ".manifest.json", ".journal"] {
        let name = format!("soc-19700101T000000.000Z-000001.ipfix{name}.tmp");
        fs::write(notes(folder.path()).join(name), "")?;
    }
    let mut next = sink("directory = \".\"", folder.path())?;
    ensure!(next.tend_at().is_some_and(|at| at <= std::time::Instant::now()), "a start looks for leftovers");
    next.tend()?;
    let [file] = &paths(folder.path(), ".ipfix")?[..] else { panic!("one file") };
    ensure!(check_manifest(file)? == BTreeMap::from([(1, 100)]));
    let [deletion] = &deletions(folder.path())?[..] else { panic!("one line") };
    ensure!(deletion["file"] == "soc-19700101T000000.000Z-000001.ipfix", "{deletion}");
    ensure!(deletion["why"] == "unfinished" && deletion["sha256"].is_null(), "{deletion}");
    let names = [paths(folder.path(), ".ipfix")?, paths(&notes(folder.path()), "")?].concat();
    ensure!(names.len() == 3, "{names:?}");
    Ok(())
}

#[test]
fn a_file_has_records_of_one_policy_only() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut sink = sink("directory = \".\"", folder.path())?;
    let mut offer = Offer::exact(&ALL_FIELDS)?;
    offer.bring(sink.as_mut(), &many(10))?;
    // The same fields, another purpose: another header.
    offer.replace(&exact(&ALL_FIELDS).replace("to test", "to test again"))?;
    offer.bring(sink.as_mut(), &many(20))?;
    // Other fields.
    offer.replace(&exact(&["packetDeltaCount", "protocolIdentifier"]))?;
    offer.bring(sink.as_mut(), &many(30))?;
    ensure!(sink.close()? == Taken::Delivered);
    let files = paths(folder.path(), ".ipfix")?;
    let mut records = Vec::new();
    for file in &files {
        let manifest = manifest(file)?;
        records.push((manifest["records"].as_u64(), manifest["purpose"].as_str().map(str::to_owned)));
        let mut decoded = Decoded::default();
        decoded.stream(&fs::read(file)?)?;
        ensure!(decoded.missing == 0 && manifest["records"] == decoded.flows.len(), "{manifest:#}");
    }
    records.sort();
    let [(Some(10), Some(first)), (Some(20), Some(second)), (Some(30), Some(third))] = &records[..] else {
        anyhow::bail!("{records:?}")
    };
    ensure!(first == third && second == "to test again", "{records:?}");
    let last = manifest(files.last().context("a file")?)?;
    ensure!(last["batches"][0]["octets"].is_null() && last["batches"][0]["packets"].is_u64(), "{last:#}");
    Ok(())
}

#[test]
fn a_file_that_somebody_removed_costs_only_what_was_in_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut sink = sink("directory = \".\"", folder.path())?;
    let mut offer = Offer::exact(&ALL_FIELDS)?;
    offer.bring(sink.as_mut(), &many(10))?;
    let [unfinished] = &paths(&notes(folder.path()), ".ipfix.tmp")?[..] else { panic!("one file") };
    fs::remove_file(unfinished)?;
    let brought = offer.bring(sink.as_mut(), &many(20))?;
    ensure!(brought.taken == Taken::Delivered);
    let [error] = &brought.errors[..] else { panic!("{:?}", brought.errors) };
    ensure!(!error.held_is_lost && error.message.contains("somebody removed or moved it"), "{error}");
    ensure!(sink.close()? == Taken::Delivered);
    let [file] = &paths(folder.path(), ".ipfix")?[..] else { panic!("one file") };
    ensure!(check_manifest(file)? == BTreeMap::from([(2, 20)]));
    let left = paths(&notes(folder.path()), ".tmp")?;
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}

#[test]
fn no_file_lacks_its_templates_after_an_error_in_between() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut sink = sink("directory = \".\"", folder.path())?;
    let mut offer = Offer::exact(&ALL_FIELDS)?;
    offer.bring(sink.as_mut(), &many(10))?;
    // Another file, which is begun, and cannot be described: no message has room for this name.
    offer.replace(&exact(&ALL_FIELDS).replace("to test", "to test again"))?;
    let name = std::mem::replace(&mut offer.interfaces[0].name, "x".repeat(70_000));
    offer.number += 1;
    ensure!(sink.begin(&offer.heading()).is_err(), "the name does not fit");
    offer.interfaces[0].name = name;
    ensure!(offer.bring(sink.as_mut(), &many(20))?.taken == Taken::Delivered);
    ensure!(sink.close()? == Taken::Delivered);
    let mut records = 0;
    for file in paths(folder.path(), ".ipfix")? {
        // Nothing in it lacks its template.
        records += check_manifest(&file)?.values().sum::<u64>();
    }
    ensure!(records == 30, "{records}");
    Ok(())
}
