//! The master secret, and every key that is derived from it.
//!
//! | key | derived from |
//! |---|---|
//! | of the kernel's pseudonyms in an epoch | the secret and the epoch; without a lasting secret it is random |
//! | of a recipient's pseudonyms in an epoch | the secret, the recipient's name, the epoch |
//! | of a recipient's preserved prefixes in an epoch | the secret, the recipient's name, the epoch, the key of the kernel's pseudonyms |
//!
//! Every key lives as long as its epoch. Hosts with the same secret derive the same keys. A lasting secret can derive the keys of a
//! past epoch again; an operator who wants destroyed keys to stay destroyed configures no secret. Then all keys live in this process
//! only, and when an epoch ends, the random key is gone: nobody can make or check its pseudonyms and preserved prefixes any more, not
//! even with the secret of this process. Pseudonyms pass through the random key in the kernel or at the drain; preserved prefixes do
//! not, so that their keys are derived from it.
//!
//! Every key lies in a [`Secret`], and those who use it share that place. Whoever computes with a key overwrites the stack
//! after it. So the last owner of a key destroys it.
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
use zerocopy::IntoBytes as _;
use zeroize::Zeroizing;

pub use epochs::{Epoch, Stretch};
pub use error::KeyError;

use crate::support::secret_file::{self, Placed};
use crate::support::sys::secret::Secret;
use crate::support::traces::without_traces;

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
    secret: Secret<[u8; SECRET_OCTETS]>,
    lasting: bool,
}

/// A key of pseudonyms: the two words of SipHash.
pub type PseudonymKey = Secret<[u64; 2]>;

/// The keys of one recipient in one epoch.
#[derive(PartialEq, Eq)]
pub struct RecipientKeys {
    /// Of its pseudonyms.
    pub pseudonym: PseudonymKey,
    /// Of prefixes preserved by ipcrypt-pfx.
    pub ipcrypt: Secret<[u8; 32]>,
    /// Of prefixes preserved by Crypto-PAn.
    pub crypto_pan: Secret<[u8; 32]>,
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
        let mut secret = Secret::zeroed().map_err(KeyError::Memory)?;
        without_traces(|| secret::parse(path, &secret_file::read(path, placed)?, &mut secret))?;
        Ok(Self { secret, lasting: true })
    }

    fn of_this_process() -> Result<Self, KeyError> {
        let mut secret = Secret::<[u8; SECRET_OCTETS]>::zeroed().map_err(KeyError::Memory)?;
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
    /// When the system gives no random numbers or no memory.
    pub fn epoch_key(&self, start: u64) -> Result<PseudonymKey, KeyError> {
        if self.lasting {
            return self.pseudonym_key(&[b"epoch", &start.to_be_bytes()]);
        }
        let mut key = PseudonymKey::zeroed().map_err(KeyError::Memory)?;
        getrandom::fill(key.as_mut_bytes()).map_err(KeyError::Random)?;
        Ok(key)
    }

    /// The keys of a recipient in the epoch that begins at this second since 1970 and has this key of the kernel's pseudonyms.
    ///
    /// # Errors
    /// When the system gives no memory.
    pub fn recipient(&self, name: &str, start: u64, epoch_key: &[u64; 2]) -> Result<RecipientKeys, KeyError> {
        let name = name.as_bytes();
        let length = u64::try_from(name.len()).unwrap_or(u64::MAX).to_be_bytes();
        let start = start.to_be_bytes();
        let mut keys = RecipientKeys {
            pseudonym: self.pseudonym_key(&[b"recipient pseudonym", &length, name, &start])?,
            ipcrypt: Secret::zeroed().map_err(KeyError::Memory)?,
            crypto_pan: Secret::zeroed().map_err(KeyError::Memory)?,
        };
        without_traces(|| {
            // The salt keys the extraction: without it, the secret derives nothing.
            let mut salt = Zeroizing::new([0; SALT.len() + 16]);
            let (first, words) = salt.split_at_mut(SALT.len());
            first.copy_from_slice(SALT);
            for (octets, word) in words.chunks_exact_mut(8).zip(epoch_key) {
                octets.copy_from_slice(&word.to_le_bytes());
            }
            self.derive_under(&*salt, &[b"recipient ipcrypt-pfx", &length, name, &start], &mut *keys.ipcrypt);
            self.derive_under(
                &*salt,
                &[b"recipient Crypto-PAn", &length, name, &start],
                &mut *keys.crypto_pan,
            );
        });
        Ok(keys)
    }

    /// A key in which SipHash reads the derived octets as two little-endian words.
    fn pseudonym_key(&self, info: &[&[u8]]) -> Result<PseudonymKey, KeyError> {
        let mut key = PseudonymKey::zeroed().map_err(KeyError::Memory)?;
        self.derive(info, key.as_mut_bytes());
        without_traces(|| key.iter_mut().for_each(|word| *word = u64::from_le(*word)));
        Ok(key)
    }

    /// `info` is a purpose, then what is particular to the key. No purpose may be the beginning of another.
    fn derive(&self, info: &[&[u8]], key: &mut [u8]) {
        self.derive_under(SALT, info, key);
    }

    fn derive_under(&self, salt: &[u8], info: &[&[u8]], key: &mut [u8]) {
        without_traces(|| {
            let derivation = Hkdf::<Sha256>::new(Some(salt), &*self.secret);
            derivation.expand_multi_info(info, key).expect("at most 255 hashes long");
        });
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Keys").field("lasting", &self.lasting).finish_non_exhaustive()
    }
}

impl fmt::Debug for RecipientKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RecipientKeys").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
