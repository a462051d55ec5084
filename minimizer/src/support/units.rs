//! Numbers as people read them.

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

#[cfg(test)]
mod tests {
    use super::scaled;

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
