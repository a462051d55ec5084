//! Small plots as inline SVG: areas over the last drains, the newest at the right.

use maud::{Markup, html};

/// The drawing area. The style stretches it to the room that there is.
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 100.0;

/// The values of one area, the oldest first.
pub struct Series {
    /// Its class in the style sheet.
    pub class: &'static str,
    /// Its values.
    pub values: Vec<f64>,
}

/// Areas on top of each other. `label` describes them to readers who cannot see them. `span` values fill the width; with
/// fewer values the left stays empty.
pub fn stacked(label: &str, class: &str, series: &[Series], span: usize) -> Markup {
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
    // Two units stay free, so that the line at the top is not cut off.
    let y = |value: f64| if highest > 0.0 { HEIGHT - value / highest * (HEIGHT - 2.0) } else { HEIGHT };
    let points = |values: &[f64]| -> Vec<String> {
        let point = |(place, value): (usize, &f64)| format!("{:.1} {:.1}", x(place), y(*value));
        values.iter().enumerate().map(point).collect()
    };
    let area = |line: &str, lower: &[f64]| {
        let mut floor = points(lower);
        floor.reverse();
        format!("M{line}L{}Z", floor.join("L"))
    };
    html! {
        svg class=(class) role="img" aria-label=(label) viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" {
            @if count > 0 {
                @for (class, lower, upper) in layers.iter().rev() {
                    @let line = points(upper).join("L");
                    path class={ "area " (class) } d=(area(&line, lower)) {}
                    path class={ "line " (class) } d={ "M" (line) } {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Series, stacked};

    #[test]
    fn the_newest_value_is_at_the_right_and_the_highest_at_the_top() {
        let svg = stacked("a \"label\"", "small", &[Series { class: "a", values: vec![0.0, 2.0, 1.0] }], 5)
            .into_string();
        assert!(svg.contains("M300.0 100.0L450.0 2.0L600.0 51.0L600.0 100.0"), "{svg}");
        assert!(svg.contains("aria-label=\"a &quot;label&quot;\""), "{svg}");
    }

    #[test]
    fn nothing_and_zeroes_are_drawn() {
        for values in [vec![], vec![0.0], vec![0.0, 0.0]] {
            let svg = stacked("", "", &[Series { class: "a", values }], 1).into_string();
            assert!(svg.ends_with("</svg>") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }
}
