//! Instructions of a program as the kernel lists them.

/// One place of eight octets. A 64-bit constant takes two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Instruction {
    /// Class, operation, and where the second operand comes from or how wide it is.
    pub code: u8,
    /// Register that is written.
    pub destination: u8,
    /// Register that is read, or what kind of constant this is.
    pub source: u8,
    /// Signed offset of memory or of a jump.
    pub offset: i16,
    /// Signed constant.
    pub constant: i32,
}

/// Classes, without that of jumps on the lower half of registers: the lowest three bits of a code.
pub mod class {
    pub const LD: u8 = 0;
    pub const LDX: u8 = 1;
    pub const ST: u8 = 2;
    pub const STX: u8 = 3;
    pub const ALU32: u8 = 4;
    pub const JMP: u8 = 5;
    pub const ALU64: u8 = 7;
}

/// Operations of the arithmetic classes, and of the jumps where the name says so: the upper four bits of a code.
pub mod operation {
    pub const ADD: u8 = 0x00;
    pub const SUB: u8 = 0x10;
    pub const MUL: u8 = 0x20;
    pub const DIV: u8 = 0x30;
    pub const OR: u8 = 0x40;
    pub const AND: u8 = 0x50;
    pub const LSH: u8 = 0x60;
    pub const RSH: u8 = 0x70;
    pub const NEG: u8 = 0x80;
    pub const MOD: u8 = 0x90;
    pub const XOR: u8 = 0xa0;
    pub const MOV: u8 = 0xb0;
    pub const ARSH: u8 = 0xc0;
    pub const END: u8 = 0xd0;

    pub const JUMP_ALWAYS: u8 = 0x00;
    pub const JUMP_EQUAL: u8 = 0x10;
    pub const JUMP_ABOVE: u8 = 0x20;
    pub const JUMP_ABOVE_EQUAL: u8 = 0x30;
    pub const JUMP_SET: u8 = 0x40;
    pub const JUMP_NOT_EQUAL: u8 = 0x50;
    pub const JUMP_GREATER: u8 = 0x60;
    pub const JUMP_GREATER_EQUAL: u8 = 0x70;
    pub const CALL: u8 = 0x80;
    pub const EXIT: u8 = 0x90;
    pub const JUMP_BELOW: u8 = 0xa0;
    pub const JUMP_BELOW_EQUAL: u8 = 0xb0;
    pub const JUMP_LESS: u8 = 0xc0;
    pub const JUMP_LESS_EQUAL: u8 = 0xd0;
}

/// Modes of the memory classes: the upper three bits of a code.
pub mod mode {
    pub const MEMORY: u8 = 0x60;
    pub const MEMORY_SIGNED: u8 = 0x80;
    /// An atomic operation; in the class of stored constants a barrier against speculation.
    pub const ATOMIC: u8 = 0xc0;
}

/// In [`Instruction::source`] of a 64-bit constant: the number of a map stands for the map's address.
pub const SOURCE_MAP: u8 = 1;
/// The number of a map, and in the second place an offset, stand for an address in its first value.
pub const SOURCE_MAP_VALUE: u8 = 2;
/// In [`Instruction::source`] of a call: a function of the program.
pub const SOURCE_FUNCTION: u8 = 1;
/// In [`Instruction::offset`] of a move: adds the start of this CPU's memory.
pub const OFFSET_OF_CPU: i16 = -1;

impl Instruction {
    /// All instructions of a program, from the octets that the kernel gives.
    #[must_use]
    pub fn all(octets: &[u8]) -> Vec<Self> {
        octets.as_chunks::<8>().0.iter().map(|octets| Self::of(*octets)).collect()
    }

    const fn of([code, registers, offset_low, offset_high, a, b, c, d]: [u8; 8]) -> Self {
        Self {
            code,
            destination: registers & 0xf,
            source: registers >> 4,
            offset: i16::from_le_bytes([offset_low, offset_high]),
            constant: i32::from_le_bytes([a, b, c, d]),
        }
    }

    /// See [`class`].
    #[must_use]
    pub const fn class(self) -> u8 {
        self.code & 7
    }

    /// See [`operation`].
    #[must_use]
    pub const fn operation(self) -> u8 {
        self.code & 0xf0
    }

    /// See [`mode`].
    #[must_use]
    pub const fn mode(self) -> u8 {
        self.code & 0xe0
    }

    /// Whether the second operand is a register.
    #[must_use]
    pub const fn has_register(self) -> bool {
        self.code & 8 != 0
    }

    /// Octets that a memory operation moves.
    #[must_use]
    pub const fn octets(self) -> usize {
        match self.code & 0x18 {
            0x00 => 4,
            0x08 => 2,
            0x10 => 1,
            _ => 8,
        }
    }

    /// The constant as a word, its sign extended.
    #[must_use]
    pub const fn word(self) -> u64 {
        (self.constant as i64).cast_unsigned()
    }
}

/// Where the values of an array begin, behind the address of the map: the kernel's inlined look-ups add it. `None` when
/// the program has none of them.
#[must_use]
pub fn values_offset(program: &[Instruction]) -> Option<usize> {
    program.windows(3).find_map(|window| {
        let [add, load, compare] = window else { return None };
        let is_look_up = (add.code, add.destination) == (0x07, 1)
            && (load.code, load.destination, load.source, load.offset) == (0x61, 0, 2, 0)
            && (compare.code, compare.destination) == (0x35, 0);
        if is_look_up { usize::try_from(add.constant).ok() } else { None }
    })
}
