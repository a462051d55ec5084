//! The permutation that makes pseudonyms of IPv4 addresses: a Feistel network over 28 bits, whose round functions are tables of
//! random numbers.
//!
//! What is permuted is a number below [`LAST`]: the rank of an address among the policy's domestic ones, where these are so few that
//! each can have a number of its own; else the last 28 bits of the address. Half-way the first 4 bits change the number, so that they
//! choose one of 16 permutations: addresses that differ in them share a pseudonym by chance, and of others one pair at most. A pseudonym
//! is such a number in 240.0.0.0/4. [`LAST`] would be 255.255.255.255, which packets carry: it is no pseudonym.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Rounds. Each half of the number is changed four times.
pub const ROUNDS: usize = 8;
/// Bits of each half of a number.
pub const HALF_BITS: u32 = 14;
/// Entries of a table.
pub const TABLE_ENTRIES: usize = 1 << HALF_BITS;
/// The largest number of 28 bits. It is not permuted, and no number becomes it.
pub const LAST: u32 = (1 << (2 * HALF_BITS)) - 1;

/// What the agent derives from a key.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Permutation {
    /// By round, then by one half of the number: what the other half is changed by, in the lower [`HALF_BITS`].
    pub tables: [[u16; TABLE_ENTRIES]; ROUNDS],
    /// An odd number. Its product with one more than the first four bits of an address without a rank is what changes its number
    /// half-way.
    pub tweak: u32,
    /// What the one number becomes that the tables alone would make [`LAST`].
    pub instead_of_last: u32,
}

/// Name of the map that has the permutation of each generation.
pub const PERMUTATIONS_MAP: &str = "PERMUTATIONS";

const _: () = assert!(size_of::<Permutation>() == ROUNDS * TABLE_ENTRIES * 2 + 8);
