//! The master secret, and every key that is derived from it.
//!
//! | key | derived from | lives as long as |
//! |---|---|---|
//! | of the kernel's pseudonyms | the secret and the epoch; without a lasting secret it is random | the epoch |
//! | of a recipient's pseudonyms | the secret, the recipient's name, the epoch | the epoch |
//! | of a recipient's preserved prefixes | the secret, the recipient's name | the secret |
//!
//! Hosts with the same secret derive the same keys. A lasting secret can derive the key of a past epoch again; an operator who
//! wants destroyed keys to stay destroyed configures no secret. Then all keys live in this process only, and when an epoch
//! ends, its key is gone: nobody can make or check its pseudonyms any more. Prefixes are preserved in the same way in all
//! epochs, because recipients compare them over longer times than an epoch.
//!
//! Keys are derived by HKDF-SHA256 (RFC 5869). No two keys have the same `info`: it names the purpose, and each of its parts
//! has a fixed length or is preceded by its length.

mod epochs;
mod error;
mod secret;

use std::env;
use std::fmt;
use std::path::Path;

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

pub use epochs::Epoch;
pub use error::KeyError;

use crate::support::secret_file::{self, Placed};

/// Name of the secret among systemd's credentials.
pub const CREDENTIAL: &str = "minimizer.key";
/// Where systemd puts credentials.
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";
/// Octets of the master secret.
pub const SECRET_OCTETS: usize = 32;
/// Separates these keys from those that another program derives from the same secret.
const SALT: &[u8] = b"minimizer master secret v1";

/// The master secret.
pub struct Keys {
    secret: Zeroizing<[u8; SECRET_OCTETS]>,
    lasting: bool,
}

/// A key of pseudonyms, zeroed when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct PseudonymKey(Zeroizing<[u64; 2]>);

/// The keys of one recipient in one epoch, zeroed when they are dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct RecipientKeys {
    /// Of its pseudonyms.
    pub pseudonym: PseudonymKey,
    /// Of prefixes preserved by ipcrypt-pfx; the same in all epochs.
    pub ipcrypt: Zeroizing<[u8; 32]>,
    /// Of prefixes preserved by Crypto-PAn; the same in all epochs.
    pub crypto_pan: Zeroizing<[u8; 32]>,
}

impl Keys {
    /// The secret in the file; without one, the secret that systemd gives to the service; without that, a random one.
    ///
    /// # Errors
    /// If there is a file, and it cannot be read, others may read or write it, or it holds no secret.
    pub fn load(file: Option<&Path>) -> Result<Self, KeyError> {
        if let Some(path) = file {
            return Self::read(path, Placed::ByOperator);
        }
        if let Some(directory) = env::var_os(CREDENTIALS_DIRECTORY) {
            let path = Path::new(&directory).join(CREDENTIAL);
            // A secret that exists and cannot be read is an error, not a reason to go without one.
            if !matches!(path.try_exists(), Ok(false)) {
                return Self::read(&path, Placed::BySystemd);
            }
        }
        Self::of_this_process()
    }

    fn read(path: &Path, placed: Placed) -> Result<Self, KeyError> {
        let contents = secret_file::read(path, placed)?;
        Ok(Self { secret: secret::parse(path, &contents)?, lasting: true })
    }

    fn of_this_process() -> Result<Self, KeyError> {
        let mut secret = Zeroizing::new([0; SECRET_OCTETS]);
        getrandom::fill(&mut *secret).map_err(KeyError::Random)?;
        Ok(Self { secret, lasting: false })
    }

    /// Whether the secret is in a file, so that it outlasts this process.
    #[must_use]
    pub const fn is_lasting(&self) -> bool {
        self.lasting
    }

    /// The key of the kernel's pseudonyms in the epoch that begins at this second since 1970. With a lasting secret every
    /// call gives the same key, without one every call gives another.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn epoch_key(&self, start: u64) -> Result<PseudonymKey, KeyError> {
        if self.lasting {
            return Ok(PseudonymKey::of(&self.derive(&[b"epoch", &start.to_be_bytes()])));
        }
        let mut octets = Zeroizing::new([0; 16]);
        getrandom::fill(&mut *octets).map_err(KeyError::Random)?;
        Ok(PseudonymKey::of(&octets))
    }

    /// The keys of a recipient in the epoch that begins at this second since 1970.
    #[must_use]
    pub fn recipient(&self, name: &str, start: u64) -> RecipientKeys {
        let name = name.as_bytes();
        let length = u64::try_from(name.len()).unwrap_or(u64::MAX).to_be_bytes();
        RecipientKeys {
            pseudonym: PseudonymKey::of(&self.derive(&[
                b"recipient pseudonym",
                &length,
                name,
                &start.to_be_bytes(),
            ])),
            ipcrypt: self.derive(&[b"recipient ipcrypt-pfx", &length, name]),
            crypto_pan: self.derive(&[b"recipient Crypto-PAn", &length, name]),
        }
    }

    /// `info` is a purpose, then what is particular to the key. No purpose may be the beginning of another.
    fn derive<const OCTETS: usize>(&self, info: &[&[u8]]) -> Zeroizing<[u8; OCTETS]> {
        let mut key = Zeroizing::new([0; OCTETS]);
        Hkdf::<Sha256>::new(Some(SALT), &*self.secret)
            .expand_multi_info(info, &mut *key)
            .expect("at most 255 hashes long");
        key
    }
}

impl PseudonymKey {
    /// Reads the octets as SipHash reads its key: two little-endian words.
    fn of(octets: &[u8; 16]) -> Self {
        let (first, second) = octets.split_at(8);
        let word = |octets: &[u8]| octets.iter().rev().fold(0, |word, octet| word << 8 | u64::from(*octet));
        Self(Zeroizing::new([word(first), word(second)]))
    }

    /// The two words of the key. A caller that copies them must zero the copy.
    #[must_use]
    pub fn words(&self) -> &[u64; 2] {
        &self.0
    }
}

impl From<[u64; 2]> for PseudonymKey {
    fn from(words: [u64; 2]) -> Self {
        Self(Zeroizing::new(words))
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Keys").field("lasting", &self.lasting).finish_non_exhaustive()
    }
}

impl fmt::Debug for PseudonymKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PseudonymKey").finish_non_exhaustive()
    }
}

impl fmt::Debug for RecipientKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RecipientKeys").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
