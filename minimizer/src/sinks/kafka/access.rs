//! How the agent is let in: certificates and passwords, read when a connection is made.

use std::path::Path;
use std::sync::Arc;

use rskafka::client::{Credentials, SaslConfig};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::backlog::Failure;
use super::config::{Mechanism, Sasl, Tls};
use crate::delivery::loss::Loss;
use crate::support::secret_file::{self, Placed};

fn refused(message: String) -> Failure {
    Failure { loss: Loss::Refused, message }
}

/// What the files say of encryption.
///
/// # Errors
/// When one of them cannot be used.
pub fn encryption(tls: &Tls) -> Result<Arc<ClientConfig>, Failure> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&tls.ca)? {
        let ca = tls.ca.display();
        roots
            .add(certificate)
            .map_err(|error| refused(format!("{ca}: not a certificate to trust by: {error}")))?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| refused(format!("TLS cannot be used: {error}")))?
        .with_root_certificates(roots);
    let Some((certificate_path, key_path)) = &tls.identity else {
        return Ok(Arc::new(config.with_no_client_auth()));
    };
    let pem = secret_file::read(key_path, Placed::ByOperator).map_err(|error| refused(error.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| {
        refused(format!(
            "{}: no private key in PEM ({error}); name the key of `certificate`",
            key_path.display()
        ))
    })?;
    let config = config.with_client_auth_cert(certificates(certificate_path)?, key).map_err(|error| {
        refused(format!("{} and {} do not fit: {error}", certificate_path.display(), key_path.display()))
    })?;
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let all = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(refused(format!("{}: no certificate in PEM is in it", path.display()))),
        Err(error) => Err(refused(format!("{}: cannot read certificates: {error}", path.display()))),
    }
}

/// Who the agent says it is.
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
