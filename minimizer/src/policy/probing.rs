//! Probing: somebody sends packets with a mark in them, to learn from the records which pseudonym is whose.
//!
//! A pseudonym hides an address from those who only read records. Whoever also sends packets knows to which address each went, and
//! finds them again by what the sender of a packet chooses: a port, an exact number of packets or octets, the moment.

use std::time::Duration;

use super::field::{Field, Kind};
use super::transform::{AddressTransform, Transform};
use super::words;
use crate::policy::class::Class;
use crate::policy::model::{Policy, Recipient};

/// The longest time between drains of an agent whose policy does not say.
const INTERVAL_MAX: Duration = Duration::from_mins(1);

impl Recipient {
    /// Whether something is held back that makes probing harder.
    #[must_use]
    pub const fn mitigates_probing(&self) -> bool {
        self.mitigations.established_only || self.mitigations.min_packets > 1
    }

    /// The fields beside pseudonyms in which the recipient reads what the sender of a packet chose; none without pseudonyms.
    fn marks(&self, interval: Duration) -> Vec<Field> {
        if !self.has_keyed_addresses() {
            return Vec::new();
        }
        let is_mark = |(field, transform): &(&Field, &Transform)| match (field.kind(), transform) {
            (Kind::Ipv4Address | Kind::Ipv6Address, transform) => [Class::Foreign, Class::Domestic]
                .into_iter()
                .any(|class| transform.of_class(class) == AddressTransform::Exact),
            // Who sends does not choose the tag, the interface and the indicator.
            (Kind::Number, _) => !matches!(
                field,
                Field::VlanId | Field::Dot1qCustomerVlanId | Field::IngressInterface | Field::SelectorId
            ),
            (Kind::Time, Transform::Coarsened { unit }) => *unit < interval,
            (_, Transform::PortClasses | Transform::Log2) => false,
            (Kind::Port | Kind::ControlBits | Kind::Count | Kind::Time, _) => true,
        };
        self.fields.iter().filter(is_mark).map(|(field, _)| *field).collect()
    }
}

impl Policy {
    /// The recipients whose pseudonyms meet what the sender of a packet chooses, without a mitigation.
    pub(super) fn probed(&self) -> impl Iterator<Item = String> {
        let interval = self.commitments.interval.map_or(INTERVAL_MAX, |(_, longest)| longest);
        self.recipients.iter().filter(|recipient| !recipient.mitigates_probing()).filter_map(move |recipient| {
            let marks = recipient.marks(interval);
            let named: Vec<_> = marks.iter().map(|field| field.name().to_owned()).collect();
            (!named.is_empty()).then(|| {
                format!(
                    "{} gets pseudonyms together with what the sender of a packet chooses ({}): whoever sends packets with a mark in \
                     one of these and reads the records finds out which pseudonym is whose. `established_only = true` or \
                     `min_packets` makes that harder.",
                    recipient.name,
                    words::list(&named)
                )
            })
        })
    }
}

/// What a recipient's mitigations hold back, and what they cannot; nothing without any.
#[must_use]
pub fn mitigated(recipient: &Recipient) -> Vec<String> {
    let mut said = Vec::new();
    let fewer = recipient.mitigations.min_packets;
    if fewer > 1 {
        said.push(format!(
            "Receives no record of fewer than {fewer} packets in one interval: such records are folded into one that says only how \
             much there was. Whoever sends {fewer} packets or more to an address is not held back."
        ));
    }
    if recipient.mitigations.established_only {
        said.push(
            "Receives only records of flows of which both directions came in within one interval, by addresses, ports and \
             protocol; the others are folded into one record that says only how much there was. Resets alone are no direction; ICMP \
             is always folded, and so is a fragment without a fragment in return. Where answers take another way, or the interval \
             ends before the answer, flows are missing. Not held back is whoever gets an answer, from a service that is open or in a \
             connection that the other end began, and whoever forges the answer, too."
                .to_owned(),
        );
    }
    said
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use jiff::Timestamp;

    use crate::policy::model::Policy;

    const INTERVAL: &str = "interval = \"10s\"\n";

    fn policy(top: &str, keys: &str, fields: &str) -> Policy {
        let text = format!(
            "name = \"p\"\n{top}[scope]\ndomestic = [\"192.0.2.0/24\"]\ndirections = [\"foreign-domestic\", \"domestic-foreign\"]\n\
             [[recipients]]\nname = \"soc\"\npurpose = \"to look\"\n{keys}[recipients.fields]\n\
             destinationIPv4Address = {{ foreign = \"omit\", domestic = \"pseudonym\" }}\n{fields}\n"
        );
        Policy::parse(&text, Path::new("p.toml")).unwrap_or_else(|error| panic!("{error}"))
    }

    fn warned(policy: &Policy) -> Vec<String> {
        let said = policy.cautions(Timestamp::UNIX_EPOCH);
        said.into_iter().filter(|caution| caution.contains("which pseudonym is whose")).collect()
    }

    #[test]
    fn a_pseudonym_beside_what_a_sender_chooses_is_warned_of() {
        let protocol = "protocolIdentifier = \"exact\"\n";
        for (fields, mark) in [
            (protocol, "protocolIdentifier"),
            (
                "protocolIdentifier = \"exact\"\ndestinationTransportPort = \"exact\"",
                "destinationTransportPort",
            ),
            (
                "protocolIdentifier = \"exact\"\nsourceTransportPort = { services_below = 1024 }",
                "sourceTransportPort",
            ),
            ("protocolIdentifier = \"exact\"\ntcpControlBits = { mask = [\"SYN\"] }", "tcpControlBits"),
            ("sourceIPv4Address = { foreign = \"exact\", domestic = \"omit\" }", "sourceIPv4Address"),
            ("ipClassOfService = \"exact\"", "ipClassOfService"),
            ("packetDeltaCount = \"exact\"", "packetDeltaCount"),
            ("octetDeltaCount = \"exact\"", "octetDeltaCount"),
            ("flowStartMilliseconds = { coarsen = \"1s\" }", "flowStartMilliseconds"),
        ] {
            let said = warned(&policy("", "", fields));
            assert!(said.len() == 1 && said[0].starts_with("soc gets") && said[0].contains(mark), "{said:?}");
            for mitigation in ["established_only = true\n", "min_packets = 10\n"] {
                assert!(warned(&policy(INTERVAL, mitigation, fields)).is_empty(), "{fields}");
            }
        }
    }

    #[test]
    fn what_a_sender_hardly_chooses_is_not_warned_of() {
        for fields in [
            "vlanId = \"exact\"",
            "ingressInterface = \"exact\"",
            "octetDeltaCount = \"log2\"",
            "flowStartMilliseconds = { coarsen = \"1m\" }",
        ] {
            assert_eq!(warned(&policy("", "", fields)), Vec::<String>::new(), "{fields}");
        }
        assert!(warned(&policy(INTERVAL, "", "flowEndMilliseconds = { coarsen = \"10s\" }")).is_empty());
        assert!(!warned(&policy("", "", "flowEndMilliseconds = { coarsen = \"10s\" }")).is_empty());
        let mut without = policy("", "", "packetDeltaCount = \"exact\"");
        without.recipients[0].fields.remove(&crate::policy::field::Field::DestinationIPv4Address);
        assert!(warned(&without).is_empty());
    }

    #[test]
    fn explain_names_probing_and_what_remains_of_it() {
        let flowing =
            |policy: &Policy| policy.explain().to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        let fields = "packetDeltaCount = \"exact\"";
        let said = flowing(&policy("", "", fields));
        for part in ["probing: whoever sends packets to an address", "CAUTION: soc gets pseudonyms"] {
            assert!(said.contains(part), "`{part}` is missing in: {said}");
        }
        let said = flowing(&policy(INTERVAL, "established_only = true\nmin_packets = 10\n", fields));
        for part in [
            "probing: whoever sends packets to an address",
            "no record of fewer than 10 packets",
            "Whoever sends 10 packets or more to an address is not held back.",
            "only records of flows of which both directions came in within one interval",
            "Resets alone are no direction; ICMP is always folded",
            "Where answers take another way",
            "whoever forges the answer",
        ] {
            assert!(said.contains(part), "`{part}` is missing in: {said}");
        }
        assert!(!said.contains("CAUTION: soc gets pseudonyms"), "{said}");
        let lines = policy("", "", fields).explain().to_string();
        let of_recipient = lines.lines().find(|line| line.contains("soc: domestic")).expect("has a line");
        assert!(of_recipient.ends_with("holder of the"), "{lines}");
        assert!(lines.lines().any(|line| line.trim() == "key, probing"), "{lines}");
        let of_kernel = lines.lines().find(|line| line.contains("kept in the kernel: domestic"));
        assert!(of_kernel.is_some_and(|line| line.ends_with("holder of the key")), "{lines}");
    }
}
