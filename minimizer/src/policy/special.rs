//! Ranges of addresses for a special purpose: IANA's registries of them, and what RFCs set aside beside these.

use crate::policy::prefixes::Prefix;

/// A range of addresses for a special purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Its prefix.
    pub prefix: Prefix,
    /// What it is for.
    pub purpose: &'static str,
    /// The RFC that says so.
    pub rfc: u16,
}

/// All ranges, IPv4 first, in order.
///
/// They are those of the IPv4 and IPv6 Special-Purpose Address Registries that nobody can reach from everywhere, and the ranges
/// of multicast and of withdrawn address formats. Documentation and benchmarking ranges are left out. So are those of
/// [`super::embedded::WELL_KNOWN`], whose addresses are judged by the IPv4 address in them.
pub const RANGES: [Range; 23] = [
    ipv4([0, 0, 0, 0], 8, "this network", 791),
    ipv4([10, 0, 0, 0], 8, "private use", 1918),
    ipv4([100, 64, 0, 0], 10, "between a carrier's NAT and its customers (CGN)", 6598),
    ipv4([127, 0, 0, 0], 8, "loopback", 1122),
    ipv4([169, 254, 0, 0], 16, "link-local", 3927),
    ipv4([172, 16, 0, 0], 12, "private use", 1918),
    ipv4([192, 0, 0, 0], 24, "IETF protocol assignments, DS-Lite among them (192.0.0.0/29)", 6890),
    ipv4([192, 88, 99, 0], 24, "6to4 relays, withdrawn", 7526),
    ipv4([192, 168, 0, 0], 16, "private use", 1918),
    ipv4([224, 0, 0, 0], 4, "multicast", 5771),
    ipv4([240, 0, 0, 0], 4, "reserved, and limited broadcast (255.255.255.255)", 1112),
    ipv6([0; 8], 96, "unspecified, loopback, and IPv4-compatible addresses, withdrawn", 4291),
    ipv6([0, 0, 0, 0, 0xffff, 0, 0, 0], 96, "IPv4-translated addresses, withdrawn", 2765),
    ipv6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48, "translation inside of a network", 8215),
    ipv6([0x100, 0, 0, 0, 0, 0, 0, 0], 64, "discard only", 6666),
    ipv6([0x100, 0, 0, 1, 0, 0, 0, 0], 64, "dummy prefix", 9780),
    ipv6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32, "Teredo", 4380),
    ipv6([0x2001, 0x10, 0, 0, 0, 0, 0, 0], 28, "identifiers of hosts (ORCHID), withdrawn", 4843),
    ipv6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16, "segments of SRv6", 9602),
    ipv6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, "unique-local", 4193),
    ipv6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, "link-local", 4291),
    ipv6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, "site-local, withdrawn", 3879),
    ipv6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, "multicast", 4291),
];

const fn ipv4([a, b, c, d]: [u8; 4], bits: u8, purpose: &'static str, rfc: u16) -> Range {
    let octets = [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    Range { prefix: Prefix { ipv6: false, octets, bits }, purpose, rfc }
}

const fn ipv6(groups: [u16; 8], bits: u8, purpose: &'static str, rfc: u16) -> Range {
    Range { prefix: Prefix { ipv6: true, octets: octets(groups), bits }, purpose, rfc }
}

/// The octets of an IPv6 address, given in groups of 16 bits.
pub(super) const fn octets(groups: [u16; 8]) -> [u8; 16] {
    let mut octets = [0; 16];
    let mut group = 0;
    while group < groups.len() {
        let [high, low] = groups[group].to_be_bytes();
        octets[2 * group] = high;
        octets[2 * group + 1] = low;
        group += 1;
    }
    octets
}

#[cfg(test)]
mod tests {
    use super::RANGES;
    use crate::policy::prefixes::Prefix;

    fn is_special(address: &str) -> bool {
        let address = Prefix::parse(address).expect("an address");
        RANGES.iter().any(|range| range.prefix.covers(&address))
    }

    #[test]
    fn ranges_are_prefixes_in_order_and_do_not_overlap() {
        for range in &RANGES {
            assert_eq!(Prefix::parse(&range.prefix.to_string()), Ok(range.prefix), "{}", range.purpose);
        }
        assert!(RANGES.is_sorted_by_key(|range| range.prefix));
        for (number, range) in RANGES.iter().enumerate() {
            assert!(
                RANGES[number + 1..].iter().all(|other| !range.prefix.covers(&other.prefix)),
                "{range:?}"
            );
        }
    }

    #[test]
    fn addresses_of_no_network_are_special_and_those_of_examples_are_not() {
        for address in "0.0.0.0 10.0.0.1 100.64.0.1 100.127.255.255 127.0.0.1 169.254.1.1 172.16.0.1 \
             172.31.255.255 192.0.0.2 192.88.99.1 192.168.1.1 224.0.0.1 239.255.255.250 240.0.0.1 \
             255.255.255.255 :: ::1 ::c000:201 64:ff9b:1::1 100::1 2001:0:1::1 2001:1f::1 5f00::1 \
             fc00::1 fdff::1 fe80::1 fec0::1 ff02::1"
            .split_whitespace()
        {
            assert!(is_special(address), "{address}");
        }
        for address in "1.1.1.1 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 172.15.0.1 172.32.0.0 \
             192.0.1.0 192.0.2.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 223.255.255.255 \
             64:ff9b::c000:201 2001:2::1 2001:20::1 2001:db8::1 2002:c000:201::1 3fff::1 2a00::1"
            .split_whitespace()
        {
            assert!(!is_special(address), "{address}");
        }
    }
}
