//! TLS: whom the agent trusts, and who it says it is.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName};
use rustls::{CertificateError, ClientConfig, ClientConnection, RootCertStore, crypto};
use thiserror::Error;

use super::collector::Collector;
use crate::delivery::loss::Loss;
use crate::delivery::sink::SinkError;
use crate::support::secret_file::{self, Placed, SecretFileError};

/// How long the other end has to refuse our certificate after a handshake.
pub(super) const ANSWERED_WITHIN: Duration = Duration::from_millis(500);

/// Why TLS cannot be spoken.
#[derive(Debug, Error)]
pub(super) enum TlsError {
    /// A file cannot be read, or has nothing of that kind in it.
    #[error("{}: no certificates can be read: {source}; it must be a PEM file", path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// A file has no certificates in it.
    #[error("{}: has no certificate in it; it must be a PEM file", .0.display())]
    NoCertificate(PathBuf),
    /// A certificate of an authority cannot be understood.
    #[error("{}: {source}", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The host has no authorities.
    #[error("this host knows no certificate authority ({0}); name the collector's in `ca`")]
    NoAuthorities(String),
    /// The key may be known to others, or cannot be read.
    #[error(transparent)]
    Key(#[from] SecretFileError),
    /// The key is none.
    #[error("{}: no key can be read: {source}; it must be a PEM file", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// Key and certificate do not belong together, or cannot be used.
    #[error("{}: {source}; is it the key of the certificate?", path.display())]
    Pair {
        /// The file of the key.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The name of the collector is none.
    #[error("`{name}` cannot be in a certificate: {source}; write the collector's name in `server_name`")]
    Name {
        /// The name.
        name: String,
        /// Why.
        source: InvalidDnsNameError,
    },
    /// No common version.
    #[error("TLS cannot be set up: {0}")]
    Setup(rustls::Error),
}

/// Whom the agent trusts, and who it says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tls {
    /// File of authorities; those of the host when absent.
    pub(super) ca: Option<PathBuf>,
    /// Files of certificate and key.
    pub(super) identity: Option<(PathBuf, PathBuf)>,
    /// The name in the collector's certificate.
    pub(super) server_name: String,
}

impl Tls {
    /// Reads the files: what they hold may have been renewed.
    pub(super) fn config(&self) -> Result<ClientConfig, TlsError> {
        let provider = Arc::new(crypto::ring::default_provider());
        let versions = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?;
        let trusting = versions.with_root_certificates(self.authorities()?);
        let Some((certificate, key)) = &self.identity else {
            return Ok(trusting.with_no_client_auth());
        };
        let contents = secret_file::read(key, Placed::ByOperator)?;
        let private = PrivateKeyDer::from_pem_slice(&contents)
            .map_err(|source| TlsError::NoKey { path: key.clone(), source })?;
        trusting
            .with_client_auth_cert(certificates(certificate)?, private)
            .map_err(|source| TlsError::Pair { path: key.clone(), source })
    }

    /// The name that the collector's certificate must have.
    pub(super) fn name(&self) -> Result<ServerName<'static>, TlsError> {
        let name = self.server_name.clone();
        ServerName::try_from(name.clone()).map_err(|source| TlsError::Name { name, source })
    }

    /// A connection that has not begun.
    pub(super) fn connection(&self, collector: &Collector) -> Result<ClientConnection, SinkError> {
        let refuse = |cause: &dyn fmt::Display| {
            SinkError::new(Loss::Refused, format!("cannot speak TLS with the collector {collector}: {cause}"))
        };
        let config = self.config().map_err(|error| refuse(&error))?;
        let name = self.name().map_err(|error| refuse(&error))?;
        ClientConnection::new(Arc::new(config), name).map_err(|error| refuse(&error))
    }

    fn authorities(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        if let Some(path) = &self.ca {
            for certificate in certificates(path)? {
                roots
                    .add(certificate)
                    .map_err(|source| TlsError::Authority { path: path.clone(), source })?;
            }
            return Ok(roots);
        }
        let found = rustls_native_certs::load_native_certs();
        if roots.add_parsable_certificates(found.certs).0 == 0 {
            let cause =
                found.errors.first().map_or_else(|| "none is installed".to_owned(), ToString::to_string);
            return Err(TlsError::NoAuthorities(cause));
        }
        Ok(roots)
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::Certificates { path: path.to_owned(), source };
    let certificates: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate(path.to_owned()));
    }
    Ok(certificates)
}

/// What to say when one end does not accept the other.
pub(super) fn refused(collector: &Collector, error: &rustls::Error) -> SinkError {
    let fix = match error {
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "write the name that is in its certificate in `server_name`",
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "name the authority that signed its certificate in `ca`"
        }
        rustls::Error::InvalidCertificate(_) => "it needs another certificate",
        rustls::Error::AlertReceived(_) => {
            "it does not accept this agent: check `certificate` and `key`, and whom it trusts"
        }
        _ => "is this its TLS port?",
    };
    let message = format!("the collector {collector} cannot be spoken to over TLS: {error}; {fix}");
    SinkError::new(Loss::Refused, message)
}
