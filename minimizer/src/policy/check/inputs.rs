//! The files that a policy names. They are read relative to the policy's folder, and their digests are kept.

use std::collections::BTreeSet;
use std::path::Path;

use super::Digests;
use crate::policy::file::InputFile;
use crate::support::digest::sha256;
use crate::support::plain_file;
use crate::support::text;
use crate::support::toml::{At, Document};

/// Reads the files that a policy names.
pub struct Inputs<'folder> {
    folder: &'folder Path,
    digests: Digests,
    unpinned: BTreeSet<String>,
}

impl<'folder> Inputs<'folder> {
    /// A reader of files relative to `folder`.
    pub const fn new(folder: &'folder Path) -> Self {
        Self { folder, digests: Digests::new(), unpinned: BTreeSet::new() }
    }

    /// Reads a file and returns its text. Notes what is wrong with it.
    pub fn read(&mut self, document: &mut Document<'_>, at: &At<InputFile>) -> Option<String> {
        let input = at.get();
        let place = self.place(input);
        let octets = match plain_file::read(Path::new(&place)) {
            Ok(octets) => octets,
            Err(error) => {
                document.refuse(
                    at,
                    format!("cannot read {place}: {error}; paths are relative to the policy's folder"),
                );
                return None;
            }
        };
        let digest = sha256(&octets);
        if input.sha256().is_none() {
            self.unpinned.insert(input.path().to_owned());
        }
        if let Some(pin) = input.sha256().filter(|pin| !pin.eq_ignore_ascii_case(&digest)) {
            document.refuse(
                at,
                format!("{place} is not the file that was signed off: its SHA-256 is {digest}, the policy says {pin}"),
            );
            return None;
        }
        let mut text = match text::decoded(octets) {
            Ok(text) => text,
            Err(error) => {
                document.refuse(at, format!("cannot read {place}: {error}"));
                return None;
            }
        };
        self.digests.insert(input.path().to_owned(), digest);
        let mark = text.len() - text::without_mark(&text).len();
        text.drain(..mark);
        Some(text)
    }

    /// The path of the file.
    pub fn place(&self, input: &InputFile) -> String {
        self.folder.join(input.path()).display().to_string()
    }

    /// SHA-256 of every file that was read, and the names of those without a pin.
    pub fn finish(self) -> (Digests, BTreeSet<String>) {
        (self.digests, self.unpinned)
    }
}
