//! What ends a run: whoever notices it tells the main thread, which waits for nothing else.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::agent::error::AgentError;
use crate::agent::{Agent, Stopper};

/// Longest wait for the last drain, once somebody wants the end.
pub const LAST_DRAIN_LIMIT: Duration = Duration::from_secs(30);

/// Something that ends a run, or follows from its end.
#[derive(Debug)]
pub enum Ended {
    /// A signal asks for the end.
    Stop,
    /// The output cannot be written: nobody wants more records.
    Output(io::Error),
    /// A thread has panicked: which one, where, and over what.
    Panic(String),
    /// The drain has ended.
    Drain(Result<(), AgentError>),
}

/// How a run ended.
#[derive(Debug)]
pub struct Course {
    /// The end of the drain.
    pub drain: Result<(), AgentError>,
    /// Why records could not be printed.
    pub output: Option<io::Error>,
    /// The first panic.
    pub panic: Option<String>,
}

/// Waits until the drain has ended. If it does not end within a limit after somebody wanted the end, it hangs.
pub fn wait(told: &Receiver<Ended>, stopper: &Stopper) -> Course {
    let (mut output, mut panic, mut deadline) = (None, None, None);
    let drain = loop {
        let next = match deadline {
            None => told.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(deadline) => {
                told.recv_timeout(Instant::saturating_duration_since(&deadline, Instant::now()))
            }
        };
        match next {
            Ok(Ended::Stop) => {}
            Ok(Ended::Output(error)) => output = Some(error),
            Ok(Ended::Panic(said)) => panic = panic.or(Some(said)),
            Ok(Ended::Drain(result)) => break result,
            Err(RecvTimeoutError::Timeout) => break Err(AgentError::Hangs(LAST_DRAIN_LIMIT)),
            // Never: the agent's thread tells before it goes.
            Err(RecvTimeoutError::Disconnected) => break Err(AgentError::Panicked),
        }
        stopper.stop();
        deadline.get_or_insert_with(|| Instant::now() + LAST_DRAIN_LIMIT);
    };
    Course { drain, output, panic }
}

/// A panic that came after the drain had ended.
pub fn panic(told: &Receiver<Ended>) -> Option<String> {
    told.try_iter().find_map(|ended| match ended {
        Ended::Panic(said) => Some(said),
        Ended::Stop | Ended::Output(_) | Ended::Drain(_) => None,
    })
}

/// Waits for the drain on a thread of its own and tells of its end.
///
/// # Errors
/// When there is no thread.
pub fn tell_of_drain(agent: Agent, tell: impl Fn(Ended) + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new()
        .name("agent".to_owned())
        .spawn(move || tell(Ended::Drain(agent.wait())))
        .map(drop)
}
