//! The ledger as sums that readers can check by adding up.

use maud::{Markup, html};

use super::{number, share, words};
use crate::delivery::history::OUTCOMES;
use crate::serve::status::LedgerReport;

pub fn section(ledger: &LedgerReport) -> Markup {
    let (class, verdict) = if ledger.balanced { ("good", "balanced") } else { ("bad", "not balanced") };
    let outcomes = OUTCOMES.map(|name| (name, ledger.outcome(name)));
    let places = ledger.places().map(|(name, counts)| (name, counts.packets));
    html! {
        section #ledger {
            h2 { "Ledger " span class={ "verdict " (class) } { (verdict) } }
            div.columns {
                (sum("Every packet has one outcome", "seen", ledger.seen(), &outcomes))
                (sum("Every counted packet is in one place", "counted", ledger.outcome("counted"), &places))
            }
            @if ledger.sent_unconfirmed.packets != 0 {
                p.muted {
                    "Of the exported packets, " (number(ledger.sent_unconfirmed.packets))
                    " were sent and nobody confirmed them."
                }
            }
            @if ledger.suppressed.packets != 0 {
                p.muted {
                    "About " (number(ledger.suppressed.packets))
                    " of the exported packets went in sums without keys: too few sources made their records. The number is rounded down \
                     to a power of two."
                }
            }
            (octets(ledger))
            (reasons(ledger))
        }
    }
}

/// The second sum in octets, where there are any.
fn octets(ledger: &LedgerReport) -> Markup {
    let places = ledger.places().into_iter().chain([("overflow", ledger.overflow)]);
    let octets: Vec<_> =
        places.map(|(name, counts)| (name, counts.octets)).filter(|(_, octets)| *octets != 0).collect();
    html! {
        @if !octets.is_empty() {
            p.muted {
                "The same in IP octets: "
                @for (place, (name, octets)) in octets.iter().enumerate() {
                    @if place > 0 { " + " }
                    (number(*octets)) " " (name)
                }
                " = " (number(ledger.octets_counted())) " counted, overflow included."
            }
        }
    }
}

/// Addends, a line, and the total, with a mark that says whether they add up.
fn sum(caption: &str, whole: &str, total: u64, parts: &[(&str, u64)]) -> Markup {
    let sum: u64 = parts.iter().map(|(_, packets)| packets).sum();
    let (class, mark) = if sum == total { ("good", "✓ adds up") } else { ("bad", "✗ does not add up") };
    html! {
        table.sum data-sum=(whole) {
            caption { (caption) }
            tbody {
                @for (place, (name, packets)) in parts.iter().enumerate() {
                    tr class=(class_of(name, *packets)) {
                        th scope="row" { span.sign { @if place > 0 { "+" } } (words(name)) }
                        td data-of=(name) { (number(*packets)) }
                        td.part { i style=(format_args!("width:{:.2}%", share(*packets, total))) {} }
                    }
                }
            }
            tfoot {
                tr {
                    th scope="row" { span.sign { "=" } (whole) }
                    td data-of=(whole) { (number(total)) }
                    td class=(class) { (mark) }
                }
            }
        }
    }
}

fn class_of(name: &str, packets: u64) -> &'static str {
    match (name, packets) {
        (_, 0) => "none",
        ("dropped" | "overflow", _) => "bad",
        ("malformed" | "unsupported", _) => "warn",
        _ => "some",
    }
}

/// Why packets were malformed or not supported, where there were any.
fn reasons(ledger: &LedgerReport) -> Markup {
    let mut reasons: Vec<(&str, &str, u64)> = Vec::new();
    for interface in ledger.interfaces.values() {
        for (name, outcome) in &interface.outcomes {
            for (reason, packets) in outcome.reasons() {
                match reasons.iter_mut().find(|known| (known.0, known.1) == (name, reason)) {
                    Some((_, _, sum)) => *sum += packets,
                    None => reasons.push((name, reason, packets)),
                }
            }
        }
    }
    html! {
        @if !reasons.is_empty() {
            details data-key="reasons" {
                summary { "Why packets were malformed or unsupported" }
                ul.plain {
                    @for (name, reason, packets) in reasons {
                        li { (number(packets)) " " (name) ": " (reason.replace('_', " ")) }
                    }
                }
            }
        }
    }
}
