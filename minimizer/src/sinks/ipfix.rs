//! The IPFIX sink: sends records over UDP, TCP or TLS (RFC 7011), or writes them to files (RFC 5655).

mod anonymization;
mod carrier;
mod collector;
mod config;
mod element;
mod exporter;
mod files;
mod layout;
mod options;
mod outbox;
mod pace;
mod stream;
mod tls;
mod udp;

pub use config::{IpfixConfig, IpfixFile};
