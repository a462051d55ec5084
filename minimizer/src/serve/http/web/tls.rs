//! The TLS of the server, built from what a web configuration says.

use std::sync::Arc;

use rustls::crypto::ring::{cipher_suite, default_provider, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ProtocolVersion, RootCertStore, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion};

use super::client::{ClientAuthType, ClientVerifier};

/// The cipher suites by their names in Go, as the format wants. Those of TLS 1.3 are always on, whether listed or not.
const CIPHER_SUITES: [(&str, SupportedCipherSuite); 11] = [
    ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    // The names that they had before Go 1.14.
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
    ("TLS_AES_128_GCM_SHA256", cipher_suite::TLS13_AES_128_GCM_SHA256),
    ("TLS_AES_256_GCM_SHA384", cipher_suite::TLS13_AES_256_GCM_SHA384),
    ("TLS_CHACHA20_POLY1305_SHA256", cipher_suite::TLS13_CHACHA20_POLY1305_SHA256),
];

/// The groups by their names in Go.
const CURVES: [(&str, &dyn SupportedKxGroup); 3] =
    [("X25519", kx_group::X25519), ("CurveP256", kx_group::SECP256R1), ("CurveP384", kx_group::SECP384R1)];

/// A version of TLS, by its name in Go.
pub fn version(name: &str) -> Result<&'static SupportedProtocolVersion, String> {
    match name {
        "TLS12" => Ok(&rustls::version::TLS12),
        "TLS13" => Ok(&rustls::version::TLS13),
        "TLS10" | "TLS11" => Err(format!(
            "{name} is not offered by this agent: RFC 8996 has retired it; allowed are TLS12 and TLS13"
        )),
        _ => Err(format!("`{name}`: allowed are TLS12 and TLS13")),
    }
}

/// A cipher suite, by its name in Go.
pub fn cipher_suite(name: &str) -> Result<SupportedCipherSuite, String> {
    find(&CIPHER_SUITES, name).ok_or_else(|| {
        format!("`{name}` is not offered by this agent: allowed are {}", names(&CIPHER_SUITES))
    })
}

/// A group for the key exchange, by its name in Go.
pub fn curve(name: &str) -> Result<&'static dyn SupportedKxGroup, String> {
    find(&CURVES, name)
        .ok_or_else(|| format!("`{name}` is not offered by this agent: allowed are {}", names(&CURVES)))
}

fn find<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
    table.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

fn names<T>(table: &[(&'static str, T)]) -> String {
    table.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

/// What a web configuration says of TLS.
pub struct ServerTls {
    /// The certificate chain of the server, its own certificate first.
    pub certificates: Vec<CertificateDer<'static>>,
    /// The key of its certificate.
    pub key: PrivateKeyDer<'static>,
    /// Whether clients must show certificates.
    pub client_auth: ClientAuthType,
    /// The authorities that sign the certificates of clients.
    pub client_ca: Vec<CertificateDer<'static>>,
    /// Names of which a client's certificate must have one; any when there are none.
    pub client_names: Vec<String>,
    /// The versions that the server offers.
    pub versions: Vec<&'static SupportedProtocolVersion>,
    /// Cipher suites of TLS 1.2 in the order of preference. Empty for the default ones.
    pub cipher_suites: Vec<SupportedCipherSuite>,
    /// Groups in the order of preference. Empty for the default ones.
    pub curves: Vec<&'static dyn SupportedKxGroup>,
    /// Whether the server's order of cipher suites decides, instead of the client's.
    pub is_server_order: bool,
}

impl ServerTls {
    /// Builds the configuration of the server.
    ///
    /// # Errors
    /// When key and certificate do not belong together, or no version or cipher suite is left.
    pub fn build(self) -> Result<Arc<ServerConfig>, String> {
        let mut provider = default_provider();
        let is_tls13 = |suite: &SupportedCipherSuite| suite.version().version == ProtocolVersion::TLSv1_3;
        if !self.cipher_suites.is_empty() {
            provider.cipher_suites.retain(is_tls13);
            provider.cipher_suites.extend(self.cipher_suites.iter().filter(|suite| !is_tls13(suite)));
        }
        if !self.curves.is_empty() {
            provider.kx_groups = self.curves;
        }
        let provider = Arc::new(provider);
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&self.versions)
            .map_err(|error| error.to_string())?;
        let builder = if self.client_auth == ClientAuthType::NoClientCert {
            builder.with_no_client_auth()
        } else {
            let chain = if self.client_auth.is_verified() {
                Some(chain(self.client_ca, self.client_auth, &provider)?)
            } else {
                None
            };
            builder.with_client_cert_verifier(Arc::new(ClientVerifier {
                chain,
                is_required: self.client_auth.is_required(),
                allowed_names: self.client_names,
                provider,
            }))
        };
        let mut config =
            builder.with_single_cert(self.certificates, self.key).map_err(|error| error.to_string())?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.ignore_client_order = self.is_server_order;
        Ok(Arc::new(config))
    }
}

fn chain(
    authorities: Vec<CertificateDer<'static>>,
    client_auth: ClientAuthType,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority).map_err(|error| format!("the client CA: {error}"))?;
    }
    let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    if !client_auth.is_required() {
        verifier = verifier.allow_unauthenticated();
    }
    verifier.build().map_err(|error| format!("the client CA: {error}"))
}

/// The certificates in a PEM text.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err("holds no certificate in PEM".to_owned()),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(format!("is no PEM: {error}")),
    }
}

/// The first private key in a PEM text.
pub fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem)
        .map_err(|error| format!("holds no private key in PEM that can be used: {error}"))
}
