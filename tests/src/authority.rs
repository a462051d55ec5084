//! An authority of a test, and the certificates that it signs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, crypto};

/// An authority and what it signed, as files.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// A new authority.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Ok(Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)? })
    }

    /// Writes its certificate as `NAME.pem`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_own(&self, folder: &Path, file: &str) -> Result<()> {
        Ok(fs::write(folder.join(format!("{file}.pem")), self.pem())?)
    }

    /// Its certificate, in PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for this name, and its key, in PEM.
    ///
    /// # Errors
    /// When the name is none.
    pub fn sign(&self, name: &str) -> Result<(String, String)> {
        let key = KeyPair::generate()?;
        let params = CertificateParams::new(vec![name.to_owned()])?;
        Ok((params.signed_by(&key, &self.issuer)?.pem(), key.serialize_pem()))
    }

    /// Writes `NAME.pem`, and `NAME.key` which only its owner may read, for this name.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&self, folder: &Path, file: &str, name: &str) -> Result<()> {
        let (certificate, key) = self.sign(name)?;
        fs::write(folder.join(format!("{file}.pem")), certificate)?;
        let path = folder.join(format!("{file}.key"));
        fs::write(&path, key)?;
        let permissions = fs::Permissions::from_mode(0o600);
        Ok(fs::set_permissions(path, permissions)?)
    }

    /// The settings of a server called `name`, which lets in whom `clients` signed for.
    ///
    /// # Errors
    /// When they contradict each other.
    pub fn server(&self, name: &str, clients: &Self) -> Result<Arc<ServerConfig>> {
        let provider = Arc::new(crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(clients.pem().as_bytes())?)?;
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()?;
        let (certificate, key) = self.sign(name)?;
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes())?],
                PrivateKeyDer::from_pem_slice(key.as_bytes())?,
            )?;
        Ok(Arc::new(config))
    }
}
