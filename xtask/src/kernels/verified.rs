//! How many instructions the verifier of each kernel walked, compared with a budget.

use std::collections::BTreeMap;

/// The most instructions that a verifier may walk. Kernels give up at a million. The budget is far below,
/// because a small change can multiply the number.
const BUDGET: u32 = 150_000;
/// The budget for a program whose policy makes it take every step.
const EVERYTHING_BUDGET: u32 = 800_000;
/// Prefix of the names of such programs.
const EVERYTHING: &str = "everything";

const TITLE: &str = "verified instructions";

/// Counts by variant of the program. Each has one count for every kernel, in the order of the boots.
#[derive(Default)]
pub struct Verified {
    kernels: Vec<(String, BTreeMap<String, u32>)>,
}

impl Verified {
    /// Adds the counts from a guest's console.
    pub fn add(&mut self, kernel: &str, console: &str) {
        self.kernels.push((kernel.to_owned(), console.lines().filter_map(count).collect()));
    }

    /// One line for each kernel, one column for each variant.
    pub fn table(&self) -> String {
        let variants: BTreeMap<&str, usize> = self
            .kernels
            .iter()
            .flat_map(|(_, counts)| counts.keys())
            .map(|variant| (variant.as_str(), variant.len().max(7)))
            .collect();
        let width =
            self.kernels.iter().map(|(kernel, _)| kernel.len()).chain([TITLE.len()]).max().unwrap_or(0);
        let mut table = format!("{TITLE:<width$}");
        for (variant, width) in &variants {
            table += &format!("  {variant:>width$}");
        }
        for (kernel, counts) in &self.kernels {
            table += &format!("\n{kernel:<width$}");
            for (variant, width) in &variants {
                let count = counts.get(*variant).map_or("-".to_owned(), u32::to_string);
                table += &format!("  {count:>width$}");
            }
        }
        table + &format!("\nthe budget is {BUDGET}, for {EVERYTHING} {EVERYTHING_BUDGET}")
    }

    /// The variants and kernels that exceed the budget.
    pub fn over_budget(&self) -> impl Iterator<Item = String> {
        self.kernels.iter().flat_map(|(kernel, counts)| {
            counts.iter().filter_map(move |(variant, count)| {
                let budget = if variant.starts_with(EVERYTHING) { EVERYTHING_BUDGET } else { BUDGET };
                (*count > budget).then(|| format!("{variant} on {kernel}: {count}, the budget is {budget}"))
            })
        })
    }
}

/// Variant and count in `passed load VARIANT: verified COUNT instructions …`.
fn count(line: &str) -> Option<(String, u32)> {
    let (variant, rest) = line.strip_prefix("passed load ")?.split_once(": verified ")?;
    Some((variant.to_owned(), rest.split_once(" instructions")?.0.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::Verified;

    #[test]
    fn what_passes_the_budget_is_named() {
        let mut verified = Verified::default();
        verified.add("5.10", "passed load a: verified 150000 instructions (0.1 s)\npassed parse a: yes\n");
        verified.add("6.1", "passed load a: verified 150001 instructions (0.1 s)\n");
        let over: Vec<_> = verified.over_budget().collect();
        assert_eq!(over, ["a on 6.1: 150001, the budget is 150000"]);
        assert!(verified.table().contains("150001"), "{}", verified.table());
    }
}
