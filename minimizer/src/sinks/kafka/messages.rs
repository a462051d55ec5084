//! Records as Kafka messages: values, keys, times, and headers that tell policy, recipient, host and batch.

use std::collections::BTreeMap;
use std::slice;
use std::sync::Arc;

use rskafka::chrono::DateTime;
use rskafka::record::Record as KafkaRecord;

use super::flow;
use crate::delivery::sink::Heading;
use crate::policy::field::{Field, Fields};
use crate::records::record::Record;
use crate::sinks::json_lines;

/// Octets of messages, before compression, with which a request is full: half of what brokers accept by default
/// (`max.message.bytes`).
const REQUEST_OCTETS: usize = 512 << 10;
/// About how many octets Kafka's record format adds to a message, and to each of its headers.
const MESSAGE_OVERHEAD_OCTETS: usize = 12;
const HEADER_OVERHEAD_OCTETS: usize = 2;
/// The header that differs from message to message: its number in the batch.
const NUMBER: &str = "message";

/// What all messages of a batch have in common.
#[derive(Debug)]
pub struct Common {
    headers: BTreeMap<String, Vec<u8>>,
    octets: usize,
    end_ms: u64,
}

impl Common {
    /// The headers of a batch from the host of that name, in this run of the agent. Times are those that the recipient may know.
    #[must_use]
    pub fn new(heading: &Heading<'_>, exporter: &str, run: &str) -> Self {
        let [begin_ms, end_ms] = [heading.begin_ms, heading.end_ms].map(|time| heading.rounded(time));
        let headers: BTreeMap<_, _> = [
            ("policy", heading.policy.digest.clone()),
            ("recipient", heading.recipient.name.clone()),
            ("exporter", exporter.to_owned()),
            ("batch", heading.number.to_string()),
            ("run", run.to_owned()),
            ("begin", begin_ms.to_string()),
            ("end", end_ms.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value.into_bytes()))
        .into();
        let octets = headers.iter().map(|(name, value)| name.len() + value.len() + HEADER_OVERHEAD_OCTETS);
        Self { octets: octets.sum(), headers, end_ms }
    }
}

/// Messages of one request to one partition.
#[derive(Debug)]
pub struct Messages {
    common: Arc<Common>,
    /// The values of the messages, one after the other.
    values: Vec<u8>,
    messages: Vec<EncodedMessage>,
}

/// A message, whose value ends at `end`.
#[derive(Clone, Copy, Debug)]
struct EncodedMessage {
    end: usize,
    records: usize,
    key: Option<[u8; flow::KEY_OCTETS]>,
    time_ms: u64,
    number: u64,
}

impl Messages {
    const fn new(common: Arc<Common>) -> Self {
        Self { common, values: Vec::new(), messages: Vec::new() }
    }

    /// About how many octets they take before compression.
    #[must_use]
    pub fn octets(&self) -> usize {
        let each = self.common.octets + NUMBER.len() + MESSAGE_OVERHEAD_OCTETS + flow::KEY_OCTETS;
        self.values.len() + self.messages.len() * each
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.messages.len()
    }

    /// The messages in the form that the client sends.
    #[must_use]
    pub fn to_kafka(&self) -> Vec<KafkaRecord> {
        let mut begin = 0;
        let kafka = self.messages.iter().map(|message| {
            let mut headers = self.common.headers.clone();
            headers.insert(NUMBER.to_owned(), message.number.to_string().into_bytes());
            let value = self.values[begin..message.end].to_vec();
            begin = message.end;
            let time = i64::try_from(message.time_ms).ok().and_then(DateTime::from_timestamp_millis);
            KafkaRecord {
                key: message.key.map(Vec::from),
                value: Some(value),
                headers,
                timestamp: time.unwrap_or_default(),
            }
        });
        kafka.collect()
    }
}

/// Makes messages of a batch's records.
#[derive(Debug)]
pub struct MessageEncoder {
    common: Arc<Common>,
    records_per_message: usize,
    /// Number of messages of the batch so far.
    count: u64,
    /// The partition for records without a key: each call has the next.
    turn: usize,
}

impl MessageEncoder {
    /// An encoder for the batch with these headers.
    #[must_use]
    pub fn new(common: Common, records_per_message: usize) -> Self {
        Self { common: Arc::new(common), records_per_message, count: 0, turn: 0 }
    }

    /// Encodes records with these fields for so many partitions; returns requests, each with its partition.
    #[must_use]
    pub fn encode(
        &mut self,
        records: &[Record],
        fields: Fields,
        partitions: usize,
    ) -> Vec<(usize, Messages)> {
        let empty = || Messages::new(Arc::clone(&self.common));
        let mut open: Vec<_> = (0..partitions).map(|_| empty()).collect();
        let mut full = Vec::new();
        let (mut count, mut turn) = (self.count, self.turn);
        for record in records {
            let key = flow::key(record, fields);
            let partition = key.map_or(turn, |key| flow::partition(&key, partitions));
            let messages = &mut open[partition];
            let time_ms =
                if fields.has(Field::FlowEndMilliseconds) { record.end_ms } else { self.common.end_ms };
            let last =
                messages.messages.last_mut().filter(|message| message.records < self.records_per_message);
            if let Some(message) = last {
                messages.values.push(b'\n');
                append(&mut messages.values, record, fields);
                message.end = messages.values.len();
                message.records += 1;
                message.time_ms = message.time_ms.max(time_ms);
                continue;
            }
            if messages.octets() >= REQUEST_OCTETS {
                full.push((partition, std::mem::replace(messages, empty())));
            }
            append(&mut messages.values, record, fields);
            count += 1;
            let (end, number) = (messages.values.len(), count);
            // A key would have to belong to all records of its message.
            let key = key.filter(|_| self.records_per_message == 1);
            messages.messages.push(EncodedMessage { end, records: 1, key, time_ms, number });
        }
        turn = (turn + 1) % partitions.max(1);
        (self.count, self.turn) = (count, turn);
        full.extend(open.into_iter().enumerate().filter(|(_, messages)| messages.len() > 0));
        full
    }
}

/// Appends the record with these fields, without a newline.
fn append(values: &mut Vec<u8>, record: &Record, fields: Fields) {
    json_lines::append(values, slice::from_ref(record), fields);
    values.pop();
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use minimizer_common::tuple::{Tags, Tuple};

    use super::{Common, MessageEncoder};
    use crate::delivery::sink::{Heading, Losses};
    use crate::policy::field::Fields;
    use crate::policy::model::Policy;
    use crate::records::record::Record;

    const HOUR_MS: u64 = 3_600_000;

    #[test]
    fn nothing_that_is_said_of_a_message_is_finer_than_its_recipients_times() {
        let (begin_ms, end_ms) = (5 * HOUR_MS + 1234, 5 * HOUR_MS + 11_234);
        for (field, expected) in [
            ("flowStartMilliseconds = { coarsen = \"1h\" }", (5 * HOUR_MS, 5 * HOUR_MS)),
            ("flowStartMilliseconds = { coarsen = \"10s\" }", (5 * HOUR_MS, 5 * HOUR_MS + 10_000)),
            ("vlanId = \"exact\"", (begin_ms, end_ms)),
        ] {
            let text = format!(
                "name = \"p\"\n[[recipients]]\nname = \"r\"\npurpose = \"x\"\n[recipients.fields]\n{field}\n"
            );
            let policy = Policy::parse(&text, Path::new("p.toml")).unwrap_or_else(|error| panic!("{error}"));
            let recipient = &policy.recipients[0];
            let fields: Fields = recipient.fields.keys().copied().collect();
            let losses = Losses::default();
            let heading = Heading {
                number: 1,
                begin_ms,
                end_ms,
                policy: &policy,
                recipient,
                has_ranks: false,
                fields,
                interfaces: &[],
                losses,
                records: 0,
                program_tag: "",
            };
            let record = Record {
                tuple: Tuple::new([0; 4], (0, 0), Tags::NONE, 0, 0),
                ingress_interface: 0,
                control_bits: 0,
                packets: 1,
                octets: 40,
                start_ms: 5 * HOUR_MS,
                end_ms: 0,
                selector_id: 0,
            };
            let mut encoder = MessageEncoder::new(Common::new(&heading, "host", "run"), 1);
            let messages = encoder.encode(&[record], fields, 1).remove(0).1.to_kafka();
            let header = |name: &str| String::from_utf8_lossy(&messages[0].headers[name]).into_owned();
            let said = (header("begin").parse().unwrap(), header("end").parse().unwrap());
            assert_eq!(said, expected, "{field}");
            assert_eq!(u64::try_from(messages[0].timestamp.timestamp_millis()), Ok(expected.1), "{field}");
        }
    }
}
