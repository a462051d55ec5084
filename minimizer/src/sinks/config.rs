//! The sinks of agent.toml: their names, whose records they get, and how much may wait for them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::files::{FilesConfig, FilesFile};
use super::ipfix::{IpfixConfig, IpfixFile, refuse_clashes};
use super::kafka::{KafkaConfig, KafkaFile};
use crate::delivery::ending::Ending;
use crate::delivery::sink::Sink;
use crate::delivery::waiting::Bounds;
use crate::support::tls::ClientTls;
use crate::support::toml::{At, Document};

/// One of `[[sinks]]`: exactly one of `ipfix`, `files` and `kafka` says what it is.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "sink")]
pub struct SinkFile {
    /// Its name in metrics, in the status and in the ledger: letters, digits, '.', '_' and '-'.
    pub name: At<String>,
    /// The recipient of the policy whose records it gets.
    pub recipient: At<String>,
    /// How many records may wait, as collected. With more, the oldest batches are dropped; one batch may always wait.
    #[schemars(range(min = 1))]
    pub queue_records: Option<At<u64>>,
    /// Memory of the batches that may wait, like "128MiB".
    pub queue_bytes: Option<At<String>>,
    /// IPFIX, to a collector or in files.
    pub ipfix: Option<At<IpfixFile>>,
    /// Files of JSON Lines or Parquet.
    pub files: Option<At<FilesFile>>,
    /// Messages to Kafka.
    pub kafka: Option<At<KafkaFile>>,
}

/// A configured sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkConfig {
    /// Its name.
    pub name: String,
    /// Whose records it gets.
    pub recipient: String,
    /// How much may wait for it.
    pub bounds: Bounds,
    kind: SinkKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum SinkKind {
    Ipfix(IpfixConfig),
    Files(FilesConfig),
    Kafka(KafkaConfig),
}

impl SinkConfig {
    /// Checks the sinks of agent.toml, whose folder is `folder`.
    pub(crate) fn check(
        files: &[At<SinkFile>],
        document: &mut Document<'_>,
        folder: &Path,
    ) -> Vec<SinkConfig> {
        let mut names = BTreeSet::new();
        let mut sinks = Vec::new();
        for file in files {
            let name = file.get().name.get();
            if !is_name(name) {
                document.refuse(&file.get().name, "a name has 1 to 64 letters, digits, '.', '_' and '-'");
            } else if !names.insert(name.clone()) || name == crate::sinks::stdout::STANDARD_OUTPUT {
                document.refuse(&file.get().name, format!("another sink is called `{name}`"));
            }
            sinks.extend(one(file, document, folder).map(|sink| (file.get(), sink)));
        }
        let ipfix = sinks.iter().filter_map(|(file, sink)| match &sink.kind {
            SinkKind::Ipfix(config) => Some((sink.name.as_str(), file.ipfix.as_ref()?.get(), config)),
            SinkKind::Files(_) | SinkKind::Kafka(_) => None,
        });
        refuse_clashes(&ipfix.collect::<Vec<_>>(), document);
        sinks.into_iter().map(|(_, sink)| sink).collect()
    }

    /// The kind of the sink.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match &self.kind {
            SinkKind::Ipfix(_) => "ipfix",
            SinkKind::Files(_) => "files",
            SinkKind::Kafka(_) => "kafka",
        }
    }

    /// Time after which it closes a file, and lets others read it; `None` for a sink without files.
    #[must_use]
    pub const fn rotate_every(&self) -> Option<Duration> {
        match &self.kind {
            SinkKind::Ipfix(config) => config.rotate_every(),
            SinkKind::Files(config) => Some(config.rotate_every),
            SinkKind::Kafka(_) => None,
        }
    }

    /// Where it writes files; `None` for a sink without files.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        match &self.kind {
            SinkKind::Ipfix(config) => config.directory(),
            SinkKind::Files(config) => Some(&config.directory),
            SinkKind::Kafka(_) => None,
        }
    }

    /// The servers that it sends to, each as host and port.
    #[must_use]
    pub fn servers(&self) -> Vec<String> {
        match &self.kind {
            SinkKind::Ipfix(config) => {
                config.collector().map(|(_, server)| server.to_owned()).into_iter().collect()
            }
            SinkKind::Files(_) => Vec::new(),
            SinkKind::Kafka(config) => config.brokers.clone(),
        }
    }

    /// Whether it speaks TLS to its servers.
    #[must_use]
    pub const fn is_encrypted(&self) -> bool {
        self.tls().is_some()
    }

    /// SHA-256 of the certificates that its servers may show; any if empty.
    #[must_use]
    pub fn pins(&self) -> &[String] {
        self.tls().map_or(&[], |tls| &tls.pins)
    }

    /// Accepts only servers that show one of these certificates.
    pub fn pin(&mut self, pins: Vec<String>) {
        let tls = match &mut self.kind {
            SinkKind::Ipfix(config) => config.tls_mut(),
            SinkKind::Files(_) => None,
            SinkKind::Kafka(config) => config.tls.as_mut(),
        };
        if let Some(tls) = tls {
            tls.pins = pins;
        }
    }

    const fn tls(&self) -> Option<&ClientTls> {
        match &self.kind {
            SinkKind::Ipfix(config) => config.tls(),
            SinkKind::Files(_) => None,
            SinkKind::Kafka(config) => config.tls.as_ref(),
        }
    }

    /// The sink. It connects, or opens files, when its first batch comes. A sink of files also deletes the files of `former`
    /// directories, which other sinks had before.
    #[must_use]
    pub fn sink(&self, former: Vec<PathBuf>, ending: &Ending) -> Box<dyn Sink> {
        match &self.kind {
            SinkKind::Ipfix(config) => config.adopting(&self.name, former, ending),
            SinkKind::Files(config) => config.adopting(&self.name, former, ending),
            SinkKind::Kafka(config) => config.sink(&self.name),
        }
    }
}

fn one(at: &At<SinkFile>, document: &mut Document<'_>, folder: &Path) -> Option<SinkConfig> {
    let file = at.get();
    let mut bounds = Bounds::default();
    if let Some(records) = &file.queue_records {
        bounds.records = *records.get();
        if bounds.records == 0 {
            document.refuse(records, "nothing would wait: allowed are 1 and more");
        }
    }
    if let Some(octets) = &file.queue_bytes {
        match octets.get().parse::<bytesize::ByteSize>() {
            Ok(size) if size.as_u64() > 0 => bounds.octets = size.as_u64(),
            _ => document.refuse(octets, "allowed is a size above 0, like \"128MiB\""),
        }
    }
    // Each kind that is given, if it is right.
    let ipfix = file.ipfix.as_ref();
    let ipfix = ipfix.map(|file| IpfixConfig::check(file.get(), document, folder).map(SinkKind::Ipfix));
    let files = file.files.as_ref();
    let files = files.map(|file| FilesConfig::check(file.get(), document, folder).map(SinkKind::Files));
    let kafka = file.kafka.as_ref();
    let kafka = kafka.map(|file| KafkaConfig::check(file.get(), document, folder).map(SinkKind::Kafka));
    let mut named = [ipfix, files, kafka].into_iter().flatten();
    let (Some(kind), None) = (named.next(), named.next()) else {
        document.refuse(at, "a sink is exactly one of `ipfix`, `files` and `kafka`");
        return None;
    };
    Some(SinkConfig {
        name: file.name.get().clone(),
        recipient: file.recipient.get().clone(),
        bounds,
        kind: kind?,
    })
}

fn is_name(name: &str) -> bool {
    let is_allowed = |octet: u8| octet.is_ascii_alphanumeric() || b"._-".contains(&octet);
    (1..=64).contains(&name.len()) && name.bytes().all(is_allowed)
}
