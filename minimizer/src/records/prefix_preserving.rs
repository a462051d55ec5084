//! Permutations of addresses that preserve prefixes: two addresses share as many leading bits after as before.
//!
//! Both schemes work alike: a keyed function of the first *i* bits decides whether bit *i* is flipped. Addresses keep their IP
//! version. Preserved prefixes protect from nobody who can have packets of their choice counted or who knows which prefixes
//! are busiest; that is inherent in preserving them. They have another key in each epoch.

mod crypto_pan;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipcrypt_rs::IpcryptPfx;

use crate::policy::transform::PrefixScheme;
use crypto_pan::CryptoPan;

/// One scheme under one key. It holds what is worth as much as the key: whoever makes one does so below
/// [`without_traces`](crate::support::traces::without_traces), and puts it nowhere else than on the stack.
pub struct PrefixPreserving(Cipher);

#[expect(clippy::large_enum_variant, reason = "neither may lie on the heap")]
enum Cipher {
    Ipcrypt(IpcryptPfx),
    CryptoPan(CryptoPan),
}

impl PrefixPreserving {
    /// The scheme under this key.
    ///
    /// # Panics
    /// If the two halves of a key for ipcrypt-pfx are equal, which would make the scheme void. Of derived keys that is one
    /// in 2¹²⁸.
    #[must_use]
    pub fn new(scheme: PrefixScheme, key: &[u8; 32]) -> Self {
        Self(match scheme {
            PrefixScheme::Ipcrypt => Cipher::Ipcrypt(IpcryptPfx::new(*key)),
            PrefixScheme::CryptoPan => Cipher::CryptoPan(CryptoPan::new(key)),
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
                // One result in 2⁹⁶ looks like an IPv4 address mapped to IPv6.
                IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            },
            Cipher::CryptoPan(cipher) => cipher.ipv6(octets),
        }
    }
}

#[cfg(test)]
mod tests;
