//! The landing page: what runs, where, and whether its ledger balances. One document, nothing loaded.

use std::fmt::Write as _;

use serde_json::Value;

use crate::status::{Report, packets, span};

const HEAD: &str = r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>minimizer</title><style>
:root { color-scheme: light dark; font-family: system-ui, sans-serif; line-height: 1.5 }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; display: block; overflow-x: auto }
th, td { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #8884; font-variant-numeric: tabular-nums }
th:first-child, td:first-child, .text td { text-align: left }
.bad { color: #d33; font-weight: bold }
code { overflow-wrap: anywhere }
</style></head><body>
"#;

/// The page of a report.
pub fn landing(report: &Report) -> String {
    let mut html = HEAD.to_owned();
    // Writing to a string cannot fail.
    write_page(&mut html, report).unwrap_or_default();
    html
}

fn write_page(html: &mut String, report: &Report) -> std::fmt::Result {
    let balanced = report.ledger["balanced"].as_bool() == Some(true);
    writeln!(html, "<h1>minimizer {}</h1>", escape(&report.version))?;
    let state = match &report.not_ready {
        None => "ready".to_owned(),
        Some(reason) => format!("<span class=\"bad\">not ready: {}</span>", escape(reason)),
    };
    let age =
        report.drains.last_success_age_milliseconds.map_or("never".to_owned(), |age| span(age) + " ago");
    writeln!(
        html,
        "<p>Up {}, {state}. Last drain {age}, every {}.</p>",
        span(report.uptime_milliseconds),
        span(report.drains.interval_milliseconds)
    )?;
    writeln!(
        html,
        "<p><a href=\"/metrics\">metrics</a> · <a href=\"/status\">status (JSON)</a> · \
         <a href=\"/-/healthy\">healthy</a> · <a href=\"/-/ready\">ready</a></p>"
    )?;
    let verdict = if balanced { "balanced" } else { "<span class=\"bad\">not balanced</span>" };
    writeln!(html, "<h2>Ledger: {verdict}</h2>")?;
    write_interfaces(html, report)?;
    writeln!(html, "<table><tr><th></th><th>packets</th><th>IP octets</th></tr>")?;
    for name in ["exported", "suppressed", "queued", "dropped", "overflow"] {
        let counts = &report.ledger[name];
        let (packets, octets) = (packets(&counts["packets"]), packets(&counts["octets"]));
        writeln!(html, "<tr><td>{name}</td><td>{packets}</td><td>{octets}</td></tr>")?;
    }
    writeln!(html, "</table>")?;
    writeln!(
        html,
        "<h2>Policy</h2><table class=\"text\"><tr><td>in force</td><td>{}</td></tr>\
         <tr><td>SHA-256</td><td><code>{}</code></td></tr><tr><td>recipients</td><td>{}</td></tr></table>",
        escape(&report.policy.name),
        escape(&report.policy.sha256),
        escape(&report.policy.recipients.join(", "))
    )?;
    writeln!(
        html,
        "<h2>Program</h2><table class=\"text\"><tr><td>kernel tag</td><td><code>{}</code></td></tr>\
         <tr><td>object SHA-256</td><td><code>{}</code></td></tr>\
         <tr><td>flow table</td><td>{} of {} slots, {} of {} spill entries in use at the last drain</td></tr></table>",
        escape(&report.program_tag),
        escape(&report.object_sha256),
        report.table.slots_used,
        report.table.slots,
        report.table.spill_entries_used,
        report.table.spill_entries
    )?;
    writeln!(html, "</body></html>")
}

/// One row per interface, one column per outcome.
fn write_interfaces(html: &mut String, report: &Report) -> std::fmt::Result {
    let ledger = &report.ledger["interfaces"];
    let outcomes: Vec<&String> = ledger
        .as_object()
        .and_then(|interfaces| interfaces.values().next()?["outcomes"].as_object())
        .map(|outcomes| outcomes.keys().collect())
        .unwrap_or_default();
    write!(html, "<table><tr><th>interface</th><th>mode</th><th>seen</th>")?;
    for outcome in &outcomes {
        write!(html, "<th>{}</th>", escape(outcome))?;
    }
    writeln!(html, "</tr>")?;
    for interface in &report.interfaces {
        let mode = match &interface.mode {
            Some(mode) => escape(mode) + if interface.tap { ", tap" } else { "" },
            None => "<span class=\"bad\">not attached</span>".to_owned(),
        };
        let totals: &Value = &ledger[&interface.name];
        write!(html, "<tr><td>{}</td><td>{mode}</td>", escape(&interface.name))?;
        write!(html, "<td>{}</td>", packets(&totals["seen"]))?;
        for outcome in &outcomes {
            write!(html, "<td>{}</td>", packets(&totals["outcomes"][outcome.as_str()]))?;
        }
        writeln!(html, "</tr>")?;
    }
    writeln!(html, "</table>")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
