//! The packets whose flow is varied: their headers, and where source address and ports lie in them.

use bench_ebpf::Layout;
use minimizer_common::tunnel::{Tunnel, Tunnels};
use serde::Serialize;

/// A kind of packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Traffic {
    /// IPv4 without options, TCP.
    Ipv4Tcp,
    /// IPv4 without options, UDP.
    Ipv4Udp,
    /// IPv6 without extension headers, TCP.
    Ipv6Tcp,
    /// IPv6 without extension headers, UDP.
    Ipv6Udp,
    /// IPv4 and TCP behind one VLAN tag.
    Vlan,
    /// IPv4 and TCP behind two MPLS labels.
    Mpls,
    /// IPv4 and TCP in a GTP-U tunnel over IPv4 and UDP: the inner flow varies, the outer does not.
    GtpU,
}

/// Where all IPv4 packets go; the wrapper writes the source.
pub const IPV4_DESTINATION: [u8; 4] = [198, 51, 100, 7];
/// Octets 8 to 12 of the IPv6 source address, which the wrapper stores together with the last four.
const IPV6_SOURCE_MIDDLE: [u8; 4] = [0x02, 0x00, 0x5e, 0x10];
/// Octets of Ethernet, IPv4, UDP and TCP headers.
const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
const UDP: usize = 8;
const GTP_U: usize = 8;
const TCP_PROTOCOL: u8 = 6;
const UDP_PROTOCOL: u8 = 17;
/// With ACK set and no payload.
const TCP_HEADER: [u8; 20] = [0, 0, 1, 0xbb, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0];
/// Without checksum, and twelve octets of payload, so that it is as long as [`TCP_HEADER`].
const UDP_PACKET: [u8; 20] = [0, 0, 1, 0xbb, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// Of the frames, as if sent to another host, so that a network stack drops them where it gets them.
const MAC_ADDRESSES: [u8; 12] = [2, 0, 0, 0, 0x10, 2, 2, 0, 0, 0, 0x10, 1];

impl Traffic {
    /// All kinds; the first is what the others are compared with.
    pub const ALL: [Self; 7] =
        [Self::Ipv4Tcp, Self::Ipv4Udp, Self::Vlan, Self::Mpls, Self::GtpU, Self::Ipv6Tcp, Self::Ipv6Udp];

    /// Name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipv4Tcp => "IPv4 TCP",
            Self::Ipv4Udp => "IPv4 UDP",
            Self::Ipv6Tcp => "IPv6 TCP",
            Self::Ipv6Udp => "IPv6 UDP",
            Self::Vlan => "VLAN, IPv4 TCP",
            Self::Mpls => "MPLS × 2, IPv4 TCP",
            Self::GtpU => "GTP-U, inner IPv4 TCP",
        }
    }

    /// Whether the packet that is counted is IPv6.
    #[must_use]
    pub const fn is_ipv6(self) -> bool {
        matches!(self, Self::Ipv6Tcp | Self::Ipv6Udp)
    }

    /// IP length of the packet that is counted.
    #[must_use]
    pub const fn octets(self) -> u64 {
        if self.is_ipv6() { 60 } else { 40 }
    }

    /// Flows that a table of this build must be made for, which are IPv4 flows, to hold so many of these flows in full.
    #[must_use]
    pub const fn room(self, flows: u32) -> u32 {
        if self.is_ipv6() { flows * 2 } else { flows }
    }

    /// Tunnels that must be listed for the flow to be seen.
    #[must_use]
    pub const fn tunnels(self) -> Tunnels {
        match self {
            Self::GtpU => Tunnels::NONE.with(Tunnel::GtpU),
            _ => Tunnels::NONE,
        }
    }

    /// Octets before the IP header whose packet is counted.
    const fn ip_offset(self) -> usize {
        ETHERNET
            + match self {
                Self::Vlan => 4,
                Self::Mpls => 8,
                Self::GtpU => IPV4 + UDP + GTP_U,
                _ => 0,
            }
    }

    /// Where the wrapper writes.
    #[must_use]
    pub const fn layout(self) -> Layout {
        let ip = self.ip_offset();
        let (address, rest, shift, ports) = if self.is_ipv6() {
            // The lower half of the source address.
            (ip + 16, u32::from_ne_bytes(IPV6_SOURCE_MIDDLE) as u64, 32, ip + IPV6)
        } else {
            // Source and destination lie together.
            (ip + 12, (u32::from_ne_bytes(IPV4_DESTINATION) as u64) << 32, 0, ip + IPV4)
        };
        Layout { address: address as u64, rest, shift, ports: ports as u64 }
    }

    /// The packet, padded to the shortest Ethernet frame.
    #[must_use]
    pub fn frame(self) -> Vec<u8> {
        let mut frame = MAC_ADDRESSES.to_vec();
        let (protocol, transport) = match self {
            Self::Ipv4Udp | Self::Ipv6Udp => (UDP_PROTOCOL, UDP_PACKET),
            _ => (TCP_PROTOCOL, TCP_HEADER),
        };
        match self {
            Self::Ipv4Tcp | Self::Ipv4Udp => frame.extend([0x08, 0x00]),
            Self::Ipv6Tcp | Self::Ipv6Udp => frame.extend([0x86, 0xdd]),
            Self::Vlan => frame.extend([0x81, 0x00, 0, 42, 0x08, 0x00]),
            // Labels 16 and 17; the second is the bottom of the stack.
            Self::Mpls => frame.extend([0x88, 0x47, 0, 1, 0x00, 64, 0, 1, 0x11, 64]),
            Self::GtpU => {
                frame.extend([0x08, 0x00]);
                let length = 40 + GTP_U + UDP;
                frame.extend(ipv4(UDP_PROTOCOL, length));
                // Source and destination port 2152; length; no checksum.
                frame.extend([0x08, 0x68, 0x08, 0x68, 0, 56, 0, 0]);
                // Version 1, user data, length, tunnel endpoint.
                frame.extend([0x30, 255, 0, 40, 0, 0, 0, 7]);
            }
        }
        if self.is_ipv6() {
            frame.extend([0x60, 0, 0, 0, 0, 20, protocol, 64, 0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0]);
            frame.extend(IPV6_SOURCE_MIDDLE);
            frame.extend([0, 0, 0, 1]);
            frame.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        } else {
            frame.extend(ipv4(protocol, transport.len()));
        }
        frame.extend(transport);
        frame.resize(frame.len().max(60), 0);
        frame
    }

    /// The packet with an entry of the schedule in it: what the wrapper does in the kernel.
    #[must_use]
    pub fn varied(self, entry: u64) -> Vec<u8> {
        let (mut frame, layout) = (self.frame(), self.layout());
        let [address, ports] =
            [layout.address, layout.ports].map(|offset| usize::try_from(offset).expect("frames are short"));
        frame[address..address + 8].copy_from_slice(&layout.address_word(entry).to_ne_bytes());
        frame[ports..ports + 4].copy_from_slice(&entry.to_ne_bytes()[4..]);
        frame
    }
}

/// An IPv4 header without options before `octets` octets. Nobody checks its checksum.
fn ipv4(protocol: u8, octets: usize) -> [u8; IPV4] {
    let length = u8::try_from(IPV4 + octets).expect("the bench's packets are short");
    let mut header = [0x45, 0, 0, length, 0, 0, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 0, 0, 0, 0];
    header[16..].copy_from_slice(&IPV4_DESTINATION);
    header
}

#[cfg(test)]
mod tests {
    use super::Traffic;
    use minimizer_ebpf::parser::cursor::Cursor;
    use minimizer_ebpf::parser::walk::{Packet, walk};

    fn walked(traffic: Traffic, frame: &[u8]) -> Packet {
        walk(&mut Cursor::over(frame), traffic.tunnels()).expect("the frame is well-formed")
    }

    #[test]
    fn the_frame_is_a_packet_and_the_wrapper_changes_only_its_source() {
        for traffic in Traffic::ALL {
            let before = walked(traffic, &traffic.frame());
            let after = walked(traffic, &traffic.varied(0x5678_1234_0403_0201));
            assert_eq!(u64::from(before.length_octets), traffic.octets(), "{traffic:?}");
            assert_ne!(before.addresses, after.addresses);
            assert_eq!(after.ports, (0x3412, 0x7856));
            let same = |packet: &Packet| {
                (
                    packet.protocol,
                    packet.control_bits,
                    packet.tags,
                    packet.traffic_class,
                    packet.length_octets,
                )
            };
            assert_eq!(same(&before), same(&after));
            assert_eq!(after.tags.is_ipv6(), traffic.is_ipv6());
            // Nothing but the last four octets of the source address changed.
            let changed: Vec<u64> =
                before.addresses.iter().zip(after.addresses).map(|(before, after)| before ^ after).collect();
            if traffic.is_ipv6() {
                assert!(changed[0] == 0 && changed[1] << 32 == 0 && changed[2..] == [0; 2]);
            } else {
                assert!(changed[0] <= u64::from(u32::MAX) && changed[1..] == [0; 3]);
            }
        }
    }
}
