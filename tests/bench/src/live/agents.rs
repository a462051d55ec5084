//! Flow agents that listen to an interface as usual, without XDP: what they report of the packets they were sent.

use std::env;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::on_any_cpu;

/// Longest wait for an agent to start, and to stop.
const LIMIT: Duration = Duration::from_secs(20);

/// An agent, as Debian packages it, with its defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agent {
    /// softflowd.
    Softflowd,
    /// pmacctd with its print plugin.
    Pmacctd,
}

impl Agent {
    /// Name of its program.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Softflowd => "softflowd",
            Self::Pmacctd => "pmacctd",
        }
    }

    /// Whether its program is found.
    #[must_use]
    pub fn is_installed(self) -> bool {
        let path = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&path).any(|folder| folder.join(self.name()).is_file())
    }

    /// Starts it on an interface in the network namespace of the calling thread, and waits until it listens.
    ///
    /// # Errors
    /// When it does not.
    pub fn start(self, interface: &str) -> anyhow::Result<Listening> {
        let folder = tempfile::tempdir()?;
        let place = |name: &str| folder.path().join(name);
        let mut command = Command::new(self.name());
        match self {
            Self::Softflowd => {
                command.args(["-d", "-i", interface]);
                command.arg("-p").arg(place("pid")).arg("-c").arg(place("control"));
            }
            Self::Pmacctd => {
                command.args(["-i", interface, "-P", "print", "-O", "csv", "-r", "3600"]);
                command.args(["-c", "src_host,dst_host,src_port,dst_port,proto"]);
            }
        }
        command.stdin(Stdio::null());
        command.stdout(File::create(place("stdout"))?).stderr(File::create(place("stderr"))?);
        let child = on_any_cpu(|| command.spawn().with_context(|| self.name()))?;
        let mut listening = Listening { agent: self, child, folder };
        let begin = Instant::now();
        while !listening.is_ready()? {
            if begin.elapsed() > LIMIT || listening.child.try_wait()?.is_some() {
                bail!("{} does not start: {}", self.name(), listening.read("stderr")?);
            }
            thread::park_timeout(Duration::from_millis(20));
        }
        Ok(listening)
    }
}

/// A running agent, killed when dropped.
pub struct Listening {
    agent: Agent,
    child: Child,
    folder: TempDir,
}

impl Listening {
    /// The packets that it reports, once it has worked through what it was sent. It is stopped.
    ///
    /// # Errors
    /// When it does not stop or does not report.
    pub fn reported(mut self) -> anyhow::Result<u64> {
        match self.agent {
            Agent::Softflowd => self.softflowd(),
            Agent::Pmacctd => self.pmacctd(),
        }
    }

    /// Asked until the number stays the same for longer than packets may wait in its buffer.
    fn softflowd(&mut self) -> anyhow::Result<u64> {
        const QUIET: Duration = Duration::from_millis(500);
        let (mut latest, mut since) = (None, Instant::now());
        loop {
            let text = self.control("statistics")?;
            let line = text.lines().find_map(|line| line.strip_prefix("Packets processed: "));
            let packets: u64 = line.context("softflowd reports no packets")?.trim().parse()?;
            if latest != Some(packets) {
                (latest, since) = (Some(packets), Instant::now());
            } else if since.elapsed() > QUIET {
                return Ok(packets);
            }
            thread::park_timeout(Duration::from_millis(100));
        }
    }

    /// It prints its table when it is interrupted.
    fn pmacctd(&mut self) -> anyhow::Result<u64> {
        // What lies in its buffers is not lost yet.
        thread::park_timeout(Duration::from_millis(1500));
        let id = Pid::from_raw(i32::try_from(self.child.id())?).context("a child has an identifier")?;
        kill_process(id, Signal::INT)?;
        let begin = Instant::now();
        while self.child.try_wait()?.is_none() {
            ensure!(begin.elapsed() < LIMIT, "pmacctd does not stop");
            thread::park_timeout(Duration::from_millis(20));
        }
        let mut column = None;
        let mut packets = 0;
        // The plugin prints a table from a process of its own, which may end after its parent.
        thread::park_timeout(Duration::from_millis(500));
        for line in BufReader::new(File::open(self.folder.path().join("stdout"))?).lines() {
            let line = line?;
            let fields: Vec<&str> = line.split(',').map(str::trim).collect();
            match (column, fields.iter().position(|field| *field == "PACKETS")) {
                (_, Some(place)) => column = Some(place),
                (Some(place), None) => packets += fields.get(place).map_or(Ok(0), |field| field.parse())?,
                (None, None) => {}
            }
        }
        ensure!(column.is_some(), "pmacctd printed no table: {}", self.read("stderr")?);
        Ok(packets)
    }

    fn is_ready(&self) -> anyhow::Result<bool> {
        match self.agent {
            Agent::Softflowd => Ok(self.control("statistics").is_ok()),
            Agent::Pmacctd => Ok(["stdout", "stderr"]
                .iter()
                .any(|name| self.read(name).is_ok_and(|text| text.contains("cache entries=")))),
        }
    }

    fn control(&self, word: &str) -> anyhow::Result<String> {
        let control = self.folder.path().join("control");
        let output = Command::new("softflowctl").arg("-c").arg(control).arg(word).output()?;
        ensure!(output.status.success(), "softflowctl {word}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn read(&self, name: &str) -> anyhow::Result<String> {
        let mut text = String::new();
        File::open(self.folder.path().join(name))?.read_to_string(&mut text)?;
        Ok(text)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // Both fail only when the agent has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
