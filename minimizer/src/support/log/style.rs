//! How a line looks: for people with the command's name, for journald with a priority.

use std::env;

use rustix::fs::fstat;
use tracing::Level;

/// Who reads the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// People, or a program that reads what people read.
    People,
    /// journald, which knows whose lines they are and takes priorities as sd-daemon(3) says.
    Journal,
}

impl Style {
    /// Who reads the standard error: journald does when `JOURNAL_STREAM` names that very file. A child whose standard
    /// error goes elsewhere inherits the variable too.
    pub(super) fn of_stderr() -> Self {
        let file = fstat(rustix::stdio::stderr()).map(|file| (file.st_dev, file.st_ino));
        match (env::var("JOURNAL_STREAM"), file) {
            (Ok(stream), Ok(file)) if names(&stream, file) => Self::Journal,
            _ => Self::People,
        }
    }

    /// A line of the log. What is as usual bears no level for people.
    pub(super) fn line(self, level: Level, text: &str) -> String {
        match (self, level) {
            (Self::Journal, _) => prefixed(priority(level), text),
            (Self::People, Level::ERROR) => format!("minimizer: error: {text}\n"),
            (Self::People, Level::WARN) => format!("minimizer: warning: {text}\n"),
            (Self::People, _) => format!("minimizer: {text}\n"),
        }
    }

    /// Why a command failed: its answer, so that people need no level.
    pub(super) fn answer(self, text: &str) -> String {
        match self {
            Self::Journal => prefixed(priority(Level::ERROR), text),
            Self::People => format!("minimizer: {text}\n"),
        }
    }

    /// A result, which programs read.
    pub(super) fn result(self, text: &str) -> String {
        match self {
            Self::Journal => prefixed(priority(Level::INFO), text),
            Self::People => format!("{text}\n"),
        }
    }
}

/// Whether a stream, as `DEVICE:INODE`, is this file.
fn names(stream: &str, (device, inode): (u64, u64)) -> bool {
    stream
        .split_once(':')
        .is_some_and(|(left, right)| left.parse::<u64>() == Ok(device) && right.parse::<u64>() == Ok(inode))
}

/// Severity of syslog (RFC 5424, section 6.2.1).
const fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

/// journald makes an entry of each line, so each needs its priority.
fn prefixed(priority: u8, text: &str) -> String {
    text.lines().map(|line| format!("<{priority}>{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::{Style, names};

    #[test]
    fn people_read_names_and_journald_reads_priorities() {
        for (level, people, journal) in [
            (Level::ERROR, "minimizer: error: a\nb\n", "<3>a\n<3>b\n"),
            (Level::WARN, "minimizer: warning: a\nb\n", "<4>a\n<4>b\n"),
            (Level::INFO, "minimizer: a\nb\n", "<6>a\n<6>b\n"),
            (Level::DEBUG, "minimizer: a\nb\n", "<7>a\n<7>b\n"),
        ] {
            assert_eq!(Style::People.line(level, "a\nb"), people);
            assert_eq!(Style::Journal.line(level, "a\nb"), journal);
        }
        assert_eq!(Style::People.answer("why"), "minimizer: why\n");
        assert_eq!(Style::Journal.answer("why"), "<3>why\n");
        assert_eq!(Style::People.result("{}"), "{}\n");
        assert_eq!(Style::Journal.result("{}"), "<6>{}\n");
    }

    #[test]
    fn a_stream_is_device_and_inode() {
        assert!(names("8:17", (8, 17)));
        for other in ["", "8", "8:", "8:18", "9:17", "8:17:", "x:17"] {
            assert!(!names(other, (8, 17)), "{other}");
        }
    }
}
