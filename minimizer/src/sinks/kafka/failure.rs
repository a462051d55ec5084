//! What the client's errors mean to an operator.

use std::error::Error as _;

use rskafka::ConnectionError;
use rskafka::client::error::{Error, ProtocolError};
use rskafka::client::partition::PartitionClient;
use tokio::task::JoinError;

use super::backlog::Failure;
use super::config::KafkaConfig;
use crate::delivery::loss::Loss;

/// Parts of the client's messages when certificate or password were refused. It keeps no error with a type to match.
const REFUSALS: [&str; 4] = ["Sasl", "certificate", "received fatal alert", "Hostname"];

/// Part of the client's message when the first request on a connection was not answered.
const UNANSWERED: &str = "cannot sync versions";

/// A failure on the way to the brokers.
#[must_use]
pub fn of(error: &Error, config: &KafkaConfig) -> Failure {
    let mut failure = failure(error, &config.brokers.join(", "));
    // A broker checks the agent's certificate after the agent's side of the handshake, and may hang up without a reason.
    if config.tls.is_some() && failure.message.contains(UNANSWERED) {
        failure.loss = Loss::Refused;
        failure.message += "; or does it refuse the agent's certificate (`tls.certificate`)?";
    }
    failure
}

/// A failure on the way to a partition.
#[must_use]
pub fn of_partition(error: &Error, partition: &PartitionClient) -> Failure {
    failure(error, &format!("topic {}, partition {}", partition.topic(), partition.partition()))
}

/// A task of the agent itself did not end as it should.
#[must_use]
pub fn of_task(error: &JoinError) -> Failure {
    Failure { loss: Loss::Unreachable, message: format!("the connection was given up: {error}") }
}

/// The failure when there is no such topic.
#[must_use]
pub fn no_topic(config: &KafkaConfig) -> Failure {
    let (topic, brokers) = (&config.topic, config.brokers.join(", "));
    Failure {
        loss: Loss::Refused,
        message: format!(
            "{brokers}: there is no topic `{topic}`, or the agent may not see it; create it (`kafka-topics.sh --create \
             --topic {topic}`), or permit DESCRIBE and WRITE"
        ),
    }
}

fn failure(error: &Error, place: &str) -> Failure {
    let error = cause(error);
    let (loss, fix) = match protocol_error(error) {
        Some(error) => of_protocol(error),
        None => {
            let said = error.to_string();
            match REFUSALS.iter().any(|refusal| said.contains(refusal)) {
                true => (Loss::Refused, "check `tls` and `sasl` against what the brokers' listener wants"),
                false => (
                    Loss::Unreachable,
                    "is a broker there, does it want TLS, and does a firewall lie between?",
                ),
            }
        }
    };
    Failure { loss, message: format!("{place}: {}; {fix}", said(error)) }
}

/// The client's message, without its description of the request and of its attempts.
fn said(error: &Error) -> String {
    match error {
        Error::ServerError { protocol_error, .. } => format!("the broker answers {protocol_error:?}"),
        Error::Connection(ConnectionError::RetryFailed(attempts)) => {
            attempts.source().map_or_else(|| error.to_string(), ToString::to_string)
        }
        other => other.to_string(),
    }
}

/// The error behind the client's attempts.
fn cause(error: &Error) -> &Error {
    match error {
        Error::RetryFailed(attempts) => {
            attempts.source().and_then(|source| source.downcast_ref()).map_or(error, cause)
        }
        _ => error,
    }
}

const fn protocol_error(error: &Error) -> Option<ProtocolError> {
    match error {
        Error::ServerError { protocol_error, .. } => Some(*protocol_error),
        _ => None,
    }
}

const fn of_protocol(error: ProtocolError) -> (Loss, &'static str) {
    match error {
        ProtocolError::TopicAuthorizationFailed
        | ProtocolError::ClusterAuthorizationFailed
        | ProtocolError::SaslAuthenticationFailed => {
            (Loss::Refused, "permit DESCRIBE and WRITE on the topic")
        }
        ProtocolError::UnknownTopicOrPartition | ProtocolError::InvalidTopicException => {
            (Loss::Refused, "was the topic deleted?")
        }
        ProtocolError::MessageTooLarge | ProtocolError::RecordListTooLarge => {
            (Loss::Refused, "let `max.message.bytes` of the topic be 1 MiB or more")
        }
        ProtocolError::InvalidTimestamp => (
            Loss::Refused,
            "the topic's bounds of message timestamps are narrower than clocks differ, or records wait",
        ),
        ProtocolError::UnsupportedCompressionType | ProtocolError::UnsupportedForMessageFormat => {
            (Loss::Refused, "the brokers are too old for this `compression`")
        }
        ProtocolError::NotEnoughReplicas
        | ProtocolError::NotEnoughReplicasAfterAppend
        | ProtocolError::RequestTimedOut
        | ProtocolError::ThrottlingQuotaExceeded
        | ProtocolError::KafkaStorageError => {
            (Loss::Stalled, "look at the brokers: replicas in sync, disks, quotas")
        }
        _ => (Loss::Unreachable, "look at the brokers' logs"),
    }
}
