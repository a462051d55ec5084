//! The page for people: what is collected and why, whether the ledger balances, and how it goes.
//!
//! One document that is complete without a script and loads nothing but its own one, which renews it.

mod ledger;
mod machine;
mod plot;
mod policy;
mod sinks;
mod traffic;

use std::fmt::{self, Write as _};

use crate::serve::snapshot::Snapshot;
use crate::serve::status::{Report, span};

/// Where the script is.
pub const SCRIPT_PATH: &str = "/page.js";
/// Renews the page. Without it the page renews itself by being loaded again.
pub const SCRIPT: &str = include_str!("page/page.js");
const STYLE: &str = include_str!("page/page.css");

/// Nothing from elsewhere, no inline script, no form, no frame. The icon of the page is an empty one, in the page itself.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; \
                                           script-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
                                           frame-ancestors 'none'";

/// Shortest and longest time after which the page is loaded again, in seconds.
const RENEWED_SECONDS: (u64, u64) = (1, 60);

/// The page of a snapshot.
pub fn landing(snapshot: &Snapshot) -> String {
    let mut html = String::new();
    // Writing to a string cannot fail.
    write_page(&mut html, snapshot, &Report::new(snapshot)).unwrap_or_default();
    html
}

fn write_page(html: &mut String, snapshot: &Snapshot, report: &Report) -> fmt::Result {
    let seconds = report.drains.interval_milliseconds.div_ceil(1000);
    let seconds = seconds.clamp(RENEWED_SECONDS.0, RENEWED_SECONDS.1);
    write!(
        html,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><link rel=\"icon\" href=\"data:,\">\
         <noscript><meta http-equiv=\"refresh\" content=\"{}\"></noscript>\
         <title>{} · minimizer</title><style>{STYLE}</style>\
         <script src=\"{SCRIPT_PATH}\" defer></script></head>\n<body data-seconds=\"{seconds}\">\
         <p id=\"gone\" role=\"status\" hidden></p><main>\n",
        seconds.max(5),
        escape(&report.policy.name),
    )?;
    write_header(html, report)?;
    ledger::write(html, report)?;
    traffic::write(html, snapshot, report)?;
    sinks::write(html, report)?;
    policy::write(html, &snapshot.policy.explanation)?;
    machine::write(html, snapshot, report)?;
    writeln!(
        html,
        "</main><footer><nav aria-label=\"For programs\"><a href=\"/metrics\">metrics</a> \
         <a href=\"/status\">status</a> <a href=\"/-/healthy\">healthy</a> <a href=\"/-/ready\">ready</a></nav>\
         <p>minimizer {}</p></footer></body></html>",
        escape(&report.version)
    )
}

/// Whether all is well, the policy in force, and on what authority.
fn write_header(html: &mut String, report: &Report) -> fmt::Result {
    let balanced = report.ledger["balanced"].as_bool() == Some(true);
    let attached = report.interfaces.iter().filter(|interface| interface.mode.is_some()).count();
    let failing = report.sinks.iter().filter(|sink| sink.failing.is_some()).count();
    write!(html, "<header id=\"top\"><p class=\"brand\">minimizer</p><ul class=\"states\">")?;
    match &report.not_ready {
        None => state(html, "good", "ready")?,
        Some(reason) => state(html, "bad", &format!("not ready: {}", escape(reason)))?,
    }
    state(html, if balanced { "good" } else { "bad" }, if balanced { "balanced" } else { "not balanced" })?;
    let all = report.interfaces.len();
    let kind = if attached == all && all > 0 { "good" } else { "warn" };
    state(html, kind, &format!("{attached} of {all} interfaces"))?;
    match (report.sinks.len(), failing) {
        (0, _) => {}
        (1, 0) => state(html, "good", "sink works")?,
        (_, 0) => state(html, "good", "all sinks work")?,
        (all, failing) => state(html, "bad", &format!("{failing} of {all} sinks fail"))?,
    }
    write!(html, "</ul><p class=\"over\">Policy in force</p><h1>{}</h1>", escape(&report.policy.name))?;
    policy::write_mandate(html, report)?;
    if let Some(error) = &report.policy.reload_error {
        write!(
            html,
            "<p class=\"bad\">The latest reload failed, and this policy stays: {}</p>",
            escape(error)
        )?;
    }
    let age =
        report.drains.last_success_age_milliseconds.map_or("none yet".to_owned(), |age| span(age) + " ago");
    writeln!(
        html,
        "<p class=\"muted\">Up {}. Last drain {age}, one every {}.</p></header>",
        span(report.uptime_milliseconds),
        span(report.drains.interval_milliseconds)
    )
}

fn state(html: &mut String, kind: &str, text: &str) -> fmt::Result {
    write!(html, "<li class=\"state {kind}\">{text}</li>")
}

/// A number, for people and, as its value, for programs.
fn number(number: u64) -> String {
    format!("<data value=\"{number}\">{}</data>", grouped(number))
}

/// Digits in groups of three, between which no line ends.
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

/// A name of the program's, as people write it.
fn words(name: &str) -> String {
    match name {
        "non_ip" => "not IP".to_owned(),
        name => escape(&name.replace('_', " ")),
    }
}

/// A percentage; 0 of 0 is 0.
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::{grouped, landing};
    use crate::serve::snapshot::tests::example;

    #[test]
    fn digits_are_grouped_from_the_right() {
        let cases = [(0, "0"), (999, "999"), (1000, "1\u{202f}000"), (1_234_567, "1\u{202f}234\u{202f}567")];
        for (number, text) in cases {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn every_part_is_there_and_every_list_ends() {
        let html = landing(&example());
        for part in
            ["Every packet has one outcome", "Sinks", "unreachable", "NCO-7", "balanced", "program tag"]
        {
            assert!(html.contains(part), "{part} is missing in {html}");
        }
        for element in
            ["section", "table", "tr", "td", "th", "ul", "li", "p", "figure", "details", "svg", "dl"]
        {
            let begins =
                html.matches(&format!("<{element}>")).count() + html.matches(&format!("<{element} ")).count();
            assert_eq!(begins, html.matches(&format!("</{element}>")).count(), "{element} in {html}");
        }
    }
}
