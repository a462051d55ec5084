//! `doctor`: checks whether this host can run the agent, with evidence and fix. It changes nothing.

mod drivers;
mod host;
mod interfaces;

use std::io::{self, Write};

use serde::Serialize;

use crate::interfaces::netlink::{Link, Netlink, NetlinkError};
use crate::interfaces::tap::HostTraffic;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing is wrong.
    Pass,
    /// The agent works, with a drawback.
    Warn,
    /// The agent does not work.
    Fail,
}

impl Verdict {
    /// The verdict as it is printed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One check and its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// `host`, or the name of an interface.
    pub subject: String,
    /// What was checked.
    pub check: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// What was found.
    pub evidence: String,
    /// What to do about it; `None` if nothing is to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Check {
    fn new(subject: &str, check: &'static str, verdict: Verdict, evidence: impl Into<String>) -> Self {
        Self { subject: subject.to_owned(), check, verdict, evidence: evidence.into(), fix: None }
    }

    fn pass(subject: &str, check: &'static str, evidence: impl Into<String>) -> Self {
        Self::new(subject, check, Verdict::Pass, evidence)
    }

    fn warn(subject: &str, check: &'static str, evidence: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..Self::new(subject, check, Verdict::Warn, evidence) }
    }

    fn fail(subject: &str, check: &'static str, evidence: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..Self::new(subject, check, Verdict::Fail, evidence) }
    }
}

/// All checks of one examination.
#[derive(Clone, Debug, Serialize)]
pub struct Diagnosis {
    /// The worst verdict.
    pub verdict: Verdict,
    /// The checks, host first.
    pub checks: Vec<Check>,
}

/// Examines the host and the named interfaces; without names, all interfaces but loopback.
///
/// # Errors
/// When the kernel does not list its interfaces.
pub fn examine(names: &[String]) -> Result<Diagnosis, NetlinkError> {
    let mut checks = host::checks();
    let mut netlink = Netlink::open()?;
    let links = Link::with_features(netlink.links()?);
    let host = HostTraffic::read(&mut netlink)?;
    checks.extend(interfaces::checks(names, &links, &host));
    let verdict = checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Pass);
    Ok(Diagnosis { verdict, checks })
}

impl Diagnosis {
    /// Writes one line per check, its fix on the next line, and the totals at the end.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn write_table(&self, out: &mut impl Write) -> io::Result<()> {
        let width = |text: fn(&Check) -> usize| self.checks.iter().map(text).max().unwrap_or(0);
        let subject_width = width(|check| check.subject.len());
        let check_width = width(|check| check.check.len());
        for Check { subject, check, verdict, evidence, fix } in &self.checks {
            let verdict = verdict.name();
            writeln!(out, "{verdict}  {subject:subject_width$}  {check:check_width$}  {evidence}")?;
            if let Some(fix) = fix {
                let indent = 4 + 2 + subject_width + 2 + check_width;
                writeln!(out, "{:indent$}  fix: {fix}", "")?;
            }
        }
        let count = |verdict| self.checks.iter().filter(|check| check.verdict == verdict).count();
        let (passed, warned, failed) = (count(Verdict::Pass), count(Verdict::Warn), count(Verdict::Fail));
        writeln!(out, "\n{passed} passed, {warned} warned, {failed} failed")
    }

    /// Writes the diagnosis as one JSON object.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut *out, self)?;
        out.write_all(b"\n")
    }

    /// Whether any check failed, so that the agent would not work.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.verdict == Verdict::Fail
    }
}

#[cfg(test)]
mod tests {
    use super::{Check, Diagnosis, Verdict};

    #[test]
    fn the_fix_stands_below_what_it_fixes() {
        let checks = vec![
            Check::pass("host", "kernel", "Linux 6.1"),
            Check::fail("eth0", "native xdp", "driver e1000 has none", "use '--mode skb'"),
        ];
        let diagnosis = Diagnosis { verdict: Verdict::Fail, checks };
        let mut table = Vec::new();
        diagnosis.write_table(&mut table).expect("a vector takes everything");
        let expected = "pass  host  kernel      Linux 6.1\n\
                        fail  eth0  native xdp  driver e1000 has none\n\
                        \x20                       fix: use '--mode skb'\n\
                        \n1 passed, 0 warned, 1 failed\n";
        assert_eq!(String::from_utf8(table).expect("UTF-8"), expected);
    }

    #[test]
    fn the_worst_verdict_is_the_greatest() {
        assert!(Verdict::Fail > Verdict::Warn && Verdict::Warn > Verdict::Pass);
    }
}
