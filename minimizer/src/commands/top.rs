//! `minimizer top`: what a running agent does, live in the terminal. All that it shows comes from `/status`.

mod draw;
mod keys;
mod plain;
mod rows;

use std::io::{self, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use glob::Pattern;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use thiserror::Error;

use crate::commands::cli;
use crate::commands::signals::Caught;
use crate::commands::text::Output;
use crate::serve::status::{self, Report, StatusError};
use keys::AfterKey;
use rows::TableColumn;

/// Time between two questions to the agent.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Longest time until the view notices an answer or a signal.
const POLL: Duration = Duration::from_millis(100);
/// Longest time until the view is drawn again, because it shows for how long the agent is gone.
const REDRAW: Duration = Duration::from_secs(1);

/// Why the view could not start or had to end.
#[derive(Debug, Error)]
pub enum TopError {
    /// No agent gives a report.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// The agent tells no counts to this user.
    #[error(
        "the agent at {0} tells counts only to root and to its own user: run this as one of them, or look at its page, with the password \
         or certificate that its web configuration asks for"
    )]
    Withheld(SocketAddr),
    /// A pattern of interfaces has a mistake.
    #[error("'{pattern}' is not a pattern of interfaces: {source}; give a name, or a pattern like 'eth*'")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// The mistake.
        source: glob::PatternError,
    },
    /// The terminal cannot be read or written.
    #[error("the terminal cannot be used: {0}; 'minimizer status' prints the same without one")]
    Terminal(#[from] io::Error),
    /// The report cannot be written as JSON.
    #[error("the report cannot be printed: {0}")]
    Json(#[from] serde_json::Error),
}

/// What is shown, and how.
#[derive(Debug, Default)]
struct TopView {
    /// Patterns of the interfaces to show; all when empty.
    patterns: Vec<Pattern>,
    report: Option<Report>,
    /// Since when the agent does not answer, and why not; `None` while it answers.
    gone: Option<(Instant, String)>,
    screen: Screen,
    sort: TableColumn,
    is_reversed: bool,
    filter: String,
    /// Whether the user is typing the filter: keys are text then.
    is_typing: bool,
    is_paused: bool,
    /// Name of the selected interface. A name and not a place, so that it stays selected when the order changes.
    selected: Option<String>,
}

/// What fills the terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Screen {
    #[default]
    All,
    Interface,
    Help,
}

impl TopView {
    fn new(patterns: Vec<Pattern>) -> Self {
        Self { patterns, ..Self::default() }
    }

    /// Takes an answer. While paused, the view keeps the report that it shows.
    fn answered(&mut self, answer: Result<Report, StatusError>) {
        match answer {
            Ok(report) => {
                self.gone = None;
                if !self.is_paused || self.report.is_none() {
                    self.report = Some(report);
                }
            }
            Err(error) => {
                let since = self.gone.take().map_or_else(Instant::now, |(since, _)| since);
                self.gone = Some((since, error.to_string()));
            }
        }
    }
}

/// Shows a running agent until the user or a signal ends it. Without a terminal, prints once and returns.
///
/// # Errors
/// When no agent answers at the start, or the terminal cannot be used.
pub fn top(args: &cli::Top) -> Result<(), TopError> {
    let pattern = |text: &String| {
        Pattern::new(text).map_err(|source| TopError::Pattern { pattern: text.clone(), source })
    };
    let patterns: Vec<_> = args.interfaces.iter().map(pattern).collect::<Result<_, _>>()?;
    let mut view = TopView::new(patterns);
    let report = status::ask(args.listen)?;
    if report.withheld {
        return Err(TopError::Withheld(args.listen));
    }
    if args.output == Output::Json || !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        let mut out = io::stdout().lock();
        view.answered(Ok(report));
        match args.output {
            Output::Json => writeln!(out, "{}", serde_json::to_string_pretty(&view.restricted())?)?,
            Output::Table => out.write_all(view.plain().as_bytes())?,
        }
        return Ok(());
    }
    view.answered(Ok(report));
    let (said, heard) = mpsc::channel();
    ask_forever(args.listen, said.clone())?;
    end_on_signals(said)?;
    // From here on a panic restores the terminal too.
    let mut terminal = ratatui::try_init()?;
    let ended = show(&mut terminal, &mut view, &heard);
    ratatui::try_restore()?;
    ended
}

/// What other threads tell the view.
enum Heard {
    Answer(Box<Result<Report, StatusError>>),
    End,
}

/// Asks the agent every second. A thread of its own does this, because an answer may take long.
fn ask_forever(address: SocketAddr, said: Sender<Heard>) -> io::Result<()> {
    let ask = move || {
        loop {
            #[expect(clippy::disallowed_methods, reason = "the pace of asking: nothing happens to wait for")]
            thread::sleep(ASK_EVERY);
            if said.send(Heard::Answer(Box::new(status::ask(address)))).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("ask".to_owned()).spawn(ask).map(drop)
}

/// Ends the view when a signal asks the program to end, so that the terminal is restored.
fn end_on_signals(said: Sender<Heard>) -> io::Result<()> {
    let signals = Caught::new(&[SIGTERM, SIGINT, SIGHUP, SIGQUIT])?;
    signals.handle("signals", move |_| {
        // This fails when the view has already ended.
        said.send(Heard::End).ok();
    })
}

fn show(terminal: &mut DefaultTerminal, view: &mut TopView, heard: &Receiver<Heard>) -> Result<(), TopError> {
    let mut drawn: Option<Instant> = None;
    loop {
        if drawn.is_none_or(|drawn| drawn.elapsed() >= REDRAW) {
            terminal.draw(|frame| view.draw(frame))?;
            drawn = Some(Instant::now());
        }
        if event::poll(POLL)? {
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => {
                    if view.key(key) == AfterKey::End {
                        return Ok(());
                    }
                    drawn = None;
                }
                Event::Resize(..) => drawn = None,
                _ => {}
            }
        }
        match heard.recv_timeout(Duration::ZERO) {
            Ok(Heard::Answer(answer)) => {
                view.answered(*answer);
                drawn = None;
            }
            Ok(Heard::End) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

#[cfg(test)]
mod tests;
