//! The bounded queue between those who log and the thread that writes.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Octets of lines that may wait: thousands of lines, and no burden.
const OCTETS_MAX: usize = 256 << 10;

/// Lines on their way to the writer. A mutex and not a channel of the standard library: [`Self::flush`] has to know
/// whether the last line is written, not only taken.
#[derive(Debug, Default)]
pub(super) struct Channel {
    state: Mutex<State>,
    changed: Condvar,
    lost: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<String>,
    /// Octets of the lines that wait.
    octets: usize,
    is_writing: bool,
}

impl Channel {
    /// Puts a line at the end of the queue; counts it as lost when there is no room.
    pub(super) fn push(&self, line: String) {
        let state = self.lock();
        // A line may be longer than the queue: a verifier's log is. It is taken when nothing else waits.
        if !state.lines.is_empty() && state.octets.saturating_add(line.len()) > OCTETS_MAX {
            self.lose();
        } else {
            self.append(state, line);
        }
    }

    /// Puts a line at the end of the queue, also when that is full.
    pub(super) fn push_unbounded(&self, line: String) {
        self.append(self.lock(), line);
    }

    fn append(&self, mut state: MutexGuard<'_, State>, line: String) {
        state.octets += line.len();
        state.lines.push_back(line);
        drop(state);
        self.changed.notify_all();
    }

    /// Lines that were lost so far.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn lose(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until every line is written or lost, so long at most. Says whether it is so.
    pub(super) fn flush(&self, limit: Duration) -> bool {
        let is_busy = |state: &mut State| state.is_writing || !state.lines.is_empty();
        let waited = self.changed.wait_timeout_while(self.lock(), limit, is_busy);
        let (_state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        !timeout.timed_out()
    }

    /// Writes lines for as long as the process runs. `write` may wait; nobody else waits for it. Before the first line
    /// that can be written again, `loss` says how many are missing.
    pub(super) fn write_forever(
        &self,
        mut write: impl FnMut(&[u8]) -> io::Result<()>,
        loss: impl Fn(u64) -> String,
    ) {
        let mut told = 0;
        loop {
            let line = self.next();
            let lost = self.lost();
            let can_write = lost == told || write(loss(lost - told).as_bytes()).is_ok();
            if can_write {
                told = lost;
            }
            if !can_write || write(line.as_bytes()).is_err() {
                self.lose();
            }
            self.lock().is_writing = false;
            self.changed.notify_all();
        }
    }

    fn next(&self) -> String {
        let mut state = self.lock();
        loop {
            if let Some(line) = state.lines.pop_front() {
                state.octets -= line.len();
                state.is_writing = true;
                return line;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, mpsc};
    use std::thread;
    use std::time::Duration;

    use super::{Channel, OCTETS_MAX};

    /// Longest wait for what must come.
    const LIMIT: Duration = Duration::from_secs(60);

    /// A channel whose writer asks for the answer to each write and hands over what it wrote.
    fn channel() -> (Arc<Channel>, mpsc::Sender<io::Result<()>>, mpsc::Receiver<String>) {
        let channel = Arc::new(Channel::default());
        let (answer, answers) = mpsc::channel();
        let (said, heard) = mpsc::channel();
        let writer = Arc::clone(&channel);
        thread::spawn(move || {
            let write = |octets: &[u8]| {
                said.send(String::from_utf8_lossy(octets).into_owned()).map_err(io::Error::other)?;
                answers.recv().map_err(io::Error::other)?
            };
            writer.write_forever(write, |lost| format!("{lost} lost\n"));
        });
        (channel, answer, heard)
    }

    #[test]
    fn a_reader_that_does_not_read_costs_lines_and_no_time() {
        let (channel, answer, heard) = channel();
        channel.push("first\n".to_owned());
        assert_eq!(heard.recv_timeout(LIMIT).as_deref(), Ok("first\n"));
        // The writer waits for its answer now.
        let line = "x".repeat(1024);
        let lines = OCTETS_MAX / line.len();
        (0..lines + 7).for_each(|_| channel.push(line.clone()));
        assert_eq!(channel.lost(), 7);
        assert!(!channel.flush(Duration::ZERO));
        channel.push_unbounded("ledger\n".to_owned());
        for _ in 0..=lines + 2 {
            answer.send(Ok(())).expect("the writer lives");
        }
        assert_eq!(heard.recv_timeout(LIMIT).as_deref(), Ok("7 lost\n"));
        (0..lines).for_each(|_| assert_eq!(heard.recv_timeout(LIMIT).as_deref(), Ok(&*line)));
        assert_eq!(heard.recv_timeout(LIMIT).as_deref(), Ok("ledger\n"));
        assert!(channel.flush(LIMIT));
        assert_eq!(channel.lost(), 7);
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_said_when_it_works_again() {
        let (channel, answer, heard) = channel();
        let gone = || Err(io::ErrorKind::BrokenPipe.into());
        for answers in [vec![gone()], vec![gone()], vec![Ok(()), Ok(())], vec![Ok(())]] {
            channel.push("line\n".to_owned());
            answers.into_iter().for_each(|result| answer.send(result).expect("the writer lives"));
            assert!(channel.flush(LIMIT));
        }
        let heard: Vec<_> = heard.try_iter().collect();
        // A lost line is not tried again: the second attempt only says how many are missing.
        assert_eq!(heard, ["line\n", "1 lost\n", "2 lost\n", "line\n", "line\n"]);
        assert_eq!(channel.lost(), 2);
    }

    #[test]
    fn a_line_longer_than_the_queue_is_taken_when_nothing_waits() {
        let channel = Channel::default();
        channel.push("x".repeat(OCTETS_MAX + 1));
        assert_eq!(channel.lost(), 0);
        channel.push("y".to_owned());
        assert_eq!(channel.lost(), 1);
    }
}
