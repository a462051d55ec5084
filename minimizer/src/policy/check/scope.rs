//! The scope: every prefix must have one class, and every direction must be possible.

use minimizer_common::plan::ENDPOINTS_MAX;

use super::acknowledged::{Acknowledged, EVERY_COMMUNICATION};
use super::inputs::Inputs;
use super::translations;
use crate::policy::class::Class;
use crate::policy::classes::Classes;
use crate::policy::file::{Direction, InputFile, ScopeFile};
use crate::policy::model::Scope;
use crate::policy::prefixes;
use crate::policy::prefixes::Prefix;
use crate::policy::translation::Translation;
use crate::support::toml::{At, Document, Finding};

/// The words with which a policy must say that it collects communications between domestic parties.
pub const DOMESTIC_WORDS: &str = "communications between domestic parties are collected";

/// Reads a scope with its prefixes, and the network's own translations. Notes what is wrong with them.
pub fn check(
    document: &mut Document<'_>,
    inputs: &mut Inputs<'_>,
    acknowledged: &mut Acknowledged<'_>,
    at: &At<ScopeFile>,
) -> (Scope, Vec<Translation>) {
    let scope = at.get();
    let mut listed_prefixes = Listed::default();
    for (class, listed, files) in [
        (Class::Domestic, &scope.domestic, &scope.domestic_files),
        (Class::Foreign, &scope.foreign, &scope.foreign_files),
        (Class::Never, &scope.never, &scope.never_files),
    ] {
        for text in listed {
            match Prefix::parse(text.get()) {
                Ok(prefix) => listed_prefixes.add_at(prefix, class, text.span().start),
                Err(error) => document.refuse(text, error.to_string()),
            }
        }
        for file in files {
            read(document, inputs, file, class, &mut listed_prefixes);
        }
    }
    let translations = translations::check(document, scope);
    for (translation, offset) in &translations {
        listed_prefixes.add_at(translation.prefix, Class::Embedded, *offset);
    }
    let translations: Vec<_> = translations.into_iter().map(|(translation, _)| translation).collect();
    // A prefix that cannot be read, or a file, is told by itself; that nothing is listed would be no second fault.
    let is_listed = |listed: &[At<String>], files: &[At<InputFile>]| !listed.is_empty() || !files.is_empty();
    let mut prefixes = listed_prefixes.into_prefixes(document);
    prefixes.retain(|(_, class)| *class != Class::Embedded);
    let has_domestic = is_listed(&scope.domestic, &scope.domestic_files);
    let has_others =
        is_listed(&scope.foreign, &scope.foreign_files) || is_listed(&scope.never, &scope.never_files);
    if !has_domestic && !has_others {
        document.refuse(
            at,
            "the scope lists no prefix, so that every address would be foreign: list prefixes under `domestic` or \
             `never`, or remove the section",
        );
    }
    let directions = check_directions(document, at, has_domestic);
    if !has_domestic && has_others && directions.contains(&Direction::ForeignForeign.classes()) {
        acknowledged.demand(
            document,
            at.span().start,
            EVERY_COMMUNICATION,
            "no prefix is domestic, so that every address is foreign and communications between domestic parties are \
             collected as those between foreign ones: list prefixes under `domestic`",
        );
    }
    let scope = Scope { prefixes, directions };
    refuse_holes(document, at, &scope, &translations);
    (scope, translations)
}

/// Reads the prefixes of tunnel endpoints. The program compares all of them with an address.
pub fn tunnel_endpoints(document: &mut Document<'_>, at: &At<ScopeFile>) -> Vec<Prefix> {
    let mut endpoints = Vec::new();
    for text in &at.get().tunnel_endpoints {
        match Prefix::parse(text.get()) {
            Ok(prefix) if prefix.bits == 0 => {
                document.refuse(
                    text,
                    format!("{prefix} is every address: list the prefixes of the network's own gateways"),
                );
            }
            Ok(prefix) => {
                let same = endpoints.iter().filter(|other: &&Prefix| other.ipv6 == prefix.ipv6).count();
                if same == ENDPOINTS_MAX {
                    let version = if prefix.ipv6 { "IPv6" } else { "IPv4" };
                    document.refuse(
                        text,
                        format!("the scope can have {ENDPOINTS_MAX} prefixes of tunnel endpoints of {version}: join some of them"),
                    );
                    break;
                }
                endpoints.push(prefix);
            }
            Err(error) => document.refuse(text, error.to_string()),
        }
    }
    endpoints.sort_unstable();
    endpoints.dedup();
    endpoints
}

/// Refuses domestic prefixes in which foreign ones leave no domestic address.
fn refuse_holes(
    document: &mut Document<'_>,
    at: &At<ScopeFile>,
    scope: &Scope,
    translations: &[Translation],
) {
    let classes = Classes::new(scope, translations);
    let is_hole = |(prefix, class): &&(Prefix, Class)| {
        let address = u128::from_be_bytes(prefix.octets);
        *class == Class::Domestic && !classes.may_be(prefix.ipv6, address, prefix.bits, Class::Domestic)
    };
    for (prefix, _) in scope.prefixes.iter().filter(is_hole) {
        document.limit(
            at,
            format!(
                "foreign prefixes cover all of the domestic prefix {prefix}, so that none of its addresses is domestic: \
                 remove them, or the domestic prefix"
            ),
        );
    }
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
    listed: &mut Listed,
) {
    let Some(text) = inputs.read(document, file) else { return };
    let place = inputs.place(file.get());
    listed.files.push(place.clone());
    let mut is_empty = true;
    for (line, prefix) in prefixes::lines(&text) {
        is_empty = false;
        match prefix {
            Ok(prefix) => listed.add_line(prefix, class, line),
            Err(error) => {
                document.also(Finding { file: place.clone(), line, column: 0, message: error.to_string() })
            }
        }
    }
    if is_empty {
        // An address without a prefix is foreign: a file that lost its prefixes would open the scope.
        document.refuse(file, format!("{place} lists no prefix: give it one, or remove it from the scope"));
    }
}

/// Prefixes as the policy lists them, in its order. A policy can list a million: so each takes 28 octets.
#[derive(Default)]
struct Listed {
    all: Vec<ListedPrefix>,
    /// Where the policy itself lists prefixes.
    places: Vec<usize>,
    /// The files of prefixes.
    files: Vec<String>,
}

struct ListedPrefix {
    prefix: Prefix,
    class: Class,
    /// [`IN_POLICY`], or the position of the file.
    file: u32,
    /// Line in the file, or position of the place in the policy.
    line: u32,
}

/// No file: the policy lists the prefix itself.
const IN_POLICY: u32 = u32::MAX;

impl Listed {
    /// Adds a prefix that the policy itself lists at this offset.
    fn add_at(&mut self, prefix: Prefix, class: Class, offset: usize) {
        let line = number(self.places.len());
        self.places.push(offset);
        self.all.push(ListedPrefix { prefix, class, file: IN_POLICY, line });
    }

    /// Adds a prefix of the latest file.
    fn add_line(&mut self, prefix: Prefix, class: Class, line: usize) {
        let file = number(self.files.len() - 1);
        self.all.push(ListedPrefix { prefix, class, file, line: number(line) });
    }

    /// The prefixes in order, each once. Notes those that have two classes.
    fn into_prefixes(mut self, document: &mut Document<'_>) -> Vec<(Prefix, Class)> {
        // Stable: the first listing of a prefix stays the first.
        self.all.sort_by_key(|listed| listed.prefix);
        let same = |one: &ListedPrefix, next: &ListedPrefix| one.prefix == next.prefix;
        let mut prefixes = Vec::with_capacity(self.all.chunk_by(same).count());
        for (first, others) in self.all.chunk_by(same).filter_map(<[_]>::split_first) {
            prefixes.push((first.prefix, first.class));
            for other in others.iter().filter(|other| other.class != first.class) {
                self.refuse(first, other, document);
            }
        }
        prefixes
    }

    fn refuse(&self, first: &ListedPrefix, other: &ListedPrefix, document: &mut Document<'_>) {
        let position = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let place = match self.files.get(position(first.file)) {
            None => "in the policy".to_owned(),
            Some(file) => format!("in {file}:{}", first.line),
        };
        let (prefix, class, before) = (other.prefix, other.class, first.class);
        let message =
            format!("{prefix} is listed as {class} here and as {before} {place}: remove it from one of them");
        match self.files.get(position(other.file)) {
            None => document.refuse_at(self.places[position(other.line)], message),
            Some(file) => {
                let (file, line) = (file.clone(), position(other.line));
                document.also(Finding { file, line, column: 0, message });
            }
        }
    }
}

/// A policy that lists more than this cannot be compiled.
fn number(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(IN_POLICY - 1)
}
