//! agent.toml: the options of the command line as a file.

use std::io;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use thiserror::Error;

use crate::commands::cli::{self, AttachMode};
use crate::kernel::table_size::Flows;
use crate::policy::builtin::BUILT_IN;
use crate::policy::signature::VerifierKey;
use crate::policy::signature::required;
use crate::serve::http::{HostName, ListenAddress};
use crate::sinks::config::{SinkConfig, SinkFile};
use crate::support::plain_file;
use crate::support::text::{self, TextError};
use crate::support::toml::{At, Document, Findings};
use crate::support::units;

/// Longest time that sinks may take when the agent ends.
const SHUTDOWN_TIMEOUT_MAX: Duration = Duration::from_secs(600);

/// The model of agent.toml.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Minimizer agent")]
pub struct ConfigFile {
    /// Interfaces to watch, by name or by a pattern like "eth*".
    #[serde(default)]
    pub interfaces: Vec<At<String>>,
    /// Interfaces of mirror ports: their frames are counted and then dropped.
    #[serde(default)]
    pub taps: Vec<At<String>>,
    /// Also accept taps that carry addresses or default routes of this host, which cuts the host off there.
    pub force_tap: Option<bool>,
    /// How the program is attached.
    pub mode: Option<AttachMode>,
    /// Time between drains, like "10s": from "100ms" to "60s".
    pub interval: Option<At<String>>,
    /// Size the tables for this many flows per interval over all CPUs.
    #[schemars(range(min = 1))]
    pub flows: Option<At<u32>>,
    /// Size each CPU's table for this many flows per interval.
    #[schemars(range(min = 1))]
    pub flows_per_cpu: Option<At<u32>>,
    /// Address for /metrics and the status page, like "127.0.0.1:14739", or a list of them. A loopback address
    /// written like "http://127.0.0.1:14739" is exempt from the web configuration.
    pub listen: Option<At<OneOrMore>>,
    /// Further names by which requests may name this host, like "minimizer.example.org". Its addresses, its own name
    /// and, on loopback, "localhost" are always accepted.
    #[serde(default)]
    pub hosts: Vec<At<String>>,
    /// Web configuration with certificates and users, in the format of Prometheus' exporters, relative to this file.
    pub web_config: Option<PathBuf>,
    /// Policy file, relative to this file, or the name of a built-in policy.
    pub policy: Option<String>,
    /// Verifier key, or a file with one relative to this file: its holder must have signed the policy.
    pub require_signature: Option<At<String>>,
    /// File with the master secret for pseudonyms, relative to this file.
    pub keys: Option<PathBuf>,
    /// File for the ledger, written when the agent ends, relative to this file.
    pub ledger: Option<PathBuf>,
    /// Directory for the time mark, relative to this file, which keeps an ended mandate ended if somebody sets the clock
    /// back.
    pub state_directory: Option<PathBuf>,
    /// Where records go.
    #[serde(default)]
    pub sinks: Vec<At<SinkFile>>,
    /// How long sinks may take to deliver their queues when the agent ends, like "10s": at most "10m".
    pub shutdown_timeout: Option<At<String>>,
}

/// One address, or several.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMore {
    /// One.
    One(String),
    /// Several.
    Several(Vec<String>),
}

impl OneOrMore {
    fn as_slice(&self) -> &[String] {
        match self {
            Self::One(address) => std::slice::from_ref(address),
            Self::Several(addresses) => addresses,
        }
    }
}

/// What agent.toml says. `None` leaves a setting to the command line and the defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Interfaces to watch.
    pub interfaces: Vec<String>,
    /// Interfaces to watch as taps.
    pub taps: Vec<String>,
    /// Whether taps are accepted that this host is reached through.
    pub force_tap: Option<bool>,
    /// How the program is attached.
    pub mode: Option<AttachMode>,
    /// Time between drains.
    pub interval: Option<Duration>,
    /// For how many flows the tables are sized.
    pub flows: Option<Flows>,
    /// Where the agent serves.
    pub listen: Vec<ListenAddress>,
    /// Names by which it may be asked, beside those of the host itself.
    pub hosts: Vec<HostName>,
    /// Who is served, and how.
    pub web_config: Option<PathBuf>,
    /// Policy file, or the name of a built-in policy.
    pub policy: Option<String>,
    /// The key that must have signed the policy.
    pub require_signature: Option<VerifierKey>,
    /// File of the keys.
    pub keys: Option<PathBuf>,
    /// File of the ledger.
    pub ledger: Option<PathBuf>,
    /// Directory for the time mark.
    pub state_directory: Option<PathBuf>,
    /// Where records go.
    pub sinks: Vec<SinkConfig>,
    /// How long sinks may take when the agent ends.
    pub shutdown_timeout: Option<Duration>,
}

/// Why agent.toml cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no text.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Text {
        /// The file.
        path: PathBuf,
        /// Why.
        source: TextError,
    },
    /// The file does not fit the model, or a value is not allowed.
    #[error("the configuration is refused: {0}")]
    Refused(Findings),
}

impl Config {
    /// Reads agent.toml.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let octets =
            plain_file::read(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let text =
            text::decoded(octets).map_err(|source| ConfigError::Text { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Parses the text; `path` is where it comes from, and what relative paths start from.
    ///
    /// # Errors
    /// [`ConfigError::Refused`] with all that is wrong.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut document = Document::new(path.display().to_string(), text);
        let file: ConfigFile = document.read().map_err(ConfigError::Refused)?;
        let names = |document: &mut Document<'_>, names: &[At<String>]| -> Vec<String> {
            for name in names.iter().filter(|name| name.get().is_empty()) {
                document.refuse(name, "an interface has a name: write it, or a pattern like \"eth*\"");
            }
            names.iter().map(|name| name.get().clone()).collect()
        };
        let config = Self {
            interfaces: names(&mut document, &file.interfaces),
            taps: names(&mut document, &file.taps),
            force_tap: file.force_tap,
            mode: file.mode,
            interval: parsed(&mut document, file.interval.as_ref(), |text| {
                cli::interval(text).map_err(|error| format!("`{text}`: {error}"))
            }),
            flows: flows(&mut document, &file),
            listen: listen(&mut document, file.listen.as_ref()),
            hosts: hosts(&mut document, &file.hosts),
            web_config: file.web_config.map(|path| folder.join(path)),
            policy: file.policy.map(|policy| match BUILT_IN.iter().any(|built_in| built_in.name == policy) {
                true => policy,
                false => folder.join(policy).display().to_string(),
            }),
            require_signature: parsed(&mut document, file.require_signature.as_ref(), |text| {
                required::key(text, folder).map_err(|error| error.to_string())
            }),
            keys: file.keys.map(|keys| folder.join(keys)),
            ledger: file.ledger.map(|ledger| folder.join(ledger)),
            state_directory: file.state_directory.map(|directory| folder.join(directory)),
            sinks: SinkConfig::check(&file.sinks, &mut document, folder),
            shutdown_timeout: parsed(&mut document, file.shutdown_timeout.as_ref(), |text| {
                let timeout = units::time(text)?;
                if timeout <= SHUTDOWN_TIMEOUT_MAX {
                    Ok(timeout)
                } else {
                    Err("allowed are 0s to 10m".to_owned())
                }
            }),
        };
        document.finish().map_err(ConfigError::Refused)?;
        Ok(config)
    }
}

/// Parses a text, or adds a finding that says what is wrong with it.
fn parsed<T>(
    document: &mut Document<'_>,
    text: Option<&At<String>>,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Option<T> {
    let text = text?;
    parse(text.get()).map_err(|error| document.refuse(text, error)).ok()
}

fn listen(document: &mut Document<'_>, addresses: Option<&At<OneOrMore>>) -> Vec<ListenAddress> {
    let Some(addresses) = addresses else { return Vec::new() };
    if addresses.get().as_slice().is_empty() {
        document.refuse(addresses, "without an address nobody can ask: write one, or leave `listen` out");
    }
    let mut listen = Vec::new();
    for text in addresses.get().as_slice() {
        match text.parse() {
            Ok(address) => listen.push(address),
            Err(error) => document.refuse(addresses, format!("`{text}`: {error}")),
        }
    }
    listen
}

fn hosts(document: &mut Document<'_>, names: &[At<String>]) -> Vec<HostName> {
    let mut hosts = Vec::new();
    for name in names {
        match name.get().parse() {
            Ok(host) => hosts.push(host),
            Err(error) => document.refuse(name, format!("`{}`: {error}", name.get())),
        }
    }
    hosts
}

fn flows(document: &mut Document<'_>, file: &ConfigFile) -> Option<Flows> {
    let mut number = |flows: &At<u32>| {
        let number = NonZeroU32::new(*flows.get());
        if number.is_none() {
            document.refuse(flows, "a table for no flows holds nothing: allowed are 1 and more");
        }
        number
    };
    match (&file.flows, &file.flows_per_cpu) {
        (Some(_), Some(per_cpu)) => {
            document.refuse(per_cpu, "`flows` says it already: keep one of them");
            None
        }
        (Some(flows), None) => number(flows).map(Flows::All),
        (None, Some(flows)) => number(flows).map(Flows::PerCpu),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    use super::Config;
    use crate::commands::cli::AttachMode;
    use crate::kernel::table_size::Flows;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("/etc/minimizer/agent.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn everything_is_optional() {
        assert_eq!(parse(""), Ok(Config::default()));
    }

    #[test]
    fn everything_can_be_said() {
        let config = parse(
            "interfaces = [\"eth*\"]\ntaps = [\"mirror0\"]\nforce_tap = true\nmode = \"skb\"\ninterval = \"5s\"\n\
             flows = 1000\nlisten = \"[::1]:9\"\nhosts = [\"A.example\"]\nweb_config = \"web.yml\"\npolicy = \"policy.toml\"\nkeys = \"/run/keys\"\nledger = \"l.json\"\nstate_directory = \"state\"\n\
             shutdown_timeout = \"3s\"\n",
        );
        let wanted = Config {
            interfaces: vec!["eth*".to_owned()],
            taps: vec!["mirror0".to_owned()],
            force_tap: Some(true),
            mode: Some(AttachMode::Skb),
            interval: Some(Duration::from_secs(5)),
            flows: NonZeroU32::new(1000).map(Flows::All),
            listen: "[::1]:9".parse().into_iter().collect(),
            hosts: "a.example".parse().into_iter().collect(),
            web_config: Some(PathBuf::from("/etc/minimizer/web.yml")),
            policy: Some("/etc/minimizer/policy.toml".to_owned()),
            require_signature: None,
            keys: Some(PathBuf::from("/run/keys")),
            ledger: Some(PathBuf::from("/etc/minimizer/l.json")),
            state_directory: Some(PathBuf::from("/etc/minimizer/state")),
            sinks: Vec::new(),
            shutdown_timeout: Some(Duration::from_secs(3)),
        };
        assert_eq!(config, Ok(wanted));
        assert_eq!(
            parse("policy = \"full-record\"").map(|config| config.policy),
            Ok(Some("full-record".to_owned()))
        );
    }

    #[test]
    fn one_address_or_several() {
        let config = parse("listen = [\"[::]:9\", \"http://127.0.0.1:10\"]").expect("is accepted");
        let listen: Vec<_> = config.listen.iter().map(ToString::to_string).collect();
        assert_eq!(listen, ["[::]:9", "http://127.0.0.1:10"]);
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_place() {
        for (text, part) in [
            ("interface = \"eth0\"", "agent.toml:1:1: unknown field `interface`"),
            ("\ninterval = \"1ms\"", "agent.toml:2:12: `1ms`: allowed are 100ms to 60s"),
            ("mode = \"fast\"", "unknown variant `fast`, expected `native` or `skb`"),
            ("listen = \"here\"", "agent.toml:1:10: `here`: allowed are an address and a port"),
            (
                "listen = [\"127.0.0.1:1\", \"http://192.0.2.1:1\"]",
                "`http://192.0.2.1:1`: without certificate",
            ),
            (
                "hosts = [\"a\", \"http://b:1\"]",
                "agent.toml:1:15: `http://b:1`: allowed is the name of a host",
            ),
            ("listen = []", "without an address nobody can ask"),
            ("flows = 0", "1 and more"),
            ("flows = 1\nflows_per_cpu = 1", "agent.toml:2:17: `flows` says it already"),
            ("taps = [\"\"]", "an interface has a name"),
            ("require_signature = \"absent\"", "agent.toml:1:21: `absent` is neither a verifier key"),
        ] {
            let said = parse(text).expect_err(text);
            assert!(said.contains(part), "{said}");
        }
    }
}
