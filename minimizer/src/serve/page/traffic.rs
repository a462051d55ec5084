//! Packets and outcomes over the last drains, and the interfaces.

use std::fmt::{self, Write as _};

use super::plot::{Series, stacked};
use super::{escape, number, words};
use crate::delivery::history::{Drained, History, OUTCOMES, Packets};
use crate::serve::snapshot::Snapshot;
use crate::serve::status::{InterfaceReport, Report, packets, span};
use crate::support::units::scaled;

/// Drains that fill the width of a plot at least.
const DRAINS_MIN: usize = 30;

pub fn write(html: &mut String, snapshot: &Snapshot, report: &Report) -> fmt::Result {
    let history = &snapshot.history;
    let all: u128 = history.drains().map(|drained| drained.span.as_millis()).sum();
    let period = span(u64::try_from(all).unwrap_or(u64::MAX));
    let width = history.drains().len().max(DRAINS_MIN);
    write!(html, "<section id=\"traffic\"><h2>Traffic</h2>")?;
    if history.drains().len() == 0 {
        write!(html, "<p class=\"muted\">Nothing was drained yet.</p>")?;
    } else {
        write!(html, "<div class=\"columns\">")?;
        let sum = |part: fn(&Packets) -> u64| -> Vec<f64> {
            let of = |drained: &Drained| drained.per_second(drained.interfaces.iter().map(part).sum());
            history.drains().map(of).collect()
        };
        let (packets, octets) = (sum(|it| it.packets), sum(|it| it.octets));
        let bits = octets.iter().map(|octets| octets * 8.0).collect();
        write_figure(html, "Packets", "packets/s", &period, packets, width)?;
        write_figure(html, "Line rate", "bit/s", &period, bits, width)?;
        write!(html, "</div>")?;
        write_outcomes(html, history, &period, width)?;
    }
    write!(html, "<h3>Interfaces</h3><div class=\"cards\">")?;
    for interface in &report.interfaces {
        write_interface(html, history, report, interface, width)?;
    }
    writeln!(html, "</div></section>")
}

/// One plot with its latest and its highest value.
fn write_figure(
    html: &mut String,
    name: &str,
    unit: &str,
    period: &str,
    values: Vec<f64>,
    width: usize,
) -> fmt::Result {
    let highest = scaled(values.iter().copied().fold(0.0, f64::max));
    let latest = scaled(values.last().copied().unwrap_or(0.0));
    let label = format!("{name} over the last {period}: now {latest}{unit}, highest {highest}{unit}");
    let svg = stacked(&label, "plot", &[Series { class: "accent", values }], width);
    write!(
        html,
        "<figure><figcaption><span>{name}</span><strong>{latest}<small>{unit}</small></strong></figcaption>{svg}\
         <p class=\"scale\"><span>last {period}</span><span>highest {highest}{unit}</span></p></figure>"
    )
}

/// What became of the packets, on top of each other; outcomes that did not occur are left out.
fn write_outcomes(html: &mut String, history: &History, period: &str, width: usize) -> fmt::Result {
    let occurred: Vec<usize> = (0..OUTCOMES.len())
        .filter(|place| {
            history.drains().flat_map(|drained| &drained.interfaces).any(|it| it.outcomes[*place] != 0)
        })
        .collect();
    let of = |place: usize, drained: &Drained| {
        drained.per_second(drained.interfaces.iter().map(|it| it.outcomes[place]).sum())
    };
    let series: Vec<_> = occurred
        .iter()
        .map(|place| Series {
            class: OUTCOMES[*place],
            values: history.drains().map(|drained| of(*place, drained)).collect(),
        })
        .collect();
    let latest: Vec<_> = occurred
        .iter()
        .map(|place| {
            let rate = history.latest().map_or(0.0, |drained| of(*place, drained));
            (OUTCOMES[*place], scaled(rate))
        })
        .collect();
    let said: Vec<_> = latest.iter().map(|(name, rate)| format!("{} {rate}/s", words(name))).collect();
    let label = format!("Outcomes over the last {period}: now {}", said.join(", "));
    write!(
        html,
        "<figure><figcaption><span>Outcomes</span></figcaption>{}<ul class=\"decoder\">",
        stacked(&label, "plot", &series, width)
    )?;
    for (name, rate) in latest {
        write!(html, "<li><i class=\"{name}\"></i>{} <b>{rate}/s</b></li>", words(name))?;
    }
    write!(html, "</ul></figure>")
}

fn write_interface(
    html: &mut String,
    history: &History,
    report: &Report,
    interface: &InterfaceReport,
    width: usize,
) -> fmt::Result {
    let (kind, state) = match (&interface.mode, interface.up) {
        (None, _) => ("bad", "not attached".to_owned()),
        (Some(mode), true) => ("good", escape(mode)),
        (Some(mode), false) => ("warn", format!("{}, down", escape(mode))),
    };
    let tap = if interface.tap { " · tap: frames are dropped once counted" } else { "" };
    let totals = &report.ledger["interfaces"][&interface.name];
    let name = escape(&interface.name);
    write!(
        html,
        "<article class=\"card\"><h4>{name}</h4><p class=\"state {kind}\">{state}</p>{}",
        if tap.is_empty() { String::new() } else { format!("<p class=\"muted\">{}</p>", &tap[4..]) }
    )?;
    if let Some(reason) = &interface.reason {
        write!(html, "<p class=\"bad\">{}</p>", escape(reason))?;
    }
    let values = history
        .drains()
        .map(|drained| drained.of(&interface.name).map_or(0.0, |it| drained.per_second(it.packets)))
        .collect();
    let rates = interface.rates.clone().unwrap_or_default();
    let (packet_rate, bits) = (scaled(rates.packets_per_second), scaled(rates.octets_per_second * 8.0));
    let label = format!("Packets of {} over the last drains: now {packet_rate}packets/s", interface.name);
    write!(html, "{}<dl>", stacked(&label, "spark", &[Series { class: "accent", values }], width))?;
    let mut pair = |name: &str, value: String| write!(html, "<div><dt>{name}</dt><dd>{value}</dd></div>");
    pair("packets/s", packet_rate)?;
    pair("bit/s", bits)?;
    pair("seen", number(packets(&totals["seen"])))?;
    for outcome in OUTCOMES {
        let packets = packets(&totals["outcomes"][outcome]);
        if packets != 0 {
            pair(&words(outcome), number(packets))?;
        }
    }
    if let Some(times) = totals["unwatched_times"].as_u64() {
        let seconds = totals["unwatched_seconds"].as_f64().unwrap_or(0.0);
        pair("unwatched", format!("{times} times, {seconds:.1} s"))?;
    }
    write!(html, "</dl></article>")
}
