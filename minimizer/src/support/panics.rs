//! Panics: each is logged, and ends the process unless whoever called takes it for an answer.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::support::log;

/// Exit code of a process that ended over a panic: an internal software error (`EX_SOFTWARE` of sysexits.h).
pub const EXIT_CODE: u8 = 70;

type Handler = Box<dyn Fn(&str) + Send>;

/// Who is told of panics.
static HANDLER: Mutex<Option<Handler>> = Mutex::new(None);

thread_local! {
    static IS_ANSWERED: Cell<bool> = const { Cell::new(false) };
}

/// Makes each panic's message a line of the log: the standard library would wait for the reader, on the thread that panics.
pub fn log_them() {
    panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        let said = format!("thread {} {panic}", thread.name().unwrap_or("without a name"));
        let backtrace = Backtrace::capture();
        match backtrace.status() {
            BacktraceStatus::Captured => log::failed(format_args!("{said}\n{backtrace}")),
            _ => log::failed(&said),
        }
        if !IS_ANSWERED.get()
            && let Some(handler) = &*HANDLER.lock().unwrap_or_else(PoisonError::into_inner)
        {
            handler(&said);
        }
    }));
}

/// Tells of every panic from here on, in whichever thread, unless it is in [`answered`]. `handler` runs on the thread that
/// panics; it must neither wait nor panic.
pub fn tell(handler: impl Fn(&str) + Send + 'static) {
    *HANDLER.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(handler));
}

/// Calls `act`; `None` if it panicked. The panic is logged, and that is all that comes of it.
pub fn answered<T>(act: impl FnOnce() -> T) -> Option<T> {
    let before = IS_ANSWERED.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(act));
    IS_ANSWERED.set(before);
    result.ok()
}

/// Panics in builds for tests if the environment asks for it at this place: what follows from a panic can then be tested on
/// the agent itself. Release builds have nothing of it.
pub fn planted(place: &str) {
    if cfg!(debug_assertions) {
        let asked = std::env::var("MINIMIZER_PLANTED_PANIC");
        assert!(asked.ok().as_deref() != Some(place), "planted in {place}");
    }
}

#[cfg(test)]
mod tests {
    use super::answered;

    #[test]
    fn a_panic_that_is_answered_is_no_result() {
        assert_eq!(answered(|| 3), Some(3));
        assert_eq!(answered(|| -> u8 { panic!("answered") }), None);
    }
}
