//! Compiles a policy for the kernel, into constants of the program and tables that keep only what some recipient needs.

pub mod memory;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use minimizer_common::plan::{Plan, Steps};
use minimizer_common::slot::{Ipv6Form, Masks, Narrow};
use minimizer_common::tables::{ENTRY_WORDS, Node};
use minimizer_common::tunnel::Tunnels;
use minimizer_common::tuple::Tags;
use thiserror::Error;

use memory::PolicyMemory;

use crate::policy::builtin::PolicyError;
use crate::policy::class::Class;
use crate::policy::classes::Classes;
use crate::policy::field::Field;
use crate::policy::join::Collected;
use crate::policy::model::{Policy, Scope, Sources};
use crate::policy::ports::Ports;
use crate::policy::prefixes::Prefix;
use crate::policy::ranks::Ranks;
use crate::policy::tables::{self, Built, Content, TableError};
use crate::policy::transform::{AddressTransform, Transform};

/// Why a policy cannot be compiled.
#[derive(Debug, Error)]
pub enum PlanError {
    /// The policy cannot be used.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Its prefixes or indicators do not fit into the tables.
    #[error(transparent)]
    Tables(#[from] TableError),
}

/// A policy, and what it is compiled to.
#[derive(Debug)]
pub struct CompiledPolicy {
    /// The policy.
    pub policy: Policy,
    /// What the kernel stores of a packet.
    pub collected: Collected,
    /// `collected` as constants of the program.
    pub plan: Plan,
    /// The classes of its prefixes, for the transforms that are applied after the drain.
    pub classes: Arc<Classes>,
    /// The ranks of which pseudonyms of domestic IPv4 addresses are made. `None` if the policy makes no pseudonyms of IPv4
    /// addresses, or its domestic addresses have no ranks: then they are made of the last 28 bits.
    pub ranks: Option<Arc<Ranks>>,
    /// The policy's tables.
    pub tables: Content,
    /// Ids of the indicators. The kernel stores a position in here plus one.
    pub selector_ids: Arc<[u64]>,
    /// The finest time that is stored.
    pub time_unit: Duration,
    /// Memory that it takes.
    pub memory: PolicyMemory,
}

impl CompiledPolicy {
    /// Reads a policy and compiles it; see [`Policy::load`].
    ///
    /// # Errors
    /// See [`PlanError`].
    pub fn load(source: &str, tunnels: &[minimizer_common::tunnel::Tunnel]) -> Result<Arc<Self>, PlanError> {
        Ok(Arc::new(Self::compile(Policy::load(source, tunnels)?)?))
    }

    /// Compiles a policy.
    ///
    /// # Errors
    /// If its tables do not fit.
    pub fn compile(policy: Policy) -> Result<Self, TableError> {
        let collected = policy.collected();
        let scope = policy.scope.as_ref().filter(|_| policy.has_pseudonyms_of(false));
        let ranks = scope.and_then(Ranks::new).map(Arc::new);
        let Built { content, tables, steps, selector_ids } = tables::build(
            policy.scope.as_ref(),
            &policy.translations,
            policy.selectors.as_deref(),
            ranks.as_deref(),
        )?;
        let time_unit = collected.fields.values().find_map(|transform| match transform {
            Transform::Coarsened { unit } => Some(*unit),
            _ => None,
        });
        let mut plan = Plan { tables, ..constants(&collected) };
        plan.steps |= steps.0;
        plan.steps |= omitted(&collected, steps, policy.tunnels).0;
        if ranks.is_some() && plan.ipv4_pseudonyms != 0 {
            plan.steps |= Steps::RANKS.0;
        }
        for (ipv6, step) in [(false, Steps::RESERVED_IPV4), (true, Steps::RESERVED_IPV6)] {
            if policy.has_pseudonyms_of(ipv6) {
                plan.steps |= step.0;
            }
        }
        if policy.scope.is_some() && !policy.tunnel_endpoints.is_empty() {
            plan.steps |= Steps::ENDPOINTS.0;
            put_endpoints(&mut plan, &policy.tunnel_endpoints);
        }
        // Fields that are not read need no step.
        let read = Steps(plan.steps);
        let keeps_less_of_ports = plan.ports_below.iter().any(|below| *below < 65_536);
        let keeps_less_of_icmp = plan.icmp_masks.iter().any(|mask| *mask != ICMP_EXACT);
        if keeps_less_of_ports && !read.intersects(Steps::NO_PORTS)
            || keeps_less_of_icmp && !read.intersects(Steps::NO_ICMP)
        {
            plan.steps |= Steps::PORTS.0;
        }
        if !collected.fields.contains_key(&Field::SelectorId) {
            plan.steps &= !Steps::SELECTOR.0;
        }
        let needs_classes = {
            let recipients = policy.recipients.iter().flat_map(|recipient| recipient.fields.values());
            collected.fields.values().chain(recipients).any(|transform| transform.is_by_class())
                || policy.recipients.iter().any(|recipient| recipient.counted == Sources::Domestic)
        };
        let scope = policy.scope.as_ref().filter(|_| needs_classes);
        let classes =
            Arc::new(scope.map(|scope| Classes::new(scope, &policy.translations)).unwrap_or_default());
        let selector_ids = Arc::<[u64]>::from(selector_ids);
        let memory = memory::of(&policy, &collected, &content, &classes, ranks.as_deref(), &selector_ids);
        Ok(Self {
            policy,
            collected,
            plan,
            classes,
            ranks,
            tables: content,
            selector_ids,
            time_unit: time_unit.unwrap_or(Duration::from_secs(1)),
            memory,
        })
    }

    /// What is still needed when the kernel has the tables: everything but these and the prefixes and indicators that
    /// they were built from. The policy's lists of them are empty here.
    #[must_use]
    pub fn enforced(&self) -> Self {
        let Policy {
            name,
            description,
            mandate,
            tunnels,
            tunnel_endpoints,
            translations,
            pseudonym_epoch,
            recipients,
            unlinkable,
            digest,
            inputs,
            commitments,
            scope,
            selectors,
        } = &self.policy;
        let scope = scope
            .as_ref()
            .map(|Scope { directions, .. }| Scope { prefixes: Vec::new(), directions: directions.clone() });
        let policy = Policy {
            name: name.clone(),
            description: description.clone(),
            mandate: mandate.clone(),
            scope,
            selectors: selectors.as_ref().map(|_| Vec::new()),
            tunnels: *tunnels,
            tunnel_endpoints: tunnel_endpoints.clone(),
            translations: translations.clone(),
            pseudonym_epoch: *pseudonym_epoch,
            recipients: recipients.clone(),
            unlinkable: unlinkable.clone(),
            digest: digest.clone(),
            inputs: inputs.clone(),
            commitments: commitments.clone(),
        };
        self.with(policy, Vec::new(), Vec::new())
    }

    /// The same with these tables, as the kernel has them.
    #[must_use]
    pub fn with_tables(&self, nodes: Vec<Node>, lists: Vec<[u32; ENTRY_WORDS]>) -> Self {
        self.with(self.policy.clone(), nodes, lists)
    }

    fn with(&self, policy: Policy, nodes: Vec<Node>, lists: Vec<[u32; ENTRY_WORDS]>) -> Self {
        Self {
            policy,
            collected: self.collected.clone(),
            plan: self.plan,
            classes: Arc::clone(&self.classes),
            ranks: self.ranks.clone(),
            tables: Content { roots: Arc::clone(&self.tables.roots), nodes, lists },
            selector_ids: Arc::clone(&self.selector_ids),
            time_unit: self.time_unit,
            memory: self.memory,
        }
    }

    /// The policy `full-record`, with these tunnels.
    ///
    /// # Panics
    /// Never: the policy is part of this build, and a test compiles it.
    #[must_use]
    pub fn full_record(tunnels: Tunnels) -> Arc<Self> {
        let mut policy = Policy::load("full-record", &[]).expect("a built-in policy is whole");
        policy.tunnels = tunnels;
        Arc::new(Self::compile(policy).expect("a policy without prefixes fits"))
    }

    /// The id of the indicator that the kernel stores as this number; 0 if there is none.
    #[must_use]
    pub fn selector_id(&self, number: u32) -> u64 {
        let position = NonZeroU32::new(number).and_then(|number| usize::try_from(number.get() - 1).ok());
        position.and_then(|position| self.selector_ids.get(position)).copied().unwrap_or(0)
    }

    /// Whether the indicator that selected a packet is collected.
    #[must_use]
    pub fn has_selector(&self) -> bool {
        self.collected.fields.contains_key(&Field::SelectorId)
    }

    /// Whether the interface is collected.
    #[must_use]
    pub fn has_interface(&self) -> bool {
        self.collected.fields.contains_key(&Field::IngressInterface)
    }

    /// How many bits of a slot's key can be set for packets of one IP version, those of the indicator's number included.
    #[must_use]
    pub fn key_bits(&self, ipv6: bool) -> u32 {
        let Plan { ipv6_masks, ipv4_masks, icmp_masks, tags_mask, kind_mask, .. } = self.plan;
        let pseudonyms =
            |sides: u32, bits: u32| [0, 2].map(|side| if sides >> side & 3 != 0 { bits } else { 0 });
        let addresses = if ipv6 {
            let pseudonyms = pseudonyms(self.plan.ipv6_pseudonyms, u128::BITS);
            let masks = ipv6_masks.iter().zip(pseudonyms);
            let side = |[foreign, domestic]: [[u64; 2]; 2], pseudonym: u32| {
                (0..2).map(|word| (foreign[word] | domestic[word]).count_ones()).sum::<u32>().max(pseudonym)
            };
            masks.map(|(masks, pseudonym)| side(*masks, pseudonym)).sum()
        } else {
            let [source, destination] = pseudonyms(self.plan.ipv4_pseudonyms, u32::BITS);
            let mask = ipv4_masks[0] | ipv4_masks[1];
            let lower = (mask & u64::from(u32::MAX)).count_ones();
            lower.max(source) + (mask.count_ones() - lower).max(destination)
        };
        let port = |side: usize| {
            let Plan { ports_below, port_classes, listed_multipliers, .. } = &self.plan;
            let parts = [ports_below[side], port_classes[side][0], listed_multipliers[side]];
            if parts == [0; 3] { 0 } else { u16::BITS }
        };
        let icmp = icmp_masks.iter().map(|mask| (mask & 0x00ff_00ff).count_ones()).max().unwrap_or(0);
        let ports = (port(0) + port(1)).max(icmp);
        let selector = if Steps(self.plan.steps).intersects(Steps::SELECTOR) { 20 } else { 0 };
        addresses + ports + tags_mask.count_ones() + (kind_mask & 0xffff).count_ones() + selector
    }

    /// Whether addresses become pseudonyms in the kernel.
    #[must_use]
    pub const fn has_pseudonyms(&self) -> bool {
        Steps(self.plan.steps).intersects(Steps::PSEUDONYMS)
    }
}

/// Writes prefixes of tunnel endpoints, of which there are few enough.
fn put_endpoints(plan: &mut Plan, endpoints: &[Prefix]) {
    let mask = |bits: u8| u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0).to_be_bytes();
    let word = |octets: &[u8]| octets.try_into().map_or(0, u64::from_ne_bytes);
    let (mut ipv4, mut ipv6) = (plan.ipv4_endpoints.iter_mut(), plan.ipv6_endpoints.iter_mut());
    for prefix in endpoints {
        let parts = [mask(prefix.bits), prefix.octets].map(|octets| [word(&octets[..8]), word(&octets[8..])]);
        let [[high_mask, low_mask], [high, low]] = parts;
        if prefix.ipv6 {
            if let Some(place) = ipv6.next() {
                *place = [high_mask, low_mask, high, low];
            }
        } else if let Some(place) = ipv4.next() {
            let first = |octets: [u8; 16]| u32::from_ne_bytes([octets[0], octets[1], octets[2], octets[3]]);
            *place = [first(mask(prefix.bits)), first(prefix.octets)];
        }
    }
}

/// The fields of addresses: IPv4, then IPv6.
const ADDRESSES: [Field; 4] = [
    Field::SourceIPv4Address,
    Field::DestinationIPv4Address,
    Field::SourceIPv6Address,
    Field::DestinationIPv6Address,
];

/// The mask of types and codes that keeps all bits.
const ICMP_EXACT: u32 = 0x00ff_00ff;

/// The constants for what is collected, without those of the tables.
fn constants(collected: &Collected) -> Plan {
    let transform = |field| collected.fields.get(&field);
    let has = |field| collected.fields.contains_key(&field);
    let mut plan = Plan::EXACT;
    let mut steps = Steps::SELECTOR;
    let mut add = |condition: bool, step: Steps| {
        if condition {
            steps = steps.union(step);
        }
    };

    for (side, field) in ADDRESSES[..2].iter().copied().enumerate() {
        for class in [Class::Foreign, Class::Domestic] {
            let address = address(transform(field), class);
            let octets = mask(address, 4);
            let mask = u32::from_ne_bytes([octets[0], octets[1], octets[2], octets[3]]);
            plan.ipv4_masks[class as usize] &=
                !(u64::from(u32::MAX) << (32 * side)) | u64::from(mask) << (32 * side);
            let is_pseudonym = address == AddressTransform::Pseudonym;
            plan.ipv4_pseudonyms |= u32::from(is_pseudonym) << (2 * side + class as usize);
            add(address != AddressTransform::Exact, Steps::IPV4);
            add(is_pseudonym, Steps::PSEUDONYMS);
        }
    }
    for (side, field) in ADDRESSES[2..].iter().copied().enumerate() {
        for class in [Class::Foreign, Class::Domestic] {
            let address = address(transform(field), class);
            let octets = mask(address, 16);
            let (first, second) = octets.split_at(8);
            let word = |octets: &[u8]| octets.try_into().map_or(0, u64::from_ne_bytes);
            plan.ipv6_masks[side][class as usize] = [word(first), word(second)];
            let is_pseudonym = address == AddressTransform::Pseudonym;
            plan.ipv6_pseudonyms |= u32::from(is_pseudonym) << (2 * side + class as usize);
            add(address != AddressTransform::Exact, Steps::IPV6);
            add(is_pseudonym, Steps::PSEUDONYMS);
        }
    }
    for (side, field) in [Field::SourceTransportPort, Field::DestinationTransportPort].into_iter().enumerate()
    {
        transform(field)
            .and_then(|transform| Ports::of(*transform))
            .unwrap_or(Ports::NONE)
            .put(&mut plan, side);
    }
    let by_class =
        ADDRESSES.iter().filter_map(|field| transform(*field)).any(|transform| transform.is_by_class());
    add(by_class, Steps::CLASSES);
    let icmp = [(Field::IcmpTypeIPv4, Field::IcmpCodeIPv4), (Field::IcmpTypeIPv6, Field::IcmpCodeIPv6)];
    for (version, (kind, code)) in icmp.into_iter().enumerate() {
        let mask = if has(kind) { 0xff } else { 0 } | if has(code) { 0xff << 16 } else { 0 };
        plan.icmp_masks[version] = mask;
    }

    let tags = [
        (has(Field::VlanId), Tags::VLAN),
        (has(Field::Dot1qCustomerVlanId), Tags::CUSTOMER_VLAN),
        (has(Field::IngressInterface), Tags::INTERFACE),
        // Without addresses no recipient is told the IP version.
        (ADDRESSES.into_iter().any(has), Tags::VERSION),
    ];
    plan.tags_mask = tags.iter().filter(|(is_kept, _)| *is_kept).fold(0, |mask, (_, tags)| mask | tags.0);
    add(plan.tags_mask != u32::MAX, Steps::TAGS);
    add(plan.tags_mask == 0, Steps::NO_TAGS);

    let control_bits = match transform(Field::TcpControlBits) {
        None => 0,
        Some(Transform::ControlBits { mask }) => u32::from(*mask & 0xfff),
        Some(_) => 0xfff,
    };
    let protocol = if has(Field::ProtocolIdentifier) { 0xff } else { 0 };
    let class_of_service = if has(Field::IpClassOfService) { 0xff00 } else { 0 };
    plan.kind_mask = protocol | class_of_service | control_bits << 16;
    // Control bits that are not read need no mask.
    let is_masked = control_bits != 0 && control_bits != 0xfff;
    add(protocol == 0 || is_masked, Steps::KIND);

    let (start, end) = (has(Field::FlowStartMilliseconds), has(Field::FlowEndMilliseconds));
    plan.ipv6_form = ipv6_form(&plan, has).0;
    plan.slot_masks = Masks::of(plan.tags_mask, plan.kind_mask, start, end);
    add(!start, Steps::NO_START);
    add(!end, Steps::NO_END);
    add(!start && !end, Steps::NO_TIME);
    plan.steps = steps.0;
    plan
}

/// How IPv6 packets lie in the table.
fn ipv6_form(plan: &Plan, has: impl Fn(Field) -> bool) -> Ipv6Form {
    // In memory order the first bits of an address are the lowest of its first word.
    let beyond = u64::MAX << Narrow::IPV6_ADDRESS_BITS;
    let is_short =
        plan.ipv6_masks.iter().flatten().all(|[first, second]| *second == 0 && first & beyond == 0);
    let wide_fields = [Field::IpClassOfService, Field::VlanId, Field::Dot1qCustomerVlanId, Field::SelectorId];
    if plan.tags_mask & Tags::VERSION.0 == 0 {
        Ipv6Form::LIKE_IPV4
    } else if is_short && plan.ipv6_pseudonyms == 0 && !wide_fields.into_iter().any(has) {
        Ipv6Form::NARROW
    } else {
        Ipv6Form::WIDE
    }
}

/// Steps that leave out the reading of fields: those that nobody receives and on which no decision depends.
fn omitted(collected: &Collected, judged: Steps, tunnels: Tunnels) -> Steps {
    let has = |fields: &[Field]| fields.iter().any(|field| collected.fields.contains_key(field));
    // Classes and hosts are found by address, indicators by address and port, tunnels by port.
    let judges_addresses = judged.intersects(Steps::TRIE.union(Steps::HOSTS_IPV4).union(Steps::HOSTS_IPV6));
    let judges_ports = judged.intersects(Steps::SELECT) || !tunnels.is_empty();
    let ports = [Field::SourceTransportPort, Field::DestinationTransportPort];
    let icmp = [Field::IcmpTypeIPv4, Field::IcmpCodeIPv4, Field::IcmpTypeIPv6, Field::IcmpCodeIPv6];
    let tags = [Field::VlanId, Field::Dot1qCustomerVlanId, Field::IngressInterface];
    let (ipv4, ipv6) = ADDRESSES.split_at(2);
    let parts = [
        (judges_addresses || has(ipv4), Steps::NO_IPV4),
        (judges_addresses || has(ipv6), Steps::NO_IPV6),
        (judges_ports || has(&ports), Steps::NO_PORTS),
        (has(&icmp), Steps::NO_ICMP),
        (has(&[Field::IpClassOfService]), Steps::NO_TRAFFIC_CLASS),
        (has(&[Field::TcpControlBits]), Steps::NO_CONTROL_BITS),
        (has(&ports) || has(&icmp) || has(&tags) || has(&ADDRESSES), Steps::NO_TRANSPORT),
    ];
    let omitted = parts.into_iter().filter(|(is_needed, _)| !is_needed).map(|(_, step)| step);
    omitted.fold(Steps::NONE, Steps::union)
}

fn address(transform: Option<&Transform>, class: Class) -> AddressTransform {
    match transform {
        None => AddressTransform::Omitted,
        Some(Transform::Address { foreign, domestic }) => match class {
            Class::Domestic => *domestic,
            Class::Foreign | Class::Never | Class::Special | Class::Embedded => *foreign,
        },
        Some(_) => AddressTransform::Exact,
    }
}

/// The bits that are kept of an address of `octets` octets.
fn mask(transform: AddressTransform, octets: usize) -> [u8; 16] {
    let bits = match transform {
        AddressTransform::Omitted | AddressTransform::Pseudonym => 0,
        AddressTransform::Truncated { bits } => usize::from(bits),
        AddressTransform::Exact | AddressTransform::PrefixPreserving(_) => octets * 8,
    };
    std::array::from_fn(|index| match bits.saturating_sub(index * 8) {
        0 => 0,
        left @ 1..8 => !(0xff >> left),
        8.. => 0xff,
    })
}

#[cfg(test)]
mod tests {
    use super::mask;
    use crate::policy::transform::AddressTransform;

    #[test]
    fn masks_keep_the_first_bits() {
        let kept = |bits| mask(AddressTransform::Truncated { bits }, 16);
        assert_eq!(kept(1)[..2], [0x80, 0]);
        assert_eq!(kept(8)[..2], [0xff, 0]);
        assert_eq!(kept(20)[..4], [0xff, 0xff, 0xf0, 0]);
        assert_eq!(kept(127)[14..], [0xff, 0xfe]);
        assert_eq!(mask(AddressTransform::Exact, 4)[..5], [0xff, 0xff, 0xff, 0xff, 0]);
        assert_eq!(mask(AddressTransform::Pseudonym, 16), [0; 16]);
    }
}
