//! How the agent does: its flow table, its drains, and what exactly runs.

use maud::{Markup, html};

use super::plot::{Series, stacked};
use super::{number, share};
use crate::delivery::history::History;
use crate::serve::status::{DrainReport, Report, TableReport};

/// From this share on, the table should be made larger.
const FULL_PERCENT: f64 = 80.0;
/// Drains that fill the width of the plot at least.
const DRAINS_MIN: usize = 30;

pub fn section(history: &History, report: &Report) -> Markup {
    html! {
        section #machine {
            h2 { "Table, drains, program" }
            div.columns { (table(&report.table)) (drains(history, &report.drains)) }
            dl.digests {
                @for (name, digest) in [
                    ("policy SHA-256", &report.policy.sha256),
                    ("object SHA-256", &report.object_sha256),
                    ("program tag", &report.program_tag),
                ] {
                    div { dt { (name) } dd { code { (digest) } } }
                }
            }
        }
    }
}

fn table(table: &TableReport) -> Markup {
    html! {
        div {
            h3 { "Flow table" }
            (meter("slots in use", table.slots_used, table.slots))
            (meter("on the fullest CPU", table.cpu_slots_used_max, table.cpu_slots))
            (meter("spill entries", table.spill_entries_used, table.spill_entries))
            p.muted { "At the last drain; " (table.memory_bytes >> 20) " MiB of memory." }
        }
    }
}

fn drains(history: &History, drains: &DrainReport) -> Markup {
    let values: Vec<f64> = history.drains().map(|drained| drained.duration.as_secs_f64() * 1000.0).collect();
    let latest = values.last().copied().unwrap_or(0.0);
    let longest = values.iter().copied().fold(0.0, f64::max);
    let label = format!("Duration of the last drains: now {latest:.1} ms, longest {longest:.1} ms");
    let width = history.drains().len().max(DRAINS_MIN);
    let mean = drains.mean_duration_microseconds.unwrap_or(0);
    html! {
        div {
            h3 { "Drains" }
            figure {
                figcaption {
                    span { "Duration" }
                    strong { (format_args!("{latest:.1} ")) small { "ms" } }
                }
                (stacked(&label, "plot low", &[Series { class: "accent", values }], width))
                p.scale {
                    span { (number(drains.succeeded)) " done" }
                    span { (format_args!("mean {mean} µs, longest {longest:.1} ms")) }
                }
            }
        }
    }
}

fn meter(name: &str, used: u64, all: u64) -> Markup {
    let percent = share(used, all);
    html! {
        p.scale { span { (name) } span { (number(used)) " of " (number(all)) } }
        p.meter.warn[percent >= FULL_PERCENT] role="img" aria-label=(format_args!("{name}: {percent:.1} percent")) {
            i style=(format_args!("width:{percent:.2}%")) {}
        }
    }
}
