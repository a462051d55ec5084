//! Sinks, without an agent: what a record costs until the sink says that it is out of its hands, and how large it is then.

use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use minimizer::delivery::sink::Sink;
use minimizer::records::record::Record;
use minimizer::sinks::files::{FilesConfig, Format};
use minimizer::sinks::ipfix::{IpfixConfig, IpfixFile};
use minimizer::sinks::kafka::{Compression, KafkaConfig};
use minimizer::support::toml::Document;
use rand::SeedableRng as _;
use rand::rngs::ChaCha8Rng;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use tests::kafka::batches::{Batches, bring, settle};
use tests::kafka::{Broker, TOPIC};
use tests::records::{Mix, record};

use super::statistics::Spread;

/// Records that are sent to a broker: it takes some ten thousand messages a second.
const KAFKA_RECORDS: usize = 100_000;
const PARTITIONS: usize = 4;

/// Where records go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// IPFIX over UDP to this host, where nobody reads it.
    IpfixUdp,
    /// IPFIX in a file.
    IpfixFile,
    /// JSON Lines in a file.
    JsonLines,
    /// Parquet in a file.
    Parquet,
    /// Messages of one record to a Kafka broker on this host.
    Kafka,
    /// The same with a hundred records in a message.
    KafkaTogether,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::IpfixUdp, Self::IpfixFile, Self::JsonLines, Self::Parquet, Self::Kafka, Self::KafkaTogether];

    /// Name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::IpfixUdp => "IPFIX, UDP",
            Self::IpfixFile => "IPFIX, file",
            Self::JsonLines => "JSON Lines",
            Self::Parquet => "Parquet, zstd",
            Self::Kafka => "Kafka, 1",
            Self::KafkaTogether => "Kafka, 100",
        }
    }

    /// Whether a broker takes them.
    #[must_use]
    pub const fn is_kafka(self) -> bool {
        matches!(self, Self::Kafka | Self::KafkaTogether)
    }
}

/// Result for one sink and mix.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Where records go.
    pub kind: Kind,
    /// What they are of.
    pub mix: Mix,
    /// Records of an interval.
    pub records: usize,
    /// CPU time of this process for a record.
    pub cpu_ns: Spread,
    /// The same on the clock, with the time in which disk or broker is waited for.
    pub elapsed_ns: Spread,
    /// Octets that were sent or written for a record.
    pub octets_per_record: f64,
}

/// Brings `records` records to a sink, `runs` times.
///
/// # Errors
/// What the sink says; when no broker starts.
pub fn measure(runs: usize, kind: Kind, mix: Mix, records: usize) -> anyhow::Result<Row> {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let records = if kind.is_kafka() { records.min(KAFKA_RECORDS) } else { records };
    let batch: Vec<Record> = (0..records).map(|_| record(&mut random, mix)).collect();
    let batches = Batches::new()?;
    let folder = tempfile::tempdir()?;
    let deaf = UdpSocket::bind("127.0.0.1:0")?;
    let broker = if kind.is_kafka() { Some(Broker::with_topic(PARTITIONS)?) } else { None };
    let (mut cpu, mut elapsed, mut octets) = (Vec::new(), Vec::new(), 0);
    for run in 0..runs {
        let directory = folder.path().join(run.to_string());
        fs::create_dir(&directory)?;
        let mut sink = match (kind, &broker) {
            (Kind::IpfixUdp, _) => {
                ipfix(&format!("collector = \"{}\"\nmessages_per_second = 4000000000", deaf.local_addr()?))?
            }
            (Kind::IpfixFile, _) => {
                ipfix(&format!("directory = \"{}\"\nrotate_octets = \"1GiB\"", directory.display()))?
            }
            (Kind::JsonLines, _) => files(&directory, Format::JsonLines),
            (Kind::Parquet, _) => files(&directory, Format::Parquet),
            (Kind::Kafka, Some(broker)) => kafka(broker, 1),
            (Kind::KafkaTogether, Some(broker)) => kafka(broker, 100),
            (Kind::Kafka | Kind::KafkaTogether, None) => anyhow::bail!("there is no broker"),
        };
        let (begin, before) = (Instant::now(), cpu_time()?);
        bring(&mut *sink, &batches.heading(1), &batch)?;
        if kind.is_kafka() {
            settle(&mut *sink)?;
        }
        sink.close()?;
        cpu.push((cpu_time()? - before).as_secs_f64() * 1e9 / records as f64);
        elapsed.push(begin.elapsed().as_secs_f64() * 1e9 / records as f64);
        octets = sink.octets_written();
    }
    Ok(Row {
        kind,
        mix,
        records,
        cpu_ns: Spread::of(cpu),
        elapsed_ns: Spread::of(elapsed),
        octets_per_record: octets as f64 / records as f64,
    })
}

fn ipfix(text: &str) -> anyhow::Result<Box<dyn Sink>> {
    let mut document = Document::new("bench".to_owned(), text);
    let file: IpfixFile = document.read().map_err(|findings| anyhow::anyhow!("{findings}"))?;
    let config = IpfixConfig::check(&file, &mut document, Path::new("")).context("it is refused")?;
    Ok(config.sink("bench"))
}

fn files(directory: &Path, format: Format) -> Box<dyn Sink> {
    let mut config = FilesConfig::new(directory.to_owned(), format);
    config.rotate_octets = u64::MAX;
    config.sink("bench")
}

fn kafka(broker: &Broker, records_per_message: usize) -> Box<dyn Sink> {
    let config = KafkaConfig {
        brokers: vec![broker.address.clone()],
        topic: TOPIC.to_owned(),
        exporter: Some("bench".to_owned()),
        compression: Compression::Zstd,
        records_per_message,
        tls: None,
        sasl: None,
    };
    config.sink("bench")
}

/// CPU time of this process: some sinks have threads of their own.
fn cpu_time() -> anyhow::Result<Duration> {
    Ok(Duration::try_from(clock_gettime(ClockId::ProcessCPUTime))?)
}
