//! Which interfaces the agent watches: exact names and shell patterns, each with the action for its frames.

use std::ffi::OsStr;

use glob::Pattern;
use thiserror::Error;

use crate::interfaces::netlink::{Link, NetlinkError};
use crate::kernel::attach::Action;
use crate::support::printable::{self, EscapeError};

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
    /// The text has a backslash that begins no escape.
    #[error("this is not a name of an interface: {0}")]
    Escape(#[from] EscapeError),
}

/// Why a selection does not fit the interfaces that there are.
#[derive(Debug, Error)]
pub enum CheckError {
    /// No interface has a name that is selected.
    #[error(transparent)]
    NoSuchLink(#[from] NetlinkError),
    /// Two names are those of one interface.
    #[error("interface {all_names} is given twice, as '{first}' and as '{second}'; give one of its names")]
    SameLink {
        /// All names of the interface.
        all_names: String,
        /// The name that comes first.
        first: String,
        /// The other name.
        second: String,
    },
}

/// Names and patterns as the operator gave them. A name may be an alternative name; a pattern means names only. Both mean
/// names as they are printed, with their escapes.
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
                // In a pattern a backslash is part of an escape, and stands for itself.
                let text = printable::argument(OsStr::new(text));
                let pattern =
                    Pattern::new(&text).map_err(|source| SelectionError::Pattern { text, source })?;
                selection.patterns.push((pattern, action));
                continue;
            }
            let name = printable::canonical(text)?;
            if selection.names.iter().any(|(known, _)| *known == name) {
                return Err(SelectionError::Twice(name));
            }
            selection.names.push((name, action));
        }
        Ok(selection)
    }

    /// Selects one interface whose frames pass.
    #[must_use]
    pub fn one(name: &str) -> Self {
        Self { names: vec![(name.to_owned(), Action::Pass)], patterns: Vec::new() }
    }

    /// The name by which the operator selected this interface: its own or an alternative one. `None` if the operator
    /// did not name it.
    #[must_use]
    pub fn name_of(&self, link: &Link) -> Option<&str> {
        self.entry(link).map(|(name, _)| name.as_str())
    }

    /// Its own name outweighs alternative ones.
    fn entry(&self, link: &Link) -> Option<&(String, Action)> {
        let own = self.names.iter().find(|(known, _)| *known == link.name);
        own.or_else(|| self.names.iter().find(|(known, _)| link.is_called(known)))
    }

    /// The action for the frames of an interface; `None` if it is not selected. A name outweighs a pattern.
    /// If patterns disagree, the frames pass.
    #[must_use]
    pub fn action(&self, link: &Link) -> Option<Action> {
        // The patterns of interfaces whose frames pass come first.
        self.entry(link).map(|(_, action)| *action).or_else(|| {
            self.patterns.iter().find(|(pattern, _)| pattern.matches(&link.name)).map(|(_, action)| *action)
        })
    }

    /// Checks that every named interface exists and is named once, and returns the patterns that match no interface yet.
    ///
    /// # Errors
    /// The first name without an interface and the names of all interfaces, or two names of one interface.
    pub fn check(&self, links: &[Link]) -> Result<Vec<&str>, CheckError> {
        for (place, (name, _)) in self.names.iter().enumerate() {
            let Some(link) = links.iter().find(|link| link.is_called(name)) else {
                return Err(NetlinkError::no_such_link(name, links).into());
            };
            if let Some((first, _)) = self.names[..place].iter().find(|(first, _)| link.is_called(first)) {
                let (first, second) = (first.clone(), name.clone());
                return Err(CheckError::SameLink { all_names: link.all_names(), first, second });
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
            assert_eq!(selection.action(&Link::named(1, name)), action, "{name}");
        }
        assert_eq!(selection.name_of(&Link::named(1, "eth9")), Some("eth9"));
        assert_eq!(selection.name_of(&Link::named(1, "eth1")), None);
    }

    fn called(index: u32, name: &str, alternatives: &[&str]) -> Link {
        let alternatives = alternatives.iter().map(|name| (*name).to_owned()).collect();
        Link { alternatives, ..Link::named(index, name) }
    }

    #[test]
    fn an_alternative_name_is_as_good_as_a_name_and_no_pattern_means_it() {
        let link = called(2, "eth0", &["enp1s0", "uplink\\xff"]);
        let selected = selection(&["enp1s0"], &["uplink*"]);
        assert_eq!(selected.action(&link), Some(Action::Pass));
        assert_eq!(selected.name_of(&link), Some("enp1s0"));
        assert_eq!(selection(&[], &["uplink*"]).action(&link), None);
        assert_eq!(selection(&[], &["uplink\\xFF"]).action(&link), Some(Action::Drop));
        let links = [Link::named(1, "lo"), link];
        let error = selection(&["enp1s0"], &["eth0"]).check(&links).expect_err("one interface").to_string();
        assert_eq!(
            error,
            "interface eth0 (also enp1s0, uplink\\xff) is given twice, as 'enp1s0' and as 'eth0'; give one of its names"
        );
        let error = selection(&["enp2s0"], &[]).check(&links).expect_err("no such interface").to_string();
        assert!(error.contains("'enp2s0'") && error.contains("lo, eth0 (also enp1s0, "), "{error}");
    }

    #[test]
    fn names_and_patterns_have_escapes() {
        let selected = selection(&["\\x41\\\\", "\u{1b}"], &["\\xf?"]);
        for (name, action) in
            [("A\\\\", Some(Action::Pass)), ("\\x1b", Some(Action::Pass)), ("\\xfe", Some(Action::Drop))]
        {
            assert_eq!(selected.action(&Link::named(1, name)), action, "{name}");
        }
    }

    #[test]
    fn names_must_be_there_and_patterns_need_not() {
        let links = [Link::named(1, "lo"), Link::named(2, "eth0")];
        assert_eq!(selection(&["eth0", "veth*", "l?"], &[]).check(&links).expect("eth0 is there"), ["veth*"]);
        let error = selection(&["eth1"], &[]).check(&links).expect_err("it is not there").to_string();
        assert!(error.contains("'eth1'") && error.contains("lo, eth0"), "{error}");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let new = |interfaces: &[&str], taps: &[&str]| {
            let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
            Selection::new(&owned(interfaces), &owned(taps)).expect_err("it is refused").to_string()
        };
        assert_eq!(new(&["eth0"], &["eth0"]), "interface eth0 is given twice");
        assert_eq!(new(&["\\xff"], &["\\xFF"]), "interface \\xff is given twice");
        assert!(new(&["a\\b"], &[]).contains("write '\\\\' for a backslash"));
        assert!(new(&["eth[0"], &[]).contains("\"eth[0\" is not a pattern"));
    }
}
