//! How the view looks, at any size of the terminal.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row as TableRow, Sparkline, Table, TableState, Wrap};

use super::keys::KEYS;
use super::rows::TableColumn;
use super::{Screen, TopView, plain};
use crate::delivery::account::SinkState;
use crate::serve::status::{LedgerReport, Report, span};
use crate::support::units::scaled;

/// Fewest rows that have room for outcomes and sinks.
const ROWS_ALL: u16 = 16;
/// Fewest rows that have room for policy and ledger in the header.
const ROWS_HEADER: u16 = 8;
/// Fewest columns that have room for outcomes and sinks side by side.
const COLUMNS_SIDES: u16 = 70;

const ACCENT: Style = Style::new().fg(Color::Cyan);
const QUIET: Style = Style::new().add_modifier(Modifier::DIM);
const GOOD: Style = Style::new().fg(Color::Green);
const BAD: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
const WARN: Style = Style::new().fg(Color::Yellow);
const TITLE: Style = Style::new().add_modifier(Modifier::BOLD);

impl TopView {
    /// Draws the whole view.
    pub fn draw(&self, frame: &mut Frame<'_>) {
        let area = frame.area();
        let header = if area.height >= ROWS_HEADER { 4 } else { 1 };
        let parts = [Constraint::Length(header), Constraint::Min(0), Constraint::Length(1)];
        let [top, middle, bottom] = Layout::vertical(parts).areas(area);
        let Some(report) = &self.report else { return };
        self.draw_header(frame, top, report);
        match self.screen {
            Screen::Help => draw_help(frame, middle),
            Screen::Interface => self.draw_interface(frame, middle, report),
            Screen::All if area.height >= ROWS_ALL => self.draw_all(frame, middle, report),
            Screen::All => self.draw_interfaces(frame, middle),
        }
        self.draw_keys(frame, bottom);
    }

    fn draw_header(&self, frame: &mut Frame<'_>, area: Rect, report: &Report) {
        let mut state = vec![Span::styled(format!("minimizer {} ", report.version), TITLE)];
        if let Some((since, _)) = &self.gone {
            let age = span(u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX));
            state.push(Span::styled(format!(" AGENT GONE for {age}, asking on "), BAD));
        } else if report.ready {
            state.push(Span::styled(" ready ", GOOD));
        } else {
            state.push(Span::styled(" NOT READY ", BAD));
        }
        state.push(if report.ledger.balanced {
            Span::styled(" balanced ", GOOD)
        } else {
            Span::styled(" NOT BALANCED ", BAD)
        });
        if self.is_paused {
            state.push(Span::styled(" PAUSED ", WARN.add_modifier(Modifier::REVERSED)));
        }
        state.push(Span::styled(format!(" up {}", span(report.uptime_milliseconds)), QUIET));
        let mut lines = vec![Line::from(state)];
        lines.push(Line::from(vec![
            Span::styled("policy ", QUIET),
            Span::styled(report.policy.name.clone(), ACCENT),
            Span::raw(match (&report.policy.mandate, report.policy.valid_until) {
                (Some(mandate), Some(until)) => {
                    format!("  mandate {mandate} until {}", until.strftime("%Y-%m-%d %H:%M UTC"))
                }
                _ => "  no mandate".to_owned(),
            }),
        ]));
        lines.push(ledger_line(&report.ledger));
        frame.render_widget(Paragraph::new(lines), area);
    }

    fn draw_all(&self, frame: &mut Frame<'_>, area: Rect, report: &Report) {
        let outcomes = self.outcomes();
        let is_beside = area.width >= COLUMNS_SIDES;
        let count = |length: usize| u16::try_from(length).unwrap_or(u16::MAX).saturating_add(1);
        let (outcome_rows, sink_rows) = (count(outcomes.len()), count(report.sinks.len().max(1)));
        let below =
            if is_beside { outcome_rows.max(sink_rows) } else { outcome_rows.saturating_add(sink_rows) };
        // At least half of the room is for the interfaces.
        let below = below.min(area.height.saturating_sub(2) / 2);
        let parts = [Constraint::Min(3), Constraint::Length(below), Constraint::Length(2)];
        let [interfaces, below, machine] =
            Layout::vertical(parts).spacing(u16::from(area.height > 16)).areas(area);
        self.draw_interfaces(frame, interfaces);
        let [left, right] = if is_beside {
            Layout::horizontal([Constraint::Length(36), Constraint::Min(10)]).spacing(2).areas(below)
        } else {
            Layout::vertical([Constraint::Length(outcome_rows), Constraint::Min(0)]).areas(below)
        };
        draw_outcomes(frame, left, &outcomes);
        draw_sinks(frame, right, report);
        draw_machine(frame, machine, report);
    }

    fn draw_interfaces(&self, frame: &mut Frame<'_>, area: Rect) {
        let rows = self.rows();
        // Where not all columns fit, the least interesting ones are left out.
        let columns: &[TableColumn] = match area.width {
            0..34 => &[TableColumn::Name, TableColumn::Packets],
            34..50 => &[TableColumn::Name, TableColumn::Packets, TableColumn::Bits],
            50..76 => &[TableColumn::Name, TableColumn::State, TableColumn::Packets, TableColumn::Bits],
            _ => &TableColumn::ALL,
        };
        let titles = columns.iter().map(|column| {
            let mark = match (*column == self.sort, self.is_reversed) {
                (false, _) => "",
                (true, false) => "▾",
                (true, true) => "▴",
            };
            let line = Line::from(format!("{}{mark}", column.title()));
            Cell::from(if is_text(*column) { line } else { line.right_aligned() })
        });
        let cells = rows.iter().map(|row| {
            let cells = plain::cells(row);
            TableRow::new(columns.iter().map(|column| {
                let line = Line::from(cells[*column as usize].trim_end().to_owned());
                let line = match column {
                    TableColumn::State if !row.is_well => line.style(BAD),
                    TableColumn::Faults if row.faults > 0 => line.style(WARN),
                    _ => line,
                };
                Cell::from(if is_text(*column) { line } else { line.right_aligned() })
            }))
        });
        let widths = columns.iter().map(|column| match column {
            TableColumn::Name => Constraint::Min(9),
            TableColumn::State => Constraint::Length(14),
            TableColumn::Packets => Constraint::Length(10),
            TableColumn::Bits => Constraint::Length(8),
            TableColumn::Seen | TableColumn::Counted => Constraint::Length(13),
            TableColumn::Faults => Constraint::Length(8),
        });
        let table = Table::new(cells, widths)
            .header(TableRow::new(titles).style(TITLE))
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
        let mut state = TableState::default();
        if !rows.is_empty() {
            state.select(Some(self.selected_place(&rows)));
        }
        frame.render_stateful_widget(table, area, &mut state);
        if rows.is_empty() && area.height > 1 {
            let line = Rect { y: area.y + 1, height: 1, ..area };
            frame.render_widget(Line::styled("no interface is selected by '-i' and the filter", QUIET), line);
        }
    }

    /// The selected interface: its rates over the last drains, and its outcomes with their reasons.
    fn draw_interface(&self, frame: &mut Frame<'_>, area: Rect, report: &Report) {
        let rows = self.rows();
        let Some(row) = rows.get(self.selected_place(&rows)) else {
            return self.draw_interfaces(frame, area);
        };
        let totals = report.ledger.interface(&row.name);
        let mut lines = Vec::new();
        for (name, outcome) in &totals.outcomes {
            if outcome.packets() != 0 {
                lines.push(Line::from(format!("{:<16}{:>16}", name.replace('_', " "), outcome.packets())));
            }
            for (reason, packets) in outcome.reasons() {
                lines.push(Line::styled(format!("  {:<22}{:>8}", reason.replace('_', " "), packets), QUIET));
            }
        }
        let outcome_rows = u16::try_from(lines.len()).unwrap_or(u16::MAX);
        let parts = [
            Constraint::Length(1),
            Constraint::Fill(1),
            Constraint::Length(1),
            Constraint::Fill(1),
            Constraint::Length(1),
            Constraint::Length(outcome_rows.min(area.height / 2)),
        ];
        let [packet_title, packet_plot, bit_title, bit_plot, seen, outcomes] =
            Layout::vertical(parts).areas(area);
        let course = report.course.interfaces.get(&row.name);
        let spans = &report.course.span_milliseconds;
        let rates = |numbers: Option<&Vec<u64>>, times: u64| -> Vec<u64> {
            let numbers = numbers.into_iter().flatten().zip(spans);
            numbers.map(|(number, span)| number.saturating_mul(times * 1000) / span.max(&1)).collect()
        };
        let packet_rates = rates(course.map(|course| &course.packets), 1);
        let bit_rates = rates(course.map(|course| &course.octets), 8);
        let title = |name: &str, unit: &str, now: f64, rates: &[u64]| {
            let highest = rates.iter().max().copied().unwrap_or(0);
            Line::from(vec![
                Span::styled(format!("{name} "), TITLE),
                Span::styled(format!("{}{unit}", scaled(now)), ACCENT),
                Span::styled(format!("  highest {}{unit}", scaled(highest as f64)), QUIET),
            ])
        };
        frame.render_widget(
            title(&row.name, "packets/s", row.packets_per_second, &packet_rates),
            packet_title,
        );
        draw_rates(frame, packet_plot, &packet_rates);
        frame.render_widget(title(&row.state, "bit/s", row.bits_per_second, &bit_rates), bit_title);
        draw_rates(frame, bit_plot, &bit_rates);
        frame.render_widget(Line::styled(format!("{:<16}{:>16}", "seen", row.seen), TITLE), seen);
        frame.render_widget(Paragraph::new(lines), outcomes);
    }

    fn draw_keys(&self, frame: &mut Frame<'_>, area: Rect) {
        let line = if self.is_typing {
            Line::from(format!("filter: {}▏  Enter ends, Esc clears", self.filter))
        } else if let Some((_, problem)) = &self.gone {
            Line::styled(problem.clone(), BAD)
        } else if self.filter.is_empty() {
            Line::styled("q quit  ? help  s sort  r reverse  f filter  p pause  Enter detail", QUIET)
        } else {
            Line::from(format!("filter: {}  (Esc clears it)", self.filter))
        };
        frame.render_widget(line, area);
    }
}

const fn is_text(column: TableColumn) -> bool {
    matches!(column, TableColumn::Name | TableColumn::State)
}

/// The ledger as a sum.
fn ledger_line(ledger: &LedgerReport) -> Line<'static> {
    let (seen, counted) = (ledger.seen(), ledger.outcome("counted"));
    let places = ledger.places().into_iter().filter(|(_, counts)| counts.packets != 0);
    let places: Vec<_> = places.map(|(name, counts)| format!("{} {name}", counts.packets)).collect();
    let places = if places.is_empty() { String::new() } else { format!(" = {}", places.join(" + ")) };
    Line::from(vec![
        Span::styled("ledger ", QUIET),
        Span::raw(format!("seen {seen}, counted {counted}{places}")),
    ])
}

fn draw_outcomes(frame: &mut Frame<'_>, area: Rect, outcomes: &[(&'static str, u64, f64)]) {
    let mut lines = vec![Line::styled(format!("{:<13}{:>13}{:>10}", "OUTCOME", "PACKETS", "/S"), TITLE)];
    for (name, packets, rate) in outcomes {
        let style = match *name {
            "overflow" => BAD,
            "malformed" | "unsupported" => WARN,
            _ => Style::new(),
        };
        let rate = scaled(*rate);
        lines.push(Line::styled(
            format!("{:<13}{packets:>13}{:>10}", name.replace('_', " "), rate.trim_end()),
            style,
        ));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

fn draw_sinks(frame: &mut Frame<'_>, area: Rect, report: &Report) {
    let mut lines = vec![Line::styled("SINK", TITLE)];
    if report.sinks.is_empty() {
        lines.push(Line::styled("none", QUIET));
    }
    for sink in &report.sinks {
        let lost: u64 = sink.dropped.values().map(|tally| tally.packets).sum();
        let (style, state) = match (&sink.failing, sink.state) {
            (None, SinkState::Unknown) => (QUIET, "unknown".to_owned()),
            (None, SinkState::Up | SinkState::Down) => (GOOD, "works".to_owned()),
            (Some(failing), _) => (BAD, format!("FAILS: {}", failing.reason.replace('_', " "))),
        };
        let mut spans = vec![
            Span::raw(format!("{} ", sink.name)),
            Span::styled(state, style),
            Span::styled(format!(" {} for {}", sink.kind, sink.recipient), QUIET),
        ];
        if lost != 0 {
            spans.push(Span::styled(format!(" {lost} packets dropped"), BAD));
        }
        if sink.queued.packets != 0 {
            spans.push(Span::raw(format!(" {} queued", sink.queued.packets)));
        }
        lines.push(Line::from(spans));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

fn draw_machine(frame: &mut Frame<'_>, area: Rect, report: &Report) {
    let (table, drains) = (&report.table, &report.drains);
    let percent = |used: u64, all: u64| if all == 0 { 0.0 } else { used as f64 * 100.0 / all as f64 };
    let age = drains.last_success_age_milliseconds.map_or("never".to_owned(), |age| span(age) + " ago");
    let lines = vec![
        Line::from(vec![
            Span::styled("table  ", QUIET),
            Span::raw(format!(
                "{:.1} % full, fullest CPU {:.1} %, spill {:.1} %, {} MiB",
                percent(table.slots_used, table.slots),
                percent(table.cpu_slots_used_max, table.cpu_slots),
                percent(table.spill_entries_used, table.spill_entries),
                table.memory_bytes >> 20
            )),
        ]),
        Line::from(vec![
            Span::styled("drains ", QUIET),
            Span::raw(format!(
                "{}, last {age}, every {}, took {} µs, mean {} µs",
                drains.succeeded,
                span(drains.interval_milliseconds),
                report.course.duration_microseconds.last().unwrap_or(&0),
                drains.mean_duration_microseconds.unwrap_or(0)
            )),
        ]),
    ];
    frame.render_widget(Paragraph::new(lines), area);
}

/// Draws rates as bars, the newest at the right.
fn draw_rates(frame: &mut Frame<'_>, area: Rect, rates: &[u64]) {
    let shown = rates.iter().rev().take(usize::from(area.width)).rev();
    frame.render_widget(Sparkline::default().data(shown).style(ACCENT), area);
}

fn draw_help(frame: &mut Frame<'_>, area: Rect) {
    let mut lines = vec![Line::styled("Keys", TITLE)];
    lines.extend(
        KEYS.iter().map(|(keys, text)| {
            Line::from(vec![Span::styled(format!("{keys:<16}"), ACCENT), Span::raw(*text)])
        }),
    );
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), area);
}
