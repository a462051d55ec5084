//! Follows the kinds of values through a program: where it stores, and what it returns.
//!
//! Every register and stack slot holds a set of kinds. Paths that meet unite their sets, until nothing
//! changes. The kernel's verifier refuses every way to turn a number into a pointer, so that only copies,
//! 64-bit additions and subtractions, and spills to the stack propagate a pointer.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use super::instruction::{
    Call, Instruction, LOAD_IMMEDIATE_64, MODE_ATOMIC, MODE_MEMORY, SIZE_8, class, operation,
};
use super::object::{Program, Reference};

/// What the analysis saw on all paths.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Instructions that load from packet memory.
    pub packet_loads: usize,
    /// Stores to places other than the stack and map values, as sentences.
    pub foreign_stores: Vec<String>,
    /// Exits with values other than the verdict, as sentences.
    pub foreign_returns: Vec<String>,
}

/// A set of kinds of values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Kinds(u16);

impl Kinds {
    const NUMBER: Self = Self(1);
    /// The verdict that the program may return, if a constant of an instruction put it into a register.
    const ACTION: Self = Self(1 << 1);
    const CONTEXT: Self = Self(1 << 2);
    const PACKET: Self = Self(1 << 3);
    const STACK: Self = Self(1 << 4);
    const MAP: Self = Self(1 << 5);
    const MAP_VALUE: Self = Self(1 << 6);
    const CONSTANTS: Self = Self(1 << 7);
    /// The stack of the calling function.
    const CALLER_STACK: Self = Self(1 << 8);

    const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The kinds that are pointers.
    const fn pointers(self) -> Self {
        Self(self.0 & !(Self::NUMBER.0 | Self::ACTION.0))
    }

    const fn is_within(self, others: Self) -> bool {
        self.0 & !others.0 == 0
    }

    fn names(self) -> String {
        let names =
            ["a number", "the action", "the context", "the packet", "the stack", "a map", "a map value"];
        let names = names.into_iter().chain(["the constants", "its caller's stack"]).enumerate();
        let held = names.filter(|(bit, _)| self.0 & 1 << bit != 0).map(|(_, name)| name);
        held.collect::<Vec<_>>().join(" or ")
    }
}

/// A value: its kinds, and for a pointer to stack, context or constants the offset if there is only one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Value {
    kinds: Kinds,
    offset: Option<i64>,
}

impl Value {
    const NUMBER: Self = Self { kinds: Kinds::NUMBER, offset: None };

    const fn at(kinds: Kinds, offset: i64) -> Self {
        Self { kinds, offset: Some(offset) }
    }

    /// Makes the value what a called function sees.
    fn pass(&mut self) {
        if self.kinds.intersects(Kinds::STACK) {
            self.kinds = Kinds(self.kinds.0 & !Kinds::STACK.0).with(Kinds::CALLER_STACK);
            self.offset = None;
        }
    }

    fn union(self, other: Self) -> Self {
        if self.kinds == Kinds::default() {
            return other;
        }
        let offset = if self.offset == other.offset { self.offset } else { None };
        Self { kinds: self.kinds.with(other.kinds), offset }
    }
}

const STACK_SLOTS: usize = 64;
const CONTEXT_REGISTER: usize = 1;
const FRAME_REGISTER: usize = 10;
/// `data`, `data_end` and `data_meta` are the first words of the context.
const PACKET_POINTERS_END: i64 = 12;
/// Number of the helper that finds a map value.
const MAP_LOOKUP: i32 = 1;

#[derive(Clone, PartialEq, Eq)]
struct State {
    registers: [Value; 11],
    stack: [Value; STACK_SLOTS],
    /// One value for everything on the caller's stack.
    caller_stack: Value,
}

impl State {
    fn start() -> Self {
        let mut registers = [Value::NUMBER; 11];
        registers[CONTEXT_REGISTER] = Value::at(Kinds::CONTEXT, 0);
        registers[FRAME_REGISTER] = Value::at(Kinds::STACK, 0);
        Self { registers, stack: [Value::NUMBER; STACK_SLOTS], caller_stack: Value::default() }
    }

    /// The state in which a function starts that this function calls.
    fn called(&self) -> Self {
        let mut start = Self::start();
        start.registers[1..=5].copy_from_slice(&self.registers[1..=5]);
        start.registers[1..=5].iter_mut().for_each(Value::pass);
        let held = self.stack.iter().fold(self.caller_stack, |all, slot| all.union(*slot));
        start.caller_stack = held;
        start.caller_stack.pass();
        start
    }

    fn union(&mut self, other: &Self) {
        let mine = self.registers.iter_mut().chain(&mut self.stack).chain([&mut self.caller_stack]);
        for (mine, other) in mine.zip(other.registers.iter().chain(&other.stack).chain([&other.caller_stack]))
        {
            *mine = mine.union(*other);
        }
    }

    fn register(&self, number: u8) -> Result<Value> {
        self.registers.get(usize::from(number)).copied().context("a register above 10")
    }

    fn set(&mut self, number: u8, value: Value) -> Result<()> {
        // The frame pointer is read-only. The kernel refuses a program that writes it.
        let register = self.registers[..FRAME_REGISTER].get_mut(usize::from(number));
        *register.context("a write to a register above 9")? = value;
        Ok(())
    }
}

/// The stack slot of an aligned access, `offset` bytes from the frame pointer.
fn stack_slot(offset: i64) -> Option<usize> {
    let from_bottom = offset + 8 * i64::try_from(STACK_SLOTS).ok()?;
    usize::try_from(from_bottom).ok().map(|bytes| bytes / 8).filter(|slot| *slot < STACK_SLOTS)
}

/// Follows a program that may return `action` and nothing else.
///
/// # Errors
/// If it has an instruction that this analysis does not know. The analysis then knows nothing about the
/// program.
pub fn follow(program: &Program, action: i32) -> Result<Flow> {
    let analysis = Analysis { program, action };
    let mut flow = Flow::default();
    analysis.judge_function(&mut flow, 0, State::start(), 0)?;
    Ok(flow)
}

/// The kernel's limit of nested calls.
const DEPTH_MAX: usize = 8;

struct Analysis<'program> {
    program: &'program Program,
    action: i32,
}

impl Analysis<'_> {
    /// The possible states before each instruction of a function.
    fn explore(&self, entry: usize, start: State, depth: usize) -> Result<BTreeMap<usize, State>> {
        if depth > DEPTH_MAX {
            bail!("calls are nested too deep");
        }
        let mut states: BTreeMap<usize, State> = BTreeMap::from([(entry, start)]);
        let mut pending = vec![entry];
        while let Some(at) = pending.pop() {
            let mut state = states.get(&at).cloned().context("a position without a state")?;
            let instruction = instruction(self.program, at)?;
            let step = Step { program: self.program, action: self.action, at, instruction };
            match step.function()? {
                Some(function) => {
                    let returned = self.returned(function, state.called(), depth + 1)?;
                    step.return_from_call(&mut state, returned)?;
                }
                None => step.apply(&mut state).with_context(|| format!("instruction {at}"))?,
            }
            for next in step.successors()? {
                match states.get_mut(&next) {
                    None => {
                        states.insert(next, state.clone());
                        pending.push(next);
                    }
                    Some(known) => {
                        let before = known.clone();
                        known.union(&state);
                        if *known != before {
                            pending.push(next);
                        }
                    }
                }
            }
        }
        Ok(states)
    }

    /// What a function returns. A returned pointer to a stack could point to the function's own stack, which
    /// no longer exists, or to the caller's, which no function here returns.
    fn returned(&self, entry: usize, start: State, depth: usize) -> Result<Value> {
        let mut returned = Value::default();
        for (at, state) in self.explore(entry, start, depth)? {
            let instruction = instruction(self.program, at)?;
            if instruction.class() == class::JMP && instruction.operation() == operation::EXIT {
                returned = returned.union(state.register(0)?);
            }
        }
        if returned.kinds.intersects(Kinds::STACK.with(Kinds::CALLER_STACK)) {
            bail!("a function returns a pointer to a stack");
        }
        Ok(returned)
    }

    /// Checks every instruction of a function, and of the functions that it calls.
    fn judge_function(&self, flow: &mut Flow, entry: usize, start: State, depth: usize) -> Result<()> {
        for (at, state) in self.explore(entry, start, depth)? {
            let instruction = instruction(self.program, at)?;
            let step = Step { program: self.program, action: self.action, at, instruction };
            if let Some(function) = step.function()? {
                self.judge_function(flow, function, state.called(), depth + 1)?;
            }
            judge(flow, at, instruction, &state, depth == 0)?;
        }
        Ok(())
    }
}

fn instruction(program: &Program, at: usize) -> Result<Instruction> {
    program.instructions.get(at).copied().with_context(|| format!("no instruction {at}"))
}

/// Checks one instruction with every possible kind of its operands.
fn judge(
    flow: &mut Flow,
    at: usize,
    instruction: Instruction,
    state: &State,
    is_program: bool,
) -> Result<()> {
    match instruction.class() {
        class::LDX => {
            let base = state.register(instruction.source)?.kinds;
            flow.packet_loads += usize::from(base.intersects(Kinds::PACKET));
        }
        class::ST | class::STX => {
            let base = state.register(instruction.destination)?.kinds;
            let numbers = Kinds::NUMBER.with(Kinds::ACTION);
            // A number can be the null pointer that a check has ruled out; the kernel lets no program store
            // through it.
            if !base.is_within(Kinds::STACK.with(Kinds::MAP_VALUE).with(numbers)) {
                flow.foreign_stores.push(format!("instruction {at} stores to {}", base.names()));
            }
        }
        class::JMP if is_program && instruction.operation() == operation::EXIT => {
            let returned = state.register(0)?.kinds;
            if returned != Kinds::ACTION {
                flow.foreign_returns.push(format!("instruction {at} returns {}", returned.names()));
            }
        }
        _ => {}
    }
    Ok(())
}

/// One instruction at its position.
struct Step<'program> {
    program: &'program Program,
    action: i32,
    at: usize,
    instruction: Instruction,
}

impl Step<'_> {
    /// The positions at which the program can continue.
    fn successors(&self) -> Result<Vec<usize>> {
        let Instruction { opcode, offset, immediate, .. } = self.instruction;
        let jump = |distance: i64| -> Result<usize> {
            let target = i64::try_from(self.at)? + 1 + distance;
            usize::try_from(target).context("a jump before the start")
        };
        let next = self.at + 1;
        Ok(match (self.instruction.class(), self.instruction.operation()) {
            (class::JMP, operation::EXIT) => vec![],
            (class::JMP, operation::CALL) => vec![next],
            (class::JMP, operation::JA) => vec![jump(offset.into())?],
            (class::JMP32, operation::JA) => vec![jump(immediate.into())?],
            (class::JMP | class::JMP32, _) => vec![next, jump(offset.into())?],
            _ if opcode == LOAD_IMMEDIATE_64 => vec![self.at + 2],
            _ => vec![next],
        })
    }

    /// The start of the function of this program that the instruction calls, if it calls one.
    fn function(&self) -> Result<Option<usize>> {
        if self.instruction.call() != Some(Call::Function) {
            return Ok(None);
        }
        let target = i64::try_from(self.at)? + 1 + i64::from(self.instruction.immediate);
        usize::try_from(target).map(Some).context("a call before the start")
    }

    fn return_from_call(&self, state: &mut State, returned: Value) -> Result<()> {
        state.set(0, returned)?;
        (1..=5).try_for_each(|scratched| state.set(scratched, Value::NUMBER))
    }

    /// Applies the instruction to registers and stack.
    fn apply(&self, state: &mut State) -> Result<()> {
        match self.instruction.class() {
            class::LD => self.load_immediate(state),
            class::LDX => self.load(state),
            class::ST | class::STX => self.store(state),
            class::ALU | class::ALU64 => self.compute(state),
            _ => self.call(state),
        }
    }

    fn load_immediate(&self, state: &mut State) -> Result<()> {
        if self.instruction.opcode != LOAD_IMMEDIATE_64 {
            bail!("a load of classic BPF, which reads the packet past the cursor");
        }
        let value = match self.program.references.get(&self.at) {
            Some(Reference::Map(_)) => Value { kinds: Kinds::MAP, offset: None },
            Some(Reference::Constant(offset)) => Value::at(Kinds::CONSTANTS, *offset),
            None => Value::NUMBER,
        };
        state.set(self.instruction.destination, value)
    }

    fn load(&self, state: &mut State) -> Result<()> {
        let base = state.register(self.instruction.source)?;
        let offset = base.offset.map(|offset| offset + i64::from(self.instruction.offset));
        let mut value = Value::NUMBER;
        if base.kinds.intersects(Kinds::CONTEXT) && offset.is_none_or(|offset| offset < PACKET_POINTERS_END) {
            value.kinds = value.kinds.with(Kinds::PACKET);
            // Certainly a context pointer. The program loads the whole word, or the kernel refuses it.
            if base.kinds == Kinds::CONTEXT && offset.is_some() {
                value.kinds = Kinds::PACKET;
            }
        }
        if base.kinds.intersects(Kinds::STACK) {
            let loaded = match offset.and_then(stack_slot) {
                Some(slot) => state.stack[slot],
                None => state.stack.iter().fold(Value::default(), |all, slot| all.union(*slot)),
            };
            value = if base.kinds == Kinds::STACK { loaded } else { value.union(loaded) };
        }
        if base.kinds.intersects(Kinds::CALLER_STACK) {
            value = value.union(state.caller_stack);
        }
        state.set(self.instruction.destination, value)
    }

    fn store(&self, state: &mut State) -> Result<()> {
        let atomic = self.instruction.mode() == MODE_ATOMIC;
        let plain = self.instruction.class() == class::STX && self.instruction.mode() == MODE_MEMORY;
        if !atomic && self.instruction.mode() != MODE_MEMORY {
            bail!("an unknown store");
        }
        let base = state.register(self.instruction.destination)?;
        if base.kinds.intersects(Kinds::STACK) {
            let whole = plain && self.instruction.size() == SIZE_8;
            let stored = state.register(self.instruction.source)?;
            // A store to a part of a slot leaves a number there, as in the kernel.
            let stored = if whole { stored } else { Value::NUMBER };
            let offset = base.offset.map(|offset| offset + i64::from(self.instruction.offset));
            match offset.and_then(stack_slot) {
                Some(slot) if base.kinds == Kinds::STACK && whole => state.stack[slot] = stored,
                Some(slot) => state.stack[slot] = state.stack[slot].union(stored),
                None => state.stack.iter_mut().for_each(|slot| *slot = slot.union(stored)),
            }
        }
        if atomic {
            // The instruction puts the old value into the source register, or into register 0.
            state.set(self.instruction.source, Value::NUMBER)?;
            state.set(0, Value::NUMBER)?;
        }
        Ok(())
    }

    fn compute(&self, state: &mut State) -> Result<()> {
        let Instruction { destination, source, immediate, offset, .. } = self.instruction;
        let operand = match self.instruction.takes_register() {
            true => state.register(source)?,
            false if immediate == self.action => Value { kinds: Kinds::ACTION, offset: None },
            false => Value::NUMBER,
        };
        let constant = (!self.instruction.takes_register()).then_some(i64::from(immediate));
        let old = state.register(destination)?;
        let wide = self.instruction.class() == class::ALU64;
        let value = match (wide, self.instruction.operation()) {
            // A copy that extends the sign has an offset. It copies a number.
            (_, operation::MOV) if offset != 0 => Value::NUMBER,
            (true, operation::MOV) => operand,
            // Half of a pointer is a number. The action is 32 bits wide.
            (false, operation::MOV) if operand.kinds == Kinds::ACTION => operand,
            (true, operation::ADD) => {
                let pointers = old.kinds.pointers().with(operand.kinds.pointers());
                if pointers == Kinds::default() {
                    Value::NUMBER
                } else {
                    let moved = old.offset.zip(constant).map(|(offset, constant)| offset + constant);
                    Value { kinds: pointers, offset: moved }
                }
            }
            (true, operation::SUB) => {
                let pointers = old.kinds.pointers();
                let minus_pointer = operand.kinds.pointers() != Kinds::default();
                let minus_number = operand.kinds.0 & !operand.kinds.pointers().0 != 0;
                let moved = old.offset.zip(constant).map(|(offset, constant)| offset - constant);
                match (pointers == Kinds::default(), minus_number) {
                    (true, _) | (_, false) => Value::NUMBER,
                    (false, true) if minus_pointer => {
                        Value { kinds: pointers.with(Kinds::NUMBER), offset: None }
                    }
                    (false, true) => Value { kinds: pointers, offset: moved },
                }
            }
            _ => Value::NUMBER,
        };
        state.set(destination, value)
    }

    fn call(&self, state: &mut State) -> Result<()> {
        let result = match self.instruction.call() {
            None => return Ok(()),
            Some(Call::Helper(MAP_LOOKUP)) => Value { kinds: Kinds::MAP_VALUE, offset: None },
            Some(Call::Helper(_)) => Value::NUMBER,
            Some(Call::Function | Call::KernelFunction(_) | Call::Unknown) => {
                bail!("a call of something other than a helper or a function, which is not followed")
            }
        };
        self.return_from_call(state, result)
    }
}
