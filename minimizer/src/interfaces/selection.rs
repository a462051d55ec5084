//! Which interfaces the agent watches: exact names and shell patterns, each with the action for its frames.

use glob::Pattern;
use thiserror::Error;

use crate::interfaces::netlink::{Link, NetlinkError};
use crate::kernel::attach::Action;

/// Why a selection is invalid.
#[derive(Debug, Error)]
pub enum SelectionError {
    /// The same interface is selected twice.
    #[error("interface {0} is given twice")]
    Twice(String),
    /// The text is not a pattern.
    #[error("{text:?} is not a pattern for interface names: {source}")]
    Pattern {
        /// The text.
        text: String,
        /// The fault.
        source: glob::PatternError,
    },
}

/// Names and patterns as the operator gave them.
#[derive(Clone, Debug)]
pub struct Selection {
    names: Vec<(String, Action)>,
    patterns: Vec<(Pattern, Action)>,
}

impl Selection {
    /// Makes a selection from names and patterns of interfaces whose frames pass, and of taps.
    ///
    /// # Errors
    /// See [`SelectionError`].
    pub fn new(interfaces: &[String], taps: &[String]) -> Result<Self, SelectionError> {
        let mut selection = Self { names: Vec::new(), patterns: Vec::new() };
        let passing = interfaces.iter().map(|text| (text, Action::Pass));
        for (text, action) in passing.chain(taps.iter().map(|text| (text, Action::Drop))) {
            if text.contains(['*', '?', '[']) {
                let pattern = Pattern::new(text)
                    .map_err(|source| SelectionError::Pattern { text: text.clone(), source })?;
                selection.patterns.push((pattern, action));
            } else if selection.is_named(text) {
                return Err(SelectionError::Twice(text.clone()));
            } else {
                selection.names.push((text.clone(), action));
            }
        }
        Ok(selection)
    }

    /// Selects one interface whose frames pass.
    #[must_use]
    pub fn one(name: &str) -> Self {
        Self { names: vec![(name.to_owned(), Action::Pass)], patterns: Vec::new() }
    }

    /// Whether the operator named this interface exactly.
    #[must_use]
    pub fn is_named(&self, name: &str) -> bool {
        self.names.iter().any(|(known, _)| known == name)
    }

    /// The action for the frames of an interface; `None` if it is not selected. A name outweighs a pattern.
    /// If patterns disagree, the frames pass.
    #[must_use]
    pub fn action(&self, name: &str) -> Option<Action> {
        let named = self.names.iter().find(|(known, _)| known == name).map(|(_, action)| *action);
        // The patterns of interfaces whose frames pass come first.
        named.or_else(|| {
            self.patterns.iter().find(|(pattern, _)| pattern.matches(name)).map(|(_, action)| *action)
        })
    }

    /// Checks that every named interface exists, and returns the patterns that match no interface yet.
    ///
    /// # Errors
    /// The first name without an interface, and the names of all interfaces.
    pub fn check(&self, links: &[Link]) -> Result<Vec<&str>, NetlinkError> {
        for (name, _) in &self.names {
            if links.iter().all(|link| link.name != *name) {
                return Err(NetlinkError::no_such_link(name, links));
            }
        }
        let idle = self.patterns.iter().map(|(pattern, _)| pattern);
        let idle = idle.filter(|pattern| links.iter().all(|link| !pattern.matches(&link.name)));
        Ok(idle.map(Pattern::as_str).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::Selection;
    use crate::interfaces::netlink::Link;
    use crate::kernel::attach::Action;

    fn selection(interfaces: &[&str], taps: &[&str]) -> Selection {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        Selection::new(&owned(interfaces), &owned(taps)).expect("it is valid")
    }

    #[test]
    fn names_outweigh_patterns_and_passing_outweighs_dropping() {
        let selection = selection(&["eth*", "tap7"], &["tap?", "eth9", "*0"]);
        let cases = [
            ("eth1", Some(Action::Pass)),
            ("eth9", Some(Action::Drop)),
            ("tap3", Some(Action::Drop)),
            ("tap7", Some(Action::Pass)),
            ("tap33", None),
            ("eth0", Some(Action::Pass)),
            ("lo0", Some(Action::Drop)),
            ("lo", None),
        ];
        for (name, action) in cases {
            assert_eq!(selection.action(name), action, "{name}");
        }
        assert!(selection.is_named("eth9") && !selection.is_named("eth1"));
    }

    #[test]
    fn names_must_be_there_and_patterns_need_not() {
        let links = [Link::named(1, "lo"), Link::named(2, "eth0")];
        assert_eq!(selection(&["eth0", "veth*", "l?"], &[]).check(&links).expect("eth0 is there"), ["veth*"]);
        let error = selection(&["eth1"], &[]).check(&links).expect_err("it is not there").to_string();
        assert!(error.contains("\"eth1\"") && error.contains("lo, eth0"), "{error}");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let new = |interfaces: &[&str], taps: &[&str]| {
            let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
            Selection::new(&owned(interfaces), &owned(taps)).expect_err("it is refused").to_string()
        };
        assert_eq!(new(&["eth0"], &["eth0"]), "interface eth0 is given twice");
        assert!(new(&["eth[0"], &[]).contains("\"eth[0\" is not a pattern"));
    }
}
