//! Records as a busy network would make them, drawn at random: what sinks are fed with where no agent runs. What packets add up to.

use minimizer::records::record::Record;
use minimizer_common::tuple::{Tags, Tuple};
use rand::RngExt as _;
use rand::rngs::ChaCha8Rng;
use serde::Serialize;

/// Ports that flows go to; a port that stands here more often is drawn more often.
const SERVICES: [u16; 6] = [443, 443, 443, 80, 53, 123];
/// When the flows were seen: within ten seconds from here, in whole seconds.
const BEGIN_MS: u64 = 1_795_402_050_000;

/// What the records are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mix {
    /// IPv4 and TCP.
    Ipv4Tcp,
    /// Half of them IPv6; TCP, UDP, ICMP; a quarter tagged.
    Mixed,
}

impl Mix {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ipv4Tcp, Self::Mixed];

    /// Name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipv4Tcp => "IPv4, TCP",
            Self::Mixed => "mixed",
        }
    }
}

/// Draws a flow from any client to one of ten thousand servers.
#[must_use]
pub fn record(random: &mut ChaCha8Rng, mix: Mix) -> Record {
    let is_mixed = mix == Mix::Mixed;
    let (client, server) = (random.random::<u32>(), 0x6440_0000 | random.random_range(0..10_000_u32));
    let mut tags = Tags::NONE;
    if is_mixed && random.random_ratio(1, 4) {
        tags = tags.with_vlan(random.random_range(1..20));
    }
    let words = |high: u64, low: u64| [high.to_be(), low.to_be()];
    let addresses = if is_mixed && random.random() {
        tags = tags.with_ipv6();
        let client = words(0x2001_0db8_0000_0000 | u64::from(client), random.random());
        let server = words(0x2001_0db8_ffff_0000, u64::from(server));
        [client[0], client[1], server[0], server[1]]
    } else {
        [u64::from(client) << 32 | u64::from(server), 0, 0, 0].map(u64::to_be)
    };
    let is_ipv6 = tags.is_ipv6();
    let protocol = match random.random_range(0..20) {
        0 if is_mixed => {
            if is_ipv6 {
                58
            } else {
                1
            }
        }
        1..8 if is_mixed => 17,
        _ => 6,
    };
    let ports = match protocol {
        1 => (8, 0),
        58 => (128, 0),
        _ => (random.random_range(32_768..=65_535), SERVICES[random.random_range(0..SERVICES.len())]),
    };
    let packets: u64 = 1 + u64::from(random.random::<u32>() >> random.random_range(16..32));
    let start_ms = BEGIN_MS + 1000 * random.random_range(0..10);
    Record {
        tuple: Tuple::new(addresses, ports, tags, protocol, if random.random_ratio(1, 8) { 0xb8 } else { 0 }),
        ingress_interface: 3,
        control_bits: if protocol == 6 { [2, 18, 24, 27][random.random_range(0..4)] } else { 0 },
        packets,
        octets: packets * random.random_range(40..1500),
        start_ms,
        end_ms: (start_ms + 1000 * random.random_range(0..3)).min(BEGIN_MS + 9000),
        selector_id: 0,
    }
}

/// What the packets of a flow add up to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct FlowCounts {
    /// Number of packets.
    pub packets: u64,
    /// IP octets.
    pub octets: u64,
    /// Control bits of any of them.
    pub control_bits: u16,
    /// Time of the first one, in milliseconds since 1970.
    pub start_ms: u64,
    /// Time of the last one, in milliseconds since 1970.
    pub end_ms: u64,
}

impl FlowCounts {
    /// Those of no packet, of a flow that begins then.
    #[must_use]
    pub fn from_start(start_ms: u64) -> Self {
        Self { start_ms, ..Self::default() }
    }

    /// Adds a packet.
    pub const fn add(&mut self, octets: u64, control_bits: u16, time_ms: u64) {
        self.packets += 1;
        self.octets += octets;
        self.control_bits |= control_bits;
        self.end_ms = time_ms;
    }
}

impl From<&Record> for FlowCounts {
    fn from(record: &Record) -> Self {
        let Record { packets, octets, control_bits, start_ms, end_ms, .. } = *record;
        Self { packets, octets, control_bits, start_ms, end_ms }
    }
}
