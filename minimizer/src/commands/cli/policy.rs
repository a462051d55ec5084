//! The command line of `policy`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use minimizer_common::tunnel::Tunnel;

use super::{interval, tunnel};

/// What to do with policies.
#[derive(Debug, Subcommand)]
pub enum PolicyVerb {
    /// Check a policy, and print everything that is wrong with it.
    Check {
        /// Policy file, or the name of a built-in policy.
        #[arg(value_name = "POLICY")]
        policy: String,
    },
    /// Explain what a policy means: what is collected, for whom, why, and what can be inferred from it.
    Explain {
        /// Policy file, or the name of a built-in policy.
        #[arg(value_name = "POLICY")]
        policy: String,
        /// Tunnel to look into, in addition to those of the policy; may be given several times.
        #[arg(long = "tunnel", value_name = "TUNNEL", value_parser = tunnel())]
        tunnels: Vec<Tunnel>,
        /// How it is printed.
        #[arg(long, value_enum, default_value_t = Format::Text)]
        output: Format,
    },
    /// Replay a capture, and print how many of each recipient's records single a communication out, and how many records of one
    /// recipient find their twin among those of another.
    Risk {
        /// Policy file, or the name of a built-in policy.
        #[arg(value_name = "POLICY")]
        policy: String,
        /// Capture to replay, pcap or pcapng.
        #[arg(value_name = "CAPTURE")]
        capture: PathBuf,
        /// Time between drains, from 100ms to 60s [default: 10s, or what the policy allows].
        #[arg(long, value_name = "TIME", value_parser = interval)]
        interval: Option<Duration>,
        /// How it is printed.
        #[arg(long, value_enum, default_value_t = Format::Text)]
        output: Format,
    },
    /// Print the JSON Schema of policy.toml or agent.toml, for editors.
    Schema {
        /// The file that the schema describes.
        #[arg(value_enum, default_value_t = SchemaOf::Policy)]
        of: SchemaOf,
    },
    /// Compare two policies: what the second one widens or narrows.
    Diff {
        /// The policy before the change.
        #[arg(value_name = "BEFORE")]
        before: String,
        /// The policy after the change.
        #[arg(value_name = "AFTER")]
        after: String,
        /// How it is printed.
        #[arg(long, value_enum, default_value_t = Format::Text)]
        output: Format,
    },
    /// Create a key pair: write the private key to a file and print the verifier key.
    Keygen {
        /// Name of the key, usually of the person or role that signs with it.
        #[arg(value_name = "NAME")]
        name: String,
        /// File for the private key, which must not exist yet [default: NAME.key].
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Write the digest of each file that a policy names into the policy, so that a signature covers them.
    Pin {
        /// Policy file.
        #[arg(value_name = "POLICY")]
        policy: PathBuf,
    },
    /// Sign a policy: write a note to POLICY.sig that says who signed which text.
    Sign {
        /// Policy file.
        #[arg(value_name = "POLICY")]
        policy: PathBuf,
        /// File with the private key.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// Check whether the holder of a key signed exactly this policy.
    Verify {
        /// Policy file.
        #[arg(value_name = "POLICY")]
        policy: PathBuf,
        /// Verifier key, or file with one.
        #[arg(long, value_name = "KEY")]
        key: String,
    },
}

/// How a text is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Sentences and columns for people.
    Text,
    /// JSON.
    Json,
}

/// The file that a schema describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SchemaOf {
    /// policy.toml.
    Policy,
    /// agent.toml.
    Agent,
}
