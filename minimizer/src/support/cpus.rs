//! The CPUs of this host: how many are online, and how many there can ever be.

use std::fs;
use std::io;

use thiserror::Error;

const POSSIBLE: &str = "/sys/devices/system/cpu/possible";
const ONLINE: &str = "/sys/devices/system/cpu/online";

/// Why the number of CPUs is unknown.
#[derive(Debug, Error)]
#[error("cannot read the number of CPUs from {path}: {source}")]
pub struct CpusError {
    path: &'static str,
    source: io::Error,
}

/// How many CPU numbers there can be: one more than the highest possible one. Numbers may have gaps, and a CPU that comes
/// online later has one of them.
///
/// # Errors
/// When sysfs cannot be read.
pub fn numbers() -> Result<u32, CpusError> {
    read(POSSIBLE, |(_, last)| last).map(|last| last.into_iter().max().map_or(1, |last| last + 1))
}

/// How many CPUs are online.
///
/// # Errors
/// When sysfs cannot be read.
pub fn online() -> Result<u32, CpusError> {
    read(ONLINE, |(first, last)| last - first + 1).map(|counts| counts.into_iter().sum::<u32>().max(1))
}

fn read(path: &'static str, of_range: fn((u32, u32)) -> u32) -> Result<Vec<u32>, CpusError> {
    let list = fs::read_to_string(path).map_err(|source| CpusError { path, source })?;
    let unreadable = || CpusError { path, source: io::Error::other(format!("{list:?} is no list of CPUs")) };
    let ranges = ranges(&list).ok_or_else(unreadable)?;
    Ok(ranges.into_iter().map(of_range).collect())
}

/// The first and last number of each range in a list like `0-3,8-11`.
fn ranges(list: &str) -> Option<Vec<(u32, u32)>> {
    let range = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        (first <= last).then_some((first, last))
    };
    list.trim().split(',').map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::{numbers, online, ranges};

    #[test]
    fn lists_are_read_with_their_gaps() {
        let cases = [
            ("0\n", Some(vec![(0, 0)])),
            ("0-3,8-11\n", Some(vec![(0, 3), (8, 11)])),
            ("0,2", Some(vec![(0, 0), (2, 2)])),
            ("", None),
            ("3-1", None),
            ("a", None),
        ];
        for (list, expected) in cases {
            assert_eq!(ranges(list), expected, "{list}");
        }
    }

    #[test]
    fn whatever_is_online_has_a_number() {
        let (numbers, online) = (numbers().expect("sysfs"), online().expect("sysfs"));
        assert!(online >= 1 && online <= numbers, "{online} of {numbers}");
    }
}
