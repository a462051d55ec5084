//! The memory that a policy takes.

use std::collections::BTreeMap;

use minimizer_common::permutation::Permutation;

use super::ADDRESSES;
use crate::policy::class::Class;
use crate::policy::classes::Classes;
use crate::policy::field::Field;
use crate::policy::join::Collected;
use crate::policy::model::Policy;
use crate::policy::ranks::Ranks;
use crate::policy::tables::{self, Content};
use crate::policy::transform::{AddressTransform, Transform};

/// Memory that the prefixes, indicators and pseudonyms of a policy take, in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyMemory {
    /// In the kernel, for each program that is loaded: the tables, and the permutations of pseudonyms.
    pub kernel: u64,
    /// In the agent, while the policy is in force.
    pub agent: u64,
    /// In the agent at most, while the policy is read, compiled and loaded.
    pub loading: u64,
}

/// The memory that a policy takes.
pub(super) fn of(
    policy: &Policy,
    collected: &Collected,
    content: &Content,
    classes: &Classes,
    ranks: Option<&Ranks>,
    selector_ids: &[u64],
) -> PolicyMemory {
    let octets = |octets: usize| u64::try_from(octets).unwrap_or(u64::MAX);
    let scope = policy
        .scope
        .as_ref()
        .map_or(0, |scope| tables::building_octets(&scope.prefixes, &policy.translations));
    let indicators = policy.selectors.as_ref().map_or(0, |indicators| size_of_val(indicators.as_slice()));
    let ranks = ranks.map_or(0, Ranks::octets);
    let [kernel, own] = permutations(policy, collected);
    let agent =
        octets(size_of_val(&*content.roots) + classes.octets() + ranks + size_of_val(selector_ids) + own);
    let loading = agent + octets(content.octets() + scope + indicators);
    // Vectors that grow and the pages of the allocator take a quarter more, as measured.
    PolicyMemory { kernel: octets(content.octets() + kernel), agent, loading: loading + loading / 4 }
}

/// Octets of the permutations of pseudonyms: in the kernel, of each generation, and in the agent, of each recipient.
fn permutations(policy: &Policy, collected: &Collected) -> [usize; 2] {
    let classes = [Class::Foreign, Class::Domestic];
    let is_pseudonym = |fields: &BTreeMap<Field, Transform>, field: &Field, class: Class| {
        let transform = fields.get(field).map(|transform| transform.of_class(class));
        transform == Some(AddressTransform::Pseudonym)
    };
    let stored = ADDRESSES
        .iter()
        .any(|field| classes.iter().any(|class| is_pseudonym(&collected.fields, field, *class)));
    let own = policy.recipients.iter().map(|recipient| {
        let pairs = || ADDRESSES[..2].iter().flat_map(|field| classes.map(|class| (field, class)));
        let gets = |(field, class): (&Field, Class)| is_pseudonym(&recipient.fields, field, class);
        // Where the kernel keeps the address, the agent makes the pseudonym of the kernel, too.
        let makes = |(field, class): (&Field, Class)| {
            gets((field, class)) && !is_pseudonym(&collected.fields, field, class)
        };
        usize::from(pairs().any(gets)) + usize::from(pairs().any(makes))
    });
    let generations = if stored { 2 } else { 0 };
    [generations, own.sum()].map(|count| count * size_of::<Permutation>())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use minimizer_common::permutation::Permutation;

    use crate::policy::compile::CompiledPolicy;
    use crate::policy::model::Policy;

    #[test]
    fn permutations_of_pseudonyms_are_counted_where_they_are() {
        let memory = |recipients: &[&str]| {
            let recipients = recipients.iter().enumerate().map(|(number, fields)| {
                format!("[[recipients]]\nname = \"r{number}\"\npurpose = \"x\"\nfields = {{ {fields} }}\n")
            });
            let text = format!("name = \"p\"\n{}", recipients.collect::<String>());
            let policy = Policy::parse(&text, Path::new("p.toml")).unwrap_or_else(|error| panic!("{error}"));
            let memory = CompiledPolicy::compile(policy).expect("compiles").memory;
            [memory.kernel, memory.agent]
        };
        let (exact, pseudonym) = ("sourceIPv4Address = \"exact\"", "sourceIPv4Address = \"pseudonym\"");
        let none = memory(&[exact]);
        let permutation = size_of::<Permutation>() as u64;
        let more = |recipients: &[&str]| {
            let [kernel, agent] = memory(recipients);
            [kernel - none[0], agent - none[1]].map(|octets| octets / permutation)
        };
        // Two generations in the kernel, and one for each recipient.
        assert_eq!(more(&[pseudonym]), [2, 1]);
        assert_eq!(more(&[pseudonym, pseudonym]), [2, 2]);
        // The kernel keeps the address: its pseudonym is made in the agent, too.
        assert_eq!(more(&[exact, pseudonym]), [0, 2]);
        // The map is there; pseudonyms of IPv6 are no permutation.
        assert_eq!(more(&["sourceIPv6Address = \"pseudonym\""]), [2, 0]);
    }
}
