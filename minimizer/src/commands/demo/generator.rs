//! The demo's traffic: a fixed mix of everything that the parser knows, with some malformed packets.

use etherparse::{
    ArpHardwareId, ArpOperation, ArpPacket, EtherType, IpFragOffset, IpHeaders, IpNumber, Ipv4Extensions,
    Ipv4Header, Ipv6Extensions, Ipv6FlowLabel, Ipv6FragmentHeader, Ipv6Header, PacketBuilder,
    PacketBuilderStep, VlanId,
};
use rand::distr::weighted::WeightedIndex;
use rand::distr::{Distribution, StandardUniform};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

/// Frames, and the order in which they are sent, repeatedly.
#[derive(Clone, Debug)]
pub struct Traffic {
    frames: Vec<Vec<u8>>,
    order: Vec<usize>,
}

/// Flows in the mix.
const FLOWS: usize = 8192;
/// Frames until the mix repeats.
const ORDER_FRAMES: usize = 1 << 16;

/// Locally administered addresses that no interface has: the network stack drops the frames at once.
const SOURCE_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 1];
const DESTINATION_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 2];

/// Octets of transport payload, three sizes in about the proportion of the Internet mix 7:4:1.
const PAYLOAD_OCTETS: [(usize, u32); 3] = [(12, 7), (512, 4), (1360, 1)];

/// Ports of servers, busiest first.
const SERVER_PORTS: [u16; 10] = [443, 80, 53, 22, 123, 25, 853, 993, 3478, 5060];

impl Traffic {
    /// The mix that `seed` draws: addresses of the documentation prefixes, few busy flows and many
    /// quiet ones.
    #[must_use]
    pub fn mixed(seed: u64) -> Self {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let flows: Vec<Vec<Vec<u8>>> = (0..FLOWS).map(|_| flow(&mut random)).collect();
        // Zipf's law: the flow of rank r is as busy as 1/r.
        let weights = (1..=FLOWS).map(|rank| FLOWS * 1000 / rank);
        let popularity = WeightedIndex::new(weights).expect("weights are positive and their sum fits");
        let mut first_frame = Vec::with_capacity(FLOWS);
        let mut frames = Vec::new();
        for flow in flows {
            first_frame.push((frames.len(), flow.len()));
            frames.extend(flow);
        }
        let order = (0..ORDER_FRAMES)
            .map(|_| {
                let (first, count) = first_frame[popularity.sample(&mut random)];
                first + random.random_range(0..count)
            })
            .collect();
        Self { frames, order }
    }

    /// These frames, in this order. Those shorter than a link header are omitted: no interface takes
    /// them.
    #[must_use]
    pub fn of_frames(frames: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let frames: Vec<_> =
            frames.into_iter().filter(|frame| frame.len() >= ETHERNET_HEADER_OCTETS).collect();
        let order = (0..frames.len()).collect();
        Self { frames, order }
    }

    /// The distinct frames.
    #[must_use]
    pub fn frames(&self) -> &[Vec<u8>] {
        &self.frames
    }

    /// One round of the frames, in sending order.
    pub fn round(&self) -> impl Iterator<Item = &[u8]> + Clone {
        self.order.iter().map(|&index| &self.frames[index][..])
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

const ETHERNET_HEADER_OCTETS: usize = 14;

/// The kinds of flows, and how many of a thousand flows are of each.
const KINDS: [(Kind, u32); 8] = [
    (Kind::Tcp, 560),
    (Kind::Udp, 290),
    (Kind::Icmp, 40),
    (Kind::Sctp, 30),
    (Kind::Fragment, 30),
    (Kind::OtherProtocol, 10),
    (Kind::NonIp, 20),
    (Kind::Malformed, 20),
];

#[derive(Clone, Copy)]
enum Kind {
    Tcp,
    Udp,
    Icmp,
    Sctp,
    Fragment,
    OtherProtocol,
    NonIp,
    Malformed,
}

/// The frames of one flow.
fn flow(random: &mut Xoshiro256PlusPlus) -> Vec<Vec<u8>> {
    let ipv6 = random.random_ratio(2, 5);
    let payload = payload(random);
    let client_port = random.random_range(32_768..=60_999);
    let server_port =
        SERVER_PORTS[random.random_range(0..SERVER_PORTS.len()).min(random.random_range(0..10))];
    let ports = if random.random() { (client_port, server_port) } else { (server_port, client_port) };
    match choose(random, &KINDS) {
        Kind::Tcp => tcp(&Endpoints::draw(random, ipv6), ports, &payload),
        Kind::Udp => vec![write(|frame| {
            Endpoints::draw(random, ipv6).step(None).udp(ports.0, ports.1).write(frame, &payload)
        })],
        Kind::Icmp => vec![write(|frame| {
            let step = Endpoints::draw(random, ipv6).step(None);
            if ipv6 {
                step.icmpv6_echo_request(client_port, 1).write(frame, &payload)
            } else {
                step.icmpv4_echo_request(client_port, 1).write(frame, &payload)
            }
        })],
        Kind::Sctp => {
            let mut packet = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
            packet.extend(&payload);
            vec![write(|frame| {
                Endpoints::draw(random, ipv6).step(None).write(frame, IpNumber::SCTP, &packet)
            })]
        }
        Kind::Fragment => {
            let endpoints = Endpoints::draw(random, ipv6);
            [0, 181]
                .map(|offset| {
                    write(|frame| endpoints.step(Some(offset)).write(frame, IpNumber::UDP, &payload))
                })
                .into()
        }
        Kind::OtherProtocol => vec![write(|frame| {
            let protocol = IpNumber([2, 47, 50, 89][random.random_range(0..4)]);
            Endpoints::draw(random, ipv6).step(None).write(frame, protocol, &payload)
        })],
        Kind::NonIp => vec![non_ip(random)],
        Kind::Malformed => vec![malformed(random, ipv6, &payload)],
    }
}

/// Three packets of a connection: opening, data, end.
fn tcp(endpoints: &Endpoints, (source, destination): (u16, u16), payload: &[u8]) -> Vec<Vec<u8>> {
    let step = || endpoints.step(None).tcp(source, destination, 1, 64_240);
    vec![
        write(|frame| step().syn().write(frame, &[])),
        write(|frame| step().ack(1).psh().write(frame, payload)),
        write(|frame| step().ack(1).fin().write(frame, &[])),
    ]
}

/// Addresses, tags and traffic class of a flow.
struct Endpoints {
    vlans: Vec<VlanId>,
    source: u32,
    destination: u32,
    ipv6: bool,
    traffic_class: u8,
}

impl Endpoints {
    fn draw(random: &mut Xoshiro256PlusPlus, ipv6: bool) -> Self {
        let depth = choose(random, &[(0, 75), (1, 20), (2, 5)]);
        Self {
            vlans: (0..depth)
                .map(|_| VlanId::try_new(random.random_range(100..116)).expect("below 4096"))
                .collect(),
            source: random.random(),
            destination: random.random(),
            ipv6,
            traffic_class: choose(random, &[(0, 90), (0xb8, 5), (0x20, 5)]),
        }
    }

    /// Link and network headers; with an offset, in units of 8 octets, those of a fragment.
    fn step(&self, fragment: Option<u16>) -> PacketBuilderStep<IpHeaders> {
        let ethernet = PacketBuilder::ethernet2(SOURCE_MAC, DESTINATION_MAC);
        let ip = if self.ipv6 { self.ipv6(fragment) } else { self.ipv4(fragment) };
        match self.vlans[..] {
            [] => ethernet.ip(ip),
            [tag] => ethernet.single_vlan(tag).ip(ip),
            [outer, inner, ..] => ethernet.double_vlan(outer, inner).ip(ip),
        }
    }

    fn ipv4(&self, fragment: Option<u16>) -> IpHeaders {
        let mut header = Ipv4Header {
            source: documentation_ipv4(self.source),
            destination: documentation_ipv4(self.destination),
            time_to_live: 61,
            ..Ipv4Header::default()
        };
        header.dscp = (self.traffic_class >> 2).try_into().expect("six bits");
        if let Some(offset) = fragment {
            header.dont_fragment = false;
            header.more_fragments = offset == 0;
            header.fragment_offset = IpFragOffset::try_new(offset).expect("below 8192");
        }
        IpHeaders::Ipv4(header, Ipv4Extensions::default())
    }

    fn ipv6(&self, fragment: Option<u16>) -> IpHeaders {
        let header = Ipv6Header {
            traffic_class: self.traffic_class,
            flow_label: Ipv6FlowLabel::ZERO,
            hop_limit: 61,
            source: documentation_ipv6(self.source),
            destination: documentation_ipv6(self.destination),
            ..Ipv6Header::default()
        };
        let fragment = fragment.map(|offset| Ipv6FragmentHeader {
            fragment_offset: IpFragOffset::try_new(offset).expect("below 8192"),
            more_fragments: offset == 0,
            next_header: IpNumber::UDP,
            identification: 1,
        });
        IpHeaders::Ipv6(header, Ipv6Extensions { fragment, ..Ipv6Extensions::default() })
    }
}

/// An address of the three IPv4 documentation prefixes (RFC 5737).
fn documentation_ipv4(draw: u32) -> [u8; 4] {
    let [prefix, host, ..] = draw.to_be_bytes();
    let [a, b, c] = [[192, 0, 2], [198, 51, 100], [203, 0, 113]][usize::from(prefix) % 3];
    [a, b, c, host]
}

/// An address of the IPv6 documentation prefix (RFC 3849), in one of 256 networks.
fn documentation_ipv6(draw: u32) -> [u8; 16] {
    let [network, host @ ..] = draw.to_be_bytes();
    let mut address = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, network, 0, 0, 0, 0, 0, 0, 0, 0];
    address[13..].copy_from_slice(&host);
    address
}

/// Frames that carry no IP: ARP, the link layer discovery protocol, spanning tree (802.3 length).
fn non_ip(random: &mut Xoshiro256PlusPlus) -> Vec<u8> {
    match random.random_range(0..3) {
        0 => write(|frame| {
            let asked = documentation_ipv4(random.random());
            let arp = ArpPacket::new(
                ArpHardwareId::ETHERNET,
                EtherType::IPV4,
                ArpOperation::REQUEST,
                &SOURCE_MAC,
                &[192, 0, 2, 1],
                &[0; 6],
                &asked,
            );
            let arp = arp.expect("address lengths agree");
            PacketBuilder::ethernet2(SOURCE_MAC, DESTINATION_MAC).arp(arp).write(frame)
        }),
        1 => link_frame([0x88, 0xcc], &[0x02, 0x07, 0x04, 0x02, 0, 0, 0, 0, 1, 0, 0]),
        _ => link_frame([0, 38], &[0x42, 0x42, 0x03, 0, 0, 0, 0, 0, 0, 0x80, 0]),
    }
}

fn link_frame(ether_type: [u8; 2], content: &[u8]) -> Vec<u8> {
    let mut frame = [&DESTINATION_MAC[..], &SOURCE_MAC, &ether_type, content].concat();
    frame.resize(frame.len().max(60), 0);
    frame
}

/// A well-formed frame with one fault in its IP header.
fn malformed(random: &mut Xoshiro256PlusPlus, ipv6: bool, payload: &[u8]) -> Vec<u8> {
    let mut endpoints = Endpoints::draw(random, ipv6);
    endpoints.vlans.clear();
    let mut frame = write(|frame| endpoints.step(None).udp(1, 2).write(frame, payload));
    let ip = ETHERNET_HEADER_OCTETS;
    match random.random_range(0..4) {
        0 => frame.truncate(ip + random.random_range(0..20)),
        1 => frame[ip] = 0x90,
        // IPv4 header of 16 octets; IPv6 has no such field.
        2 if !ipv6 => frame[ip] = 0x44,
        // Longer than the frame: total length of IPv4, payload length of IPv6.
        _ => {
            let length = if ipv6 { ip + 4 } else { ip + 2 };
            frame[length] = 0x7f;
        }
    }
    frame
}

fn payload(random: &mut Xoshiro256PlusPlus) -> Vec<u8> {
    let octets = choose(random, &PAYLOAD_OCTETS);
    random.sample_iter(StandardUniform).take(octets).collect()
}

fn choose<T: Copy>(random: &mut Xoshiro256PlusPlus, weighted: &[(T, u32)]) -> T {
    let total = weighted.iter().map(|(_, weight)| weight).sum();
    let mut draw = random.random_range(0..total);
    for &(value, weight) in weighted {
        if draw < weight {
            return value;
        }
        draw -= weight;
    }
    unreachable!("the draw is below the sum of the weights")
}

fn write<E: std::fmt::Debug>(build: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Vec<u8> {
    let mut frame = Vec::new();
    build(&mut frame).expect("every packet of the mix fits its length fields");
    frame
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use minimizer_common::outcome::Outcome;
    use minimizer_common::tunnel::Tunnels;
    use minimizer_ebpf::parser::cursor::Cursor;
    use minimizer_ebpf::parser::walk::walk;

    use super::Traffic;

    #[test]
    fn the_mix_holds_every_kind_of_packet() {
        let traffic = Traffic::mixed(1);
        let mut kinds = BTreeSet::new();
        let mut outcomes = BTreeSet::new();
        for frame in traffic.round() {
            match walk(&mut Cursor::over(frame), Tunnels::NONE) {
                Ok(packet) => {
                    let has_ports = packet.ports != (0, 0);
                    kinds.insert((
                        packet.protocol,
                        packet.tags.is_ipv6(),
                        [packet.tags.vlan_id(), packet.tags.customer_vlan_id()].iter().flatten().count(),
                        has_ports,
                    ));
                }
                Err(outcome) => {
                    outcomes.insert(outcome);
                }
            }
        }
        for vlan_depth in 0..=2 {
            for ipv6 in [false, true] {
                for protocol in [6, 17, 132] {
                    assert!(
                        kinds.contains(&(protocol, ipv6, vlan_depth, true)),
                        "{protocol} {ipv6} {vlan_depth}"
                    );
                }
            }
        }
        assert!(kinds.contains(&(1, false, 0, true)) && kinds.contains(&(58, true, 0, true)), "ICMP");
        assert!(kinds.contains(&(17, false, 0, false)) && kinds.contains(&(17, true, 0, false)), "fragments");
        for outcome in [
            Outcome::NonIp,
            Outcome::Ipv4Truncated,
            Outcome::Ipv4Version,
            Outcome::Ipv4HeaderLength,
            Outcome::Ipv4TotalLength,
            Outcome::Ipv6Truncated,
            Outcome::Ipv6Version,
            Outcome::Ipv6PayloadLength,
        ] {
            assert!(outcomes.contains(&outcome), "{outcome:?}");
        }
    }

    #[test]
    fn a_seed_gives_the_same_frames_again() {
        assert!(Traffic::mixed(7).round().eq(Traffic::mixed(7).round()));
        assert!(!Traffic::mixed(7).round().eq(Traffic::mixed(8).round()));
    }

    #[test]
    fn frames_without_a_link_header_are_left_out() {
        let traffic = Traffic::of_frames([vec![0; 13], vec![1; 14]]);
        assert_eq!(traffic.round().collect::<Vec<_>>(), [[1; 14]]);
    }
}
