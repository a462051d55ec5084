//! Who receives records, and how their sinks do.

use std::fmt::{self, Write as _};

use super::{escape, number, words};
use crate::delivery::account::Account;
use crate::serve::status::Report;

pub fn write(html: &mut String, report: &Report) -> fmt::Result {
    write!(html, "<section id=\"sinks\"><h2>Sinks</h2>")?;
    let idle: Vec<_> = report
        .policy
        .recipients
        .iter()
        .filter(|recipient| report.sinks.iter().all(|sink| sink.recipient != **recipient))
        .map(|recipient| escape(recipient))
        .collect();
    if report.sinks.is_empty() {
        write!(html, "<p class=\"muted\">Records go nowhere yet.</p>")?;
    }
    write!(html, "<div class=\"cards\">")?;
    for sink in &report.sinks {
        write_sink(html, sink)?;
    }
    write!(html, "</div>")?;
    if !idle.is_empty() {
        write!(html, "<p class=\"muted\">Recipients without a sink: {}.</p>", idle.join(", "))?;
    }
    writeln!(html, "</section>")
}

fn write_sink(html: &mut String, sink: &Account) -> fmt::Result {
    let (kind, state) = if sink.failing.is_none() { ("good", "works") } else { ("bad", "fails") };
    write!(
        html,
        "<article class=\"card\"><h4>{}</h4><p class=\"state {kind}\">{state}</p>\
         <p class=\"muted\">{} for {}</p>",
        escape(&sink.name),
        escape(&sink.kind),
        escape(&sink.recipient)
    )?;
    if let Some(failing) = &sink.failing {
        write!(html, "<p class=\"bad\">{}</p>", words(&failing.reason))?;
    }
    write!(html, "<dl>")?;
    let mut pair = |name: &str, value: String| write!(html, "<div><dt>{name}</dt><dd>{value}</dd></div>");
    pair("records exported", number(sink.exported.records))?;
    pair("packets offered", number(sink.offered.packets))?;
    pair("exported", number(sink.exported.packets))?;
    if sink.suppressed.packets != 0 {
        pair("suppressed", number(sink.suppressed.packets))?;
    }
    pair("queued", number(sink.queued.packets))?;
    for (reason, tally) in &sink.dropped {
        pair(&format!("dropped: {}", words(reason)), number(tally.packets))?;
    }
    if sink.failures != 0 {
        pair("failures", number(sink.failures))?;
    }
    pair("adds up", if sink.is_balanced() { "✓" } else { "✗" }.to_owned())?;
    write!(html, "</dl></article>")
}
