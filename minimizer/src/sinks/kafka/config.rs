//! The configuration of a Kafka sink in agent.toml, and its checks.

use std::fmt;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::delivery::sink::Sink;
use crate::support::tls::ClientTls;
use crate::support::toml::{At, Document};

/// Records in a message, where agent.toml does not say.
const RECORDS_PER_MESSAGE: u32 = 1;
/// More records would make messages that many consumers refuse.
const RECORDS_PER_MESSAGE_MAX: u32 = 1000;
/// Octets of a topic's name, by Kafka's rule.
const TOPIC_OCTETS_MAX: usize = 249;

/// A Kafka sink in agent.toml.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "kafka")]
pub struct KafkaFile {
    /// Brokers that are asked first, like "kafka-1.example.net:9092"; they name the others.
    pub brokers: At<Vec<At<String>>>,
    /// The topic, which must exist.
    pub topic: At<String>,
    /// Name of this host in each message; the host's own name when it is not given.
    pub exporter: Option<At<String>>,
    /// When a record is delivered: "all" (every replica in sync has it), which is also the default.
    pub acks: Option<At<String>>,
    /// How batches of messages are compressed.
    #[serde(default)]
    pub compression: Compression,
    /// The format of a message's value.
    #[serde(default)]
    pub format: MessageFormat,
    /// What decides the partition.
    #[serde(default)]
    pub partition_by: PartitionBy,
    /// Most records in a message, one on a line; 1 when it is not given. With more than 1, messages have no key.
    #[schemars(range(min = 1, max = 1000))]
    pub records_per_message: Option<At<u32>>,
    /// How connections are encrypted; they are not when it is not given.
    pub tls: Option<BrokerTlsFile>,
    /// How the agent logs in.
    pub sasl: Option<SaslFile>,
}

/// How batches of messages are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// LZ4.
    Lz4,
    /// Zstandard, which needs brokers of version 2.1 and later.
    Zstd,
    /// Snappy.
    Snappy,
    /// Gzip.
    Gzip,
}

/// The format of a message's value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MessageFormat {
    /// Records as JSON objects.
    #[default]
    Json,
}

/// What decides the partition of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PartitionBy {
    /// Its flow: addresses, ports and protocol, as far as the recipient receives them.
    #[default]
    Tuple,
}

/// How connections are encrypted.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "kafka tls")]
pub struct BrokerTlsFile {
    /// PEM file of the authorities that may have signed the brokers' certificates, relative to this file; those of the
    /// host when it is not given.
    pub ca: Option<At<PathBuf>>,
    /// PEM file of the agent's certificate, followed by those between it and its authority.
    pub certificate: Option<At<PathBuf>>,
    /// PEM file of the key of that certificate.
    pub key: Option<At<PathBuf>>,
}

/// How the agent logs in.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "kafka sasl")]
pub struct SaslFile {
    /// "SCRAM-SHA-512", "SCRAM-SHA-256", or "PLAIN", which needs `tls`.
    pub mechanism: At<String>,
    /// The name that the brokers know.
    pub username: At<String>,
    /// File with the password. Only its owner may be allowed to read it.
    pub password_file: At<PathBuf>,
}

/// A configured Kafka sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaConfig {
    /// Brokers that are asked first.
    pub brokers: Vec<String>,
    /// The topic.
    pub topic: String,
    /// Name of this host in each message.
    pub exporter: Option<String>,
    /// How batches of messages are compressed.
    pub compression: Compression,
    /// Records in a message, at most.
    pub records_per_message: usize,
    /// How connections are encrypted.
    pub tls: Option<ClientTls>,
    /// How the agent logs in.
    pub sasl: Option<Sasl>,
}

/// A login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sasl {
    /// How the agent proves who it is.
    pub mechanism: Mechanism,
    /// Its name for the brokers.
    pub username: String,
    /// File of its password.
    pub password_file: PathBuf,
}

/// How the agent proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// The password is sent.
    Plain,
    /// RFC 7677.
    ScramSha256,
    /// The same with SHA-512.
    ScramSha512,
}

const MECHANISMS: [(&str, Mechanism); 3] = [
    ("PLAIN", Mechanism::Plain),
    ("SCRAM-SHA-256", Mechanism::ScramSha256),
    ("SCRAM-SHA-512", Mechanism::ScramSha512),
];

impl fmt::Display for Mechanism {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = MECHANISMS.iter().find(|(_, mechanism)| mechanism == self).map_or("", |(name, _)| name);
        formatter.write_str(name)
    }
}

impl KafkaConfig {
    /// Checks agent.toml, which is in `folder`; `None` when something is refused.
    #[must_use]
    pub fn check(file: &KafkaFile, document: &mut Document<'_>, folder: &Path) -> Option<Self> {
        let brokers = brokers(file, document);
        let topic = topic(&file.topic, document);
        let exporter = match &file.exporter {
            Some(exporter) => Some(exporter_name(exporter, document)?),
            None => None,
        };
        let acks = acks(file.acks.as_ref(), document);
        let records_per_message = records_per_message(file.records_per_message.as_ref(), document);
        let tls = file.tls.as_ref().map(|BrokerTlsFile { ca, certificate, key }| {
            ClientTls::check(ca.as_ref(), certificate.as_ref(), key.as_ref(), document, folder)
        });
        let sasl = file.sasl.as_ref().map(|sasl| check_sasl(sasl, file.tls.is_some(), document, folder));
        let MessageFormat::Json = file.format;
        let PartitionBy::Tuple = file.partition_by;
        acks?;
        Some(Self {
            brokers: brokers?,
            topic: topic?,
            exporter,
            compression: file.compression,
            records_per_message: records_per_message?,
            tls: if let Some(tls) = tls { Some(tls?) } else { None },
            sasl: if let Some(sasl) = sasl { Some(sasl?) } else { None },
        })
    }

    /// The sink. It connects when its first batch comes.
    #[must_use]
    pub fn sink(&self, name: &str) -> Box<dyn Sink> {
        Box::new(super::Kafka::new(name, self))
    }
}

fn brokers(file: &KafkaFile, document: &mut Document<'_>) -> Option<Vec<String>> {
    let brokers = file.brokers.get();
    if brokers.is_empty() {
        document.refuse(
            &file.brokers,
            "there is nobody to ask: name one broker or more, like \"kafka-1.example.net:9092\"",
        );
        return None;
    }
    let mut all = Some(Vec::new());
    for broker in brokers {
        match address(broker.get(), file.tls.is_some()) {
            Ok(()) => all.iter_mut().for_each(|all| all.push(broker.get().clone())),
            Err(message) => {
                document.refuse(broker, format!("`{}`: {message}", broker.get()));
                all = None;
            }
        }
    }
    all
}

/// Checks a host and port.
fn address(text: &str, is_encrypted: bool) -> Result<(), &'static str> {
    let wanted = "wanted are a host and a port, like \"kafka-1.example.net:9092\" or \"[2001:db8::1]:9092\"";
    let (host, port) = text.rsplit_once(':').ok_or(wanted)?;
    let is_port = port.parse::<u16>().is_ok_and(|port| port > 0);
    let is_bracketed = host.starts_with('[') && host.ends_with(']');
    if host.is_empty() || !is_port || (host.contains(':') && !is_bracketed) {
        return Err(wanted);
    }
    if is_encrypted && is_bracketed {
        return Err("with `tls`, name the broker: its certificate is compared with the name");
    }
    Ok(())
}

fn topic(at: &At<String>, document: &mut Document<'_>) -> Option<String> {
    let topic = at.get();
    let is_allowed = |octet: u8| octet.is_ascii_alphanumeric() || b"._-".contains(&octet);
    let is_name = (1..=TOPIC_OCTETS_MAX).contains(&topic.len()) && topic.bytes().all(is_allowed);
    if !is_name || topic == "." || topic == ".." {
        document.refuse(at, "a topic's name has 1 to 249 letters, digits, '.', '_' and '-'");
        return None;
    }
    Some(topic.clone())
}

fn exporter_name(at: &At<String>, document: &mut Document<'_>) -> Option<String> {
    let name = at.get();
    if name.is_empty() || name.len() > 255 || name.chars().any(char::is_control) {
        document.refuse(at, "a host is named in 1 to 255 octets, without control characters");
        return None;
    }
    Some(name.clone())
}

fn acks(acks: Option<&At<String>>, document: &mut Document<'_>) -> Option<()> {
    let Some(at) = acks else { return Some(()) };
    let message = match at.get().as_str() {
        "all" => return Some(()),
        "leader" => {
            "`leader` is refused: records that only the leader has are lost with it, and would have been counted as \
             delivered; write \"all\""
        }
        _ => "allowed is \"all\": a record is delivered when every replica in sync has it",
    };
    document.refuse(at, message);
    None
}

fn records_per_message(at: Option<&At<u32>>, document: &mut Document<'_>) -> Option<usize> {
    let records = at.map_or(RECORDS_PER_MESSAGE, |at| *at.get());
    if let Some(at) = at
        && !(1..=RECORDS_PER_MESSAGE_MAX).contains(&records)
    {
        document.refuse(at, format!("allowed are 1 to {RECORDS_PER_MESSAGE_MAX} records in a message"));
        return None;
    }
    usize::try_from(records).ok()
}

fn check_sasl(
    file: &SaslFile,
    is_encrypted: bool,
    document: &mut Document<'_>,
    folder: &Path,
) -> Option<Sasl> {
    let named = file.mechanism.get();
    let Some((_, mechanism)) = MECHANISMS.iter().find(|(name, _)| name == named) else {
        document.refuse(
            &file.mechanism,
            format!("`{named}`: allowed are \"SCRAM-SHA-512\", \"SCRAM-SHA-256\" and, with `tls`, \"PLAIN\""),
        );
        return None;
    };
    if *mechanism == Mechanism::Plain && !is_encrypted {
        document.refuse(&file.mechanism, "PLAIN sends the password: add `tls`, or use \"SCRAM-SHA-512\"");
        return None;
    }
    if file.username.get().is_empty() {
        document.refuse(&file.username, "the brokers know the agent by a name: write it");
        return None;
    }
    let password_file = folder.join(file.password_file.get());
    Some(Sasl { mechanism: *mechanism, username: file.username.get().clone(), password_file })
}

#[cfg(test)]
mod tests;
