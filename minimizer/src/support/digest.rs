//! SHA-256 as text.

use sha2::{Digest as _, Sha256};

/// SHA-256 of octets, in lowercase hexadecimal.
#[must_use]
pub fn sha256(octets: &[u8]) -> String {
    hexadecimal(&Sha256::digest(octets))
}

/// Octets in lowercase hexadecimal.
#[must_use]
pub fn hexadecimal(octets: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value)]);
    octets.iter().flat_map(|octet| [digit(octet >> 4), digit(octet & 0xf)]).collect()
}

#[cfg(test)]
mod tests {
    use super::{hexadecimal, sha256};

    #[test]
    fn octets_keep_their_zeros() {
        assert_eq!(hexadecimal(&[0, 0x0f, 0xa0, 0xff]), "000fa0ff");
    }

    #[test]
    fn the_digest_of_nothing_is_that_of_fips_180() {
        assert_eq!(sha256(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
