//! What is accepted of a Kafka sink, and what is refused, where and why.

use std::path::{Path, PathBuf};

use super::{Compression, KafkaConfig, KafkaFile, Mechanism, Sasl};
use crate::support::tls::ClientTls;
use crate::support::toml::Document;

fn check(text: &str) -> Result<KafkaConfig, String> {
    let mut document = Document::new("agent.toml".to_owned(), text);
    let file: KafkaFile = document.read().map_err(|error| error.to_string())?;
    let config = KafkaConfig::check(&file, &mut document, Path::new("/etc/minimizer"));
    document.finish().map_err(|error| error.to_string())?;
    Ok(config.expect("what is not refused is a configuration"))
}

#[test]
fn brokers_and_a_topic_are_enough() {
    let wanted = KafkaConfig {
        brokers: vec!["kafka-1.example.net:9092".to_owned(), "[2001:db8::1]:9092".to_owned()],
        topic: "minimizer".to_owned(),
        exporter: None,
        compression: Compression::None,
        records_per_message: 1,
        tls: None,
        sasl: None,
    };
    let said = "brokers = [\"kafka-1.example.net:9092\", \"[2001:db8::1]:9092\"]\ntopic = \"minimizer\"";
    assert_eq!(check(said), Ok(wanted));
}

#[test]
fn everything_can_be_said() {
    let wanted = KafkaConfig {
        brokers: vec!["k:1".to_owned()],
        topic: "t".to_owned(),
        exporter: Some("edge-1".to_owned()),
        compression: Compression::Zstd,
        records_per_message: 100,
        tls: Some(ClientTls {
            ca: Some(PathBuf::from("/etc/minimizer/ca.pem")),
            identity: Some((PathBuf::from("/etc/minimizer/c.pem"), PathBuf::from("/run/k.pem"))),
            pins: Vec::new(),
        }),
        sasl: Some(Sasl {
            mechanism: Mechanism::Plain,
            username: "minimizer".to_owned(),
            password_file: PathBuf::from("/etc/minimizer/password"),
        }),
    };
    let said = "brokers = [\"k:1\"]\ntopic = \"t\"\nexporter = \"edge-1\"\nacks = \"all\"\ncompression = \"zstd\"\n\
                format = \"json\"\npartition_by = \"tuple\"\nrecords_per_message = 100\n\
                tls = { ca = \"ca.pem\", certificate = \"c.pem\", key = \"/run/k.pem\" }\n\
                sasl = { mechanism = \"PLAIN\", username = \"minimizer\", password_file = \"password\" }";
    assert_eq!(check(said), Ok(wanted));
}

#[test]
fn without_a_file_of_authorities_those_of_the_host_are_trusted() {
    let base = "brokers = [\"k:1\"]\ntopic = \"t\"\n";
    let identity = (PathBuf::from("/etc/minimizer/c"), PathBuf::from("/etc/minimizer/k"));
    for (tls, identity) in [("", None), ("certificate = \"c\", key = \"k\"", Some(identity))] {
        let config = check(&format!("{base}tls = {{ {tls} }}")).expect("is enough");
        assert_eq!(config.tls, Some(ClientTls { ca: None, identity, pins: Vec::new() }));
    }
}

#[test]
fn what_is_refused_says_where_and_why() {
    let base = "brokers = [\"k:1\"]\ntopic = \"t\"\n";
    for (text, part) in [
        ("topic = \"t\"", "missing field `brokers`"),
        ("brokers = []\ntopic = \"t\"", "agent.toml:1:11: there is nobody to ask"),
        ("brokers = [\"k:1\", \"k\"]\ntopic = \"t\"", "agent.toml:1:19: `k`: wanted are a host and a port"),
        ("brokers = [\"k:0\"]\ntopic = \"t\"", "`k:0`: wanted"),
        ("brokers = [\"2001:db8::1:9092\"]\ntopic = \"t\"", "wanted"),
        ("brokers = [\"[::1]:1\"]\ntopic = \"t\"\ntls = { ca = \"c\" }", "name the broker"),
        ("brokers = [\"k:1\"]\ntopic = \"a b\"", "agent.toml:2:9: a topic's name"),
        ("brokers = [\"k:1\"]\ntopic = \"..\"", "a topic's name"),
        (&format!("{base}exporter = \"\""), "a host is named"),
        (&format!("{base}acks = \"leader\""), "agent.toml:3:8: `leader` is refused"),
        (&format!("{base}acks = \"none\""), "allowed is \"all\""),
        (&format!("{base}compression = \"brotli\""), "unknown variant `brotli`, expected one of `none`"),
        (&format!("{base}format = \"avro\""), "unknown variant `avro`"),
        (&format!("{base}partition_by = \"host\""), "unknown variant `host`"),
        (&format!("{base}records_per_message = 0"), "agent.toml:3:23: allowed are 1 to 1000"),
        (&format!("{base}records_per_message = 1001"), "allowed are 1 to 1000"),
        (&format!("{base}tls = {{ ca = \"ca\", key = \"k\" }}"), "add `certificate`"),
        (&format!("{base}tls = {{ ca = \"ca\", certificate = \"k\" }}"), "add `key`"),
        (&sasl("GSSAPI", "me"), "`GSSAPI`: allowed are \"SCRAM-SHA-512\""),
        (&sasl("PLAIN", "me"), "PLAIN sends the password"),
        (&sasl("SCRAM-SHA-256", ""), "the brokers know the agent by a name"),
        (&format!("{base}retries = 3"), "unknown field `retries`"),
    ] {
        let said = check(text).expect_err(text);
        assert!(said.contains(part), "{text}: {said}");
    }
}

fn sasl(mechanism: &str, username: &str) -> String {
    format!(
        "brokers = [\"k:1\"]\ntopic = \"t\"\n\
         sasl = {{ mechanism = \"{mechanism}\", username = \"{username}\", password_file = \"p\" }}"
    )
}
