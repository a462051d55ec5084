//! What every search of the policy's tables starts from: the tables, an address, and how a constant is read.

use minimizer_common::tables::{Entry, Node, Roots};

/// The tables of the policy. The functions here pass copies on, so that an implementor should have no fields.
pub trait Nodes: Copy {
    /// One node of the array.
    fn node(&self, index: u32) -> Option<&Node>;
    /// One entry of a list.
    fn entry(&self, index: u32) -> Option<Entry>;
    /// The roots of the tries: constants of the program. The compiler must not use the values in the object.
    fn roots(&self) -> &Roots;
}

/// An address in memory order. An IPv4 address is the lower half of the first word; the rest is zero.
#[derive(Clone, Copy)]
pub struct Address {
    /// The first eight octets. The very first is in the lowest bits.
    pub high: u64,
    /// The last eight octets.
    pub low: u64,
}

impl Address {
    /// The addresses of a tuple: source, destination.
    #[inline(always)]
    #[must_use]
    pub const fn pair<const IPV6: bool>(addresses: &[u64; 4]) -> (Self, Self) {
        if IPV6 {
            let [source, source_low, destination, destination_low] = *addresses;
            (Self { high: source, low: source_low }, Self { high: destination, low: destination_low })
        } else {
            let both = addresses[0];
            (Self { high: both & 0xffff_ffff, low: 0 }, Self { high: both >> 32, low: 0 })
        }
    }
}

/// Reads one constant. The read is volatile, because the agent replaces the constants before it loads the
/// program; the compiler must not use the values in the object. The verifier knows the real values and
/// removes the code that they rule out.
macro_rules! constant {
    ($($field:tt)+) => {
        // SAFETY: reads a field of a borrowed struct.
        unsafe { ::core::ptr::read_volatile(&raw const $($field)+) }
    };
}
pub(crate) use constant;
