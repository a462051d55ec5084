//! The `minimizer` command as a test's subject: built, started, asked over HTTP, stopped.

use std::env;
use std::fs::OpenOptions;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::fcntl::{FcntlArg, fcntl};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Longest wait for what must come; beyond, something is stuck.
const WAIT_LIMIT: Duration = Duration::from_secs(60);

/// The binary, built with the profile of this test.
///
/// Cargo builds it, and says where in `CARGO_BIN_EXE_minimizer`, only for tests of the package `minimizer`. The integration
/// tests stay in a package of their own all the same: next to the binary, every unit test of the agent would have to be
/// built after this library and the decoders, brokers and browsers in it, and the bench needs the binary, too.
///
/// # Panics
/// When it does not build.
pub fn minimizer() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| build().expect("the minimizer binary builds"))
}

fn build() -> Result<PathBuf> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--bins", "--message-format=json-render-diagnostics"]);
    // With one test of the workspace it is made from the libraries that the tests were made from; alone, with fewer features,
    // they would be built again.
    cargo.args(if cfg!(debug_assertions) {
        &["--workspace", "--test", "cli"][..]
    } else {
        &["--package", "minimizer", "--release"]
    });
    // Cargo describes the package under test in them. Build scripts that watch them (ring's) would run again each time, and
    // all that depends on them be built again.
    for (name, _) in env::vars_os() {
        let of_package = |name: &str| {
            name == "OUT_DIR" || name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
        };
        if name.to_str().is_some_and(of_package) {
            cargo.env_remove(name);
        }
    }
    let output = cargo.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "{cargo:?} failed");
    for line in output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let message: serde_json::Value = serde_json::from_slice(line)?;
        let target = &message["target"];
        if target["name"] == "minimizer"
            && target["kind"] == serde_json::json!(["bin"])
            && let Some(path) = message["executable"].as_str()
        {
            return Ok(path.into());
        }
    }
    bail!("{cargo:?} names no executable")
}

/// A running `minimizer run`, killed when dropped.
pub struct Agent {
    child: Child,
    /// `None` once nobody reads its log any more.
    stderr: Option<BufReader<ChildStderr>>,
    address: SocketAddr,
}

impl Agent {
    /// Starts `command`, which runs `minimizer run` on a free port, and waits until it is attached and serves.
    ///
    /// # Errors
    /// When it ends before.
    pub fn start(command: &mut Command) -> Result<Self> {
        Self::start_into(command, Stdio::null())
    }

    /// The same with its standard output going somewhere.
    ///
    /// # Errors
    /// When it ends before.
    pub fn start_into(command: &mut Command, stdout: impl Into<Stdio>) -> Result<Self> {
        let mut child = command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped()).spawn()?;
        let mut stderr = BufReader::new(child.stderr.take().context("stderr is piped")?);
        let mut said = String::new();
        let address = loop {
            let begin = said.len();
            if stderr.read_line(&mut said)? == 0 {
                bail!("the agent ended with {} and said: {said}", child.wait()?);
            }
            let line = said[begin..].trim_end();
            if let Some((_, address)) = line.split_once("serving http://") {
                break address.trim_end_matches('/').parse()?;
            }
        };
        Ok(Self { child, stderr: Some(stderr), address })
    }

    /// The number of its process.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Where it serves.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Asks for `path` with this `Accept` header; returns status, content type and body.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn get(&self, path: &str, accept: &str) -> Result<(u16, String, String)> {
        get(&format!("http://{}{path}", self.address), accept)
    }

    /// Asks for the status until it is as wanted, and returns it.
    ///
    /// # Errors
    /// When it does not get so, with the last one.
    pub fn wait_for(&self, is_wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let begin = Instant::now();
        loop {
            let status: Value = serde_json::from_str(&self.get("/status", "")?.2)?;
            if is_wanted(&status) {
                return Ok(status);
            }
            ensure!(begin.elapsed() < WAIT_LIMIT, "the last status was {status:#}");
            // Paces questions; nothing depends on it.
            thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Asks it to reload its policy.
    ///
    /// # Errors
    /// When it has ended.
    pub fn hang_up(&self) -> Result<()> {
        self.signal(Signal::HUP)
    }

    /// Asks it to end, and does not wait for it.
    ///
    /// # Errors
    /// When it has ended.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Whether it has ended, and nobody has waited for it yet.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('Z'))
    }

    /// Stops it as an operator does; returns how it ended and what it said since the start.
    ///
    /// # Errors
    /// When it cannot be stopped.
    pub fn stop(self) -> Result<(ExitStatus, String)> {
        self.terminate()?;
        self.wait()
    }

    /// Closes the reading end of its log, as a log reader does that dies.
    pub fn close_log(&mut self) {
        self.stderr = None;
    }

    /// Fills the pipe that its log goes to, made as small as can be, until it takes no octet more. Nobody reads it from
    /// then on.
    ///
    /// # Errors
    /// When the pipe cannot be opened, or its log is closed.
    pub fn fill_log(&self) -> Result<()> {
        let pipe = self.stderr.as_ref().context("the log is closed")?.get_ref();
        fcntl(pipe, FcntlArg::F_SETPIPE_SZ(1))?;
        let path = format!("/proc/self/fd/{}", pipe.as_raw_fd());
        let mut writer = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        for octets in [4096, 1] {
            while match writer.write(&vec![b'\n'; octets]) {
                Ok(_) => true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
                Err(error) => return Err(error.into()),
            } {}
        }
        Ok(())
    }

    /// Stops it as an operator does, and reads nothing of what it says.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop_unread(self) -> Result<ExitStatus> {
        self.terminate()?;
        self.wait_unread()
    }

    /// Waits until it ends, and reads nothing of what it says.
    ///
    /// # Errors
    /// When it does not end.
    pub fn wait_unread(mut self) -> Result<ExitStatus> {
        let begin = Instant::now();
        loop {
            if let Some(ended) = self.child.try_wait()? {
                return Ok(ended);
            }
            ensure!(begin.elapsed() < WAIT_LIMIT, "the agent does not end");
            // Paces questions; nothing depends on it.
            thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// Waits until it ends by itself; returns how it ended and what it said since the start.
    ///
    /// # Errors
    /// When what it says cannot be read.
    pub fn wait(mut self) -> Result<(ExitStatus, String)> {
        let mut said = String::new();
        self.stderr.as_mut().context("the log is closed")?.read_to_string(&mut said)?;
        Ok((self.child.wait()?, said))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Both fail only when the agent has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Asks for `url`; returns status, content type and body.
///
/// # Errors
/// When nobody answers.
pub fn get(url: &str, accept: &str) -> Result<(u16, String, String)> {
    let agent: ureq::Agent =
        ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build().into();
    let mut answer = agent.get(url).header("accept", accept).call()?;
    let content_type = answer.headers().get("content-type").map(|value| value.to_str().map(str::to_owned));
    let content_type = content_type.transpose()?.unwrap_or_default();
    Ok((answer.status().as_u16(), content_type, answer.body_mut().read_to_string()?))
}
