//! Mitigations: each holds something back, and none tells by another way what it holds back.

use std::collections::BTreeMap;

use super::recipient::Context;
use crate::policy::field::Field;
use crate::policy::file::RecipientFile;
use crate::policy::model::Mitigations;
use crate::policy::transform::Transform;
use crate::support::toml::{At, Document};

/// Reads the mitigations of a recipient, and notes those that would protect nobody.
pub fn check(
    document: &mut Document<'_>,
    file: &RecipientFile,
    fields: &BTreeMap<Field, Transform>,
    context: Context,
) -> Mitigations {
    if let Some(packets) = &file.min_packets {
        if *packets.get() < 2 {
            document.refuse(
                packets,
                "every record is of a packet or more, so that this protects nobody: write 2 or more, or remove it",
            );
        }
        if file.k_threshold.is_some() {
            document.refuse(
                packets,
                "whoever sends one packet less sees whether there was another one, which is what the threshold of sources hides: \
                 remove it or `k_threshold`",
            );
        }
    }
    if let Some(noise) = &file.k_noise {
        if *noise.get() == 0 {
            document.refuse(noise, "this is no noise: write 1 or more, or remove it");
        }
        if file.k_threshold.is_none() {
            document
                .refuse(noise, "there is no threshold that it could blur: add `k_threshold`, or remove this");
        }
    }
    if let Some(at) = file.established_only.as_ref().filter(|at| *at.get()) {
        if !fields.values().any(Transform::is_keyed) {
            document.refuse(
                at,
                "the recipient gets no pseudonym that it could protect: remove it, or give pseudonyms or preserved prefixes in place \
                 of addresses",
            );
        }
        if context.is_one_way {
            document.refuse(
                at,
                "the scope collects a direction without the opposite one, so that no answer would ever be seen: add the other one, \
                 like \"domestic-foreign\" to \"foreign-domestic\", or remove this",
            );
        }
    }
    if context.interval.is_none() {
        let offsets = [
            file.min_packets.as_ref().map(|at| at.span().start),
            file.established_only.as_ref().filter(|at| *at.get()).map(|at| at.span().start),
        ];
        if let Some(offset) = offsets.into_iter().flatten().min() {
            document.limit_at(
                offset,
                "packets and answers count in one interval between two drains, and a longer one has more: fix it at the top of the \
                 policy, like interval = \"10s\"",
            );
        }
    }
    let value = |at: &Option<At<u32>>| at.as_ref().map_or(0, |at| *at.get());
    Mitigations {
        min_packets: value(&file.min_packets),
        established_only: file.established_only.as_ref().is_some_and(|at| *at.get()),
        k_noise: value(&file.k_noise),
    }
}
