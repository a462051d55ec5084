//! The key of a flow. Addresses keep network byte order; every other number is in host order.

/// What distinguishes one flow from another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tuple {
    /// IPv6: source in words 0 and 1, destination in words 2 and 3. IPv4: both in word 0, and the other words
    /// are zero.
    pub addresses: [u64; 4],
    /// Destination port (or ICMP code) in bits 0..16, source port (or ICMP type) in bits 16..32: the two ports as one
    /// number, as they follow each other on the wire. [`Tags`] in bits 32..64.
    pub transport: u64,
    /// Protocol in bits 0..8, traffic class octet in bits 8..16.
    pub kind: u16,
    /// Number of the selector that the packet matched, 0 if the policy has none; 20 bits.
    pub selector: u32,
}

/// VLAN identifiers, IP version and ingress interface, packed in 32 bits of a [`Tuple`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tags(pub u32);

impl Tags {
    const VLAN_ID_MASK: u32 = 0xfff;
    const TAGGED: u32 = 1 << 24;
    const TAGGED_TWICE: u32 = 1 << 25;
    const VERSION_6: u32 = 1 << 26;
    const INTERFACE_SHIFT: u32 = 27;

    /// The bits of the outermost VLAN identifier, and the bit that says that it is present.
    pub const VLAN: Self = Self(Self::VLAN_ID_MASK | Self::TAGGED);
    /// The bits of the second VLAN identifier, and the bit that says that it is present.
    pub const CUSTOMER_VLAN: Self = Self(Self::VLAN_ID_MASK << 12 | Self::TAGGED_TWICE);
    /// The bit of the IP version.
    pub const VERSION: Self = Self(Self::VERSION_6);
    /// The bits of the ingress interface.
    pub const INTERFACE: Self = Self(31 << Self::INTERFACE_SHIFT);

    /// Tags of an untagged IPv4 packet from interface slot 0.
    pub const NONE: Self = Self(0);

    /// Adds the next VLAN tag, outermost first. It keeps the first two tags and ignores further ones.
    #[inline(always)]
    #[must_use]
    pub const fn with_vlan(self, vlan_id: u16) -> Self {
        let vlan_id = vlan_id as u32 & Self::VLAN_ID_MASK;
        if self.0 & Self::TAGGED == 0 {
            Self(self.0 | vlan_id | Self::TAGGED)
        } else if self.0 & Self::TAGGED_TWICE == 0 {
            Self(self.0 | vlan_id << 12 | Self::TAGGED_TWICE)
        } else {
            self
        }
    }

    /// Marks the packet as IPv6.
    #[inline(always)]
    #[must_use]
    pub const fn with_ipv6(self) -> Self {
        Self(self.0 | Self::VERSION_6)
    }

    /// Sets the slot number (0..32) of the ingress interface.
    #[inline(always)]
    #[must_use]
    pub const fn with_interface(self, slot: u32) -> Self {
        Self(self.0 | slot << Self::INTERFACE_SHIFT)
    }

    /// Outermost VLAN identifier (IE 58), if the frame had a tag and the policy keeps the identifier.
    #[must_use]
    pub const fn vlan_id(self) -> Option<u16> {
        if self.0 & Self::TAGGED != 0 { Some((self.0 & Self::VLAN_ID_MASK) as u16) } else { None }
    }

    /// Second VLAN identifier (IE 245), if the frame had two tags and the policy keeps the identifier.
    #[must_use]
    pub const fn customer_vlan_id(self) -> Option<u16> {
        if self.0 & Self::TAGGED_TWICE != 0 { Some((self.0 >> 12 & Self::VLAN_ID_MASK) as u16) } else { None }
    }

    /// Whether the packet is IPv6.
    #[inline(always)]
    #[must_use]
    pub const fn is_ipv6(self) -> bool {
        self.0 & Self::VERSION_6 != 0
    }

    /// Slot number of the ingress interface.
    #[inline(always)]
    #[must_use]
    pub const fn interface(self) -> u32 {
        self.0 >> Self::INTERFACE_SHIFT
    }
}

impl Tuple {
    /// Packs the words from their parts; `ports` is (source, destination) or ICMP (type, code).
    #[inline(always)]
    #[must_use]
    pub const fn new(
        addresses: [u64; 4],
        ports: (u16, u16),
        tags: Tags,
        protocol: u8,
        traffic_class: u8,
    ) -> Self {
        Self {
            addresses,
            transport: ports.1 as u64 | (ports.0 as u64) << 16 | (tags.0 as u64) << 32,
            kind: protocol as u16 | (traffic_class as u16) << 8,
            selector: 0,
        }
    }

    /// The packed VLAN, version and interface bits.
    #[inline(always)]
    #[must_use]
    pub const fn tags(&self) -> Tags {
        Tags((self.transport >> 32) as u32)
    }

    /// Source port, or ICMP type.
    #[must_use]
    pub const fn source_port(&self) -> u16 {
        (self.transport >> 16 & 0xffff) as u16
    }

    /// Destination port, or ICMP code.
    #[must_use]
    pub const fn destination_port(&self) -> u16 {
        (self.transport & 0xffff) as u16
    }

    /// Protocol number (IE 4).
    #[inline(always)]
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        (self.kind & 0xff) as u8
    }

    /// IPv4 type of service or IPv6 traffic class (IE 5).
    #[must_use]
    pub const fn traffic_class(&self) -> u8 {
        (self.kind >> 8) as u8
    }

    /// The four address octets of an IPv4 tuple: source, destination.
    #[must_use]
    pub const fn ipv4(&self) -> ([u8; 4], [u8; 4]) {
        let [a, b, c, d, e, f, g, h] = self.addresses[0].to_ne_bytes();
        ([a, b, c, d], [e, f, g, h])
    }

    /// The sixteen address octets of an IPv6 tuple: source, destination.
    #[must_use]
    pub fn ipv6(&self) -> ([u8; 16], [u8; 16]) {
        let join = |high: u64, low: u64| {
            let mut octets = [0; 16];
            octets[..8].copy_from_slice(&high.to_ne_bytes());
            octets[8..].copy_from_slice(&low.to_ne_bytes());
            octets
        };
        (join(self.addresses[0], self.addresses[1]), join(self.addresses[2], self.addresses[3]))
    }
}

#[cfg(test)]
mod tests {
    use super::{Tags, Tuple};

    #[test]
    fn tags_keep_the_two_outermost_vlans() {
        let tags = Tags::NONE;
        assert_eq!((tags.vlan_id(), tags.customer_vlan_id()), (None, None));
        let tags = tags.with_vlan(0);
        assert_eq!((tags.vlan_id(), tags.customer_vlan_id()), (Some(0), None));
        let tags = tags.with_vlan(0xffff);
        assert_eq!((tags.vlan_id(), tags.customer_vlan_id()), (Some(0), Some(0xfff)));
        let deep = tags.with_vlan(7).with_vlan(8);
        assert_eq!(deep, tags);
    }

    #[test]
    fn tags_do_not_disturb_each_other() {
        let tags = Tags::NONE.with_vlan(0xfff).with_vlan(0xfff).with_ipv6().with_interface(31);
        assert_eq!(tags.vlan_id(), Some(0xfff));
        assert_eq!(tags.customer_vlan_id(), Some(0xfff));
        assert!(tags.is_ipv6());
        assert_eq!(tags.interface(), 31);
        assert!(!Tags::NONE.with_vlan(0xfff).with_vlan(0xfff).with_interface(31).is_ipv6());
    }

    #[test]
    fn tuple_parts_come_back() {
        let tuple = Tuple::new([1, 2, 3, 4], (0x1234, 0xfedc), Tags::NONE.with_interface(9), 17, 0xb8);
        assert_eq!(tuple.source_port(), 0x1234);
        assert_eq!(tuple.destination_port(), 0xfedc);
        assert_eq!(tuple.tags().interface(), 9);
        assert_eq!((tuple.protocol(), tuple.traffic_class()), (17, 0xb8));
    }
}
