//! Which module of a crate imports which, as its source says: what rules about rooms are checked on.
//!
//! A room is a folder below `src`. A node is a room, which stands for its `mod.rs`, or a module directly in a room with
//! everything below it. Imports are `use` declarations and paths that begin with `crate`, `super` or the name of the
//! crate, wherever they stand. What is compiled for tests only is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Words before the name of an item.
const ITEMS: [&str; 9] = ["fn", "struct", "enum", "trait", "const", "static", "type", "mod", "union"];

/// A path of names, from the root of the crate.
type Names = Vec<String>;

/// One module that names something of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// The node that imports, like `policy::compile`.
    pub from: String,
    /// The node that is imported.
    pub to: String,
    /// File and line of the import, what it names, and file and line of that.
    pub places: String,
}

/// The imports of a crate between nodes.
#[derive(Debug, Default)]
pub struct Imports(Vec<Import>);

impl Imports {
    /// Reads the sources in a folder. `name` is that of the crate.
    ///
    /// # Errors
    /// When a file cannot be read, or is no Rust.
    pub fn read(sources: &Path, name: &str) -> Result<Self> {
        let mut files = BTreeMap::new();
        find(sources, &mut Vec::new(), &mut files)?;
        let mut reader = Reader { name, files: BTreeMap::new(), found: Vec::new(), tests: BTreeSet::new() };
        for (module, path) in files {
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let tokens = text.parse().map_err(|error| anyhow!("{}: {error}", path.display()))?;
            reader.files.insert(module, (path, tokens));
        }
        for (module, (_, tokens)) in reader.files.clone() {
            reader.walk(&module, &module, tokens);
        }
        Ok(reader.imports())
    }

    /// Imports of a room that stands below the one that imports it. `rooms` begins with the topmost; others are not judged.
    #[must_use]
    pub fn against(&self, rooms: &[&str]) -> Vec<&Import> {
        let place = |node: &str| rooms.iter().position(|room| Some(*room) == node.split("::").next());
        let is_against = |import: &&Import| match (place(&import.from), place(&import.to)) {
            (Some(from), Some(to)) => to > from,
            _ => false,
        };
        self.0.iter().filter(is_against).collect()
    }

    /// For every set of nodes that import each other, directly or through others, the imports among them.
    #[must_use]
    pub fn cycles(&self) -> Vec<Vec<&Import>> {
        let nodes: BTreeSet<&str> = self.0.iter().map(|import| &*import.from).collect();
        let reached: BTreeMap<&str, BTreeSet<&str>> =
            nodes.iter().map(|node| (*node, self.reached(node))).collect();
        let (mut cycles, mut told) = (Vec::new(), BTreeSet::new());
        for node in &nodes {
            if !reached[node].contains(node) || told.contains(node) {
                continue;
            }
            let is_in = |other: &str| {
                reached[node].contains(other) && reached.get(other).is_some_and(|back| back.contains(node))
            };
            let cycle: Vec<&Import> =
                self.0.iter().filter(|import| is_in(&import.from) && is_in(&import.to)).collect();
            told.extend(cycle.iter().map(|import| &*import.from));
            cycles.push(cycle);
        }
        cycles
    }

    /// Nodes that a node imports, directly or through others.
    fn reached(&self, node: &str) -> BTreeSet<&str> {
        let (mut reached, mut next) = (BTreeSet::new(), vec![node]);
        while let Some(from) = next.pop() {
            for import in self.0.iter().filter(|import| import.from == from) {
                if reached.insert(&*import.to) {
                    next.push(&import.to);
                }
            }
        }
        reached
    }
}

/// Collects the files below a folder by the module that each of them is.
fn find(folder: &Path, module: &mut Names, files: &mut BTreeMap<Names, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name =
            path.file_stem().and_then(|name| name.to_str()).context("a name that is no text")?.to_owned();
        let is_root = module.is_empty() && ["lib", "main"].contains(&&*name);
        if path.is_dir() {
            module.push(name);
            find(&path, module, files)?;
            module.pop();
        } else if path.extension().is_some_and(|extension| extension == "rs") && !is_root {
            let own = if name == "mod" { None } else { Some(name) };
            files.insert(module.iter().cloned().chain(own).collect(), path);
        }
    }
    Ok(())
}

struct Reader<'a> {
    name: &'a str,
    files: BTreeMap<Names, (PathBuf, TokenStream)>,
    /// The file that imports, the line, and what.
    found: Vec<(Names, usize, Names)>,
    /// Modules that are compiled for tests only.
    tests: BTreeSet<Names>,
}

impl Reader<'_> {
    /// Finds imports in a piece of the file of `file`, which belongs to `module`.
    fn walk(&mut self, file: &Names, module: &Names, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            let after = &tokens[at + 1..];
            let line = token.span().start().line;
            match token {
                TokenTree::Punct(punct) if punct.as_char() == '#' && is_for_tests(after.first()) => {
                    // The item behind the attribute ends with a block or a semicolon.
                    let item = &after[1..];
                    let ends = |token: &TokenTree| is_brace(token) || is_punct(Some(token), ';');
                    let length = item.iter().position(ends).map_or(item.len(), |end| end + 1);
                    let names: Vec<&TokenTree> = item[..length].iter().filter(|it| is_ident(it)).collect();
                    if let Some(mods) = names.windows(2).find(|pair| pair[0].to_string() == "mod") {
                        self.tests.insert(joined(module, &[mods[1].to_string()]));
                    }
                    at += 2 + length;
                }
                TokenTree::Ident(word) if word == "use" => {
                    let length =
                        after.iter().position(|token| is_punct(Some(token), ';')).unwrap_or(after.len());
                    for path in leaves(&after[..length], &[]) {
                        self.import(file, module, line, &path, true);
                    }
                    at += 1 + length;
                }
                TokenTree::Ident(word)
                    if word == "mod" && after.get(1).is_some_and(is_brace) && is_ident(&after[0]) =>
                {
                    if let TokenTree::Group(body) = &after[1] {
                        self.walk(file, &joined(module, &[after[0].to_string()]), body.stream());
                    }
                    at += 3;
                }
                TokenTree::Ident(_) => {
                    let (path, length) = path(&tokens[at..]);
                    self.import(file, module, line, &path, false);
                    at += length;
                }
                TokenTree::Group(group) => {
                    self.walk(file, module, group.stream());
                    at += 1;
                }
                _ => at += 1,
            }
        }
    }

    /// Notes a path, where it is one of this crate. Names of modules next to it may begin only that of a `use`, and a single
    /// word like the one in `pub(super)` is none elsewhere.
    fn import(&mut self, file: &Names, module: &Names, line: usize, path: &[String], is_use: bool) {
        if path.len() < 2 && !is_use {
            return;
        }
        let supers = path.iter().take_while(|name| *name == "super").count();
        let absolute = match path.first().map(String::as_str) {
            Some("crate") => path[1..].to_vec(),
            Some(name) if name == self.name => path[1..].to_vec(),
            Some("self") => joined(module, &path[1..]),
            Some("super") => joined(&module[..module.len().saturating_sub(supers)], &path[supers..]),
            Some(_) if is_use && self.files.contains_key(&joined(module, &path[..1])) => joined(module, path),
            _ => return,
        };
        self.found.push((file.clone(), line, absolute));
    }

    fn imports(&self) -> Imports {
        let is_test = |module: &[String]| (1..=module.len()).any(|end| self.tests.contains(&module[..end]));
        let mut imports = Vec::new();
        for (file, line, named) in &self.found {
            let whole = (1..=named.len()).rev().find(|end| self.files.contains_key(&named[..*end]));
            let Some(whole) = whole.filter(|_| !is_test(file)) else { continue };
            let target = &named[..whole];
            let (from, to) = (node(file), node(target));
            if from == to || is_test(target) {
                continue;
            }
            let (importer, (imported, tokens)) = (self.files[file].0.display(), &self.files[target]);
            let defined = named.get(whole).and_then(|name| line_of(name, tokens.clone())).unwrap_or(1);
            let places =
                format!("{importer}:{line} imports {} of {}:{defined}", named.join("::"), imported.display());
            imports.push(Import { from, to, places });
        }
        Imports(imports)
    }
}

fn joined(module: &[String], names: &[String]) -> Names {
    [module, names].concat()
}

fn node(module: &[String]) -> String {
    module[..module.len().min(2)].join("::")
}

fn is_ident(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Ident(_))
}

fn is_brace(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace)
}

fn is_punct(token: Option<&TokenTree>, wanted: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == wanted)
}

/// Whether what follows a `#` is `[cfg(test)]`.
fn is_for_tests(attribute: Option<&TokenTree>) -> bool {
    attribute.is_some_and(|attribute| attribute.to_string().replace(' ', "") == "[cfg(test)]")
}

/// The path that tokens begin with, and how many tokens it takes.
fn path(tokens: &[TokenTree]) -> (Names, usize) {
    let (mut names, mut at) = (Vec::new(), 0);
    while let Some(TokenTree::Ident(name)) = tokens.get(at) {
        names.push(name.to_string());
        at += 1;
        if !(is_punct(tokens.get(at), ':') && is_punct(tokens.get(at + 1), ':')) {
            break;
        }
        at += 2;
    }
    (names, at.max(1))
}

/// Every path that the tree of a `use` names.
fn leaves(tree: &[TokenTree], prefix: &[String]) -> Vec<Names> {
    let mut all = Vec::new();
    for part in tree.split(|token| is_punct(Some(token), ',')).filter(|part| !part.is_empty()) {
        let (mut names, length) = path(part);
        if names.last().is_some_and(|last| last == "self") && !(prefix.is_empty() && names.len() == 1) {
            names.pop();
        }
        let whole = joined(prefix, &names);
        match part.get(if names.is_empty() { 0 } else { length }) {
            Some(TokenTree::Group(group)) => {
                all.extend(leaves(&group.stream().into_iter().collect::<Vec<_>>(), &whole));
            }
            _ => all.push(whole),
        }
    }
    all
}

/// The line in which an item of this name is defined.
fn line_of(name: &str, tokens: TokenStream) -> Option<usize> {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let is_item = |pair: &&[TokenTree]| ITEMS.contains(&&*pair[0].to_string()) && pair[1].to_string() == name;
    tokens.windows(2).find(is_item).map(|pair| pair[1].span().start().line)
}
