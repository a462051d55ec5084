//! Where the policy lets the records of a recipient go: a sink chooses among these servers, and no others.

use thiserror::Error;

use crate::policy::model::{Destination, Policy};
use crate::sinks::config::SinkConfig;

/// A sink sends records where the policy does not let them go.
#[derive(Debug, Error)]
pub enum UnfitDestination {
    /// The policy does not list the server.
    #[error(
        "sink {sink}: the policy {policy} does not let the records of {recipient} go to {server}; it allows {allowed}: name one of \
         these, or have the policy changed"
    )]
    NotListed {
        /// Name of the sink.
        sink: String,
        /// Name of the policy.
        policy: String,
        /// Name of the recipient.
        recipient: String,
        /// The server.
        server: String,
        /// The servers that it lists.
        allowed: String,
    },
    /// A signature is required, and the policy does not say where records go.
    #[error(
        "sink {sink}: a signature is required, and the signed policy {policy} does not say to which servers the records of \
         {recipient} may go: list {server} under `destinations` of {recipient}, and sign that"
    )]
    Unsaid {
        /// Name of the sink.
        sink: String,
        /// Name of the policy.
        policy: String,
        /// Name of the recipient.
        recipient: String,
        /// The server.
        server: String,
    },
    /// The policy pins the server's certificate, and the sink does not ask for one.
    #[error(
        "sink {sink}: the policy {policy} pins the certificate of {server}, and nothing shows one without TLS: give the sink \
         `tls`"
    )]
    InTheClear {
        /// Name of the sink.
        sink: String,
        /// Name of the policy.
        policy: String,
        /// The server.
        server: String,
    },
    /// The sink runs with other pins.
    #[error(
        "sink {sink}: the policy {policy} pins other certificates than the one in force, and a sink keeps those it was started \
         with: restart the agent"
    )]
    Repinned {
        /// Name of the sink.
        sink: String,
        /// Name of the policy.
        policy: String,
    },
}

/// Gives each sink the pins of its servers.
///
/// # Errors
/// If a sink sends records where the policy does not let them go.
pub fn pin(sinks: &mut [SinkConfig], policy: &Policy, must_be_listed: bool) -> Result<(), UnfitDestination> {
    for sink in sinks {
        let pins = pins(sink, policy, must_be_listed)?;
        sink.pin(pins);
    }
    Ok(())
}

/// Checks that a running sink sends only where the policy lets its records go, and with the policy's pins.
///
/// # Errors
/// If it does not.
pub fn check(sink: &SinkConfig, policy: &Policy, must_be_listed: bool) -> Result<(), UnfitDestination> {
    if pins(sink, policy, must_be_listed)? == sink.pins() {
        return Ok(());
    }
    Err(UnfitDestination::Repinned { sink: sink.name.clone(), policy: policy.name.clone() })
}

/// The certificates that the sink's servers may show, in order; any if empty. A recipient that the policy lacks is told
/// elsewhere.
fn pins(sink: &SinkConfig, policy: &Policy, must_be_listed: bool) -> Result<Vec<String>, UnfitDestination> {
    let Some(recipient) = policy.recipients.iter().find(|recipient| recipient.name == sink.recipient) else {
        return Ok(Vec::new());
    };
    let (name, policy, who) = (sink.name.clone(), policy.name.clone(), recipient.name.clone());
    let mut pins = Vec::new();
    for server in sink.servers() {
        let Some(listed) = &recipient.destinations else {
            if must_be_listed {
                return Err(UnfitDestination::Unsaid { sink: name, policy, recipient: who, server });
            }
            continue;
        };
        let mut same = listed.iter().filter(|destination| server_of(destination) == server).peekable();
        if same.peek().is_none() {
            let allowed = match &**listed {
                [] => "no server".to_owned(),
                _ => listed.iter().map(server_of).collect::<Vec<_>>().join(", "),
            };
            return Err(UnfitDestination::NotListed { sink: name, policy, recipient: who, server, allowed });
        }
        let of_server: Vec<_> = same.filter_map(|destination| destination.certificate.clone()).collect();
        if !of_server.is_empty() && !sink.is_encrypted() {
            return Err(UnfitDestination::InTheClear { sink: name, policy, server });
        }
        pins.extend(of_server);
    }
    pins.sort_unstable();
    pins.dedup();
    Ok(pins)
}

/// A server as agent.toml writes it.
fn server_of(destination: &Destination) -> String {
    let Destination { host, port, .. } = destination;
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{check, pin};
    use crate::commands::config::Config;
    use crate::policy::model::Policy;
    use crate::sinks::config::SinkConfig;

    fn policy(destinations: &str) -> Policy {
        let text = format!(
            "name = \"p\"\n[[recipients]]\nname = \"soc\"\npurpose = \"to look\"\n{destinations}\nfields = {{ vlanId = \"exact\" }}\n"
        );
        Policy::parse(&text, Path::new("p.toml")).unwrap_or_else(|error| panic!("{error}"))
    }

    fn sinks(kind: &str) -> Vec<SinkConfig> {
        let text = format!("[[sinks]]\nname = \"s\"\nrecipient = \"soc\"\n{kind}\n");
        Config::parse(&text, Path::new("agent.toml")).unwrap_or_else(|error| panic!("{error}")).sinks
    }

    fn server(host: &str, port: u16, rest: &str) -> String {
        format!("{{ host = \"{host}\", port = {port}, country = \"JP\"{rest} }}")
    }

    #[test]
    fn a_sink_chooses_among_what_the_policy_lists() {
        let listed = policy(&format!(
            "destinations = [{}, {}]",
            server("c.example", 4739, ""),
            server("2001:db8::1", 9092, "")
        ));
        let said = |kind: &str, policy: &Policy, must_be_listed: bool| {
            pin(&mut sinks(kind), policy, must_be_listed).map_err(|error| error.to_string())
        };
        for kind in [
            "ipfix = { collector = \"c.example:4739\" }",
            "files = { directory = \".\", format = \"json-lines\" }",
            "kafka = { brokers = [\"[2001:db8::1]:9092\", \"c.example:4739\"], topic = \"t\" }",
        ] {
            assert_eq!(said(kind, &listed, true), Ok(()), "{kind}");
        }
        for (kind, server) in [
            ("ipfix = { collector = \"c.example:4740\" }", "c.example:4740"),
            ("ipfix = { collector = \"d.example:4739\", transport = \"tcp\" }", "d.example:4739"),
            ("kafka = { brokers = [\"c.example:4739\", \"e.example:1\"], topic = \"t\" }", "e.example:1"),
        ] {
            let refused = said(kind, &listed, false).expect_err(kind);
            let part = format!(
                "does not let the records of soc go to {server}; it allows c.example:4739, [2001:db8::1]:9092"
            );
            assert!(refused.contains(&part), "{refused}");
        }
        let kind = "ipfix = { collector = \"c.example:4739\" }";
        assert!(
            said(kind, &policy("destinations = []"), false)
                .expect_err("none")
                .contains("it allows no server")
        );
        // Without a list they may go anywhere, unless the policy has to be signed.
        assert_eq!(said(kind, &policy(""), false), Ok(()));
        assert!(
            said(kind, &policy(""), true)
                .expect_err("unsaid")
                .contains("list c.example:4739 under `destinations`")
        );
    }

    #[test]
    fn a_pin_needs_tls_and_lasts_until_a_restart() {
        let [one, other] = ["ab", "cd"].map(|octet| {
            let pin = format!(", certificate_sha256 = \"{}\"", octet.repeat(32));
            policy(&format!("destinations = [{}]", server("c.example", 9093, &pin)))
        });
        let clear = "kafka = { brokers = [\"c.example:9093\"], topic = \"t\" }";
        let said = pin(&mut sinks(clear), &one, false).expect_err("is in the clear").to_string();
        assert!(said.contains("pins the certificate of c.example:9093"), "{said}");
        let mut encrypted = sinks("kafka = { brokers = [\"c.example:9093\"], topic = \"t\", tls = {} }");
        pin(&mut encrypted, &one, false).expect("has TLS");
        assert_eq!(encrypted[0].pins(), ["ab".repeat(32)]);
        check(&encrypted[0], &one, true).expect("is the same");
        let said = check(&encrypted[0], &other, true).expect_err("is another").to_string();
        assert!(said.contains("restart the agent"), "{said}");
    }
}
