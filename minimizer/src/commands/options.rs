//! The settings of `run`: from the command line, then agent.toml, then the defaults.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use crate::commands::cli::{AttachMode, DEFAULT_PORT, Run};
use crate::commands::config::{Config, ConfigError};
use crate::commands::policy_choice::{PolicyChoice, PolicyChoiceError};
use crate::commands::text::Output;
use crate::kernel::table_size::Flows;
use crate::serve::http::{HostName, ListenAddress};
use crate::sinks::config::SinkConfig;

/// How long sinks may take by default when the agent ends.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the settings are incomplete or unusable.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// agent.toml cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The policy cannot be used.
    #[error(transparent)]
    Policy(#[from] PolicyChoiceError),
    /// No interface is named, and no agent.toml is given.
    #[error(
        "no interface is named: give '-i IFACE' or '--tap IFACE', or a file with `interfaces` or `taps` by '--config FILE'"
    )]
    NoInterface,
    /// No interface is named in agent.toml either.
    #[error(
        "no interface is named: {} has neither `interfaces` nor `taps`; write one there, or give '-i IFACE' or '--tap IFACE'",
        .0.display()
    )]
    NoInterfaceIn(PathBuf),
}

/// What `run` is to do.
#[derive(Debug, PartialEq, Eq)]
pub struct Settings {
    /// Interfaces to watch.
    pub interfaces: Vec<String>,
    /// Interfaces to watch as taps.
    pub taps: Vec<String>,
    /// Whether taps are accepted that this host is reached through.
    pub force_tap: bool,
    /// How the program is attached.
    pub mode: AttachMode,
    /// Time between drains, if one is asked for.
    pub interval: Option<Duration>,
    /// For how many flows the tables are sized.
    pub flows: Flows,
    /// Where the agent serves.
    pub listen: Vec<ListenAddress>,
    /// Names by which it may be asked, beside those of the host itself.
    pub hosts: Vec<HostName>,
    /// Who is served, and how.
    pub web_config: Option<PathBuf>,
    /// File of the ledger.
    pub ledger: Option<PathBuf>,
    /// Directory for the time mark.
    pub state_directory: Option<PathBuf>,
    /// Where records go.
    pub sinks: Vec<SinkConfig>,
    /// How records are printed; `None` when they are not.
    pub output: Option<Output>,
    /// How long sinks may take when the agent ends.
    pub shutdown_timeout: Duration,
    /// The policy.
    pub choice: PolicyChoice,
}

impl Settings {
    /// Reads agent.toml, if one is named, and overrides it with the command line.
    ///
    /// # Errors
    /// See [`SettingsError`].
    pub fn new(args: &Run) -> Result<Self, SettingsError> {
        let path = args.config.as_deref();
        let config = path.map(Config::load).transpose()?;
        let choice = PolicyChoice::new(&args.policy, path.zip(config.as_ref()))?;
        let config = config.unwrap_or_default();
        // Interfaces on the command line replace those of agent.toml: whoever names one means only that one.
        let (interfaces, taps) = if args.interfaces.is_empty() && args.taps.is_empty() {
            (config.interfaces, config.taps)
        } else {
            (args.interfaces.clone(), args.taps.clone())
        };
        if interfaces.is_empty() && taps.is_empty() {
            return Err(
                path.map_or(SettingsError::NoInterface, |path| SettingsError::NoInterfaceIn(path.to_owned()))
            );
        }
        Ok(Self {
            interfaces,
            taps,
            force_tap: args.force_tap || config.force_tap.unwrap_or(false),
            mode: args.mode.or(config.mode).unwrap_or(AttachMode::Native),
            interval: args.interval.or(config.interval),
            flows: args.table.flows().or(config.flows).unwrap_or_default(),
            listen: first_not_empty(&args.listen, config.listen),
            hosts: config.hosts,
            web_config: args.web_config.clone().or(config.web_config),
            ledger: args.ledger.clone().or(config.ledger),
            state_directory: args.state.clone().or(config.state_directory),
            output: args.output.or(config.sinks.is_empty().then_some(Output::Table)),
            sinks: config.sinks,
            shutdown_timeout: config.shutdown_timeout.unwrap_or(SHUTDOWN_TIMEOUT),
            choice,
        })
    }
}

/// Where the agent serves; by default only on the loopback address.
fn first_not_empty(said: &[ListenAddress], config: Vec<ListenAddress>) -> Vec<ListenAddress> {
    match (said, config.as_slice()) {
        ([], []) => vec![SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)).into()],
        ([], _) => config,
        _ => said.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::num::NonZeroU32;
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    use clap::Parser as _;

    use super::{Settings, SettingsError};
    use crate::commands::cli::{AttachMode, Cli, DEFAULT_LISTEN, Verb};
    use crate::kernel::table_size::Flows;

    const AGENT: &str = "interfaces = [\"eth*\"]\ntaps = [\"mirror0\"]\nforce_tap = true\nmode = \"skb\"\n\
                         interval = \"5s\"\nflows = 1000\nlisten = \"[::1]:9\"\nweb_config = \"web.yml\"\nledger = \"l.json\"\n";

    fn settings(arguments: &str) -> Result<Settings, SettingsError> {
        let words = ["minimizer", "run"].into_iter().chain(arguments.split_whitespace());
        match Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{error}")).verb {
            Verb::Run(args) => Settings::new(&args),
            other => panic!("{other:?}"),
        }
    }

    fn with_config(text: &str, arguments: &str) -> Result<(PathBuf, Settings), SettingsError> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("agent.toml");
        fs::write(&path, text).expect("is written");
        let settings = settings(&format!("--config {} {arguments}", path.display()))?;
        Ok((folder.path().to_owned(), settings))
    }

    fn listen(settings: &Settings) -> Vec<String> {
        settings.listen.iter().map(ToString::to_string).collect()
    }

    fn flows(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).expect("is not 0")
    }

    #[test]
    fn defaults_are_those_that_the_help_names() {
        let settings = settings("-i eth0").expect("are whole");
        assert_eq!((settings.interval, settings.mode), (None, AttachMode::Native));
        assert_eq!(settings.flows, Flows::PerCpu(flows(65_536)));
        assert_eq!((listen(&settings), settings.force_tap), (vec![DEFAULT_LISTEN.to_owned()], false));
    }

    #[test]
    fn agent_toml_says_what_the_command_line_does_not() {
        let (folder, settings) = with_config(AGENT, "").expect("are whole");
        assert_eq!(
            (&settings.interfaces[..], &settings.taps[..]),
            (&["eth*".to_owned()][..], &["mirror0".to_owned()][..])
        );
        assert_eq!((settings.interval, settings.mode), (Some(Duration::from_secs(5)), AttachMode::Skb));
        assert_eq!(settings.flows, Flows::All(flows(1000)));
        assert_eq!((listen(&settings), settings.force_tap), (vec!["[::1]:9".to_owned()], true));
        assert_eq!(settings.web_config, Some(folder.join("web.yml")));
        assert_eq!(settings.ledger, Some(folder.join("l.json")));
    }

    #[test]
    fn the_command_line_wins() {
        let arguments = "-i lo --mode native --interval 1s --flows-per-cpu 7 --listen 127.0.0.1:8 --ledger here \
                         --listen http://[::1]:8 --web.config.file web";
        let (_, settings) = with_config(AGENT, arguments).expect("are whole");
        assert_eq!(listen(&settings), ["127.0.0.1:8", "http://[::1]:8"]);
        assert_eq!((settings.interfaces, settings.taps), (vec!["lo".to_owned()], Vec::new()));
        assert_eq!((settings.interval, settings.mode), (Some(Duration::from_secs(1)), AttachMode::Native));
        assert_eq!(settings.flows, Flows::PerCpu(flows(7)));
        assert_eq!(settings.web_config.as_deref(), Some(Path::new("web")));
        assert_eq!(settings.ledger.as_deref(), Some(Path::new("here")));
    }

    #[test]
    fn nothing_to_watch_is_refused_with_every_way_to_name_it() {
        let said = settings("").expect_err("nothing is named").to_string();
        assert!(said.contains("'-i IFACE'") && said.contains("'--config FILE'"), "{said}");
        let said = with_config("interval = \"5s\"", "").expect_err("nothing is named").to_string();
        assert!(said.contains("agent.toml has neither `interfaces` nor `taps`"), "{said}");
        assert!(with_config("interval = \"5s\"", "--tap eth0").is_ok());
    }
}
