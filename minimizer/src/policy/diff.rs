//! What another policy would widen or narrow: one line for each difference, with its direction.

mod commitments;
mod recipients;
mod scope;

use std::fmt;

use minimizer_common::tunnel::Tunnel;
use serde::Serialize;

use super::field::Field;
use super::join::is_derivable;
use super::words;
use crate::policy::mandate::Mandate;
use crate::policy::model::Policy;
use crate::policy::ranks::Ranks;

/// The most examples in a line.
const EXAMPLES_MAX: usize = 10;

/// The direction of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// The policy collects, hands over or keeps more.
    Wider,
    /// The policy collects, hands over or keeps less.
    Narrower,
    /// The policy collects, hands over or keeps something else. Neither is more than the other.
    Changed,
}

impl Effect {
    /// The direction between two states: `was_less` if the state before is less or equal, `is_less` if the
    /// state after is.
    const fn between(was_less: bool, is_less: bool) -> Self {
        match (was_less, is_less) {
            (true, false) => Self::Wider,
            (false, true) => Self::Narrower,
            _ => Self::Changed,
        }
    }
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Its direction.
    pub way: Effect,
    /// Its subject.
    pub about: String,
    /// The state before and the state after.
    pub change: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.way {
            Effect::Wider => "+ WIDER   ",
            Effect::Narrower => "- narrower",
            Effect::Changed => "~ changed ",
        };
        write!(formatter, "{mark}  {}: {}", self.about, self.change)
    }
}

/// The differences found so far.
#[derive(Default)]
struct Differences(Vec<Difference>);

impl Differences {
    fn add(&mut self, way: Effect, about: impl Into<String>, change: impl Into<String>) {
        self.0.push(Difference { way, about: about.into(), change: change.into() });
    }

    /// Adds a difference without a direction.
    fn changed(&mut self, about: impl Into<String>, before: &str, after: &str) {
        if before != after {
            self.add(Effect::Changed, about, format!("`{before}` -> `{after}`"));
        }
    }

    /// Compares two values of which the larger one is wider.
    fn grown<T: PartialOrd>(
        &mut self,
        about: impl Into<String>,
        before: &T,
        after: &T,
        say: impl Fn(&T) -> String,
    ) {
        if before != after {
            let way = Effect::between(before < after, after < before);
            self.add(way, about, format!("{} -> {}", say(before), say(after)));
        }
    }

    /// Adds things that came or went, with the first few as examples.
    fn examples(&mut self, way: Effect, about: &str, verb: &str, things: Vec<String>) {
        if things.is_empty() {
            return;
        }
        let number = things.len();
        self.add(way, about, format!("{number} {verb} ({})", examples(things)));
    }

    /// Compares what somebody has approved: another text is wider, because nobody has approved it.
    fn approved(&mut self, about: impl Into<String>, before: &str, after: &str) {
        if before != after {
            self.add(Effect::Wider, about, format!("`{before}` -> `{after}`"));
        }
    }
}

/// The first few of these.
fn examples(things: Vec<String>) -> String {
    words::examples(things, EXAMPLES_MAX)
}

impl Policy {
    /// What `after` would widen or narrow against this policy.
    #[must_use]
    pub fn diff(&self, after: &Self) -> Vec<Difference> {
        let mut differences = Differences::default();
        differences.changed("name", &self.name, &after.name);
        differences.changed("description", &self.description, &after.description);
        mandate(&mut differences, self.mandate.as_ref(), after.mandate.as_ref());
        commitments::diff(&mut differences, self, after);
        scope::diff(&mut differences, self, after);
        scope::selectors(&mut differences, self.selectors.as_deref(), after.selectors.as_deref());
        // Whichever way, other packets are collected than somebody has approved.
        for (one, other, becomes) in [
            (self, after, "is no party any more"),
            (
                after,
                self,
                "is a party again, and what may be a fragment of a tunnel from or to it counts as a packet between its outer \
                 addresses",
            ),
        ] {
            for prefix in
                other.tunnel_endpoints.iter().filter(|prefix| !one.tunnel_endpoints.contains(prefix))
            {
                differences.add(Effect::Wider, format!("tunnel endpoint {prefix}"), becomes);
            }
        }
        for tunnel in Tunnel::ALL {
            match (self.tunnels.has(*tunnel), after.tunnels.has(*tunnel)) {
                (false, true) => {
                    differences.add(
                        Effect::Wider,
                        format!("tunnel {}", tunnel.name()),
                        "its inner headers are read",
                    );
                }
                (true, false) => {
                    // The parties inside no longer keep a packet out of the scope.
                    let (effect, change) = if after.scope.is_some() {
                        let change = "is no longer looked into, and its packets count between their outer addresses alone";
                        (Effect::Wider, change)
                    } else {
                        (Effect::Narrower, "is no longer looked into")
                    };
                    differences.add(effect, format!("tunnel {}", tunnel.name()), change);
                }
                _ => {}
            }
        }
        differences.grown("pseudonym epoch", &self.pseudonym_epoch, &after.pseudonym_epoch, |epoch| {
            words::duration(*epoch)
        });
        pseudonyms(&mut differences, self, after);
        recipients::diff(&mut differences, &self.recipients, &after.recipients);
        recipients::pairs(&mut differences, self, after);
        let (before, after) = (self.collected().fields, after.collected().fields);
        for field in Field::ALL {
            let (before, after) = (before.get(field).copied(), after.get(field).copied());
            if before != after {
                let say =
                    |transform: Option<_>| transform.map_or_else(|| "nothing".to_owned(), words::remains);
                let way = Effect::between(is_derivable(after, before), is_derivable(before, after));
                let about = format!("kept in the kernel, {field}");
                differences.add(way, about, format!("{} -> {}", say(before), say(after)));
            }
        }
        differences.0
    }
}

/// Pseudonyms of IPv4 that are made of other numbers: then every address has another one, within one epoch, too.
fn pseudonyms(differences: &mut Differences, before: &Policy, after: &Policy) {
    if !before.has_pseudonyms_of(false) || !after.has_pseudonyms_of(false) {
        return;
    }
    let ranks = |policy: &Policy| policy.scope.as_ref().and_then(Ranks::new);
    let change = match (ranks(before), ranks(after)) {
        (Some(was), Some(is)) if was.purpose() != is.purpose() => "domestic addresses have other ranks",
        (Some(_), None) => {
            "those of domestic addresses are made of their last 28 bits and no longer of ranks, so that two of them can \
             share one (no domestic prefix, or more than 1,048,575 blocks of 256 addresses with domestic ones)"
        }
        (None, Some(_)) => {
            "those of domestic addresses are made of ranks and no longer of their last 28 bits, so that no two of them \
             share one"
        }
        _ => return,
    };
    differences.add(
        Effect::Changed,
        "pseudonyms of IPv4",
        format!("every address has another one from then on, also within an epoch: {change}"),
    );
}

fn mandate(differences: &mut Differences, before: Option<&Mandate>, after: Option<&Mandate>) {
    match (before, after) {
        (None, None) => {}
        (None, Some(mandate)) => {
            let change = format!("{}, from {} until {}", mandate.id, mandate.valid_from, mandate.valid_until);
            differences.add(Effect::Narrower, "mandate", change);
        }
        (Some(mandate), None) => {
            let change = format!("{} is gone: nothing ends the collection", mandate.id);
            differences.add(Effect::Wider, "mandate", change);
        }
        (Some(before), Some(after)) => {
            differences.changed("mandate, id", &before.id, &after.id);
            differences.approved("mandate, purpose", &before.purpose, &after.purpose);
            differences.approved("mandate, legal basis", &before.legal_basis, &after.legal_basis);
            let from = |from: &std::cmp::Reverse<jiff::Timestamp>| from.0.to_string();
            let (was, is) = (std::cmp::Reverse(before.valid_from), std::cmp::Reverse(after.valid_from));
            differences.grown("mandate, valid from", &was, &is, from);
            differences.grown("mandate, valid until", &before.valid_until, &after.valid_until, |until| {
                until.to_string()
            });
        }
    }
}

#[cfg(test)]
mod tests;
