//! The order of records says nothing: not which record of one recipient is which of another, and not which of one batch is which
//! of the next. The kernel's hash, which gave it, has other keys in each epoch.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use minimizer::agent::time_mark::TimeMark;
use minimizer::agent::{Agent as LibraryAgent, AgentOptions};
use minimizer::commands::demo::generator::Traffic;
use minimizer::delivery::accounting::Accounting;
use minimizer::interfaces::selection::Selection;
use minimizer::kernel::attach::Mode;
use minimizer::kernel::prepared::Options;
use minimizer::kernel::program::Program;
use minimizer::policy::compile::CompiledPolicy;
use minimizer::records::keys::Keys;
use minimizer::records::terms::Keyring;
use serde_json::Value;
use tests::clocks::SetClocks;
use tests::command::{Agent, minimizer};
use tests::network::Network;
use tests::veth::{RECEIVER, Veth};

/// Flows of each batch.
const FLOWS: u16 = 512;
/// Of 512 ranks without a relation, the correlation is beyond this once in 10^8 times.
const CHANCE: f64 = 0.25;
const WAIT: Duration = Duration::from_secs(30);

/// A recipient of everything, whose records need no merging; one whose records merge; and one whose values alone change. The port
/// tells the test which record is which.
const POLICY: &str = "name = \"p\"\n\
    [[recipients]]\nname = \"whole\"\npurpose = \"to test\"\n[recipients.fields]\n\
    sourceIPv4Address = \"exact\"\nsourceIPv6Address = \"exact\"\ndestinationIPv4Address = \"exact\"\nsourceTransportPort = \"exact\"\n\
    protocolIdentifier = \"exact\"\npacketDeltaCount = \"exact\"\n\
    [[recipients]]\nname = \"merged\"\npurpose = \"to test\"\n[recipients.fields]\n\
    sourceIPv4Address = \"pseudonym\"\nsourceTransportPort = \"exact\"\nprotocolIdentifier = \"exact\"\n\
    [[recipients]]\nname = \"values\"\npurpose = \"to test\"\n[recipients.fields]\n\
    sourceIPv4Address = \"exact\"\nsourceIPv6Address = \"exact\"\ndestinationIPv4Address = \"exact\"\nsourceTransportPort = \"exact\"\n\
    protocolIdentifier = \"exact\"\npacketDeltaCount = \"log2\"\n";
const RECIPIENTS: [&str; 3] = ["whole", "merged", "values"];

/// UDP from one host, each frame from another port.
fn traffic() -> Arc<Traffic> {
    let frames = (0..FLOWS).map(|flow| {
        let [high, low] = (1024 + flow).to_be_bytes();
        let ethernet = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
        let ipv4 = [0x45, 0, 0, 36, 0, 0, 0, 0, 64, 17, 0, 0, 198, 51, 100, 7, 203, 0, 113, 9];
        let udp = [high, low, 1, 0xbb, 0, 16, 0, 0];
        [&ethernet[..], &ipv4, &udp, &[0x55; 8]].concat()
    });
    Arc::new(Traffic::of_frames(frames))
}

/// The place of each flow in each batch of a folder's files.
fn places(folder: &Path) -> Result<HashMap<u64, HashMap<u64, usize>>> {
    let mut batches: HashMap<u64, HashMap<u64, usize>> = HashMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().context("a name")?.to_string_lossy().into_owned();
        if !name.ends_with(".jsonl") {
            continue;
        }
        let manifest = fs::read(folder.join(format!(".minimizer/{name}.manifest.json")))?;
        let manifest: Value = serde_json::from_slice(&manifest)?;
        let text = fs::read_to_string(&path)?;
        let records = text.lines().map(serde_json::from_str::<Value>);
        let records = records.collect::<Result<Vec<_>, _>>()?;
        let mut ports = records.iter().filter_map(|record| record["sourceTransportPort"].as_u64());
        for batch in manifest["batches"].as_array().context("batches")? {
            let number = batch["number"].as_u64().context("a number")?;
            let count = usize::try_from(batch["records"].as_u64().context("a count")?)?;
            let places = ports.by_ref().take(count).enumerate().map(|(place, port)| (port, place));
            batches.entry(number).or_default().extend(places);
        }
    }
    Ok(batches)
}

/// Spearman's rank correlation of the flows that both have; `None` if there are too few for a verdict.
fn correlation(one: &HashMap<u64, usize>, other: &HashMap<u64, usize>) -> Option<f64> {
    let mut both: Vec<_> = one.iter().filter_map(|(port, place)| Some((*place, *other.get(port)?))).collect();
    if both.len() < usize::from(FLOWS) {
        return None;
    }
    both.sort_unstable();
    let mut ranks: Vec<_> = both.iter().map(|(_, place)| *place).collect();
    ranks.sort_unstable();
    let rank = |place: usize| ranks.binary_search(&place).unwrap_or(0) as f64;
    let count = both.len() as f64;
    let squares: f64 =
        (0..).zip(&both).map(|(number, (_, place))| (f64::from(number) - rank(*place)).powi(2)).sum();
    Some(1.0 - 6.0 * squares / (count * (count * count - 1.0)))
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn the_order_of_records_joins_neither_recipients_nor_batches() -> Result<()> {
    let network = Network::new(1, 1500)?;
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("policy.toml"), POLICY)?;
    let mut config = "interfaces = [\"receive0\"]\npolicy = \"policy.toml\"\nlisten = \"127.0.0.1:0\"\ninterval = \"1s\"\n".to_owned();
    for name in RECIPIENTS {
        config += &format!(
            "[[sinks]]\nname = \"{name}\"\nrecipient = \"{name}\"\n\
             files = {{ directory = \"{name}\", format = \"json-lines\", rotate_every = \"1h\" }}\n"
        );
    }
    let path = folder.path().join("agent.toml");
    fs::write(&path, config)?;
    let agent = Agent::start(Command::new(minimizer()).args(["run", "--config"]).arg(&path))?;
    let traffic = traffic();
    // A drain can part one of them.
    for _ in 0..5 {
        let drained = |status: &Value| status["drains"]["succeeded"].as_u64().unwrap_or(0);
        let before = drained(&agent.wait_for(|_| true)?);
        agent.wait_for(|status| drained(status) > before)?;
        let sender = network.send(0, &traffic, Some(u64::from(FLOWS)))?;
        while !sender.is_finished() {
            thread::yield_now();
        }
        sender.finish()?;
    }
    let (exit, said) = agent.stop()?;
    ensure!(exit.success(), "{said}");
    let places = RECIPIENTS.map(|name| places(&folder.path().join(name)));
    let places = places.into_iter().collect::<Result<Vec<_>>>()?;
    let (mut joins, mut chains) = (0, 0);
    for (one, first) in RECIPIENTS.iter().zip(&places) {
        for (other, second) in RECIPIENTS.iter().zip(&places) {
            for (number, batch) in first {
                for (other_number, other_batch) in second {
                    if (one, number) >= (other, other_number) {
                        continue;
                    }
                    let Some(correlation) = correlation(batch, other_batch) else { continue };
                    ensure!(
                        correlation.abs() < CHANCE,
                        "{one} {number} and {other} {other_number}: {correlation}"
                    );
                    *(if number == other_number { &mut joins } else { &mut chains }) += 1;
                }
            }
        }
    }
    ensure!(joins >= 3 && chains >= 9, "{joins} pairs of recipients, {chains} of batches: {said}");
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn hash_keys_are_drawn_anew_in_each_epoch() -> Result<()> {
    let _veth = Veth::new()?;
    let folder = tempfile::tempdir()?;
    let policy = folder.path().join("policy.toml");
    // Also without pseudonyms.
    fs::write(
        &policy,
        "name = \"p\"\npseudonyms = { epoch = \"1 day\" }\n[[recipients]]\nname = \"r\"\npurpose = \"to test\"\n\
         fields = { protocolIdentifier = \"exact\" }\n",
    )?;
    let clocks = Arc::new(SetClocks::default());
    let compiled = CompiledPolicy::load(policy.to_str().context("a path")?, &[])?;
    let options = Options { flows_per_cpu: 64, compiled, clocks: clocks.clone(), ..Options::default() };
    let program = Program::load(&options)?;
    let options = AgentOptions {
        selection: Selection::one(RECEIVER),
        force_tap: false,
        mode: Mode::Skb,
        interval: Duration::from_millis(50),
    };
    let (teller, programs) = mpsc::channel();
    let mark = TimeMark::in_memory(clocks.clone());
    let keyring = Keyring::new(Keys::load(None)?);
    let agent =
        LibraryAgent::start(program, keyring, options, Accounting::new(Vec::new()), mark, move |progress| {
            let attached = progress.watched.iter().find_map(|watched| watched.attached);
            let _unheard =
                teller.send((attached.map(|attached| attached.program_id), progress.drained.is_some()));
        })?;
    let next = || programs.recv_timeout(WAIT).context("the agent tells nothing");
    let mut current = None;
    for day in 1..=3 {
        // The same program within an epoch.
        for _ in 0..5 {
            let (program, _) = next()?;
            ensure!(current.is_none() || program == current, "{program:?} after {current:?}");
            current = program;
        }
        clocks.set_ahead(day * 86_400);
        while next()?.0 == current {}
        // The last drain of the former program and the first of the new one may still name the former.
        current = None;
        while current.is_none() {
            let (program, is_drained) = next()?;
            current = program.filter(|_| is_drained);
        }
    }
    agent.stopper().stop();
    agent.wait()?;
    Ok(())
}
