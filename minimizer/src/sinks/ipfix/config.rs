//! The configuration of an IPFIX sink in agent.toml, and its checks.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use schemars::JsonSchema;
use serde::Deserialize;

use super::carrier::Carrier;
use super::collector::Collector;
use super::exporter::Exporter;
use super::files::Files;
use super::options::Options;
use super::outbox::Outbox;
use super::pace::Pace;
use super::stream::Stream;
use super::tls::CollectorTls;
use super::udp::Udp;
use crate::delivery::ending::Ending;
use crate::delivery::sink::Sink;
use crate::support::scoped_address::ScopedAddress;
use crate::support::tls::{self, ClientTls};
use crate::support::toml::{At, Document};

/// Shorter messages have no room for a template with all fields and its headers.
const MESSAGE_OCTETS_MIN: u16 = 512;
/// The payload of the longest UDP datagram over IPv4.
const DATAGRAM_OCTETS_MAX: u16 = 65_507;
/// Fits into an Ethernet frame, also inside a tunnel.
const DATAGRAM_OCTETS: u16 = 1400;
/// Some collectors read no more of a stream at once.
const STREAM_OCTETS: u16 = 8192;
const OBSERVATION_DOMAIN: u32 = 1;
/// One call sends some hundred messages, and must not take longer than a few seconds.
const MESSAGES_PER_SECOND_MIN: u32 = 100;
const TEMPLATE_INTERVAL: Duration = Duration::from_secs(60);
const ROTATE_EVERY: Duration = Duration::from_secs(300);
const ROTATE_OCTETS: u64 = 256 << 20;

/// IPFIX, to a collector or into files: exactly one of `collector` and `directory` is given.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ipfix")]
pub struct IpfixFile {
    /// The collector, like "192.0.2.1:4739", "[2001:db8::1]:4739", "[fe80::1%eth0]:4739" or "collector.example:4739".
    pub collector: Option<At<String>>,
    /// How messages get there: "udp" (the default), "tcp" or "tls".
    pub transport: Option<At<TransportName>>,
    /// Number of this agent among those that the collector sees at the same address; 1 is the default.
    #[schemars(range(min = 1))]
    pub observation_domain: Option<At<u32>>,
    /// Whether options are sent beside the flows; true is the default. Without them a collector learns neither the names of
    /// interfaces nor what was lost, nor how fields were anonymized.
    pub options: Option<At<bool>>,
    /// Whether names of interfaces in options have 16 octets, for collectors that cannot read a variable length; false is the
    /// default.
    pub fixed_interface_names: Option<At<bool>>,
    /// Longest message in octets; 1400 is the default over UDP, and 8192 otherwise.
    #[schemars(range(min = 512))]
    pub message_octets: Option<At<u16>>,
    /// Most messages a second over UDP; 20000 is the default.
    #[schemars(range(min = 100))]
    pub messages_per_second: Option<At<u32>>,
    /// Time after which templates are sent again over UDP; "60s" is the default.
    pub template_interval: Option<At<String>>,
    /// Keys and certificates, for the transport "tls".
    pub tls: Option<At<CollectorTlsFile>>,
    /// Folder of files, relative to this file.
    pub directory: Option<At<PathBuf>>,
    /// Time after which another file is begun; "5m" is the default.
    pub rotate_every: Option<At<String>>,
    /// Size from which on another file is begun; "256MiB" is the default.
    pub rotate_octets: Option<At<String>>,
}

/// How messages get to a collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "ipfix_transport")]
pub enum TransportName {
    /// Datagrams, of which some may be lost.
    Udp,
    /// A stream.
    Tcp,
    /// An encrypted stream.
    Tls,
}

/// Keys and certificates.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ipfix_tls")]
pub struct CollectorTlsFile {
    /// PEM file of the authorities that may have signed the collector's certificate, relative to this file; those of the
    /// host when it is not given.
    pub ca: Option<At<PathBuf>>,
    /// PEM file of the certificate that is shown to the collector, followed by those between it and its authority.
    pub certificate: Option<At<PathBuf>>,
    /// PEM file of the key of that certificate. Only its owner may be allowed to read it.
    pub key: Option<At<PathBuf>>,
    /// The name in the collector's certificate; the host in `collector` when it is not given.
    pub server_name: Option<At<String>>,
}

/// A configured IPFIX sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpfixConfig {
    observation_domain: u32,
    message_octets: u16,
    options: Option<Options>,
    destination: Destination,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Destination {
    Udp { collector: String, template_interval: Duration, messages_per_second: Option<u32> },
    Stream { collector: String, tls: Option<CollectorTls> },
    Files { directory: PathBuf, rotate_every: Duration, rotate_octets: u64 },
}

impl IpfixConfig {
    /// Checks agent.toml, which is in `folder`; `None` when something is refused.
    pub fn check(file: &IpfixFile, document: &mut Document<'_>, folder: &Path) -> Option<Self> {
        let destination = match (&file.collector, &file.directory) {
            (Some(_), Some(directory)) => {
                document.refuse(directory, "`collector` is given too: messages go to one of them, and a second sink can serve the other");
                None
            }
            (Some(collector), None) => to_collector(file, collector, document, folder),
            (None, Some(directory)) => into_files(file, directory, document, folder),
            (None, None) => {
                let message = "either `collector` or `directory` must say where messages go";
                document.refuse_at(first_key(file).unwrap_or(0), message);
                None
            }
        };
        let is_udp = matches!(destination, Some(Destination::Udp { .. }));
        let message_octets = message_octets(file, is_udp, document);
        let observation_domain = match &file.observation_domain {
            Some(domain) if *domain.get() == 0 => {
                document.refuse(
                    domain,
                    "0 stands for no observation domain in particular: allowed are 1 and more",
                );
                None
            }
            domain => Some(domain.as_ref().map_or(OBSERVATION_DOMAIN, |domain| *domain.get())),
        };
        let options = options(file, document);
        Some(Self {
            observation_domain: observation_domain?,
            message_octets: message_octets?,
            options,
            destination: destination?,
        })
    }

    /// Transport, host and port of the collector; `None` for files.
    pub(in crate::sinks) fn collector(&self) -> Option<(TransportName, &str)> {
        match &self.destination {
            Destination::Udp { collector, .. } => Some((TransportName::Udp, collector)),
            Destination::Stream { collector, tls: None } => Some((TransportName::Tcp, collector)),
            Destination::Stream { collector, tls: Some(_) } => Some((TransportName::Tls, collector)),
            Destination::Files { .. } => None,
        }
    }

    /// Whom the agent trusts; `None` without TLS.
    pub(in crate::sinks) const fn tls(&self) -> Option<&ClientTls> {
        match &self.destination {
            Destination::Stream { tls: Some(tls), .. } => Some(&tls.client),
            _ => None,
        }
    }

    /// The same, to be changed.
    pub(in crate::sinks) const fn tls_mut(&mut self) -> Option<&mut ClientTls> {
        match &mut self.destination {
            Destination::Stream { tls: Some(tls), .. } => Some(&mut tls.client),
            _ => None,
        }
    }

    /// The observation domain of its messages.
    pub(super) const fn observation_domain(&self) -> u32 {
        self.observation_domain
    }

    /// Where files go; `None` where messages go to a collector.
    pub(in crate::sinks) fn directory(&self) -> Option<&Path> {
        match &self.destination {
            Destination::Files { directory, .. } => Some(directory),
            Destination::Udp { .. } | Destination::Stream { .. } => None,
        }
    }

    /// Time after which a file is closed; `None` where messages go to a collector.
    pub(in crate::sinks) const fn rotate_every(&self) -> Option<Duration> {
        match self.destination {
            Destination::Files { rotate_every, .. } => Some(rotate_every),
            Destination::Udp { .. } | Destination::Stream { .. } => None,
        }
    }

    /// The sink. It connects, or opens a file, when its first batch comes.
    #[must_use]
    pub fn sink(&self, name: &str) -> Box<dyn Sink> {
        self.adopting(name, Vec::new(), &Ending::default())
    }

    /// The same; one that writes files also deletes those of directories that other sinks had before, and heeds the end of the
    /// agent.
    pub(in crate::sinks) fn adopting(
        &self,
        name: &str,
        former: Vec<PathBuf>,
        ending: &Ending,
    ) -> Box<dyn Sink> {
        let carrier: Box<dyn Carrier> = match self.destination.clone() {
            Destination::Udp { collector, template_interval, messages_per_second } => {
                let pace = messages_per_second.map_or_else(Pace::default, Pace::new);
                let udp = Udp::new(Collector::new(collector), template_interval, pace);
                Box::new(udp.heeding(ending.clone()))
            }
            Destination::Stream { collector, tls } => Box::new(Stream::new(Collector::new(collector), tls)),
            Destination::Files { directory, rotate_every, rotate_octets } => {
                let files = Files::new(&directory, name.to_owned(), rotate_every, rotate_octets);
                Box::new(files.adopting(former, ending))
            }
        };
        let outbox = Outbox::new(self.observation_domain, self.message_octets);
        Box::new(Exporter::new(carrier, outbox, self.options))
    }
}

fn to_collector(
    file: &IpfixFile,
    collector: &At<String>,
    document: &mut Document<'_>,
    folder: &Path,
) -> Option<Destination> {
    for key in [&file.rotate_every, &file.rotate_octets].into_iter().flatten() {
        document.refuse(key, "there are no files where messages go to a `collector`: remove it");
    }
    let host = host(collector.get());
    if host.is_none() {
        let message = format!(
            "`{}`: a collector is a host and a port, like \"192.0.2.1:4739\", \"[2001:db8::1]:4739\" or \"collector.example:4739\"",
            collector.get()
        );
        document.refuse(collector, message);
    }
    let transport = file.transport.as_ref().map_or(TransportName::Udp, |name| *name.get());
    let interval = time(&file.template_interval, document, Duration::from_secs(1), Duration::from_secs(3600));
    if let (Some(interval), TransportName::Tcp | TransportName::Tls) = (&file.template_interval, transport) {
        document.refuse(interval, "templates are sent again over \"udp\" only: a stream loses none");
    }
    let messages_per_second = messages_per_second(file, transport, document);
    let tls = match (transport, &file.tls) {
        (TransportName::Tls, tls) => {
            Some(tls_of(tls.as_ref(), host.as_deref()?, collector, document, folder)?)
        }
        (TransportName::Udp | TransportName::Tcp, Some(tls)) => {
            document.refuse(tls, "keys and certificates need `transport = \"tls\"`: without it everything is sent in the clear");
            None
        }
        (TransportName::Udp | TransportName::Tcp, None) => None,
    };
    host?;
    let collector = collector.get().clone();
    Some(match transport {
        TransportName::Udp => {
            let template_interval = interval.unwrap_or(TEMPLATE_INTERVAL);
            Destination::Udp { collector, template_interval, messages_per_second: messages_per_second? }
        }
        TransportName::Tcp | TransportName::Tls => Destination::Stream { collector, tls },
    })
}

fn into_files(
    file: &IpfixFile,
    directory: &At<PathBuf>,
    document: &mut Document<'_>,
    folder: &Path,
) -> Option<Destination> {
    let message = "nothing is sent where messages go to a `directory`: remove it";
    if let Some(transport) = &file.transport {
        document.refuse(transport, message);
    }
    if let Some(interval) = &file.template_interval {
        document.refuse(interval, "every file begins with its templates: remove it");
    }
    if let Some(pace) = &file.messages_per_second {
        document.refuse(pace, message);
    }
    if let Some(tls) = &file.tls {
        document.refuse(tls, message);
    }
    let rotate_every =
        time(&file.rotate_every, document, Duration::from_secs(1), Duration::from_secs(86_400));
    let rotate_octets = file.rotate_octets.as_ref().map_or(Some(ROTATE_OCTETS), |octets| {
        let size = octets.get().parse::<ByteSize>().ok().map(|size| size.as_u64());
        if size.is_none_or(|size| size < 1 << 20) {
            document.refuse(octets, "allowed is a size from \"1MiB\" on, like \"256MiB\"");
        }
        size
    });
    let path = folder.join(directory.get());
    if path.exists() && !path.is_dir() {
        document.refuse(directory, format!("{} is not a folder", path.display()));
    }
    Some(Destination::Files {
        directory: path,
        rotate_every: rotate_every.unwrap_or(ROTATE_EVERY),
        rotate_octets: rotate_octets?,
    })
}

fn tls_of(
    tls: Option<&At<CollectorTlsFile>>,
    host: &str,
    collector: &At<String>,
    document: &mut Document<'_>,
    folder: &Path,
) -> Option<CollectorTls> {
    let file = tls.map(At::get);
    let client = match file {
        Some(CollectorTlsFile { ca, certificate, key, .. }) => {
            ClientTls::check(ca.as_ref(), certificate.as_ref(), key.as_ref(), document, folder)?
        }
        None => ClientTls::default(),
    };
    let server_name = file.and_then(|file| file.server_name.as_ref());
    let config = CollectorTls { client, server_name: server_name.map_or(host, |name| name.get()).to_owned() };
    // Faults of files are reported before anything is attached.
    if let Err(error) = tls::server_name(&config.server_name) {
        document.refuse(server_name.unwrap_or(collector), error.to_string());
    }
    if let Err(error) = config.client.config() {
        match tls {
            Some(tls) => document.refuse(tls, error.to_string()),
            None => document.refuse(collector, error.to_string()),
        }
    }
    Some(config)
}

/// The host of `host:port`, without brackets.
fn host(collector: &str) -> Option<String> {
    if let Some(address) = ScopedAddress::parse(collector) {
        return (address.port() != 0).then(|| address.host());
    }
    let (host, port) = collector.rsplit_once(':')?;
    let is_port = port.parse::<u16>().is_ok_and(|port| port != 0);
    let is_allowed = |octet: u8| octet.is_ascii_alphanumeric() || b".-_".contains(&octet);
    (is_port && !host.is_empty() && host.bytes().all(is_allowed)).then(|| host.to_owned())
}

/// A time, if one is given, within bounds.
fn time(
    text: &Option<At<String>>,
    document: &mut Document<'_>,
    min: Duration,
    max: Duration,
) -> Option<Duration> {
    let text = text.as_ref()?;
    let time = humantime::parse_duration(text.get()).ok().filter(|time| (min..=max).contains(time));
    if time.is_none() {
        let (min, max) = (humantime::format_duration(min), humantime::format_duration(max));
        document.refuse(text, format!("`{}`: allowed are {min} to {max}, like \"60s\"", text.get()));
    }
    time
}

fn message_octets(file: &IpfixFile, is_udp: bool, document: &mut Document<'_>) -> Option<u16> {
    let (default, max) =
        if is_udp { (DATAGRAM_OCTETS, DATAGRAM_OCTETS_MAX) } else { (STREAM_OCTETS, u16::MAX) };
    let Some(octets) = &file.message_octets else { return Some(default) };
    if !(MESSAGE_OCTETS_MIN..=max).contains(octets.get()) {
        let message = format!(
            "allowed are {MESSAGE_OCTETS_MIN} to {max}: a template must fit in a message, and a message in a datagram"
        );
        document.refuse(octets, message);
        return None;
    }
    Some(*octets.get())
}

/// The form of options, unless none are sent.
fn options(file: &IpfixFile, document: &mut Document<'_>) -> Option<Options> {
    let is_set = |key: &Option<At<bool>>, default| key.as_ref().map_or(default, |key| *key.get());
    let has_fixed_names = is_set(&file.fixed_interface_names, false);
    if is_set(&file.options, true) {
        return Some(Options { has_fixed_names });
    }
    if let Some(key) = file.fixed_interface_names.as_ref().filter(|_| has_fixed_names) {
        document.refuse(key, "names of interfaces are options, and `options = false` sends none");
    }
    None
}

fn messages_per_second(
    file: &IpfixFile,
    transport: TransportName,
    document: &mut Document<'_>,
) -> Option<Option<u32>> {
    let Some(pace) = &file.messages_per_second else { return Some(None) };
    if transport != TransportName::Udp {
        document.refuse(pace, "only \"udp\" needs a pace: a stream goes as fast as its other end reads");
        return None;
    }
    if *pace.get() < MESSAGES_PER_SECOND_MIN {
        document.refuse(
            pace,
            format!(
                "allowed are {MESSAGES_PER_SECOND_MIN} and more: fewer would hold the sink up for seconds"
            ),
        );
        return None;
    }
    Some(Some(*pace.get()))
}

/// The position of the first key that is given.
fn first_key(file: &IpfixFile) -> Option<usize> {
    let texts = [&file.template_interval, &file.rotate_every, &file.rotate_octets];
    let begin = |span: std::ops::Range<usize>| span.start;
    let others = [
        file.options.as_ref().map(|at| begin(at.span())),
        file.fixed_interface_names.as_ref().map(|at| begin(at.span())),
        file.transport.as_ref().map(|at| begin(at.span())),
        file.observation_domain.as_ref().map(|at| begin(at.span())),
        file.message_octets.as_ref().map(|at| begin(at.span())),
        file.messages_per_second.as_ref().map(|at| begin(at.span())),
        file.tls.as_ref().map(|at| begin(at.span())),
    ];
    texts.into_iter().flatten().map(|at| begin(at.span())).chain(others.into_iter().flatten()).min()
}
