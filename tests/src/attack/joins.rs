//! Two recipients who talk: they compare the lines of a batch by their order, by what both are told, and by what each party does
//! over an epoch.

use std::collections::{BTreeMap, HashMap, HashSet};

use minimizer::policy::field::{Field, Kind};
use minimizer::policy::joins::Verdict;
use minimizer::policy::model::{Policy, Recipient};
use minimizer::policy::transform::{AddressTransform, Transform};
use rand::rngs::ChaCha8Rng;
use rand::seq::IndexedRandom as _;

use super::collect::{Line, Told};
use super::curious::{Ranked, by_value, names, ranked};
use super::drawn::{is_address, treatment};
use super::report::{Adversary, Attempt, Report};
use super::statistics::{correlation, is_correlated};

/// Values that what both are told can take at most where a pair is told as not joinable: 10 bits.
const VALUES_MAX: f64 = 1024.0;

/// Plays the adversary on the batches of one epoch.
pub fn play(
    report: &mut Report,
    random: &mut ChaCha8Rng,
    policy: &Policy,
    pairs: &[([usize; 2], Recipient)],
    batches: &[Told],
) {
    for (place, ([one, other], common)) in pairs.iter().enumerate() {
        let recipients = [&policy.recipients[*one], &policy.recipients[*other]];
        let (class, is_apart) = class(policy, recipients);
        let about = about(recipients);
        let attempt = |report: &mut Report, attack, hits, attempts, chance, stated| {
            let adversary = Adversary::TwoRecipients;
            report.add(Attempt { adversary, attack, class, hits, attempts, chance, stated }, &about);
        };
        for told in batches {
            let [first, second] = [&told.lines[*one], &told.lines[*other]];
            if first.is_empty() || second.is_empty() {
                continue;
            }
            let chance = chance(first, second);
            let (hits, attempts) = by_order(first, second);
            attempt(report, "by the order of lines", hits, attempts, chance, Some(chance));
            if let Some((found, pairs)) = order(first, second) {
                report.add_order("by the order of lines", is_correlated(found, pairs), &about);
            }
            let names = [*one, *other].map(|position| names(policy, position, told));
            for Ranked { hits, parties, is_correlated } in ranked([&names[0], &names[1]], by_value, by_value)
            {
                let chance = 1.0 / parties as f64;
                let attack = "by the values of pseudonyms";
                attempt(report, attack, hits, parties, chance, Some(chance));
                report.add_order(attack, is_correlated, &about);
            }
            let bound = is_apart.then(|| (VALUES_MAX / attempts.max(1) as f64).max(chance));
            for (attack, with_values) in [("by fields", false), ("by fields, counts and times", true)] {
                let like = |line: &Line| likeness(told, place, common, line, with_values);
                let hits = by_likeness(random, first, second, like);
                attempt(report, attack, hits, attempts, chance, bound);
            }
        }
    }
}

/// A pair of recipients: its place among all pairs, their positions, and what both are told.
pub type Pair = (usize, [usize; 2], Recipient);

/// The pairs of recipients who can both tell subscribers apart, and whose single records are not told as joinable by fields.
#[must_use]
pub fn apart(policy: &Policy, pairs: &[([usize; 2], Recipient)]) -> Vec<Pair> {
    let tell = |positions: &[usize; 2]| {
        let recipients = positions.map(|position| &policy.recipients[position]);
        policy.pair(recipients[0], recipients[1]).verdict != Verdict::Joinable
            && recipients.iter().all(|recipient| tells_parties(policy, recipient))
    };
    let pairs = pairs.iter().enumerate().filter(|(_, (positions, _))| tell(positions));
    pairs.map(|(place, (positions, common))| (place, *positions, common.clone())).collect()
}

/// Compares what each party does in batches of one epoch: when, and what both are told of it.
pub fn chain(report: &mut Report, policy: &Policy, pairs: &[Pair], batches: &[Told]) {
    for (place, positions, common) in pairs {
        let recipients = positions.map(|position| &policy.recipients[position]);
        let (class, is_apart) = class(policy, recipients);
        let [first, second] = positions.map(|position| {
            profiles(policy, position, batches, |number, told, line| {
                let like = |with_values| likeness(told, *place, common, line, with_values);
                vec![
                    format!("{number}"),
                    format!("{number} {}", like(false)),
                    format!("{number} {}", like(true)),
                ]
            })
        });
        let (hits, attempts) = matched(&first, &second);
        let chance = 1.0 / second.len().max(1) as f64;
        let adversary = Adversary::TwoRecipients;
        let attack = "by what a party does in an epoch";
        let stated = is_apart.then_some(chance);
        report.add(Attempt { adversary, attack, class, hits, attempts, chance, stated }, &about(recipients));
    }
}

/// What the policy says of a pair, and whether its records cannot be joined.
fn class(policy: &Policy, recipients: [&Recipient; 2]) -> (&'static str, bool) {
    let is_promised = |pair: &[String; 2]| recipients.iter().all(|recipient| pair.contains(&recipient.name));
    match policy.pair(recipients[0], recipients[1]).verdict {
        Verdict::Joinable => ("told as joinable", false),
        Verdict::JoinableByCounts => ("told as joinable by counts", false),
        Verdict::NotJoinable if policy.unlinkable.iter().any(is_promised) => ("unlinkable", true),
        Verdict::NotJoinable => ("told as not joinable", true),
    }
}

fn about(recipients: [&Recipient; 2]) -> String {
    format!("{} and {}", recipients[0].name, recipients[1].name)
}

/// Whether two lines are of the same single subscriber, and of a flow that is in both.
fn is_twin(one: &Line, other: &Line) -> bool {
    one.subscriber.is_some()
        && one.subscriber == other.subscriber
        && one.made_of.iter().any(|number| other.made_of.contains(number))
}

/// The rate at which lines that are picked at random are twins.
fn chance(first: &[Line], second: &[Line]) -> f64 {
    let twins = twins(first, second).map(|(_, twins)| twins.len()).sum::<usize>();
    twins as f64 / (first.len() * second.len()) as f64
}

/// For each line of the first its twins in the second, by their places.
fn twins<'told>(
    first: &'told [Line],
    second: &'told [Line],
) -> impl Iterator<Item = (usize, HashSet<usize>)> + 'told {
    let mut of_flow: HashMap<usize, Vec<usize>> = HashMap::new();
    for (place, line) in second.iter().enumerate() {
        for number in &line.made_of {
            of_flow.entry(*number).or_default().push(place);
        }
    }
    first.iter().enumerate().map(move |(place, line)| {
        let near = line.made_of.iter().filter_map(|number| of_flow.get(number)).flatten().copied();
        (place, near.filter(|other| is_twin(line, &second[*other])).collect())
    })
}

/// Line by line, scaled where one file is longer.
fn by_order(first: &[Line], second: &[Line]) -> (usize, usize) {
    let twin = |place: usize| &second[place * second.len() / first.len()];
    let hits = first.iter().enumerate().filter(|(place, line)| is_twin(line, twin(*place))).count();
    (hits, first.len())
}

/// The rank correlation of the places of twins, each line once, and how many there are.
fn order(first: &[Line], second: &[Line]) -> Option<(f64, usize)> {
    let mut of_flow: HashMap<usize, usize> = HashMap::new();
    for (place, line) in second.iter().enumerate() {
        of_flow.extend(line.made_of.iter().map(|number| (*number, place)));
    }
    let mut taken = HashSet::new();
    let places: Vec<_> = first
        .iter()
        .enumerate()
        .filter_map(|(place, line)| {
            let mut near = line.made_of.iter().filter_map(|number| of_flow.get(number));
            near.find(|other| taken.insert(**other)).map(|other| (place, *other))
        })
        .collect();
    correlation(&places).map(|found| (found, places.len()))
}

/// What both are told of a line.
fn likeness(told: &Told, place: usize, common: &Recipient, line: &Line, with_values: bool) -> String {
    let mut like =
        line.made_of.first().map(|number| told.flows[*number].common[place].clone()).unwrap_or_default();
    if with_values {
        for (field, transform) in &common.fields {
            if matches!(field.kind(), Kind::Count | Kind::Time | Kind::ControlBits) {
                let cell = line.cells.get(field).and_then(|cell| cell.parse().ok());
                like += &format!("{field}={:?} ", cell.map(|value| coarse(*transform, value)));
            }
        }
    }
    like
}

/// A count, a time, control bits or a port under a transform.
#[must_use]
pub fn coarse(transform: Transform, value: u64) -> u64 {
    match transform {
        Transform::Log2 => value.checked_ilog2().map_or(0, |log2| 1 << log2),
        Transform::Coarsened { unit } => {
            let unit = u64::try_from(unit.as_millis()).unwrap_or(u64::MAX).max(1);
            value - value % unit
        }
        Transform::ControlBits { mask } => value & u64::from(mask),
        Transform::PortClasses => [49_152, 1024].into_iter().find(|first| value >= *first).unwrap_or(0),
        Transform::ServicePorts { below } if value >= u64::from(below) => 0,
        Transform::ListedPorts { below, listed }
            if value >= u64::from(below) && !u16::try_from(value).is_ok_and(|port| listed.has(port)) =>
        {
            0
        }
        _ => value,
    }
}

/// Takes for each line of the first one of those of the second that are like it, at random.
fn by_likeness(
    random: &mut ChaCha8Rng,
    first: &[Line],
    second: &[Line],
    like: impl Fn(&Line) -> String,
) -> usize {
    let mut alike: HashMap<String, Vec<usize>> = HashMap::new();
    for (place, line) in second.iter().enumerate() {
        alike.entry(like(line)).or_default().push(place);
    }
    let mut hits = 0;
    for line in first {
        let candidate = alike.get(&like(line)).and_then(|candidates| candidates.choose(random));
        hits += usize::from(candidate.is_some_and(|place| is_twin(line, &second[*place])));
    }
    hits
}

/// Whether the recipient can tell subscribers apart, whatever their name is.
#[must_use]
pub fn tells_parties(policy: &Policy, recipient: &Recipient) -> bool {
    use AddressTransform::{Exact, PrefixPreserving, Pseudonym};
    let is_told = |field: &Field| {
        is_address(*field)
            && matches!(treatment(policy, recipient, *field, true), Exact | Pseudonym | PrefixPreserving(_))
    };
    Field::ALL.iter().any(is_told)
}

/// The field of a line that has the subscriber's name, and the name.
#[must_use]
pub fn party<'line>(
    policy: &Policy,
    recipient: &Recipient,
    told: &Told,
    line: &'line Line,
) -> Option<(Field, &'line str)> {
    use AddressTransform::{Exact, PrefixPreserving, Pseudonym};
    let flow = &told.flows[*line.made_of.first()?];
    line.subscriber?;
    let field = match (flow.is_up, flow.addresses[0].is_ipv6()) {
        (true, false) => Field::SourceIPv4Address,
        (true, true) => Field::SourceIPv6Address,
        (false, false) => Field::DestinationIPv4Address,
        (false, true) => Field::DestinationIPv6Address,
    };
    let is_name =
        matches!(treatment(policy, recipient, field, true), Exact | Pseudonym | PrefixPreserving(_));
    line.cells.get(&field).filter(|_| is_name).map(|name| (field, &**name))
}

/// The tokens of each party that a recipient can tell apart, by its name there, with the subscriber that it is.
pub type Profiles = BTreeMap<String, (usize, HashSet<String>)>;

/// What each party does. `tokens` says it of a line of the batch of that number.
pub fn profiles(
    policy: &Policy,
    position: usize,
    batches: &[Told],
    tokens: impl Fn(usize, &Told, &Line) -> Vec<String>,
) -> Profiles {
    let mut profiles = Profiles::new();
    for (number, told) in batches.iter().enumerate() {
        for line in &told.lines[position] {
            let Some((_, name)) = party(policy, &policy.recipients[position], told, line) else { continue };
            let Some(subscriber) = line.subscriber else { continue };
            let profile = profiles.entry(name.to_owned()).or_insert_with(|| (subscriber, HashSet::new()));
            profile.1.extend(tokens(number, told, line));
        }
    }
    profiles
}

/// For how many of the first the most similar of the second is the same subscriber, and of how many. Rare tokens weigh more.
#[must_use]
pub fn matched(first: &Profiles, second: &Profiles) -> (usize, usize) {
    let mut having: HashMap<&str, Vec<usize>> = HashMap::new();
    let seconds: Vec<_> = second.values().collect();
    for (number, (_, tokens)) in seconds.iter().enumerate() {
        for token in tokens {
            having.entry(token).or_default().push(number);
        }
    }
    let weight = |having: &[usize]| (1.0 + seconds.len() as f64 / having.len() as f64).ln();
    let of = |tokens: &HashSet<String>| -> f64 {
        tokens.iter().map(|token| having.get(&**token).map_or(1.0, |having| weight(having))).sum()
    };
    let sums: Vec<_> = seconds.iter().map(|(_, tokens)| of(tokens)).collect();
    let hits = first.values().filter(|(subscriber, tokens)| {
        let mut shared = vec![0.0; seconds.len()];
        for having in tokens.iter().filter_map(|token| having.get(&**token)) {
            having.iter().for_each(|number| shared[*number] += weight(having));
        }
        let own = of(tokens);
        let similar =
            |number: &usize| shared[*number] / (own + sums[*number] - shared[*number]).max(f64::MIN_POSITIVE);
        let best = (0..seconds.len()).max_by(|one, other| similar(one).total_cmp(&similar(other)));
        best.is_some_and(|best| seconds[best].0 == *subscriber)
    });
    (hits.count(), first.len())
}
