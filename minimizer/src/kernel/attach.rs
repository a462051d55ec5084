//! How the program is attached, and the action for the frames that it has counted.

use minimizer_common::settings::{PROGRAM, PROGRAM_INNER, PROGRAM_INNER_TAP, PROGRAM_TAP};
use minimizer_common::tunnel::Tunnels;

use crate::support::refusal::Asked;

/// How the program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver, before a socket buffer exists.
    Native,
    /// In the network stack, for drivers without XDP.
    Skb,
}

impl Mode {
    /// The name of the mode in options, metrics and `status`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Skb => "skb",
        }
    }

    /// What an attachment in this mode asks of the kernel.
    pub(crate) const fn asked(self) -> Asked {
        match self {
            Self::Native => Asked::Native,
            Self::Skb => Asked::Skb,
        }
    }

    /// `XDP_FLAGS_SKB_MODE` or `XDP_FLAGS_DRV_MODE`.
    pub(crate) const fn flags(self) -> u32 {
        match self {
            Self::Native => 1 << 2,
            Self::Skb => 1 << 1,
        }
    }
}

/// The action for a frame that the program has counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The frame goes to the network stack.
    Pass,
    /// The frame is dropped: the interface is a tap.
    Drop,
}

impl Action {
    /// Name of the program that takes this action, and no other.
    #[must_use]
    pub const fn program(self, tunnels: Tunnels) -> &'static str {
        match (self, tunnels.is_empty()) {
            (Self::Pass, true) => PROGRAM,
            (Self::Drop, true) => PROGRAM_TAP,
            (Self::Pass, false) => PROGRAM_INNER,
            (Self::Drop, false) => PROGRAM_INNER_TAP,
        }
    }
}
