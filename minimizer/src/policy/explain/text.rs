//! An explanation as text of 100 columns, without colours: people print it, mail it and file it.

use std::fmt;

use super::Explanation;

const COLUMNS: usize = 100;
/// Widths of the table's columns. The last column takes the rest.
const WIDTHS: [usize; 4] = [31, 28, 23, 18];

/// What the pairs are about.
const JOINING: &str = "Two recipients who compare their records of a batch join those in which what both are told is the same. What takes \
    N bits has 2 to the power of N values at most; from 10 bits on it singles records out. In a small batch less is enough: \
    `minimizer policy risk` measures it on a capture.";

impl fmt::Display for Explanation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "Policy {}", self.name)?;
        for section in &self.sentences {
            writeln!(formatter, "\n{}", section.title)?;
            section.sentences.iter().try_for_each(|sentence| paragraph(formatter, "  ", sentence))?;
        }
        writeln!(formatter, "\nField by field")?;
        row(formatter, ["", "what remains", "RFC 6235", "reversible by"])?;
        for field in &self.fields {
            writeln!(formatter, "{:<31}{}", field.field.name(), field.source)?;
            for remains in &field.remains {
                let places = remains.places.join(", ");
                let place = match &remains.class {
                    Some(class) => format!("{places}: {class}"),
                    None => places,
                };
                row(formatter, [&place, &remains.what, remains.technique, remains.reversible_by])?;
            }
        }
        if !self.pairs.is_empty() {
            writeln!(formatter, "\nWhose records can be joined")?;
            paragraph(formatter, "  ", JOINING)?;
            self.pairs.iter().try_for_each(|pair| paragraph(formatter, "  ", &format!("{pair}.")))?;
        }
        if !self.not_collected.is_empty() {
            let names: Vec<_> = self.not_collected.iter().map(|field| field.name()).collect();
            writeln!(formatter, "\nNot collected")?;
            paragraph(formatter, "  ", &names.join(", "))?;
        }
        writeln!(formatter, "\nNotes")?;
        self.notes.iter().try_for_each(|note| paragraph(formatter, "  ", note))?;
        writeln!(formatter, "\nSHA-256")?;
        writeln!(formatter, "  {}  this policy", self.digest)?;
        self.inputs.iter().try_for_each(|(name, digest)| writeln!(formatter, "  {digest}  {name}"))
    }
}

/// A paragraph with a hanging indent.
fn paragraph(formatter: &mut fmt::Formatter<'_>, indent: &str, text: &str) -> fmt::Result {
    for (number, line) in wrapped(text, COLUMNS - indent.len() - 2).iter().enumerate() {
        let mark = if number == 0 { "- " } else { "  " };
        writeln!(formatter, "{indent}{mark}{line}")?;
    }
    Ok(())
}

/// A row of the table. It has as many lines as its longest cell.
fn row(formatter: &mut fmt::Formatter<'_>, cells: [&str; 4]) -> fmt::Result {
    // The first cell is indented below its field. A space separates cells.
    let indents = [2, 0, 0, 0];
    let mut columns = [const { Vec::new() }; 4];
    for (column, cell) in cells.iter().enumerate() {
        columns[column] = wrapped(cell, WIDTHS[column] - indents[column] - 1);
    }
    let lines = columns.iter().map(Vec::len).max().unwrap_or(0);
    for number in 0..lines {
        let mut line = String::new();
        for (column, cell) in columns.iter().enumerate() {
            let text = cell.get(number).map_or("", String::as_str);
            let (indent, width) = (indents[column], WIDTHS[column] - indents[column]);
            line += &format!("{:indent$}{text:<width$}", "");
        }
        writeln!(formatter, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Breaks text between words into lines of at most `width` characters. A longer word has a line of its own.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
