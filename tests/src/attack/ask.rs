//! A party abroad who asks a threshold, by the packets that it sends itself, whether somebody else sends to a service.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::Result;
use minimizer::policy::class::Class;
use minimizer::policy::field::Field;
use minimizer::policy::model::{Policy, Recipient, Sources};
use rand::RngExt as _;
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom as _;

use super::collect::{Collector, Line, Told};
use super::probe::{PACKET, PROBER};
use super::report::{Adversary, Attempt, Report};
use super::traffic::{Packet, Sent, TCP, subscriber};

/// Questions to a threshold.
const QUESTIONS: usize = 128;
/// Ports of these questions begin here.
const PORT: u16 = 200;
/// Control bit of a reset, with which any host answers.
const RST: u8 = 0x04;
/// How likely one packet more among C changes a rounded count, times C.
const COUNT_CHANGES: f64 = 1.5;

/// By what it asks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Question {
    /// By one source less than it wants: is there a record?
    Record,
    /// By as many sources as it wants, and one packet less than a power of two: how many packets are told?
    Count,
    /// The same as by a record, by domestic hosts that answer what they get in the name of the host that the prober asks about.
    Answers,
}

/// Plays the adversary in the current epoch.
///
/// # Errors
/// When packets cannot be collected.
pub fn play(
    report: &mut Report,
    random: &mut ChaCha8Rng,
    policy: &Policy,
    collector: &mut Collector,
    folder: &Path,
) -> Result<()> {
    let explained = policy.explain().to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    for (position, recipient) in policy.recipients.iter().enumerate() {
        let Some(k) = recipient.k_threshold.filter(|k| *k > 1) else { continue };
        let noise = recipient.mitigations.k_noise;
        let is_counted = recipient.fields.contains_key(&Field::PacketDeltaCount);
        let has_answers = policy
            .scope
            .as_ref()
            .is_some_and(|scope| scope.directions.contains(&(Class::Domestic, Class::Foreign)));
        for question in [Question::Record, Question::Count, Question::Answers] {
            let (attack, forged) = match question {
                Question::Record => ("was there somebody else?", k - 1 + noise / 2),
                // Whoever makes domestic sources count makes no record alone.
                Question::Count if !is_counted || recipient.counted == Sources::Domestic => continue,
                Question::Count => ("was there somebody else? By a count", k + noise),
                Question::Answers if recipient.counted == Sources::All || !has_answers => continue,
                Question::Answers => ("was there somebody else? By answers", k - 1 + noise / 2),
            };
            // Every question has as many packets.
            let packets = match question {
                Question::Record | Question::Answers => forged,
                Question::Count => (forged + 1).next_power_of_two() - 1,
            };
            let mut answers: Vec<bool> = (0..QUESTIONS).map(|number| number % 2 == 0).collect();
            answers.shuffle(random);
            let sent = asked(random, &answers, forged, (packets, question));
            let told = collector.batch(&sent, folder)?;
            let hits = answers
                .iter()
                .enumerate()
                .filter(|(number, somebody)| {
                    answered(&told, position, *number, question, packets) == Some(**somebody)
                })
                .count();
            let (class, stated) = stated(recipient, &explained, question, packets);
            let adversary = Adversary::Prober;
            let attempt =
                Attempt { adversary, attack, class, hits, attempts: QUESTIONS, chance: 0.5, stated };
            report.add(attempt, &recipient.name);
        }
    }
    Ok(())
}

fn port(number: usize) -> u16 {
    PORT + u16::try_from(number).expect("few questions")
}

/// Packets of forged sources to as many services as there are questions, and one of somebody else where the answer is yes.
fn asked(
    random: &mut ChaCha8Rng,
    answers: &[bool],
    forged: u32,
    (packets, question): (u32, Question),
) -> Vec<Sent> {
    let mut sent = Vec::new();
    for (number, somebody) in answers.iter().enumerate() {
        let own = (0..packets).map(|packet| {
            let host = u8::try_from(1 + packet.min(forged - 1)).unwrap_or(u8::MAX);
            Ipv4Addr::new(198, 51, 100, host)
        });
        let real = somebody.then(|| Ipv4Addr::new(198, 18, 7, random.random_range(100..=200)));
        for source in own.chain(real) {
            let (addresses, ports) = ([source.into(), subscriber(7)], [port(number); 2]);
            let packet = if question == Question::Answers {
                let [.., host] = source.octets();
                let addresses = [subscriber(host.into()), PROBER.into()];
                Packet { addresses, ports, protocol: TCP, control_bits: RST, ..PACKET }
            } else {
                Packet { addresses, ports, payload: 40, ..PACKET }
            };
            sent.push(packet.at(0));
        }
    }
    sent
}

/// What the prober takes for the answer, if its packets are collected.
fn answered(told: &Told, position: usize, number: usize, question: Question, packets: u32) -> Option<bool> {
    let flow = told.flows.iter().find(|flow| flow.ports[1] == port(number))?;
    let line: Option<&Line> = told.lines[position].iter().find(|line| line.key == flow.keys[position]);
    Some(match question {
        Question::Record | Question::Answers => line.is_some(),
        Question::Count => {
            let count = line.and_then(|line| line.cells.get(&Field::PacketDeltaCount)?.parse::<u32>().ok());
            count.is_some_and(|count| count > packets)
        }
    })
}

/// What the policy is like, and the highest rate that it states; `None` if it says that the question can be answered, or says nothing.
fn stated(
    recipient: &Recipient,
    explained: &str,
    question: Question,
    packets: u32,
) -> (&'static str, Option<f64>) {
    let of_chance = |difference: f64| Some(0.5 + difference / 2.0);
    let noise = recipient.mitigations.k_noise;
    let forged = recipient.k_threshold.unwrap_or(1) - 1;
    match (question, recipient.counted) {
        (Question::Answers, _) if noise == 0 => {
            let is_said = explained.contains(&format!("Whoever makes {forged} domestic hosts answer"));
            ("domestic sources count", if is_said { None } else { of_chance(0.0) })
        }
        (Question::Record | Question::Count, Sources::Domestic) => ("domestic sources count", of_chance(0.0)),
        (Question::Record | Question::Answers, _) if noise > 0 => {
            let is_said = explained.contains(&format!("a probability of at most 1 in {}", noise + 1));
            ("k_noise", of_chance(if is_said { 1.0 / (f64::from(noise) + 1.0) } else { 0.0 }))
        }
        (Question::Count, Sources::All) if noise > 0 => {
            ("k_noise", of_chance(COUNT_CHANGES / f64::from(packets)))
        }
        (Question::Record | Question::Answers, _) => {
            let is_said = explained.contains(&format!("Whoever forges {forged} sources learns"));
            ("all sources count", if is_said { None } else { of_chance(0.0) })
        }
        (Question::Count, Sources::All) => ("all sources count", None),
    }
}
