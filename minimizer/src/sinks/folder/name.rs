//! Names of files: which sink wrote them, how, and when their first interval began.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Octets of a time in a name, like `20261123T024735.123Z`.
const TIME_OCTETS: usize = 20;

/// Name of the directory, in that of the records, where everything is that no reader of records wants to meet. Readers pass over
/// directories and over names that begin with a dot.
pub(super) const NOTES: &str = ".minimizer";
/// The list of what was deleted.
pub(super) const DELETIONS: &str = "deletions.jsonl";
/// Suffix of a manifest's name.
pub(super) const MANIFEST: &str = ".manifest.json";
/// Suffix of a journal's name. A journal never loses its temporary name.
pub(super) const JOURNAL: &str = ".journal";
/// Suffix of an unfinished file's name.
const UNFINISHED: &str = ".tmp";

/// How a file is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::sinks) enum Encoding {
    /// A JSON object a line.
    JsonLines,
    /// Typed columns.
    Parquet,
    /// Messages of RFC 7011 in a file of RFC 5655.
    Ipfix,
}

impl Encoding {
    const ALL: [Self; 3] = [Self::JsonLines, Self::Parquet, Self::Ipfix];

    /// What follows the dot in a file's name.
    pub(in crate::sinks) const fn extension(self) -> &'static str {
        match self {
            Self::JsonLines => "jsonl",
            Self::Parquet => "parquet",
            Self::Ipfix => "ipfix",
        }
    }
}

/// The moment so many milliseconds after 1970.
pub(super) fn time(milliseconds: u64) -> Timestamp {
    // A moment after the year 9999 cannot be written.
    i64::try_from(milliseconds)
        .ok()
        .and_then(|time| Timestamp::from_millisecond(time).ok())
        .unwrap_or_default()
}

/// Name of a sink's file whose first interval begins at `begin_ms`.
pub(super) fn data(sink: &str, begin_ms: u64, sequence: u64, encoding: Encoding) -> String {
    let time = time(begin_ms).strftime("%Y%m%dT%H%M%S%.3fZ");
    format!("{sink}-{time}-{sequence:06}.{}", encoding.extension())
}

/// Name of the manifest of a file.
pub(super) fn manifest(data: &str) -> String {
    format!("{data}{MANIFEST}")
}

/// Name of the journal of a file.
pub(super) fn journal(data: &str) -> String {
    format!("{data}{JOURNAL}")
}

/// Name of a file until it is whole.
pub(super) fn unfinished(name: &str) -> String {
    format!("{name}{UNFINISHED}")
}

/// The name that an unfinished file was to get; `None` for the name of a whole file.
pub(super) fn finished(name: &str) -> Option<&str> {
    name.strip_suffix(UNFINISHED)
}

/// Whether a sink gives such names to its files.
pub(super) fn is_data(name: &str) -> bool {
    parse(name).is_some()
}

/// The sink that gives such a name to a file, and how the file is encoded; `None` for any other name.
pub(super) fn parse(name: &str) -> Option<(&str, Encoding)> {
    let (rest, extension) = name.rsplit_once('.')?;
    let encoding = Encoding::ALL.into_iter().find(|encoding| encoding.extension() == extension)?;
    let (rest, sequence) = rest.rsplit_once('-')?;
    let (sink, time) = rest.split_at_checked(rest.len().checked_sub(TIME_OCTETS)?)?;
    let sink = sink.strip_suffix('-').filter(|sink| !sink.is_empty() && !sink.contains('/'))?;
    let is_time = time.bytes().zip("ddddddddTdddddd.dddZ".bytes()).all(|(octet, expected)| match expected {
        b'd' => octet.is_ascii_digit(),
        _ => octet == expected,
    });
    let is_number = !sequence.is_empty() && sequence.bytes().all(|octet| octet.is_ascii_digit());
    (is_time && is_number).then_some((sink, encoding))
}

#[cfg(test)]
mod tests {
    use super::{Encoding, data, finished, manifest, parse, unfinished};

    #[test]
    fn a_name_tells_sink_and_time_and_no_other_sink_takes_it_for_its_own() {
        let name = data("soc", 1_795_402_055_123, 7, Encoding::JsonLines);
        assert_eq!(name, "soc-20261123T024735.123Z-000007.jsonl");
        assert_eq!(parse(&name), Some(("soc", Encoding::JsonLines)));
        assert_eq!(parse("soc-20261123T024735.123Z-000007.ipfix"), Some(("soc", Encoding::Ipfix)));
        let longer = data("soc-abroad", 0, 1_234_567, Encoding::Parquet);
        assert_eq!(longer, "soc-abroad-19700101T000000.000Z-1234567.parquet");
        assert_eq!(parse(&longer), Some(("soc-abroad", Encoding::Parquet)));
        assert_eq!(finished(&unfinished(&name)), Some(&*name));
        for other in [
            &*manifest(&name),
            &unfinished(&name),
            "soc-20261123T024735.123Z-000007.jsonl.gz",
            "soc-20261123T024735.123Z-.jsonl",
            "soc-20261123T024735.123Z-1x.jsonl",
            "soc-20261123024735.123ZZ-1.jsonl",
            "soc-notes.jsonl",
            "../soc-20261123T024735.123Z-000007.jsonl",
            "-20261123T024735.123Z-000007.jsonl",
            "20261123T024735.123Z-000007.jsonl",
            "soc",
            "deletions.jsonl",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
