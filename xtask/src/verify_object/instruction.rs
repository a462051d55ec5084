//! BPF instructions as RFC 9669 encodes them.

/// One 8-byte instruction slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Class, operation or mode, source or size.
    pub opcode: u8,
    /// The register to write, or the base of a store.
    pub destination: u8,
    /// The register to read, or the meaning of the immediate.
    pub source: u8,
    /// Jump distance or memory offset.
    pub offset: i16,
    /// Constant, function number or half of a 64-bit constant.
    pub immediate: i32,
}

/// Bytes of an instruction slot.
pub const INSTRUCTION_BYTES: usize = 8;

/// Classes: the lower three bits of the opcode.
pub mod class {
    /// 64-bit constants and the loads of classic BPF.
    pub const LD: u8 = 0;
    /// Loads.
    pub const LDX: u8 = 1;
    /// Stores of a constant.
    pub const ST: u8 = 2;
    /// Stores of a register and atomic operations.
    pub const STX: u8 = 3;
    /// 32-bit arithmetic.
    pub const ALU: u8 = 4;
    /// Jumps that compare 64 bits, calls, exit.
    pub const JMP: u8 = 5;
    /// Jumps that compare 32 bits.
    pub const JMP32: u8 = 6;
    /// 64-bit arithmetic.
    pub const ALU64: u8 = 7;
}

/// Operations: the upper four bits of the opcode of arithmetic and jumps.
pub mod operation {
    /// Adds.
    pub const ADD: u8 = 0x00;
    /// Subtracts.
    pub const SUB: u8 = 0x10;
    /// Copies.
    pub const MOV: u8 = 0xb0;
    /// Jumps always.
    pub const JA: u8 = 0x00;
    /// Calls.
    pub const CALL: u8 = 0x80;
    /// Ends the program.
    pub const EXIT: u8 = 0x90;
}

/// First half of a 64-bit constant.
pub const LOAD_IMMEDIATE_64: u8 = 0x18;
/// Loads and stores of the plain kind.
pub const MODE_MEMORY: u8 = 0x60;
/// Atomic operations.
pub const MODE_ATOMIC: u8 = 0xc0;
/// Size of 8 bytes.
pub const SIZE_8: u8 = 0x18;

impl Instruction {
    /// Decodes a slot.
    pub fn from_bytes(bytes: [u8; INSTRUCTION_BYTES]) -> Self {
        let [opcode, registers, o0, o1, i0, i1, i2, i3] = bytes;
        Self {
            opcode,
            destination: registers & 0xf,
            source: registers >> 4,
            offset: i16::from_le_bytes([o0, o1]),
            immediate: i32::from_le_bytes([i0, i1, i2, i3]),
        }
    }

    /// Encodes the slot.
    pub fn to_bytes(self) -> [u8; INSTRUCTION_BYTES] {
        let [o0, o1] = self.offset.to_le_bytes();
        let [i0, i1, i2, i3] = self.immediate.to_le_bytes();
        [self.opcode, self.destination | self.source << 4, o0, o1, i0, i1, i2, i3]
    }

    /// The class; see [`class`].
    pub const fn class(self) -> u8 {
        self.opcode & 0x07
    }

    /// The operation; see [`operation`].
    pub const fn operation(self) -> u8 {
        self.opcode & 0xf0
    }

    /// The mode of a load or store.
    pub const fn mode(self) -> u8 {
        self.opcode & 0xe0
    }

    /// The size of a load or store.
    pub const fn size(self) -> u8 {
        self.opcode & 0x18
    }

    /// Whether the second operand is a register.
    pub const fn takes_register(self) -> bool {
        self.opcode & 0x08 != 0
    }

    /// What the instruction calls.
    pub const fn call(self) -> Option<Call> {
        if self.class() != class::JMP || self.operation() != operation::CALL {
            return None;
        }
        Some(match (self.takes_register(), self.source) {
            (false, 0) => Call::Helper(self.immediate),
            (false, 1) => Call::Function,
            (false, 2) => Call::KernelFunction(self.immediate),
            _ => Call::Unknown,
        })
    }
}

/// What a call instruction calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// A helper of the kernel, by its fixed number.
    Helper(i32),
    /// A function of the program itself.
    Function,
    /// A function of the kernel, by its number in the kernel's type information.
    KernelFunction(i32),
    /// A kind of call that is newer than this code.
    Unknown,
}
