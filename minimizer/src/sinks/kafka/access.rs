//! How brokers let the agent in: certificates and passwords, read when a connection is made.

use std::sync::Arc;

use rskafka::client::{Credentials, SaslConfig};
use rustls::ClientConfig;

use super::backlog::Failure;
use super::config::{Mechanism, Sasl};
use crate::delivery::loss::Loss;
use crate::support::secret_file::{self, Placed};
use crate::support::tls::ClientTls;

fn refused(message: String) -> Failure {
    Failure { loss: Loss::Refused, message }
}

/// Whom the agent trusts, and the certificate that it shows.
///
/// # Errors
/// When one of the files cannot be used.
pub fn encryption(tls: &ClientTls) -> Result<Arc<ClientConfig>, Failure> {
    tls.config().map(Arc::new).map_err(|error| refused(error.to_string()))
}

/// Name and password.
///
/// # Errors
/// When the password cannot be read.
pub fn credentials(sasl: &Sasl) -> Result<SaslConfig, Failure> {
    let path = &sasl.password_file;
    let password = secret_file::read(path, Placed::ByOperator).map_err(|error| refused(error.to_string()))?;
    let password = std::str::from_utf8(&password)
        .map_err(|_| refused(format!("{}: a password is text in UTF-8; write it anew", path.display())))?;
    // Editors and `echo` end a file with a newline.
    let password = password.strip_suffix('\n').unwrap_or(password);
    let credentials = Credentials::new(sasl.username.clone(), password.to_owned());
    Ok(match sasl.mechanism {
        Mechanism::Plain => SaslConfig::Plain(credentials),
        Mechanism::ScramSha256 => SaslConfig::ScramSha256(credentials),
        Mechanism::ScramSha512 => SaslConfig::ScramSha512(credentials),
    })
}
