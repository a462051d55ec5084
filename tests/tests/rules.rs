//! The host parser gives what the rules say for frames whose headers, tuple and outcome are known.

use std::collections::BTreeMap;

use minimizer_common::outcome::Outcome;
use minimizer_common::tunnel::Tunnels;
use minimizer_ebpf::parser::cursor::{Cursor, Split};
use minimizer_ebpf::parser::walk::walk;
use rand::Rng;
use tests::packets::{Generator, Packet};

const PACKETS: usize = 100_000;

#[test]
fn generated_frames_end_as_the_rules_say() {
    let mut generator = Generator::new(1);
    let mut outcomes = BTreeMap::<Outcome, usize>::new();
    let mut listed = BTreeMap::<Outcome, usize>::new();
    for index in 0..PACKETS {
        let recipe = generator.recipe();
        let packet = recipe.build();
        let walked = walk(&mut Cursor::over(packet.octets.as_slice()), Tunnels::NONE);
        assert_eq!(walked, packet.expected, "frame {index}: {recipe:#?}");
        let inner = walk(&mut Cursor::over(packet.octets.as_slice()), Tunnels::ALL);
        assert_eq!(inner, packet.listed.expected, "frame {index}: {recipe:#?}");
        *listed.entry(inner.err().unwrap_or(Outcome::Counted)).or_default() += 1;
        *outcomes.entry(walked.err().unwrap_or(Outcome::Counted)).or_default() += 1;
    }
    for outcome in [
        Outcome::Counted,
        Outcome::NonIp,
        Outcome::VlanDepth,
        Outcome::MplsDepth,
        Outcome::Ipv6ExtensionDepth,
    ] {
        assert!(outcomes.get(&outcome).is_some_and(|count| *count > 100), "{outcome:?}: {outcomes:?}");
    }
    for outcome in [Outcome::GreRouting, Outcome::GtpUExtensionDepth, Outcome::GtpUExtensionHeader] {
        assert!(listed.get(&outcome).is_some_and(|count| *count > 20), "{outcome:?}: {listed:?}");
    }
    println!("{PACKETS} frames: {outcomes:?}; with every tunnel listed: {listed:?}");
}

#[test]
fn nothing_behind_the_headers_is_read() {
    let mut generator = Generator::new(2);
    for index in 0..PACKETS {
        let packet = generator.packet();
        // Memory that ends where the headers end: a read beyond would be refused by the cursor.
        let octets = u32::try_from(packet.octets.len()).expect("short");
        let first = packet.octets[..packet.headers_octets].to_vec().into_boxed_slice();
        let mut cursor = Cursor::over(Split { first: &first, octets });
        assert_eq!(walk(&mut cursor, Tunnels::NONE), packet.expected, "frame {index}: {packet:?}");
        let first = packet.octets[..packet.listed.headers_octets].to_vec().into_boxed_slice();
        let mut cursor = Cursor::over(Split { first: &first, octets });
        assert_eq!(walk(&mut cursor, Tunnels::ALL), packet.listed.expected, "frame {index}: {packet:?}");
    }
}

#[test]
fn other_octets_behind_the_headers_change_nothing() {
    let mut generator = Generator::new(3);
    for index in 0..PACKETS {
        let Packet { octets, headers_octets, expected, listed, .. } = generator.packet();
        for (tunnels, headers_octets, expected) in [
            (Tunnels::NONE, headers_octets, expected),
            (Tunnels::ALL, listed.headers_octets, listed.expected),
        ] {
            let mut octets = octets.clone();
            generator.random().fill_bytes(&mut octets[headers_octets..]);
            let walked = walk(&mut Cursor::over(octets.as_slice()), tunnels);
            assert_eq!(walked, expected, "frame {index}: {octets:02x?}");
        }
    }
}

#[test]
fn a_frame_cut_inside_its_headers_is_never_counted_with_its_ports() {
    let mut generator = Generator::new(4);
    for index in 0..PACKETS / 100 {
        let packet = generator.packet();
        let Ok(expected) = packet.expected else { continue };
        for length in 0..packet.headers_octets {
            match walk(&mut Cursor::over(&packet.octets[..length]), Tunnels::NONE) {
                Err(outcome) => assert!(
                    matches!(outcome.name(), "malformed") || outcome == Outcome::NonIp,
                    "frame {index}, {length} octets: {outcome:?}"
                ),
                // Jumbograms are as long as their frame: cut ones only lose their transport header.
                Ok(walked) => assert!(
                    walked.length_octets < expected.length_octets && walked.ports == (0, 0),
                    "frame {index}, {length} octets: {walked:?} of {expected:?}"
                ),
            }
        }
    }
}
