//! Names of files: whose they are, and when what is in them began.

use jiff::Timestamp;

use super::Format;

/// `20261123T024735.123Z`.
const TIME_OCTETS: usize = 20;

/// What the name of a manifest ends with.
pub(super) const MANIFEST: &str = ".manifest.json";
/// What the name of a file ends with that is not whole.
const UNFINISHED: &str = ".tmp";

/// The moment so many milliseconds after 1970.
pub(super) fn time(milliseconds: u64) -> Timestamp {
    // Beyond the year 9999 there is none.
    i64::try_from(milliseconds)
        .ok()
        .and_then(|time| Timestamp::from_millisecond(time).ok())
        .unwrap_or_default()
}

/// Name of a file of the sink, of which the first interval begins then.
pub(super) fn data(sink: &str, begin_ms: u64, sequence: u64, format: Format) -> String {
    let time = time(begin_ms).strftime("%Y%m%dT%H%M%S%.3fZ");
    format!("{sink}-{time}-{sequence:06}.{}", format.extension())
}

/// Name of the manifest of a file.
pub(super) fn manifest(data: &str) -> String {
    format!("{data}{MANIFEST}")
}

/// Name that a file has until it is whole.
pub(super) fn unfinished(name: &str) -> String {
    format!(".{name}{UNFINISHED}")
}

/// The name that the file of this name was to get; `None` when it is whole.
pub(super) fn finished(name: &str) -> Option<&str> {
    name.strip_prefix('.')?.strip_suffix(UNFINISHED)
}

/// Whether a sink of this name gives such names to files.
pub(super) fn is_data_of(sink: &str, name: &str) -> bool {
    let rest = name.strip_prefix(sink).and_then(|rest| rest.strip_prefix('-'));
    let Some((time, rest)) = rest.and_then(|rest| rest.split_at_checked(TIME_OCTETS)) else { return false };
    let is_time = time.bytes().zip("ddddddddTdddddd.dddZ".bytes()).all(|(octet, expected)| match expected {
        b'd' => octet.is_ascii_digit(),
        _ => octet == expected,
    });
    let numbered = rest.strip_prefix('-').and_then(|rest| rest.split_once('.'));
    is_time
        && numbered.is_some_and(|(sequence, extension)| {
            !sequence.is_empty()
                && sequence.bytes().all(|octet| octet.is_ascii_digit())
                && [Format::JsonLines, Format::Parquet].iter().any(|format| format.extension() == extension)
        })
}

#[cfg(test)]
mod tests {
    use super::{data, finished, is_data_of, manifest, unfinished};
    use crate::sinks::files::Format;

    #[test]
    fn a_name_tells_sink_and_time_and_no_other_sink_takes_it_for_its_own() {
        let name = data("soc", 1_795_402_055_123, 7, Format::JsonLines);
        assert_eq!(name, "soc-20261123T024735.123Z-000007.jsonl");
        assert!(is_data_of("soc", &name));
        let longer = data("soc-abroad", 0, 1_234_567, Format::Parquet);
        assert_eq!(longer, "soc-abroad-19700101T000000.000Z-1234567.parquet");
        assert!(is_data_of("soc-abroad", &longer) && !is_data_of("soc", &longer));
        assert_eq!(finished(&unfinished(&name)), Some(&*name));
        for other in [
            &*manifest(&name),
            &unfinished(&name),
            "soc-20261123T024735.123Z-000007.jsonl.gz",
            "soc-20261123T024735.123Z-.jsonl",
            "soc-20261123T024735.123Z-1x.jsonl",
            "soc-20261123024735.123ZZ-1.jsonl",
            "soc-notes.jsonl",
            "soc",
            "deletions.jsonl",
        ] {
            assert!(!is_data_of("soc", other), "{other}");
        }
    }
}
