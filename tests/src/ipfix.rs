//! Records, and what stands over a batch of them, as sinks are given them; what collectors make of them.

pub mod collectors;
pub mod decoded;
pub mod sinks;
pub mod streams;

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use minimizer::delivery::sink::{CHUNK_RECORDS_MAX, Heading, Interface, Losses, Sink, SinkError, Taken};
use minimizer::policy::field::Fields;
use minimizer::policy::model::Policy;
use minimizer::records::record::Record;
use minimizer_common::tuple::{Tags, Tuple};

/// Longest wait for what must come; beyond, something is stuck.
pub const LIMIT: Duration = Duration::from_secs(60);
/// Begin of the first record, in milliseconds since 1970.
pub const START_MS: u64 = 1_790_000_000_000;

/// What stands over batches.
pub struct Offer {
    policy: Policy,
    /// The interfaces that are watched.
    pub interfaces: Vec<Interface>,
    /// Number of the last batch.
    pub number: u64,
}

impl Offer {
    /// Batches under the policy with this text.
    ///
    /// # Errors
    /// When the policy is refused.
    pub fn new(policy: &str) -> Result<Self> {
        let interfaces = vec![
            Interface { index: 2, name: "eth0".to_owned() },
            Interface { index: 17, name: "uplink-to-the-ix".to_owned() },
        ];
        let policy = Policy::parse(policy, Path::new("policies/test.toml"))?;
        Ok(Self { policy, interfaces, number: 0 })
    }

    /// Under a policy that gives its one recipient these fields as they are.
    ///
    /// # Errors
    /// When there is no such field.
    pub fn exact(fields: &[&str]) -> Result<Self> {
        Self::new(&exact(fields))
    }

    /// Puts another policy in force.
    ///
    /// # Errors
    /// When the policy is refused.
    pub fn replace(&mut self, policy: &str) -> Result<()> {
        self.policy = Policy::parse(policy, Path::new("policies/test.toml"))?;
        Ok(())
    }

    /// The fields of the recipient.
    #[must_use]
    pub fn fields(&self) -> Fields {
        self.policy.recipients[0].fields.keys().copied().collect()
    }

    /// The heading of the present batch.
    #[must_use]
    pub fn heading(&self) -> Heading<'_> {
        Heading {
            number: self.number,
            begin_ms: START_MS,
            end_ms: START_MS + 10_000,
            policy: &self.policy,
            recipient: &self.policy.recipients[0],
            has_ranks: false,
            fields: self.fields(),
            interfaces: &self.interfaces,
            losses: Losses::default(),
            records: 0,
            program_tag: "0123456789abcdef",
        }
    }

    /// Brings a batch to a sink as a sender does: after an error again, from the first record that was not taken.
    ///
    /// # Errors
    /// When the sink has not taken it for too long, with its last error.
    pub fn bring(&mut self, sink: &mut dyn Sink, records: &[Record]) -> Result<Brought> {
        self.number += 1;
        let begin = Instant::now();
        let (mut next, mut errors) = (0, Vec::new());
        loop {
            match self.try_to_bring(sink, records, &mut next) {
                Ok(taken) => return Ok(Brought { taken, errors }),
                Err(error) if begin.elapsed() > LIMIT => bail!("the sink does not take it: {error}"),
                Err(error) => errors.push(error),
            }
            thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// Brings a batch to a sink once, from `next` on.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn try_to_bring(
        &self,
        sink: &mut dyn Sink,
        records: &[Record],
        next: &mut usize,
    ) -> Result<Taken, SinkError> {
        let count = u64::try_from(records.len()).unwrap_or(u64::MAX);
        sink.begin(&Heading { records: count, ..self.heading() })?;
        while *next < records.len() {
            let end = (*next + CHUNK_RECORDS_MAX).min(records.len());
            sink.take(&records[*next..end], self.fields())?;
            *next = end;
        }
        sink.end()
    }
}

/// How a batch was brought.
#[derive(Debug)]
pub struct Brought {
    /// What the sink said at the end.
    pub taken: Taken,
    /// What it said before.
    pub errors: Vec<SinkError>,
}

/// Calls a sink until everything that it holds is delivered.
///
/// # Errors
/// When that takes too long.
pub fn settle(sink: &mut dyn Sink) -> Result<()> {
    let begin = Instant::now();
    loop {
        let said = sink.tend();
        if matches!(said, Ok(Taken::Delivered)) {
            return Ok(());
        }
        if begin.elapsed() > LIMIT {
            bail!("the sink said at last {said:?}");
        }
        thread::park_timeout(Duration::from_millis(20));
    }
}

/// A policy with one recipient that receives these fields as they are.
#[must_use]
pub fn exact(fields: &[&str]) -> String {
    let line = |field: &&str| match field.ends_with("Milliseconds") {
        true => format!("{field} = {{ coarsen = \"1s\" }}\n"),
        false => format!("{field} = \"exact\"\n"),
    };
    recipient(&fields.iter().map(line).collect::<String>())
}

/// A policy with one recipient that receives these fields.
#[must_use]
pub fn recipient(fields: &str) -> String {
    format!(
        "name = \"test\"\n[[recipients]]\nname = \"soc\"\npurpose = \"to test\"\n[recipients.fields]\n{fields}"
    )
}

/// The names of all fields.
pub const ALL_FIELDS: [&str; 20] = [
    "sourceIPv4Address",
    "destinationIPv4Address",
    "sourceIPv6Address",
    "destinationIPv6Address",
    "sourceTransportPort",
    "destinationTransportPort",
    "protocolIdentifier",
    "ipClassOfService",
    "tcpControlBits",
    "icmpTypeIPv4",
    "icmpCodeIPv4",
    "icmpTypeIPv6",
    "icmpCodeIPv6",
    "vlanId",
    "dot1qCustomerVlanId",
    "ingressInterface",
    "packetDeltaCount",
    "octetDeltaCount",
    "flowStartMilliseconds",
    "flowEndMilliseconds",
];

/// A record of IPv4: hosts are numbers in 192.0.2.0/24 and 198.51.100.0/24.
#[must_use]
pub fn ipv4(hosts: (u8, u8), ports: (u16, u16), protocol: u8, tags: Tags) -> Record {
    let addresses = [192, 0, 2, hosts.0, 198, 51, 100, hosts.1];
    record(Tuple::new([u64::from_ne_bytes(addresses), 0, 0, 0], ports, tags, protocol, 0xb8))
}

/// A record of IPv6: hosts are numbers in 2001:db8:1::/64 and 2001:db8:2::/64.
#[must_use]
pub fn ipv6(hosts: (u8, u8), ports: (u16, u16), protocol: u8, tags: Tags) -> Record {
    let network = |subnet: u8| u64::from_ne_bytes([0x20, 0x01, 0x0d, 0xb8, 0, subnet, 0, 0]);
    let host = |number: u8| u64::from_ne_bytes([0, 0, 0, 0, 0, 0, 0, number]);
    let addresses = [network(1), host(hosts.0), network(2), host(hosts.1)];
    record(Tuple::new(addresses, ports, tags.with_ipv6(), protocol, 0))
}

fn record(tuple: Tuple) -> Record {
    let packets = 1 + u64::from(tuple.source_port() % 7);
    Record {
        control_bits: if tuple.protocol() == 6 { 0x1b } else { 0 },
        tuple,
        ingress_interface: 17,
        packets,
        octets: packets * 100 + u64::from(tuple.protocol()),
        start_ms: START_MS,
        end_ms: START_MS + 7_000,
        selector_id: 0,
    }
}

/// One record of each kind.
#[must_use]
pub fn one_of_each() -> Vec<Record> {
    let (none, tagged) = (Tags::NONE, Tags::NONE.with_vlan(100));
    vec![
        ipv4((1, 11), (40_001, 443), 6, none),
        ipv4((2, 12), (40_002, 53), 17, none),
        ipv4((3, 13), (8, 0), 1, none),
        ipv4((4, 14), (3, 1), 1, none),
        ipv4((5, 15), (0, 0), 47, none),
        ipv4((6, 16), (40_006, 22), 6, tagged),
        ipv4((7, 17), (40_007, 123), 17, tagged.with_vlan(200)),
        ipv6((1, 11), (50_001, 443), 6, none),
        ipv6((2, 12), (50_002, 53), 17, none),
        ipv6((3, 13), (135, 0), 58, none),
        ipv6((4, 14), (0, 0), 50, none),
        ipv6((5, 15), (50_005, 80), 6, tagged),
    ]
}

/// So many records, of which no two are the same.
#[must_use]
pub fn many(count: u32) -> Vec<Record> {
    let one = |number: u32| {
        let [_, high, middle, low] = number.to_be_bytes();
        let ports = (u16::from_be_bytes([middle, low]), 443);
        match number % 4 {
            0 => ipv4((high, low), ports, 6, Tags::NONE),
            1 => ipv4((high, low), ports, 17, Tags::NONE),
            2 => ipv6((high, low), ports, 6, Tags::NONE),
            _ => ipv4((high, low), ports, 6, Tags::NONE.with_vlan(7)),
        }
    };
    (0..count).map(one).collect()
}

/// Records, packets and octets.
#[must_use]
pub fn totals(records: &[Record]) -> (usize, u64, u64) {
    let sum = |part: fn(&Record) -> u64| records.iter().map(part).sum();
    (records.len(), sum(|record| record.packets), sum(|record| record.octets))
}
