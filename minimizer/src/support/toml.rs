//! Values of a TOML file with their positions, and a list of what is wrong with them.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::Spanned;

use crate::support::text;

/// Most findings that are shown: a list in the wrong format has one for each of its lines.
const SHOWN_MAX: usize = 20;

/// A value, and its position in the file.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct At<T>(Spanned<T>);

impl<T> At<T> {
    /// The value.
    #[must_use]
    pub fn get(&self) -> &T {
        self.0.as_ref()
    }

    /// Its position, in octets from the start of the text.
    #[must_use]
    pub fn span(&self) -> Range<usize> {
        self.0.span()
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// One mistake: where it is, and how to fix it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub file: String,
    /// Line, from 1 on.
    pub line: usize,
    /// Column in characters, from 1 on; 0 for the whole line.
    pub column: usize,
    /// What is wrong, why, and the fix.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, message } = self;
        match column {
            0 => write!(formatter, "{file}:{line}: {message}"),
            _ => write!(formatter, "{file}:{line}:{column}: {message}"),
        }
    }
}

/// All mistakes, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Findings(pub Vec<Finding>);

impl fmt::Display for Findings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [finding] = &*self.0 {
            return finding.fmt(formatter);
        }
        write!(formatter, "{} things are wrong:", self.0.len())?;
        self.0.iter().take(SHOWN_MAX).try_for_each(|finding| write!(formatter, "\n  {finding}"))?;
        match self.0.len().saturating_sub(SHOWN_MAX) {
            0 => Ok(()),
            more => write!(formatter, "\n  and {more} more"),
        }
    }
}

/// The text of a TOML file, and the mistakes found in it so far.
#[derive(Debug)]
pub struct Document<'text> {
    name: String,
    text: &'text str,
    findings: Vec<Finding>,
    /// What is understood, and more than is allowed.
    beyond: Vec<Finding>,
}

impl<'text> Document<'text> {
    /// The text of the file of that name, with or without a byte order mark.
    #[must_use]
    pub fn new(name: String, text: &'text str) -> Self {
        Self { name, text: text::without_mark(text), findings: Vec::new(), beyond: Vec::new() }
    }

    /// Reads the text into its model.
    ///
    /// # Errors
    /// When it is not TOML, or has a key or a kind of value that the model does not have.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Findings> {
        toml::from_str(self.text).map_err(|error| {
            let span = error.span().unwrap_or_default();
            Findings(vec![self.finding(span.start, error.message().to_owned())])
        })
    }

    /// Whether nothing wrong was noted.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// Notes that the value is wrong.
    pub fn refuse<T>(&mut self, at: &At<T>, message: impl Into<String>) {
        self.refuse_at(at.span().start, message);
    }

    /// Notes a mistake at a position.
    pub fn refuse_at(&mut self, offset: usize, message: impl Into<String>) {
        let finding = self.finding(offset, message.into());
        self.findings.push(finding);
    }

    /// Notes that the value is understood, and more than is allowed.
    pub fn limit<T>(&mut self, at: &At<T>, message: impl Into<String>) {
        self.limit_at(at.span().start, message);
    }

    /// Notes that what is at a position is understood, and more than is allowed.
    pub fn limit_at(&mut self, offset: usize, message: impl Into<String>) {
        let finding = self.finding(offset, message.into());
        self.beyond.push(finding);
    }

    /// Notes a mistake in another file.
    pub fn also(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// Returns all mistakes, by position, if there are any.
    ///
    /// # Errors
    /// When there is a mistake.
    pub fn finish(mut self) -> Result<(), Findings> {
        self.findings.append(&mut self.beyond);
        self.finish_beyond().map(drop)
    }

    /// Returns all mistakes, by position, if there are any, and else everything that is more than is allowed.
    ///
    /// # Errors
    /// When there is a mistake.
    pub fn finish_beyond(mut self) -> Result<Vec<Finding>, Findings> {
        let is_right = self.findings.is_empty();
        self.findings.append(&mut self.beyond);
        // Mistakes in other files come last.
        let name = self.name;
        self.findings.sort_by_key(|finding| (finding.file != name, finding.line, finding.column));
        self.findings.dedup();
        if is_right { Ok(self.findings) } else { Err(Findings(self.findings)) }
    }

    fn finding(&self, offset: usize, message: String) -> Finding {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_begin = before.rfind('\n').map_or(0, |newline| newline + 1);
        Finding {
            file: self.name.clone(),
            line: before.matches('\n').count() + 1,
            column: before[line_begin..].chars().count() + 1,
            message,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::{At, Document};

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Model {
        number: At<u8>,
    }

    #[test]
    fn a_finding_has_line_and_column_in_characters() {
        let mut document = Document::new("file".to_owned(), "# ü\n  number = 7");
        let model: Model = document.read().expect("is of the model");
        assert_eq!(*model.number.get(), 7);
        document.refuse(&model.number, "is odd");
        assert_eq!(document.finish().expect_err("is found").to_string(), "file:2:12: is odd");
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_line() {
        let mut document = Document::new("file".to_owned(), "\u{feff}number = 7");
        let model: Model = document.read().expect("is of the model");
        document.refuse(&model.number, "is odd");
        assert_eq!(document.finish().expect_err("is found").to_string(), "file:1:10: is odd");
    }

    #[test]
    fn only_the_first_findings_are_shown() {
        let mut document = Document::new("file".to_owned(), "number = 7");
        (0..30).for_each(|offset| document.refuse_at(offset % 10, format!("wrong {offset}")));
        let said = document.finish().expect_err("is found").to_string();
        assert!(said.starts_with("30 things are wrong:\n  file:1:1: wrong 0"), "{said}");
        assert!(said.ends_with("\n  and 10 more") && said.lines().count() == 22, "{said}");
    }

    #[test]
    fn an_unknown_key_is_named_with_those_that_are_known() {
        let findings = Document::new("file".to_owned(), "number = 7\nnummer = 8").read::<Model>().err();
        let said = findings.expect("is refused").to_string();
        assert_eq!(said, "file:2:1: unknown field `nummer`, expected `number`");
    }
}
