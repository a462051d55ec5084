//! Refuses sinks that a collector could not tell from each other: one observation domain to one place.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::collector::Collector;
use super::config::{IpfixConfig, IpfixFile};
use crate::support::toml::Document;

/// Refuses each of these sinks, by their names, that has the observation domain, the transport, the port and the host of one
/// before it. A host is the same if its name or one of its addresses is.
pub(in crate::sinks) fn refuse(sinks: &[(&str, &IpfixFile, &IpfixConfig)], document: &mut Document<'_>) {
    let mut places: Vec<(&str, &IpfixConfig, Place)> = Vec::new();
    for (name, file, config) in sinks {
        let Some(mut place) = config.collector().and_then(|(_, collector)| Place::new(collector)) else {
            continue;
        };
        let transport = |config: &IpfixConfig| config.collector().map(|(transport, _)| transport);
        let mut alike = places.iter_mut().filter(|(_, other, _)| {
            other.observation_domain() == config.observation_domain() && transport(other) == transport(config)
        });
        if let Some((other, ..)) = alike.find_map(|other| place.is(&mut other.2).then_some(other)) {
            let message = format!(
                "the sink `{other}` sends the observation domain {} to the same collector, which could not tell the two apart: \
                 give each a number of its own in `observation_domain`",
                config.observation_domain()
            );
            match (&file.observation_domain, &file.collector) {
                (Some(domain), _) => document.refuse(domain, message),
                (None, Some(collector)) => document.refuse(collector, message),
                (None, None) => {}
            }
        }
        places.push((name, config, place));
    }
}

/// Where a collector listens.
struct Place {
    /// In lower case, without the dot of the root; empty for an address.
    host: String,
    port: u16,
    /// Those of an address; those of a name once they are needed.
    addresses: Option<Vec<IpAddr>>,
}

impl Place {
    fn new(collector: &str) -> Option<Self> {
        if let Ok(address) = collector.parse::<SocketAddr>() {
            let addresses = Some(vec![plain(address.ip())]);
            return Some(Self { host: String::new(), port: address.port(), addresses });
        }
        let (host, port) = collector.rsplit_once(':')?;
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        Some(Self { host, port: port.parse().ok()?, addresses: None })
    }

    /// Whether two places are one, as far as the name service knows.
    fn is(&mut self, other: &mut Self) -> bool {
        if self.port != other.port {
            return false;
        }
        if !self.host.is_empty() && self.host == other.host {
            return true;
        }
        let addresses = other.addresses();
        self.addresses().iter().any(|address| addresses.contains(address))
    }

    fn addresses(&mut self) -> &[IpAddr] {
        let (host, port) = (&self.host, self.port);
        self.addresses.get_or_insert_with(|| {
            let found = Collector::new(format!("{host}:{port}")).addresses().unwrap_or_default();
            found.into_iter().map(|address| plain(address.ip())).collect()
        })
    }
}

/// The address that packets go to: IPv4 may be written as IPv6, and this host as no host in particular.
fn plain(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        address if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::Place;

    fn are_one(one: &str, other: &str) -> bool {
        Place::new(one).unwrap().is(&mut Place::new(other).unwrap())
    }

    #[test]
    fn a_place_is_known_however_it_is_written() {
        for (one, other) in [
            ("192.0.2.1:4739", "192.0.2.1:4739"),
            ("192.0.2.1:4739", "[::ffff:192.0.2.1]:4739"),
            ("[2001:db8::1]:4739", "[2001:0db8:0::0:1]:4739"),
            ("none.invalid:4739", "None.INVALID.:4739"),
            ("localhost:4739", "127.0.0.1:4739"),
            ("0.0.0.0:4739", "localhost:4739"),
        ] {
            assert!(are_one(one, other), "{one} {other}");
        }
        for (one, other) in [
            ("192.0.2.1:4739", "192.0.2.1:4740"),
            ("192.0.2.1:4739", "192.0.2.2:4739"),
            ("none.invalid:4739", "nobody.invalid:4739"),
            ("none.invalid:4739", "192.0.2.1:4739"),
        ] {
            assert!(!are_one(one, other), "{one} {other}");
        }
    }
}
