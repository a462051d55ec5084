//! What the adversaries reached, beside chance and beside what the policy says.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;

use super::statistics::is_above;

/// Who attacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Adversary {
    /// A recipient who is curious.
    CuriousRecipient,
    /// Two recipients who talk.
    TwoRecipients,
    /// A party abroad who sends packets, and reads what a recipient gets.
    Prober,
    /// An engineer who edits files.
    Engineer,
}

impl fmt::Display for Adversary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::CuriousRecipient => "A RECIPIENT WHO IS CURIOUS",
            Self::TwoRecipients => "TWO RECIPIENTS WHO TALK",
            Self::Prober => "A PARTY ABROAD WHO SENDS PACKETS",
            Self::Engineer => "AN ENGINEER WHO EDITS FILES",
        })
    }
}

/// The result of an attack on one policy.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// Who.
    pub adversary: Adversary,
    /// How.
    pub attack: &'static str,
    /// What the policy is like where it matters to the attack.
    pub class: &'static str,
    /// Right guesses, or edits that nothing refuses.
    pub hits: usize,
    /// All.
    pub attempts: usize,
    /// The rate of guesses at random.
    pub chance: f64,
    /// The highest rate that what the policy says leaves; `None` if it says that the attack can succeed, or says nothing.
    pub stated: Option<f64>,
}

#[derive(Default)]
struct Row {
    policies: BTreeSet<u64>,
    hits: usize,
    attempts: usize,
    by_chance: f64,
    by_statement: Option<f64>,
}

/// Everything that was attacked.
#[derive(Default)]
pub struct Report {
    rows: BTreeMap<(Adversary, &'static str, &'static str), Row>,
    seed: u64,
    policies: u64,
    /// Orders that were compared as ranks.
    orders: u64,
    failures: Vec<String>,
}

impl Report {
    /// What follows is of the policy of this seed.
    pub const fn begin(&mut self, seed: u64) {
        self.seed = seed;
        self.policies += 1;
    }

    /// Adds a result. It is a failure if it is clearly above what the policy states.
    pub fn add(&mut self, attempt: Attempt, about: &str) {
        let Attempt { adversary, attack, class, hits, attempts, chance, stated } = attempt;
        if attempts == 0 {
            return;
        }
        if let Some(stated) = stated.filter(|stated| is_above(hits, attempts, *stated)) {
            self.failures.push(format!(
                "seed {}, {about}: {attack} ({class}): {hits} of {attempts}, where {:.2} % is stated",
                self.seed,
                100.0 * stated
            ));
        }
        let row = self.rows.entry((adversary, attack, class)).or_default();
        row.policies.insert(self.seed);
        row.hits += hits;
        row.attempts += attempts;
        row.by_chance += chance * attempts as f64;
        if let Some(stated) = stated {
            *row.by_statement.get_or_insert(0.0) += stated.min(1.0) * attempts as f64;
        }
    }

    /// Adds a comparison of two orders, which is a failure if they are correlated.
    pub fn add_order(&mut self, what: &str, is_correlated: bool, about: &str) {
        self.orders += 1;
        if is_correlated {
            self.failures.push(format!("seed {}, {about}: {what}: the ranks are correlated", self.seed));
        }
    }

    /// The rate of an attack over all policies of a class, and that of chance; `None` if there was none.
    #[must_use]
    pub fn rates(&self, attack: &str, class: &str) -> Option<(f64, f64)> {
        let row = self.rows.iter().find(|((_, of, other), _)| (*of, *other) == (attack, class));
        row.map(|(_, row)| {
            let attempts = row.attempts as f64;
            (row.hits as f64 / attempts, row.by_chance / attempts)
        })
    }

    /// What was above what the policy states.
    #[must_use]
    pub fn failures(&self) -> &[String] {
        &self.failures
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}", machine())?;
        writeln!(formatter, "{} policies", self.policies)?;
        let mut adversary = None;
        for ((of, attack, class), row) in &self.rows {
            if adversary.replace(*of) != Some(*of) {
                writeln!(
                    formatter,
                    "\n{:<37} {:<27} {:>8} {:>8} {:>8} {:>8} {:>8}",
                    of.to_string(),
                    "",
                    "policies",
                    "attempts",
                    "rate",
                    "chance",
                    "stated"
                )?;
            }
            let share = |sum: f64| format!("{:.2} %", 100.0 * sum / row.attempts as f64);
            writeln!(
                formatter,
                "{attack:<37} {class:<27} {:>8} {:>8} {:>8} {:>8} {:>8}",
                row.policies.len(),
                row.attempts,
                share(row.hits as f64),
                share(row.by_chance),
                row.by_statement.map_or_else(|| "-".to_owned(), share),
            )?;
        }
        writeln!(formatter, "\n{} orders compared as ranks", self.orders)?;
        writeln!(formatter, "{} above what is stated", self.failures.len())?;
        self.failures.iter().try_for_each(|failure| writeln!(formatter, "ABOVE WHAT IS STATED: {failure}"))
    }
}

/// Kernel and CPU.
fn machine() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let mut models = cpus.lines().filter_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = models.next().map_or("unknown CPU", |(_, model)| model);
    format!("Linux {}, {model}, {} CPUs", kernel.trim(), 1 + models.count())
}
