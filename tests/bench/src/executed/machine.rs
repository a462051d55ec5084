//! An interpreter of programs as the kernel lists them after its verifier: it counts what they execute.
#![allow(
    clippy::cast_possible_truncation,
    reason = "registers are words, of which the narrower operations take the lower part"
)]

use anyhow::{Context as _, bail, ensure};
use rustix::time::{ClockId, clock_gettime};

use super::instruction::{
    Instruction, OFFSET_OF_CPU, SOURCE_FUNCTION, SOURCE_MAP, SOURCE_MAP_VALUE, class, mode, operation,
    values_offset,
};
use super::kernel::Functions;
use super::maps::Maps;
use super::memory::{Memory, Use};

/// Octets between the frame pointers of functions: the kernel's limit of a stack, and what it may add itself.
const STACK_OCTETS: u64 = 1024;
/// Functions that can call each other, as in the kernel.
const DEPTH_MAX: usize = 8;
/// Instructions after which a program is held to have no end.
const STEPS_MAX: u64 = 1_000_000;
/// Octets of what stands for the kernel's structures, which are filled so that every place answers alike.
const STRUCTURE_OCTETS: usize = 8192;
/// Addresses from here on are the kernel's.
const KERNEL: u64 = 0xffff_8000_0000_0000;
/// The tick, which does not advance.
const TICK: u64 = 1 << 33;
/// The frame pointer.
const FRAME_POINTER: usize = 10;
const ROOM_FOR_FRAME: usize = 2048;

/// What was executed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Instructions.
    pub instructions: u64,
    /// Of these, jumps on a condition.
    pub branches: u64,
    /// Of these, calls of the kernel's functions, whose own instructions are unknown.
    pub calls: u64,
    /// Different cache lines of maps.
    pub lines: u64,
    /// Different cache lines of constants.
    pub constant_lines: u64,
}

impl Counts {
    /// Adds those of another packet.
    pub fn add(&mut self, other: Self) {
        self.instructions += other.instructions;
        self.branches += other.branches;
        self.calls += other.calls;
        self.lines += other.lines;
        self.constant_lines += other.constant_lines;
    }
}

/// A program with its maps and memory.
pub struct Machine<'kernel> {
    program: Vec<Instruction>,
    functions: &'kernel Functions,
    memory: Memory,
    maps: Maps,
    stack: u64,
    context: u64,
    frame: u64,
    frame_octets: usize,
    this_cpu: u64,
    now_ns: u64,
    registers: [u64; 11],
    callers: Vec<(usize, [u64; 11])>,
}

impl<'kernel> Machine<'kernel> {
    /// A machine for a program whose frames come from this interface, on this CPU.
    ///
    /// # Errors
    /// What the kernel answers about the maps.
    pub fn new(
        program: Vec<Instruction>,
        functions: &'kernel Functions,
        if_index: u32,
        cpu: u32,
        cpus: usize,
    ) -> anyhow::Result<Self> {
        let mut memory = Memory::default();
        let stack = memory.add(Use::Private, vec![0; DEPTH_MAX * STACK_OCTETS as usize], 0);
        let frame = memory.add(Use::Private, vec![0; ROOM_FOR_FRAME], 0);
        let this_cpu = memory.add(Use::Private, u64::from(cpu).to_le_bytes().to_vec(), 0);
        // The kernel replaces the interface's number in the context by loads from the queue, its device and the device's
        // number, at places that differ by version.
        let device =
            memory.add(Use::Private, if_index.to_le_bytes().repeat(STRUCTURE_OCTETS / size_of::<u32>()), 0);
        let queue =
            memory.add(Use::Private, device.to_le_bytes().repeat(STRUCTURE_OCTETS / size_of::<u64>()), 0);
        // `struct xdp_buff`: data, its end, metadata, start of the buffer, and the queue.
        let context =
            memory.add(Use::Private, [frame, frame, frame, frame, queue].map(u64::to_le_bytes).concat(), 0);
        let maps = Maps::new(values_offset(&program).unwrap_or(0), usize::try_from(cpu)?, cpus);
        let mut machine = Self {
            program,
            functions,
            memory,
            maps,
            stack,
            context,
            frame,
            frame_octets: 0,
            this_cpu,
            now_ns: now_ns()?,
            registers: [0; 11],
            callers: Vec::new(),
        };
        // All maps are copied now: before the kernel's change.
        for place in 0..machine.program.len() {
            if machine.program[place].code == 0x18 {
                machine.constant(place)?;
            }
        }
        Ok(machine)
    }

    /// Writes what the program changed into the kernel's maps.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn write_back(&self) -> anyhow::Result<()> {
        self.maps.write_back(&self.memory)
    }

    /// Runs the program on a frame. Returns what it answered, and what it executed.
    ///
    /// # Errors
    /// What the interpreter does not know; memory that is not there.
    pub fn run(&mut self, frame: &[u8]) -> anyhow::Result<(u64, Counts)> {
        self.memory.bytes_mut(self.frame, frame.len())?.copy_from_slice(frame);
        self.memory.store(self.context + 8, 8, self.frame + frame.len() as u64)?;
        self.frame_octets = frame.len();
        self.memory.lines.clear();
        self.memory.constant_lines.clear();
        self.registers = [0; 11];
        self.registers[1] = self.context;
        self.registers[FRAME_POINTER] = self.stack + STACK_OCTETS;
        self.callers.clear();
        let mut counts = Counts::default();
        let mut place = 0;
        loop {
            counts.instructions += 1;
            ensure!(counts.instructions < STEPS_MAX, "the program does not end");
            let instruction = *self.program.get(place).context("beyond the end of the program")?;
            let next = self.step(place, instruction, &mut counts);
            match next.with_context(|| format!("instruction {place}, {instruction:x?}"))? {
                Some(next) => place = next,
                None => break,
            }
        }
        counts.lines = self.memory.lines.len() as u64;
        counts.constant_lines = self.memory.constant_lines.len() as u64;
        Ok((self.registers[0], counts))
    }

    /// Executes one instruction. Returns the place of the next, or `None` at the end.
    fn step(
        &mut self,
        place: usize,
        instruction: Instruction,
        counts: &mut Counts,
    ) -> anyhow::Result<Option<usize>> {
        let Instruction { code, offset, .. } = instruction;
        let destination = usize::from(instruction.destination);
        let source = self.registers[usize::from(instruction.source)];
        let octets = instruction.octets();
        let at = |base: u64| base.wrapping_add_signed(i64::from(offset));
        match instruction.class() {
            class::LD => {
                ensure!(code == 0x18, "an unknown load");
                self.registers[destination] = self.constant(place)?;
                return Ok(Some(place + 2));
            }
            class::LDX => {
                let value = self.load(at(source), octets)?;
                let unused = u64::BITS - 8 * octets as u32;
                self.registers[destination] = match instruction.mode() {
                    mode::MEMORY => value,
                    mode::MEMORY_SIGNED => ((value << unused).cast_signed() >> unused).cast_unsigned(),
                    _ => bail!("an unknown load"),
                };
            }
            class::ST if instruction.mode() == mode::ATOMIC => {}
            class::ST => self.memory.store(at(self.registers[destination]), octets, instruction.word())?,
            class::STX => {
                let address = at(self.registers[destination]);
                match instruction.mode() {
                    mode::MEMORY => self.memory.store(address, octets, source)?,
                    mode::ATOMIC => self.atomic(instruction, address)?,
                    _ => bail!("an unknown store"),
                }
            }
            class::ALU32 | class::ALU64 => {
                let operand = if instruction.has_register() { source } else { instruction.word() };
                self.registers[destination] =
                    self.arithmetic(instruction, self.registers[destination], operand)?;
            }
            _ => return self.jump(place, instruction, counts),
        }
        Ok(Some(place + 1))
    }

    fn load(&mut self, address: u64, octets: usize) -> anyhow::Result<u64> {
        // The only word of its own that the kernel has programs read at a fixed address is the tick.
        if address >= KERNEL && octets == 8 {
            return Ok(TICK);
        }
        self.memory.load(address, octets)
    }

    /// A constant of 64 bits, at this place and the next.
    fn constant(&mut self, place: usize) -> anyhow::Result<u64> {
        let (first, second) = (self.program[place], self.program.get(place + 1).copied().unwrap_or_default());
        let (low, high) = (first.constant.cast_unsigned(), second.constant.cast_unsigned());
        match first.source {
            0 => Ok(u64::from(low) | u64::from(high) << 32),
            SOURCE_MAP => self.maps.address(&mut self.memory, low),
            SOURCE_MAP_VALUE => self.maps.value(&mut self.memory, low, u64::from(high)),
            source => bail!("a constant of kind {source}"),
        }
    }

    fn atomic(&mut self, instruction: Instruction, address: u64) -> anyhow::Result<()> {
        const FETCH: i32 = 1;
        const EXCHANGE: i32 = 0xe1;
        const COMPARE_EXCHANGE: i32 = 0xf1;
        let octets = instruction.octets();
        let register = usize::from(instruction.source);
        let (old, operand) = (self.memory.load(address, octets)?, self.registers[register]);
        let new = match instruction.constant & !FETCH {
            0x00 => old.wrapping_add(operand),
            0x40 => old | operand,
            0x50 => old & operand,
            0xa0 => old ^ operand,
            _ if instruction.constant == EXCHANGE => operand,
            _ if instruction.constant == COMPARE_EXCHANGE => {
                let expected = self.registers[0];
                self.registers[0] = old;
                if old == expected { operand } else { old }
            }
            _ => bail!("an unknown atomic operation"),
        };
        self.memory.store(address, octets, new)?;
        if instruction.constant & FETCH != 0 && instruction.constant != COMPARE_EXCHANGE {
            self.registers[register] = old;
        }
        Ok(())
    }

    fn arithmetic(&self, instruction: Instruction, left: u64, right: u64) -> anyhow::Result<u64> {
        let is_wide = instruction.class() == class::ALU64;
        let (operation, offset) = (instruction.operation(), instruction.offset);
        if operation == operation::END {
            let is_swap = is_wide || instruction.has_register();
            return Ok(match (instruction.constant, is_swap) {
                (16, true) => u64::from((left as u16).swap_bytes()),
                (32, true) => u64::from((left as u32).swap_bytes()),
                (64, true) => left.swap_bytes(),
                (16, false) => u64::from(left as u16),
                (32, false) => u64::from(left as u32),
                _ => left,
            });
        }
        if operation == operation::MOV && is_wide && instruction.has_register() && offset == OFFSET_OF_CPU {
            // The addresses of a per-CPU map are those of this CPU already; all else is the CPU's number.
            return Ok(if self.memory.is_known(right) { right } else { self.this_cpu });
        }
        let (left, right) = if is_wide { (left, right) } else { (left & 0xffff_ffff, right & 0xffff_ffff) };
        let bits = if is_wide { 63 } else { 31 };
        let shift = (right & bits) as u32;
        let signed = |value: u64| if is_wide { value.cast_signed() } else { i64::from(value as i32) };
        let result = match operation {
            operation::ADD => left.wrapping_add(right),
            operation::SUB => left.wrapping_sub(right),
            operation::MUL => left.wrapping_mul(right),
            operation::DIV if offset == 0 => left.checked_div(right).unwrap_or(0),
            operation::MOD if offset == 0 => left.checked_rem(right).unwrap_or(left),
            operation::DIV if right != 0 => signed(left).wrapping_div(signed(right)).cast_unsigned(),
            operation::MOD if right != 0 => signed(left).wrapping_rem(signed(right)).cast_unsigned(),
            operation::OR => left | right,
            operation::AND => left & right,
            operation::XOR => left ^ right,
            operation::LSH => left << shift,
            operation::RSH => left >> shift,
            operation::ARSH => (signed(left) >> shift).cast_unsigned(),
            operation::NEG => left.wrapping_neg(),
            operation::MOV => match offset {
                0 => right,
                8 => i64::from(right as i8).cast_unsigned(),
                16 => i64::from(right as i16).cast_unsigned(),
                32 => i64::from(right as i32).cast_unsigned(),
                _ => bail!("an unknown move"),
            },
            _ => bail!("an unknown operation"),
        };
        Ok(if is_wide { result } else { result & 0xffff_ffff })
    }

    fn jump(
        &mut self,
        place: usize,
        instruction: Instruction,
        counts: &mut Counts,
    ) -> anyhow::Result<Option<usize>> {
        let is_wide = instruction.class() == class::JMP;
        let target = |distance: i32| {
            usize::try_from(distance)
                .ok()
                .map_or_else(
                    || place.checked_sub(distance.unsigned_abs() as usize),
                    |far| place.checked_add(far),
                )
                .map(|place| place + 1)
        };
        match instruction.operation() {
            operation::JUMP_ALWAYS => {
                let distance = if is_wide { i32::from(instruction.offset) } else { instruction.constant };
                return Ok(Some(target(distance).context("a jump out of the program")?));
            }
            operation::CALL if instruction.source == SOURCE_FUNCTION => {
                ensure!(self.callers.len() + 1 < DEPTH_MAX, "calls too deep");
                self.callers.push((place + 1, self.registers));
                self.registers[FRAME_POINTER] += STACK_OCTETS;
                // The kernel keeps the distance in the offset once it has compiled the functions.
                return Ok(Some(target(i32::from(instruction.offset)).context("a call out of the program")?));
            }
            operation::CALL => {
                counts.calls += 1;
                self.call(place, instruction)?;
                return Ok(Some(place + 1));
            }
            operation::EXIT => {
                let Some((back, registers)) = self.callers.pop() else { return Ok(None) };
                self.registers[6..].copy_from_slice(&registers[6..]);
                return Ok(Some(back));
            }
            _ => counts.branches += 1,
        }
        let left = self.registers[usize::from(instruction.destination)];
        let right = if instruction.has_register() {
            self.registers[usize::from(instruction.source)]
        } else {
            instruction.word()
        };
        let (left, right) = if is_wide { (left, right) } else { (left & 0xffff_ffff, right & 0xffff_ffff) };
        let signed = |value: u64| if is_wide { value.cast_signed() } else { i64::from(value as i32) };
        let is_taken = match instruction.operation() {
            operation::JUMP_EQUAL => left == right,
            operation::JUMP_NOT_EQUAL => left != right,
            operation::JUMP_ABOVE => left > right,
            operation::JUMP_ABOVE_EQUAL => left >= right,
            operation::JUMP_BELOW => left < right,
            operation::JUMP_BELOW_EQUAL => left <= right,
            operation::JUMP_SET => left & right != 0,
            operation::JUMP_GREATER => signed(left) > signed(right),
            operation::JUMP_GREATER_EQUAL => signed(left) >= signed(right),
            operation::JUMP_LESS => signed(left) < signed(right),
            operation::JUMP_LESS_EQUAL => signed(left) <= signed(right),
            _ => bail!("an unknown jump"),
        };
        let distance = if is_taken { i32::from(instruction.offset) } else { 0 };
        Ok(Some(target(distance).context("a jump out of the program")?))
    }

    /// A function of the kernel.
    fn call(&mut self, place: usize, instruction: Instruction) -> anyhow::Result<()> {
        let name = self.functions.called(instruction.constant).context("a call of an unknown function")?;
        let [_, first, second, third, fourth, ..] = self.registers;
        self.registers[0] = match name {
            "bpf_ktime_get_ns" => self.now_ns,
            "bpf_jiffies64" => TICK,
            "bpf_get_smp_processor_id" => self.memory.load(self.this_cpu, 8)?,
            "bpf_xdp_get_buff_len" => self.frame_octets as u64,
            "array_map_lookup_elem" | "percpu_array_map_lookup_elem" => {
                self.maps.array_value(&self.memory, first, second)?
            }
            "__htab_map_lookup_elem" => {
                let behind = self.program.iter().skip(place + 1).take(3);
                let mut behind = behind.filter(|next| (next.code, next.destination) == (0x07, 0));
                let value_offset = behind.next().map_or(0, |add| add.constant);
                self.maps.element(&self.memory, first, second, usize::try_from(value_offset)?)?
            }
            "htab_map_update_elem" | "htab_percpu_map_update_elem" => {
                let arguments = [first, second, third, fourth];
                self.maps.update(&mut self.memory, arguments)?.cast_unsigned()
            }
            name => bail!("a call of {name}, which the interpreter does not know"),
        };
        // A call leaves nothing of use in the registers of its arguments.
        self.registers[1..6].fill(u64::MAX >> 1);
        Ok(())
    }
}

fn now_ns() -> anyhow::Result<u64> {
    let now = clock_gettime(ClockId::Monotonic);
    Ok(u64::try_from(now.tv_sec)? * 1_000_000_000 + u64::try_from(now.tv_nsec)?)
}

#[cfg(test)]
mod tests {
    use super::super::instruction::Instruction;
    use super::super::kernel::Functions;
    use super::{Counts, Machine};

    /// Octets of an instruction: code, both registers, offset, constant.
    fn octets(code: u8, [destination, source]: [u8; 2], offset: i16, constant: i32) -> Vec<u8> {
        let mut octets = vec![code, destination | source << 4];
        octets.extend(offset.to_le_bytes());
        octets.extend(constant.to_le_bytes());
        octets
    }

    fn run(program: &[Vec<u8>], frame: &[u8]) -> (u64, Counts) {
        let functions = Functions::default();
        let program = Instruction::all(&program.concat());
        let mut machine = Machine::new(program, &functions, 7, 3, 4).expect("there are no maps");
        machine.run(frame).expect("the program is known")
    }

    #[test]
    fn reads_the_frame_and_counts_what_it_executes() {
        let program = [
            octets(0x79, [2, 1], 8, 0),   // r2 = end of the frame
            octets(0x79, [1, 1], 0, 0),   // r1 = start
            octets(0xbf, [3, 1], 0, 0),   // r3 = r1
            octets(0x07, [3, 0], 0, 4),   // r3 += 4
            octets(0xb7, [0, 0], 0, 0),   // r0 = 0
            octets(0x2d, [3, 2], 4, 0),   // if r3 > r2 goto the end
            octets(0x69, [0, 1], 2, 0),   // r0 = u16 at r1 + 2
            octets(0xdc, [0, 0], 0, 16),  // r0 = big-endian of it
            octets(0x85, [0, 1], 2, 1),   // call the function
            octets(0x14, [0, 0], 0, 1),   // lower half of r0 -= 1
            octets(0x95, [0, 0], 0, 0),   // exit
            octets(0x7b, [10, 0], -8, 0), // the function: its stack = r0
            octets(0x79, [0, 10], -8, 0), // r0 = the stack
            octets(0x67, [0, 0], 0, 32),  // r0 <<= 32
            octets(0xc7, [0, 0], 0, 16),  // r0 >>= 16, with its sign
            octets(0x95, [0, 0], 0, 0),   // exit
        ];
        let (verdict, counts) = run(&program, &[0, 0, 0xff, 0x01]);
        assert_eq!(verdict, 0xff00_ffff);
        assert_eq!(counts, Counts { instructions: 16, branches: 1, ..Counts::default() });
        let (verdict, counts) = run(&program, &[0, 0, 0xff]);
        assert_eq!((verdict, counts.instructions), (0, 7));
    }

    #[test]
    fn knows_the_interface_the_cpu_and_no_other_memory() {
        let program = [
            octets(0x79, [2, 1], 32, 0),   // r2 = the queue
            octets(0x79, [2, 2], 16, 0),   // r2 = its device, wherever it says so
            octets(0x61, [2, 2], 224, 0),  // r2 = the number of the device
            octets(0xb4, [3, 0], 0, 4096), // r3 = an address among the memory of CPUs
            octets(0xbf, [3, 3], -1, 0),   // r3 += the start of that of this CPU
            octets(0x61, [0, 3], 0, 0),    // r0 = the number of the CPU
            octets(0x64, [0, 0], 0, 8),    // r0 <<= 8
            octets(0x4f, [0, 2], 0, 0),    // r0 |= r2
            octets(0x95, [0, 0], 0, 0),    // exit
        ];
        assert_eq!(run(&program, &[0; 60]).0, 0x307);
        let functions = Functions::default();
        let wild = [octets(0xb7, [1, 0], 0, 64), octets(0x79, [0, 1], 0, 0), octets(0x95, [0, 0], 0, 0)];
        let program = Instruction::all(&wild.concat());
        let mut machine = Machine::new(program, &functions, 1, 0, 1).expect("there are no maps");
        assert!(machine.run(&[0; 60]).is_err());
    }
}
