//! A record: what leaves this host for one flow of one interval.

use minimizer_common::tuple::Tuple;

/// Counts of one flow in one interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The flow.
    pub tuple: Tuple,
    /// Index of the interface that the packets came in on.
    pub ingress_interface: u32,
    /// OR of the packets' TCP control bits.
    pub control_bits: u16,
    /// Packets.
    pub packets: u64,
    /// Sum of the IP lengths that the headers declare.
    pub octets: u64,
    /// Begin of the time unit of the first packet, milliseconds since 1970.
    pub start_ms: u64,
    /// Begin of the time unit of the last packet, milliseconds since 1970.
    pub end_ms: u64,
    /// Number of the indicator that selected the packets; 0 when there is none.
    pub selector_id: u64,
}
