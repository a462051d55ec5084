//! The text of a file that a person wrote: UTF-8, with or without the mark that some editors put before it.

use thiserror::Error;

/// The byte order mark in UTF-8.
const MARK: char = '\u{feff}';

/// Why a file has no text that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TextError {
    /// It is in the encoding of some Windows tools.
    #[error("it is text in UTF-16: save it as UTF-8, or convert it with 'iconv -f UTF-16 -t UTF-8'")]
    Utf16,
    /// It is in another encoding, or no text.
    #[error("it is no text in UTF-8, from line {line}, octet {octet} on: save it as UTF-8")]
    NotUtf8 {
        /// The line, from 1 on.
        line: usize,
        /// The octet in that line, from 1 on.
        octet: usize,
    },
}

/// The text, with its mark if it has one: a digest is over all octets.
///
/// # Errors
/// See [`TextError`].
pub fn decoded(octets: Vec<u8>) -> Result<String, TextError> {
    if is_utf16(&octets) {
        return Err(TextError::Utf16);
    }
    String::from_utf8(octets).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let begin = valid.iter().rposition(|octet| *octet == b'\n').map_or(0, |newline| newline + 1);
        TextError::NotUtf8 {
            line: valid.iter().filter(|octet| **octet == b'\n').count() + 1,
            octet: valid.len() - begin + 1,
        }
    })
}

/// The text without its mark.
#[must_use]
pub fn without_mark(text: &str) -> &str {
    text.strip_prefix(MARK).unwrap_or(text)
}

/// Whether the octets begin with the mark of UTF-16, or with an ASCII character in it.
fn is_utf16(octets: &[u8]) -> bool {
    match octets {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => true,
        [0, one, 0, other, ..] | [one, 0, other, 0, ..] => *one != 0 && *other != 0,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{TextError, decoded, without_mark};

    #[test]
    fn a_mark_is_kept_for_the_digest_and_left_out_of_the_text() {
        let text = decoded(b"\xef\xbb\xbfname".to_vec()).expect("UTF-8");
        assert_eq!((text.len(), without_mark(&text)), (7, "name"));
        assert_eq!(without_mark("name"), "name");
    }

    #[test]
    fn other_encodings_are_named() {
        for octets in [&b"\xff\xfen\0a\0"[..], b"\xfe\xff\0n\0a", b"n\0a\0", b"\0n\0a"] {
            assert_eq!(decoded(octets.to_vec()), Err(TextError::Utf16), "{octets:?}");
        }
        assert_eq!(decoded(b"one\ntw\xf6".to_vec()), Err(TextError::NotUtf8 { line: 2, octet: 3 }));
        assert_eq!(decoded(Vec::new()).as_deref(), Ok(""));
    }
}
