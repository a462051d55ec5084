//! Translations: IPv6 prefixes whose addresses carry an IPv4 address, and in which bits of them.

use std::fmt;

use crate::policy::prefixes::Prefix;
use crate::policy::special;

/// A prefix of IPv6 whose addresses carry an IPv4 address, or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Translation {
    /// The prefix.
    pub prefix: Prefix,
    /// The first bits that all its IPv4 addresses have in common. The IPv6 addresses do not carry them.
    pub ipv4: Prefix,
    /// How many of the bits behind these the IPv6 addresses carry.
    pub carried: u8,
    /// Who makes such addresses.
    pub mechanism: Mechanism,
}

/// Who makes such addresses, and where the IPv4 address is in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mechanism {
    /// Sockets.
    Mapped,
    /// NAT64 and 464XLAT: behind the prefix, around bits 64 to 71, which are zero.
    Nat64,
    /// Hosts and routers of 6to4: behind the prefix.
    SixToFour,
    /// Customers' routers of 6rd: behind the prefix, without the bits that all have in common.
    SixRd,
    /// Customers' routers of MAP-E and MAP-T: as in 6rd.
    Map,
    /// Hosts of ISATAP: the last 32 bits.
    Isatap,
}

impl Mechanism {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mapped => "IPv4-mapped",
            Self::Nat64 => "NAT64",
            Self::SixToFour => "6to4",
            Self::SixRd => "6rd",
            Self::Map => "MAP",
            Self::Isatap => "ISATAP",
        }
    }

    /// The RFC that says where the IPv4 address is.
    #[must_use]
    pub const fn rfc(self) -> u16 {
        match self {
            Self::Mapped => 4291,
            Self::Nat64 => 6052,
            Self::SixToFour => 3056,
            Self::SixRd => 5969,
            Self::Map => 7597,
            Self::Isatap => 5214,
        }
    }
}

/// The translations of every network, in order.
pub const WELL_KNOWN: [Translation; 3] = [
    well_known([0, 0, 0, 0, 0, 0xffff, 0, 0], 96, Mechanism::Mapped),
    well_known([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96, Mechanism::Nat64),
    well_known([0x2002, 0, 0, 0, 0, 0, 0, 0], 16, Mechanism::SixToFour),
];

/// All addresses of IPv4.
pub const EVERY_IPV4: Prefix = Prefix { ipv6: false, octets: [0; 16], bits: 0 };
/// The lengths of prefixes of NAT64.
pub const NAT64_BITS: [u8; 6] = [32, 40, 48, 56, 64, 96];
/// The length of the prefix of an ISATAP site.
pub const ISATAP_BITS: u8 = 64;
/// The longest prefix of a customer: the rest of an address is the customer's own.
pub const CUSTOMER_BITS: u8 = 64;
/// The first bits of the interface identifiers of ISATAP: of addresses that are not known to be unique, and of unique ones.
const ISATAP: [u64; 2] = [0x0000_5efe_0000_0000, 0x0200_5efe_0000_0000];
/// The bits that are zero in addresses of NAT64: they begin behind so many.
const ZERO_AFTER: u8 = 64;
/// How many these are.
const ZERO_BITS: u8 = 8;

const fn well_known(groups: [u16; 8], bits: u8, mechanism: Mechanism) -> Translation {
    whole(Prefix { ipv6: true, octets: special::octets(groups), bits }, mechanism)
}

/// One whose addresses carry whole IPv4 addresses.
const fn whole(prefix: Prefix, mechanism: Mechanism) -> Translation {
    Translation { prefix, ipv4: EVERY_IPV4, carried: 32, mechanism }
}

impl Translation {
    /// NAT64 with a prefix of one of the [`NAT64_BITS`].
    #[must_use]
    pub const fn nat64(prefix: Prefix) -> Self {
        whole(prefix, Mechanism::Nat64)
    }

    /// 6rd: the customers' IPv4 addresses are in one IPv4 prefix.
    #[must_use]
    pub const fn six_rd(prefix: Prefix, ipv4: Prefix) -> Self {
        Self { prefix, ipv4, carried: 32 - ipv4.bits, mechanism: Mechanism::SixRd }
    }

    /// A rule of MAP-E or MAP-T: behind its IPv6 prefix, `ea_bits` bits begin with what the customer has of the IPv4 prefix.
    #[must_use]
    pub const fn map(prefix: Prefix, ipv4: Prefix, ea_bits: u8) -> Self {
        let rest = 32 - ipv4.bits;
        Self { prefix, ipv4, carried: if ea_bits < rest { ea_bits } else { rest }, mechanism: Mechanism::Map }
    }

    /// The translations of an ISATAP site with a prefix of [`ISATAP_BITS`] bits.
    #[must_use]
    pub fn isatap(site: Prefix) -> [Self; 2] {
        ISATAP.map(|identifier| {
            let mut octets = site.octets;
            octets[8..].copy_from_slice(&identifier.to_be_bytes());
            whole(Prefix { ipv6: true, octets, bits: 96 }, Mechanism::Isatap)
        })
    }

    /// The length of the longest prefix that it makes of an IPv4 address.
    #[must_use]
    pub const fn longest(&self) -> u8 {
        self.length(self.carried)
    }

    /// The length of the prefix with so many bits of the IPv4 address.
    const fn length(&self, carried: u8) -> u8 {
        let bits = self.prefix.bits + carried;
        let has_zeroes =
            matches!(self.mechanism, Mechanism::Nat64) && self.prefix.bits <= ZERO_AFTER && bits > ZERO_AFTER;
        if has_zeroes { bits + ZERO_BITS } else { bits }
    }

    /// How many bits of an IPv4 address stand in front of the bits that are zero, if some stand behind them, too.
    #[must_use]
    pub(crate) fn before_zeroes(&self) -> Option<u8> {
        (self.longest() > self.prefix.bits + self.carried).then(|| ZERO_AFTER - self.prefix.bits)
    }

    /// Its prefix with the bits of an address in front of the bits that are zero, and with these.
    pub(crate) fn around_zeroes(&self, before: &Prefix) -> Option<[Prefix; 2]> {
        let form = self.form(before)?;
        Some([ZERO_AFTER, ZERO_AFTER + ZERO_BITS].map(|bits| Prefix { bits, ..form }))
    }

    /// Whether each IPv4 prefix behind the common one has an IPv6 prefix that no other has.
    #[must_use]
    pub(crate) const fn is_whole(&self) -> bool {
        self.ipv4.bits + self.carried == 32
    }

    /// The IPv6 prefix of the addresses that carry those of an IPv4 prefix. `None` if none of them is carried. More than the
    /// addresses of the prefix if the IPv6 addresses do not tell these from others.
    #[must_use]
    pub fn form(&self, ipv4: &Prefix) -> Option<Prefix> {
        if ipv4.covers(&self.ipv4) {
            return Some(self.prefix);
        }
        if !self.ipv4.covers(ipv4) {
            return None;
        }
        let carried = (ipv4.bits - self.ipv4.bits).min(self.carried);
        let behind_common = u128::from_be_bytes(ipv4.octets).checked_shl(self.ipv4.bits.into()).unwrap_or(0);
        let kept = behind_common & u128::MAX.checked_shl(128 - u32::from(carried)).unwrap_or(0);
        let mut placed = kept.checked_shr(self.prefix.bits.into()).unwrap_or(0);
        if self.length(carried) > self.prefix.bits + carried {
            let before = u128::MAX << (128 - ZERO_AFTER);
            placed = placed & before | (placed & !before) >> ZERO_BITS;
        }
        let octets = (u128::from_be_bytes(self.prefix.octets) | placed).to_be_bytes();
        Some(Prefix { ipv6: true, octets, bits: self.length(carried) })
    }

    /// The IPv6 address that carries an IPv4 address, if one alone does. The bits behind the IPv4 address are zero in it, as RFC
    /// 6052 demands.
    #[must_use]
    pub fn host(&self, ipv4: &Prefix) -> Option<Prefix> {
        let form = self.form(ipv4)?;
        matches!(self.mechanism, Mechanism::Nat64 | Mechanism::Isatap).then_some(Prefix { bits: 128, ..form })
    }
}

impl fmt::Display for Translation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { prefix, ipv4, carried, mechanism } = self;
        write!(formatter, "{prefix} ({}", mechanism.name())?;
        if ipv4.bits > 0 {
            write!(formatter, " of {ipv4}")?;
        }
        if !self.is_whole() {
            write!(formatter, ", {carried} bits")?;
        }
        formatter.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::{Prefix, Translation, WELL_KNOWN};

    fn prefix(text: &str) -> Prefix {
        Prefix::parse(text).expect("a prefix")
    }

    #[test]
    fn forms_have_the_ipv4_address_where_the_rfcs_say() {
        let nat64 = |text| Translation::nat64(prefix(text));
        let [local, unique] = Translation::isatap(prefix("2001:db8:1:2::/64"));
        for (translation, ipv4, expected) in [
            // RFC 6052, section 2.4.
            (nat64("2001:db8::/32"), "192.0.2.33", "2001:db8:c000:221::/64"),
            (nat64("2001:db8:100::/40"), "192.0.2.33", "2001:db8:1c0:2:21::/80"),
            (nat64("2001:db8:122::/48"), "192.0.2.33", "2001:db8:122:c000:2:2100::/88"),
            (nat64("2001:db8:122:300::/56"), "192.0.2.33", "2001:db8:122:3c0:0:221::/96"),
            (nat64("2001:db8:122:344::/64"), "192.0.2.33", "2001:db8:122:344:c0:2:2100::/104"),
            (nat64("2001:db8:122:344::/96"), "192.0.2.33", "2001:db8:122:344::192.0.2.33/128"),
            (nat64("2001:db8:100::/40"), "192.0.2.0/24", "2001:db8:1c0:2::/64"),
            (nat64("2001:db8:100::/40"), "192.0.2.0/25", "2001:db8:1c0:2::/73"),
            (nat64("2001:db8:122:344::/64"), "0.0.0.0/0", "2001:db8:122:344::/64"),
            (WELL_KNOWN[2], "203.0.113.0/24", "2002:cb00:7100::/40"),
            (WELL_KNOWN[2], "203.0.113.7", "2002:cb00:7107::/48"),
            (
                Translation::six_rd(prefix("2001:db8::/32"), prefix("0.0.0.0/0")),
                "192.0.2.33",
                "2001:db8:c000:221::/64",
            ),
            (
                Translation::six_rd(prefix("2001:db8::/32"), prefix("10.0.0.0/8")),
                "10.100.100.1",
                "2001:db8:6464:100::/56",
            ),
            (
                Translation::six_rd(prefix("2001:db8::/32"), prefix("10.0.0.0/8")),
                "8.0.0.0/6",
                "2001:db8::/32",
            ),
            // RFC 7597, appendix A: examples 1 and 5.
            (
                Translation::map(prefix("2001:db8::/40"), prefix("192.0.2.0/24"), 16),
                "192.0.2.18",
                "2001:db8:12::/48",
            ),
            (
                Translation::map(prefix("2001:db8:0:1200::/56"), prefix("192.0.2.18"), 0),
                "192.0.2.18",
                "2001:db8:0:1200::/56",
            ),
            (
                Translation::map(prefix("2001:db8::/40"), prefix("192.0.2.0/24"), 4),
                "192.0.2.18",
                "2001:db8:10::/44",
            ),
            (local, "192.0.2.33", "2001:db8:1:2:0:5efe:192.0.2.33/128"),
            (unique, "192.0.2.32/27", "2001:db8:1:2:200:5efe:c000:220/123"),
        ] {
            assert_eq!(translation.form(&prefix(ipv4)), Some(prefix(expected)), "{translation:?} {ipv4}");
            assert!(translation.longest() >= prefix(expected).bits);
        }
        let rule = Translation::map(prefix("2001:db8::/40"), prefix("192.0.2.0/24"), 16);
        assert_eq!(rule.form(&prefix("192.0.3.0/24")), None);
        assert_eq!(rule.host(&prefix("192.0.2.1")), None);
        assert_eq!(
            nat64("2001:db8:122::/48").host(&prefix("192.0.2.33")),
            Some(prefix("2001:db8:122:c000:2:2100::"))
        );
    }
}
