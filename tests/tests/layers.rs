//! Rooms import in one direction, and no module imports itself through others.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tests::imports::Imports;

/// The rooms of the agent: each imports only rooms that stand before it.
const AGENT: [&str; 10] = [
    "support",
    "policy",
    "kernel",
    "interfaces",
    "records",
    "delivery",
    "sinks",
    "agent",
    "serve",
    "commands",
];
/// The rooms of the kernel program.
const KERNEL_PROGRAM: [&str; 4] = ["parser", "table", "policy", "program"];

/// What is wrong with the imports of a crate, a line each.
fn faults(sources: &Path, name: &str, rooms: &[&str]) -> Result<Vec<String>> {
    let imports = Imports::read(sources, name)?;
    let against = imports.against(rooms).into_iter();
    let mut faults: Vec<String> =
        against.map(|import| format!("{} is below {}: {}", import.to, import.from, import.places)).collect();
    for cycle in imports.cycles() {
        faults.extend(cycle.iter().map(|it| format!("cycle, {} to {}: {}", it.from, it.to, it.places)));
    }
    Ok(faults)
}

/// Checks the imports of a crate of this repository, and that each of its folders has a place in the order.
fn check(package: &str, name: &str, rooms: &[&str]) -> Result<()> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(package).join("src");
    for entry in fs::read_dir(&sources)? {
        let path = entry?.path();
        let room = path.file_name().and_then(|name| name.to_str()).context("a name that is no text")?;
        assert!(!path.is_dir() || rooms.contains(&room), "{room} has no place among the rooms");
    }
    let faults = faults(&sources, name, rooms)?;
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

#[test]
fn the_agent_imports_upwards_and_without_cycles() -> Result<()> {
    check("minimizer", "minimizer", &AGENT)
}

#[test]
fn the_kernel_program_imports_upwards_and_without_cycles() -> Result<()> {
    check("minimizer-ebpf", "minimizer_ebpf", &KERNEL_PROGRAM)
}

/// A crate with these files.
fn planted(files: &[(&str, &str)]) -> Result<(tempfile::TempDir, PathBuf)> {
    let folder = tempfile::tempdir()?;
    for (path, text) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().context("has a folder")?)?;
        fs::write(path, text)?;
    }
    let path = folder.path().to_owned();
    Ok((folder, path))
}

const UPPER: &str = "//! A room.\npub mod one;\n";

#[test]
fn an_import_against_the_order_is_named_with_both_ends() -> Result<()> {
    for import in [
        "use crate::lower::two::Two;\n",
        "use crate::{lower::{two::{self as other}}};\n",
        "fn f() { let _ = crate::lower::two::Two; }\n",
        "fn f() { println!(\"{}\", super::super::lower::two::Two::new()); }\n",
        "use planted::lower::two::Two as Three;\n",
    ] {
        let one = format!("//! Crate.\n// use crate::lower::comment;\n{import}");
        let files =
            [("upper/mod.rs", UPPER), ("upper/one.rs", &one), ("lower/two.rs", "\n\npub struct Two;\n")];
        let (_folder, sources) = planted(&files)?;
        let faults = faults(&sources, "planted", &["upper", "lower"])?;
        assert_eq!(faults.len(), 1, "{import}: {faults:?}");
        assert!(faults[0].contains("lower::two is below upper::one"), "{faults:?}");
        assert!(
            faults[0].contains("upper/one.rs:3 imports") && faults[0].contains("lower/two.rs:"),
            "{faults:?}"
        );
        assert!(!import.contains("Two;") || faults[0].ends_with("two.rs:3"), "{faults:?}");
    }
    Ok(())
}

#[test]
fn imports_upwards_of_other_crates_and_for_tests_are_no_faults() -> Result<()> {
    let one = "use std::fmt; use lower::two; pub(super) const TEXT: &str = \"crate::lower::two\";\n\
               #[cfg(test)]\nmod tests { use crate::lower::two::Two; }\n#[cfg(test)]\nmod more;\n";
    let files = [
        ("upper/mod.rs", UPPER),
        ("upper/one.rs", one),
        ("upper/one/more.rs", "use crate::lower::two::Two;\n"),
        ("lower/two.rs", "use crate::upper::one;\npub struct Two;\n"),
    ];
    let (_folder, sources) = planted(&files)?;
    assert_eq!(faults(&sources, "planted", &["upper", "lower"])?, [""; 0]);
    Ok(())
}

#[test]
fn a_cycle_is_named_with_every_import_in_it() -> Result<()> {
    let files = [
        ("room/mod.rs", "//! A room.\npub mod one;\npub mod two;\npub mod three;\npub mod apart;\n"),
        ("room/one.rs", "use super::two::Two;\npub struct One;\n"),
        ("room/two.rs", "pub struct Two;\nmod deep;\n"),
        ("room/two/deep.rs", "use crate::room::three;\n"),
        ("room/three.rs", "\nfn f(_: super::one::One) {}\n"),
        ("room/apart.rs", "use super::one::One;\n"),
    ];
    let (_folder, sources) = planted(&files)?;
    let faults = faults(&sources, "planted", &["room"])?;
    assert_eq!(faults.len(), 3, "{faults:#?}");
    for (place, target) in [
        ("room/one.rs:1", "room/two.rs:1"),
        ("room/two/deep.rs:1", "room/three.rs:1"),
        ("room/three.rs:2", "room/one.rs:2"),
    ] {
        assert!(faults.iter().any(|it| it.contains(place) && it.ends_with(target)), "{place}: {faults:#?}");
    }
    Ok(())
}

#[test]
fn the_room_itself_is_a_node() -> Result<()> {
    let files = [
        ("room/mod.rs", "pub mod one;\npub use one::One;\npub struct All;\n"),
        ("room/one.rs", "use super::All;\npub struct One;\n"),
    ];
    let (_folder, sources) = planted(&files)?;
    assert_eq!(faults(&sources, "planted", &["room"])?.len(), 2);
    Ok(())
}
