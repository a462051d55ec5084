//! The fields of a record, described once: when a record has each of them, its type, and how its value is read.
//!
//! Every export format implements [`Reader`] and takes the fields from [`read_all`] or [`read_one`]. Both are generic over
//! the reader and the field's number is a constant in them, so that a format costs what it would cost written out by hand.

use std::convert::Infallible;

use minimizer_common::protocol::Transport;
use serde::Serialize;

use crate::policy::field::{Field, Fields};
use crate::records::record::Record;

/// When a record has a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Always,
    Ipv4,
    Ipv6,
    Ports,
    Tcp,
    Icmp,
    IcmpV6,
    Tagged,
    TaggedTwice,
    Selected,
}

/// The parts of a record that decide which fields it has.
///
/// Bit 0 is the IP version, bits 1 to 3 are the [`Transport`], bits 4 and 5 say whether there are one and two VLAN tags, and
/// bit 6 whether an indicator selected the packets. The numbers of IPFIX templates follow from these bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant(u8);

impl Variant {
    /// Numbers below this one are those of variants.
    pub const COUNT: u8 = 1 << 7;

    /// By number: the fields of records of that variant.
    const FIELDS: [Fields; Self::COUNT as usize] = {
        let mut all = [Fields::NONE; Self::COUNT as usize];
        let mut number = 0;
        while number < Self::COUNT {
            let mut index = 0;
            while index < Field::ALL.len() {
                let field = Field::ALL[index];
                if Self(number).meets(condition(field)) {
                    all[number as usize] = all[number as usize].with(field);
                }
                index += 1;
            }
            number += 1;
        }
        all
    };

    /// The variant of a record.
    #[inline]
    #[must_use]
    pub const fn of(record: &Record) -> Self {
        let tags = record.tuple.tags();
        Self(
            tags.is_ipv6() as u8
                | (Transport::of(record.tuple.protocol()) as u8) << 1
                | (tags.vlan_id().is_some() as u8) << 4
                | (tags.customer_vlan_id().is_some() as u8) << 5
                | ((record.selector_id != 0) as u8) << 6,
        )
    }

    /// All variants, by number.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT).map(Self)
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// The fields that records of the variant have.
    #[inline]
    #[must_use]
    pub const fn fields(self) -> Fields {
        Self::FIELDS[(self.0 % Self::COUNT) as usize]
    }

    #[inline(always)]
    const fn meets(self, condition: Condition) -> bool {
        const TCP: u8 = Transport::Tcp as u8;
        const PORTS: u8 = Transport::Ports as u8;
        let transport = self.0 >> 1 & 7;
        match condition {
            Condition::Always => true,
            Condition::Ipv4 => self.0 & 1 == 0,
            Condition::Ipv6 => self.0 & 1 != 0,
            Condition::Ports => matches!(transport, TCP | PORTS),
            Condition::Tcp => transport == TCP,
            Condition::Icmp => transport == Transport::Icmp as u8,
            Condition::IcmpV6 => transport == Transport::IcmpV6 as u8,
            Condition::Tagged => self.0 & 1 << 4 != 0,
            Condition::TaggedTwice => self.0 & 1 << 5 != 0,
            Condition::Selected => self.0 & 1 << 6 != 0,
        }
    }
}

/// A number that is a field's value.
pub trait Number: Copy + Into<u64> + itoa::Integer + Serialize {}

impl Number for u8 {}
impl Number for u16 {}
impl Number for u32 {}
impl Number for u64 {}

/// What is done with the fields of records.
pub trait Reader {
    /// Why a field cannot be taken.
    type Error;

    /// Takes a number; `of` gives it for a record.
    ///
    /// # Errors
    /// When it cannot be taken.
    fn number<N: Number>(&mut self, field: Field, of: impl Fn(&Record) -> N) -> Result<(), Self::Error>;

    /// Takes an IPv4 address.
    ///
    /// # Errors
    /// When it cannot be taken.
    fn ipv4(&mut self, field: Field, of: impl Fn(&Record) -> [u8; 4]) -> Result<(), Self::Error>;

    /// Takes an IPv6 address.
    ///
    /// # Errors
    /// When it cannot be taken.
    fn ipv6(&mut self, field: Field, of: impl Fn(&Record) -> [u8; 16]) -> Result<(), Self::Error>;
}

/// A reader that always succeeds has read.
#[inline(always)]
pub fn done(result: Result<(), Infallible>) {
    let Ok(()) = result;
}

/// The type of a field's value, which chooses the method of [`Reader`].
trait Value: Sized {
    fn give<R: Reader>(reader: &mut R, field: Field, of: impl Fn(&Record) -> Self) -> Result<(), R::Error>;
}

macro_rules! values {
    ($($type:ty: $method:ident;)+) => {
        $(impl Value for $type {
            #[inline(always)]
            fn give<R: Reader>(
                reader: &mut R,
                field: Field,
                of: impl Fn(&Record) -> Self,
            ) -> Result<(), R::Error> {
                reader.$method(field, of)
            }
        })+
    };
}

values! {
    u8: number;
    u16: number;
    u32: number;
    u64: number;
    [u8; 4]: ipv4;
    [u8; 16]: ipv6;
}

macro_rules! describe {
    (|$record:ident| $(if $condition:ident { $($field:ident: $type:ty = $value:expr;)+ })+) => {
        const DESCRIBED: &[Field] = &[$($(Field::$field),+),+];

        const fn condition(field: Field) -> Condition {
            match field { $($(Field::$field => Condition::$condition,)+)+ }
        }

        /// Octets of a field's value.
        #[must_use]
        pub const fn octets(field: Field) -> usize {
            match field { $($(Field::$field => size_of::<$type>(),)+)+ }
        }

        /// Gives the reader those of `fields` that records of the variant have, in the order of [`Field::ALL`].
        ///
        /// # Errors
        /// The reader's, at the first field that it cannot take.
        #[inline(always)]
        pub fn read_all<R: Reader>(fields: Fields, variant: Variant, reader: &mut R) -> Result<(), R::Error> {
            $(if variant.meets(Condition::$condition) {
                $(if fields.has(Field::$field) {
                    <$type as Value>::give(reader, Field::$field, |$record| $value)?;
                })+
            })+
            Ok(())
        }

        /// Gives the reader one field. The value of a field that a record does not have means nothing.
        ///
        /// # Errors
        /// The reader's.
        #[inline(always)]
        pub fn read_one<R: Reader>(field: Field, reader: &mut R) -> Result<(), R::Error> {
            match field {
                $($(Field::$field => <$type as Value>::give(reader, Field::$field, |$record| $value),)+)+
            }
        }
    };
}

describe! {
    |record|
    if Ipv4 {
        SourceIPv4Address: [u8; 4] = record.tuple.ipv4().0;
        DestinationIPv4Address: [u8; 4] = record.tuple.ipv4().1;
    }
    if Ipv6 {
        SourceIPv6Address: [u8; 16] = record.tuple.ipv6().0;
        DestinationIPv6Address: [u8; 16] = record.tuple.ipv6().1;
    }
    if Ports {
        SourceTransportPort: u16 = record.tuple.source_port();
        DestinationTransportPort: u16 = record.tuple.destination_port();
    }
    if Always {
        ProtocolIdentifier: u8 = record.tuple.protocol();
        IpClassOfService: u8 = record.tuple.traffic_class();
    }
    if Tcp {
        TcpControlBits: u16 = record.control_bits;
    }
    if Icmp {
        IcmpTypeIPv4: u8 = low_octet(record.tuple.source_port());
        IcmpCodeIPv4: u8 = low_octet(record.tuple.destination_port());
    }
    if IcmpV6 {
        IcmpTypeIPv6: u8 = low_octet(record.tuple.source_port());
        IcmpCodeIPv6: u8 = low_octet(record.tuple.destination_port());
    }
    if Tagged {
        VlanId: u16 = record.tuple.tags().vlan_id().unwrap_or(0);
    }
    if TaggedTwice {
        Dot1qCustomerVlanId: u16 = record.tuple.tags().customer_vlan_id().unwrap_or(0);
    }
    if Always {
        IngressInterface: u32 = record.ingress_interface;
    }
    if Selected {
        SelectorId: u64 = record.selector_id;
    }
    if Always {
        PacketDeltaCount: u64 = record.packets;
        OctetDeltaCount: u64 = record.octets;
        FlowStartMilliseconds: u64 = record.start_ms;
        FlowEndMilliseconds: u64 = record.end_ms;
    }
}

/// ICMP types and codes stand in the place of ports, and have one octet.
const fn low_octet(value: u16) -> u8 {
    value.to_be_bytes()[1]
}

// A field that is not described at all does not compile; one in another place than in `Field::ALL` would be written there.
const _: () = {
    let mut index = 0;
    while index < Field::ALL.len() {
        assert!(DESCRIBED[index] as usize == index && DESCRIBED.len() == Field::ALL.len());
        index += 1;
    }
};

#[cfg(test)]
mod tests;
