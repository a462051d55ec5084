//! How a packet can end: one list gives the counters, the metric labels and the documentation.

macro_rules! outcomes {
    ($($variant:ident, $name:literal, $reason:expr, $doc:literal;)+) => {
        /// How a packet ended. Every packet has exactly one outcome.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Outcome {
            $(#[doc = $doc] $variant,)+
        }

        impl Outcome {
            /// All outcomes, in the order of their counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The outcome's name in metrics, ledgers and documents (`malformed`, `non_ip`, …).
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The reason within the outcome, for outcomes that have reasons.
            #[must_use]
            pub const fn reason(self) -> Option<&'static str> {
                match self { $(Self::$variant => $reason,)+ }
            }

            /// One sentence that says when a packet has this outcome.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self { $(Self::$variant => $doc,)+ }
            }
        }
    };
}

outcomes! {
    Counted, "counted", None, "The packet is part of exactly one record.";
    OutOfScope, "out_of_scope", None, "The policy does not allow this direction to be collected.";
    NotSelected, "not_selected", None, "The policy has selectors and none of them matches.";
    ReservedAddress, "reserved_address", None, "The policy makes pseudonyms, and an address of the packet looks like one: nobody has that address.";
    NonIp, "non_ip", None, "The frame carries neither IPv4 nor IPv6.";
    Overflow, "overflow", None, "Flow table and spill log were full: the packet is in a residual counter.";
    UnknownInterface, "unknown_interface", None, "The program ran on an interface that nobody watches: the port of a bond before the agent knew of it, or a driver that runs the program on a lower device.";
    EthernetTruncated, "malformed", Some("ethernet_truncated"), "The frame ends inside the Ethernet header.";
    VlanTruncated, "malformed", Some("vlan_truncated"), "The frame ends inside a VLAN tag.";
    MplsTruncated, "malformed", Some("mpls_truncated"), "The frame ends inside an MPLS label.";
    PppoeTruncated, "malformed", Some("pppoe_truncated"), "The frame ends inside the PPPoE or PPP header.";
    PppoeHeader, "malformed", Some("pppoe_header"), "The PPPoE header is not version 1, type 1, code 0.";
    Ipv4Truncated, "malformed", Some("ipv4_truncated"), "The frame ends inside the IPv4 header.";
    Ipv4Version, "malformed", Some("ipv4_version"), "The version field of an IPv4 header is not 4.";
    Ipv4HeaderLength, "malformed", Some("ipv4_header_length"), "The IPv4 header length is below 20 bytes.";
    Ipv4TotalLength, "malformed", Some("ipv4_total_length"), "The IPv4 total length is below the header length or beyond the frame.";
    Ipv6Truncated, "malformed", Some("ipv6_truncated"), "The frame ends inside the IPv6 header.";
    Ipv6Version, "malformed", Some("ipv6_version"), "The version field of an IPv6 header is not 6.";
    Ipv6PayloadLength, "malformed", Some("ipv6_payload_length"), "The IPv6 payload length is beyond the frame.";
    Ipv6ExtensionHeader, "malformed", Some("ipv6_extension_header"), "An IPv6 extension header does not fit in the IP length.";
    GtpUTruncated, "malformed", Some("gtp_u_truncated"), "The packet ends inside the GTP-U header of a listed tunnel.";
    GtpULength, "malformed", Some("gtp_u_length"), "The GTP-U length is beyond the packet or ends inside the header's optional fields.";
    GtpUExtensionHeader, "malformed", Some("gtp_u_extension_header"), "A GTP-U extension header has length 0 or does not fit in the GTP-U length.";
    VxlanTruncated, "malformed", Some("vxlan_truncated"), "The packet ends inside the VXLAN header of a listed tunnel.";
    GreTruncated, "malformed", Some("gre_truncated"), "The packet ends inside the GRE header of a listed tunnel.";
    VlanDepth, "unsupported", Some("vlan_depth"), "The frame has more than 4 VLAN tags.";
    MplsDepth, "unsupported", Some("mpls_depth"), "The frame has more than 8 MPLS labels.";
    Ipv6ExtensionDepth, "unsupported", Some("ipv6_extension_depth"), "The packet has more than 8 IPv6 extension headers.";
    GtpUExtensionDepth, "unsupported", Some("gtp_u_extension_depth"), "The packet has more than 8 GTP-U extension headers.";
    GreRouting, "unsupported", Some("gre_routing"), "The GRE header of a listed tunnel has source routes (RFC 1701).";
    HeaderNotLinear, "unsupported", Some("header_not_linear"), "A header continues in a second buffer of a multi-buffer frame.";
}

impl Outcome {
    /// Number of outcomes.
    pub const COUNT: usize = Self::ALL.len();
}

#[cfg(test)]
mod tests {
    use super::Outcome;

    #[test]
    fn a_counter_index_is_the_position_in_the_list() {
        for (index, outcome) in Outcome::ALL.iter().enumerate() {
            assert_eq!(*outcome as usize, index);
        }
    }

    #[test]
    fn name_and_reason_together_are_unique() {
        for (index, one) in Outcome::ALL.iter().enumerate() {
            for other in &Outcome::ALL[index + 1..] {
                assert_ne!((one.name(), one.reason()), (other.name(), other.reason()));
            }
        }
    }

    #[test]
    fn exactly_malformed_and_unsupported_have_reasons() {
        for outcome in Outcome::ALL {
            let has_reasons = matches!(outcome.name(), "malformed" | "unsupported");
            assert_eq!(outcome.reason().is_some(), has_reasons, "{}", outcome.name());
        }
    }
}
