//! The policy in plain words, and how long its mandate lasts.

use std::fmt::{self, Write as _};

use jiff::Timestamp;

use super::{escape, words};
use crate::policy::explain::Explanation;
use crate::serve::status::{Report, span};

const DAY_MILLISECONDS: u64 = 86_400_000;

pub fn write(html: &mut String, explanation: &Explanation) -> fmt::Result {
    write!(html, "<section id=\"policy\"><h2>The policy in plain words</h2><div class=\"prose\">")?;
    for section in &explanation.sentences {
        write!(html, "<h3>{}</h3>", escape(section.title))?;
        for sentence in &section.sentences {
            let caution = sentence.starts_with("CAUTION");
            let kind = if caution { " class=\"warn\"" } else { "" };
            write!(html, "<p{kind}>{}</p>", escape(sentence))?;
        }
    }
    write!(html, "</div>")?;
    if !explanation.fields.is_empty() {
        write!(html, "<details data-key=\"fields\"><summary>Field by field</summary><dl class=\"fields\">")?;
        for field in &explanation.fields {
            write!(html, "<div><dt><code>{}</code></dt>", escape(field.field.name()))?;
            for remains in &field.remains {
                let class = remains.class.as_ref().map_or(String::new(), |class| format!(" ({class})"));
                write!(
                    html,
                    "<dd>{}<span class=\"muted\"> — {}{}</span></dd>",
                    escape(&remains.what),
                    escape(&remains.places.join(", ")),
                    escape(&class)
                )?;
            }
            write!(html, "</div>")?;
        }
        write!(html, "</dl>")?;
        let absent: Vec<_> = explanation.not_collected.iter().map(|field| words(field.name())).collect();
        if !absent.is_empty() {
            write!(html, "<p class=\"muted\">Not collected: {}.</p>", absent.join(", "))?;
        }
        write!(html, "</details>")?;
    }
    writeln!(html, "</section>")
}

/// The mandate and what is left of its period.
pub fn write_mandate(html: &mut String, report: &Report) -> fmt::Result {
    let policy = &report.policy;
    let (Some(mandate), Some(from), Some(until)) = (&policy.mandate, policy.valid_from, policy.valid_until)
    else {
        return write!(html, "<p class=\"lead\">No mandate: it does not end by itself.</p>");
    };
    let now = Timestamp::now();
    let milliseconds = |from: Timestamp, until: Timestamp| {
        u64::try_from(until.duration_since(from).as_millis()).unwrap_or(0)
    };
    let (left, whole) = (milliseconds(now, until), milliseconds(from, until));
    let days = whole.saturating_sub(left);
    let lasts = if left == 0 { "has ended".to_owned() } else { format!("ends in {}", lasting(left)) };
    let minute = |time: Timestamp| time.strftime("%Y-%m-%d %H:%M UTC").to_string();
    write!(
        html,
        "<p class=\"lead\">Mandate <strong>{}</strong> {lasts}</p><p class=\"muted\">From {} until {}.</p>\
         <p class=\"meter\" role=\"img\" aria-label=\"{:.0} percent of the mandate's period are over\">\
         <i style=\"width:{:.1}%\"></i></p>",
        escape(mandate),
        minute(from),
        minute(until),
        super::share(days, whole),
        super::share(days, whole)
    )
}

/// A time that may be long, in its largest units.
fn lasting(milliseconds: u64) -> String {
    let days = milliseconds / DAY_MILLISECONDS;
    match days {
        0 => span(milliseconds),
        1 => format!("1 day {} h", milliseconds % DAY_MILLISECONDS / 3_600_000),
        2..14 => format!("{days} days {} h", milliseconds % DAY_MILLISECONDS / 3_600_000),
        _ => format!("{days} days"),
    }
}

#[cfg(test)]
mod tests {
    use super::lasting;

    #[test]
    fn a_long_time_is_told_in_days() {
        let hour = 3_600_000;
        let cases = [
            (hour * 5, "5 h 0 min"),
            (hour * 25, "1 day 1 h"),
            (hour * 100, "4 days 4 h"),
            (hour * 24 * 90, "90 days"),
        ];
        for (milliseconds, text) in cases {
            assert_eq!(lasting(milliseconds), text);
        }
    }
}
