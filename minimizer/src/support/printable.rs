//! Names of any octets as printable text, from which the octets can be had back.
//!
//! The kernel lets almost any octets be the name of an interface: other encodings than UTF-8, and control characters that
//! move a terminal's cursor. Here `\xNN` stands for each such octet, and `\\` for a backslash. So different names are
//! different texts.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;

use thiserror::Error;

/// Why a text is not an escaped name.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "'\\' at octet {offset} of '{text}' begins no escape; write '\\\\' for a backslash and '\\xNN' for an octet in \
     hexadecimal"
)]
pub struct EscapeError {
    /// The text.
    pub text: String,
    /// Octets before the backslash.
    pub offset: usize,
}

/// The octets as printable text: characters stay as they are, except that `\\` stands for a backslash and `\xNN` for
/// each octet of a character that is invisible or blank, and of what is no UTF-8.
#[must_use]
pub fn escaped(octets: &[u8]) -> String {
    text(octets, true)
}

/// The text of an argument that may have escapes: backslashes stay, all else becomes printable.
#[must_use]
pub fn argument(argument: &OsStr) -> String {
    text(argument.as_bytes(), false)
}

/// A message for people, in which texts of others may be: what would move a terminal's cursor, or change how the rest is
/// shown, is escaped. Spaces, tabs and line breaks stay, and so do backslashes.
#[must_use]
pub fn message(message: &str) -> Cow<'_, str> {
    let stays = |character: char| is_visible(character) || " \t\n".contains(character);
    if message.chars().all(stays) {
        return Cow::Borrowed(message);
    }
    let mut text = String::with_capacity(message.len());
    for character in message.chars() {
        match character {
            _ if stays(character) => text.push(character),
            _ => push_octets(&mut text, character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Cow::Owned(text)
}

/// The octets for which a text of [`escaped`] stands. Characters that [`escaped`] would have escaped stand for
/// themselves.
///
/// # Errors
/// If a backslash begins no escape.
pub fn unescaped(text: &str) -> Result<Vec<u8>, EscapeError> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        let (octet, behind) = match (first, behind) {
            (b'\\', [b'\\', behind @ ..]) => (b'\\', behind),
            (b'\\', [b'x', high, low, behind @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                let digit = |digit: &u8| char::from(*digit).to_digit(16).and_then(|it| u8::try_from(it).ok());
                (digit(high).unwrap_or(0) << 4 | digit(low).unwrap_or(0), behind)
            }
            (b'\\', _) => {
                return Err(EscapeError { text: text.to_owned(), offset: text.len() - rest.len() });
            }
            (octet, behind) => (*octet, behind),
        };
        octets.push(octet);
        rest = behind;
    }
    Ok(octets)
}

/// The one text of [`escaped`] that stands for the same octets as this text.
///
/// # Errors
/// If a backslash begins no escape.
pub fn canonical(text: &str) -> Result<String, EscapeError> {
    Ok(escaped(&unescaped(text)?))
}

/// The text as one word of a shell.
#[must_use]
pub fn shell_word(text: &str) -> String {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "-_.,:/@%+=".contains(character);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// The octets of an escaped name as one word of a shell that knows `$'…'`: bash, zsh, ksh.
#[must_use]
pub fn raw_shell_word(escaped: &str) -> String {
    if escaped.contains('\\') { format!("$'{}'", escaped.replace('\'', "\\'")) } else { shell_word(escaped) }
}

fn text(octets: &[u8], escapes_backslash: bool) -> String {
    let mut text = String::with_capacity(octets.len());
    for chunk in octets.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' if escapes_backslash => text.push_str("\\\\"),
                _ if is_visible(character) => text.push(character),
                _ => push_octets(&mut text, character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        push_octets(&mut text, chunk.invalid());
    }
    text
}

fn push_octets(text: &mut String, octets: &[u8]) {
    for octet in octets {
        // Writing into a string does not fail.
        write!(text, "\\x{octet:02x}").ok();
    }
}

/// Whether a character can be seen where it stands, and changes nothing about how others are shown.
fn is_visible(character: char) -> bool {
    let is_format = matches!(
        character,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{3164}' | '\u{ffa0}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}'
    );
    !(character.is_control() || character.is_whitespace() || is_format)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    use super::{argument, canonical, escaped, raw_shell_word, shell_word, unescaped};

    #[test]
    fn what_cannot_be_seen_is_escaped_and_all_else_stays() {
        let cases: [(&[u8], &str); 9] = [
            (b"eth0.7@x", "eth0.7@x"),
            ("brücke".as_bytes(), "brücke"),
            (b"br\xfccke", "br\\xfccke"),
            (b"\xff", "\\xff"),
            (b"\\xff", "\\\\xff"),
            (b"\x1b[31m", "\\x1b[31m"),
            ("a\u{202e}b".as_bytes(), "a\\xe2\\x80\\xaeb"),
            ("\u{a0}\u{85}".as_bytes(), "\\xc2\\xa0\\xc2\\x85"),
            (b"\xe2\x80", "\\xe2\\x80"),
        ];
        for (octets, text) in cases {
            assert_eq!(escaped(octets), text);
            assert_eq!(unescaped(text).expect("it is escaped"), octets, "{text}");
            assert_eq!(canonical(text).expect("it is escaped"), text);
        }
    }

    #[test]
    fn every_name_of_one_or_two_octets_has_a_text_of_its_own() {
        let names = (0..=u8::MAX).flat_map(|first| {
            [vec![first]].into_iter().chain((0..=u8::MAX).map(move |second| vec![first, second]))
        });
        let mut texts = BTreeSet::new();
        for name in names {
            let text = escaped(&name);
            assert_eq!(unescaped(&text).expect("it is escaped"), name, "{text}");
            assert!(text.chars().all(|it| !it.is_control()), "{text:?}");
            assert!(texts.insert(text), "{name:?}");
        }
    }

    #[test]
    fn other_writings_of_a_name_mean_the_same() {
        for text in ["\\xFF\\x41", "\\xffA"] {
            assert_eq!(canonical(text).as_deref(), Ok("\\xffA"));
        }
        assert_eq!(canonical("\u{1b}x").as_deref(), Ok("\\x1bx"));
        assert_eq!(argument(OsStr::from_bytes(b"a\\x41\xff*")), "a\\x41\\xff*");
        for text in ["a\\", "\\y", "\\x4", "\\xg0"] {
            let error = canonical(text).expect_err("no escape").to_string();
            assert!(error.contains("write '\\\\' for a backslash"), "{error}");
        }
    }

    #[test]
    fn a_shell_reads_a_word_as_it_was() {
        assert_eq!(shell_word("eth0.7"), "eth0.7");
        assert_eq!(shell_word("\\xff$(id)"), "'\\xff$(id)'");
        assert_eq!(shell_word("it's"), "'it'\\''s'");
        assert_eq!(shell_word(""), "''");
        assert_eq!(raw_shell_word("eth0"), "eth0");
        assert_eq!(raw_shell_word("\\xff'"), "$'\\xff\\''");
    }
}
