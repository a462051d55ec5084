//! What is in files is what the account has as delivered, whatever the disk or an operator does.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use minimizer::delivery::sink::{CHUNK_RECORDS_MAX, Heading, Losses, Sink, SinkError, Taken};
use minimizer::policy::field::Fields;
use minimizer::policy::model::Policy;
use minimizer::records::record::Record;
use minimizer::sinks::files::{FilesConfig, Format};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt as _, SeedableRng as _};
use tests::files::{NOTES, manifests, names};
use tests::ipfix::decoded::Decoded;
use tests::ipfix::sinks::configured;
use tests::records::{Mix, record};
use tests::tmpfs::Tmpfs;

const BEGIN_MS: u64 = 1_795_402_055_123;

/// How a sink writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    JsonLines,
    Parquet,
    Ipfix,
}

impl Kind {
    fn sink(self, folder: &Path) -> Result<Box<dyn Sink>> {
        let config =
            |format| FilesConfig { rotate_octets: 1 << 18, ..FilesConfig::new(folder.to_owned(), format) };
        Ok(match self {
            Self::JsonLines => config(Format::JsonLines).sink("soc"),
            Self::Parquet => config(Format::Parquet).sink("soc"),
            Self::Ipfix => {
                let text = format!("directory = {folder:?}\nrotate_octets = \"1MiB\"");
                configured(&text, Path::new("/")).map_err(anyhow::Error::msg)?
            }
        })
    }
}

/// Keeps the account of a sink as a sender does.
struct Sender {
    sink: Box<dyn Sink>,
    policy: Policy,
    fields: Fields,
    number: u64,
    /// Records that are delivered, and those that the sink holds.
    delivered: usize,
    held: usize,
    /// Records of the batch that the sink has taken, and those of them that are delivered.
    next: usize,
    undelivered: usize,
}

impl Sender {
    fn new(sink: Box<dyn Sink>) -> Result<Self> {
        let policy = Policy::load("full-record", &[])?;
        let fields = policy.recipients[0].fields.keys().copied().collect();
        Ok(Self { sink, policy, fields, number: 0, delivered: 0, held: 0, next: 0, undelivered: 0 })
    }

    fn deliver(&mut self) {
        self.delivered += std::mem::take(&mut self.held);
        self.undelivered = self.next;
    }

    fn failed(&mut self, error: &SinkError) {
        if error.held_is_lost {
            // The sender still has the batch that it brings.
            (self.held, self.next) = (0, self.undelivered);
        } else if self.sink.holds_nothing() {
            self.deliver();
        }
    }

    fn told(&mut self, told: Result<Taken, SinkError>) -> Result<Taken, SinkError> {
        match &told {
            Ok(Taken::Delivered) => self.deliver(),
            // Files are never sent and unconfirmed.
            Ok(Taken::Held | Taken::Sent { .. }) => {}
            Err(error) => self.failed(error),
        }
        told
    }

    /// Brings a batch, at most so many times.
    fn bring(&mut self, records: &[Record], times: u32) -> Option<SinkError> {
        self.number += 1;
        (self.next, self.undelivered) = (0, 0);
        let mut last = None;
        for _ in 0..times {
            match self.try_to_bring(records) {
                Ok(()) => return None,
                Err(error) => last = Some(error),
            }
        }
        last
    }

    fn try_to_bring(&mut self, records: &[Record]) -> Result<(), SinkError> {
        let policy = self.policy.clone();
        let heading = Heading {
            number: self.number,
            begin_ms: BEGIN_MS + self.number * 1000,
            end_ms: BEGIN_MS + self.number * 1000 + 1000,
            policy: &policy,
            recipient: &policy.recipients[0],
            has_ranks: false,
            fields: self.fields,
            interfaces: &[],
            losses: Losses::default(),
            records: 0,
            program_tag: "0123456789abcdef",
        };
        let begun = self.sink.begin(&heading).inspect_err(|error| self.failed(error));
        begun?;
        if self.sink.holds_nothing() {
            self.deliver();
        }
        while self.next < records.len() {
            let end = (self.next + CHUNK_RECORDS_MAX).min(records.len());
            match self.sink.take(&records[self.next..end], self.fields) {
                Ok(taken) => {
                    self.held += end - self.next;
                    self.next = end;
                    self.told(Ok(taken))?;
                }
                Err(error) => return self.told(Err(error)).map(drop),
            }
        }
        let ended = self.sink.end();
        self.told(ended).map(drop)
    }
}

fn records(seed: u64, number: usize) -> Vec<Record> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..number).map(|_| record(&mut random, Mix::Mixed)).collect()
}

/// Records in all whole files, as their manifests and the files themselves have it.
fn records_in(folder: &Path, kind: Kind) -> Result<usize> {
    let mut sum = 0;
    for (name, manifest) in manifests(folder)? {
        let content = fs::read(folder.join(&name))?;
        let count = match kind {
            Kind::JsonLines => content.iter().filter(|octet| **octet == b'\n').count() - 1,
            Kind::Parquet => usize::try_from(manifest["records"].as_u64().context("a number")?)?,
            Kind::Ipfix => {
                let mut decoded = Decoded::default();
                decoded.stream(&content)?;
                ensure!(decoded.missing == 0, "{name} lacks templates");
                decoded.flows.len()
            }
        };
        ensure!(manifest["records"] == count && manifest["octets"] == content.len(), "{count}: {manifest:#}");
        sum += count;
    }
    Ok(sum)
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn files_have_what_the_account_has_whatever_the_disk_does() -> Result<()> {
    let mut random = ChaCha8Rng::seed_from_u64(16);
    for kind in [Kind::JsonLines, Kind::Parquet, Kind::Ipfix] {
        let (mut all, mut recovered) = (0, 0);
        for round in 0..40 {
            let folder = tempfile::tempdir()?;
            let disk = Tmpfs::mount(folder.path().join("disk"), 3 << 20)?;
            let directory = disk.0.join("soc");
            let mut sender = Sender::new(kind.sink(&directory)?)?;
            let ballast = disk.0.join("ballast");
            for step in 0..12 {
                match random.random_range(0..6) {
                    // A full disk, or one with little room, and one with room.
                    0 | 1 => {
                        let octets = random.random_range(0..(3 << 20));
                        fs::write(&ballast, vec![1; octets]).ok();
                    }
                    2 => {
                        fs::remove_file(&ballast).ok();
                    }
                    // Another policy: another file.
                    3 => sender.policy.digest = format!("{round:032}{step:032}"),
                    4 => {
                        let tended = sender.sink.tend();
                        sender.told(tended).ok();
                    }
                    _ => {}
                }
                let number = random.random_range(0..6000);
                let times = random.random_range(1..3);
                sender.bring(&records(step, number), times);
            }
            for _ in 0..random.random_range(0..3) {
                let closed = sender.sink.close();
                sender.told(closed).ok();
            }
            // What the sink still holds is counted as lost, and the next start must not find it.
            let delivered = sender.delivered;
            drop(sender);
            fs::remove_file(&ballast).ok();
            if directory.exists() {
                let whole = manifests(&directory).map_or(0, |manifests| manifests.len());
                kind.sink(&directory)?.tend()?;
                recovered += manifests(&directory)?.len() - whole;
                let found = records_in(&directory, kind)?;
                ensure!(
                    found == delivered,
                    "{kind:?}, round {round}: {found} in files, {delivered} accounted"
                );
                all += found;
            }
        }
        ensure!(all > 0);
        println!("{kind:?}: {all} records, {recovered} files completed by the next start");
    }
    Ok(())
}

#[test]
fn a_directory_that_is_moved_or_removed_is_begun_anew() -> Result<()> {
    for kind in [Kind::JsonLines, Kind::Parquet, Kind::Ipfix] {
        for is_removed in [false, true] {
            let folder = tempfile::tempdir()?;
            let (here, there) = (folder.path().join("here"), folder.path().join("there"));
            let mut sender = Sender::new(kind.sink(&here)?)?;
            ensure!(sender.bring(&records(1, 10), 1).is_none());
            let confirmed = sender.delivered;
            match is_removed {
                true => fs::remove_dir_all(&here)?,
                false => fs::rename(&here, &there)?,
            }
            let error = sender.bring(&records(2, 20), 2);
            ensure!(error.is_none(), "{kind:?}: {error:?}");
            ensure!(sender.bring(&records(3, 30), 2).is_none());
            let closed = sender.sink.close();
            ensure!(sender.told(closed)? == Taken::Delivered);
            let found = records_in(&here, kind)? + if is_removed { 0 } else { records_in(&there, kind)? };
            // What was confirmed before somebody removed it is the loss of whoever removed it.
            let lost = if is_removed { confirmed } else { 0 };
            ensure!(found + lost == sender.delivered, "{kind:?}: {found} in files, {}", sender.delivered);
            ensure!(found >= 50, "{kind:?}: {found}");
            let left = names(&here.join(NOTES))?;
            ensure!(!left.iter().any(|name| name.ends_with(".tmp")), "{kind:?}: {left:?}");
        }
    }
    Ok(())
}

#[test]
fn an_unfinished_file_that_is_moved_is_begun_anew() -> Result<()> {
    for kind in [Kind::JsonLines, Kind::Parquet, Kind::Ipfix] {
        let folder = tempfile::tempdir()?;
        let here = folder.path().join("here");
        let mut sender = Sender::new(kind.sink(&here)?)?;
        ensure!(sender.bring(&records(1, 10), 1).is_none());
        let confirmed = sender.delivered;
        let suffix = ["jsonl.tmp", "parquet.tmp", "ipfix.tmp"];
        let is_part = |name: &String| suffix.iter().any(|suffix| name.ends_with(suffix));
        let part = names(&here.join(NOTES))?.into_iter().find(is_part).context("an unfinished file")?;
        fs::rename(here.join(NOTES).join(&part), folder.path().join("part"))?;
        let error = sender.bring(&records(2, 20), 1).context("it is gone")?;
        ensure!(error.to_string().contains("somebody removed or moved it"), "{error}");
        ensure!(
            error.held_is_lost == (kind != Kind::Ipfix),
            "an IPFIX sink writes again what it holds: {error:?}"
        );
        ensure!(sender.bring(&records(3, 30), 2).is_none());
        let closed = sender.sink.close();
        ensure!(sender.told(closed)? == Taken::Delivered);
        ensure!(records_in(&here, kind)? + confirmed == sender.delivered, "{kind:?}: {}", sender.delivered);
    }
    Ok(())
}
