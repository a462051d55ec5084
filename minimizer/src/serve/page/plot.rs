//! Small plots as inline SVG: areas over the last drains, the newest at the right.

use std::fmt::Write as _;

use super::escape;

/// Drawing area; the style stretches it to what room there is.
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 100.0;

/// Values of one name, the oldest first.
pub struct Series {
    /// Its class in the style.
    pub class: &'static str,
    /// Its values.
    pub values: Vec<f64>,
}

/// Areas on top of each other, described by `label` for those who do not see them. `span` values fill the width;
/// where there are fewer, the left stays empty.
pub fn stacked(label: &str, class: &str, series: &[Series], span: usize) -> String {
    let count = series.iter().map(|series| series.values.len()).max().unwrap_or(0);
    let mut below = vec![0.0; count];
    let mut layers = Vec::new();
    for series in series {
        let above: Vec<f64> = below.iter().zip(&series.values).map(|(below, value)| below + value).collect();
        layers.push((series.class, below, above.clone()));
        below = above;
    }
    let highest = below.iter().copied().fold(0.0, f64::max);
    let step = WIDTH / span.max(2).saturating_sub(1) as f64;
    let x = |place: usize| WIDTH - (count - 1 - place) as f64 * step;
    // The line at the top is not to be cut off.
    let y = |value: f64| if highest > 0.0 { HEIGHT - value / highest * (HEIGHT - 2.0) } else { HEIGHT };
    let mut svg = format!(
        "<svg class=\"{class}\" role=\"img\" aria-label=\"{}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         preserveAspectRatio=\"none\">",
        escape(label)
    );
    let points = |values: &[f64]| -> Vec<String> {
        let point = |(place, value): (usize, &f64)| format!("{:.1} {:.1}", x(place), y(*value));
        values.iter().enumerate().map(point).collect()
    };
    for (class, lower, upper) in layers.iter().rev() {
        if count == 0 {
            continue;
        }
        let (line, mut floor) = (points(upper).join("L"), points(lower));
        floor.reverse();
        // Writing to a string cannot fail.
        write!(
            svg,
            "<path class=\"area {class}\" d=\"M{line}L{}Z\"/><path class=\"line {class}\" d=\"M{line}\"/>",
            floor.join("L")
        )
        .unwrap_or_default();
    }
    svg + "</svg>"
}

#[cfg(test)]
mod tests {
    use super::{Series, stacked};

    #[test]
    fn the_newest_value_is_at_the_right_and_the_highest_at_the_top() {
        let svg = stacked("a \"label\"", "small", &[Series { class: "a", values: vec![0.0, 2.0, 1.0] }], 5);
        assert!(svg.contains("M300.0 100.0L450.0 2.0L600.0 51.0L600.0 100.0"), "{svg}");
        assert!(svg.contains("aria-label=\"a &quot;label&quot;\""), "{svg}");
    }

    #[test]
    fn nothing_and_zeroes_are_drawn() {
        for values in [vec![], vec![0.0], vec![0.0, 0.0]] {
            let svg = stacked("", "", &[Series { class: "a", values }], 1);
            assert!(svg.ends_with("</svg>") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }
}
