//! What can go wrong with a frame: hostile fields, cut ends, flipped bits.

use rand::rngs::ChaCha8Rng;
use rand::{Rng, RngExt};

use super::Packet;

/// Octets flipped in each of the random variants.
const FLIPS_MAX: usize = 4;
const RANDOM_VARIANTS: usize = 16;

/// Variants of a frame: every header field given the values at which parsers fail, the frame cut
/// at every length, and random octets flipped.
pub fn mutations(packet: &Packet, random: &mut ChaCha8Rng) -> Vec<Vec<u8>> {
    let mut variants = Vec::new();
    for field in &packet.fields {
        for change in 0..6 {
            let mut octets = packet.octets.clone();
            let value = &mut octets[field.clone()];
            match change {
                0 => value.fill(0),
                1 => value.fill(0xff),
                2 => add(value, 1),
                3 => add(value, 0xff),
                4 => value[0] ^= 0x80 >> random.random_range(0..8),
                _ => random.fill_bytes(value),
            }
            variants.push(octets);
        }
    }
    variants.extend((0..packet.octets.len()).map(|length| packet.octets[..length].to_vec()));
    for _ in 0..RANDOM_VARIANTS {
        let mut octets = packet.octets.clone();
        for _ in 0..random.random_range(1..=FLIPS_MAX) {
            let at = random.random_range(0..octets.len());
            octets[at] ^= random.random_range(1..=0xff);
        }
        variants.push(octets);
    }
    variants
}

/// Adds 1, or -1 as 0xff in every octet, to a big-endian number.
fn add(value: &mut [u8], addend: u8) {
    let high = if addend == 0xff { 0xff } else { 0 };
    let mut carry = 0;
    for (index, octet) in value.iter_mut().rev().enumerate() {
        let sum = u16::from(*octet) + u16::from(if index == 0 { addend } else { high }) + carry;
        [_, *octet] = sum.to_be_bytes();
        carry = sum >> 8;
    }
}
