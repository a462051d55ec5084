//! Which frames take the short way, and that these are no others. [`walk_with`] compares what both ways find.

use std::vec;
use std::vec::Vec;

use minimizer_common::outcome::Outcome;
use minimizer_common::plan::Steps;
use minimizer_common::tunnel::Tunnels;

use crate::parser::cursor::{Frame, Split};
use crate::parser::frames::{
    IPV4, IPV6, Short, common, ethernet, ipv4_fragment, udp, walk, walk_split, walk_with,
};
use crate::parser::frames::{ipv4 as packet4, ipv6 as packet6};

const TCP: u8 = 6;
const UDP: u8 = 17;
/// The shortest Ethernet frame, without its check sequence.
const ETHERNET_MIN: usize = 60;

fn tcp(control_bits: u16, content: &[u8]) -> Vec<u8> {
    let [offset, flags] = (0x5000 | control_bits).to_be_bytes();
    let header = [0x30, 0x39, 0x01, 0xbb, 1, 2, 3, 4, 5, 6, 7, 8, offset, flags, 1, 2, 3, 4, 5, 6];
    [&header, content].concat()
}

/// A frame of the common shapes for each version and protocol, and the length of its headers.
fn plain() -> [(Vec<u8>, usize); 4] {
    let payload = [7; 40];
    [
        (ethernet(IPV4, &packet4(TCP, &tcp(0xabc, &payload))), 14 + 20 + 20),
        (ethernet(IPV4, &packet4(UDP, &udp(443, &payload))), 14 + 20 + 8),
        (ethernet(IPV6, &packet6(TCP, &tcp(0xabc, &payload))), 14 + 40 + 20),
        (ethernet(IPV6, &packet6(UDP, &udp(443, &payload))), 14 + 40 + 8),
    ]
}

fn takes(frame: &[u8]) -> bool {
    // The walk goes first: it compares both ways.
    let _ = walk(frame);
    common::<false>(&frame).is_some()
}

#[test]
fn the_common_shapes_take_the_short_way() {
    for (frame, _) in plain() {
        assert!(takes(&frame), "{frame:02x?}");
        let Short { octets, packet, transport, .. } = common::<false>(&frame.as_slice()).expect("was found");
        assert_eq!((octets as usize, Ok(packet)), (frame.len(), walk(&frame)));
        assert!(!transport.may_be_tunnel());
        // Octets behind the packet are padding.
        assert!(takes(&[&frame[..], &[0; 30]].concat()));
    }
    // The shortest ones that a card can receive.
    for packet in [
        packet4(TCP, &tcp(2, &[])),
        packet4(UDP, &udp(443, &[])),
        packet6(TCP, &tcp(2, &[])),
        packet6(UDP, &udp(443, &[])),
    ] {
        let ether_type = if packet[0] >> 4 == 4 { IPV4 } else { IPV6 };
        let mut frame = ethernet(ether_type, &packet);
        frame.resize(frame.len().max(ETHERNET_MIN), 0);
        assert!(takes(&frame), "{frame:02x?}");
    }
}

#[test]
fn truncation_at_every_length() {
    for (frame, headers) in plain() {
        for length in 0..frame.len() {
            assert!(!takes(&frame[..length]), "the packet does not end within the frame: {length}");
            if length >= 14 {
                // A packet that ends in a further buffer is the walk's: only that asks for the length of a frame.
                assert_eq!(walk_split(&frame, length).is_ok(), length >= headers, "{length} octets");
            }
            let octets = u32::try_from(frame.len()).expect("fits");
            assert!(common::<false>(&Split { first: &frame[..length], octets }).is_none(), "{length} octets");
        }
        // The same with the packet that ends there.
        for content in 0..frame.len() - 14 {
            let mut frame = frame[..14 + content].to_vec();
            let (at, length) = if frame[12] == 8 { (16, content) } else { (18, content.saturating_sub(40)) };
            if let Some(field) = frame.get_mut(at..at + 2) {
                field.copy_from_slice(&u16::try_from(length).expect("fits").to_be_bytes());
            }
            if takes(&frame) {
                assert!(frame.len() >= headers);
            }
        }
    }
}

#[test]
fn a_packet_whose_length_leaves_the_frame_or_its_headers_is_the_walks() {
    for (frame, headers) in plain() {
        let (at, before) = if frame[12] == 8 { (16, 14) } else { (18, 14 + 40) };
        for length in 0..=u16::MAX {
            let mut frame = frame.clone();
            frame[at..at + 2].copy_from_slice(&length.to_be_bytes());
            let end = before + usize::from(length);
            assert_eq!(takes(&frame), (headers..=frame.len()).contains(&end), "length {length}");
        }
    }
}

#[test]
fn fragments_options_and_other_versions_are_the_walks() {
    for bit in 0..16 {
        let frame = ethernet(IPV4, &ipv4_fragment(TCP, 1 << bit, &tcp(2, &[0; 20])));
        assert_eq!(takes(&frame), bit >= 14, "reserved bit and don't-fragment are none: bit {bit}");
    }
    for octet in 0..=u8::MAX {
        for (frame, _) in plain() {
            let mut first = frame.clone();
            first[14] = octet;
            let is_same = if frame[12] == 8 { octet == 0x45 } else { octet >> 4 == 6 };
            assert_eq!(takes(&first), is_same, "{octet:#04x}");
            let mut protocol = frame.clone();
            protocol[if frame[12] == 8 { 23 } else { 20 }] = octet;
            assert!(!takes(&protocol) || [TCP, UDP].contains(&octet), "protocol {octet}");
            for at in [12, 13] {
                let mut ether_type = frame.clone();
                ether_type[at] = octet;
                assert_eq!(takes(&ether_type), ether_type == frame, "EtherType octet {octet:#04x}");
            }
        }
    }
    for (frame, _) in plain() {
        let twice = tagged(0x88a8, 7, &tagged(0x8100, 5, &frame));
        assert!(walk(&twice).is_ok() && !takes(&twice), "two tags");
    }
    for header in [0, 43, 44, 51, 60] {
        let extended =
            ethernet(IPV6, &packet6(header, &[&[TCP, 0, 0, 0, 0, 0, 0, 0], &tcp(2, &[0; 20])[..]].concat()));
        assert!(!takes(&extended), "extension header {header}");
    }
}

/// The frame with a tag in front of its EtherType.
fn tagged(tag_type: u16, control: u16, frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &tag_type.to_be_bytes(), &control.to_be_bytes(), &frame[12..]].concat()
}

#[test]
fn one_tag_takes_the_short_way() {
    for (frame, headers) in plain() {
        for tag_type in [0x8100, 0x88a8, 0x9100] {
            for control in [0, 5, 0xfff, 0xe000, 0xffff] {
                let frame = tagged(tag_type, control, &frame);
                assert!(takes(&frame), "{frame:02x?}");
                let short = common::<true>(&frame.as_slice()).expect("was found");
                assert_eq!(short.packet.tags.vlan_id(), Some(control & 0xfff));
            }
        }
        let whole = tagged(0x8100, 5, &frame);
        for length in 0..whole.len() {
            assert!(!takes(&whole[..length]), "the packet does not end within the frame: {length}");
        }
        for at in 12..18 {
            for octet in 0..=u8::MAX {
                let mut changed = whole.clone();
                changed[at] = octet;
                let _ = takes(&changed);
            }
        }
        assert!(whole.len() > headers + 4);
    }
}

#[test]
fn a_port_of_a_tunnel_is_found() {
    for (port, is_one) in [(2152, true), (4789, true), (2151, false), (4790, false), (443, false)] {
        for frame in [
            ethernet(IPV4, &packet4(UDP, &udp(port, &[0; 40]))),
            ethernet(IPV6, &packet6(UDP, &udp(port, &[0; 40]))),
        ] {
            let short = common::<false>(&frame.as_slice()).expect("has a common shape");
            assert_eq!(short.transport.may_be_tunnel(), is_one, "port {port}");
            let _ = walk_with(frame.as_slice(), Tunnels::ALL);
        }
    }
    // TCP has no tunnel behind these ports.
    let mut segment = tcp(2, &[0; 20]);
    segment[2..4].copy_from_slice(&2152_u16.to_be_bytes());
    let short = common::<false>(&ethernet(IPV4, &packet4(TCP, &segment)).as_slice()).expect("is common");
    assert!(!short.transport.may_be_tunnel());
}

#[test]
fn a_packet_in_gtp_u_takes_the_short_way_if_both_headers_are_common() {
    let message = |flags: u8, between: &[u8], packet: &[u8]| {
        let [high, low] = u16::try_from(between.len() + packet.len()).expect("fits").to_be_bytes();
        [&[flags, 255, high, low, 0, 0, 0, 7], between, packet].concat()
    };
    let frame = |message: &[u8]| ethernet(IPV4, &packet4(UDP, &udp(2152, message)));
    let takes = |frame: &[u8]| {
        // The walk goes first: it compares both ways.
        let walked = walk_with(frame, Tunnels::ALL);
        let inner = common::<false>(&frame).and_then(|short| short.in_gtp_u);
        inner.map(|packet| assert_eq!(Ok(packet), walked)).is_some()
    };
    let packets = [packet4(TCP, &tcp(0xabc, &[7; 40])), packet4(UDP, &udp(443, &[7; 40]))];
    for packet in &packets {
        let plain = frame(&message(0x30, &[], packet));
        assert!(takes(&plain));
        assert!(takes(&[&plain[..], &[0; 30]].concat()), "octets behind the packet are padding");
        for length in 0..plain.len() {
            assert!(!takes(&plain[..length]), "the packet does not end within the frame: {length}");
        }
        // Octets of the outer header, of UDP, of GTP-U and of the inner header, changed one by one: what is taken is right.
        let mut taken = 0;
        for at in 12..14 + 20 + 8 + 8 + 20 {
            for octet in 0..=u8::MAX {
                let mut changed = plain.clone();
                changed[at] = octet;
                taken += usize::from(takes(&changed));
            }
        }
        assert!(taken > 20 * 256, "{taken}");
        assert!(!takes(&frame(&message(0x31, &[0, 1, 0, 0], packet))), "optional fields");
        assert!(!takes(&frame(&message(0x34, &[0, 1, 0, 0x85, 1, 0, 0, 0], packet))), "an extension header");
    }
    assert!(!takes(&frame(&message(0x30, &[], &packet6(UDP, &udp(443, &[7; 40]))))), "IPv6");
    // A tunnel in the tunnel is none.
    let nested = frame(&message(0x30, &[], &packet4(UDP, &udp(2152, &message(0x30, &[], &packets[0])))));
    assert!(takes(&nested));
}

/// A frame under a policy that leaves fields unread.
#[derive(Clone, Copy)]
struct Unread<'frame>(&'frame [u8], Steps);

// SAFETY: the range is that of the slice.
unsafe impl Frame for Unread<'_> {
    fn start(&self) -> *const u8 {
        self.0.start()
    }

    fn end(&self) -> *const u8 {
        self.0.end()
    }

    fn octets(&self) -> u32 {
        Frame::octets(&self.0)
    }

    fn omits(&self, steps: Steps) -> bool {
        self.1.intersects(steps)
    }
}

#[test]
fn fields_that_are_left_unread_are_the_same_as_in_the_walk() {
    let steps =
        [Steps::NO_IPV4, Steps::NO_IPV6, Steps::NO_PORTS, Steps::NO_TRAFFIC_CLASS, Steps::NO_CONTROL_BITS];
    for (frame, _) in plain() {
        let mut found = vec![];
        for set in 0..1_usize << steps.len() {
            let listed = steps.iter().enumerate().filter(|(number, _)| set >> number & 1 == 1);
            let unread = listed.fold(Steps::NONE, |all, (_, step)| all.union(*step));
            let frame = Unread(&frame, unread);
            let walked = walk_with(frame, Tunnels::NONE).expect("is counted");
            let short = common::<false>(&frame).expect("takes the short way");
            assert_eq!(short.packet, walked);
            found.push(short.packet);
            // Whoever says that all is read reads all.
            assert_eq!(common::<true>(&frame).map(|short| short.packet), Some(found[0]));
        }
        assert_eq!(
            found.iter().filter(|packet| **packet == found[0]).count(),
            if found[0].control_bits == 0 { 4 } else { 2 }
        );
    }
    assert_eq!(walk(&plain()[0].0[..53]), Err(Outcome::Ipv4TotalLength));
}
