//! Addresses under a permutation that preserves prefixes: two of them share as many leading bits as before.
//!
//! The mathematics of both schemes is the same: bit *i* is flipped or not by a keyed function of the *i* bits before it. Addresses
//! keep their IP version. Neither hides who is who from somebody who can have packets of his choice counted, or who knows
//! the prefixes that are busiest: that is what a preserved prefix means.

mod crypto_pan;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipcrypt_rs::IpcryptPfx;

use crate::policy::transform::PrefixScheme;
use crate::records::keys::RecipientKeys;
use crypto_pan::CryptoPan;

/// One scheme under one key.
pub struct PrefixPreserving(Cipher);

enum Cipher {
    Ipcrypt(Box<IpcryptPfx>),
    CryptoPan(Box<CryptoPan>),
}

impl PrefixPreserving {
    /// The scheme under the recipient's key.
    ///
    /// # Panics
    /// When the two halves of the key for ipcrypt-pfx are the same, with which the scheme is void: derived keys are not,
    /// but for one in 2¹²⁸.
    #[must_use]
    pub fn new(scheme: PrefixScheme, keys: &RecipientKeys) -> Self {
        Self(match scheme {
            PrefixScheme::Ipcrypt => Cipher::Ipcrypt(Box::new(IpcryptPfx::new(*keys.ipcrypt))),
            PrefixScheme::CryptoPan => Cipher::CryptoPan(Box::new(CryptoPan::new(&keys.crypto_pan))),
        })
    }

    /// What becomes of an IPv4 address.
    #[must_use]
    pub fn ipv4(&self, octets: [u8; 4]) -> [u8; 4] {
        match &self.0 {
            Cipher::Ipcrypt(cipher) => match cipher.encrypt_ipaddr(IpAddr::V4(Ipv4Addr::from(octets))) {
                IpAddr::V4(address) => address.octets(),
                // The scheme keeps the first 96 bits, which mark an IPv4 address.
                IpAddr::V6(_) => [0; 4],
            },
            Cipher::CryptoPan(cipher) => cipher.ipv4(octets),
        }
    }

    /// What becomes of an IPv6 address.
    #[must_use]
    pub fn ipv6(&self, octets: [u8; 16]) -> [u8; 16] {
        match &self.0 {
            Cipher::Ipcrypt(cipher) => match cipher.encrypt_ipaddr(IpAddr::V6(Ipv6Addr::from(octets))) {
                IpAddr::V6(address) => address.octets(),
                // One in 2⁹⁶ falls on what looks like an IPv4 address mapped to IPv6.
                IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            },
            Cipher::CryptoPan(cipher) => cipher.ipv6(octets),
        }
    }
}

#[cfg(test)]
mod tests;
