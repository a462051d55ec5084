//! The Kafka sink: records become messages of a topic, and are delivered when all replicas in sync have them.
//!
//! Records are held until they are acknowledged, and sent again when a connection breaks before that. So each arrives at
//! least once, and only those that were on their way when it broke can arrive twice. See docs/KAFKA.md.

mod access;
mod backlog;
mod config;
mod connection;
mod failure;
mod flow;
mod messages;

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};

use crate::delivery::loss::Loss;
use crate::delivery::sink::{Heading, Sink, SinkError, Taken};
use crate::policy::field::Fields;
use crate::records::record::Record;
use backlog::{Backlog, Failure};
pub use config::{
    BrokerTlsFile, Compression, KafkaConfig, KafkaFile, Mechanism, MessageFormat, PartitionBy, Sasl, SaslFile,
};
use connection::Connection;
use messages::{Common, MessageEncoder};

/// No more records are taken while more octets (before compression) wait for acknowledgement.
const BACKLOG_OCTETS: usize = 8 << 20;
/// Longest wait for room in the backlog, and for the last acknowledgements when the agent ends.
const WAIT_LIMIT: Duration = Duration::from_millis(1500);
/// Longest wait for acknowledgements at the end of a batch. A later call notices later ones.
const END_LIMIT: Duration = Duration::from_millis(500);
/// Pause before looking for acknowledgements again.
const TEND_PAUSE: Duration = Duration::from_millis(100);
/// Longest wait for requests that are on their way when a connection has failed.
const SETTLE_LIMIT: Duration = Duration::from_millis(500);

/// A sink that sends to a Kafka topic.
pub struct Kafka {
    name: String,
    config: KafkaConfig,
    exporter: String,
    /// Tells messages of this run of the agent from those of others whose times are rounded to the same unit.
    run: String,
    runtime: Option<Runtime>,
    connection: Option<Connection>,
    backlog: Arc<Backlog>,
    /// The batch that is being taken, by number and begin.
    batch: Option<((u64, u64), MessageEncoder)>,
    tend_at: Option<Instant>,
}

impl Kafka {
    /// A sink of that name.
    #[must_use]
    pub fn new(name: &str, config: &KafkaConfig) -> Self {
        let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self {
            name: name.to_owned(),
            exporter: config.exporter.clone().unwrap_or_else(host),
            config: config.clone(),
            run: format!("{:016x}", RandomState::new().hash_one(name)),
            runtime: None,
            connection: None,
            backlog: Arc::default(),
            batch: None,
            tend_at: None,
        }
    }

    /// Connects, unless that is done.
    fn connect(&mut self) -> Result<(), SinkError> {
        if self.runtime.is_none() {
            // One thread compresses and sends while the sender's own makes messages.
            let runtime =
                Builder::new_multi_thread().worker_threads(1).thread_name(&self.name).enable_all().build();
            let runtime = runtime.map_err(|error| {
                SinkError::new(Loss::Unreachable, format!("there is no thread to connect with: {error}"))
            })?;
            self.runtime = Some(runtime);
        }
        let runtime = self.runtime.as_ref().expect("was just made");
        if let Some(connection) = &mut self.connection {
            if self.backlog.octets() > 0 || connection.is_current(runtime, &self.config.topic) {
                return Ok(());
            }
            self.disconnect();
        }
        let runtime = self.runtime.as_ref().expect("was just made");
        let connection = Connection::open(runtime, &self.config, &self.backlog).map_err(sink_error)?;
        self.connection = Some(connection);
        Ok(())
    }

    fn disconnect(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.backlog.settle(SETTLE_LIMIT);
            connection.close();
        }
    }

    /// Waits until at most so many octets are unacknowledged; returns whether that is so.
    fn wait(&mut self, octets: usize, limit: Duration) -> Result<bool, SinkError> {
        let waited = self.backlog.wait(octets, limit);
        waited.map_err(|failure| {
            self.disconnect();
            sink_error(failure)
        })
    }

    fn stalled(&self) -> SinkError {
        let (topic, limit) = (&self.config.topic, WAIT_LIMIT);
        let message = format!(
            "topic {topic}: {} octets are not acknowledged, and no room for more came in {limit:?}; look at the brokers' \
             load, or use `compression`",
            self.backlog.octets()
        );
        SinkError::new(Loss::Stalled, message)
    }

    /// Whether everything taken so far is delivered.
    fn taken(&mut self) -> Taken {
        if self.backlog.octets() == 0 {
            self.tend_at = None;
            return Taken::Delivered;
        }
        self.tend_at = Some(Instant::now() + TEND_PAUSE);
        Taken::Held
    }
}

fn sink_error(failure: Failure) -> SinkError {
    SinkError::new(failure.loss, failure.message)
}

impl Sink for Kafka {
    fn begin(&mut self, heading: &Heading<'_>) -> Result<(), SinkError> {
        let batch = (heading.number, heading.begin_ms);
        // After an error the same batch goes on, and its messages are numbered without a gap.
        if self.batch.as_ref().is_none_or(|(known, _)| *known != batch) {
            let common = Common::new(heading, &self.exporter, &self.run);
            self.batch = Some((batch, MessageEncoder::new(common, self.config.records_per_message)));
        }
        self.connect()
    }

    fn take(&mut self, records: &[Record], fields: Fields) -> Result<Taken, SinkError> {
        if !self.wait(BACKLOG_OCTETS, WAIT_LIMIT)? {
            return Err(self.stalled());
        }
        let Some((_, encoder)) = self.batch.as_mut().filter(|_| self.connection.is_some()) else {
            return Err(SinkError::new(Loss::Unreachable, "records came without a begin of their batch"));
        };
        self.backlog.add(encoder.encode(records, fields, self.backlog.partitions()));
        Ok(self.taken())
    }

    fn end(&mut self) -> Result<Taken, SinkError> {
        self.wait(0, END_LIMIT)?;
        Ok(self.taken())
    }

    fn tend_at(&self) -> Option<Instant> {
        self.tend_at
    }

    fn tend(&mut self) -> Result<Taken, SinkError> {
        if self.backlog.octets() > 0 {
            self.connect()?;
            self.wait(0, END_LIMIT)?;
        }
        Ok(self.taken())
    }

    fn close(&mut self) -> Result<Taken, SinkError> {
        if self.backlog.octets() > 0 {
            self.connect()?;
            if !self.wait(0, WAIT_LIMIT)? {
                return Err(self.stalled());
            }
        }
        Ok(self.taken())
    }

    fn octets_written(&self) -> u64 {
        self.backlog.acknowledged()
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Dropping must not wait for brokers.
            runtime.shutdown_background();
        }
    }
}
