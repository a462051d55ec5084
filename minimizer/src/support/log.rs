//! The log: lines in one bounded queue, written to the standard error by a thread of their own.
//!
//! Nobody who logs ever waits for whoever reads the log. A reader that is gone, or does not read, costs lines, which are
//! counted, and nothing else: neither the drain nor any other thread may stand still or end over a log line.

mod channel;
mod style;
mod subscriber;

use std::fmt::Display;
use std::io;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tracing::level_filters::LevelFilter;
use tracing::{Level, warn};

use crate::support::printable;
use channel::Channel;
use style::Style;
use subscriber::Events;

/// Environment variable with the least level that is logged: `error`, `warn`, `info`, `debug` or `off`.
const LEVEL_VARIABLE: &str = "MINIMIZER_LOG";
/// The level when the variable does not say another.
const LEVEL_DEFAULT: LevelFilter = LevelFilter::INFO;
/// Longest wait for the reader of the log when the process ends.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

static LOG: OnceLock<Log> = OnceLock::new();

struct Log {
    channel: Arc<Channel>,
    style: Style,
}

/// Dropped at the end of `main`, it waits a bounded time until everything is written.
#[derive(Debug)]
#[must_use = "dropping it flushes the log"]
pub struct FlushAtEnd(());

impl Drop for FlushAtEnd {
    fn drop(&mut self) {
        flush();
    }
}

/// Starts the log of this process: `tracing`'s events go to the standard error from here on.
///
/// # Errors
/// When there is no thread for it.
pub fn start() -> io::Result<FlushAtEnd> {
    let style = Style::of_stderr();
    let channel = Arc::new(Channel::default());
    let writer = Arc::clone(&channel);
    thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || writer.write_forever(write_stderr, |lost| style.line(Level::WARN, &loss(lost))))?;
    let log = LOG.get_or_init(|| Log { channel, style });
    let asked = std::env::var(LEVEL_VARIABLE).ok();
    let level = asked.as_deref().map(str::parse::<LevelFilter>);
    let is_understood = !matches!(level, Some(Err(_)));
    let events = Events {
        channel: Arc::clone(&log.channel),
        style,
        level: level.and_then(Result::ok).unwrap_or(LEVEL_DEFAULT),
    };
    // It fails when there is a subscriber already: then that one goes on.
    let _already_there = tracing::subscriber::set_global_default(events);
    if !is_understood {
        warn!(
            "{LEVEL_VARIABLE} is not understood, and info is taken: allowed are error, warn, info, debug and off"
        );
    }
    Ok(FlushAtEnd(()))
}

/// Says why the command failed. It is no event, so that no level hides it.
pub fn failed(error: impl Display) {
    if let Some(log) = LOG.get() {
        log.channel.push(log.style.answer(&printable::message(&error.to_string())));
    }
}

/// Writes a result beside the log lines as it is, also when the queue is full.
pub fn result(line: &str) {
    if let Some(log) = LOG.get() {
        log.channel.push_unbounded(log.style.result(line));
    }
}

/// Writes what another logger has formatted already.
#[cfg(feature = "kernel-log")]
pub fn formatted(lines: &str) {
    if let Some(log) = LOG.get() {
        log.channel.push(log.style.result(lines.trim_end()));
    }
}

/// Lines that were lost since the start: nobody read them, or not fast enough.
#[must_use]
pub fn lost() -> u64 {
    LOG.get().map_or(0, |log| log.channel.lost())
}

/// Waits until everything is written, one second at most.
pub fn flush() {
    if let Some(log) = LOG.get() {
        log.channel.flush(FLUSH_LIMIT);
    }
}

fn loss(lines: u64) -> String {
    let (lines, were) = if lines == 1 { ("1 line", "was") } else { (&*format!("{lines} lines"), "were") };
    format!("{lines} of this log {were} lost: nobody read it, or not fast enough")
}

/// Writes to the standard error, and waits for its reader as long as it takes.
fn write_stderr(mut octets: &[u8]) -> io::Result<()> {
    let stderr = rustix::stdio::stderr();
    while !octets.is_empty() {
        match rustix::io::write(stderr, octets) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => octets = octets.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            // Another process has made the file non-blocking, which they share.
            Err(Errno::AGAIN) => {
                poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], None)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
