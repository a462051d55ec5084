//! Who receives records, and how their sinks do.

use maud::{Markup, html};

use super::{number, pair, words};
use crate::delivery::account::{Account, SinkState};
use crate::serve::status::Report;

pub fn section(report: &Report) -> Markup {
    let has_no_sink = |recipient: &&String| report.sinks.iter().all(|sink| sink.recipient != **recipient);
    let idle: Vec<_> = report.policy.recipients.iter().filter(has_no_sink).map(String::as_str).collect();
    html! {
        section #sinks {
            h2 { "Sinks" }
            @if report.sinks.is_empty() { p.muted { "Records go nowhere yet." } }
            div.cards { @for sink in &report.sinks { (card(sink)) } }
            @if !idle.is_empty() { p.muted { "Recipients without a sink: " (idle.join(", ")) "." } }
        }
    }
}

fn card(sink: &Account) -> Markup {
    let (class, state) = match sink.state {
        SinkState::Up => ("good", "works"),
        SinkState::Down => ("bad", "fails"),
        SinkState::Unknown => ("muted", "unknown"),
    };
    html! {
        article.card {
            h4 { (sink.name) }
            p class={ "state " (class) } { (state) }
            p.muted { (sink.kind) " for " (sink.recipient) }
            @if let Some(failing) = &sink.failing { p.bad { (words(&failing.reason)) } }
            dl {
                (pair("records exported", number(sink.exported.records)))
                (pair("packets offered", number(sink.offered.packets)))
                (pair("exported", number(sink.exported.packets)))
                @if sink.sent_unconfirmed.packets != 0 {
                    (pair("of these unconfirmed", number(sink.sent_unconfirmed.packets)))
                }
                @if sink.suppressed.packets != 0 { (pair("of these suppressed, about", number(sink.suppressed.packets))) }
                (pair("queued", number(sink.queued.packets)))
                @for (reason, tally) in &sink.dropped {
                    (pair(format_args!("dropped: {}", words(reason)), number(tally.packets)))
                }
                @if sink.failures != 0 { (pair("failures", number(sink.failures))) }
                (pair("adds up", if sink.adds_up_as_told() { "✓" } else { "✗" }))
            }
        }
    }
}
