//! What a policy can do to a field before the program stores it or the agent hands it over.

use std::time::Duration;

use crate::policy::class::Class;

/// What remains of one field of a record. A field without a transform is omitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transform {
    /// The value as it is.
    Exact,
    /// An address, by the class of its prefix. Both transforms are equal if the policy does not distinguish
    /// classes.
    Address {
        /// The transform of addresses in foreign prefixes; of all addresses if the policy has no scope.
        foreign: AddressTransform,
        /// The transform of addresses in domestic prefixes.
        domestic: AddressTransform,
    },
    /// A port: 0 for well-known ones (0-1023), 1024 for registered ones (1024-49151), 49152 for others.
    PortClasses,
    /// The port if it is below this one, else 0.
    ServicePorts {
        /// The first port that becomes 0, 1 to 65535.
        below: u16,
    },
    /// The port if it is below this one or listed, else 0.
    ListedPorts {
        /// The first port that becomes 0 unless it is listed, 1 to 65535.
        below: u16,
        /// Those that are kept beside.
        listed: Listed,
    },
    /// The port if it is below this one or listed, else the last one of its class, or 0 for a well-known one. It is what the program
    /// stores where recipients of classes and of services meet: no policy names it.
    StoredPorts {
        /// The first port that is stored as its class unless it is listed.
        below: u16,
        /// Those that are kept beside.
        listed: Option<Listed>,
    },
    /// TCP control bits, reduced to these.
    ControlBits {
        /// The bits, as in IE 6.
        mask: u16,
    },
    /// A time, rounded down to a multiple of this unit.
    Coarsened {
        /// From 10 ms to 1 h, in whole milliseconds.
        unit: Duration,
    },
    /// A count, rounded down to a power of two (0 stays 0).
    Log2,
}

/// What [`Transform::Log2`] leaves of a count.
#[must_use]
pub const fn log2(count: u64) -> u64 {
    match count.checked_ilog2() {
        None => 0,
        Some(log2) => 1 << log2,
    }
}

/// The most ports that a transform lists.
pub const LISTED_MAX: usize = 8;

/// The most ports of one side that all recipients list together.
pub const LISTED_STORED_MAX: usize = 32;

/// Listed ports: at least one, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Listed {
    /// Ports, filled up with the last one.
    ports: [u16; LISTED_STORED_MAX],
}

impl Listed {
    /// These ports; `None` if there are none, or more than [`LISTED_STORED_MAX`].
    #[must_use]
    pub fn new(mut ports: Vec<u16>) -> Option<Self> {
        ports.sort_unstable();
        ports.dedup();
        let last = *ports.last()?;
        if ports.len() > LISTED_STORED_MAX {
            return None;
        }
        ports.resize(LISTED_STORED_MAX, last);
        Some(Self { ports: ports.try_into().ok()? })
    }

    /// The last one.
    #[must_use]
    pub const fn last(&self) -> u16 {
        self.ports[LISTED_STORED_MAX - 1]
    }

    /// Whether the port is listed.
    #[must_use]
    pub fn has(&self, port: u16) -> bool {
        self.ports.contains(&port)
    }

    /// The ports, each once.
    #[must_use]
    pub fn ports(&self) -> Vec<u16> {
        let mut ports = self.ports.to_vec();
        ports.dedup();
        ports
    }
}

/// The transform of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressTransform {
    /// Nothing remains.
    Omitted,
    /// The address as it is.
    Exact,
    /// The first bits of the address; the others are zero.
    Truncated {
        /// The number of bits, at least 1 and below the length of the address.
        bits: u8,
    },
    /// A keyed pseudonym. Nobody can reverse it without the key.
    Pseudonym,
    /// Another address. Two such addresses share as long a prefix as the original two.
    PrefixPreserving(PrefixScheme),
}

impl AddressTransform {
    /// Whether it takes a key.
    #[must_use]
    pub const fn is_keyed(self) -> bool {
        matches!(self, Self::Pseudonym | Self::PrefixPreserving(_))
    }
}

/// The algorithm that preserves prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PrefixScheme {
    /// ipcrypt-pfx of draft-denis-ipcrypt.
    Ipcrypt,
    /// Crypto-PAn of Xu, Fan, Ammar and Moon.
    CryptoPan,
}

impl Transform {
    /// Whether addresses of some class become pseudonyms.
    #[must_use]
    pub fn is_pseudonym(&self) -> bool {
        matches!(self, Self::Address { foreign, domestic } if [foreign, domestic].contains(&&AddressTransform::Pseudonym))
    }

    /// Whether addresses of some class become pseudonyms, or others that preserve prefixes: whatever takes a key.
    #[must_use]
    pub const fn is_keyed(&self) -> bool {
        matches!(self, Self::Address { foreign, domestic } if foreign.is_keyed() || domestic.is_keyed())
    }

    /// The same transform for all addresses.
    #[must_use]
    pub const fn address(transform: AddressTransform) -> Self {
        Self::Address { foreign: transform, domestic: transform }
    }

    /// The transform of an address of this class. Nothing remains of an address that is never collected, nor
    /// of a field that is not an address.
    #[must_use]
    pub const fn of_class(self, class: Class) -> AddressTransform {
        match (self, class) {
            (Self::Exact, Class::Foreign | Class::Domestic) => AddressTransform::Exact,
            (Self::Address { foreign, .. }, Class::Foreign) => foreign,
            (Self::Address { domestic, .. }, Class::Domestic) => domestic,
            _ => AddressTransform::Omitted,
        }
    }

    /// Whether the transform depends on the class of the address.
    #[must_use]
    pub fn is_by_class(self) -> bool {
        self.of_class(Class::Foreign) != self.of_class(Class::Domestic)
    }
}

/// The TCP control bit by which a sender ends its direction.
pub const FIN: u16 = 0x001;
/// The TCP control bit that opens a connection.
pub const SYN: u16 = 0x002;
/// The TCP control bit of a reset: any host answers so where it has no service.
pub const RST: u16 = 0x004;
/// The TCP control bit of data that the sender wants delivered.
pub const PSH: u16 = 0x008;

/// TCP control bits by their names in the IANA registry, from the lowest bit on.
pub const CONTROL_BITS: [(&str, u16); 9] = [
    ("FIN", FIN),
    ("SYN", SYN),
    ("RST", RST),
    ("PSH", PSH),
    ("ACK", 0x010),
    ("URG", 0x020),
    ("ECE", 0x040),
    ("CWR", 0x080),
    ("AE", 0x100),
];
