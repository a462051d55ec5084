//! The model of a policy file: its keys, and the kind of each value. The check of the values comes later.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use toml::Spanned;
use toml::value::Datetime;

use super::field::{Field, Kind};
use crate::policy::class::Class;
use crate::support::toml::At;

/// Who receives which records, why, and until when.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Minimizer policy", extend("required" = ["name", "recipients"]))]
pub struct PolicyFile {
    /// Name of the policy: letters, digits, '.', '_' and '-'.
    pub name: At<String>,
    /// What the policy is for, in one sentence.
    #[serde(default)]
    pub description: String,
    /// Number of this version of the policy, from 1 on: an agent that requires a signature takes no policy with a lower one than
    /// the last that was in force.
    #[schemars(range(min = 1))]
    pub serial: Option<At<u64>>,
    /// A lower serial number that the agent may go back to while this policy is in force.
    #[schemars(range(min = 1))]
    pub allow_serial: Option<At<u64>>,
    /// Sentences that say what else would be refused, word for word as `policy check` demands them.
    #[serde(default)]
    pub acknowledged: Vec<At<String>>,
    /// Time between drains, like "10s": one time, or the shortest and the longest. A `k_threshold`, `min_packets` or
    /// `established_only` needs it.
    pub interval: Option<At<IntervalFile>>,
    /// Tunnels whose inner packets are counted in place of the outer ones.
    #[serde(default)]
    #[schemars(schema_with = "schema_of_tunnels")]
    pub tunnels: Vec<At<String>>,
    /// The authority for the collection, and its period.
    pub mandate: Option<At<MandateFile>>,
    /// Which packets the policy collects. Without it, all packets.
    pub scope: Option<At<ScopeFile>>,
    /// Indicators. The policy collects only packets that match one of them. Without it, all packets.
    pub selectors: Option<At<SelectorsFile>>,
    /// Keys of pseudonyms.
    pub pseudonyms: Option<PseudonymsFile>,
    /// Pairs of recipients whose records nobody can join. The policy is refused if what both are told singles records out.
    #[serde(default)]
    #[schemars(schema_with = "schema_of_pairs")]
    pub unlinkable: Vec<At<Vec<String>>>,
    /// Who receives records, and what the records contain.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub recipients: Vec<At<RecipientFile>>,
}

/// The authority for the collection, and its period.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "mandate")]
pub struct MandateFile {
    /// The number of the mandate in the files of the authority.
    pub id: At<String>,
    /// The one purpose of the collection.
    pub purpose: At<String>,
    /// The law, and its section.
    pub legal_basis: At<String>,
    /// The program is not attached before this moment: a date and time with its offset from UTC.
    #[schemars(required, schema_with = "schema_of_moment")]
    pub valid_from: Option<At<Datetime>>,
    /// The program is not attached from this moment on: a date and time with its offset from UTC.
    #[schemars(required, schema_with = "schema_of_moment")]
    pub valid_until: Option<At<Datetime>>,
    /// The longest period from `valid_from` to `valid_until`, like "730 days": at most 3660 days. Without it, 366 days.
    pub max_period: Option<At<String>>,
    /// The longest retention that a recipient may have, like "90 days". Each recipient then has one.
    pub max_retention: Option<At<String>>,
}

/// Time between drains.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a time, or { min = \"…\", max = \"…\" }")]
#[schemars(rename = "interval")]
pub enum IntervalFile {
    /// One time.
    Fixed(String),
    /// From one time to another.
    Bounds(IntervalBounds),
}

/// The shortest and the longest time between drains.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "interval_bounds")]
pub struct IntervalBounds {
    /// The shortest.
    pub min: String,
    /// The longest.
    pub max: String,
}

/// Which packets the policy collects, by prefixes of their addresses.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "scope", extend("required" = ["directions"]))]
pub struct ScopeFile {
    /// Domestic prefixes.
    #[serde(default)]
    pub domestic: Vec<At<String>>,
    /// Foreign prefixes inside domestic ones, and special ranges that are collected as foreign. Other addresses without a prefix are
    /// foreign anyway.
    #[serde(default)]
    pub foreign: Vec<At<String>>,
    /// Prefixes that are never collected, whatever other prefix covers them.
    #[serde(default)]
    pub never: Vec<At<String>>,
    /// Files of domestic prefixes.
    #[serde(default)]
    pub domestic_files: Vec<At<InputFile>>,
    /// Files of foreign prefixes.
    #[serde(default)]
    pub foreign_files: Vec<At<InputFile>>,
    /// Files of prefixes that are never collected.
    #[serde(default)]
    pub never_files: Vec<At<InputFile>>,
    /// The network's own prefixes of NAT64 and 464XLAT, of 32, 40, 48, 56, 64 or 96 bits: addresses in them are judged by the IPv4
    /// address that they carry (RFC 6052).
    #[serde(default)]
    pub nat64: Vec<At<String>>,
    /// The network's own 6rd domains: a customer's IPv6 addresses are judged by the customer's IPv4 address (RFC 5969).
    #[serde(default, rename = "6rd")]
    pub six_rd: Vec<At<SixRdFile>>,
    /// The network's own rules of MAP-E and MAP-T: a customer's IPv6 addresses are judged by the customer's IPv4 address (RFC 7597,
    /// RFC 7599).
    #[serde(default)]
    pub map: Vec<At<MapFile>>,
    /// Prefixes of ISATAP sites, of 64 bits: addresses in them with an interface identifier of ISATAP are judged by the IPv4 address in
    /// it (RFC 5214).
    #[serde(default)]
    pub isatap: Vec<At<String>>,
    /// Prefixes of the network's own gateways, where its tunnels begin and end: they are no party of a communication. At most 16 of each
    /// IP version.
    #[serde(default)]
    pub tunnel_endpoints: Vec<At<String>>,
    /// The directions to collect: the class of the source, then the class of the destination.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub directions: Vec<At<Direction>>,
    /// The sentence that must be present if `domestic-domestic` is listed: "communications between domestic
    /// parties are collected".
    pub domestic_domestic: Option<At<String>>,
}

/// A 6rd domain.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "6rd")]
pub struct SixRdFile {
    /// The 6rd prefix.
    pub ipv6: String,
    /// The IPv4 prefix that all customers' IPv4 addresses have in common: its length is IPv4MaskLen. Without it, they have none.
    pub ipv4: Option<String>,
}

/// A rule of MAP-E or MAP-T.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "map_rule")]
pub struct MapFile {
    /// The Rule IPv6 prefix.
    pub ipv6: String,
    /// The Rule IPv4 prefix.
    pub ipv4: String,
    /// The length of the EA bits, which stand behind the Rule IPv6 prefix: bits of the IPv4 address, then of the port set.
    #[schemars(range(max = 48))]
    pub ea_bits: u8,
}

/// A direction: class of the source, class of the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// From a foreign address to a foreign one.
    ForeignForeign,
    /// From a foreign address to a domestic one.
    ForeignDomestic,
    /// From a domestic address to a foreign one.
    DomesticForeign,
    /// From a domestic address to a domestic one.
    DomesticDomestic,
}

impl Direction {
    /// Class of the source, and of the destination.
    #[must_use]
    pub const fn classes(self) -> (Class, Class) {
        match self {
            Self::ForeignForeign => (Class::Foreign, Class::Foreign),
            Self::ForeignDomestic => (Class::Foreign, Class::Domestic),
            Self::DomesticForeign => (Class::Domestic, Class::Foreign),
            Self::DomesticDomestic => (Class::Domestic, Class::Domestic),
        }
    }
}

/// A file that a policy names: its path, relative to the policy's folder, or its path and digest.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a path, or { path = \"…\", sha256 = \"…\" }")]
#[schemars(rename = "input")]
pub enum InputFile {
    /// The path.
    Path(String),
    /// The path, and the digest that the file must have.
    Pinned(PinnedFile),
}

/// A file with a fixed digest.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "pinned")]
pub struct PinnedFile {
    /// The path.
    pub path: String,
    /// SHA-256 of the file, in hexadecimal.
    #[schemars(regex(pattern = "^[0-9a-fA-F]{64}$"))]
    pub sha256: String,
}

impl InputFile {
    /// The path, as written.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::Path(path) | Self::Pinned(PinnedFile { path, .. }) => path,
        }
    }

    /// The digest that the file must have.
    #[must_use]
    pub fn sha256(&self) -> Option<&str> {
        match self {
            Self::Path(_) => None,
            Self::Pinned(file) => Some(&file.sha256),
        }
    }
}

/// Indicators. The policy collects only packets that match one of them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "selectors")]
pub struct SelectorsFile {
    /// Files of indicators, one on each line.
    #[serde(default)]
    pub files: Vec<At<InputFile>>,
    /// Indicators: `ID EXPIRY ADDRESS [PROTOCOL[/PORTS]]`.
    #[serde(default)]
    pub indicators: Vec<At<String>>,
    /// The reason why an indicator is one domestic party. Without it such an indicator is refused.
    pub domestic_target: Option<At<String>>,
}

/// Keys of pseudonyms.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "pseudonyms")]
pub struct PseudonymsFile {
    /// How long a key of pseudonyms and preserved prefixes lasts, like "24h": from 1 minute to 366 days.
    pub epoch: At<String>,
}

/// Who receives records, and what the records contain.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "recipient", extend("required" = ["name", "purpose", "fields"]))]
pub struct RecipientFile {
    /// Name of the recipient: letters, digits, '.', '_' and '-'.
    pub name: At<String>,
    /// What the recipient may use the records for.
    pub purpose: Option<At<String>>,
    /// How long the recipient may keep the records, like "30 days".
    pub retention: Option<At<String>>,
    /// The agent folds records that come from fewer distinct source addresses than this into one record
    /// without a key.
    #[schemars(range(min = 2))]
    pub k_threshold: Option<At<u32>>,
    /// Which sources `k_threshold` counts: all of them, or those with a domestic address.
    pub k_counts: Option<At<Counted>>,
    /// By how many sources at most the threshold of each record is higher, drawn anew in each interval.
    #[schemars(range(min = 1))]
    pub k_noise: Option<At<u32>>,
    /// The agent folds records of fewer packets than this into the record without a key.
    #[schemars(range(min = 2))]
    pub min_packets: Option<At<u32>>,
    /// Whether the agent folds flows into the record without a key of which it did not see both directions in one interval.
    pub established_only: Option<At<bool>>,
    /// The only servers to which a sink of agent.toml may send this recipient's records. Files and the standard output are no
    /// servers.
    pub destinations: Option<Vec<At<DestinationFile>>>,
    /// The transform of each field that the recipient gets. It does not get any other field.
    #[serde(default)]
    #[schemars(schema_with = "schema_of_fields")]
    pub fields: FieldsFile,
}

/// The sources that a threshold counts.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "k_counts")]
pub enum Counted {
    /// All sources. Anybody can forge some.
    All,
    /// Sources with a domestic address.
    Domestic,
}

/// A server to which records may go.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "destination")]
pub struct DestinationFile {
    /// Its name or address, exactly as agent.toml writes it.
    pub host: String,
    /// Its port.
    #[schemars(range(min = 1))]
    pub port: u16,
    /// SHA-256 of the certificate that it must show, in hexadecimal.
    #[schemars(regex(pattern = "^[0-9a-fA-F]{64}$"))]
    pub certificate_sha256: Option<String>,
    /// The country that it is in: two capital letters of ISO 3166.
    #[schemars(regex(pattern = "^[A-Z]{2}$"))]
    pub country: String,
}

/// Transforms by the names of fields.
pub type FieldsFile = BTreeMap<Spanned<String>, At<toml::Value>>;

fn schema_of_tunnels(_: &mut SchemaGenerator) -> Schema {
    let names: Vec<_> = minimizer_common::tunnel::Tunnel::ALL.iter().map(|tunnel| tunnel.name()).collect();
    json_schema!({"type": "array", "items": {"type": "string", "enum": names}})
}

fn schema_of_pairs(_: &mut SchemaGenerator) -> Schema {
    let pair =
        serde_json::json!({"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 2});
    json_schema!({"type": "array", "items": pair})
}

fn schema_of_moment(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "date-time"})
}

/// A property for each field, with the transforms of its kind.
fn schema_of_fields(_: &mut SchemaGenerator) -> Schema {
    let properties: serde_json::Map<_, _> = Field::ALL
        .iter()
        .map(|field| {
            let mut schema = schema_of_transforms(field.kind());
            schema.insert("description".to_owned(), field.source().into());
            (field.name().to_owned(), schema.into())
        })
        .collect();
    json_schema!({
        "type": "object", "properties": properties, "additionalProperties": false, "minProperties": 1,
    })
}

fn schema_of_transforms(kind: Kind) -> Schema {
    let one_key = |key: &str, schema: serde_json::Value| {
        serde_json::json!({
            "type": "object", "properties": {key: schema}, "required": [key], "additionalProperties": false,
        })
    };
    match kind {
        Kind::Ipv4Address | Kind::Ipv6Address => {
            let longest = if kind == Kind::Ipv4Address { 31 } else { 127 };
            let truncate =
                one_key("truncate", serde_json::json!({"type": "integer", "minimum": 1, "maximum": longest}));
            let names = ["exact", "pseudonym", "prefix-preserving", "crypto-pan"];
            let of_class = serde_json::json!({
                "anyOf": [{"enum": ["omit", "exact", "pseudonym", "prefix-preserving", "crypto-pan"]}, truncate],
            });
            json_schema!({"anyOf": [{"enum": names}, truncate, {
                "type": "object", "properties": {"foreign": of_class, "domestic": of_class},
                "required": ["foreign", "domestic"], "additionalProperties": false,
            }]})
        }
        Kind::Port => json_schema!({"anyOf": [
            {"enum": ["exact", "classes"]},
            one_key("services_below", serde_json::json!({"type": "integer", "minimum": 1, "maximum": 65535})),
            {
                "type": "object", "required": ["services_below", "also"], "additionalProperties": false,
                "properties": {
                    "services_below": {"type": "integer", "minimum": 1, "maximum": 32767},
                    "also": {
                        "type": "array", "minItems": 1, "maxItems": super::transform::LISTED_MAX,
                        "items": {"type": "integer", "minimum": 1, "maximum": 32767},
                    },
                },
            },
        ]}),
        Kind::ControlBits => {
            let names: Vec<_> = super::transform::CONTROL_BITS.iter().map(|(name, _)| name).collect();
            let mask = serde_json::json!({"type": "array", "items": {"enum": names}, "minItems": 1});
            json_schema!({"anyOf": [{"const": "exact"}, one_key("mask", mask)]})
        }
        Kind::Number => json_schema!({"const": "exact"}),
        Kind::Count => json_schema!({"enum": ["exact", "log2"]}),
        Kind::Time => {
            one_key("coarsen", serde_json::json!({"type": "string"})).try_into().unwrap_or_default()
        }
    }
}
