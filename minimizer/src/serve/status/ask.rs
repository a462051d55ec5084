//! Asks a running agent on this host for its report.

use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;

use super::Report;

/// The answer to a request without TLS at a port where TLS is spoken. [`ask`] recognizes it.
pub const TLS_IS_SPOKEN: &str = "TLS is spoken here: ask with https://\n";

/// Longest time to wait for an agent on this host.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer that is read. A report of 32 interfaces takes a tenth of it.
const ANSWER_OCTETS_MAX: u64 = 1 << 20;

/// Why there is no report.
#[derive(Debug, Error)]
pub enum StatusError {
    /// No one answers.
    #[error(
        "no agent answers at {address}: {source}; start one with 'minimizer run -i INTERFACE', or name the \
         address of a running one with '--listen'"
    )]
    NoAgent {
        /// The address that was asked.
        address: SocketAddr,
        /// The cause.
        source: Box<ureq::Error>,
    },
    /// An agent answers, but its web configuration asks for a certificate or a password.
    #[error(
        "the agent at {address} asks for a certificate or a password, which its web configuration says; give it an \
         address for this host beside the other, 'minimizer run … --listen http://127.0.0.1:{}', and name that with \
         '--listen'", .address.port().saturating_add(1)
    )]
    Guarded {
        /// The address that was asked.
        address: SocketAddr,
    },
    /// Something other than an agent answers.
    #[error(
        "what answers at {address} is not a minimizer agent: {evidence}; name the address of the agent with \
         '--listen'"
    )]
    NotAnAgent {
        /// The address that was asked.
        address: SocketAddr,
        /// What is wrong with the answer.
        evidence: String,
    },
}

/// Asks the agent that listens on `address`.
///
/// # Errors
/// When nothing, or something else, answers there.
pub fn ask(address: SocketAddr) -> Result<Report, StatusError> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .http_status_as_error(false)
        // The agent is on this host, so a proxy from the environment must not be used.
        .proxy(None)
        .max_redirects(0)
        .build()
        .into();
    let no_agent = |source| StatusError::NoAgent { address, source: Box::new(source) };
    let not_an_agent = |evidence| StatusError::NotAnAgent { address, evidence };
    let mut answer = match agent.get(format!("http://{address}/status")).call() {
        Err(error @ ureq::Error::Protocol(_)) => return Err(not_an_agent(error.to_string())),
        answer => answer.map_err(no_agent)?,
    };
    let guarded = StatusError::Guarded { address };
    match answer.status().as_u16() {
        401 => return Err(guarded),
        400 if answer.body_mut().read_to_string().is_ok_and(|body| body == TLS_IS_SPOKEN) => {
            return Err(guarded);
        }
        _ => {}
    }
    if answer.status() != 200 {
        return Err(not_an_agent(format!("it says {}", answer.status())));
    }
    let body = answer.body_mut().with_config().limit(ANSWER_OCTETS_MAX).read_to_string();
    let body = body.map_err(|error| not_an_agent(error.to_string()))?;
    serde_json::from_str(&body).map_err(|error| not_an_agent(error.to_string()))
}
