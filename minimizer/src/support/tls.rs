//! TLS as a client: which servers the agent trusts, and which certificate it shows them.

mod pinned;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, crypto};
use thiserror::Error;

use super::secret_file::{self, Placed, SecretFileError};
use super::toml::{At, Document};
use pinned::Pinned;

/// Why the agent cannot speak TLS.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The certificates in a file cannot be read.
    #[error("{}: no certificates can be read: {source}; it must be a PEM file", path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// A file has no certificate.
    #[error("{}: has no certificate in it; it must be a PEM file", .0.display())]
    NoCertificate(PathBuf),
    /// The certificate of an authority cannot be understood.
    #[error("{}: not the certificate of an authority: {source}; name another file in `ca`", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// The host has no authorities.
    #[error("this host knows no certificate authority ({0}); name a PEM file of authorities in `ca`")]
    NoAuthorities(String),
    /// The key cannot be read, or others could have read it.
    #[error(transparent)]
    Key(#[from] SecretFileError),
    /// A file has no key.
    #[error("{}: no key can be read: {source}; it must be a PEM file", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// Key and certificate do not belong together, or cannot be used.
    #[error("{} and {}: {source}; is it the key of the certificate?", certificate.display(), key.display())]
    Pair {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// What is wrong with them.
        source: rustls::Error,
    },
    /// No certificate can have such a name.
    #[error("`{name}` cannot be in a certificate: {source}; write the name that is there in `server_name`")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        source: InvalidDnsNameError,
    },
    /// No server can be verified.
    #[error("servers cannot be verified: {0}")]
    Verifier(#[from] rustls::client::VerifierBuilderError),
    /// The cryptography of this build has no version of TLS.
    #[error("TLS cannot be set up: {0}")]
    Setup(rustls::Error),
}

/// Files that say whom the agent trusts, and who it says it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// PEM file of the trusted authorities; without it, those of the host are trusted.
    pub ca: Option<PathBuf>,
    /// PEM files of the agent's certificate and of its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// SHA-256 of the certificates that the server may show, in lowercase hexadecimal; any if empty. An authority must have
    /// signed them in any case.
    pub pins: Vec<String>,
}

impl ClientTls {
    /// Takes the paths of agent.toml, whose folder is `folder`; `None` when one of certificate and key is missing.
    #[must_use]
    pub fn check(
        ca: Option<&At<PathBuf>>,
        certificate: Option<&At<PathBuf>>,
        key: Option<&At<PathBuf>>,
        document: &mut Document<'_>,
        folder: &Path,
    ) -> Option<Self> {
        let path = |path: &At<PathBuf>| folder.join(path.get());
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((path(certificate), path(key))),
            (None, None) => None,
            (Some(alone), None) => {
                document.refuse(alone, "a certificate proves nothing without its `key`: add `key`");
                return None;
            }
            (None, Some(alone)) => {
                document.refuse(alone, "a key proves nothing without its `certificate`: add `certificate`");
                return None;
            }
        };
        Some(Self { ca: ca.map(path), identity, pins: Vec::new() })
    }

    /// Reads the files. It is called for each connection, so that renewed certificates are used from the next one on.
    ///
    /// # Errors
    /// When a file cannot be read or used, or others may read the key.
    pub fn config(&self) -> Result<ClientConfig, TlsError> {
        let provider = Arc::new(crypto::ring::default_provider());
        let authorities = self.authorities()?;
        let versions = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?;
        let trusting = if self.pins.is_empty() {
            versions.with_root_certificates(authorities)
        } else {
            let pinned = Pinned::new(authorities, provider, self.pins.clone())?;
            versions.dangerous().with_custom_certificate_verifier(Arc::new(pinned))
        };
        let Some((certificate, key)) = &self.identity else {
            return Ok(trusting.with_no_client_auth());
        };
        let contents = secret_file::read(key, Placed::ByOperator)?;
        let private = PrivateKeyDer::from_pem_slice(&contents)
            .map_err(|source| TlsError::NoKey { path: key.clone(), source })?;
        trusting.with_client_auth_cert(certificates(certificate)?, private).map_err(|source| TlsError::Pair {
            certificate: certificate.clone(),
            key: key.clone(),
            source,
        })
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

/// The name that a server's certificate must have.
///
/// # Errors
/// When no certificate can have it.
pub fn server_name(name: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(name.to_owned()).map_err(|source| TlsError::Name { name: name.to_owned(), source })
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

#[cfg(test)]
mod tests {
    use std::env;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;
    use std::process::Command;
    use std::sync::Arc;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::server::WebPkiClientVerifier;
    use rustls::{ClientConnection, RootCertStore, ServerConfig, ServerConnection, crypto};

    use super::{ClientTls, TlsError, server_name};

    /// Set for a copy of a test that has authorities of its own as those of the host: the folder of the other files.
    const FOLDER: &str = "MINIMIZER_TEST_FOLDER";

    type Authority = CertifiedIssuer<'static, KeyPair>;

    fn authority(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    /// Writes `NAME.pem` and `NAME.key`, signed by the authority.
    fn sign(authority: &Authority, folder: &Path, name: &str) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![format!("{name}.example")]).unwrap();
        let certificate = params.signed_by(&key, authority).unwrap();
        fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
        let path = folder.join(format!("{name}.key"));
        fs::write(&path, key.serialize_pem()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// A folder with an authority in `ca.pem`, and certificates that it signed for a server and an agent.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let authority = authority("trusted");
        fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        sign(&authority, folder.path(), "server");
        sign(&authority, folder.path(), "agent");
        folder
    }

    fn agent(folder: &Path, ca: Option<&str>) -> ClientTls {
        let identity = Some((folder.join("agent.pem"), folder.join("agent.key")));
        ClientTls { ca: ca.map(|ca| folder.join(ca)), identity, pins: Vec::new() }
    }

    /// A handshake, in memory, with a server that lets in only whom the authority signed for.
    fn shake_hands(tls: &ClientTls, folder: &Path) -> Result<(), rustls::Error> {
        let provider = Arc::new(crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(folder.join("ca.pem")).unwrap()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(
                vec![CertificateDer::from_pem_file(folder.join("server.pem")).unwrap()],
                PrivateKeyDer::from_pem_file(folder.join("server.key")).unwrap(),
            )
            .unwrap();
        let name = server_name("server.example").unwrap();
        let mut client = ClientConnection::new(Arc::new(tls.config().unwrap()), name)?;
        let mut server = ServerConnection::new(Arc::new(config))?;
        while client.is_handshaking() || server.is_handshaking() {
            let mut octets = Vec::new();
            client.write_tls(&mut octets).unwrap();
            server.read_tls(&mut &*octets).unwrap();
            server.process_new_packets()?;
            octets.clear();
            server.write_tls(&mut octets).unwrap();
            client.read_tls(&mut &*octets).unwrap();
            client.process_new_packets()?;
        }
        Ok(())
    }

    #[test]
    fn a_server_is_trusted_by_the_authority_in_the_file() {
        let folder = folder();
        let folder = folder.path();
        shake_hands(&agent(folder, Some("ca.pem")), folder).unwrap();
        fs::write(folder.join("other.pem"), authority("other").pem()).unwrap();
        let error = shake_hands(&agent(folder, Some("other.pem")), folder).unwrap_err();
        assert!(error.to_string().contains("UnknownIssuer"), "{error}");
    }

    #[test]
    fn a_server_with_another_certificate_than_the_pinned_is_refused() {
        let folder = folder();
        let folder = folder.path();
        let certificate = CertificateDer::from_pem_file(folder.join("server.pem")).unwrap();
        let pin = crate::support::digest::sha256(&certificate);
        let pinned = |pins: &[&str]| ClientTls {
            pins: pins.iter().map(|pin| (*pin).to_owned()).collect(),
            ..agent(folder, Some("ca.pem"))
        };
        shake_hands(&pinned(&[&pin]), folder).unwrap();
        let other = "ab".repeat(32);
        shake_hands(&pinned(&[&other, &pin]), folder).unwrap();
        let error = shake_hands(&pinned(&[&other]), folder).unwrap_err();
        assert!(error.to_string().contains(&format!("shows the certificate {pin}")), "{error}");
        // A pin is no reason to trust whom no authority signed for.
        fs::write(folder.join("other.pem"), authority("other").pem()).unwrap();
        let untrusted = ClientTls { ca: Some(folder.join("other.pem")), ..pinned(&[&pin]) };
        assert!(shake_hands(&untrusted, folder).unwrap_err().to_string().contains("UnknownIssuer"));
    }

    #[test]
    fn a_server_is_trusted_by_the_authorities_of_the_host() {
        if let Some(folder) = env::var_os(FOLDER) {
            let folder = Path::new(&folder);
            return shake_hands(&agent(folder, None), folder).unwrap();
        }
        let folder = folder();
        fs::write(folder.path().join("other.pem"), authority("other").pem()).unwrap();
        fs::write(folder.path().join("none.pem"), "").unwrap();
        for (host, expected) in
            [("ca.pem", None), ("other.pem", Some("UnknownIssuer")), ("none.pem", Some("NoAuthorities"))]
        {
            // The variable belongs to the whole process: other tests must not run with it.
            let name = "support::tls::tests::a_server_is_trusted_by_the_authorities_of_the_host";
            let ended = Command::new(env::current_exe().unwrap())
                .args(["--exact", name, "--nocapture"])
                .env(FOLDER, folder.path())
                .env("SSL_CERT_FILE", folder.path().join(host))
                .env_remove("SSL_CERT_DIR")
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&ended.stdout) + String::from_utf8_lossy(&ended.stderr);
            assert_eq!(ended.status.success(), expected.is_none(), "{host}: {said}");
            assert!(said.contains("running 1 test") && said.contains(expected.unwrap_or("")), "{said}");
        }
    }

    #[test]
    fn files_that_cannot_be_used_are_named_with_the_fix() {
        let folder = folder();
        let path = folder.path();
        fs::copy(path.join("agent.key"), path.join("open.key")).unwrap();
        fs::set_permissions(path.join("open.key"), fs::Permissions::from_mode(0o644)).unwrap();
        let refused = |ca: &str, certificate: &str, key: &str| -> TlsError {
            let identity = Some((path.join(certificate), path.join(key)));
            ClientTls { ca: Some(path.join(ca)), identity, pins: Vec::new() }.config().unwrap_err()
        };
        for (ca, certificate, key, part) in [
            ("none.pem", "agent.pem", "agent.key", "none.pem: no certificates can be read"),
            ("agent.key", "agent.pem", "agent.key", "agent.key: has no certificate in it"),
            ("ca.pem", "agent.pem", "open.key", "chmod 600"),
            ("ca.pem", "agent.pem", "server.key", "is it the key of the certificate?"),
        ] {
            let said = refused(ca, certificate, key).to_string();
            assert!(said.contains(part), "{said}");
        }
        let said = server_name("a b").unwrap_err().to_string();
        assert!(said.contains("`a b` cannot be in a certificate"), "{said}");
    }
}
