//! Work that may hang, such as writing to a file system that does not answer: it gets a thread and a time limit.

use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Does `work` on a thread of this name and waits for its result, but not longer than `limit`: `None` then, and the thread is
/// left to itself. `None` also if `work` panics.
///
/// # Errors
/// When there is no thread.
pub fn within<T: Send + 'static>(
    limit: Duration,
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<Option<T>> {
    let (tell, told) = mpsc::sync_channel(1);
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        // Nobody may wait for it any more.
        let _unheard = tell.send(work());
    })?;
    Ok(told.recv_timeout(limit).ok())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::within;

    #[test]
    fn what_hangs_is_left_to_itself() {
        let far = Duration::from_secs(600);
        assert_eq!(within(far, "quick", || 3).expect("a thread"), Some(3));
        let (end, ended) = mpsc::channel::<()>();
        let hangs = move || ended.recv().is_err();
        assert_eq!(within(Duration::from_millis(1), "slow", hangs).expect("a thread"), None);
        drop(end);
    }
}
