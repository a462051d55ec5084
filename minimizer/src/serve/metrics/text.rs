//! Prometheus text 0.0.4 from OpenMetrics 1.0 text.
//!
//! For the families of this agent the two differ in four ways: 0.0.4 keeps the suffix `_total` of a counter in HELP and
//! TYPE, has no UNIT, has no EOF, and says `untyped` for `unknown`.

/// Rewrites a complete OpenMetrics text that has neither exemplars nor timestamps.
pub fn from_open_metrics(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    // The suffix depends on the type, which follows the help: so a help line waits for the type.
    let mut help = None;
    for line in open_metrics.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(family), description) => {
                help = Some((family, description.unwrap_or_default()));
            }
            (Some("#"), Some("TYPE"), Some(family), Some(kind)) => {
                let suffix = if kind == "counter" { "_total" } else { "" };
                let kind = if kind == "unknown" { "untyped" } else { kind };
                if let Some((_, description)) = help.take_if(|(name, _)| *name == family) {
                    push_line(&mut text, &["# HELP ", family, suffix, " ", &unquoted(description)]);
                }
                push_line(&mut text, &["# TYPE ", family, suffix, " ", kind]);
            }
            (Some("#"), Some("UNIT" | "EOF"), ..) => {}
            _ => push_line(&mut text, &[line]),
        }
    }
    text
}

/// OpenMetrics escapes quotes in descriptions, 0.0.4 does not.
fn unquoted(description: &str) -> String {
    description.replace("\\\"", "\"")
}

fn push_line(text: &mut String, parts: &[&str]) {
    text.extend(parts.iter().copied());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::from_open_metrics;

    #[test]
    fn the_differences_and_nothing_else_are_rewritten() {
        let cases = [
            (
                "# HELP a Octets \\\"seen\\\".\n# TYPE a counter\na_total{b=\"# EOF\"} 1\n# EOF\n",
                "# HELP a_total Octets \"seen\".\n# TYPE a_total counter\na_total{b=\"# EOF\"} 1\n",
            ),
            (
                "# HELP a_seconds Age.\n# TYPE a_seconds gauge\n# UNIT a_seconds seconds\na_seconds 1.5\n# EOF\n",
                "# HELP a_seconds Age.\n# TYPE a_seconds gauge\na_seconds 1.5\n",
            ),
            (
                "# TYPE h histogram\nh_sum 1\nh_bucket{le=\"+Inf\"} 2\n# TYPE u unknown\nu 3\n# EOF\n",
                "# TYPE h histogram\nh_sum 1\nh_bucket{le=\"+Inf\"} 2\n# TYPE u untyped\nu 3\n",
            ),
            ("# EOF\n", ""),
        ];
        for (open_metrics, text) in cases {
            assert_eq!(from_open_metrics(open_metrics), text);
        }
    }
}
