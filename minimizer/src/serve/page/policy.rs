//! The policy in plain words, and how long its mandate lasts.

use jiff::Timestamp;
use maud::{Markup, html};

use super::{share, words};
use crate::policy::explain::Explanation;
use crate::serve::status::{PolicyReport, span};

const DAY_MILLISECONDS: u64 = 86_400_000;

pub fn section(explanation: &Explanation) -> Markup {
    html! {
        section #policy {
            h2 { "The policy in plain words" }
            div.prose {
                @for section in &explanation.sentences {
                    h3 { (section.title) }
                    @for sentence in &section.sentences {
                        p.warn[sentence.starts_with("CAUTION")] { (sentence) }
                    }
                }
            }
            @if !explanation.fields.is_empty() { (fields(explanation)) }
        }
    }
}

/// What the recipients get of each field.
fn fields(explanation: &Explanation) -> Markup {
    let absent: Vec<_> = explanation.not_collected.iter().map(|field| words(field.name())).collect();
    html! {
        details data-key="fields" {
            summary { "Field by field" }
            dl.fields {
                @for field in &explanation.fields {
                    div {
                        dt { code { (field.field.name()) } }
                        @for remains in &field.remains {
                            dd {
                                (remains.what)
                                span.muted {
                                    " — " (remains.places.join(", "))
                                    @if let Some(class) = &remains.class { " (" (class) ")" }
                                }
                            }
                        }
                    }
                }
            }
            @if !absent.is_empty() { p.muted { "Not collected: " (absent.join(", ")) "." } }
        }
    }
}

/// The mandate and what is left of its period.
pub fn mandate(policy: &PolicyReport) -> Markup {
    let (Some(mandate), Some(from), Some(until)) = (&policy.mandate, policy.valid_from, policy.valid_until)
    else {
        return html! { p.lead { "No mandate: it does not end by itself." } };
    };
    let milliseconds = |from: Timestamp, until: Timestamp| {
        u64::try_from(until.duration_since(from).as_millis()).unwrap_or(0)
    };
    let (left, whole) = (milliseconds(Timestamp::now(), until), milliseconds(from, until));
    let over = share(whole.saturating_sub(left), whole);
    let minute = |time: Timestamp| time.strftime("%Y-%m-%d %H:%M UTC").to_string();
    let label = format!("{over:.0} percent of the mandate's period are over");
    html! {
        p.lead {
            "Mandate " strong { (mandate) }
            @if left == 0 { " has ended" } @else { " ends in " (lasting(left)) }
        }
        p.muted { "From " (minute(from)) " until " (minute(until)) "." }
        p.meter role="img" aria-label=(label) { i style=(format_args!("width:{over:.1}%")) {} }
    }
}

/// A time span in its largest units: it may last for months.
fn lasting(milliseconds: u64) -> String {
    let days = milliseconds / DAY_MILLISECONDS;
    match days {
        0 => span(milliseconds),
        1 => format!("1 day {} h", milliseconds % DAY_MILLISECONDS / 3_600_000),
        2..14 => format!("{days} days {} h", milliseconds % DAY_MILLISECONDS / 3_600_000),
        _ => format!("{days} days"),
    }
}

#[cfg(test)]
mod tests {
    use super::lasting;

    #[test]
    fn a_long_time_is_told_in_days() {
        let hour = 3_600_000;
        let cases = [
            (hour * 5, "5 h 0 min"),
            (hour * 25, "1 day 1 h"),
            (hour * 100, "4 days 4 h"),
            (hour * 24 * 90, "90 days"),
        ];
        for (milliseconds, text) in cases {
            assert_eq!(lasting(milliseconds), text);
        }
    }
}
