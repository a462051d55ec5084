//! The terms of a batch: the policy under which it was collected, the key of its pseudonyms, and what each
//! recipient sees of it.

use std::fmt;
use std::sync::{Arc, Weak};

use jiff::Timestamp;
use thiserror::Error;

use crate::policy::compile::CompiledPolicy;
use crate::policy::model::Policy;
use crate::records::keys::{Epoch, KeyError, Keys, PseudonymKey};
use crate::records::view::View;
use crate::support::sys::secret::SharedKey;

/// The policy has no such recipient.
#[derive(Debug, Error)]
#[error("the policy {policy} has no recipient {name}; it has: {recipients}")]
pub struct NoRecipient {
    policy: String,
    name: String,
    recipients: String,
}

impl Policy {
    /// Position of the recipient of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn recipient(&self, name: &str) -> Result<usize, NoRecipient> {
        self.recipients.iter().position(|recipient| recipient.name == name).ok_or_else(|| NoRecipient {
            policy: self.name.clone(),
            name: name.to_owned(),
            recipients: self
                .recipients
                .iter()
                .map(|recipient| &*recipient.name)
                .collect::<Vec<_>>()
                .join(", "),
        })
    }
}

/// What applies to the records of a batch.
pub struct Terms {
    /// The policy.
    pub compiled: Arc<CompiledPolicy>,
    /// The epoch of its pseudonyms; `None` if it has none.
    epoch: Option<Arc<Epoch>>,
    /// One for each recipient, in the order of the policy.
    views: Vec<View>,
}

/// Records under terms of one series can be merged: their policy has the same text, and their pseudonyms the same epoch. A series
/// keeps no key.
#[derive(Clone, Debug)]
pub struct Series {
    digest: String,
    epoch: Option<Weak<Epoch>>,
}

impl Series {
    /// Whether the policy of these terms has the same text.
    #[must_use]
    pub fn has_policy_of(&self, terms: &Terms) -> bool {
        self.digest == terms.compiled.policy.digest
    }
}

impl PartialEq for Series {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
            && match (&self.epoch, &other.epoch) {
                (Some(one), Some(other)) => Weak::ptr_eq(one, other),
                (None, None) => true,
                _ => false,
            }
    }
}

/// Shows the policy's name and no key.
impl fmt::Debug for Terms {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Terms").field("policy", &self.compiled.policy.name).finish_non_exhaustive()
    }
}

impl Terms {
    /// The key under which the kernel makes pseudonyms.
    #[must_use]
    pub fn pseudonym_key(&self) -> Option<SharedKey> {
        self.epoch.clone().map(|epoch| epoch as SharedKey)
    }

    /// The series to which they belong.
    #[must_use]
    pub fn series(&self) -> Series {
        Series { digest: self.compiled.policy.digest.clone(), epoch: self.epoch.as_ref().map(Arc::downgrade) }
    }

    /// What a recipient sees; the first one when none is named.
    ///
    /// # Errors
    /// When there is no recipient of that name.
    pub fn view(&self, recipient: Option<&str>) -> Result<&View, NoRecipient> {
        Ok(self.view_at(self.position(recipient)?))
    }

    /// Position of a recipient in the policy; the first one when none is named.
    ///
    /// # Errors
    /// When there is no recipient of that name.
    pub fn position(&self, recipient: Option<&str>) -> Result<usize, NoRecipient> {
        recipient.map_or(Ok(0), |name| self.compiled.policy.recipient(name))
    }

    /// What the recipient at a position of the policy sees.
    ///
    /// # Panics
    /// When the policy has fewer recipients.
    #[must_use]
    pub fn view_at(&self, position: usize) -> &View {
        &self.views[position]
    }
}

/// The master secret and the current epoch.
pub struct Keyring {
    keys: Keys,
    epoch: Option<Arc<Epoch>>,
}

impl Keyring {
    /// A keyring in which no epoch has begun.
    #[must_use]
    pub const fn new(keys: Keys) -> Self {
        Self { keys, epoch: None }
    }

    /// The terms for everything that is collected under a policy from now on.
    ///
    /// # Errors
    /// When the system gives no random numbers or no memory for a key.
    pub fn terms(&mut self, compiled: &Arc<CompiledPolicy>, now: Timestamp) -> Result<Arc<Terms>, KeyError> {
        let policy = &compiled.policy;
        let epoch = if policy.has_epochs() {
            let is_current = |epoch: &Arc<Epoch>| epoch.stretch().is_of(policy.pseudonym_epoch, now);
            let epoch = match self.epoch.take().filter(is_current) {
                Some(epoch) => epoch,
                None => Arc::new(Epoch::begin(&self.keys, policy.pseudonym_epoch, now)?),
            };
            self.epoch = Some(Arc::clone(&epoch));
            Some(epoch)
        } else {
            self.epoch = None;
            None
        };
        let start = epoch.as_ref().map_or(0, |epoch| epoch.stretch().start());
        // Without pseudonyms the key is not used.
        let key: SharedKey = match &epoch {
            Some(epoch) => Arc::clone(epoch) as SharedKey,
            None => Arc::new(PseudonymKey::zeroed().map_err(KeyError::Memory)?),
        };
        let views = policy.recipients.iter().map(|recipient| {
            let keys = self.keys.recipient(&recipient.name, start, (*key).as_ref())?;
            let of_addresses = (Arc::clone(&compiled.classes), compiled.ranks.clone());
            View::new(recipient, &compiled.collected.fields, Arc::clone(&key), keys, of_addresses)
        });
        let views = views.collect::<Result<_, KeyError>>()?;
        Ok(Arc::new(Terms { compiled: Arc::clone(compiled), epoch, views }))
    }

    /// The terms that follow `terms`: the same until their epoch is over, then new ones.
    ///
    /// # Errors
    /// When the system gives no random numbers or no memory for a key.
    pub fn follow(&mut self, terms: &Arc<Terms>, now: Timestamp) -> Result<Arc<Terms>, KeyError> {
        let policy = &terms.compiled.policy;
        match &terms.epoch {
            Some(epoch) if !epoch.stretch().is_of(policy.pseudonym_epoch, now) => {
                self.terms(&terms.compiled, now)
            }
            _ => Ok(Arc::clone(terms)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use jiff::{SignedDuration, Timestamp};
    use minimizer_common::protocol::UDP;
    use minimizer_common::tuple::{Tags, Tuple};

    use super::{Keyring, Terms};
    use crate::policy::compile::CompiledPolicy;
    use crate::policy::model::Policy;
    use crate::records::keys::Keys;
    use crate::records::record::Record;

    /// What the recipient gets in place of these sources.
    fn sources(terms: &Terms, sources: [[u8; 4]; 2]) -> [[u8; 4]; 2] {
        sources.map(|source| {
            let octets = [source, [0; 4]].concat().try_into().expect("eight");
            let tuple = Tuple::new([u64::from_ne_bytes(octets), 0, 0, 0], (0, 0), Tags::NONE, UDP, 0);
            let record = Record {
                tuple,
                ingress_interface: 0,
                control_bits: 0,
                packets: 1,
                octets: 60,
                start_ms: 0,
                end_ms: 0,
                selector_id: 0,
            };
            terms.view_at(0).of(&[record]).records[0].tuple.ipv4().0
        })
    }

    #[test]
    fn preserved_prefixes_are_others_in_another_epoch() {
        let addresses = [[203, 0, 113, 1], [203, 0, 113, 2]];
        for transform in ["prefix-preserving", "crypto-pan"] {
            let text = format!(
                "name = \"p\"\n[pseudonyms]\nepoch = \"1h\"\n[[recipients]]\nname = \"r\"\npurpose = \"x\"\n\
                 fields = {{ sourceIPv4Address = \"{transform}\" }}\n"
            );
            let policy = Policy::parse(&text, Path::new("p.toml")).unwrap_or_else(|error| panic!("{error}"));
            let compiled = Arc::new(CompiledPolicy::compile(policy).expect("has tables"));
            let mut keyring = Keyring::new(Keys::load(None).expect("random numbers"));
            let begin = Timestamp::from_second(1_800_000_000).expect("a time");
            let first = keyring.terms(&compiled, begin).expect("terms");
            let same = keyring.follow(&first, begin + SignedDuration::from_mins(59)).expect("terms");
            let next = keyring.follow(&first, begin + SignedDuration::from_mins(60)).expect("terms");
            let [before, meanwhile, after] = [&first, &same, &next].map(|terms| sources(terms, addresses));
            assert_eq!(before, meanwhile, "{transform}");
            assert_ne!(before[0], after[0], "{transform}");
            for prefixes in [before, after] {
                assert_eq!(prefixes[0][..3], prefixes[1][..3], "{transform}: a prefix is preserved");
            }
        }
    }
}
