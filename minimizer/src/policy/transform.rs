//! What a policy can make of a field before it is stored or handed over.

use std::time::Duration;

use crate::policy::class::Class;

/// What becomes of one field of a record. A field without a transform is omitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transform {
    /// The value as it is.
    Exact,
    /// An address, by the class of its prefix. Both are the same where the policy makes no difference.
    Address {
        /// What becomes of addresses in foreign prefixes, and of all where no scope is given.
        foreign: AddressTransform,
        /// What becomes of addresses in domestic prefixes.
        domestic: AddressTransform,
    },
    /// A port: 0 for well-known ones (0-1023), 1024 for registered ones (1024-49151), 49152 for others.
    PortClasses,
    /// A port below this one as it is, and 0 for the others.
    ServicePorts {
        /// The first port that is not kept, 1 to 65535.
        below: u16,
    },
    /// TCP control bits, of which only these are kept.
    ControlBits {
        /// The bits, as in IE 6.
        mask: u16,
    },
    /// A time, rounded down to a multiple of this one.
    Coarsened {
        /// From 10 ms to 1 h, whole milliseconds.
        unit: Duration,
    },
    /// A count, rounded down to a power of two (0 stays 0).
    Log2,
}

/// What becomes of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressTransform {
    /// Nothing is left of it.
    Omitted,
    /// The address as it is.
    Exact,
    /// Its first bits, the others zero.
    Truncated {
        /// How many, at least 1 and below the length of the address.
        bits: u8,
    },
    /// A keyed pseudonym that cannot be turned back without the key.
    Pseudonym,
    /// Another address that shares with any other as long a prefix as the two did.
    PrefixPreserving(PrefixScheme),
}

/// How prefixes are preserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PrefixScheme {
    /// ipcrypt-pfx of draft-denis-ipcrypt.
    Ipcrypt,
    /// Crypto-PAn of Xu, Fan, Ammar and Moon.
    CryptoPan,
}

impl Transform {
    /// Whether addresses of any class become pseudonyms.
    #[must_use]
    pub fn is_pseudonym(&self) -> bool {
        matches!(self, Self::Address { foreign, domestic } if [foreign, domestic].contains(&&AddressTransform::Pseudonym))
    }

    /// The same for all addresses.
    #[must_use]
    pub const fn address(transform: AddressTransform) -> Self {
        Self::Address { foreign: transform, domestic: transform }
    }

    /// What becomes of an address of this class; nothing is left of one that is never collected, nor of what is no
    /// address.
    #[must_use]
    pub const fn of_class(self, class: Class) -> AddressTransform {
        match (self, class) {
            (Self::Exact, Class::Foreign | Class::Domestic) => AddressTransform::Exact,
            (Self::Address { foreign, .. }, Class::Foreign) => foreign,
            (Self::Address { domestic, .. }, Class::Domestic) => domestic,
            _ => AddressTransform::Omitted,
        }
    }

    /// Whether the class of an address decides what becomes of it.
    #[must_use]
    pub fn is_by_class(self) -> bool {
        self.of_class(Class::Foreign) != self.of_class(Class::Domestic)
    }
}

/// TCP control bits by their names in the IANA registry, from the lowest on.
pub const CONTROL_BITS: [(&str, u16); 9] = [
    ("FIN", 0x001),
    ("SYN", 0x002),
    ("RST", 0x004),
    ("PSH", 0x008),
    ("ACK", 0x010),
    ("URG", 0x020),
    ("ECE", 0x040),
    ("CWR", 0x080),
    ("AE", 0x100),
];
