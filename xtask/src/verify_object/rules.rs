//! What the kernel program may do: this file lists every permission with its reason.

use std::collections::BTreeMap;
use std::mem::size_of;

use minimizer_common::permutation::{PERMUTATIONS_MAP, Permutation};
use minimizer_common::settings::{
    CURRENT_MAP, GENERATIONS_MAP, LISTS_MAP, PROGRAMS, Settings, TABLES_MAP, WORDS_PLACEHOLDER,
};
use minimizer_common::tables::{Entry, Node, Roots};

use super::flow::{self, Flow};
use super::instruction::Call;
use super::object::{KernelObject, MapShape, Program};

/// The helpers that the program may call: number, name, reason.
pub const HELPERS: &[(i32, &str, &str)] = &[
    (1, "map_lookup_elem", "finds counters and slots"),
    (5, "ktime_get_ns", "precise time, once per time unit"),
    (8, "get_smp_processor_id", "every CPU has tables of its own"),
    (118, "jiffies64", "coarse time of every packet"),
    (188, "xdp_get_buff_len", "length of frames of many buffers"),
];

/// The licence that the program must have.
const LICENCE: &str = "Dual MIT/GPL";
/// Section of an XDP program that accepts frames of several buffers.
const SECTION: &str = "xdp.frags";
/// The loader's name for the map of constants.
const CONSTANTS_MAP: &str = ".rodata";

const ARRAY: u32 = 2;

/// An array that the object may have, and the largest size of its values.
struct Permitted {
    name: &'static str,
    value_bytes: usize,
}

const MAPS: &[Permitted] = &[
    // Counters, slots and logs: the values that records come from, and what the agent tells the program while it runs. The
    // agent puts the size in place of a placeholder.
    Permitted { name: GENERATIONS_MAP, value_bytes: WORDS_PLACEHOLDER * size_of::<u64>() },
    // The number of the generation that the program writes.
    Permitted { name: CURRENT_MAP, value_bytes: size_of::<u32>() },
    // What the policy says about addresses and endpoints. The agent freezes it before it loads the program.
    Permitted { name: TABLES_MAP, value_bytes: size_of::<Node>() },
    Permitted { name: LISTS_MAP, value_bytes: size_of::<Entry>() },
    Permitted { name: PERMUTATIONS_MAP, value_bytes: size_of::<Permutation>() },
    // Settings that the agent makes before it loads the program, the look-up that decides for most addresses,
    // and two tables with four bytes for each protocol number: extension headers and endpoints. The kernel
    // makes the map read-only.
    Permitted { name: CONSTANTS_MAP, value_bytes: size_of::<Settings>() + size_of::<Roots>() + 2 * 256 * 4 },
];

/// What the check found in an object.
#[derive(Debug, Default)]
pub struct Findings {
    /// Calls by helper number.
    pub helpers: BTreeMap<i32, usize>,
    /// What the analysis saw on the paths of each program that it could follow.
    pub flows: BTreeMap<String, Flow>,
    /// Violations of the rules, as sentences. Empty if the object obeys them.
    pub violations: Vec<String>,
}

/// Checks an object against all rules.
pub fn check(object: &KernelObject) -> Findings {
    let mut findings = Findings::default();
    if object.licence != LICENCE {
        findings.violation(format!("the licence is {:?}, not {LICENCE:?}", object.licence));
    }
    for (name, shape) in &object.maps {
        findings.check_map(name, shape);
    }
    for Permitted { name, .. } in MAPS {
        if !object.maps.contains_key(*name) {
            findings.violation(format!("map {name} is missing"));
        }
    }
    for program in &object.programs {
        findings.check_program(program);
    }
    for (name, _) in PROGRAMS {
        let count = object.programs.iter().filter(|program| program.name == name).count();
        if count != 1 {
            findings.violation(format!("there are {count} programs {name}, not one"));
        }
    }
    findings
}

impl Findings {
    fn violation(&mut self, text: String) {
        self.violations.push(text);
    }

    fn check_map(&mut self, name: &str, shape: &MapShape) {
        let Some(permitted) = MAPS.iter().find(|permitted| permitted.name == name) else {
            self.violation(format!("map {name} ({}) is not permitted", kind_name(shape.kind)));
            return;
        };
        if shape.kind != ARRAY {
            self.violation(format!("map {name} is of type {}, not array", kind_name(shape.kind)));
        }
        self.check_value(name, shape.value_bytes, permitted.value_bytes);
    }

    fn check_value(&mut self, map: &str, bytes: u32, most: usize) {
        if usize::try_from(bytes).is_ok_and(|bytes| bytes > most) {
            self.violation(format!("a value of map {map} has {bytes} bytes, more than {most}"));
        }
    }

    fn check_program(&mut self, program: &Program) {
        let Program { name, section, .. } = program;
        let Some((_, action)) = PROGRAMS.into_iter().find(|(permitted, _)| permitted == name) else {
            self.violation(format!("program {name} in {section} is not permitted"));
            return;
        };
        if section != SECTION {
            self.violation(format!("program {name} is in {section}, not in {SECTION}"));
        }
        self.check_calls(program);
        match flow::follow(program, action.cast_signed()) {
            Ok(flow) => {
                let found = flow.foreign_stores.iter().chain(&flow.foreign_returns);
                self.violations.extend(found.map(|text| format!("{name}: {text}")));
                self.flows.insert(name.clone(), flow);
            }
            Err(error) => self.violation(format!("program {name} cannot be followed: {error:#}")),
        }
    }

    fn check_calls(&mut self, program: &Program) {
        let mut at = 0;
        while let Some(instruction) = program.instructions.get(at) {
            match instruction.call() {
                // The analysis follows these functions together with the program.
                None | Some(Call::Function) => {}
                Some(Call::Helper(number)) => {
                    *self.helpers.entry(number).or_default() += 1;
                    if helper_name(number).is_none() {
                        self.violation(format!("instruction {at} calls helper {}", denied_name(number)));
                    }
                }
                Some(Call::KernelFunction(id)) => {
                    self.violation(format!("instruction {at} calls the kernel function of type {id}"));
                }
                Some(Call::Unknown) => self.violation(format!("instruction {at} is an unknown call")),
            }
            // The second half of a 64-bit constant is not an instruction.
            at += if instruction.opcode == super::instruction::LOAD_IMMEDIATE_64 { 2 } else { 1 };
        }
    }
}

/// Name of a permitted helper.
pub fn helper_name(number: i32) -> Option<&'static str> {
    HELPERS.iter().find(|(permitted, ..)| *permitted == number).map(|(_, name, _)| *name)
}

/// The names of helpers that come to mind first; a number for every other helper.
fn denied_name(number: i32) -> String {
    match number {
        6 => "6 (trace_printk)".into(),
        12 => "12 (tail_call)".into(),
        25 => "25 (perf_event_output)".into(),
        130 => "130 (ringbuf_output)".into(),
        other => other.to_string(),
    }
}

/// Name of a map type, for the types that objects are likely to have.
pub fn kind_name(kind: u32) -> String {
    match kind {
        1 => "hash".into(),
        ARRAY => "array".into(),
        3 => "program array".into(),
        4 => "perf event array".into(),
        5 => "per-CPU hash".into(),
        6 => "per-CPU array".into(),
        12 => "array of maps".into(),
        27 => "ring buffer".into(),
        other => format!("number {other}"),
    }
}
