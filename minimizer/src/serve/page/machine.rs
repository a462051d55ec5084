//! How the agent does: its table, its drains, and what exactly runs.

use std::fmt::{self, Write as _};

use super::plot::{Series, stacked};
use super::{escape, number, share};
use crate::serve::snapshot::Snapshot;
use crate::serve::status::Report;

/// From here on the table wants to be larger.
const FULL_PERCENT: f64 = 80.0;

pub fn write(html: &mut String, snapshot: &Snapshot, report: &Report) -> fmt::Result {
    let table = &report.table;
    write!(
        html,
        "<section id=\"machine\"><h2>Table, drains, program</h2><div class=\"columns\"><div><h3>Flow table</h3>"
    )?;
    write_meter(html, "slots in use", table.slots_used, table.slots)?;
    write_meter(html, "on the fullest CPU", table.cpu_slots_used_max, table.cpu_slots)?;
    write_meter(html, "spill entries", table.spill_entries_used, table.spill_entries)?;
    write!(
        html,
        "<p class=\"muted\">At the last drain; {} MiB of memory.</p></div><div><h3>Drains</h3>",
        table.memory_bytes >> 20
    )?;
    let history = &snapshot.history;
    let values: Vec<f64> = history.drains().map(|drained| drained.duration.as_secs_f64() * 1000.0).collect();
    let latest = values.last().copied().unwrap_or(0.0);
    let longest = values.iter().copied().fold(0.0, f64::max);
    let label = format!("Duration of the last drains: now {latest:.1} ms, longest {longest:.1} ms");
    let svg =
        stacked(&label, "plot low", &[Series { class: "accent", values }], history.drains().len().max(30));
    let mean = report.drains.mean_duration_microseconds.unwrap_or(0);
    write!(
        html,
        "<figure><figcaption><span>Duration</span><strong>{latest:.1} <small>ms</small></strong></figcaption>{svg}\
         <p class=\"scale\"><span>{} done</span><span>mean {mean} µs, longest {longest:.1} ms</span></p></figure></div></div>",
        number(report.drains.succeeded)
    )?;
    write!(html, "<dl class=\"digests\">")?;
    for (name, digest) in [
        ("policy SHA-256", &report.policy.sha256),
        ("object SHA-256", &report.object_sha256),
        ("program tag", &report.program_tag),
    ] {
        write!(html, "<div><dt>{name}</dt><dd><code>{}</code></dd></div>", escape(digest))?;
    }
    writeln!(html, "</dl></section>")
}

fn write_meter(html: &mut String, name: &str, used: u64, all: u64) -> fmt::Result {
    let percent = share(used, all);
    let kind = if percent >= FULL_PERCENT { "warn" } else { "" };
    write!(
        html,
        "<p class=\"scale\"><span>{name}</span><span>{} of {}</span></p>\
         <p class=\"meter {kind}\" role=\"img\" aria-label=\"{name}: {percent:.1} percent\">\
         <i style=\"width:{percent:.2}%\"></i></p>",
        number(used),
        number(all)
    )
}
