//! Numbers and times as people read and write them.

use std::time::Duration;

/// A number with three significant digits and the prefix of its unit.
#[must_use]
pub fn scaled(value: f64) -> String {
    let mut value = value;
    for prefix in ["", "k", "M", "G"] {
        if value < 999.5 {
            let decimals = match value {
                _ if prefix.is_empty() || value >= 99.95 => 0,
                _ if value >= 9.995 => 1,
                _ => 2,
            };
            return format!("{value:.decimals$} {prefix}");
        }
        value /= 1000.0;
    }
    format!("{value:.2} T")
}

/// Reads a time like `90s`, `30 days` or `1h 30m`.
///
/// # Errors
/// What is wrong with it. `M` stands for months in some places and is taken for minutes by many, so it is refused.
pub fn time(text: &str) -> Result<Duration, String> {
    let is_month = |(at, _): (usize, &str)| {
        text[..at].trim_end().ends_with(|before: char| before.is_ascii_digit())
            && !text[at + 1..].starts_with(|behind: char| behind.is_ascii_alphabetic())
    };
    if text.match_indices('M').any(is_month) {
        return Err(format!(
            "`{text}`: `M` would be months, which differ in length, and `m` is minutes: write days, like \"30 days\", or \
             \"{}\" if minutes are meant",
            text.replace('M', "m")
        ));
    }
    humantime::parse_duration(text).map_err(|error| format!("`{text}`: {error}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{scaled, time};

    #[test]
    fn months_are_not_taken_for_minutes() {
        assert_eq!(time("1m"), Ok(Duration::from_secs(60)));
        assert_eq!(time("1h 30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(time("30 days"), Ok(Duration::from_secs(30 * 86_400)));
        for text in ["1M", "1 M", "1h 30M", "2M 1d"] {
            let said = time(text).expect_err(text);
            assert!(said.contains("months") && said.contains(&text.replace('M', "m")), "{said}");
        }
        assert!(time("Monday").expect_err("no time").starts_with("`Monday`: "));
    }

    #[test]
    fn numbers_keep_three_digits() {
        let cases = [
            (0.0, "0 "),
            (999.4, "999 "),
            (999.6, "1.00 k"),
            (12_345.0, "12.3 k"),
            (999_949.0, "1.00 M"),
            (5_210_000.0, "5.21 M"),
            (123_456_789.0, "123 M"),
            (2.5e9, "2.50 G"),
            (4e12, "4.00 T"),
        ];
        for (value, expected) in cases {
            assert_eq!(scaled(value), expected, "{value}");
        }
    }
}
