//! Messages as another decoder reads them: values of records, sequence numbers, lengths.

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};
use minimizer::policy::field::{Field, Fields};
use minimizer::records::record::Record;
use minimizer_common::protocol::Transport;
use netflow_parser::variable_versions::field_value::FieldValue;
use netflow_parser::variable_versions::ipfix::{FlowSetBody, IPFix, Template};
use netflow_parser::{NetflowPacket, NetflowParser};

/// Values of a record by the number of their element, in network byte order.
pub type Values = BTreeMap<u16, Vec<u8>>;

/// What was decoded so far in one session.
#[derive(Default)]
pub struct Decoded {
    parser: NetflowParser,
    /// Elements and lengths of the templates, by their numbers; withdrawn ones are not there.
    pub templates: BTreeMap<u16, Vec<(u16, u16)>>,
    /// Numbers of templates that were withdrawn.
    pub withdrawn: Vec<u16>,
    /// Records of flows, with the number of their template.
    pub flows: Vec<(u16, Values)>,
    /// Records of options, with the number of their template.
    pub options: Vec<(u16, Values)>,
    /// Length of the longest message.
    pub longest: usize,
    /// Data records that sequence numbers say are missing; negative when numbers are given twice.
    pub missing: i64,
    /// The sequence number of the next message.
    pub sequence: Option<u32>,
    rest: Vec<u8>,
}

impl Decoded {
    /// Decodes the octets of a stream or file, of which the last may be a piece of a message.
    ///
    /// # Errors
    /// When they are no messages.
    pub fn stream(&mut self, octets: &[u8]) -> Result<()> {
        self.rest.extend_from_slice(octets);
        let rest = std::mem::take(&mut self.rest);
        let mut octets = rest.as_slice();
        while let [_, _, high, low, ..] = octets {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            ensure!(length >= 16, "a message of {length} octets");
            if octets.len() < length {
                break;
            }
            let (message, others) = octets.split_at(length);
            self.message(message)?;
            octets = others;
        }
        self.rest = octets.to_vec();
        Ok(())
    }

    /// Decodes a message.
    ///
    /// # Errors
    /// When it cannot be decoded, or has another length than it says.
    pub fn message(&mut self, octets: &[u8]) -> Result<()> {
        self.longest = self.longest.max(octets.len());
        ensure!(
            octets.len() >= 16 && octets.len() == usize::from(u16::from_be_bytes([octets[2], octets[3]]))
        );
        for id in withdrawals(&octets[16..]) {
            self.templates.remove(&id);
            self.withdrawn.push(id);
        }
        let result = self.parser.parse_bytes(octets);
        if let Some(error) = result.error
            && withdrawals(&octets[16..]).is_empty()
        {
            bail!("{error:?}");
        }
        for packet in result.packets {
            let NetflowPacket::IPFix(message) = packet else { bail!("no IPFIX message") };
            self.take(message)?;
        }
        Ok(())
    }

    fn take(&mut self, message: IPFix) -> Result<()> {
        let sequence = message.header.sequence_number;
        if let Some(expected) = self.sequence {
            self.missing += i64::from(sequence.wrapping_sub(expected).cast_signed());
        }
        let before = self.flows.len() + self.options.len();
        for set in message.flowsets {
            let id = set.header.header_id;
            match set.body {
                FlowSetBody::Template(template) => self.template(&template),
                FlowSetBody::Templates(templates) => templates.iter().for_each(|one| self.template(one)),
                FlowSetBody::OptionsTemplate(template) => {
                    let fields = template.fields.iter();
                    let fields = fields.map(|field| (field.field_type_number, field.field_length)).collect();
                    self.templates.insert(template.template_id, fields);
                }
                FlowSetBody::OptionsTemplates(templates) => {
                    bail!("{} options templates in one set", templates.len())
                }
                FlowSetBody::Data(data) => {
                    for record in data.fields {
                        let values = self.values(id, record.into_iter().map(|(_, value)| value))?;
                        self.flows.push((id, values));
                    }
                }
                FlowSetBody::OptionsData(data) => {
                    for record in data.fields {
                        let values = self.values(id, record.into_iter().map(|(_, value)| value))?;
                        self.options.push((id, values));
                    }
                }
                FlowSetBody::Empty => {}
                other => bail!("set {id} cannot be decoded: {other:?}"),
            }
        }
        let records = self.flows.len() + self.options.len() - before;
        self.sequence = Some(sequence.wrapping_add(u32::try_from(records)?));
        Ok(())
    }

    fn template(&mut self, template: &Template) {
        let fields =
            template.fields.iter().map(|field| (field.field_type_number, field.field_length)).collect();
        self.templates.insert(template.template_id, fields);
    }

    fn values(&self, id: u16, values: impl Iterator<Item = FieldValue>) -> Result<Values> {
        let Some(elements) = self.templates.get(&id) else { bail!("no template {id}") };
        elements
            .iter()
            .zip(values)
            .map(|((element, _), value)| {
                let mut octets = Vec::new();
                value.write_be_bytes(&mut octets)?;
                Ok((*element, octets))
            })
            .collect()
    }

    /// Records of flows without the numbers of their templates, in order.
    #[must_use]
    pub fn sorted_flows(&self) -> Vec<Values> {
        let mut flows: Vec<_> = self.flows.iter().map(|(_, values)| values.clone()).collect();
        flows.sort();
        flows
    }

    /// The options record that has this value for the element.
    #[must_use]
    pub fn option(&self, element: u16, value: &[u8]) -> Option<&Values> {
        let has = |values: &&Values| values.get(&element).is_some_and(|octets| octets == value);
        self.options.iter().map(|(_, values)| values).find(has)
    }

    /// What options say of an element of a template: flags and technique of its anonymization.
    #[must_use]
    pub fn anonymization(&self, template: u16, element: u16) -> Option<(u16, u16)> {
        let is_it = |values: &&Values| {
            values.get(&145) == Some(&template.to_be_bytes().to_vec())
                && values.get(&303) == Some(&element.to_be_bytes().to_vec())
        };
        let values = self.options.iter().map(|(_, values)| values).rfind(is_it)?;
        let number =
            |element: u16| Some(u16::from_be_bytes(values.get(&element)?.as_slice().try_into().ok()?));
        Some((number(285)?, number(286)?))
    }
}

/// Numbers of the templates that a message withdraws: those without fields.
fn withdrawals(mut sets: &[u8]) -> Vec<u16> {
    let mut withdrawn = Vec::new();
    while let [id_high, id_low, length_high, length_low, ..] = sets {
        let length = usize::from(u16::from_be_bytes([*length_high, *length_low])).clamp(4, sets.len());
        let mut records = &sets[4..length];
        while u16::from_be_bytes([*id_high, *id_low]) == 2
            && let [high, low, count_high, count_low, others @ ..] = records
        {
            let count = usize::from(u16::from_be_bytes([*count_high, *count_low]));
            if count == 0 {
                withdrawn.push(u16::from_be_bytes([*high, *low]));
            }
            records = others.get(count * 4..).unwrap_or_default();
        }
        sets = &sets[length..];
    }
    withdrawn
}

/// What must be read of a record of which these fields are sent.
#[must_use]
pub fn expected(record: &Record, fields: Fields) -> Values {
    let mut values = Values::new();
    let tuple = &record.tuple;
    let (first, second) = (tuple.source_port(), tuple.destination_port());
    let mut put = |field: Field, octets: &[u8]| {
        if fields.has(field) {
            values.insert(field.number(), octets.to_vec());
        }
    };
    if tuple.tags().is_ipv6() {
        put(Field::SourceIPv6Address, &tuple.ipv6().0);
        put(Field::DestinationIPv6Address, &tuple.ipv6().1);
    } else {
        put(Field::SourceIPv4Address, &tuple.ipv4().0);
        put(Field::DestinationIPv4Address, &tuple.ipv4().1);
    }
    put(Field::ProtocolIdentifier, &[tuple.protocol()]);
    put(Field::IpClassOfService, &[tuple.traffic_class()]);
    let transport = Transport::of(tuple.protocol());
    if matches!(transport, Transport::Tcp | Transport::Ports) {
        put(Field::SourceTransportPort, &first.to_be_bytes());
        put(Field::DestinationTransportPort, &second.to_be_bytes());
    }
    if transport == Transport::Tcp {
        put(Field::TcpControlBits, &record.control_bits.to_be_bytes()[1..]);
    }
    if let Some(vlan_id) = tuple.tags().vlan_id() {
        put(Field::VlanId, &vlan_id.to_be_bytes());
    }
    if let Some(vlan_id) = tuple.tags().customer_vlan_id() {
        put(Field::Dot1qCustomerVlanId, &vlan_id.to_be_bytes());
    }
    put(Field::IngressInterface, &record.ingress_interface.to_be_bytes());
    if record.selector_id != 0 {
        put(Field::SelectorId, &record.selector_id.to_be_bytes());
    }
    put(Field::PacketDeltaCount, &record.packets.to_be_bytes());
    put(Field::OctetDeltaCount, &record.octets.to_be_bytes());
    if fields.has(Field::FlowStartMilliseconds) && fields.has(Field::FlowEndMilliseconds) {
        put(Field::FlowStartMilliseconds, &record.start_ms.to_be_bytes());
        put(Field::FlowEndMilliseconds, &record.end_ms.to_be_bytes());
    }
    let type_and_code = (first << 8 | second).to_be_bytes().to_vec();
    let has_icmp = |kind: Field, code: Field| fields.has(kind) && fields.has(code);
    if transport == Transport::Icmp && has_icmp(Field::IcmpTypeIPv4, Field::IcmpCodeIPv4) {
        values.insert(32, type_and_code.clone());
    }
    if transport == Transport::IcmpV6 && has_icmp(Field::IcmpTypeIPv6, Field::IcmpCodeIPv6) {
        values.insert(139, type_and_code);
    }
    values.insert(60, vec![if tuple.tags().is_ipv6() { 6 } else { 4 }]);
    if values.contains_key(&Field::IngressInterface.number()) {
        values.insert(61, vec![0]);
    }
    values
}

/// What must be read of records of which these fields are sent, in order.
#[must_use]
pub fn all_expected(records: &[Record], fields: Fields) -> Vec<Values> {
    let mut flows: Vec<_> = records.iter().map(|record| expected(record, fields)).collect();
    flows.sort();
    flows
}
