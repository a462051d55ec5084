//! Which client certificates are accepted: the five policies of Go's `ClientAuthType`, and the allowed names.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use serde::Deserialize;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Whether clients must show a certificate, and what it must be like.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub enum ClientAuthType {
    /// The server asks for no certificate.
    #[default]
    NoClientCert,
    /// The server asks for a certificate and does not check it.
    RequestClientCert,
    /// The client must show a certificate, no matter who signed it.
    RequireAnyClientCert,
    /// If the client shows a certificate, the CA must have signed it.
    VerifyClientCertIfGiven,
    /// The client must show a certificate that the CA has signed.
    RequireAndVerifyClientCert,
}

impl ClientAuthType {
    /// Whether the client must show a certificate.
    pub const fn is_required(self) -> bool {
        matches!(self, Self::RequireAnyClientCert | Self::RequireAndVerifyClientCert)
    }

    /// Whether the CA must have signed the certificate.
    pub const fn is_verified(self) -> bool {
        matches!(self, Self::VerifyClientCertIfGiven | Self::RequireAndVerifyClientCert)
    }
}

/// Checks the certificates of clients.
#[derive(Debug)]
pub struct ClientVerifier {
    /// Checks who signed the certificate; `None` where that does not matter.
    pub chain: Option<Arc<dyn ClientCertVerifier>>,
    /// Whether the client must show a certificate.
    pub is_required: bool,
    /// Names of which the certificate must have one. Empty when any name will do.
    pub allowed_names: Vec<String>,
    /// Checks the signature that proves that the client has the key of its certificate.
    pub provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.is_required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.as_ref().map_or(&[], |chain| chain.root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if let Some(chain) = &self.chain {
            chain.verify_client_cert(end_entity, intermediates, now)?;
        }
        if !self.allowed_names.is_empty() && !has_one_of(end_entity, &self.allowed_names) {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Whether a subject alternative name of the certificate is in the list, whatever its kind.
fn has_one_of(certificate: &CertificateDer<'_>, names: &[String]) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return false };
    let Ok(Some(alternatives)) = certificate.subject_alternative_name() else { return false };
    alternatives.value.general_names.iter().any(|alternative| match alternative {
        GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => {
            names.iter().any(|allowed| allowed == name)
        }
        GeneralName::IPAddress(octets) => {
            let address = <[u8; 4]>::try_from(*octets).map(IpAddr::from);
            let address = address.or_else(|_| <[u8; 16]>::try_from(*octets).map(IpAddr::from));
            address.is_ok_and(|address| names.iter().any(|allowed| allowed.parse() == Ok(address)))
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::has_one_of;

    #[test]
    fn names_of_every_kind_are_compared_whole() {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["Scrape.example".to_owned()]).expect("a name");
        params.subject_alt_names.extend([
            SanType::IpAddress("192.0.2.7".parse().expect("an address")),
            SanType::IpAddress("2001:db8::7".parse().expect("an address")),
            SanType::Rfc822Name("a@example".try_into().expect("ASCII")),
            SanType::URI("spiffe://example/prometheus".try_into().expect("ASCII")),
        ]);
        let certificate = params.self_signed(&key).expect("a certificate");
        for (name, is_there) in [
            ("Scrape.example", true),
            ("scrape.example.org", false),
            ("example", false),
            ("*.example", false),
            ("192.0.2.7", true),
            ("192.0.2.70", false),
            ("2001:DB8:0::7", true),
            ("a@example", true),
            ("spiffe://example/prometheus", true),
            ("spiffe://example", false),
        ] {
            assert_eq!(has_one_of(certificate.der(), &[name.to_owned()]), is_there, "{name}");
        }
        let nameless = CertificateParams::default().self_signed(&key).expect("a certificate");
        assert!(!has_one_of(nameless.der(), &["a".to_owned()]));
    }
}
