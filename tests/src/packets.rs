//! Frames whose headers, tuple and outcome are known from the specifications, not from the parser.

mod build;
mod generator;
mod mutate;
mod recipe;
mod tunnel;

use std::ops::Range;

use minimizer_common::outcome::Outcome;
use minimizer_ebpf::parser::walk;

pub use generator::Generator;
pub use mutate::mutations;
pub use recipe::{
    Carrier, Encapsulation, Extension, Header, Inner, Ipv4, Ipv6, Network, OptionsHeader, Other, Recipe,
    Transport, Vlan,
};

/// A frame, and what the rules say about it.
#[derive(Clone, Debug)]
pub struct Packet {
    /// The frame.
    pub octets: Vec<u8>,
    /// Octets up to the end of the last header that the rules allow to be read.
    pub headers_octets: usize,
    /// Where each field of each header lies, payload and padding excluded.
    pub fields: Vec<Range<usize>>,
    /// How the frame ends, and with which tuple when it is counted.
    pub expected: Result<walk::Packet, Outcome>,
    /// The same when every tunnel is listed.
    pub listed: Listed,
}

/// What the rules say about a frame when every tunnel is listed.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Octets up to the end of the last header that the rules allow to be read.
    pub headers_octets: usize,
    /// How the frame ends, and with which tuple when it is counted.
    pub expected: Result<walk::Packet, Outcome>,
}
