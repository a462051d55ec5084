//! Which capabilities the agent needs, as this kernel sees it, and what is said when one is missing.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::thread;

use anyhow::{Context as _, Result, anyhow, ensure};
use caps::{CapSet, Capability};
use minimizer::interfaces::netlink::Netlink;
use minimizer::kernel::attach::Mode;
use minimizer::kernel::prepared::{Clock, Options};
use minimizer::kernel::program::Program;
use minimizer::support::privilege::Task;
use minimizer::support::secret_file::{self, Placed};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;
use tests::command::{Agent, minimizer};
use tests::veth::{RECEIVER, Veth};

/// A frame of zeros is not IP, which is all that matters here.
const FRAME: [u8; 60] = [0; 60];

/// A folder that any user can read, with a copy of the binary and a capture of one frame.
struct Folder {
    folder: TempDir,
}

impl Folder {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        let folder = Self { folder };
        fs::copy(minimizer(), folder.binary())?;
        let mut capture = Vec::new();
        for word in [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1, 1_700_000_000, 0, 60, 60_u32] {
            capture.extend(word.to_le_bytes());
        }
        capture.extend(FRAME);
        fs::write(folder.capture(), capture)?;
        Ok(folder)
    }

    fn binary(&self) -> PathBuf {
        self.folder.path().join("minimizer")
    }

    fn capture(&self) -> PathBuf {
        self.folder.path().join("frame.pcap")
    }

    /// A command that runs `program` as nobody with no more than `capabilities`.
    fn as_nobody(&self, capabilities: &[Capability]) -> Command {
        let names = capabilities.iter().map(|name| name.to_string().to_lowercase().replace("cap_", ",+"));
        let capabilities = format!("-all{}", names.collect::<String>());
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.arg(format!("--inh-caps={capabilities}"));
        command.arg(format!("--ambient-caps={capabilities}"));
        command.arg(format!("--bounding-set={capabilities}"));
        command.arg(self.binary());
        command
    }

    fn replay(&self, capabilities: &[Capability]) -> Result<Output> {
        Ok(self.as_nobody(capabilities).arg("replay").arg(self.capture()).output()?)
    }
}

/// All of `capabilities` but one, which is named first; once for each.
fn all_but_one(capabilities: &[Capability]) -> impl Iterator<Item = (Capability, Vec<Capability>)> {
    capabilities.iter().map(|missing| {
        let others = capabilities.iter().copied().filter(|capability| capability != missing);
        (*missing, others.collect())
    })
}

/// Runs `act` on a thread that has `capabilities` and no others.
fn with_capabilities<T: Send>(capabilities: &[Capability], act: impl FnOnce() -> T + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| -> Result<T> {
            let capabilities = capabilities.iter().copied().collect();
            caps::set(None, CapSet::Effective, &capabilities)?;
            Ok(act())
        });
        thread.join().map_err(|_| anyhow!("the thread panicked"))?
    })
}

fn load() -> Result<Program> {
    Ok(Program::load(&Options { flows_per_cpu: 64, clock: Clock::Control, ..Options::default() })?)
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn three_capabilities_without_root_replay_and_run() -> Result<()> {
    let _veth = Veth::new()?;
    let folder = Folder::new()?;
    let output = folder.replay(Task::Replay.needs())?;
    ensure!(output.status.success(), "{output:?}");

    let mut command = folder.as_nobody(Task::Run.needs());
    command.args(["run", "-i", RECEIVER, "--listen", "127.0.0.1:0", "--flows-per-cpu", "64"]);
    let agent = Agent::start(&mut command)?;
    // It runs as nobody, and nobody may not read its memory.
    let status = fs::metadata(format!("/proc/{}/mem", agent.process()))?;
    assert_eq!(status.uid(), 0);
    let (ended, said) = agent.stop()?;
    ensure!(ended.success(), "{said}");
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn each_missing_capability_is_named_in_one_line() -> Result<()> {
    let _veth = Veth::new()?;
    let folder = Folder::new()?;
    let fix = format!(
        "run as root, or grant them to the group minimizer and to nobody else with 'chown root:minimizer {0} && chmod 0750 \
         {0} && setcap cap_bpf,cap_net_admin,cap_perfmon+ep {0}'",
        folder.binary().display()
    );
    for (missing, others) in all_but_one(Task::Run.needs()) {
        let run = folder.as_nobody(&others).args(["run", "-i", RECEIVER]).output()?;
        for output in [run, folder.replay(&others)?] {
            assert_eq!(output.status.code(), Some(77), "{output:?}");
            assert_eq!(
                String::from_utf8(output.stderr)?,
                format!("minimizer: missing capability {missing}: {fix}\n")
            );
            assert!(output.stdout.is_empty());
        }
    }
    let output = folder.as_nobody(Task::Run.needs()).arg("demo").output()?;
    let said = String::from_utf8(output.stderr)?;
    assert_eq!(output.status.code(), Some(77), "{said}");
    assert!(said.contains("missing capability CAP_SYS_ADMIN, CAP_NET_RAW: "), "{said}");
    let output = folder.replay(&[])?;
    let said = String::from_utf8(output.stderr)?;
    assert!(said.contains("missing capability CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON: "), "{said}");
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn the_fix_that_is_named_helps() -> Result<()> {
    let folder = Folder::new()?;
    let mut plain = Command::new("setpriv");
    plain.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(folder.binary());
    plain.arg("replay").arg(folder.capture());
    let said = String::from_utf8(plain.output()?.stderr)?;
    let fix = said.split('\'').nth(1).with_context(|| format!("no fix in {said}"))?;
    // A group that is there without being made: that of the test's user.
    ensure!(fix.starts_with("chown root:minimizer "), "{fix}");
    let granted = Command::new("sh").args(["-c", &fix.replace("root:minimizer", "root:65534")]).status()?;
    ensure!(granted.success(), "{fix}");
    let output = plain.output()?;
    ensure!(output.status.success(), "{output:?}");
    // Whoever is not in the group does not get what was granted. `setpriv` itself still has the capabilities of root, which
    // open every file; what it starts has none.
    let mut stranger = Command::new("setpriv");
    stranger.args(["--reuid=65534", "--regid=65533", "--clear-groups", "sh", "-c", "exec \"$0\" \"$@\""]);
    stranger.arg(folder.binary());
    let output = stranger.arg("replay").arg(folder.capture()).output()?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(!output.status.success() && said.contains("Permission denied"), "{said}");
    Ok(())
}

/// What is asked for is what the kernel asks for: with one capability less it refuses.
#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn the_kernel_needs_each_capability_and_no_other() -> Result<()> {
    for (missing, others) in all_but_one(Task::Replay.needs()) {
        let result = with_capabilities(&others, || load().map(drop))?;
        ensure!(result.is_err(), "{missing} is not needed to load the program");
    }
    with_capabilities(Task::Replay.needs(), || -> Result<()> {
        let mut program = load()?;
        program.watch(1, 0)?;
        program.run(&FRAME)?;
        Ok(())
    })??;

    let _veth = Veth::new()?;
    let if_index = Netlink::open()?.link(RECEIVER)?.index;
    with_capabilities(Task::Run.needs(), || -> Result<()> {
        let mut program = load()?;
        program.watch(if_index, 0)?;
        program.attach(if_index, Mode::Native)?;
        program.generations().flip()?;
        Ok(())
    })??;
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_loaded_program_runs_test_frames_without_any_capability() -> Result<()> {
    let mut program = load()?;
    program.watch(1, 0)?;
    with_capabilities(&[], move || program.run(&FRAME))??;
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_private_namespace_takes_the_capability_that_the_demo_names() -> Result<()> {
    let attempt = || unshare(CloneFlags::CLONE_NEWNET);
    for (missing, others) in all_but_one(Task::Demo.needs()) {
        let result = with_capabilities(&others, attempt)?;
        assert_eq!(result.is_err(), missing == Capability::CAP_SYS_ADMIN, "without {missing}: {result:?}");
    }
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root, to give a file away: cargo xtask test")]
fn a_secret_that_belongs_to_somebody_else_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("key");
    fs::write(&path, "secret")?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    chown(&path, Some(4711), None)?;
    let refused =
        secret_file::read(&path, Placed::ByOperator).expect_err("user 4711 can read it").to_string();
    assert!(refused.contains("user 4711") && refused.contains("chown"), "{refused}");
    Ok(())
}
