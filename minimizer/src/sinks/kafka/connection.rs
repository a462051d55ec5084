//! A connection to the brokers: the partitions of the topic, and a task that sends to each.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rskafka::BackoffConfig;
use rskafka::client::partition::{Compression as KafkaCompression, PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder};
use tokio::runtime::Runtime;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::access;
use super::backlog::{Backlog, Failure};
use super::config::{Compression, KafkaConfig};
use super::failure;
use crate::delivery::loss::Loss;

/// Time to find the brokers and the topic.
const CONNECT_LIMIT: Duration = Duration::from_millis(1500);
/// Longest wait for an acknowledgement.
const ACKNOWLEDGE_LIMIT: Duration = Duration::from_secs(10);
/// Time after which the brokers are asked again for the number of partitions.
const PARTITIONS_KNOWN: Duration = Duration::from_secs(300);
/// The longest answer that is read.
const ANSWER_OCTETS_MAX: usize = 16 << 20;

/// A connection to the brokers of a topic.
pub struct Connection {
    client: Arc<Client>,
    /// One for each partition.
    tasks: Vec<JoinHandle<()>>,
    asked: Instant,
}

impl Connection {
    /// Finds the brokers and the topic's partitions, and starts to send the backlog.
    ///
    /// # Errors
    /// When that takes too long or is refused.
    pub fn open(runtime: &Runtime, config: &KafkaConfig, backlog: &Arc<Backlog>) -> Result<Self, Failure> {
        let brokers = config.brokers.join(", ");
        let connected = runtime.block_on(async { timeout(CONNECT_LIMIT, connect(config)).await });
        let (client, partitions) = connected.unwrap_or_else(|_| {
            Err(Failure {
                loss: Loss::Unreachable,
                message: format!(
                    "{brokers}: no answer in {CONNECT_LIMIT:?}; is a broker there, and does it name addresses that \
                     this host reaches (`advertised.listeners`)?"
                ),
            })
        })?;
        backlog.resize(partitions.len());
        let compression = kafka_compression(config.compression);
        let tasks = partitions.into_iter().enumerate().map(|(partition, client)| {
            runtime.spawn(send(partition, client, Arc::clone(backlog), compression))
        });
        Ok(Self { client, tasks: tasks.collect(), asked: Instant::now() })
    }

    /// Whether the topic still has as many partitions as there are tasks. `true` where the brokers do not answer soon.
    pub fn is_current(&mut self, runtime: &Runtime, topic: &str) -> bool {
        if self.asked.elapsed() < PARTITIONS_KNOWN {
            return true;
        }
        self.asked = Instant::now();
        let topics = runtime.block_on(async { timeout(CONNECT_LIMIT, self.client.list_topics()).await });
        // When nobody answers, the next request reports why.
        let Ok(Ok(topics)) = topics else { return true };
        topics
            .iter()
            .find(|found| found.name == topic)
            .is_none_or(|found| found.partitions.len() == self.tasks.len())
    }

    /// Stops the tasks. Requests on their way may still arrive.
    pub fn close(self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn connect(config: &KafkaConfig) -> Result<(Arc<Client>, Vec<PartitionClient>), Failure> {
    let mut builder = ClientBuilder::new(config.brokers.clone())
        .client_id("minimizer")
        .max_message_size(ANSWER_OCTETS_MAX)
        .backoff_config(backoff());
    if let Some(tls) = &config.tls {
        builder = builder.tls_config(access::encryption(tls)?);
    }
    if let Some(sasl) = &config.sasl {
        builder = builder.sasl_config(access::credentials(sasl)?);
    }
    let client = builder.build().await.map_err(|error| failure::of(&error, config))?;
    let topics = client.list_topics().await.map_err(|error| failure::of(&error, config))?;
    let Some(topic) = topics.into_iter().find(|topic| topic.name == config.topic) else {
        return Err(failure::no_topic(config));
    };
    let client = Arc::new(client);
    let mut opening = JoinSet::new();
    for partition in topic.partitions {
        let (client, topic) = (Arc::clone(&client), config.topic.clone());
        opening.spawn(
            async move { client.partition_client(topic, partition, UnknownTopicHandling::Error).await },
        );
    }
    let mut partitions = Vec::new();
    while let Some(opened) = opening.join_next().await {
        let opened = opened.map_err(|error| failure::of_task(&error))?;
        partitions.push(opened.map_err(|error| failure::of(&error, config))?);
    }
    // The partitions of a topic are numbered from 0 on without a gap.
    partitions.sort_by_key(PartitionClient::partition);
    Ok((client, partitions))
}

/// How the client tries again by itself: about twice, for connections that a broker closed because they were idle and for
/// leaders that moved. Everything else is tried again by the sender, with its own back-off.
fn backoff() -> BackoffConfig {
    BackoffConfig {
        init_backoff: Duration::from_millis(50),
        max_backoff: Duration::from_millis(200),
        base: 2.0,
        deadline: Some(Duration::from_millis(300)),
    }
}

const fn kafka_compression(compression: Compression) -> KafkaCompression {
    match compression {
        Compression::None => KafkaCompression::NoCompression,
        Compression::Lz4 => KafkaCompression::Lz4,
        Compression::Zstd => KafkaCompression::Zstd,
        Compression::Snappy => KafkaCompression::Snappy,
        Compression::Gzip => KafkaCompression::Gzip,
    }
}

/// Sends the requests of a partition, one after the other, until one fails.
async fn send(
    partition: usize,
    client: PartitionClient,
    backlog: Arc<Backlog>,
    compression: KafkaCompression,
) {
    let mut more = backlog.subscribe();
    more.mark_changed();
    while more.changed().await.is_ok() {
        while let Some(messages) = backlog.depart(partition) {
            let produce = client.produce(messages.to_kafka(), compression);
            let result = match timeout(ACKNOWLEDGE_LIMIT, produce).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(failure::of_partition(&error, &client)),
                Err(_) => Err(Failure {
                    loss: Loss::Stalled,
                    message: format!(
                        "{client:?} did not acknowledge in {ACKNOWLEDGE_LIMIT:?}; look at the broker's load and at the \
                         replicas in sync of this partition"
                    ),
                }),
            };
            let has_failed = result.is_err();
            backlog.arrive(partition, &messages, result);
            if has_failed {
                return;
            }
        }
    }
}
