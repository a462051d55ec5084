//! Collectors of other people: nfcapd with nfdump, pmacct's nfacctd, and tshark.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;
use tempfile::TempDir;

use super::LIMIT;
use crate::tools::tool;

/// A port of this host that nobody listens on.
///
/// # Errors
/// When there is none.
pub fn free_port() -> Result<u16> {
    Ok(UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// nfcapd, which listens for UDP.
pub struct Nfcapd {
    child: Child,
    folder: TempDir,
    /// Where it listens.
    pub port: u16,
}

impl Nfcapd {
    /// Starts it, on this port.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(port: u16) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut command = tool("nfcapd");
        command.arg("-w").arg(folder.path()).args(["-b", "127.0.0.1", "-p", &port.to_string(), "-t", "3600"]);
        command.args(["-B", "8388608"]);
        let log = fs::File::create(folder.path().join("log"))?;
        let child = command.stdout(log.try_clone()?).stderr(log).spawn();
        let child = child.context("nfcapd is in Debian's package nfdump")?;
        let nfcapd = Self { child, folder, port };
        wait_until_bound(port)?;
        Ok(nfcapd)
    }

    /// Stops it and returns the records that it wrote, as nfdump reads them.
    ///
    /// # Errors
    /// When nfdump fails.
    pub fn stop(self) -> Result<Vec<Value>> {
        Ok(self.end()?.0)
    }

    /// Stops it and returns the records that it wrote, as nfdump reads them, and how many sequence errors it counted.
    ///
    /// # Errors
    /// When nfdump fails, or nfcapd does not say.
    pub fn end(mut self) -> Result<(Vec<Value>, u64)> {
        // What was sent to it is in its socket, and it reads that to the end.
        wait_until_read(self.port)?;
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        self.child.wait()?;
        let mut records = Vec::new();
        for entry in fs::read_dir(self.folder.path())? {
            let path = entry?.path();
            let is_capture =
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("nfcapd.2"));
            if is_capture {
                records.append(&mut nfdump(&path)?);
            }
        }
        let said = fs::read_to_string(self.folder.path().join("log"))?;
        let errors = said.rsplit_once("Sequence Errors: ").and_then(|(_, rest)| rest.split(',').next());
        let errors = errors.and_then(|errors| errors.parse().ok()).with_context(|| said.clone())?;
        Ok((records, errors))
    }

    /// The folder of its files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Nfcapd {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn nfdump(path: &Path) -> Result<Vec<Value>> {
    let output = tool("nfdump").arg("-r").arg(path).args(["-o", "json"]).output()?;
    ensure!(output.status.success(), "nfdump: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// nfacctd, which prints what it gets at the end.
pub struct Nfacctd {
    child: Child,
    folder: TempDir,
    output: PathBuf,
    /// Where it listens.
    pub port: u16,
}

impl Nfacctd {
    /// Starts it, on this port, with these fields in its records.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(port: u16, aggregate: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (config, output) = (folder.path().join("nfacctd.conf"), folder.path().join("records.json"));
        let text = format!(
            "daemonize: false\nnfacctd_port: {port}\nnfacctd_ip: 127.0.0.1\nplugins: print[p]\naggregate[p]: {aggregate}\n\
             print_output[p]: json\nprint_output_file[p]: {}\nprint_output_file_append[p]: true\nprint_refresh_time[p]: 1\nlogfile: {}\n",
            output.display(),
            folder.path().join("log").display()
        );
        fs::write(&config, text)?;
        let mut command = tool("nfacctd");
        command.arg("-f").arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.process_group(0).spawn();
        let child = child.context("nfacctd is in Debian's package pmacct")?;
        let nfacctd = Self { child, folder, output, port };
        // It listens before its plugin takes anything, and forgets what comes between.
        wait(|| Ok(nfacctd.said().contains("Purging cache - END")), "nfacctd does not start")?;
        Ok(nfacctd)
    }

    /// Waits until it printed so many records, and returns them.
    ///
    /// # Errors
    /// When it does not.
    pub fn records(&self, count: usize) -> Result<Vec<Value>> {
        let begin = Instant::now();
        loop {
            let text = fs::read_to_string(&self.output).unwrap_or_default();
            let records: Vec<Value> =
                text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
            if records.len() >= count {
                return Ok(records);
            }
            ensure!(begin.elapsed() < LIMIT, "nfacctd printed {text} and said {}", self.said());
            thread::park_timeout(Duration::from_millis(50));
        }
    }

    /// What it logged.
    #[must_use]
    pub fn said(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Nfacctd {
    fn drop(&mut self) {
        // Its plugins are processes of their own.
        kill_process_group(Pid::from_child(&self.child), Signal::KILL).ok();
        self.child.wait().ok();
    }
}

/// The columns of a port in /proc/thread-self/net/udp.
fn columns(port: u16) -> Result<Option<Vec<String>>> {
    let (local, is_port) = (fs::read_to_string("/proc/thread-self/net/udp")?, format!(":{port:04X}"));
    let mut lines = local.lines().map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    Ok(lines.find(|columns| columns.get(1).is_some_and(|local| local.ends_with(&is_port))))
}

/// The octets in the receive queue of a port.
fn queue(port: u16) -> Result<Option<u64>> {
    let columns = columns(port)?;
    let queues = columns.as_ref().and_then(|columns| columns.get(4)?.split_once(':'));
    Ok(queues.and_then(|(_, received)| u64::from_str_radix(received, 16).ok()))
}

/// How many datagrams to a port the kernel dropped because the collector had not read those before.
///
/// # Errors
/// When the kernel does not say.
pub fn datagrams_lost(port: u16) -> Result<Option<u64>> {
    Ok(columns(port)?.and_then(|columns| columns.last()?.parse().ok()))
}

fn wait_until_bound(port: u16) -> Result<()> {
    wait(|| Ok(queue(port)?.is_some()), "the collector does not listen")
}

/// Waits until a collector has taken everything out of its socket.
///
/// # Errors
/// When it does not.
pub fn wait_until_read(port: u16) -> Result<()> {
    wait(|| Ok(queue(port)? == Some(0)), "the collector does not read")
}

/// Waits until something is so.
///
/// # Errors
/// When it does not get so.
pub fn wait(is_so: impl Fn() -> Result<bool>, what: &str) -> Result<()> {
    let begin = Instant::now();
    while !is_so()? {
        ensure!(begin.elapsed() < LIMIT, "{what}");
        thread::park_timeout(Duration::from_millis(10));
    }
    Ok(())
}

/// What tshark reads in a file of messages (RFC 5655): the protocol tree of each of them.
///
/// # Errors
/// When tshark cannot read it.
pub fn tshark(path: &Path) -> Result<Vec<Value>> {
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(path).args(["-T", "json", "--no-duplicate-keys"]);
    let output = tshark.output().context("tshark is in Debian's package tshark")?;
    ensure!(output.status.success(), "tshark: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}
