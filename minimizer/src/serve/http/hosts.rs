//! By which names this host may be asked: a page of another site must not read it through a name of its own (DNS
//! rebinding).
//!
//! An attacker can let any name of his point to this host, and a browser then takes its answers for those of the
//! attacker's site. He can do so with neither an address, nor `localhost`, nor a name that is not his.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::header::{HOST, HeaderMap, HeaderValue, ORIGIN};
use hyper::{Request, Version};

/// How old the names of this host may be when a name is refused: DHCP may have set another one.
const OWN_NAMES_AGE_MAX: Duration = Duration::from_secs(10);
/// Longest name in the DNS (RFC 1035, 2.3.4).
const NAME_OCTETS_MAX: usize = 253;

/// The name of a host, in lower case and without a dot at its end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostName(String);

impl FromStr for HostName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = text.strip_suffix('.').unwrap_or(text);
        let is_name = !name.is_empty()
            && name.len() <= NAME_OCTETS_MAX
            && name.split('.').all(|label| {
                // Docker's service names have underscores.
                !label.is_empty()
                    && label.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-_".contains(&octet))
            });
        if is_name {
            Ok(Self(name.to_ascii_lowercase()))
        } else {
            Err("allowed is the name of a host, like \"minimizer.example.org\", without scheme and port"
                .to_owned())
        }
    }
}

/// Why a request is not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misdirected {
    /// It does not say which host it means, or says it twice.
    Unsaid,
    /// It means a host that this one is not.
    Host(String),
    /// The page of another site asks.
    Origin(String),
}

/// The names by which this host may be asked.
#[derive(Debug)]
pub struct Hosts {
    configured: BTreeSet<HostName>,
    /// Its own names, and when they were read.
    own: Mutex<(Instant, BTreeSet<HostName>)>,
}

impl Hosts {
    /// The names of the host itself, and `configured`.
    pub fn new(configured: impl IntoIterator<Item = HostName>) -> Self {
        Self {
            configured: configured.into_iter().collect(),
            own: Mutex::new((Instant::now(), read_own_names())),
        }
    }

    /// Checks which host a request means, and which site asks. `is_loopback` says whether it came to a loopback address.
    ///
    /// # Errors
    /// See [`Misdirected`].
    pub fn check<Body>(&self, request: &Request<Body>, is_loopback: bool) -> Result<(), Misdirected> {
        let header = only(request.headers(), &HOST)?;
        // The name in the first line counts before that in the header (RFC 9112, 3.2.2).
        let authority = request.uri().authority().map(|authority| authority.as_str());
        let host = match (authority, header) {
            // Clients of that time know no name, and no browser is among them.
            (None, None) if request.version() <= Version::HTTP_10 => None,
            (None, None) => return Err(Misdirected::Unsaid),
            (authority, header) => authority.or(header),
        };
        for said in [authority, header].into_iter().flatten() {
            if !self.is_known(name_of(said), is_loopback) {
                return Err(Misdirected::Host(name_of(said).to_owned()));
            }
        }
        // Browsers say the site whose page asks, unless it is that of the answer.
        match only(request.headers(), &ORIGIN)? {
            Some(origin) if !self.is_own_site(origin, host) => Err(Misdirected::Origin(origin.to_owned())),
            _ => Ok(()),
        }
    }

    fn is_known(&self, name: &str, is_loopback: bool) -> bool {
        if is_address(name) {
            return true;
        }
        let Ok(name) = name.parse::<HostName>() else { return false };
        (is_loopback && name.0 == "localhost") || self.configured.contains(&name) || self.is_own(&name)
    }

    fn is_own(&self, name: &HostName) -> bool {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if !own.1.contains(name) && own.0.elapsed() > OWN_NAMES_AGE_MAX {
            *own = (Instant::now(), read_own_names());
        }
        own.1.contains(name)
    }

    fn is_own_site(&self, origin: &str, host: Option<&str>) -> bool {
        let Some((_, authority)) = origin.split_once("://") else { return false };
        host.is_some_and(|host| host.eq_ignore_ascii_case(authority))
            || name_of(authority).parse().is_ok_and(|name: HostName| self.configured.contains(&name))
    }
}

/// The one value of a field.
fn only<'request>(
    headers: &'request HeaderMap<HeaderValue>,
    field: &hyper::header::HeaderName,
) -> Result<Option<&'request str>, Misdirected> {
    let mut values = headers.get_all(field).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| Misdirected::Unsaid),
        (Some(_), Some(_)) => Err(Misdirected::Unsaid),
    }
}

/// The name before the port.
fn name_of(authority: &str) -> &str {
    let authority = authority.trim();
    if authority.starts_with('[') {
        return authority.find(']').map_or(authority, |end| &authority[..=end]);
    }
    authority.rsplit_once(':').map_or(authority, |(name, _)| name)
}

fn is_address(name: &str) -> bool {
    match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        // The zone of a link-local address is the client's business.
        Some(address) => address.split('%').next().is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()),
        None => name.parse::<IpAddr>().is_ok(),
    }
}

fn read_own_names() -> BTreeSet<HostName> {
    let uname = rustix::system::uname();
    let text = |path| fs::read_to_string(path).unwrap_or_default();
    let domain = uname.domainname().to_string_lossy().into_owned();
    own_names(&uname.nodename().to_string_lossy(), &domain, &text("/etc/hosts"), &text("/etc/resolv.conf"))
}

/// The host's name, short and with the domains that its own files give to it. Nobody else is asked: who answers for the
/// DNS could be the attacker.
fn own_names(node: &str, domain: &str, hosts: &str, resolver: &str) -> BTreeSet<HostName> {
    let short = node.split('.').next().unwrap_or(node).to_ascii_lowercase();
    if short.is_empty() || short == "localhost" {
        return BTreeSet::new();
    }
    let mut names = vec![node.to_ascii_lowercase(), short.clone()];
    for line in hosts.lines() {
        let of_line: Vec<_> = line
            .split('#')
            .next()
            .unwrap_or("")
            .split_whitespace()
            .skip(1)
            .map(str::to_ascii_lowercase)
            .collect();
        if of_line.iter().any(|name| names.contains(name)) {
            names.extend(of_line.into_iter().filter(|name| name.starts_with(&format!("{short}."))));
        }
    }
    let searched = resolver.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        words.next().filter(|word| ["search", "domain"].contains(word)).map(|_| words)
    });
    let domains = searched.flatten().chain((!domain.starts_with('(')).then_some(domain));
    names.extend(domains.map(|domain| format!("{short}.{domain}")));
    names.iter().filter_map(|name| name.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use hyper::{Request, Version};

    use super::{HostName, Hosts, Misdirected, own_names};

    fn check(
        hosts: &Hosts,
        version: Version,
        fields: &[(&str, &str)],
        is_loopback: bool,
    ) -> Result<(), Misdirected> {
        let mut request = Request::builder().version(version).uri("/metrics");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        hosts.check(&request.body(()).expect("a request"), is_loopback)
    }

    fn names(names: &[&str]) -> Vec<HostName> {
        names.iter().map(|name| name.parse().expect("a name")).collect()
    }

    #[test]
    fn only_names_that_are_not_an_attackers_pass() {
        let hosts = Hosts::new(names(&["Minimizer.example.org", "agent_1"]));
        let own = rustix::system::uname().nodename().to_string_lossy().into_owned();
        for (host, is_loopback, passes) in [
            ("127.0.0.1", true, true),
            ("192.0.2.1:14739", false, true),
            ("[::1]:14739", true, true),
            ("[fe80::1%25eth0]", false, true),
            ("localhost:14739", true, true),
            ("LocalHost.", true, true),
            ("localhost", false, false),
            ("minimizer.EXAMPLE.org.:14739", false, true),
            ("agent_1:1", false, true),
            (own.as_str(), false, own != "localhost"),
            ("example.org", false, false),
            ("evil.minimizer.example.org", false, false),
            ("127.0.0.1.evil.example", true, false),
            ("localhost.evil.example", true, false),
            ("[evil]", true, false),
            ("", true, false),
            ("a b", true, false),
        ] {
            let said = check(&hosts, Version::HTTP_11, &[("host", host)], is_loopback);
            assert_eq!(said.is_ok(), passes, "{host}: {said:?}");
        }
    }

    #[test]
    fn a_request_says_which_host_it_means_once() {
        let hosts = Hosts::new(Vec::new());
        assert_eq!(check(&hosts, Version::HTTP_10, &[], false), Ok(()));
        assert_eq!(check(&hosts, Version::HTTP_11, &[], false), Err(Misdirected::Unsaid));
        let twice = [("host", "127.0.0.1"), ("host", "127.0.0.1")];
        assert_eq!(check(&hosts, Version::HTTP_11, &twice, true), Err(Misdirected::Unsaid));
        let evil = Err(Misdirected::Host("evil.example".to_owned()));
        assert_eq!(check(&hosts, Version::HTTP_10, &[("host", "evil.example:80")], true), evil);
        let absolute = Request::builder().uri("http://evil.example/metrics").header("host", "127.0.0.1");
        assert_eq!(hosts.check(&absolute.body(()).expect("a request"), true), evil);
    }

    #[test]
    fn no_page_of_another_site_asks() {
        let hosts = Hosts::new(names(&["grafana.example"]));
        for (origin, passes) in [
            ("http://127.0.0.1:14739", true),
            ("https://grafana.example:3000", true),
            ("http://127.0.0.1:8000", false),
            ("http://evil.example", false),
            ("http://203.0.113.5:14739", false),
            ("null", false),
        ] {
            let fields = [("host", "127.0.0.1:14739"), ("origin", origin)];
            let said = check(&hosts, Version::HTTP_11, &fields, true);
            assert_eq!(said.is_ok(), passes, "{origin}: {said:?}");
        }
    }

    #[test]
    fn names_of_the_host_come_from_its_own_files() {
        let found = own_names(
            "Router1",
            "(none)",
            "127.0.1.1 router1.core.example router1 # router1.evil\n192.0.2.9 other.example\n",
            "# search no\nsearch example.net example.com\nnameserver 192.0.2.1\n",
        );
        let wanted = ["router1", "router1.core.example", "router1.example.net", "router1.example.com"];
        assert_eq!(found, names(&wanted).into_iter().collect());
        assert_eq!(own_names("localhost", "(none)", "", "search example"), [].into());
        let found = own_names("a.b.example", "nis.example", "", "");
        assert_eq!(found, names(&["a.b.example", "a", "a.nis.example"]).into_iter().collect());
    }

    #[test]
    fn a_name_has_no_scheme_and_no_port() {
        for text in ["", "http://a", "a:1", "a/b", "a..b", "*.example", "ä.example"] {
            let said = text.parse::<HostName>().expect_err(text);
            assert!(said.contains("without scheme and port"), "{said}");
        }
    }
}
