//! The page for people: what is collected and why, whether the ledger balances, and how the agent does.
//!
//! One document that is complete without its script. It loads nothing but that script, which renews it in place.
//!
//! All HTML comes from `maud`, which escapes every value. `PreEscaped` stands in one place, for the style sheet.

mod ledger;
mod machine;
mod plot;
mod policy;
mod sinks;
mod traffic;

use maud::{DOCTYPE, Markup, PreEscaped, Render, html};

use crate::delivery::account::SinkState;
use crate::serve::snapshot::Snapshot;
use crate::serve::status::{Report, span};

/// Where the script is.
pub const SCRIPT_PATH: &str = "/page.js";
/// Renews the page in place. Where scripts are off, a `refresh` loads the whole page again.
pub const SCRIPT: &str = include_str!("page/page.js");
const STYLE: &str = include_str!("page/page.css");

/// Nothing from elsewhere, no inline script, no form, no frame. The icon is an empty one inside the page, so that the
/// browser does not ask for another.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; \
                                           script-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
                                           frame-ancestors 'none'";

/// Shortest and longest time until the script renews the page, in seconds.
const RENEWED_SECONDS: (u64, u64) = (1, 60);
/// Shortest time until a page without its script is loaded again: that moves what the reader looks at.
const RELOADED_SECONDS_MIN: u64 = 5;

/// The page of a snapshot.
pub fn landing(snapshot: &Snapshot) -> String {
    let report = Report::new(snapshot);
    let seconds = report.drains.interval_milliseconds.div_ceil(1000);
    let seconds = seconds.clamp(RENEWED_SECONDS.0, RENEWED_SECONDS.1);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                link rel="icon" href="data:,";
                noscript { meta http-equiv="refresh" content=(seconds.max(RELOADED_SECONDS_MIN)); }
                title { (report.policy.name) " · minimizer" }
                style { (PreEscaped(STYLE)) }
                script src=(SCRIPT_PATH) defer {}
            }
            body data-seconds=(seconds) {
                p #gone role="status" hidden {}
                main {
                    (header(&report))
                    (ledger::section(&report.ledger))
                    (traffic::section(&snapshot.history, &report))
                    (sinks::section(&report))
                    (policy::section(&snapshot.policy.explanation))
                    (machine::section(&snapshot.history, &report))
                }
                footer {
                    nav aria-label="For programs" {
                        a href="/metrics" { "metrics" } " " a href="/status" { "status" } " "
                        a href="/-/healthy" { "healthy" } " " a href="/-/ready" { "ready" }
                    }
                    p { "minimizer " (report.version) }
                }
            }
        }
    };
    page.into_string()
}

/// Whether all is well, which policy is in force, and on whose authority.
fn header(report: &Report) -> Markup {
    let all = report.interfaces.len();
    let attached = report.interfaces.iter().filter(|interface| interface.mode.is_some()).count();
    let interfaces = if attached == all && all > 0 { "good" } else { "warn" };
    let failing = report.sinks.iter().filter(|sink| sink.state == SinkState::Down).count();
    let works = report.sinks.iter().filter(|sink| sink.state == SinkState::Up).count();
    let drained = report.drains.last_success_age_milliseconds;
    html! {
        header #top {
            p.brand { "minimizer" }
            ul.states {
                @match &report.not_ready {
                    None => (state("good", "ready")),
                    Some(reason) => (state("bad", format_args!("not ready: {reason}"))),
                }
                @if report.ledger.balanced { (state("good", "balanced")) } @else { (state("bad", "not balanced")) }
                (state(interfaces, format_args!("{attached} of {all} interfaces")))
                @match (report.sinks.len(), failing, works) {
                    (0, ..) => {}
                    (1, 0, 1) => (state("good", "sink works")),
                    (all, 0, works) if all == works => (state("good", "all sinks work")),
                    (_, 0, _) => (state("good", "no sink fails")),
                    (all, failing, _) => (state("bad", format_args!("{failing} of {all} sinks fail"))),
                }
            }
            p.over { "Policy in force" }
            h1 { (report.policy.name) }
            (policy::mandate(&report.policy))
            @if let Some(reason) = &report.policy.paused {
                p.bad { "Paused: " (reason) }
            }
            @if let Some(error) = &report.policy.reload_error {
                p.bad { "The latest reload failed, and this policy stays: " (error) }
            }
            p.muted {
                "Up " (span(report.uptime_milliseconds)) ". Last drain "
                @match drained { Some(age) => { (span(age)) " ago" } None => "none yet" }
                ", one every " (span(report.drains.interval_milliseconds)) "."
            }
        }
    }
}

/// One of the states at the top of the page. `class` is `good`, `warn` or `bad`.
fn state(class: &str, text: impl Render) -> Markup {
    html! { li class={ "state " (class) } { (text) } }
}

/// A name and its value in a list of such pairs.
fn pair(name: impl Render, value: impl Render) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

/// A number, grouped for people and as the plain value for programs.
fn number(number: u64) -> Markup {
    html! { data value=(number) { (grouped(number)) } }
}

/// Digits in groups of three. The space between them is narrow, and no line ends there.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// A name from the program, as people write it.
fn words(name: &str) -> String {
    match name {
        "non_ip" => "not IP".to_owned(),
        name => name.replace('_', " "),
    }
}

/// A percentage; 0 of 0 is 0.
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use serde_json::json;

    use super::{grouped, landing};
    use crate::delivery::history::History;
    use crate::interfaces::slot::Unwatched;
    use crate::records::drain::{InterfaceTotals, Totals};
    use crate::serve::snapshot::example::example;

    #[test]
    fn digits_are_grouped_from_the_right() {
        let cases = [(0, "0"), (999, "999"), (1000, "1\u{202f}000"), (1_234_567, "1\u{202f}234\u{202f}567")];
        for (number, text) in cases {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn every_part_is_there() {
        let html = landing(&example());
        for part in [
            "Every packet has one outcome",
            "Sinks",
            "unreachable",
            "NCO-7",
            "balanced",
            "program tag",
            "sink works",
            "of these unconfirmed",
            "were sent and nobody confirmed them",
        ] {
            assert!(html.contains(part), "{part} is missing in {html}");
        }
    }

    /// Whoever names an interface, writes a policy or answers a sink must not write HTML into the page.
    #[test]
    fn names_and_messages_are_escaped() {
        const HOSTILE: &str = "\"><script>alert('x')</script>&amp;";
        const ESCAPED: &str = "&quot;&gt;&lt;script&gt;alert('x')&lt;/script&gt;&amp;amp;";
        let mut snapshot = example();
        HOSTILE.clone_into(&mut snapshot.policy.name);
        HOSTILE.clone_into(&mut snapshot.policy.recipients[0]);
        snapshot.policy.mandate.as_mut().expect("a mandate").id = HOSTILE.to_owned();
        HOSTILE.clone_into(&mut snapshot.watched[0].name);
        snapshot.watched[1].reason = Some(HOSTILE.to_owned());
        snapshot.reloads.error = Some(HOSTILE.to_owned());
        HOSTILE.clone_into(&mut snapshot.build.program_tag);
        snapshot.ledger.enter(0, HOSTILE, Unwatched::default());
        let none = json!({"records": 0, "packets": 0, "octets": 0});
        let sink = json!({
            "name": HOSTILE, "recipient": HOSTILE, "kind": HOSTILE, "state": "down", "offered": none, "exported": none,
            "suppressed": none, "queued": none, "dropped": {HOSTILE: none}, "queue_bytes": 0, "octets_written": 0,
            "failures": 1, "failing": {"since_milliseconds": 1, "reason": HOSTILE, "message": HOSTILE},
        });
        snapshot.ledger.set_sinks([serde_json::from_value(sink).expect("an account")].into_iter());
        let totals = Totals {
            interfaces: vec![InterfaceTotals { seen_packets: 7, ..InterfaceTotals::ZERO }],
            ..Totals::default()
        };
        let history = History::new().after([HOSTILE].into_iter(), &totals, Duration::ZERO, Instant::now());
        snapshot.history = Arc::new(history);
        let html = landing(&snapshot);
        assert!(!html.contains(HOSTILE), "{html}");
        assert_eq!(html.matches("<script").count(), 1, "{html}");
        // Of the policy: title, heading, mandate, error. Of the interfaces: name, label of the plot, reason. Of the sink:
        // name, kind, recipient, the reasons of its failure and of its losses. And the tag of the program.
        assert_eq!(html.matches(ESCAPED).count(), 13, "{html}");
        assert!(html.contains(&format!("aria-label=\"Packets of {ESCAPED} over")), "{html}");
        assert!(html.contains(&format!("<title>{ESCAPED} · minimizer</title>")), "{html}");
    }
}
