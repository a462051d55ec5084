//! The command line of `policy`.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use minimizer_common::tunnel::Tunnel;

use super::tunnel;

/// What to do with policies.
#[derive(Debug, Subcommand)]
pub enum PolicyVerb {
    /// Say whether a policy can be used, or all that is wrong with it.
    Check {
        /// Policy file, or the name of a built-in policy.
        #[arg(value_name = "POLICY")]
        policy: String,
    },
    /// Say what a policy means: what is collected, for whom, why, and what can be found out from it.
    Explain {
        /// Policy file, or the name of a built-in policy.
        #[arg(value_name = "POLICY")]
        policy: String,
        /// Tunnel that is looked into beside those of the policy; may be given several times.
        #[arg(long = "tunnel", value_name = "TUNNEL", value_parser = tunnel())]
        tunnels: Vec<Tunnel>,
        /// How it is printed.
        #[arg(long, value_enum, default_value_t = Format::Text)]
        output: Format,
    },
    /// Print the JSON Schema of policy.toml or agent.toml, for editors.
    Schema {
        /// Of which file.
        #[arg(value_enum, default_value_t = SchemaOf::Policy)]
        of: SchemaOf,
    },
    /// Say what the second policy would widen or narrow against the first.
    Diff {
        /// The policy as it is.
        #[arg(value_name = "BEFORE")]
        before: String,
        /// The policy as it would be.
        #[arg(value_name = "AFTER")]
        after: String,
        /// How it is printed.
        #[arg(long, value_enum, default_value_t = Format::Text)]
        output: Format,
    },
    /// Make a pair of keys: the private one goes to a file, the verifier key is printed.
    Keygen {
        /// Name of the key: of whoever will sign with it.
        #[arg(value_name = "NAME")]
        name: String,
        /// File for the private key, which must not be there yet [default: NAME.key].
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Sign a policy: a note beside it, in POLICY.sig, says who signed which text.
    Sign {
        /// Policy file.
        #[arg(value_name = "POLICY")]
        policy: PathBuf,
        /// File with the private key.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// Say whether the holder of a key signed a policy as it is.
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

/// The file that a schema is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SchemaOf {
    /// policy.toml.
    Policy,
    /// agent.toml.
    Agent,
}
