//! The IPFIX sink: sends records over UDP, TCP or TLS (RFC 7011), or writes them to files (RFC 5655).

mod anonymization;
mod carrier;
mod clash;
mod collector;
mod config;
mod connect;
mod element;
mod exporter;
mod files;
mod icmp;
mod layout;
mod options;
mod outbox;
mod pace;
mod stream;
mod tls;
mod udp;

pub(super) use clash::refuse as refuse_clashes;
pub use config::{IpfixConfig, IpfixFile};
