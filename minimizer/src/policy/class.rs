//! Classes of addresses.

use std::fmt;

/// The class of an address. The prefixes of a policy decide it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Class {
    /// Every address that no other prefix covers.
    Foreign = 0,
    /// A domestic address.
    Domestic = 1,
    /// An address that is never collected, whatever other prefix covers it.
    Never = 2,
}

impl fmt::Display for Class {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Foreign => "foreign",
            Self::Domestic => "domestic",
            Self::Never => "never",
        })
    }
}
