//! From a frame to a packet.
//!
//! Each protocol is a room: one file with its header layout and one `read` over a [`cursor::Cursor`]. Rooms
//! do not import each other. [`walk`] is the only corridor; [`common`] is a short way through the usual rooms.

pub mod common;
pub mod cursor;
pub mod walk;

mod dccp;
mod ethernet;
#[cfg(test)]
mod frames;
mod gre;
mod gtp_u;
mod icmp;
mod ipv4;
mod ipv6;
mod mpls;
mod pppoe;
mod sctp;
mod tcp;
mod udp;
mod vlan;
mod vxlan;
