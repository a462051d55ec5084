//! Packets and outcomes over the last drains, and the interfaces.

use maud::{Markup, html};

use super::plot::{Series, stacked};
use super::{number, pair, words};
use crate::delivery::history::{Drained, History, OUTCOMES, Packets};
use crate::serve::status::{InterfaceReport, LedgerReport, Report, span};
use crate::support::units::scaled;

/// Drains that fill the width of a plot at least.
const DRAINS_MIN: usize = 30;

/// The drains that are plotted.
struct Plotted<'history> {
    history: &'history History,
    /// The time that they cover, in words.
    period: String,
    /// How many values fill the width of a plot.
    width: usize,
}

pub fn section(history: &History, report: &Report) -> Markup {
    let milliseconds: u128 = history.drains().map(|drained| drained.span.as_millis()).sum();
    let plotted = Plotted {
        history,
        period: span(u64::try_from(milliseconds).unwrap_or(u64::MAX)),
        width: history.drains().len().max(DRAINS_MIN),
    };
    html! {
        section #traffic {
            h2 { "Traffic" }
            @if history.drains().len() == 0 {
                p.muted { "Nothing was drained yet." }
            } @else {
                div.columns {
                    (plotted.rate("Packets", "packets/s", |it| it.packets, 1.0))
                    (plotted.rate("Line rate", "bit/s", |it| it.octets, 8.0))
                }
                (plotted.outcomes())
            }
            h3 { "Interfaces" }
            div.cards {
                @for interface in &report.interfaces { (plotted.interface(&report.ledger, interface)) }
            }
        }
    }
}

impl Plotted<'_> {
    /// A rate of all interfaces together, `times` as large: its plot, its latest and its highest value.
    fn rate(&self, name: &str, unit: &str, part: fn(&Packets) -> u64, times: f64) -> Markup {
        let of = |drained: &Drained| drained.per_second(drained.interfaces.iter().map(part).sum()) * times;
        let values: Vec<f64> = self.history.drains().map(of).collect();
        let highest = scaled(values.iter().copied().fold(0.0, f64::max));
        let latest = scaled(values.last().copied().unwrap_or(0.0));
        let period = &self.period;
        let label = format!("{name} over the last {period}: now {latest}{unit}, highest {highest}{unit}");
        html! {
            figure {
                figcaption { span { (name) } strong { (latest) small { (unit) } } }
                (stacked(&label, "plot", &[Series { class: "accent", values }], self.width))
                p.scale { span { "last " (period) } span { "highest " (highest) (unit) } }
            }
        }
    }

    /// How the packets ended, on top of each other. Outcomes that did not occur are left out.
    fn outcomes(&self) -> Markup {
        let history = self.history;
        let occurred = |place: &usize| {
            history.drains().flat_map(|drained| &drained.interfaces).any(|it| it.outcomes[*place] != 0)
        };
        let of = |place: usize, drained: &Drained| {
            drained.per_second(drained.interfaces.iter().map(|it| it.outcomes[place]).sum())
        };
        let occurred: Vec<usize> = (0..OUTCOMES.len()).filter(occurred).collect();
        let series = |place: &usize| Series {
            class: OUTCOMES[*place],
            values: history.drains().map(|drained| of(*place, drained)).collect(),
        };
        let latest = |place: &usize| {
            let rate = history.latest().map_or(0.0, |drained| of(*place, drained));
            (OUTCOMES[*place], scaled(rate))
        };
        let series: Vec<_> = occurred.iter().map(series).collect();
        let latest: Vec<_> = occurred.iter().map(latest).collect();
        let said: Vec<_> = latest.iter().map(|(name, rate)| format!("{} {rate}/s", words(name))).collect();
        let label = format!("Outcomes over the last {}: now {}", self.period, said.join(", "));
        html! {
            figure {
                figcaption { span { "Outcomes" } }
                (stacked(&label, "plot", &series, self.width))
                ul.legend {
                    @for (name, rate) in &latest {
                        li { i class=(name) {} (words(name)) " " b { (rate) "/s" } }
                    }
                }
            }
        }
    }

    fn interface(&self, ledger: &LedgerReport, interface: &InterfaceReport) -> Markup {
        let class = match (&interface.mode, interface.up) {
            (None, _) => "bad",
            (Some(_), true) => "good",
            (Some(_), false) => "warn",
        };
        let mode = interface.mode.as_deref().unwrap_or("not attached");
        let is_down = interface.mode.is_some() && !interface.up;
        let totals = ledger.interface(&interface.name);
        let values = self
            .history
            .drains()
            .map(|drained| drained.of(&interface.name).map_or(0.0, |it| drained.per_second(it.packets)))
            .collect();
        let rates = interface.rates.clone().unwrap_or_default();
        let (packets, bits) = (scaled(rates.packets_per_second), scaled(rates.octets_per_second * 8.0));
        let label = format!("Packets of {} over the last drains: now {packets}packets/s", interface.name);
        let outcomes = OUTCOMES.map(|name| (name, totals.outcome(name)));
        html! {
            article.card {
                h4 { (interface.name) }
                p class={ "state " (class) } { (mode) @if is_down { ", down" } }
                @if interface.tap { p.muted { "tap: frames are dropped once counted" } }
                @if let Some(reason) = &interface.reason { p.bad { (reason) } }
                (stacked(&label, "spark", &[Series { class: "accent", values }], self.width))
                dl {
                    (pair("packets/s", packets))
                    (pair("bit/s", bits))
                    (pair("seen", number(totals.seen)))
                    @for (name, packets) in outcomes {
                        @if packets != 0 { (pair(words(name), number(packets))) }
                    }
                    @if let Some(times) = totals.unwatched_times {
                        @let seconds = totals.unwatched_seconds.unwrap_or(0.0);
                        (pair("unwatched", format_args!("{times} times, {seconds:.1} s")))
                    }
                }
            }
        }
    }
}
