//! `minimizer top`: what a running agent does, live in the terminal. It asks `/status` and knows no more than that.

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
use keys::Next;
use rows::Column;

/// Time between two questions to the agent.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Longest time until an answer or a signal is noticed.
const POLL: Duration = Duration::from_millis(100);
/// Longest time until the age of the last answer is drawn again.
const REDRAW: Duration = Duration::from_secs(1);

/// Why the view ended, or never began.
#[derive(Debug, Error)]
pub enum TopError {
    /// There is nothing to show.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// A pattern of interfaces is not one.
    #[error("'{pattern}' is not a pattern of interfaces: {source}; give a name, or a pattern like 'eth*'")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong.
        source: glob::PatternError,
    },
    /// The terminal does not take or give anything.
    #[error("the terminal cannot be used: {0}; 'minimizer status' prints the same without one")]
    Terminal(#[from] io::Error),
    /// A report could not be written as JSON.
    #[error("the report cannot be printed: {0}")]
    Json(#[from] serde_json::Error),
}

/// What is shown, and how.
#[derive(Debug, Default)]
struct View {
    /// Interfaces to show; all when empty.
    patterns: Vec<Pattern>,
    report: Option<Report>,
    /// Since when the agent does not answer, and why.
    gone: Option<(Instant, String)>,
    screen: Screen,
    sort: Column,
    is_reversed: bool,
    filter: String,
    /// Whether keys are added to the filter.
    is_typing: bool,
    is_paused: bool,
    /// Name of the selected interface: it stays selected wherever it is sorted to.
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

impl View {
    fn new(patterns: Vec<Pattern>) -> Self {
        Self { patterns, ..Self::default() }
    }

    /// Takes an answer. While paused, what is shown stays.
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

/// Shows a running agent until it is told to end; without a terminal, prints once what it would show.
///
/// # Errors
/// When there is no agent at the start, or the terminal cannot be used.
pub fn top(args: &cli::Top) -> Result<(), TopError> {
    let pattern = |text: &String| {
        Pattern::new(text).map_err(|source| TopError::Pattern { pattern: text.clone(), source })
    };
    let patterns: Vec<_> = args.interfaces.iter().map(pattern).collect::<Result<_, _>>()?;
    let mut view = View::new(patterns);
    let report = status::ask(args.listen)?;
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
    // From here on also a panic restores the terminal.
    let mut terminal = ratatui::try_init()?;
    let ended = show(&mut terminal, &mut view, &heard);
    ratatui::try_restore()?;
    ended
}

/// What is heard from other threads.
enum Heard {
    Answer(Box<Result<Report, StatusError>>),
    End,
}

/// Asks the agent every second, on a thread of its own: it may take long to answer.
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

/// Ends the view on the signals that end programs, so that the terminal is restored.
fn end_on_signals(said: Sender<Heard>) -> io::Result<()> {
    let signals = Caught::new(&[SIGTERM, SIGINT, SIGHUP, SIGQUIT])?;
    signals.handle("signals", move |_| {
        // Nobody listens when the view has ended.
        said.send(Heard::End).ok();
    })
}

fn show(terminal: &mut DefaultTerminal, view: &mut View, heard: &Receiver<Heard>) -> Result<(), TopError> {
    let mut drawn: Option<Instant> = None;
    loop {
        if drawn.is_none_or(|drawn| drawn.elapsed() >= REDRAW) {
            terminal.draw(|frame| view.draw(frame))?;
            drawn = Some(Instant::now());
        }
        if event::poll(POLL)? {
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => {
                    if view.key(key) == Next::End {
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
