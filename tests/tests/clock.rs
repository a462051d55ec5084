//! The wall clock is set while the program runs: records have the times of the clock that their generation had, and a
//! mandate neither ends nor comes back to life.

use std::fs;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use jiff::Timestamp;
use minimizer::agent::error::AgentError;
use minimizer::agent::progress::Progress;
use minimizer::agent::time_mark::TimeMark;
use minimizer::agent::{Agent, AgentOptions};
use minimizer::delivery::accounting::Accounting;
use minimizer::interfaces::selection::Selection;
use minimizer::kernel::attach::Mode;
use minimizer::kernel::prepared::Options;
use minimizer::kernel::program::Program;
use minimizer::policy::compile::CompiledPolicy;
use minimizer::policy::mandate::MandateError;
use minimizer::records::keys::Keys;
use minimizer::records::record::Record;
use minimizer::records::terms::Keyring;
use minimizer::support::clock::Clocks as _;
use tests::clocks::SetClocks;
use tests::drained::drained;
use tests::network::Network;

const HOUR: i64 = 3600;
const YEAR: i64 = 365 * 24 * HOUR;

/// An IPv4 UDP packet in an untagged Ethernet frame.
fn frame() -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
    frame.extend([0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 1, 198, 51, 100, 2]);
    frame.extend([0x12, 0x34, 0, 53, 0, 26, 0, 0]);
    frame.resize(60, 0);
    frame
}

/// Runs packets while the wall clock goes through these steps, in seconds from the machine's clock.
fn follow(compiled: Arc<CompiledPolicy>, steps: &[i64]) -> Result<()> {
    let unit_ms = u64::try_from(compiled.time_unit.as_millis())?;
    let clocks = Arc::new(SetClocks::default());
    let options = Options { flows_per_cpu: 64, compiled, clocks: clocks.clone(), ..Options::default() };
    let mut program = Program::load(&options)?;
    program.watch(1, 0)?;
    let now_ms = || clocks.realtime_ns() / 1_000_000;
    for step in steps {
        let earliest_ms = now_ms();
        program.run(&frame())?;
        let latest_ms = now_ms();
        clocks.set_ahead(*step);
        // By the clock of its generation, although the clock has been set before the flip.
        program.run(&frame())?;
        let (records, _) = drained(&mut program, &[1])?;
        let &[Record { packets, start_ms, end_ms, .. }] = records.as_slice() else {
            bail!("{} records", records.len());
        };
        let case = format!("{step} s, unit {unit_ms} ms: {start_ms} to {end_ms}, sent at {earliest_ms}");
        assert_eq!((packets, start_ms % unit_ms, end_ms % unit_ms), (2, 0, 0), "{case}");
        // The remembered unit is used for one tick too long at the most.
        ensure!(start_ms + 2 * unit_ms > earliest_ms && start_ms <= latest_ms, "{case}");
        ensure!(start_ms <= end_ms && end_ms <= latest_ms + unit_ms, "{case}");
    }
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn records_have_the_time_of_the_clock_that_was_set() -> Result<()> {
    let steps = [0, -HOUR, -10 * YEAR, 0, HOUR, 2 * HOUR, 100 * YEAR, -50 * YEAR, -1, 1, 0, 0];
    let folder = tempfile::tempdir()?;
    for unit in ["10ms", "1s", "1h"] {
        let text = format!(
            "name = \"test\"\n[[recipients]]\nname = \"r\"\npurpose = \"to test\"\n[recipients.fields]\n\
             protocolIdentifier = \"exact\"\npacketDeltaCount = \"exact\"\n\
             flowStartMilliseconds = {{ coarsen = \"{unit}\" }}\n\
             flowEndMilliseconds = {{ coarsen = \"{unit}\" }}\n"
        );
        let path = folder.path().join("policy.toml");
        fs::write(&path, text)?;
        follow(CompiledPolicy::load(&path.display().to_string(), &[])?, &steps)?;
    }
    Ok(())
}

/// What the agent tells: why it is paused, whether its interface is attached, and how often that was not watched.
type Told = (Option<String>, bool, u64);

/// The first that fits.
fn told(progress: &Receiver<Told>, fits: impl Fn(&Told) -> bool) -> Result<Told> {
    loop {
        let told = progress.recv_timeout(Duration::from_secs(30)).context("the agent tells nothing")?;
        if fits(&told) {
            return Ok(told);
        }
    }
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_clock_that_is_set_pauses_a_mandate_and_does_not_end_it() -> Result<()> {
    let mut network = Network::new(1, 1500)?;
    let folder = tempfile::tempdir()?;
    let now = Timestamp::now();
    let day = Duration::from_secs(86_400);
    let path = folder.path().join("policy.toml");
    let text = format!(
        "name = \"test\"\nacknowledged = [\"every communication is collected, between domestic parties too\"]\n\
         [mandate]\nid = \"7\"\npurpose = \"to test\"\nlegal_basis = \"none\"\nvalid_from = {}\n\
         valid_until = {}\n[[recipients]]\nname = \"r\"\npurpose = \"to test\"\n[recipients.fields]\n\
         protocolIdentifier = \"exact\"\npacketDeltaCount = \"exact\"\n",
        now - day,
        now + day
    );
    fs::write(&path, text)?;
    let compiled = CompiledPolicy::load(&path.display().to_string(), &[])?;
    let clocks = Arc::new(SetClocks::default());
    let start = |network: &Network, clocks: &Arc<SetClocks>| -> Result<(Agent, Receiver<Told>), AgentError> {
        let options = Options {
            flows_per_cpu: 64,
            compiled: Arc::clone(&compiled),
            clocks: clocks.clone(),
            ..Options::default()
        };
        let program = Program::load(&options)?;
        let selection = Selection::one(&network.cables()[0].receiver.name);
        let options = AgentOptions {
            selection,
            force_tap: false,
            mode: Mode::Native,
            interval: Duration::from_millis(100),
        };
        let (sender, progress) = mpsc::channel();
        let observe = move |progress: &Progress<'_>| {
            let attached = progress.watched.iter().any(|watched| watched.attached.is_some());
            let gaps = progress.ledger.unwatched().map(|(_, unwatched)| unwatched.times).sum();
            // The test may have ended.
            let _unheard = sender.send((progress.paused.map(str::to_owned), attached, gaps));
        };
        let keyring = Keyring::new(Keys::load(None)?);
        let mark = TimeMark::load(folder.path(), clocks.clone()).expect("a mark");
        Ok((Agent::start(program, keyring, options, Accounting::new(Vec::new()), mark, observe)?, progress))
    };
    let (agent, progress) = start(&network, &clocks)?;
    assert_eq!(told(&progress, |(_, attached, _)| *attached)?, (None, true, 0));
    ensure!(network.is_attached(0)?, "the program is not attached");
    for (gaps, (ahead, reason)) in (1..).zip([(10, "is past the end of"), (-10, "is before the begin of")]) {
        clocks.set_ahead(ahead * 24 * HOUR);
        let (paused, attached, times) = told(&progress, |(paused, ..)| paused.is_some())?;
        let paused = paused.unwrap_or_default();
        ensure!(paused.contains(reason) && !attached && times == gaps, "{paused}, {attached}, {times}");
        ensure!(!network.is_attached(0)?, "the program is attached");
        clocks.set_ahead(0);
        let again = told(&progress, |(paused, attached, _)| paused.is_none() && *attached)?;
        assert_eq!(again, (None, true, gaps));
        ensure!(network.is_attached(0)?, "the program is not attached");
    }
    agent.stopper().stop();
    agent.wait()?;

    // A mandate that has ended, and then the clock is set back.
    clocks.set_ahead(2 * 24 * HOUR);
    fs::remove_file(folder.path().join("time-mark.json"))?;
    TimeMark::load(folder.path(), clocks.clone())?.save()?;
    clocks.set_ahead(0);
    let ended = start(&network, &clocks).err();
    ensure!(matches!(ended, Some(AgentError::Mandate(MandateError::Ended { .. }))), "{ended:?}");
    ensure!(!network.is_attached(0)?, "the program is attached");
    Ok(())
}
