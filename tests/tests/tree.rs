//! The code map of ARCHITECTURE.md agrees with the tree, and no source file is too long.
//!
//! The map is the first block between ``` fences below the heading "Code map". Its form:
//!
//! - A line is names, separated by one space, then two spaces or more and a text. Of a line that only goes on with the text
//!   of the line before, the first word is no name.
//! - A name without indentation is a folder at the root of the repository.
//! - An indented name is a file, with its ending, or a folder, with `/` behind it. It lies in the nearest folder above it
//!   that is indented less; in a package, in its `src` or beside that.
//!
//! Of the agent and the kernel program the map names every room, and every file directly in a room but its `mod.rs`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

/// Packages of which the map names every room.
const WITH_ROOMS: [&str; 2] = ["minimizer", "minimizer-ebpf"];
/// STYLE.md: at this length a file is split.
const LINES_MAX: usize = 500;
/// Folders without sources of this repository.
const FOREIGN: [&str; 2] = ["target", ".git"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the repository")
}

/// The text of the code map.
fn map(architecture: &str) -> Result<&str> {
    let (_, section) = architecture.split_once("\n## Code map\n").context("there is a code map")?;
    let (_, block) = section.split_once("```\n").context("it is a block")?;
    Ok(block.split_once("\n```").context("the block ends")?.0)
}

/// Names that a map has, as paths from the root of the repository; the first of a pair where both may be meant.
fn named(map: &str, exists: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let (mut folders, mut named): (Vec<(usize, PathBuf)>, Vec<PathBuf>) = (Vec::new(), Vec::new());
    for line in map.lines().filter(|line| !line.trim().is_empty()) {
        let indentation = line.len() - line.trim_start().len();
        let names = line.trim_start().split("  ").next().unwrap_or_default();
        let is_name = |name: &&str| indentation == 0 || name.ends_with('/') || name.contains('.');
        while folders.last().is_some_and(|(other, _)| *other >= indentation) {
            folders.pop();
        }
        let folder = folders.last().map(|(_, path)| path.clone()).unwrap_or_default();
        for name in names.split(' ').take_while(is_name) {
            let places = [folder.join("src").join(name), folder.join(name)];
            let path = places.iter().find(|path| exists(path)).unwrap_or(&places[1]).clone();
            if indentation == 0 || name.ends_with('/') {
                folders.push((indentation, path.clone()));
            }
            named.push(path);
        }
    }
    named
}

/// Rooms of a package, and the files in them.
fn rooms(package: &str) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    let sources = Path::new(package).join("src");
    for room in fs::read_dir(root().join(&sources))? {
        let room = room?;
        if !room.file_type()?.is_dir() {
            continue;
        }
        let folder = sources.join(room.file_name());
        for file in fs::read_dir(room.path())? {
            let file = file?;
            if file.file_type()?.is_file() && file.file_name() != "mod.rs" {
                found.insert(folder.join(file.file_name()));
            }
        }
        found.insert(folder);
    }
    Ok(found)
}

#[test]
fn the_code_map_names_what_there_is_and_nothing_else() -> Result<()> {
    let architecture = fs::read_to_string(root().join("ARCHITECTURE.md"))?;
    let named = named(map(&architecture)?, |path| root().join(path).exists());
    let absent: Vec<&PathBuf> = named.iter().filter(|path| !root().join(path).exists()).collect();
    ensure!(absent.is_empty(), "ARCHITECTURE.md names what is not there: {absent:#?}");
    for package in WITH_ROOMS {
        // Joined anew, since a folder in the map ends with `/`.
        let all: BTreeSet<PathBuf> = named.iter().map(|path| path.components().collect()).collect();
        let missing: Vec<PathBuf> = rooms(package)?.into_iter().filter(|path| !all.contains(path)).collect();
        ensure!(missing.is_empty(), "the code map of ARCHITECTURE.md lacks {missing:#?}");
    }
    Ok(())
}

#[test]
fn a_map_is_read_in_its_form() {
    let text = "agent     text a.b\n  room/   is a room\n    one.rs two.rs  files of it\n                   and more words.\n  \
                lib.rs  the root\ndeploy  rules\n";
    let expected = [
        "agent",
        "agent/src/room",
        "agent/src/room/one.rs",
        "agent/src/room/two.rs",
        "agent/src/lib.rs",
        "deploy",
    ]
    .map(PathBuf::from);
    let found = named(text, |path| expected.iter().any(|known| known == path));
    assert_eq!(found, expected);
}

/// Calls `look` with every source file in a folder.
fn for_sources(folder: &Path, look: &mut impl FnMut(&Path) -> Result<()>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let is_foreign = FOREIGN.iter().any(|name| entry.file_name() == *name);
        if entry.file_type()?.is_dir() && !is_foreign {
            for_sources(&path, look)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            look(&path)?;
        }
    }
    Ok(())
}

#[test]
fn no_source_file_is_too_long() -> Result<()> {
    let (mut files, mut long) = (0, Vec::new());
    for_sources(root(), &mut |path| {
        let lines = fs::read_to_string(path)?.lines().count();
        files += 1;
        if lines > LINES_MAX {
            long.push(format!("{}: {lines} lines", path.display()));
        }
        Ok(())
    })?;
    ensure!(files > 100, "{files} files are not all of them");
    ensure!(long.is_empty(), "longer than {LINES_MAX} lines: {long:#?}");
    Ok(())
}
