//! The view at several sizes, and what keys do to it.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::keys::AfterKey;
use super::rows::TableColumn;
use super::{Screen, TopView};
use crate::serve::snapshot::example::example;
use crate::serve::status::{InterfaceCourse, InterfaceRates, Report};

/// A report of three interfaces, of which the second is the busiest.
fn report() -> Report {
    let mut report = Report::new(&example());
    let template = report.interfaces[0].clone();
    let ledger = report.ledger.interfaces["eth\"0\\"].clone();
    report.interfaces.clear();
    for (name, packets) in [("eth0", 1000.0), ("eth1", 5_210_000.0), ("wan7", 20.0)] {
        let mut interface = template.clone();
        name.clone_into(&mut interface.name);
        let outcomes = [("counted".to_owned(), packets)].into();
        interface.rates = Some(InterfaceRates {
            packets_per_second: packets,
            octets_per_second: packets * 100.0,
            outcomes_per_second: outcomes,
        });
        report.interfaces.push(interface);
        report.ledger.interfaces.insert(name.to_owned(), ledger.clone());
        let course = InterfaceCourse { packets: vec![1, 2, 3], octets: vec![100, 200, 300] };
        report.course.interfaces.insert(name.to_owned(), course);
    }
    report.course.span_milliseconds = vec![1000; 3];
    report
}

fn view() -> TopView {
    let mut view = TopView::new(Vec::new());
    view.answered(Ok(report()));
    view
}

fn screen(view: &TopView, columns: u16, rows: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).expect("a terminal in memory");
    terminal.draw(|frame| view.draw(frame)).expect("memory takes everything");
    terminal.backend().to_string()
}

fn press(view: &mut TopView, keys: &str) -> AfterKey {
    keys.chars().map(|key| view.key(KeyEvent::from(KeyCode::Char(key)))).last().unwrap_or(AfterKey::Stay)
}

fn names(view: &TopView) -> Vec<String> {
    view.rows().into_iter().map(|row| row.name).collect()
}

fn assert_has(screen: &str, parts: &[&str]) {
    for part in parts {
        assert!(screen.contains(part), "{part} is missing in\n{screen}");
    }
}

#[test]
fn a_common_terminal_shows_everything() {
    let screen = screen(&view(), 80, 24);
    assert_has(
        &screen,
        &[
            "minimizer 1.2.3",
            "balanced",
            "policy example",
            "mandate NCO-7",
            "5.21 M",
            "PACKETS/S▾",
            "OUTCOME",
            "out of scope",
            "soc",
            "table",
            "drains",
            "q quit",
        ],
    );
}

#[test]
fn a_small_terminal_shows_what_matters() {
    assert_has(&screen(&view(), 40, 10), &["minimizer 1.2.3", "eth1", "5.21 M", "BIT/S"]);
}

#[test]
fn a_large_terminal_has_room_for_all() {
    assert_has(&screen(&view(), 200, 60), &["COUNTED", "FAULTS", "unsupported", "operations", "µs"]);
}

#[test]
fn no_size_and_no_screen_panics() {
    let mut view = view();
    for keys in ["", "?", "?\u{1b}f"] {
        press(&mut view, keys);
        for columns in [1, 2, 5, 10, 39, 80, 300] {
            for rows in [1, 2, 3, 5, 9, 16, 17, 24, 100] {
                screen(&view, columns, rows);
                view.screen = Screen::Interface;
                screen(&view, columns, rows);
                view.screen = Screen::All;
            }
        }
    }
    screen(&TopView::default(), 80, 24);
}

#[test]
fn keys_sort_reverse_and_filter() {
    let mut view = view();
    assert_eq!(names(&view), ["eth1", "eth0", "wan7"]);
    press(&mut view, "r");
    assert_eq!(names(&view), ["wan7", "eth0", "eth1"]);
    press(&mut view, "r1");
    assert_eq!(
        (view.sort, names(&view)),
        (TableColumn::Name, vec!["eth0".into(), "eth1".into(), "wan7".into()])
    );
    press(&mut view, "s");
    assert_eq!(view.sort, TableColumn::State);
    // While a filter is typed, keys are text.
    assert_eq!(press(&mut view, "/ETHq"), AfterKey::Stay);
    assert!(names(&view).is_empty());
    assert_has(&screen(&view, 80, 24), &["no interface is selected", "filter: ETHq"]);
    view.key(KeyEvent::from(KeyCode::Backspace));
    assert_eq!(names(&view), ["eth0", "eth1"]);
    view.key(KeyEvent::from(KeyCode::Enter));
    view.key(KeyEvent::from(KeyCode::Esc));
    assert_eq!(names(&view).len(), 3);
}

#[test]
fn the_selected_interface_stays_selected_and_is_shown_in_detail() {
    let mut view = view();
    press(&mut view, "jjj");
    assert_eq!(view.selected.as_deref(), Some("wan7"));
    press(&mut view, "rk");
    assert_eq!(view.selected.as_deref(), Some("wan7"), "it is the first now");
    view.key(KeyEvent::from(KeyCode::Enter));
    assert_has(
        &screen(&view, 80, 24),
        &["wan7 20 packets/s", "highest 3 packets/s", "█", "ethernet truncated"],
    );
    view.key(KeyEvent::from(KeyCode::Esc));
    assert_eq!(view.screen, Screen::All);
    press(&mut view, "?");
    assert_has(&screen(&view, 80, 24), &["reverse the order"]);
}

#[test]
fn a_pause_keeps_what_is_shown_and_both_ways_end() {
    let mut view = view();
    press(&mut view, "p");
    view.answered(Ok(Report { version: "9.9.9".to_owned(), ..report() }));
    assert_has(&screen(&view, 80, 24), &["minimizer 1.2.3", "PAUSED"]);
    press(&mut view, " ");
    view.answered(Ok(Report { version: "9.9.9".to_owned(), ..report() }));
    assert_has(&screen(&view, 80, 24), &["minimizer 9.9.9"]);
    assert_eq!(press(&mut view, "q"), AfterKey::End);
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(view.key(control_c), AfterKey::End);
}

#[test]
fn only_interfaces_that_were_asked_for() {
    let mut view = view();
    view.patterns = vec![glob::Pattern::new("eth*").expect("a pattern")];
    assert_eq!(names(&view), ["eth1", "eth0"]);
    let text = view.plain();
    assert!(text.contains("eth0") && !text.contains("wan7"), "{text}");
}

#[test]
fn an_agent_that_is_gone_is_told() {
    let mut view = view();
    let evidence = "a reason".to_owned();
    view.answered(Err(crate::serve::status::StatusError::NotAnAgent {
        address: ([127, 0, 0, 1], 1).into(),
        evidence,
    }));
    assert_has(&screen(&view, 80, 24), &["AGENT GONE", "5.21 M"]);
    view.answered(Ok(report()));
    assert!(!screen(&view, 80, 24).contains("AGENT GONE"));
}
