//! Keys in the memory of the agent: in one place while they are used, nowhere once they are destroyed.

use std::collections::HashMap;
use std::fs;
use std::hint::black_box;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hkdf::Hkdf;
use jiff::Timestamp;
use minimizer::kernel::permutation::derive;
use minimizer::policy::ranks::NO_RANKS;
use minimizer::records::keys::Keys;
use minimizer::support::sys::secret::Secret;
use minimizer::support::traces::without_traces;
use minimizer_common::permutation::Permutation;
use procfs::process::{LimitValue, Process};
use sha2::Sha256;
use tests::command::{Agent, minimizer};
use tests::memory::{Place, of, places};
use tests::veth::{RECEIVER, Veth};

const SECRET: &str = "3b9f0c1d5e7a2846d0c4b8f1a6937e52cc18d47f095ba2e36f81d47a50b9e263";
const EPOCH: i64 = 60;
const RECIPIENTS: [(&str, &str); 3] =
    [("plain", "\"pseudonym\""), ("permuted", "\"prefix-preserving\""), ("old", "\"crypto-pan\"")];

fn secret() -> Result<Vec<u8>> {
    let digits = (0..SECRET.len()).step_by(2).map(|at| &SECRET[at..at + 2]);
    Ok(digits.map(|octet| u8::from_str_radix(octet, 16)).collect::<Result<_, _>>()?)
}

/// What stands for the secret in every derivation, and is worth as much.
fn extract() -> Result<Vec<u8>> {
    Ok(Hkdf::<Sha256>::extract(Some(b"minimizer master secret v1"), &secret()?).0.to_vec())
}

/// A policy with pseudonyms and preserved prefixes, and a file with the secret.
fn files(folder: &Path) -> Result<[PathBuf; 2]> {
    let [policy, keys] = ["policy.toml", "keys"].map(|name| folder.join(name));
    // Of IPv4 the kernel stores pseudonyms, of IPv6 the addresses.
    let recipient = |name, scheme| {
        format!(
            "[[recipients]]\nname = \"{name}\"\npurpose = \"to test\"\n[recipients.fields]\n\
             sourceIPv4Address = \"pseudonym\"\ndestinationIPv4Address = \"pseudonym\"\n\
             sourceIPv6Address = {scheme}\ndestinationIPv6Address = {scheme}\n\
             protocolIdentifier = \"exact\"\npacketDeltaCount = \"exact\"\n"
        )
    };
    let recipients = RECIPIENTS.map(|(name, scheme)| recipient(name, scheme)).concat();
    fs::write(&policy, format!("name = \"test\"\n[pseudonyms]\nepoch = \"{EPOCH}s\"\n{recipients}"))?;
    fs::write(&keys, format!("{SECRET}\n"))?;
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o600))?;
    Ok([policy, keys])
}

/// The agent with a clock that can be set.
struct Epochs {
    process: u32,
    clock: ChildStdin,
    said: Receiver<String>,
    records: Receiver<u64>,
    ended: thread::JoinHandle<Result<()>>,
}

impl Epochs {
    fn start(policy: &Path, keys: &Path) -> Result<Self> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_epochs"))
            .args([policy, keys, Path::new(RECEIVER)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let process = child.id();
        let clock = child.stdin.take().context("is piped")?;
        let (stdout, stderr) =
            (child.stdout.take().context("is piped")?, child.stderr.take().context("is piped")?);
        let (teller, said) = mpsc::channel();
        thread::spawn(move || {
            BufReader::new(stderr).lines().map_while(Result::ok).try_for_each(|line| teller.send(line))
        });
        let (counter, records) = mpsc::channel();
        let ended = thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                // The test may have ended.
                let _unheard = counter.send(line?.parse()?);
            }
            let ended = child.wait()?;
            ensure!(ended.success(), "{ended}");
            Ok(())
        });
        Ok(Self { process, clock, said, records, ended })
    }

    /// Waits until records have been made of packets that are sent meanwhile.
    fn wait_for_records(&self, veth: &Veth) -> Result<()> {
        while self.records.recv_timeout(Duration::from_secs(30)).context("no batch comes")? == 0 {
            veth.send(10, 10)?;
        }
        Ok(())
    }

    /// Sets the clock ahead, and waits until the agent says that the key of the epoch before is destroyed.
    fn set_ahead(&mut self, seconds: i64) -> Result<String> {
        writeln!(self.clock, "{seconds}")?;
        loop {
            let line = self.said.recv_timeout(Duration::from_secs(30)).context("no key is destroyed")?;
            if line.contains("is destroyed") {
                return Ok(line);
            }
        }
    }

    fn end(self) -> Result<()> {
        drop(self.clock);
        self.ended.join().unwrap_or_else(|_| Ok(()))
    }
}

/// The beginning of what is derived from a key for IPv4.
fn table(key: &[u64; 2]) -> Result<Vec<u8>> {
    let mut permutation = Secret::<Permutation>::zeroed()?;
    derive(&mut permutation, key, &NO_RANKS);
    Ok(permutation.tables[0][..16].iter().flat_map(|entry| entry.to_ne_bytes()).collect())
}

/// The keys of the epochs that began between the two times.
fn of_epochs(keys: &Keys, from: Timestamp, to: Timestamp) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let mut all = Vec::new();
    for start in (from.as_second() / EPOCH..=to.as_second() / EPOCH).map(|epoch| epoch * EPOCH) {
        let start = u64::try_from(start)?;
        let octets = |words: &[u64; 2]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<_>>();
        let epoch = keys.epoch_key(start)?;
        all.push(("epoch", octets(&epoch)));
        all.push(("permutation", table(&epoch)?));
        for recipient in RECIPIENTS.map(|(name, _)| name) {
            let keys = keys.recipient(recipient, start, &epoch)?;
            all.push(("recipient", octets(&keys.pseudonym)));
            all.push(("prefixes", keys.ipcrypt.to_vec()));
            all.push(("prefixes", keys.crypto_pan.to_vec()));
        }
    }
    Ok(all)
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_key_that_is_destroyed_is_nowhere_in_the_agent() -> Result<()> {
    let veth = Veth::new()?;
    let folder = tempfile::tempdir()?;
    let [policy, file] = files(folder.path())?;
    let keys = Keys::load(Some(&file))?;
    let mut begin = Timestamp::now();
    let mut epochs = Epochs::start(&policy, &file)?;
    for ahead in [2 * EPOCH, 4 * EPOCH, 6 * EPOCH] {
        epochs.wait_for_records(&veth)?;
        let used = of_epochs(
            &keys,
            begin,
            Timestamp::now() + Duration::from_secs((ahead - 2 * EPOCH).unsigned_abs()),
        )?;
        let in_use = places(epochs.process, &used)?;
        for searched in ["recipient", "prefixes"] {
            ensure!(!of(&in_use, searched)?.is_empty(), "{searched}: {in_use:?}");
        }
        let is_kernel = |place: &Place| place.mapping.contains("bpf-map");
        for key in ["epoch", "permutation"] {
            ensure!(
                of(&in_use, key)?.iter().any(is_kernel),
                "the kernel's memory is searched, too: {in_use:?}"
            );
        }
        let exposed = |place: &&Place| !place.is_left_out_of_dumps;
        assert_eq!(in_use.values().flatten().filter(exposed).collect::<Vec<_>>().len(), 0, "{in_use:?}");
        begin = Timestamp::now() + Duration::from_secs(ahead.unsigned_abs());
        let said = epochs.set_ahead(ahead)?;
        let left = places(epochs.process, &used)?;
        assert_eq!(left.len(), 0, "{said}: {left:?}");
    }
    epochs.end()
}

/// Leaves a word on the stack many times.
#[inline(never)]
fn leave(word: u64) {
    black_box(&mut [word; 4096]);
}

#[test]
fn what_was_computed_is_overwritten_on_the_stack() -> Result<()> {
    let word = 0x8d1f_52c9_e07b_3a64;
    let here = 0_u8;
    let left = || -> Result<usize> {
        let found = places(std::process::id(), &[("word", u64::to_ne_bytes(word).to_vec())])?;
        let address = u64::try_from((&raw const here).addr())?;
        Ok(of(&found, "word")?.iter().filter(|place| place.address.abs_diff(address) < 256 << 10).count())
    };
    leave(word);
    let plain = left()?;
    without_traces(|| leave(word));
    // The word itself is in a few places: somebody has to search for it.
    ensure!(plain > 1000 && left()? < 100, "{plain}, then {}", left()?);
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn the_secret_is_in_one_place_that_no_dump_has() -> Result<()> {
    let _veth = Veth::new()?;
    let folder = tempfile::tempdir()?;
    let [policy, file] = files(folder.path())?;
    let mut command = Command::new(minimizer());
    command.args(["run", "-i", RECEIVER, "--listen", "127.0.0.1:0", "--flows-per-cpu", "64"]);
    command.arg("--policy").arg(policy).arg("--keys").arg(file);
    let agent = Agent::start(&mut command)?;
    let searched = [("secret", secret()?), ("digits", SECRET.into()), ("extract", extract()?)];
    let found: HashMap<_, _> = places(agent.process(), &searched)?;
    assert_eq!(of(&found, "secret")?.len(), secret()?.len() / 8, "each part once: {found:?}");
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(of(&found, "secret")?.iter().filter(|place| !place.is_left_out_of_dumps).count(), 0);
    let limit = Process::new(i32::try_from(agent.process())?)?.limits()?.max_core_file_size;
    ensure!(matches!((limit.soft_limit, limit.hard_limit), (LimitValue::Value(0), LimitValue::Value(0))));
    let (ended, said) = agent.stop()?;
    ensure!(ended.success(), "{said}");
    Ok(())
}
