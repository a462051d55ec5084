//! Plain frames of which every field is known and can be altered: what a policy omits of them must not matter.

use minimizer::policy::field::Field;
use minimizer::policy::join::Collected;
use minimizer::policy::transform::{AddressTransform, Transform};
use rand::RngExt as _;
use rand::rngs::ChaCha8Rng;
use rand::seq::IndexedRandom as _;

/// The fields of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bare {
    /// VLAN identifiers, outermost first: at most two.
    pub vlan_ids: Vec<u16>,
    /// Whether it is IPv6.
    pub ipv6: bool,
    /// Source and destination; of IPv4 the first four octets.
    pub addresses: [[u8; 16]; 2],
    /// IPv4 type of service, IPv6 traffic class.
    pub traffic_class: u8,
    /// Protocol: 1, 6, 17, 47 or 58.
    pub protocol: u8,
    /// Ports, or type and code.
    pub ports: (u16, u16),
    /// TCP control bits.
    pub control_bits: u16,
    /// When it comes, in milliseconds since 1970.
    pub time_ms: u64,
}

impl Bare {
    /// A frame drawn at random, whose addresses begin with one of these networks.
    pub fn draw(random: &mut ChaCha8Rng, start_ms: u64, networks: [&[[u8; 4]]; 2]) -> Self {
        let ipv6 = random.random();
        let network = networks[usize::from(ipv6)];
        let address = |random: &mut ChaCha8Rng| {
            let mut address: [u8; 16] = random.random();
            let prefix = network.choose(random).expect("not empty");
            let kept = if ipv6 { 4 } else { 3 };
            address[..kept].copy_from_slice(&prefix[..kept]);
            if !ipv6 {
                address[4..].fill(0);
            }
            address
        };
        let addresses = [address(random), address(random)];
        let protocol =
            *if ipv6 { &[6, 17, 58, 47] } else { &[6, 17, 1, 47] }.choose(random).expect("not empty");
        let ports = match protocol {
            1 | 58 => (random.random_range(0..256), random.random_range(0..256)),
            47 => (0, 0),
            _ => (random.random(), random.random()),
        };
        Self {
            vlan_ids: (0..random.random_range(0..3)).map(|_| random.random_range(0..4096)).collect(),
            ipv6,
            addresses,
            traffic_class: random.random(),
            protocol,
            ports,
            control_bits: if protocol == 6 { random.random_range(0..4096) } else { 0 },
            time_ms: start_ms + random.random_range(0..10_000),
        }
    }

    /// The frame; everything that no field is made of is drawn at random.
    pub fn frame(&self, random: &mut ChaCha8Rng) -> Vec<u8> {
        let mut frame: Vec<u8> = (0..12).map(|_| random.random()).collect();
        for vlan_id in &self.vlan_ids {
            let priority: u16 = random.random_range(0..16);
            frame.extend([0x81, 0x00]);
            frame.extend((priority << 12 | vlan_id).to_be_bytes());
        }
        let mut transport: [u8; 24] = random.random();
        let (first, second) = self.ports;
        match self.protocol {
            1 | 58 => {
                transport[0] = u8::try_from(first).expect("a type");
                transport[1] = u8::try_from(second).expect("a code");
            }
            6 | 17 => {
                transport[..2].copy_from_slice(&first.to_be_bytes());
                transport[2..4].copy_from_slice(&second.to_be_bytes());
            }
            _ => {}
        }
        if self.protocol == 6 {
            transport[12..14].copy_from_slice(&(0x5000 | self.control_bits).to_be_bytes());
        }
        let class = self.traffic_class;
        if self.ipv6 {
            frame.extend([0x86, 0xdd, 0x60 | class >> 4, class << 4 | random.random_range(0..16)]);
            frame.extend(random.random::<[u8; 2]>());
            frame.extend([0, 24, self.protocol, random.random()]);
            frame.extend(self.addresses.concat());
        } else {
            frame.extend([0x08, 0x00, 0x45, class, 0, 44]);
            frame.extend(random.random::<[u8; 2]>());
            frame.extend([0, 0, random.random(), self.protocol]);
            frame.extend(random.random::<[u8; 2]>());
            frame.extend(self.addresses.iter().flat_map(|address| &address[..4]));
        }
        frame.extend(transport);
        frame
    }

    /// The same, but for what nobody receives: every bit of that is drawn anew. What depends on prefixes and
    /// indicators is for the caller to check.
    pub fn altered(&self, random: &mut ChaCha8Rng, collected: &Collected) -> Self {
        let transform = |field: Field| collected.fields.get(&field).copied();
        let mut other = self.clone();
        let fields = if self.ipv6 {
            [Field::SourceIPv6Address, Field::DestinationIPv6Address]
        } else {
            [Field::SourceIPv4Address, Field::DestinationIPv4Address]
        };
        let length = if self.ipv6 { 16 } else { 4 };
        for (address, field) in other.addresses.iter_mut().zip(fields) {
            // By class the more that is kept; the caller finds out whether the class is still the same.
            let kept = match transform(field) {
                None => 0,
                Some(Transform::Address { foreign, domestic }) => {
                    kept_bits(foreign, length).max(kept_bits(domestic, length))
                }
                Some(_) => length * 8,
            };
            for bit in kept..length * 8 {
                if random.random() {
                    address[bit / 8] ^= 0x80 >> (bit % 8);
                }
            }
        }
        if transform(Field::VlanId).is_none() && transform(Field::Dot1qCustomerVlanId).is_none() {
            other.vlan_ids.iter_mut().for_each(|vlan_id| *vlan_id = random.random_range(0..4096));
        }
        if transform(Field::IpClassOfService).is_none() {
            other.traffic_class = random.random();
        }
        other.ports = match self.protocol {
            1 => icmp(random, self.ports, [transform(Field::IcmpTypeIPv4), transform(Field::IcmpCodeIPv4)]),
            58 => icmp(random, self.ports, [transform(Field::IcmpTypeIPv6), transform(Field::IcmpCodeIPv6)]),
            47 => (0, 0),
            _ => (
                port(random, self.ports.0, transform(Field::SourceTransportPort)),
                port(random, self.ports.1, transform(Field::DestinationTransportPort)),
            ),
        };
        if self.protocol == 6 {
            let mask = match transform(Field::TcpControlBits) {
                None => 0,
                Some(Transform::ControlBits { mask }) => mask,
                Some(_) => 0xfff,
            };
            other.control_bits = self.control_bits & mask | random.random_range(0..4096) & !mask;
        }
        let unit = match transform(Field::FlowStartMilliseconds).or(transform(Field::FlowEndMilliseconds)) {
            Some(Transform::Coarsened { unit }) => u64::try_from(unit.as_millis()).expect("at most an hour"),
            _ => 3_600_000,
        };
        other.time_ms = self.time_ms - self.time_ms % unit + random.random_range(0..unit);
        other
    }
}

const fn kept_bits(transform: AddressTransform, length: usize) -> usize {
    match transform {
        AddressTransform::Omitted => 0,
        AddressTransform::Truncated { bits } => bits as usize,
        // Of a pseudonym nothing can be left out.
        _ => length * 8,
    }
}

fn port(random: &mut ChaCha8Rng, port: u16, transform: Option<Transform>) -> u16 {
    match transform {
        None => random.random(),
        Some(Transform::PortClasses) => match port {
            0..1024 => random.random_range(0..1024),
            1024..49_152 => random.random_range(1024..49_152),
            49_152.. => random.random_range(49_152..=u16::MAX),
        },
        Some(Transform::ServicePorts { below }) if port >= below => random.random_range(below..=u16::MAX),
        Some(Transform::ListedPorts { below, listed }) if port >= below && !listed.has(port) => loop {
            let other = random.random_range(below..=u16::MAX);
            if !listed.has(other) {
                break other;
            }
        },
        Some(Transform::StoredPorts { below, listed }) => {
            let is_kept = |port| port < below || listed.is_some_and(|listed| listed.has(port));
            loop {
                let other = self::port(random, port, Some(Transform::PortClasses));
                if other == port || !is_kept(port) && !is_kept(other) {
                    break other;
                }
            }
        }
        Some(_) => port,
    }
}

fn icmp(random: &mut ChaCha8Rng, (first, second): (u16, u16), kept: [Option<Transform>; 2]) -> (u16, u16) {
    let mut part = |value, kept: Option<Transform>| {
        if kept.is_some() { value } else { random.random_range(0..256) }
    };
    (part(first, kept[0]), part(second, kept[1]))
}
