//! Crypto-PAn: Xu, Fan, Ammar, Moon, "Prefix-preserving IP address anonymization", 2002, with AES-128.
//!
//! Bit *i* is flipped by the first bit of AES over a block that begins with the *i* bits before it and goes on with
//! a secret pad. The blocks of an address do not depend on each other, and are encrypted side by side.

use aes::cipher::{BlockCipherEncrypt as _, KeyInit as _};
use aes::{Aes128, Block};
use zeroize::Zeroizing;

/// Bits encrypted in one go.
const BITS: usize = 32;

/// The permutation under one key.
pub(super) struct CryptoPan {
    cipher: Aes128,
    pad: Zeroizing<u128>,
}

impl CryptoPan {
    /// The first half of `key` is the key of AES; the second half, encrypted, is the pad.
    pub(super) fn new(key: &[u8; 32]) -> Self {
        let (first, second) = key.split_at(16);
        let [mut cipher_key, mut pad] = [Block::default(); 2];
        cipher_key.copy_from_slice(first);
        pad.copy_from_slice(second);
        let cipher = Aes128::new(&cipher_key);
        cipher.encrypt_block(&mut pad);
        let secret = Zeroizing::new(u128::from_be_bytes(pad.into()));
        zeroize::Zeroize::zeroize(cipher_key.as_mut_slice());
        zeroize::Zeroize::zeroize(pad.as_mut_slice());
        Self { cipher, pad: secret }
    }

    pub(super) fn ipv4(&self, octets: [u8; 4]) -> [u8; 4] {
        let address = u32::from_be_bytes(octets);
        (address ^ self.flipped(u128::from(address) << 96, 0)).to_be_bytes()
    }

    pub(super) fn ipv6(&self, octets: [u8; 16]) -> [u8; 16] {
        let address = u128::from_be_bytes(octets);
        let flipped = [0, 32, 64, 96]
            .into_iter()
            .fold(0, |bits, first| bits << BITS | u128::from(self.flipped(address, first)));
        (address ^ flipped).to_be_bytes()
    }

    /// Which of the 32 bits from `first` on are flipped; `address` begins at the topmost bit.
    fn flipped(&self, address: u128, first: u32) -> u32 {
        let mut blocks = [Block::default(); BITS];
        for (block, bits) in blocks.iter_mut().zip(first..) {
            let kept = !(u128::MAX >> bits);
            *block = (address & kept | *self.pad & !kept).to_be_bytes().into();
        }
        self.cipher.encrypt_blocks(&mut blocks);
        blocks.iter().fold(0, |bits, block| bits << 1 | u32::from(block[0] >> 7))
    }
}
