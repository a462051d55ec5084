//! The file sink: a recipient's records as JSON Lines or Parquet, in files that get their names when they are whole.
//!
//! docs/FILES.md says what a reader may rely on.

mod parquet;
mod record_file;
mod writing;

use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::delivery::ending::Ending;
use crate::delivery::sink::Sink;
use crate::sinks::folder::Encoding;
use crate::support::toml::{At, Document};
use crate::support::units;
use writing::FilesSink;

/// Time after which a file is closed, where agent.toml does not say.
const ROTATE_EVERY: Duration = Duration::from_secs(60);
const ROTATE_EVERY_MIN: Duration = Duration::from_secs(1);
const ROTATE_EVERY_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Size at which a file is closed, where agent.toml does not say.
const ROTATE_OCTETS: u64 = 256 << 20;
const ROTATE_OCTETS_MIN: u64 = 64 << 10;
const ROTATE_OCTETS_MAX: u64 = 64 << 30;

/// Files of records, in agent.toml.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "files")]
pub struct FilesFile {
    /// Where the files go, relative to this file; made when it is missing.
    pub directory: At<PathBuf>,
    /// The format of the files.
    pub format: Option<At<Format>>,
    /// Time after which a file is closed and named, like "1m": from "1s" to "24h".
    pub rotate_every: Option<At<String>>,
    /// Size at which a file is closed and named before that, like "256MiB": from "64KiB" to "64GiB".
    pub rotate_octets: Option<At<String>>,
    /// How columns of Parquet are compressed.
    pub compression: Option<At<ColumnCompression>>,
}

/// The format of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// A JSON object a line.
    #[default]
    JsonLines,
    /// Typed columns.
    Parquet,
}

impl Format {
    const fn encoding(self) -> Encoding {
        match self {
            Self::JsonLines => Encoding::JsonLines,
            Self::Parquet => Encoding::Parquet,
        }
    }

    /// What follows the dot in the names of its files.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        self.encoding().extension()
    }
}

/// How columns are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ColumnCompression {
    /// Not at all.
    None,
    /// With Zstandard (RFC 8878).
    Zstd,
}

/// Files of records, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesConfig {
    /// The directory.
    pub directory: PathBuf,
    /// The format of the files.
    pub format: Format,
    /// How columns of Parquet are compressed.
    pub compression: ColumnCompression,
    /// Time after which a file is closed.
    pub rotate_every: Duration,
    /// Size at which a file is closed.
    pub rotate_octets: u64,
}

impl FilesConfig {
    /// Files of this format in a directory, with the defaults of agent.toml.
    #[must_use]
    pub const fn new(directory: PathBuf, format: Format) -> Self {
        Self {
            directory,
            format,
            compression: ColumnCompression::Zstd,
            rotate_every: ROTATE_EVERY,
            rotate_octets: ROTATE_OCTETS,
        }
    }

    /// Checks agent.toml, which is in `folder`; `None` when something is refused.
    #[must_use]
    pub fn check(file: &FilesFile, document: &mut Document<'_>, folder: &Path) -> Option<Self> {
        let directory = file.directory.get();
        let format = file.format.as_ref().map_or(Format::default(), |format| *format.get());
        let mut config = Self::new(folder.join(directory), format);
        let mut is_refused = false;
        if directory.as_os_str().is_empty() {
            is_refused = true;
            document.refuse(&file.directory, "files need a directory: write its path");
        }
        if let Some(text) = &file.rotate_every {
            match rotate_every(text.get()) {
                Ok(every) => config.rotate_every = every,
                Err(error) => {
                    is_refused = true;
                    document.refuse(text, error);
                }
            }
        }
        if let Some(text) = &file.rotate_octets {
            match rotate_octets(text.get()) {
                Ok(octets) => config.rotate_octets = octets,
                Err(error) => {
                    is_refused = true;
                    document.refuse(text, error);
                }
            }
        }
        if let Some(compression) = &file.compression {
            config.compression = *compression.get();
            if format == Format::JsonLines {
                is_refused = true;
                document.refuse(
                    compression,
                    "JSON Lines are not compressed: remove this, or write `format = \"parquet\"`",
                );
            }
        }
        (!is_refused).then_some(config)
    }

    /// The sink of that name. It touches the directory with its first batch, or when it is first tended.
    #[must_use]
    pub fn sink(&self, name: &str) -> Box<dyn Sink> {
        Box::new(FilesSink::new(name, self))
    }

    /// The same, which also deletes the files of directories that other sinks had before, and heeds the end of the agent.
    pub(super) fn adopting(&self, name: &str, former: Vec<PathBuf>, ending: &Ending) -> Box<dyn Sink> {
        Box::new(FilesSink::new(name, self).adopting(former, ending))
    }
}

fn rotate_every(text: &str) -> Result<Duration, String> {
    let every = units::time(text)?;
    if (ROTATE_EVERY_MIN..=ROTATE_EVERY_MAX).contains(&every) {
        Ok(every)
    } else {
        Err(format!("`{text}`: allowed are 1s to 24h"))
    }
}

fn rotate_octets(text: &str) -> Result<u64, String> {
    let octets = text.parse::<bytesize::ByteSize>().ok().map(|size| size.as_u64());
    octets
        .filter(|octets| (ROTATE_OCTETS_MIN..=ROTATE_OCTETS_MAX).contains(octets))
        .ok_or_else(|| format!("`{text}`: allowed are 64KiB to 64GiB, like \"256MiB\""))
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    use super::{ColumnCompression, FilesConfig, FilesFile, Format};
    use crate::support::toml::Document;

    fn check(text: &str) -> Result<FilesConfig, String> {
        let mut document = Document::new("agent.toml".to_owned(), text);
        let file: FilesFile = document.read().map_err(|findings| findings.to_string())?;
        let config = FilesConfig::check(&file, &mut document, Path::new("/etc/minimizer"));
        document.finish().map_err(|findings| findings.to_string())?;
        Ok(config.expect("nothing was refused"))
    }

    #[test]
    fn a_directory_is_enough() {
        let config = check("directory = \"/srv/soc\"").expect("is enough");
        assert_eq!(config, FilesConfig::new("/srv/soc".into(), Format::JsonLines));
        assert_eq!((config.rotate_every, config.rotate_octets), (Duration::from_secs(60), 256 << 20));
    }

    #[test]
    fn everything_can_be_said() {
        let config = check(
            "directory = \"soc\"\nformat = \"parquet\"\nrotate_every = \"5s\"\nrotate_octets = \"1GiB\"\n\
             compression = \"none\"",
        );
        let wanted = FilesConfig {
            directory: PathBuf::from("/etc/minimizer/soc"),
            format: Format::Parquet,
            compression: ColumnCompression::None,
            rotate_every: Duration::from_secs(5),
            rotate_octets: 1 << 30,
        };
        assert_eq!(config, Ok(wanted));
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_place() {
        for (text, part) in [
            ("", "missing field `directory`"),
            ("directory = \"\"", "agent.toml:1:13: files need a directory"),
            ("directory = \"a\"\nformat = \"csv\"", "unknown variant `csv`"),
            ("directory = \"a\"\nrotate_every = \"10ms\"", "agent.toml:2:16: `10ms`: allowed are 1s to 24h"),
            ("directory = \"a\"\nrotate_octets = \"1KiB\"", "`1KiB`: allowed are 64KiB to 64GiB"),
            ("directory = \"a\"\nrotate_octets = \"much\"", "`much`: allowed are"),
            ("directory = \"a\"\ncompression = \"zstd\"", "JSON Lines are not compressed"),
            ("directory = \"a\"\nfolder = \"b\"", "unknown field `folder`"),
        ] {
            let said = check(text).expect_err(text);
            assert!(said.contains(part), "{said}");
        }
    }
}
