//! The cost of a packet over the number of flows, as a picture.

use std::path::Path;

use plotters::backend::SVGBackend;
use plotters::chart::ChartBuilder;
use plotters::coord::combinators::IntoLogRange as _;
use plotters::drawing::IntoDrawingArea as _;
use plotters::element::{Circle, PathElement, Text};
use plotters::series::LineSeries;
use plotters::style::{Color as _, IntoFont as _, RGBColor, ShapeStyle};

use super::report::Report;
use super::schedule::Popularity;
use super::statistics::Spread;
use super::traffic::Traffic;

const WIDTH: u32 = 960;
const HEIGHT: u32 = 600;
const KEY_WIDTH: u32 = 170;
const BLACK: RGBColor = RGBColor(0x22, 0x22, 0x22);
const GRID: RGBColor = RGBColor(0xe4, 0xe4, 0xe4);
const WHITE: RGBColor = RGBColor(0xff, 0xff, 0xff);
/// Logarithms end at zero; what is not more than the base is shown here.
const LEAST_NS: f64 = 0.5;
/// Apart from each other in hue and in brightness, for whoever sees no colours.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0x99, 0x99, 0x99),
    RGBColor(0x55, 0x55, 0x55),
    RGBColor(0x33, 0x99, 0x66),
    RGBColor(0xdd, 0x88, 0x11),
    RGBColor(0xbb, 0x33, 0x33),
    RGBColor(0x11, 0x55, 0xcc),
    RGBColor(0x77, 0x33, 0x99),
];

/// One program's line.
struct Line {
    name: &'static str,
    points: Vec<(f64, Spread)>,
    colour: RGBColor,
}

/// Whether there are enough numbers of flows for lines.
#[must_use]
pub fn is_worth(report: &Report) -> bool {
    rows(report).count() > 2
}

/// Draws IPv4 and TCP, flows drawn uniformly, one line a program.
///
/// # Errors
/// When the file cannot be written.
pub fn draw(report: &Report, path: &Path) -> anyhow::Result<()> {
    let lines = lines(report);
    let flows = lines.iter().flat_map(|line| line.points.iter().map(|(flows, _)| *flows));
    let most_flows = flows.fold(1.0, f64::max);
    let costs = lines.iter().flat_map(|line| line.points.iter().map(|(_, ns)| ns.max));
    let most_ns = costs.fold(10.0, f64::max);

    let area = SVGBackend::new(path, (WIDTH, HEIGHT)).into_drawing_area();
    area.fill(&WHITE)?;
    let (area, key) = area.split_horizontally(WIDTH - KEY_WIDTH);
    let title = format!("Cost of a packet: Linux {}, {}", report.kernel, report.cpu);
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 22).into_font().color(&BLACK))
        .margin(16)
        .x_label_area_size(48)
        .y_label_area_size(64)
        .build_cartesian_2d((0.8..most_flows * 1.3).log_scale(), (LEAST_NS..most_ns * 1.3).log_scale())?;
    chart
        .configure_mesh()
        .bold_line_style(GRID)
        .light_line_style(WHITE)
        .axis_style(BLACK)
        .label_style(("sans-serif", 15).into_font().color(&BLACK))
        .x_desc("flows (IPv4, TCP, drawn uniformly)")
        .y_desc("ns per packet: median, range of the rounds")
        .x_label_formatter(&|flows| count(*flows))
        .y_label_formatter(&|ns| count(*ns))
        .draw()?;
    for Line { name, points, colour } in &lines {
        let ours = *name == super::contenders::Kind::Minimizer.name();
        let style =
            ShapeStyle { color: colour.to_rgba(), filled: true, stroke_width: if ours { 4 } else { 2 } };
        let thin = ShapeStyle { stroke_width: 1, ..style };
        let at = |ns: f64| ns.max(LEAST_NS);
        chart
            .draw_series(LineSeries::new(points.iter().map(|(flows, ns)| (*flows, at(ns.median))), style))?;
        chart.draw_series(
            points
                .iter()
                .map(|(flows, ns)| PathElement::new([(*flows, at(ns.min)), (*flows, at(ns.max))], thin)),
        )?;
        chart.draw_series(points.iter().map(|(flows, ns)| Circle::new((*flows, at(ns.median)), 4, style)))?;
    }
    // Beside the chart, in the order in which the lines end.
    for (place, Line { name, colour, .. }) in (0..).zip(&lines) {
        let y = 80 + 28 * place;
        let line = ShapeStyle { color: colour.to_rgba(), filled: true, stroke_width: 4 };
        key.draw(&PathElement::new([(0, y), (28, y)], line))?;
        key.draw(&Text::new(*name, (36, y - 8), ("sans-serif", 17).into_font().color(&BLACK)))?;
    }
    key.present()?;
    area.present()?;
    Ok(())
}

fn rows(report: &Report) -> impl Iterator<Item = &super::packets::Row> {
    let shown = (Traffic::Ipv4Tcp, Popularity::Uniform);
    report.per_packet.iter().filter(move |row| (row.traffic, row.popularity) == shown)
}

fn lines(report: &Report) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for row in rows(report) {
        for figure in &row.programs {
            let place = lines.iter().position(|line| line.name == figure.name).unwrap_or_else(|| {
                let colour = COLOURS[lines.len() % COLOURS.len()];
                lines.push(Line { name: figure.name, points: Vec::new(), colour });
                lines.len() - 1
            });
            lines[place].points.push((row.flows as f64, figure.ns));
        }
    }
    let last = |line: &Line| line.points.last().map_or(0.0, |(_, ns)| ns.median);
    lines.sort_by(|one, other| last(other).total_cmp(&last(one)));
    lines
}

/// 1, 1k, 1M.
fn count(number: f64) -> String {
    match number {
        ..1e3 => format!("{number}"),
        1e3..1e6 => format!("{}k", number / 1e3),
        _ => format!("{}M", number / 1e6),
    }
}
