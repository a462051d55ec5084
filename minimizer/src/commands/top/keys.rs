//! What keys do.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::rows::TableColumn;
use super::{Screen, TopView};

/// Keys and what they do, as the help lists them.
pub const KEYS: [(&str, &str); 10] = [
    ("q, Ctrl-C", "quit"),
    ("↑ ↓, k j", "select an interface"),
    ("Home End, g G", "select the first, the last"),
    ("Enter", "the interface in detail; Esc goes back"),
    ("s, 1 to 7", "sort by the next column, by that column"),
    ("r", "reverse the order"),
    ("f, /", "filter by name or state; Enter ends, Esc clears it"),
    ("p, Space", "pause: what is shown stays"),
    ("?, h", "this help"),
    ("Esc", "back"),
];

/// What the view does after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterKey {
    /// It goes on.
    Stay,
    /// It ends.
    End,
}

impl TopView {
    /// Does what a key says.
    pub fn key(&mut self, key: KeyEvent) -> AfterKey {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if matches!(key.code, KeyCode::Char('c')) { AfterKey::End } else { AfterKey::Stay };
        }
        if self.is_typing {
            self.type_key(key.code);
            return AfterKey::Stay;
        }
        match key.code {
            KeyCode::Char('q') => return AfterKey::End,
            KeyCode::Char('?' | 'h') => {
                self.screen = if self.screen == Screen::Help { Screen::All } else { Screen::Help };
            }
            KeyCode::Esc if self.screen == Screen::All => self.filter.clear(),
            KeyCode::Esc => self.screen = Screen::All,
            KeyCode::Char('p' | ' ') => self.is_paused = !self.is_paused,
            KeyCode::Enter => {
                self.screen = match self.screen {
                    Screen::All if !self.rows().is_empty() => Screen::Interface,
                    _ => Screen::All,
                }
            }
            KeyCode::Up | KeyCode::Char('k') => self.select(|place, _| place.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.select(|place, last| (place + 1).min(last)),
            KeyCode::Home | KeyCode::Char('g') => self.select(|_, _| 0),
            KeyCode::End | KeyCode::Char('G') => self.select(|_, last| last),
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('r') => self.is_reversed = !self.is_reversed,
            KeyCode::Char('f' | '/') => {
                self.screen = Screen::All;
                self.is_typing = true;
            }
            KeyCode::Char(digit) => {
                let place = digit.to_digit(10).and_then(|digit| usize::try_from(digit).ok()?.checked_sub(1));
                if let Some(column) = place.and_then(|place| TableColumn::ALL.get(place)) {
                    self.sort = *column;
                }
            }
            _ => {}
        }
        AfterKey::Stay
    }

    fn type_key(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.is_typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(character) => self.filter.push(character),
            _ => {}
        }
    }

    /// Selects another row. `place` computes its place from the present one and the last one.
    fn select(&mut self, place: impl Fn(usize, usize) -> usize) {
        let rows = self.rows();
        let Some(last) = rows.len().checked_sub(1) else { return };
        let place = place(self.selected_place(&rows), last);
        self.selected = rows.get(place).map(|row| row.name.clone());
    }
}
