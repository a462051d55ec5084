//! The command line: verbs and their options.

mod policy;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use minimizer_common::tunnel::Tunnel;

use crate::commands::text::Output;
use crate::kernel::attach::Mode;
use crate::kernel::table_size::Flows;
use crate::serve::http::ListenAddress;
use crate::support::printable;
pub use policy::{Format, PolicyVerb, SchemaOf};

/// Turns live traffic into minimized records: header tuples are counted in the kernel, payload is
/// never read, and every packet is accounted for.
#[derive(Debug, Parser)]
#[command(name = "minimizer", version, propagate_version = true)]
#[command(
    after_help = "Environment:\n  MINIMIZER_LOG  Least level that is logged to stderr: error, warn, info, debug, off [default: info]"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Watch live interfaces: attach, drain, export, serve metrics.
    Run(Run),
    /// See it work: traffic in a private network, counted by the real program in the kernel.
    Demo(Demo),
    /// Run every frame of a capture through the program in the kernel and print the records.
    Replay(Replay),
    /// Print what a running agent does: interfaces, drains, flow table, ledger.
    Status(Status),
    /// Show a running agent live in the terminal: rates, outcomes, sinks, ledger.
    Top(Top),
    /// Make a running agent reload its policy file without missing a packet.
    Reload(Reload),
    /// Check whether this host can run the agent, and print the fix for what is missing.
    Doctor(Doctor),
    /// Check, explain, compare and sign policies.
    #[command(subcommand)]
    Policy(PolicyVerb),
    /// Print the completion script of a shell.
    Completions {
        /// The shell.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Print the manual page.
    Man,
}

/// Options of `run`.
#[derive(Args, Debug)]
pub struct Run {
    /// Configuration file (agent.toml); options given here override it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Interface to watch, by its name or by a pattern like 'eth*'; may be given several times.
    #[arg(short, long = "interface", value_name = "IFACE", value_parser = interface_name())]
    pub interfaces: Vec<String>,
    /// Interface of a mirror port: its frames are counted and then dropped. May be given several times;
    /// refused for interfaces on which this host's own traffic arrives.
    #[arg(long = "tap", value_name = "IFACE", value_parser = interface_name())]
    pub taps: Vec<String>,
    /// Also accept taps that carry addresses or default routes of this host, which cuts the host off there.
    #[arg(long)]
    pub force_tap: bool,
    /// Time between drains, from 100ms to 60s [default: 10s, or what the policy allows].
    #[arg(long, value_name = "TIME", value_parser = interval)]
    pub interval: Option<Duration>,
    /// How the program is attached: in the driver, or in the network stack for drivers without XDP [default: native].
    #[arg(long, value_enum)]
    pub mode: Option<AttachMode>,
    /// Address for /metrics and the status page; may be given several times. A loopback address written as
    /// http://ADDRESS:PORT is exempt from the web configuration [default: 127.0.0.1:14739].
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Vec<ListenAddress>,
    /// Web configuration with certificates and users, in the format of Prometheus' exporters.
    #[arg(long = "web.config.file", value_name = "FILE")]
    pub web_config: Option<PathBuf>,
    /// How records are printed [default: table; nothing if agent.toml has sinks].
    #[arg(long, value_enum)]
    pub output: Option<Output>,
    /// Directory for the time mark, which keeps an ended mandate ended if somebody sets the clock back
    /// [default: $STATE_DIRECTORY, or /var/lib/minimizer if it is there].
    #[arg(long, value_name = "DIRECTORY")]
    pub state: Option<PathBuf>,
    /// Also write the ledger, as JSON, to this file: at the start, after drains, and when the agent ends.
    #[arg(long, value_name = "FILE")]
    pub ledger: Option<PathBuf>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment would become the help of the first option")]
    pub table: Table,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment would become the help of the first option")]
    pub policy: PolicyOption,
}

/// Where `run` serves and where `status` asks, by default.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:14739";

/// The port of [`DEFAULT_LISTEN`].
pub const DEFAULT_PORT: u16 = 14_739;

/// The default time between drains.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);
/// Time between drains of `demo`, unless something else is said.
pub const DEFAULT_DEMO_INTERVAL: Duration = Duration::from_secs(1);

/// The default policy.
pub const DEFAULT_POLICY: &str = "carrier-default";

/// Size of the flow table.
#[derive(Args, Debug)]
pub struct Table {
    /// Size the tables for this many flows per interval over all CPUs; each CPU gets room for twice its share, and for all when it needs more.
    #[arg(long, value_name = "FLOWS", conflicts_with = "flows_per_cpu")]
    pub flows: Option<NonZeroU32>,
    /// Size each CPU's table for this many flows per interval; it gets twice as many slots [default: 65536].
    #[arg(long, value_name = "FLOWS")]
    pub flows_per_cpu: Option<NonZeroU32>,
}

impl Table {
    /// The size that the options give, if any.
    #[must_use]
    pub fn flows(&self) -> Option<Flows> {
        self.flows.map(Flows::All).or(self.flows_per_cpu.map(Flows::PerCpu))
    }
}

/// Which policy to use, and how.
#[derive(Args, Clone, Debug, Default)]
pub struct PolicyOption {
    /// Policy file, or the name of a built-in policy: full-record, carrier-default [default: carrier-default].
    #[arg(long, value_name = "POLICY")]
    pub policy: Option<String>,
    /// Refuse a policy that the holder of this verifier key (or file with one) has not signed.
    #[arg(long, value_name = "KEY")]
    pub require_signature: Option<String>,
    /// File with the master secret for pseudonyms and prefix-preserving addresses. Without it, and without a systemd
    /// credential minimizer.key, a random secret is used that ends with the process.
    #[arg(long, value_name = "FILE")]
    pub keys: Option<PathBuf>,
    /// Recipient whose view is printed [default: the first of the policy].
    #[arg(long, value_name = "NAME")]
    pub recipient: Option<String>,
    /// Tunnel whose inner packets are counted instead of the outer ones; may be given several times.
    #[arg(long = "tunnel", value_name = "TUNNEL", value_parser = tunnel())]
    pub tunnels: Vec<Tunnel>,
}

/// Parses the name of a tunnel.
fn tunnel() -> impl TypedValueParser<Value = Tunnel> {
    let names = Tunnel::ALL.iter().map(|tunnel| PossibleValue::new(tunnel.name()).help(tunnel.description()));
    PossibleValuesParser::new(names).map(|name| {
        *Tunnel::ALL.iter().find(|tunnel| tunnel.name() == name).expect("only these names are possible")
    })
}

/// Options of `replay`.
#[derive(Args, Debug)]
pub struct Replay {
    /// Capture to replay, pcap or pcapng; `-` is the standard input.
    #[arg(value_name = "FILE")]
    pub capture: PathBuf,
    /// How records are printed.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// Also write the ledger, as JSON, to this file.
    #[arg(long, value_name = "FILE")]
    pub ledger: Option<PathBuf>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment would become the help of the first option")]
    pub policy: PolicyOption,
}

/// Options of `demo`.
#[derive(Args, Debug)]
pub struct Demo {
    /// How long traffic is sent; Ctrl-C ends it early.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    pub duration: Duration,
    /// Time between drains, from 100ms to 60s [default: 1s, or what the policy allows].
    #[arg(long, value_name = "TIME", value_parser = interval)]
    pub interval: Option<Duration>,
    /// Send the frames of this capture, over and over, instead of generated ones.
    #[arg(long, value_name = "FILE")]
    pub pcap: Option<PathBuf>,
    /// Serve /metrics and the status page during the demo, on this host's network and not the private one.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// Exit with 1 unless the ledger balances, every frame sent was seen, and no payload byte changed what was stored.
    #[arg(long)]
    pub check: bool,
    /// What is printed: the live view and a last screen, or one JSON object at the end.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment would become the help of the first option")]
    pub table: Table,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment would become the help of the first option")]
    pub policy: PolicyOption,
}

/// Options of `status`.
#[derive(Args, Debug)]
pub struct Status {
    /// Where the agent serves.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = DEFAULT_LISTEN)]
    pub listen: SocketAddr,
    /// How the status is printed.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// Names of interfaces need not be UTF-8.
fn interface_name() -> impl TypedValueParser<Value = String> {
    OsStringValueParser::new().map(|argument| printable::argument(&argument))
}

/// Options of `top`.
#[derive(Args, Debug)]
pub struct Top {
    /// Interface to show, by its name or by a pattern like 'eth*'; may be given several times [default: all].
    #[arg(short, long = "interface", value_name = "IFACE", value_parser = interface_name())]
    pub interfaces: Vec<String>,
    /// Where the agent serves.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = DEFAULT_LISTEN)]
    pub listen: SocketAddr,
    /// The live view, or its content printed once as JSON. Without a terminal, a table is printed once.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// Options of `reload`.
#[derive(Args, Debug)]
pub struct Reload {
    /// Where the agent serves.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = DEFAULT_LISTEN)]
    pub listen: SocketAddr,
}

/// Options of `doctor`.
#[derive(Args, Debug)]
pub struct Doctor {
    /// Interface to examine; may be given several times [default: all but loopback].
    #[arg(short, long = "interface", value_name = "IFACE", value_parser = interface_name())]
    pub interfaces: Vec<String>,
    /// How the checks are printed.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// How the program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AttachMode {
    /// In the driver.
    Native,
    /// In the network stack.
    Skb,
}

impl From<AttachMode> for Mode {
    fn from(mode: AttachMode) -> Self {
        match mode {
            AttachMode::Native => Self::Native,
            AttachMode::Skb => Self::Skb,
        }
    }
}

/// Parses a drain interval. A slot counts packets in 32 bits: at 30 million packets per second, more
/// than one CPU can process, that is enough for 143 seconds.
pub(crate) fn interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let allowed = Duration::from_millis(100)..=Duration::from_secs(60);
    if allowed.contains(&interval) { Ok(interval) } else { Err("allowed are 100ms to 60s".to_owned()) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_is_consistent() {
        super::Cli::command().debug_assert();
    }

    #[test]
    fn intervals_are_bounded() {
        assert!(super::interval("10s").is_ok());
        assert!(super::interval("100ms").is_ok());
        assert!(super::interval("99ms").is_err());
        assert!(super::interval("61s").is_err());
        assert!(super::interval("soon").is_err());
    }
}
