//! Published vectors of both schemes, and what they promise.

use std::collections::HashSet;
use std::net::IpAddr;

use ipcrypt_rs::{Ipcrypt, IpcryptNd, IpcryptNdx};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt as _, SeedableRng as _};

use super::PrefixPreserving;
use crate::policy::transform::PrefixScheme;

fn with(scheme: PrefixScheme, key: [u8; 32]) -> PrefixPreserving {
    PrefixPreserving::new(scheme, &key)
}

fn octets<const OCTETS: usize>(hex: &str) -> [u8; OCTETS] {
    assert_eq!(hex.len(), 2 * OCTETS);
    std::array::from_fn(|index| u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).unwrap())
}

fn check(scheme: PrefixScheme, key: [u8; 32], pairs: &[(&str, &str)]) {
    let permutation = with(scheme, key);
    for (address, expected) in pairs {
        let permuted = match address.parse::<IpAddr>().unwrap() {
            IpAddr::V4(address) => IpAddr::from(permutation.ipv4(address.octets())),
            IpAddr::V6(address) => IpAddr::from(permutation.ipv6(address.octets())),
        };
        assert_eq!(permuted, expected.parse::<IpAddr>().unwrap(), "{scheme:?} of {address}");
    }
}

#[test]
fn vectors_of_crypto_pan() {
    let key = octets("1522178d33a4cf80130a5b1649907d10d8988f837979652762574c2d2a842202");
    check(
        PrefixScheme::CryptoPan,
        key,
        &[
            ("128.11.68.132", "135.242.180.132"),
            ("192.102.249.13", "252.138.62.131"),
            ("24.0.250.221", "100.15.198.226"),
            ("64.39.15.238", "0.219.7.41"),
            ("::1", "78ff:f001:9fc0:20df:8380:b1f1:704:ed"),
            ("2001:db8::1", "4401:2bc:603f:d91d:27f:ff8e:e6f1:dc1e"),
        ],
    );
    check(
        PrefixScheme::CryptoPan,
        *b"32-char-str-for-AES-key-and-pad.",
        &[("192.0.2.1", "192.0.125.244"), ("2001:db8::1", "27fe:8bc7:fee:1e:1e1f:f0fe:f0e1:83fd")],
    );
}

/// Of draft-denis-ipcrypt.
#[test]
fn vectors_of_ipcrypt_pfx() {
    check(
        PrefixScheme::Ipcrypt,
        octets("0123456789abcdeffedcba98765432101032547698badcfeefcdab8967452301"),
        &[
            ("0.0.0.0", "151.82.155.134"),
            ("255.255.255.255", "94.185.169.89"),
            ("192.0.2.1", "100.115.72.131"),
            ("2001:db8::1", "c180:5dd4:2587:3524:30ab:fa65:6ab6:f88"),
        ],
    );
    check(
        PrefixScheme::Ipcrypt,
        octets("2b7e151628aed2a6abf7158809cf4f3ca9f5ba40db214c3798f2e1c23456789a"),
        &[
            ("10.0.0.47", "19.214.210.244"),
            ("10.0.0.129", "19.214.210.80"),
            ("10.0.0.234", "19.214.210.30"),
            ("172.16.5.193", "210.78.229.136"),
            ("172.16.97.42", "210.78.179.241"),
            ("172.16.248.177", "210.78.121.215"),
            ("2001:db8::a5c9:4e2f:bb91:5a7d", "7cec:702c:1243:f70:1956:125:b9bd:1aba"),
            ("2001:db8::7234:d8f1:3c6e:9a52", "7cec:702c:1243:f70:a3ef:c8e:95c1:cd0d"),
            ("2001:db8::f1e0:937b:26d4:8c1a", "7cec:702c:1243:f70:443c:c8e:6a62:b64d"),
            ("2001:db8:3a5c:0:e7d1:4b9f:2c8a:f673", "7cec:702c:3503:bef:e616:96bd:be33:a9b9"),
            ("2001:db8:9f27:0:b4e2:7a3d:5f91:c8e6", "7cec:702c:a504:b74e:194a:3d90:b047:2d1a"),
            ("2001:db8:d8b4:0:193c:a5e7:8b2f:46d1", "7cec:702c:f840:aa67:1b8:e84f:ac9d:77fb"),
        ],
    );
}

/// The other variants of the draft: a check that the crate is what it says, since only one of them is used.
#[test]
fn vectors_of_the_other_ipcrypt_variants() {
    for (key, address, expected) in [
        ("0123456789abcdeffedcba9876543210", "0.0.0.0", "bde9:6789:d353:824c:d7c6:f58a:6bd2:26eb"),
        ("1032547698badcfeefcdab8967452301", "255.255.255.255", "aed2:92f6:ea23:58c3:48fd:8b8:74e8:45d8"),
        ("2b7e151628aed2a6abf7158809cf4f3c", "192.0.2.1", "1dbd:c1b9:fff1:7586:7d0b:67b4:e76e:4777"),
        (
            "0123456789abcdeffedcba9876543210",
            "2001:db8:85a3::8a2e:370:7334",
            "1eef:2352:64c8:18e6:6456:1373:f615:5032",
        ),
        ("1032547698badcfeefcdab8967452301", "192.0.2.1", "7fde:a680:9546:ef2:d3c:7abb:1b38:2659"),
    ] {
        let encrypted = Ipcrypt::new(octets(key)).encrypt_ipaddr(address.parse().unwrap());
        assert_eq!(encrypted, expected.parse::<IpAddr>().unwrap(), "{address}");
    }
    for (key, address, tweak, expected) in [
        (
            "0123456789abcdeffedcba9876543210",
            "0.0.0.0",
            "08e0c289bff23b7c",
            "08e0c289bff23b7cb349aadfe3bcef56221c384c7c217b16",
        ),
        (
            "1032547698badcfeefcdab8967452301",
            "255.255.255.255",
            "08e0c289bff23b7c",
            "08e0c289bff23b7cf602ae8dcfeb47c1fbcb9597b8951b89",
        ),
        (
            "2b7e151628aed2a6abf7158809cf4f3c",
            "192.0.2.1",
            "08e0c289bff23b7c",
            "08e0c289bff23b7cca25fe3b7f2ca5e50a0deb24ef0469f8",
        ),
        (
            "0123456789abcdeffedcba9876543210",
            "2001:db8:85a3::8a2e:370:7334",
            "08e0c289bff23b7c",
            "08e0c289bff23b7cdd344485c55026d8b4cfa33b81032aff",
        ),
        (
            "1032547698badcfeefcdab8967452301",
            "192.0.2.1",
            "08e0c289bff23b7c",
            "08e0c289bff23b7c18e29f7c1fc75164251238ed9f0bd02a",
        ),
    ] {
        let cipher = IpcryptNd::new(octets(key));
        let encrypted = cipher.encrypt_ipaddr(address.parse().unwrap(), Some(octets(tweak)));
        assert_eq!(encrypted, octets::<24>(expected), "{address}");
    }
    for (key, address, tweak, expected) in [
        (
            "0123456789abcdeffedcba98765432101032547698badcfeefcdab8967452301",
            "0.0.0.0",
            "21bd1834bc088cd2b4ecbe30b70898d7",
            "21bd1834bc088cd2b4ecbe30b70898d782db0d4125fdace61db35b8339f20ee5",
        ),
        (
            "1032547698badcfeefcdab89674523010123456789abcdeffedcba9876543210",
            "255.255.255.255",
            "21bd1834bc088cd2b4ecbe30b70898d7",
            "21bd1834bc088cd2b4ecbe30b70898d776c7dbd1ae4802a2dd95ad4f88273535",
        ),
        (
            "2b7e151628aed2a6abf7158809cf4f3c3c4fcf098815f7aba6d2ae2816157e2b",
            "192.0.2.1",
            "21bd1834bc088cd2b4ecbe30b70898d7",
            "21bd1834bc088cd2b4ecbe30b70898d7259e85ebaa000667d2437ac7e2208d71",
        ),
        (
            "0123456789abcdeffedcba98765432101032547698badcfeefcdab8967452301",
            "2001:db8:85a3::8a2e:370:7334",
            "21bd1834bc088cd2b4ecbe30b70898d7",
            "21bd1834bc088cd2b4ecbe30b70898d7fe8d52464555ef3458e4a6eefe14eb28",
        ),
        (
            "1032547698badcfeefcdab89674523010123456789abcdeffedcba9876543210",
            "192.0.2.1",
            "21bd1834bc088cd2b4ecbe30b70898d7",
            "21bd1834bc088cd2b4ecbe30b70898d7c9487dffa9292855845d234bd1d72395",
        ),
    ] {
        let cipher = IpcryptNdx::new(octets(key));
        let encrypted = cipher.encrypt_ipaddr(address.parse().unwrap(), Some(octets(tweak)));
        assert_eq!(encrypted, octets::<32>(expected), "{address}");
    }
}

#[test]
fn exactly_the_common_prefix_is_preserved() {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    for scheme in [PrefixScheme::Ipcrypt, PrefixScheme::CryptoPan] {
        let permutation = with(scheme, random.random());
        for round in 0..400_u32 {
            let shared = round % 33;
            let address: u32 = random.random();
            // The bit behind the shared ones differs, the rest is anything.
            let rest = u32::MAX.checked_shr(shared).unwrap_or(0);
            let differing = (rest >> 1).wrapping_add(1) & rest;
            let other = address ^ differing ^ random.random::<u32>() & rest >> 1;
            let permuted =
                [address, other].map(|address| u32::from_be_bytes(permutation.ipv4(address.to_be_bytes())));
            assert_eq!((permuted[0] ^ permuted[1]).leading_zeros(), shared, "{scheme:?}");

            let shared = round % 129;
            let address: u128 = random.random();
            let rest = u128::MAX.checked_shr(shared).unwrap_or(0);
            let differing = (rest >> 1).wrapping_add(1) & rest;
            let other = address ^ differing ^ random.random::<u128>() & rest >> 1;
            let permuted =
                [address, other].map(|address| u128::from_be_bytes(permutation.ipv6(address.to_be_bytes())));
            assert_eq!((permuted[0] ^ permuted[1]).leading_zeros(), shared, "{scheme:?}");
        }
    }
}

#[test]
fn no_two_addresses_become_one() {
    for scheme in [PrefixScheme::Ipcrypt, PrefixScheme::CryptoPan] {
        let permutation = with(scheme, std::array::from_fn(|index| u8::try_from(index).unwrap()));
        let permuted = (0..=u16::MAX).map(|low| {
            let [third, fourth] = low.to_be_bytes();
            permutation.ipv4([192, 0, third, fourth])
        });
        assert_eq!(permuted.collect::<HashSet<_>>().len(), 65_536, "{scheme:?}");
    }
}
