//! The ledger as sums that can be checked by adding up.

use std::fmt::{self, Write as _};

use super::{escape, number, share, words};
use crate::delivery::history::OUTCOMES;
use crate::serve::status::{Report, packets};

pub fn write(html: &mut String, report: &Report) -> fmt::Result {
    let balanced = report.ledger["balanced"].as_bool() == Some(true);
    let (kind, verdict) = if balanced { ("good", "balanced") } else { ("bad", "not balanced") };
    write!(
        html,
        "<section id=\"ledger\"><h2>Ledger <span class=\"verdict {kind}\">{verdict}</span></h2><div class=\"columns\">"
    )?;
    let interfaces = report.ledger["interfaces"].as_object();
    let sum = |part: &dyn Fn(&serde_json::Value) -> u64| -> u64 {
        interfaces.into_iter().flat_map(serde_json::Map::values).map(part).sum()
    };
    let seen = sum(&|interface| packets(&interface["seen"]));
    let outcomes = OUTCOMES.map(|name| (name, sum(&|interface| packets(&interface["outcomes"][name]))));
    write_sum(html, "Every packet has one outcome", "seen", seen, &outcomes)?;
    let names = ["exported", "suppressed", "queued", "dropped"];
    let parts = names.map(|name| (name, packets(&report.ledger[name]["packets"])));
    write_sum(html, "Every counted packet is in one place", "counted", outcomes[0].1, &parts)?;
    write!(html, "</div>")?;
    let octets: Vec<_> = names
        .iter()
        .map(|name| (*name, packets(&report.ledger[*name]["octets"])))
        .chain([("overflow", packets(&report.ledger["overflow"]["octets"]))])
        .filter(|(_, octets)| *octets != 0)
        .map(|(name, octets)| format!("{} {name}", number(octets)))
        .collect();
    let counted = sum(&|interface| packets(&interface["octets_counted"]));
    if !octets.is_empty() {
        write!(
            html,
            "<p class=\"muted\">The same in IP octets: {} = {} counted, overflow included.</p>",
            octets.join(" + "),
            number(counted)
        )?;
    }
    write_malformed(html, report)?;
    writeln!(html, "</section>")
}

/// Addends, a line, and the total that they give or do not give.
fn write_sum(
    html: &mut String,
    caption: &str,
    whole: &str,
    total: u64,
    parts: &[(&str, u64)],
) -> fmt::Result {
    let sum: u64 = parts.iter().map(|(_, packets)| packets).sum();
    write!(html, "<table class=\"sum\" data-sum=\"{whole}\"><caption>{caption}</caption><tbody>")?;
    for (place, (name, packets)) in parts.iter().enumerate() {
        let share = share(*packets, total);
        let kind = match (*name, packets) {
            (_, 0) => "none",
            ("dropped" | "overflow", _) => "bad",
            ("malformed" | "unsupported", _) => "warn",
            _ => "some",
        };
        write!(
            html,
            "<tr class=\"{kind}\"><th scope=\"row\"><span class=\"sign\">{}</span>{}</th><td data-of=\"{name}\">{}</td>\
             <td class=\"part\"><i style=\"width:{share:.2}%\"></i></td></tr>",
            if place == 0 { "" } else { "+" },
            words(name),
            number(*packets),
        )?;
    }
    let (kind, mark) = if sum == total { ("good", "✓ adds up") } else { ("bad", "✗ does not add up") };
    write!(
        html,
        "</tbody><tfoot><tr><th scope=\"row\"><span class=\"sign\">=</span>{whole}</th><td data-of=\"{whole}\">{}</td>\
         <td class=\"{kind}\">{mark}</td></tr></tfoot></table>",
        number(total)
    )
}

/// Why packets were malformed or not supported, where there were any.
fn write_malformed(html: &mut String, report: &Report) -> fmt::Result {
    let mut reasons: Vec<(String, u64)> = Vec::new();
    for interface in report.ledger["interfaces"].as_object().into_iter().flat_map(serde_json::Map::values) {
        for name in ["malformed", "unsupported"] {
            for (reason, count) in interface["outcomes"][name].as_object().into_iter().flatten() {
                let reason = format!("{name}: {}", reason.replace('_', " "));
                match reasons.iter_mut().find(|(known, _)| *known == reason) {
                    Some((_, sum)) => *sum += packets(count),
                    None => reasons.push((reason, packets(count))),
                }
            }
        }
    }
    if reasons.is_empty() {
        return Ok(());
    }
    write!(
        html,
        "<details data-key=\"reasons\"><summary>Why packets were malformed or unsupported</summary><ul class=\"plain\">"
    )?;
    for (reason, packets) in reasons {
        write!(html, "<li>{} {}</li>", number(packets), escape(&reason))?;
    }
    write!(html, "</ul></details>")
}
