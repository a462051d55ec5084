//! The master secret as it is written in a file: 32 octets, or 64 hexadecimal digits and a newline.

use std::path::Path;

use super::{KeyError, SECRET_OCTETS};

/// Writes the secret in the contents of a file to its place.
pub(super) fn parse(path: &Path, contents: &[u8], secret: &mut [u8; SECRET_OCTETS]) -> Result<(), KeyError> {
    let no_secret = || KeyError::NoSecret { path: path.to_owned(), octets: contents.len() };
    if contents.len() == SECRET_OCTETS {
        secret.copy_from_slice(contents);
    } else {
        let digits = contents.strip_suffix(b"\n").unwrap_or(contents);
        let digits = digits.strip_suffix(b"\r").unwrap_or(digits);
        if digits.len() != 2 * SECRET_OCTETS {
            return Err(no_secret());
        }
        for (octet, pair) in secret.iter_mut().zip(digits.chunks_exact(2)) {
            let [high, low] = [pair[0], pair[1]].map(digit);
            *octet = high.ok_or_else(no_secret)? << 4 | low.ok_or_else(no_secret)?;
        }
    }
    if secret.iter().all(|octet| *octet == secret[0]) {
        return Err(KeyError::Guessable { path: path.to_owned() });
    }
    Ok(())
}

const fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        b'A'..=b'F' => Some(character - b'A' + 10),
        _ => None,
    }
}
