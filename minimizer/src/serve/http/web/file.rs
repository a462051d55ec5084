//! The file of a web configuration: its model, and the checks before it comes into force.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use hyper::header::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_saphyr::{Location, Spanned};

use super::WebConfig;
use super::client::ClientAuthType;
use super::tls::{self, ServerTls};
use crate::support::toml::{Finding, Findings};

/// Highest bcrypt cost: a check then takes some seconds. Each step doubles the time.
const COST_MAX: u32 = 16;
/// The headers that the format allows.
const HEADERS: [&str; 5] = [
    "Content-Security-Policy",
    "X-Frame-Options",
    "X-Content-Type-Options",
    "X-XSS-Protection",
    "Strict-Transport-Security",
];

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WebFile {
    tls_server_config: Option<Spanned<TlsSection>>,
    http_server_config: Option<HttpSection>,
    basic_auth_users: Option<BTreeMap<String, Spanned<String>>>,
    rate_limit: Option<Spanned<IgnoredAny>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsSection {
    cert: Option<Spanned<String>>,
    key: Option<Spanned<String>>,
    client_ca: Option<Spanned<String>>,
    cert_file: Option<Spanned<String>>,
    key_file: Option<Spanned<String>>,
    client_ca_file: Option<Spanned<String>>,
    client_auth_type: Option<Spanned<ClientAuthType>>,
    client_allowed_sans: Option<Spanned<Vec<String>>>,
    min_version: Option<Spanned<String>>,
    max_version: Option<Spanned<String>>,
    cipher_suites: Option<Vec<Spanned<String>>>,
    curve_preferences: Option<Vec<Spanned<String>>>,
    prefer_server_cipher_suites: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HttpSection {
    http2: Option<Spanned<bool>>,
    headers: Option<BTreeMap<String, Spanned<String>>>,
}

/// Parses the text of the file at `path`. `read` reads the files that it names.
///
/// # Errors
/// All that is wrong, each with its place.
pub fn parse(
    text: &str,
    path: &Path,
    read: impl FnMut(&Path) -> io::Result<Vec<u8>>,
) -> Result<WebConfig, Findings> {
    let mut check = WebFileCheck { path, read, findings: Vec::new() };
    let options = serde_saphyr::options! { with_snippet: false };
    let file = match serde_saphyr::from_str_with_options::<Option<WebFile>>(text, options) {
        Ok(file) => file.unwrap_or_default(),
        Err(error) => {
            let location = error.location().unwrap_or(Location::UNKNOWN);
            check.refuse(location, error.without_snippet().to_string());
            return Err(Findings(check.findings));
        }
    };
    let config = check.config(file);
    if check.findings.is_empty() { Ok(config) } else { Err(Findings(check.findings)) }
}

struct WebFileCheck<'path, Read> {
    path: &'path Path,
    read: Read,
    findings: Vec<Finding>,
}

impl<Read: FnMut(&Path) -> io::Result<Vec<u8>>> WebFileCheck<'_, Read> {
    fn refuse(&mut self, at: Location, message: impl Into<String>) {
        let number = |number: u64| usize::try_from(number).unwrap_or(0);
        self.findings.push(Finding {
            file: self.path.display().to_string(),
            line: number(at.line()).max(1),
            column: number(at.column()),
            message: message.into(),
        });
    }

    /// The value; or `None`, and a finding that says what is wrong with it.
    fn value<T>(&mut self, at: Location, value: Result<T, String>) -> Option<T> {
        value.map_err(|message| self.refuse(at, message)).ok()
    }

    fn config(&mut self, file: WebFile) -> WebConfig {
        if let Some(limit) = file.rate_limit {
            self.refuse(
                limit.referenced,
                "`rate_limit` is not supported by this agent, which limits connections and times: leave it out",
            );
        }
        let http = file.http_server_config;
        let (http2, headers) = http.map_or((None, None), |http| (http.http2, http.headers));
        if let Some(http2) = http2.filter(|http2| http2.value) {
            self.refuse(
                http2.referenced,
                "`http2` is not supported by this agent, which answers HTTP/1.1: write false, or leave it out",
            );
        }
        let users = file.basic_auth_users.unwrap_or_default();
        for (user, hash) in &users {
            self.user(user, hash);
        }
        WebConfig {
            tls: file.tls_server_config.and_then(|tls| self.tls(tls)),
            users: users.into_iter().map(|(user, hash)| (user, hash.value)).collect(),
            headers: headers.into_iter().flatten().filter_map(|header| self.header(header)).collect(),
        }
    }

    fn user(&mut self, user: &str, hash: &Spanned<String>) {
        if user.is_empty() || user.contains(':') {
            self.refuse(hash.referenced, format!("`{user}`: a user has a name without a colon"));
        }
        match hash.value.parse::<bcrypt::HashParts>() {
            Ok(parts) if parts.get_cost() > COST_MAX => {
                self.refuse(
                    hash.referenced,
                    format!("a bcrypt cost above {COST_MAX} takes too long for each scrape"),
                );
            }
            Ok(_) => {}
            // The value may be the password itself, so the message must not repeat it.
            Err(_) => self.refuse(
                hash.referenced,
                format!("the password of `{user}` is no bcrypt hash; 'htpasswd -nBC 10 {user}' makes one"),
            ),
        }
    }

    fn header(&mut self, (name, value): (String, Spanned<String>)) -> Option<(HeaderName, HeaderValue)> {
        let at = value.referenced;
        if !HEADERS.contains(&name.as_str()) {
            self.refuse(at, format!("the header `{name}` cannot be set: allowed are {}", HEADERS.join(", ")));
            return None;
        }
        let allowed: &[&str] = match name.as_str() {
            "X-Frame-Options" => &["deny", "sameorigin"],
            "X-Content-Type-Options" => &["nosniff"],
            _ => &[],
        };
        let value = value.value;
        if value.is_empty() {
            return None;
        }
        if !allowed.is_empty() && !allowed.iter().any(|allowed| value.eq_ignore_ascii_case(allowed)) {
            self.refuse(at, format!("`{value}`: allowed are {}", allowed.join(" and ")));
            return None;
        }
        let name = self.value(at, name.parse::<HeaderName>().map_err(|error| error.to_string()))?;
        let value = HeaderValue::try_from(value).map_err(|error| error.to_string());
        Some((name, self.value(at, value)?))
    }

    fn tls(&mut self, tls: Spanned<TlsSection>) -> Option<std::sync::Arc<rustls::ServerConfig>> {
        let at = tls.referenced;
        let tls = tls.value;
        let before = self.findings.len();
        let certificates = self.pem("cert", tls.cert, tls.cert_file, at, tls::certificates);
        let key = self.pem("key", tls.key, tls.key_file, at, tls::private_key);
        let client_auth = tls.client_auth_type.as_ref().map_or(ClientAuthType::default(), |kind| kind.value);
        let auth_at = tls.client_auth_type.as_ref().map_or(at, |kind| kind.referenced);
        let has_ca = tls.client_ca.is_some() || tls.client_ca_file.is_some();
        let client_ca = match (has_ca, client_auth) {
            (true, ClientAuthType::NoClientCert) => {
                self.refuse(
                    auth_at,
                    "there is a client CA and no certificate is asked for: write `client_auth_type: \
                     RequireAndVerifyClientCert`",
                );
                None
            }
            (true, _) => self.pem("client_ca", tls.client_ca, tls.client_ca_file, at, tls::certificates),
            (false, kind) if kind.is_verified() => {
                self.refuse(
                    auth_at,
                    "who signs the certificates of clients is not said: name it with `client_ca_file`",
                );
                None
            }
            (false, _) => None,
        };
        if let Some(names) = tls.client_allowed_sans.as_ref().filter(|names| !names.value.is_empty())
            && !client_auth.is_required()
        {
            self.refuse(
                names.referenced,
                "`client_allowed_sans` needs a `client_auth_type` under which every client has a certificate: \
                 RequireAndVerifyClientCert or RequireAnyClientCert",
            );
        }
        let min = tls.min_version.and_then(|name| self.value(name.referenced, tls::version(&name.value)));
        let max_at = tls.max_version.as_ref().map_or(at, |name| name.referenced);
        let max = tls.max_version.and_then(|name| self.value(name.referenced, tls::version(&name.value)));
        let [min, max] = [min.unwrap_or(&rustls::version::TLS12), max.unwrap_or(&rustls::version::TLS13)];
        let versions: Vec<_> = [&rustls::version::TLS13, &rustls::version::TLS12]
            .into_iter()
            .filter(|version| {
                let number = u16::from(version.version);
                (u16::from(min.version)..=u16::from(max.version)).contains(&number)
            })
            .collect();
        if versions.is_empty() {
            self.refuse(max_at, "`max_version` is below `min_version`: no version is left");
        }
        let listed = tls.cipher_suites.unwrap_or_default();
        let cipher_suites =
            listed.into_iter().filter_map(|name| self.value(name.referenced, tls::cipher_suite(&name.value)));
        let cipher_suites = cipher_suites.collect();
        let listed = tls.curve_preferences.unwrap_or_default();
        let curves =
            listed.into_iter().filter_map(|name| self.value(name.referenced, tls::curve(&name.value)));
        let curves = curves.collect();
        if self.findings.len() > before {
            return None;
        }
        let tls = ServerTls {
            certificates: certificates?,
            key: key?,
            client_auth,
            client_ca: client_ca.unwrap_or_default(),
            client_names: tls.client_allowed_sans.map(|names| names.value).unwrap_or_default(),
            versions,
            cipher_suites,
            curves,
            is_server_order: tls.prefer_server_cipher_suites.unwrap_or(true),
        };
        self.value(at, tls.build())
    }

    /// The content of a PEM text, which is in the configuration itself or in a file that it names.
    fn pem<T>(
        &mut self,
        key: &str,
        text: Option<Spanned<String>>,
        file: Option<Spanned<String>>,
        section: Location,
        parse: impl Fn(&[u8]) -> Result<T, String>,
    ) -> Option<T> {
        match (text, file) {
            (Some(text), None) => {
                let parsed = parse(text.value.as_bytes()).map_err(|error| format!("`{key}` {error}"));
                self.value(text.referenced, parsed)
            }
            (None, Some(file)) => {
                let path: PathBuf = self.path.parent().unwrap_or(Path::new("")).join(&file.value);
                let read =
                    (self.read)(&path).map_err(|error| format!("cannot read {}: {error}", path.display()));
                let octets = self.value(file.referenced, read)?;
                let parsed = parse(&octets).map_err(|error| format!("{} {error}", path.display()));
                self.value(file.referenced, parsed)
            }
            (Some(_), Some(file)) => {
                self.refuse(file.referenced, format!("`{key}` says it already: keep one of them"));
                None
            }
            (None, None) => {
                self.refuse(
                    section,
                    format!("`tls_server_config` needs `{key}_file` (or `{key}`, the text itself)"),
                );
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rcgen::{CertificateParams, KeyPair};
    use rustls::ProtocolVersion;

    use super::super::WebConfig;
    use super::parse;

    /// Parses with files that are there: a certificate, its key, and another key.
    fn parsed(text: &str) -> Result<WebConfig, String> {
        let [key, other] = [0, 1].map(|_| KeyPair::generate().expect("a key"));
        let certificate = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let certificate = certificate.self_signed(&key).expect("a certificate");
        parse(text, Path::new("/etc/minimizer/web.yml"), |path| match path.to_str() {
            Some("/etc/minimizer/cert") => Ok(certificate.pem().into_bytes()),
            Some("/etc/minimizer/key") => Ok(key.serialize_pem().into_bytes()),
            Some("/etc/minimizer/other") => Ok(other.serialize_pem().into_bytes()),
            Some("/etc/minimizer/empty") => Ok(Vec::new()),
            _ => Err(std::io::ErrorKind::NotFound.into()),
        })
        .map_err(|findings| findings.to_string())
    }

    #[test]
    fn nothing_has_to_be_said() {
        for text in ["", "# nothing\n", "{}", "basic_auth_users:\n", "http_server_config: {http2: false}\n"] {
            let config = parsed(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert!(config.tls.is_none() && config.users.is_empty() && config.headers.is_empty());
        }
    }

    #[test]
    fn everything_can_be_said() {
        let config = parsed(
            "tls_server_config:\n  cert_file: cert\n  key_file: /etc/minimizer/key\n  client_ca_file: cert\n  \
             client_auth_type: RequireAndVerifyClientCert\n  client_allowed_sans: [a, 192.0.2.1]\n  min_version: TLS12\n  \
             max_version: TLS13\n  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]\n  \
             curve_preferences: [X25519, CurveP256]\n  prefer_server_cipher_suites: false\n\
             http_server_config:\n  http2: false\n  headers:\n    Strict-Transport-Security: max-age=1\n    \
             X-Frame-Options: deny\n    X-XSS-Protection: ''\n\
             basic_auth_users:\n  alice: $2y$10$mDwo.lAisC94iLAyP81MCesa29IzH37oigHC/42V2pdJlUprsJPze\n",
        );
        let config = config.unwrap_or_else(|error| panic!("{error}"));
        let tls = config.tls.expect("there is TLS");
        assert!(!tls.ignore_client_order);
        let suites = &tls.crypto_provider().cipher_suites;
        let old = suites.iter().filter(|suite| suite.version().version == ProtocolVersion::TLSv1_2).count();
        assert_eq!((old, suites.len()), (1, 4), "three of TLS 1.3 stay");
        assert_eq!(tls.crypto_provider().kx_groups.len(), 2);
        assert_eq!((config.users.len(), config.headers.len()), (1, 2));
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_place() {
        let pair = "tls_server_config:\n  cert_file: cert\n  key_file: key\n";
        for (text, part) in [
            ("tls_config: {}\n".to_owned(), "web.yml:1:1: unknown field `tls_config`"),
            ("tls_server_config:\n  cert_file: cert\n".to_owned(), "needs `key_file`"),
            (
                "tls_server_config:\n  cert_file: absent\n  key_file: key\n".to_owned(),
                "web.yml:2:14: cannot read /etc/minimizer/absent",
            ),
            ("tls_server_config:\n  cert_file: empty\n  key_file: key\n".to_owned(), "no certificate in PEM"),
            ("tls_server_config:\n  cert_file: cert\n  key_file: empty\n".to_owned(), "no private key"),
            ("tls_server_config:\n  cert_file: cert\n  key_file: other\n".to_owned(), "web.yml:2:3: "),
            (format!("{pair}  key: abc\n"), "`key` says it already"),
            (format!("{pair}  min_version: TLS10\n"), "web.yml:4:16: TLS10 is not offered"),
            (format!("{pair}  min_version: TLS13\n  max_version: TLS12\n"), "no version is left"),
            (format!("{pair}  cipher_suites: [TLS_RSA_WITH_AES_128_CBC_SHA]\n"), "web.yml:4:19: `TLS_RSA"),
            (format!("{pair}  curve_preferences: [CurveP521]\n"), "allowed are X25519, CurveP256, CurveP384"),
            (format!("{pair}  client_auth_type: Maybe\n"), "web.yml:4:21: unknown variant `Maybe`"),
            (
                format!("{pair}  client_auth_type: RequireAndVerifyClientCert\n"),
                "name it with `client_ca_file`",
            ),
            (format!("{pair}  client_ca_file: cert\n"), "no certificate is asked for"),
            (format!("{pair}  client_allowed_sans: [a]\n"), "`client_allowed_sans` needs"),
            ("http_server_config:\n  http2: true\n".to_owned(), "web.yml:2:10: `http2` is not supported"),
            (
                "http_server_config:\n  headers:\n    Server: a\n".to_owned(),
                "the header `Server` cannot be set",
            ),
            (
                "http_server_config:\n  headers:\n    X-Frame-Options: all\n".to_owned(),
                "allowed are deny and sameorigin",
            ),
            (
                "basic_auth_users:\n  alice: hunter2\n".to_owned(),
                "web.yml:2:10: the password of `alice` is no bcrypt",
            ),
            ("rate_limit:\n  interval: 1s\n".to_owned(), "`rate_limit` is not supported"),
            ("basic_auth_users:\n  a: b\n  a: c\n".to_owned(), "web.yml:3:3"),
            ("tls_server_config: [\n".to_owned(), "web.yml:"),
        ] {
            let said = parsed(&text).err().unwrap_or_else(|| panic!("{text} is accepted"));
            assert!(said.contains(part), "{text}: {said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}
