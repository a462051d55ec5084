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

fn manifest_path(file: &Path) -> PathBuf {
    PathBuf::from(format!("{}.manifest.json", file.display()))
}

fn manifest(file: &Path) -> Result<Value> {
    let path = manifest_path(file);
    let text = fs::read(&path).with_context(|| format!("{} is missing", path.display()))?;
    Ok(serde_json::from_slice(&text)?)
}

fn deletions(folder: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(folder.join("deletions.jsonl")).context("deletions.jsonl is missing")?;
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
        let mode = |path: &Path| -> Result<String> {
            Ok(format!("{:04o}", fs::metadata(path)?.mode() & 0o7777))
        };
        let inner = folder.path().join("a/b");
        for path in [folder.path().join("a"), inner.clone()] {
            let mode = mode(&path)?;
            ensure!(mode == "0750", "umask {umask}: {} has mode {mode}", path.display());
        }
        for path in paths(&inner, "")? {
            let mode = mode(&path)?;
            ensure!(mode == "0640", "umask {umask}: {} has mode {mode}", path.display());
        }
        ensure!(!paths(&inner, "")?.is_empty());
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
    let [deletion] = &deletions(folder.path())?[..] else { panic!("one line") };
    ensure!(deletion["file"] == file.file_name().and_then(|name| name.to_str()).unwrap_or_default());
    ensure!(deletion["why"] == "retention" && deletion["sha256"] == digest, "{deletion}");
    ensure!(deletion["records"] == 10 && deletion["octets"] == octets, "{deletion}");
    Ok(())
}
