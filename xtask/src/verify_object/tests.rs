//! Checks that each rule refuses an object that breaks it: the built object with some bytes changed.

use std::mem::offset_of;
use std::ops::Range;

use minimizer::kernel::program::OBJECT;
use minimizer_common::settings::{PROGRAM, PROGRAMS, Settings, WORDS_PLACEHOLDER};
use minimizer_common::tables::NODE_WORDS;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind};

use super::instruction::{INSTRUCTION_BYTES, Instruction, LOAD_IMMEDIATE_64, class, operation};
use super::object::{KernelObject, Program};
use super::rules::{self, Findings};
use super::tag::Tags;
use super::{embedded, same_bytes};

/// The built object, for a test to change.
fn object() -> Vec<u8> {
    assert!(!OBJECT.is_empty(), "built without the kernel program: run `cargo xtask setup`");
    OBJECT.to_vec()
}

fn findings(bytes: &[u8]) -> Findings {
    rules::check(&KernelObject::parse(bytes).expect("it is still an object"))
}

/// Checks that the object has exactly one violation and that its report contains these words.
fn assert_refused(bytes: &[u8], words: &str) {
    let violations = findings(bytes).violations;
    assert!(violations.iter().any(|violation| violation.contains(words)), "{words:?} not in {violations:?}");
}

fn section(bytes: &[u8], name: &str) -> Range<usize> {
    let file = object::File::parse(bytes).expect("an ELF file");
    let (start, length) =
        file.section_by_name(name).and_then(|section| section.file_range()).expect("the section is there");
    let start = usize::try_from(start).expect("fits");
    start..start + usize::try_from(length).expect("fits")
}

/// Changes the first instruction of the program that matches.
fn patch(bytes: &mut [u8], matches: impl Fn(&Instruction) -> bool, change: impl Fn(&mut Instruction)) {
    let code = section(bytes, "xdp.frags");
    let (slots, _) = bytes[code].as_chunks_mut::<INSTRUCTION_BYTES>();
    for slot in slots {
        let mut instruction = Instruction::from_bytes(*slot);
        if matches(&instruction) {
            change(&mut instruction);
            *slot = instruction.to_bytes();
            return;
        }
    }
    panic!("no such instruction");
}

fn calls_clock(instruction: &Instruction) -> bool {
    instruction.call() == Some(super::instruction::Call::Helper(118))
}

/// Finds the words `{type, index type, elements}` of the arrays that encode a number of a map.
fn patch_map_number(bytes: &mut [u8], from: u32, to: u32) {
    const ARRAY: u32 = 3 << 24;
    let types = section(bytes, ".BTF");
    let (words, _) = bytes[types].as_chunks_mut::<4>();
    let mut patched = 0;
    for at in 5..words.len() {
        let is_array = u32::from_le_bytes(words[at - 4]) == ARRAY && words[at - 5] == [0; 4];
        if is_array && words[at - 3] == [0; 4] && u32::from_le_bytes(words[at]) == from {
            words[at] = to.to_le_bytes();
            patched += 1;
        }
    }
    assert!(patched > 0, "no such array");
}

#[test]
#[cfg_attr(without_kernel_program, ignore = "needs the kernel program: cargo xtask test")]
fn the_built_object_keeps_the_rules() {
    let bytes = object();
    let Findings { helpers, flows, violations } = findings(&bytes);
    assert_eq!(violations, Vec::<String>::new());
    let called: Vec<_> = helpers.keys().copied().collect();
    let permitted: Vec<_> = rules::HELPERS.iter().map(|(number, ..)| *number).collect();
    assert_eq!(called, permitted, "a permission that nothing uses is one too many");
    let names: Vec<_> = flows.keys().map(String::as_str).collect();
    assert_eq!(names, ["minimizer", "minimizer_inner", "minimizer_intap", "minimizer_tap"]);
    assert!(flows.values().all(|flow| flow.packet_loads > 10));
}

#[test]
#[cfg_attr(without_kernel_program, ignore = "needs the kernel program: cargo xtask test")]
fn other_helpers_are_refused() {
    let bytes = object();
    for (helper, words) in [
        (6, "helper 6 (trace_printk)"),
        (12, "helper 12 (tail_call)"),
        (25, "helper 25 (perf_event_output)"),
        (130, "helper 130 (ringbuf_output)"),
        (189, "helper 189"),
    ] {
        let mut bytes = bytes.clone();
        patch(&mut bytes, calls_clock, |call| call.immediate = helper);
        assert_refused(&bytes, words);
    }
}

#[test]
#[cfg_attr(without_kernel_program, ignore = "needs the kernel program: cargo xtask test")]
fn kernel_functions_and_unknown_calls_are_refused() {
    let bytes = object();
    for (source, words) in [(2, "calls the kernel function"), (3, "is an unknown call")] {
        let mut bytes = bytes.clone();
        patch(&mut bytes, calls_clock, |call| call.source = source);
        assert_refused(&bytes, words);
    }
}

#[test]
#[cfg_attr(without_kernel_program, ignore = "needs the kernel program: cargo xtask test")]
fn other_map_types_are_refused() {
    let bytes = object();
    for (kind, words) in
        [(27, "is of type ring buffer"), (4, "is of type perf event array"), (13, "is of type")]
    {
        let mut bytes = bytes.clone();
        patch_map_number(&mut bytes, 2, kind);
        assert_refused(&bytes, words);
    }
    let mut hash = bytes;
    patch_map_number(&mut hash, 2, 1);
    assert_refused(&hash, "map GENERATIONS is of type hash");
    assert_refused(&hash, "map LISTS is of type hash");
}

#[test]
#[cfg_attr(without_kernel_program, ignore = "needs the kernel program: cargo xtask test")]
fn a_map_that_nobody_listed_is_refused() {
    let mut bytes = object();
    let types = section(&bytes, ".BTF");
    for area in [types, 0..bytes.len()] {
        let name = b"\0TABLES\0";
        let places: Vec<_> = area.clone().filter(|at| bytes[*at..].starts_with(name)).collect();
        for at in places {
            bytes[at + 1..at + 7].copy_from_slice(b"BODIES");
        }
    }
    assert_refused(&bytes, "map BODIES (array) is not permitted");
    assert_refused(&bytes, "map TABLES is missing");
}

#[test]
#[cfg_attr(without_kernel_program, ignore = "needs the kernel program: cargo xtask test")]
fn larger_values_are_refused() {
    let bytes = object();
    for (words, map) in [(NODE_WORDS, "TABLES"), (WORDS_PLACEHOLDER, "GENERATIONS")] {
        let words = u32::try_from(words).expect("small");
        let mut larger = bytes.clone();
        patch_map_number(&mut larger, words, words + 1);
        assert_refused(&larger, &format!("a value of map {map} has"));
    }
}

#[test]
#[cfg_attr(without_kernel_program, ignore = "needs the kernel program: cargo xtask test")]
fn another_licence_is_refused() {
    let mut bytes = object();
    let licence = section(&bytes, "license");
    bytes[licence].copy_from_slice(b"Proprietary!\0");
    assert_refused(&bytes, r#"the licence is "Proprietary!""#);
}

#[test]
#[cfg_attr(without_kernel_program, ignore = "needs the kernel program: cargo xtask test")]
fn another_program_is_refused() {
    let mut bytes = object();
    // The shared functions become programs if their section has another name.
    let names = section(&bytes, ".strtab");
    let name = b".text\0";
    let at = names.clone().find(|at| bytes[*at..].starts_with(name)).expect("the section has a name");
    bytes[at..at + 5].copy_from_slice(b"xdp\0\0");
    assert_refused(&bytes, "program memcpy in xdp is not permitted");

    let mut twice = KernelObject::parse(OBJECT).expect("parses");
    twice.programs.push(Program { name: "other".into(), ..twice.programs[0].clone() });
    twice.programs.push(twice.programs[0].clone());
    let violations = rules::check(&twice).violations;
    let words = ["program other in xdp.frags is not permitted", "there are 2 programs minimizer, not one"];
    assert_eq!(violations, words);
}

#[test]
#[cfg_attr(without_kernel_program, ignore = "needs the kernel program: cargo xtask test")]
fn stores_to_the_packet_are_refused() {
    let mut bytes = object();
    // The first load from the packet becomes a store of one byte to the same place, from the same register.
    let program = KernelObject::parse(&bytes).expect("parses");
    let code = section(&bytes, "xdp.frags");
    // A program that reads packets without a call.
    let file = object::File::parse(&*bytes).expect("an ELF file");
    let address = |name: &str| {
        let symbols =
            file.symbols().filter(|symbol| symbol.name() == Ok(name) && symbol.kind() == SymbolKind::Text);
        let addresses: Vec<_> =
            symbols.map(|symbol| usize::try_from(symbol.address()).expect("fits")).collect();
        assert_eq!(addresses.len(), 1, "{name}");
        addresses[0]
    };
    let start = address(PROGRAM);
    let others = PROGRAMS.iter().map(|(name, _)| address(name)).filter(|other| *other > start);
    let own = (others.min().unwrap_or(code.len()) - start) / INSTRUCTION_BYTES;
    let first = program.programs.iter().find(|program| program.name == PROGRAM).expect("is in the object");
    let first = first.instructions.clone();
    let loads = first.iter().take(own).enumerate();
    let loads = loads.filter(|(_, instruction)| instruction.class() == class::LDX);
    let mut refused = 0;
    for (at, load) in loads {
        let place = code.start + start + at * INSTRUCTION_BYTES;
        let before = bytes[place..place + INSTRUCTION_BYTES].to_vec();
        let store = Instruction {
            opcode: load.opcode & !0x07 | class::STX,
            destination: load.source,
            source: load.destination,
            ..*load
        };
        bytes[place..place + INSTRUCTION_BYTES].copy_from_slice(&store.to_bytes());
        refused += usize::from(
            findings(&bytes).violations.iter().any(|violation| violation.contains("stores to the packet")),
        );
        bytes[place..place + INSTRUCTION_BYTES].copy_from_slice(&before);
        if refused > 4 {
            return;
        }
    }
    panic!("only {refused} stores to the packet were noticed");
}

#[test]
#[cfg_attr(without_kernel_program, ignore = "needs the kernel program: cargo xtask test")]
fn stores_to_context_and_constants_are_refused() {
    let bytes = object();
    let mut constants = bytes.clone();
    let run_blocks = i16::try_from(offset_of!(Settings, run_blocks)).expect("the settings are short");
    let is_constant_load = |load: &Instruction| load.opcode == 0x61 && load.offset == run_blocks;
    patch(&mut constants, is_constant_load, |load| {
        load.opcode = 0x63;
        (load.destination, load.source) = (load.source, load.destination);
    });
    assert_refused(&constants, "stores to the constants");
    let mut context = bytes;
    let is_index_load = |load: &Instruction| load.opcode == 0x61 && load.offset == 0x0c;
    patch(&mut context, is_index_load, |load| {
        load.opcode = 0x63;
        (load.destination, load.source) = (load.source, load.destination);
    });
    assert_refused(&context, "stores to the context");
}

#[test]
#[cfg_attr(without_kernel_program, ignore = "needs the kernel program: cargo xtask test")]
fn other_verdicts_are_refused() {
    let bytes = object();
    let is_verdict = |verdict| {
        move |load: &Instruction| {
            matches!(load.opcode, 0xb4 | 0xb7) && load.destination == 0 && load.immediate == verdict
        }
    };
    let (drop, pass, transmit) = (1, 2, 3);
    // A program that passes packets must not drop them, and the reverse.
    for (program, verdict, other) in
        [("minimizer", pass, drop), ("minimizer", pass, transmit), ("minimizer_tap", drop, pass)]
    {
        let mut object = KernelObject::parse(&bytes).expect("parses");
        let program = object.programs.iter_mut().find(|known| known.name == program).expect("it is there");
        let is_verdict = is_verdict(verdict);
        let verdicts = program.instructions.iter_mut().filter(|load| is_verdict(load));
        verdicts.for_each(|load| load.immediate = other);
        let violations = rules::check(&object).violations;
        assert!(violations.iter().any(|text| text.contains("returns a number")), "{violations:?}");
    }
}

#[test]
#[cfg_attr(without_kernel_program, ignore = "needs the kernel program: cargo xtask test")]
fn loads_of_classic_bpf_are_refused() {
    let mut bytes = object();
    patch(&mut bytes, calls_clock, |call| {
        *call = Instruction { opcode: 0x30, destination: 0, source: 0, offset: 0, immediate: 60 };
    });
    assert_refused(&bytes, "classic BPF");
}

#[test]
#[cfg_attr(without_kernel_program, ignore = "needs the kernel program: cargo xtask test")]
fn the_tag_covers_instructions_and_not_map_numbers() {
    let bytes = object();
    let tags = |bytes: &[u8]| Tags::of(&KernelObject::parse(bytes).expect("parses").programs[0]);
    let built = tags(&bytes);
    let mut changed = bytes.clone();
    patch(
        &mut changed,
        |exit| exit.operation() == operation::EXIT && exit.class() == class::JMP,
        |exit| {
            exit.immediate = 1;
        },
    );
    assert_ne!(tags(&changed), built);
    let mut numbered = bytes;
    patch(&mut numbered, |load| load.opcode == LOAD_IMMEDIATE_64, |load| load.immediate = 7);
    assert_eq!(tags(&numbered), built);
}

#[test]
#[cfg_attr(without_kernel_program, ignore = "needs the kernel program: cargo xtask test")]
fn the_object_is_found_in_a_binary_once() {
    let bytes = object();
    let binary = [&[0x7f; 100], bytes.as_slice(), &[0x7f; 100]].concat();
    assert!(embedded::find(&binary).expect("it is in there") == bytes);
    let twice = [bytes.as_slice(), &bytes].concat();
    assert!(embedded::find(&twice).expect_err("which one?").to_string().contains("more than one"));
    let none = embedded::find(&[0x7f; 100]).expect_err("there is none");
    assert!(none.to_string().contains("no kernel program"));
}

#[test]
#[cfg_attr(without_kernel_program, ignore = "needs the kernel program: cargo xtask test")]
fn a_difference_from_the_rebuild_is_located() {
    let bytes = object();
    let mut changed = bytes.clone();
    changed[0x1a0] ^= 1;
    let here = std::path::Path::new("minimizer.o");
    let error = same_bytes(&changed, &bytes, here).expect_err("they differ");
    assert!(error.to_string().contains("0x1a0"), "{error}");
    let error = same_bytes(&bytes[..bytes.len() - 8], &bytes, here).expect_err("one is shorter");
    assert!(error.to_string().contains("first difference"), "{error}");
    same_bytes(&bytes, &bytes, here).expect("they are equal");
}
