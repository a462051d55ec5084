//! Classes of addresses.

use std::fmt;

/// The class of an address, by the prefixes that a policy lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Class {
    /// Every address that no other prefix covers.
    Foreign = 0,
    /// An address at home.
    Domestic = 1,
    /// An address that is never collected, whatever else covers it.
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
