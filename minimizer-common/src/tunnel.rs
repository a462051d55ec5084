//! The tunnels that the program can look into: one list that gives the settings, the command line and the
//! documentation.

use crate::named;

named! {
    /// A tunnel whose inner packet the program can count in place of the outer one.
    pub enum Tunnel {
        GtpU, "gtp-u", "GTP-U user data (3GPP TS 29.281): UDP port 2152, message type 255, IP inside";
        Vxlan, "vxlan", "VXLAN (RFC 7348): UDP port 4789, Ethernet inside";
        Gre, "gre", "GRE (RFC 2784, RFC 2890): IPv4, IPv6 or Ethernet inside";
        IpInIp, "ip-in-ip", "IPv4 in IPv4 (RFC 2003)";
        SixInFour, "6in4", "IPv6 in IPv4 (RFC 4213)";
        FourInSix, "4in6", "IPv4 in IPv6 (RFC 2473)";
        SixInSix, "6in6", "IPv6 in IPv6 (RFC 2473), SRv6 encapsulation (RFC 8986)";
    }
}

/// A set of tunnels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tunnels(pub u32);

impl Tunnels {
    /// No tunnel: the program counts outer packets, and their content is payload.
    pub const NONE: Self = Self(0);
    /// Every tunnel.
    pub const ALL: Self = Self((1 << Tunnel::ALL.len()) - 1);

    /// The set and one tunnel more.
    #[must_use]
    pub const fn with(self, tunnel: Tunnel) -> Self {
        Self(self.0 | 1 << tunnel as u32)
    }

    /// Whether the tunnel is in the set.
    #[inline(always)]
    #[must_use]
    pub const fn has(self, tunnel: Tunnel) -> bool {
        self.0 & 1 << tunnel as u32 != 0
    }

    /// Whether the set is empty.
    #[inline(always)]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::{Tunnel, Tunnels};

    #[test]
    fn a_set_has_what_was_put_in() {
        for tunnel in Tunnel::ALL {
            let set = Tunnels::NONE.with(*tunnel);
            for other in Tunnel::ALL {
                assert_eq!(set.has(*other), tunnel == other);
            }
            assert!(Tunnels::ALL.has(*tunnel) && !Tunnels::NONE.has(*tunnel));
        }
    }
}
