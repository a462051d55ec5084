//! The scope: every prefix must have one class, and every direction must be possible.

use hashbrown::HashMap;

use super::inputs::Inputs;
use crate::policy::class::Class;
use crate::policy::file::{Direction, InputFile, ScopeFile};
use crate::policy::model::Scope;
use crate::policy::prefixes::Prefix;
use crate::policy::prefixes::{self, PrefixError};
use crate::support::toml::{At, Document, Finding};

/// The words with which a policy must say that it collects communications between domestic parties.
pub const DOMESTIC_WORDS: &str = "communications between domestic parties are collected";

/// Reads a scope with its prefixes, and notes what is wrong with it.
pub fn check(document: &mut Document<'_>, inputs: &mut Inputs<'_>, at: &At<ScopeFile>) -> Scope {
    let scope = at.get();
    let mut set = Prefixes::default();
    for (class, listed, files) in [
        (Class::Domestic, &scope.domestic, &scope.domestic_files),
        (Class::Foreign, &scope.foreign, &scope.foreign_files),
        (Class::Never, &scope.never, &scope.never_files),
    ] {
        for text in listed {
            if let Err(message) = set.add(Prefix::parse(text.get()), class, Source::Policy) {
                document.refuse(text, message);
            }
        }
        for file in files {
            read(document, inputs, file, class, &mut set);
        }
    }
    // A prefix that cannot be read, or a file, is told by itself; that nothing is listed would be no second fault.
    let is_listed = |listed: &[At<String>], files: &[At<InputFile>]| !listed.is_empty() || !files.is_empty();
    let has_domestic = is_listed(&scope.domestic, &scope.domestic_files);
    if !has_domestic
        && !is_listed(&scope.foreign, &scope.foreign_files)
        && !is_listed(&scope.never, &scope.never_files)
    {
        document.refuse(
            at,
            "the scope lists no prefix, so that every address would be foreign: list prefixes under `domestic` or \
             `never`, or remove the section",
        );
    }
    let directions = check_directions(document, at, has_domestic);
    let mut prefixes: Vec<_> = set.classes.into_iter().map(|(prefix, (class, _))| (prefix, class)).collect();
    prefixes.sort_unstable();
    Scope { prefixes, directions }
}

fn check_directions(
    document: &mut Document<'_>,
    at: &At<ScopeFile>,
    has_domestic: bool,
) -> Vec<(Class, Class)> {
    let scope = at.get();
    if scope.directions.is_empty() {
        document.refuse(
            at,
            "no direction may be collected: add `directions`, of \"foreign-foreign\", \"foreign-domestic\" and \
             \"domestic-foreign\"",
        );
    }
    let mut directions = Vec::new();
    for direction in &scope.directions {
        let classes = direction.get().classes();
        if directions.contains(&classes) {
            document.refuse(direction, "this direction is listed twice: remove one");
            continue;
        }
        directions.push(classes);
        if !has_domestic && *direction.get() != Direction::ForeignForeign {
            document.refuse(
                direction,
                "no prefix is domestic, so that no packet has this direction: list prefixes under `domestic`",
            );
        }
        let has_words = scope.domestic_domestic.is_some();
        if *direction.get() == Direction::DomesticDomestic && !has_words {
            document.refuse(
                direction,
                format!(
                    "communications between domestic parties are refused unless the policy says so in so many words: \
                     remove this direction, or add to the scope domestic_domestic = \"{DOMESTIC_WORDS}\""
                ),
            );
        }
    }
    if let Some(words) = &scope.domestic_domestic {
        if words.get() != DOMESTIC_WORDS {
            document.refuse(words, format!("the only words allowed here are \"{DOMESTIC_WORDS}\""));
        } else if !directions.contains(&Direction::DomesticDomestic.classes()) {
            document.refuse(
                words,
                "these words say more than the directions: add \"domestic-domestic\", or remove them",
            );
        }
    }
    directions.sort_unstable();
    directions
}

fn read(
    document: &mut Document<'_>,
    inputs: &mut Inputs<'_>,
    file: &At<InputFile>,
    class: Class,
    set: &mut Prefixes,
) {
    let Some(text) = inputs.read(document, file) else { return };
    let place = inputs.place(file.get());
    let number = set.files.len();
    set.files.push(place.clone());
    let mut is_empty = true;
    for (line, prefix) in prefixes::lines(&text) {
        is_empty = false;
        if let Err(message) = set.add(prefix, class, Source::Line(number, line)) {
            document.also(Finding { file: place.clone(), line, column: 0, message });
        }
    }
    if is_empty {
        // An address without a prefix is foreign: a file that lost its prefixes would open the scope.
        document.refuse(file, format!("{place} lists no prefix: give it one, or remove it from the scope"));
    }
}

/// Where the policy lists a prefix.
#[derive(Clone, Copy)]
enum Source {
    Policy,
    Line(usize, usize),
}

/// Prefixes with their class and the first place where the policy lists them.
#[derive(Default)]
struct Prefixes {
    classes: HashMap<Prefix, (Class, Source)>,
    files: Vec<String>,
}

impl Prefixes {
    fn add(
        &mut self,
        prefix: Result<Prefix, PrefixError>,
        class: Class,
        source: Source,
    ) -> Result<(), String> {
        let prefix = prefix.map_err(|error| error.to_string())?;
        let (before, first) = *self.classes.entry(prefix).or_insert((class, source));
        if before == class {
            return Ok(());
        }
        let place = match first {
            Source::Policy => "in the policy".to_owned(),
            Source::Line(file, line) => format!("in {}:{line}", self.files[file]),
        };
        Err(format!("{prefix} is listed as {class} here and as {before} {place}: remove it from one of them"))
    }
}
