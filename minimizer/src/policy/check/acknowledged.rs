//! Sentences with which a policy says what would else be refused.

use crate::support::toml::{At, Document};

/// Says that no party is protected by a scope.
pub const EVERY_COMMUNICATION: &str = "every communication is collected, between domestic parties too";

/// The sentences of a policy, and which of them it needs.
pub struct Acknowledged<'file> {
    said: &'file [At<String>],
    needed: Vec<bool>,
}

impl<'file> Acknowledged<'file> {
    /// The sentences of a policy.
    pub fn new(said: &'file [At<String>]) -> Self {
        Self { said, needed: vec![false; said.len()] }
    }

    /// Refuses what is at this place, unless the policy has the sentence. `message` says what is wrong and how to fix it.
    pub fn demand(&mut self, document: &mut Document<'_>, offset: usize, sentence: &str, message: &str) {
        let mut is_said = false;
        for (said, needed) in self.said.iter().zip(&mut self.needed) {
            if said.get() == sentence {
                (is_said, *needed) = (true, true);
            }
        }
        if !is_said {
            document.limit_at(
                offset,
                format!("{message}, or say so at the top of the policy: acknowledged = [\"{sentence}\"]"),
            );
        }
    }

    /// Refuses the sentences that the policy does not need, and returns the others. What is wrong may be what needs a sentence: then
    /// none is refused.
    pub fn finish(self, document: &mut Document<'_>) -> Vec<String> {
        let is_clean = document.is_clean();
        for (said, _) in self.said.iter().zip(&self.needed).filter(|(_, needed)| is_clean && !**needed) {
            document.refuse(
                said,
                format!("nothing in the policy needs the words \"{}\": remove them", said.get()),
            );
        }
        self.said.iter().map(|said| said.get().clone()).collect()
    }
}
