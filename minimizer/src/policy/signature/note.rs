//! Signed notes of C2SP: a text, an empty line, and lines with Ed25519 signatures of the text.
//!
//! A note identifies a key by its name and by the first four octets of SHA-256 over name, newline, algorithm
//! and public key. A check ignores signatures by other keys, so that several people can sign a note in turn.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer as _, SigningKey as Ed25519, VerifyingKey};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

/// The algorithm octet of Ed25519.
const ED25519: u8 = 1;
/// The start of a private key.
const PRIVATE: &str = "PRIVATE+KEY+";
/// The start of a signature line: an em dash and a space.
const SIGNATURE: &str = "\u{2014} ";
/// The longest note in octets.
const OCTETS_MAX: usize = 65_536;

/// Why a note or a key is malformed, or a note is not signed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NoteError {
    /// The text is not a key.
    #[error("not a {what}, which is written {form}")]
    Key {
        /// The expected kind of key.
        what: &'static str,
        /// The form of such a key.
        form: &'static str,
    },
    /// A key cannot have this name.
    #[error(
        "{name:?} cannot be the name of a key: it is not empty and has neither spaces, nor control characters, nor a plus sign"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// The text is not a note.
    #[error("not a signed note: {why}")]
    Malformed {
        /// The fault.
        why: &'static str,
    },
    /// The note has no signature by this key.
    #[error("not signed by {key}; it is signed by {found}")]
    NotSigned {
        /// The requested key.
        key: String,
        /// Names and hashes of the keys that signed.
        found: String,
    },
    /// The note has a signature by this key, but of another text.
    #[error("the signature by {key} does not match the text: one of the two was changed afterwards")]
    DoesNotMatch {
        /// The key.
        key: String,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers for a key: {0}")]
    Random(getrandom::Error),
}

/// A public key with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    key: VerifyingKey,
}

impl VerifierKey {
    /// Reads `name+hash+base64`.
    ///
    /// # Errors
    /// If the text has another form, or the hash does not match the key.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let error = NoteError::Key { what: "verifier key", form: "NAME+HASH+BASE64" };
        let (name, hash, octets) = parse_key(text.trim_end()).ok_or_else(|| error.clone())?;
        let key = VerifyingKey::from_bytes(&octets).map_err(|_| error.clone())?;
        let parsed = Self { name: name.to_owned(), key };
        if parsed.hash() == hash { Ok(parsed) } else { Err(error) }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn hash(&self) -> [u8; 4] {
        let digest = Sha256::new()
            .chain_update(&self.name)
            .chain_update([b'\n', ED25519])
            .chain_update(self.key.as_bytes())
            .finalize();
        [digest[0], digest[1], digest[2], digest[3]]
    }

    fn id(&self) -> String {
        format!("{}+{:08x}", self.name, u32::from_be_bytes(self.hash()))
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut octets = vec![ED25519];
        octets.extend(self.key.as_bytes());
        write!(formatter, "{}+{}", self.id(), STANDARD.encode(octets))
    }
}

/// A private key with its name. Dropping it zeroes it.
pub struct SigningKey {
    name: String,
    key: Ed25519,
}

impl SigningKey {
    /// Generates a key.
    ///
    /// # Errors
    /// If a key cannot have this name, or the system gives no random numbers.
    pub fn generate(name: &str) -> Result<Self, NoteError> {
        if !is_name(name) {
            return Err(NoteError::Name { name: name.to_owned() });
        }
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *seed).map_err(NoteError::Random)?;
        Ok(Self { name: name.to_owned(), key: Ed25519::from_bytes(&seed) })
    }

    /// Reads `PRIVATE+KEY+name+hash+base64`.
    ///
    /// # Errors
    /// If the text has another form, or the hash does not match the key.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let error = NoteError::Key { what: "private key", form: "PRIVATE+KEY+NAME+HASH+BASE64" };
        let parsed = text.trim_end().strip_prefix(PRIVATE).and_then(parse_key);
        let (name, hash, seed) = parsed.ok_or_else(|| error.clone())?;
        let parsed = Self { name: name.to_owned(), key: Ed25519::from_bytes(&seed) };
        if parsed.verifier().hash() == hash { Ok(parsed) } else { Err(error) }
    }

    /// The key in its text form, as in a file.
    #[must_use]
    pub fn text(&self) -> Zeroizing<String> {
        let mut octets = Zeroizing::new([0; 33]);
        octets[0] = ED25519;
        octets[1..].copy_from_slice(self.key.as_bytes());
        let encoded = Zeroizing::new(STANDARD.encode(*octets));
        Zeroizing::new(format!("{PRIVATE}{}+{}", self.verifier().id(), *encoded))
    }

    /// Its public key.
    #[must_use]
    pub fn verifier(&self) -> VerifierKey {
        VerifierKey { name: self.name.clone(), key: self.key.verifying_key() }
    }
}

/// A text, and the lines that claim to be its signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<Line>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    name: String,
    hash: [u8; 4],
    signature: Vec<u8>,
}

impl Note {
    /// A note without signatures.
    ///
    /// # Errors
    /// If the text is empty, does not end with a newline, or has control characters.
    pub fn new(text: String) -> Result<Self, NoteError> {
        let malformed = |why| Err(NoteError::Malformed { why });
        if !text.ends_with('\n') {
            return malformed("its text does not end with a newline");
        }
        if text.chars().any(|character| character < ' ' && character != '\n') {
            return malformed("it has control characters");
        }
        Ok(Self { text, signatures: Vec::new() })
    }

    /// Reads a note.
    ///
    /// # Errors
    /// If the octets are not a note.
    pub fn parse(note: &[u8]) -> Result<Self, NoteError> {
        let malformed = |why| NoteError::Malformed { why };
        if note.len() > OCTETS_MAX {
            return Err(malformed("it is longer than 64 KiB"));
        }
        let note = str::from_utf8(note).map_err(|_| malformed("it is not UTF-8"))?;
        let split =
            note.rfind("\n\n").ok_or_else(|| malformed("it has no empty line before its signatures"))?;
        let (text, signatures) = note.split_at(split + 1);
        let mut parsed = Self::new(text.to_owned())?;
        let signatures = signatures[1..]
            .strip_suffix('\n')
            .ok_or_else(|| malformed("its last signature does not end with a newline"))?;
        for line in signatures.split('\n') {
            parsed
                .signatures
                .push(Line::parse(line).ok_or_else(|| malformed("one of its signature lines is none"))?);
        }
        Ok(parsed)
    }

    /// The signed text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Signs the text and replaces an earlier signature by the same key.
    pub fn sign(&mut self, key: &SigningKey) {
        let verifier = key.verifier();
        let hash = verifier.hash();
        self.signatures.retain(|line| !line.is_by(&verifier));
        let signature = key.key.sign(self.text.as_bytes()).to_vec();
        self.signatures.push(Line { name: verifier.name, hash, signature });
    }

    /// Checks that the key signed the text.
    ///
    /// # Errors
    /// If the key did not sign, or signed another text.
    pub fn verify(&self, key: &VerifierKey) -> Result<(), NoteError> {
        let mut signed = false;
        for line in self.signatures.iter().filter(|line| line.is_by(key)) {
            let matches = Signature::from_slice(&line.signature)
                .and_then(|signature| key.key.verify_strict(self.text.as_bytes(), &signature));
            if matches.is_err() {
                return Err(NoteError::DoesNotMatch { key: key.id() });
            }
            signed = true;
        }
        if signed {
            return Ok(());
        }
        let found =
            self.signatures.iter().map(|line| format!("{}+{:08x}", line.name, u32::from_be_bytes(line.hash)));
        let found = found.collect::<Vec<_>>().join(", ");
        Err(NoteError::NotSigned {
            key: key.id(),
            found: if found.is_empty() { "nobody".to_owned() } else { found },
        })
    }
}

impl fmt::Display for Note {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}", self.text)?;
        for Line { name, hash, signature } in &self.signatures {
            let mut octets = hash.to_vec();
            octets.extend(signature);
            writeln!(formatter, "{SIGNATURE}{name} {}", STANDARD.encode(octets))?;
        }
        Ok(())
    }
}

impl Line {
    fn parse(line: &str) -> Option<Self> {
        let (name, encoded) = line.strip_prefix(SIGNATURE)?.split_once(' ')?;
        let octets = STANDARD.decode(encoded).ok()?;
        let (hash, signature) = octets.split_first_chunk::<4>()?;
        let is_line = is_name(name) && !signature.is_empty();
        is_line.then(|| Self { name: name.to_owned(), hash: *hash, signature: signature.to_vec() })
    }

    fn is_by(&self, key: &VerifierKey) -> bool {
        self.name == key.name && self.hash == key.hash()
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name
            .chars()
            .any(|character| character.is_whitespace() || character.is_control() || character == '+')
}

/// Name, hash and octets of a key in its text form.
type Written<'text> = (&'text str, [u8; 4], Zeroizing<[u8; 32]>);

/// The parts of a key, if it is an Ed25519 key.
fn parse_key(text: &str) -> Option<Written<'_>> {
    let (name, rest) = text.split_once('+')?;
    let (hash, encoded) = rest.split_once('+')?;
    if !is_name(name) || hash.len() != 8 || !hash.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let hash = u32::from_str_radix(hash, 16).ok()?.to_be_bytes();
    let octets = Zeroizing::new(STANDARD.decode(encoded).ok()?);
    let (algorithm, key) = octets.split_first()?;
    let key = Zeroizing::new(<[u8; 32]>::try_from(key).ok()?);
    (*algorithm == ED25519).then_some((name, hash, key))
}

#[cfg(test)]
mod tests {
    use super::{Note, NoteError, SigningKey, VerifierKey};

    /// The example in the documentation of Go's `golang.org/x/mod/sumdb/note`.
    const PRIVATE_KEY: &str =
        "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
    const PUBLIC_KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const TEXT: &str = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
    const LINE: &str = "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    #[test]
    fn the_example_of_the_go_package() {
        let key = SigningKey::parse(PRIVATE_KEY).unwrap();
        assert_eq!(*key.text(), PRIVATE_KEY);
        assert_eq!(key.verifier().to_string(), PUBLIC_KEY);
        let mut note = Note::new(TEXT.to_owned()).unwrap();
        note.sign(&key);
        assert_eq!(note.to_string(), format!("{TEXT}\n{LINE}"));
        let parsed = Note::parse(note.to_string().as_bytes()).unwrap();
        assert_eq!(parsed, note);
        parsed.verify(&VerifierKey::parse(PUBLIC_KEY).unwrap()).unwrap();
    }

    #[test]
    fn every_changed_octet_is_noticed() {
        let key = VerifierKey::parse(PUBLIC_KEY).unwrap();
        let note = format!("{TEXT}\n{LINE}").into_bytes();
        for index in 0..note.len() {
            for bit in 0..8 {
                let mut changed = note.clone();
                changed[index] ^= 1 << bit;
                let verified = Note::parse(&changed).and_then(|note| note.verify(&key));
                assert!(verified.is_err(), "octet {index}, bit {bit}");
            }
        }
    }

    #[test]
    fn other_signatures_are_ignored_and_ones_own_is_replaced() {
        let [one, other, third] = ["one", "other", "third"].map(|name| SigningKey::generate(name).unwrap());
        let mut note = Note::new("text\n\nmore\n".to_owned()).unwrap();
        note.sign(&one);
        note.sign(&other);
        note.sign(&one);
        let note = Note::parse(note.to_string().as_bytes()).unwrap();
        assert_eq!(note.text(), "text\n\nmore\n");
        assert_eq!(note.signatures.len(), 2);
        note.verify(&one.verifier()).unwrap();
        note.verify(&other.verifier()).unwrap();
        assert!(matches!(note.verify(&third.verifier()), Err(NoteError::NotSigned { .. })));
        let namesake = SigningKey::generate("one").unwrap().verifier();
        assert!(matches!(note.verify(&namesake), Err(NoteError::NotSigned { .. })));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for name in ["", "a b", "a+b", "a\n", "a\u{a0}b"] {
            assert!(matches!(SigningKey::generate(name), Err(NoteError::Name { .. })), "{name:?}");
        }
        let (name, rest) = PUBLIC_KEY.split_once('+').unwrap();
        let wrong = [
            PUBLIC_KEY.replace("c74f20a3", "c74f20a4"),
            PUBLIC_KEY.replace("c74f20a3", "+74f20a3"),
            PUBLIC_KEY.replace("ARpc", "AXpc"),
            PUBLIC_KEY.replace("ARpc", "Apc"),
            format!("x{name}+{rest}"),
            PRIVATE_KEY.to_owned(),
            String::new(),
        ];
        for key in wrong {
            assert!(VerifierKey::parse(&key).is_err(), "{key}");
        }
        assert!(SigningKey::parse(PUBLIC_KEY).is_err());
        assert!(SigningKey::parse(&PRIVATE_KEY.replace("c74f20a3", "c74f20a4")).is_err());
    }

    #[test]
    fn what_is_no_note_is_refused() {
        let long = format!("{}\n{LINE}", "text\n".repeat(20_000));
        let control = format!("te\txt\n\n{LINE}");
        let wrong = [
            "",
            "text\n",
            "text\n\n",
            "text\n\nline\n",
            "text\n\n— a\n",
            "text\n\n— a AAAA\n",
            &long,
            &control,
        ];
        for note in wrong {
            assert!(matches!(Note::parse(note.as_bytes()), Err(NoteError::Malformed { .. })), "{note:.40}");
        }
        let unended = format!("text\n\n{}", LINE.trim_end());
        assert!(Note::parse(unended.as_bytes()).is_err());
        assert!(Note::parse(b"\xff\n\n").is_err());
    }
}
