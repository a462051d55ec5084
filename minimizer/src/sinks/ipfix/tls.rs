//! TLS with a collector: the name in its certificate, and what to say when one end refuses the other.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::{CertificateError, ClientConnection};

use super::collector::Collector;
use crate::delivery::loss::Loss;
use crate::delivery::sink::SinkError;
use crate::support::tls::{self, ClientTls};

/// How long to wait after a handshake for the other end to refuse our certificate.
pub(super) const ANSWERED_WITHIN: Duration = Duration::from_millis(500);

/// TLS with one collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CollectorTls {
    pub(super) client: ClientTls,
    /// The name in the collector's certificate.
    pub(super) server_name: String,
}

impl CollectorTls {
    /// A connection whose handshake has not begun.
    pub(super) fn connection(&self, collector: &Collector) -> Result<ClientConnection, SinkError> {
        let refuse = |cause: &dyn fmt::Display| {
            SinkError::new(Loss::Refused, format!("cannot speak TLS with the collector {collector}: {cause}"))
        };
        let config = self.client.config().map_err(|error| refuse(&error))?;
        let name = tls::server_name(&self.server_name).map_err(|error| refuse(&error))?;
        ClientConnection::new(Arc::new(config), name).map_err(|error| refuse(&error))
    }
}

/// The error for a handshake in which one end does not accept the other.
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
