//! A recipient who is curious: what its own files tell it of subscribers.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use minimizer::policy::field::Field;
use minimizer::policy::model::{Mitigations, Policy, Recipient};
use minimizer::policy::transform::AddressTransform;
use rand::rngs::ChaCha8Rng;
use rand::seq::IndexedRandom as _;

use super::collect::{Flow, Line, Told};
use super::drawn::treatment;
use super::joins::{matched, party, profiles, tells_parties};
use super::report::{Adversary, Attempt, Report};
use super::statistics::{correlation, is_correlated};
use super::traffic;

/// How often the keys of two epochs give an address the same of 2^28 names.
const SAME_NAME: f64 = 1.0 / (1 << 28) as f64;
/// Fewer parties say nothing.
const PARTIES_MIN: usize = 20;

/// Plays the adversary on the batches of two epochs that follow each other.
pub fn play(report: &mut Report, random: &mut ChaCha8Rng, policy: &Policy, epochs: [&[Told]; 2]) {
    for (position, recipient) in policy.recipients.iter().enumerate() {
        let class = class(policy, position);
        let attempt = |report: &mut Report, attack, hits, attempts, chance, stated| {
            let adversary = Adversary::CuriousRecipient;
            report.add(Attempt { adversary, attack, class, hits, attempts, chance, stated }, &recipient.name);
        };
        for told in epochs.into_iter().flatten() {
            let (hits, attempts, chance) = by_contact(random, policy, position, told);
            attempt(report, "by one contact that it knows", hits, attempts, chance, None);
            if let Some(k) = recipient.k_threshold.filter(|k| *k > 1) {
                let few = |line: &&Line| sources(told, line) < k as usize;
                let hits = told.lines[position].iter().filter(few).count();
                attempt(
                    report,
                    "a record of too few sources",
                    hits,
                    told.lines[position].len(),
                    0.0,
                    Some(0.0),
                );
            }
            held_back(report, recipient, &told.lines[position], &told.flows);
        }
        if !tells_parties(policy, recipient) {
            continue;
        }
        by_name(report, policy, position, epochs);
        let names = epochs
            .map(|batches| batches.iter().map(|told| names(policy, position, told)).collect::<Vec<_>>());
        let by_place = |named: &Named| named.place as u128;
        let by_address = |named: &Named| named.subscriber as u128;
        let mut compared = Vec::new();
        for told in names.iter().flatten() {
            compared.push(("address by a pseudonym's value", ranked([told, told], by_value, by_address)));
        }
        if let (Some(last), Some(first)) = (names[0].last(), names[1].first()) {
            compared.push(("epochs by values of pseudonyms", ranked([last, first], by_value, by_value)));
            compared.push(("epochs by the order of lines", ranked([last, first], by_place, by_place)));
        }
        for (attack, ranks) in compared {
            for Ranked { hits, parties, is_correlated } in ranks {
                let chance = 1.0 / parties as f64;
                attempt(report, attack, hits, parties, chance, Some(chance));
                report.add_order(attack, is_correlated, &recipient.name);
            }
        }
        let profiles = epochs.map(|batches| {
            profiles(policy, position, batches, |_, told, line| vec![unnamed(policy, position, told, line)])
        });
        let (hits, attempts) = matched(&profiles[0], &profiles[1]);
        attempt(
            report,
            "epochs by what a party does",
            hits,
            attempts,
            1.0 / profiles[1].len().max(1) as f64,
            None,
        );
    }
}

/// Lines that mitigations hold back.
fn held_back(report: &mut Report, recipient: &Recipient, lines: &[Line], flows: &[Flow]) {
    let Mitigations { min_packets, established_only, .. } = recipient.mitigations;
    let packets = |line: &Line| line.made_of.iter().map(|number| flows[*number].packets).sum::<u64>();
    let is_few = |line: &&Line| packets(line) < u64::from(min_packets);
    let is_unanswered = |line: &&Line| line.made_of.iter().any(|number| !flows[*number].is_answered);
    let mut add = |attack, class, hits| {
        let (adversary, attempts) = (Adversary::CuriousRecipient, lines.len());
        let attempt = Attempt { adversary, attack, class, hits, attempts, chance: 0.0, stated: Some(0.0) };
        report.add(attempt, &recipient.name);
    };
    if min_packets > 1 {
        add("a record of too few packets", "min_packets", lines.iter().filter(is_few).count());
    }
    if established_only {
        let hits = lines.iter().filter(is_unanswered).count();
        add("a record of what nobody answered", "established_only", hits);
    }
}

/// It looks in the second of two epochs for the names that subscribers have in the first.
fn by_name(report: &mut Report, policy: &Policy, position: usize, epochs: [&[Told]; 2]) {
    let recipient = &policy.recipients[position];
    let named = epochs.map(|batches| {
        let mut names: BTreeMap<(usize, Field), &str> = BTreeMap::new();
        for (told, line) in
            batches.iter().flat_map(|told| told.lines[position].iter().map(move |line| (told, line)))
        {
            let name = party(policy, recipient, told, line);
            if let (Some(subscriber), Some((field, name))) = (line.subscriber, name) {
                names.insert((subscriber, field), name);
            }
        }
        names
    });
    let mut found: BTreeMap<&str, (usize, usize, Option<f64>)> = BTreeMap::new();
    for ((subscriber, field), name) in &named[0] {
        let Some(later) = named[1].get(&(*subscriber, *field)) else { continue };
        let (class, stated) = match treatment(policy, recipient, *field, true) {
            AddressTransform::Pseudonym => ("pseudonyms", Some(SAME_NAME)),
            AddressTransform::PrefixPreserving(_) => ("preserved prefixes", Some(SAME_NAME)),
            _ => ("addresses as they are", None),
        };
        let (hits, attempts, _) = found.entry(class).or_insert((0, 0, stated));
        *hits += usize::from(later == name);
        *attempts += 1;
    }
    for (class, (hits, attempts, stated)) in found {
        let (adversary, attack) = (Adversary::CuriousRecipient, "epochs by the same name");
        report.add(
            Attempt { adversary, attack, class, hits, attempts, chance: SAME_NAME, stated },
            &recipient.name,
        );
    }
}

/// What a recipient gets of subscribers.
fn class(policy: &Policy, position: usize) -> &'static str {
    let recipient = &policy.recipients[position];
    let of = |field| treatment(policy, recipient, field, true);
    let all = [
        Field::SourceIPv4Address,
        Field::DestinationIPv4Address,
        Field::SourceIPv6Address,
        Field::DestinationIPv6Address,
    ]
    .map(of);
    let has = |wanted: fn(&AddressTransform) -> bool| all.iter().any(wanted);
    if recipient.k_threshold.is_some() {
        "threshold"
    } else if has(|it| *it == AddressTransform::Exact) {
        "addresses as they are"
    } else if has(|it| matches!(it, AddressTransform::PrefixPreserving(_))) {
        "preserved prefixes"
    } else if has(|it| *it == AddressTransform::Pseudonym) {
        "pseudonyms"
    } else if has(|it| matches!(it, AddressTransform::Truncated { .. })) {
        "truncated addresses"
    } else {
        "no addresses"
    }
}

/// The sources of a line, as a threshold counts them.
fn sources(told: &Told, line: &Line) -> usize {
    let source = |number: &usize| match told.flows[*number].addresses[0] {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits() >> 64,
    };
    line.made_of.iter().map(source).collect::<std::collections::BTreeSet<_>>().len()
}

/// It knows of each subscriber one contact: with whom, by which service, in which batch. It looks for the line, with every name that
/// a subscriber could have, and takes one of those that it finds.
fn by_contact(random: &mut ChaCha8Rng, policy: &Policy, position: usize, told: &Told) -> (usize, usize, f64) {
    let mut contacts: BTreeMap<usize, Vec<&Flow>> = BTreeMap::new();
    for flow in &told.flows {
        contacts.entry(flow.subscriber.unwrap_or(usize::MAX)).or_default().push(flow);
    }
    let mut lines: HashMap<String, Vec<&Line>> = HashMap::new();
    for line in &told.lines[position] {
        lines.entry(unnamed(policy, position, told, line)).or_default().push(line);
    }
    let by_key: HashMap<&str, &Line> = told.lines[position].iter().map(|line| (&*line.key, line)).collect();
    let mut hits = 0;
    for (subscriber, flows) in &contacts {
        // What it knows of the contact is the line without the subscriber's name and the client's port.
        let known = flows.choose(random).and_then(|flow| by_key.get(&*flow.keys[position]));
        let known = known.map(|line| unnamed(policy, position, told, line));
        let found = known.and_then(|known| lines.get(&known)).and_then(|lines| lines.choose(random));
        hits += usize::from(found.is_some_and(|line| line.subscriber == Some(*subscriber)));
    }
    (hits, contacts.len(), 1.0 / contacts.len().max(1) as f64)
}

/// The key of a line without what it says of the subscriber's end.
fn unnamed(policy: &Policy, position: usize, told: &Told, line: &Line) -> String {
    let named = party(policy, &policy.recipients[position], told, line).map(|(field, _)| field);
    let is_up = line.made_of.first().is_some_and(|number| told.flows[*number].is_up);
    let client = if is_up { Field::SourceTransportPort } else { Field::DestinationTransportPort };
    let cells = line.cells.iter().filter(|(field, _)| Some(**field) != named && **field != client);
    let keys = cells.filter(|(field, _)| line.key.contains(field.name()));
    keys.map(|(field, cell)| format!("{field}={cell} ")).collect()
}

/// A party as a recipient sees it in a batch.
pub struct Named {
    name: String,
    /// The place of its first line.
    place: usize,
    subscriber: usize,
}

/// Parties that have pseudonyms, once each.
pub fn names(policy: &Policy, position: usize, told: &Told) -> Vec<Named> {
    let mut names: HashMap<&str, Named> = HashMap::new();
    for (place, line) in told.lines[position].iter().enumerate() {
        let Some((field, name)) = party(policy, &policy.recipients[position], told, line) else { continue };
        let is_pseudonym =
            treatment(policy, &policy.recipients[position], field, true) == AddressTransform::Pseudonym;
        let Some(subscriber) = line.subscriber.filter(|_| is_pseudonym) else { continue };
        names.entry(name).or_insert_with(|| Named { name: name.to_owned(), place, subscriber });
    }
    names.into_values().collect()
}

/// The pseudonym as a number.
pub fn by_value(named: &Named) -> u128 {
    match named.name.parse() {
        Ok(IpAddr::V4(address)) => u128::from(address.to_bits()),
        Ok(IpAddr::V6(address)) => address.to_bits(),
        Err(_) => 0,
    }
}

/// Two orders of the subscribers that are in both of two batches.
pub struct Ranked {
    /// Subscribers that have the same rank in both.
    pub hits: usize,
    /// All.
    pub parties: usize,
    /// Whether the orders are clearly correlated.
    pub is_correlated: bool,
}

/// The subscribers that are in both, by IP version.
pub fn ranked(
    [one, other]: [&[Named]; 2],
    of_one: impl Fn(&Named) -> u128,
    of_other: impl Fn(&Named) -> u128,
) -> Vec<Ranked> {
    let version = |ipv6: bool| {
        let known = |named: &&Named| traffic::subscriber(named.subscriber).is_ipv6() == ipv6;
        let others: HashMap<usize, &Named> =
            other.iter().filter(known).map(|named| (named.subscriber, named)).collect();
        let mut both: Vec<_> = one
            .iter()
            .filter(known)
            .filter_map(|named| Some((named, *others.get(&named.subscriber)?)))
            .collect();
        if both.len() < PARTIES_MIN {
            return None;
        }
        both.sort_by_key(|(named, _)| of_one(named));
        let mut order: Vec<_> = (0..both.len()).collect();
        order.sort_by_key(|place| of_other(both[*place].1));
        let hits = order.iter().enumerate().filter(|(rank, place)| rank == *place).count();
        let places: Vec<_> = order.into_iter().enumerate().collect();
        let is_correlated = correlation(&places).is_some_and(|found| is_correlated(found, places.len()));
        Some(Ranked { hits, parties: places.len(), is_correlated })
    };
    [false, true].into_iter().filter_map(version).collect()
}
