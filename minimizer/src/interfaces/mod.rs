//! Network interfaces: what the kernel reports about them, which ones are selected, and which slot each has.

mod blindness;
pub mod netlink;
pub mod selection;
pub mod slot;
pub mod slots;
pub mod tap;
