//! Events that the drain thread waits for: a stop, a reload, changes of interfaces, a deadline.

use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _, pipe};
use std::os::fd::AsFd as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::interfaces::netlink::LinkNotifications;

/// Shortest time between two looks at the interfaces, because changes come in bursts.
const BURST: Duration = Duration::from_millis(50);

/// What ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The thread is to stop.
    Stop,
    /// Somebody asks for a reload.
    Reload,
    /// Interfaces have changed, at this time at the earliest.
    Links(Instant),
    /// The deadline has come.
    Deadline,
}

/// The drain thread's side.
pub struct Events {
    links: LinkNotifications,
    stop: PipeReader,
    reloads: PipeReader,
    /// The latest time at which there was no notification.
    quiet: Instant,
    /// Notifications are not read before this time.
    not_before: Instant,
}

/// The side of those who stop the drain thread or ask for a reload.
#[derive(Debug)]
pub struct Waker {
    stop: Mutex<Option<PipeWriter>>,
    reload: PipeWriter,
}

impl Waker {
    /// Ends every wait, now or whenever it begins.
    pub fn stop(&self) {
        // When the writer is gone, every read of the pipe returns at once.
        self.stop.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Ends one wait: the present one, or else the next one.
    ///
    /// # Errors
    /// When the drain thread has ended.
    pub fn reload(&self) -> io::Result<()> {
        (&self.reload).write_all(&[0])
    }
}

impl Events {
    /// Events with these notifications of interfaces.
    ///
    /// # Errors
    /// When the kernel gives no pipe.
    pub fn new(links: LinkNotifications) -> io::Result<(Self, Waker)> {
        let (stop, writer) = pipe()?;
        let (reloads, reload) = pipe()?;
        let now = Instant::now();
        let events = Self { links, stop, reloads, quiet: now, not_before: now };
        Ok((events, Waker { stop: Mutex::new(Some(writer)), reload }))
    }

    /// Waits until something happens. A stop comes before everything else.
    ///
    /// # Errors
    /// Those of `poll(2)`.
    pub fn wait(&mut self, deadline: Instant) -> io::Result<Event> {
        loop {
            let now = Instant::now();
            let is_burst = now < self.not_before;
            let until = if is_burst { deadline.min(self.not_before) } else { deadline };
            // A notification that is there already may have come at any time since the last look.
            let (asked, mut changed) = self.poll(now, !is_burst)?;
            let mut since = self.quiet;
            if let Some(event) = asked {
                return Ok(event);
            }
            if !changed {
                if !is_burst {
                    self.quiet = now;
                }
                let (asked, late) = self.poll(until, !is_burst)?;
                if let Some(event) = asked {
                    return Ok(event);
                }
                (changed, since) = (late, Instant::now());
            }
            if changed {
                self.links.take();
                self.not_before = Instant::now() + BURST;
                return Ok(Event::Links(since));
            }
            if Instant::now() >= deadline {
                return Ok(Event::Deadline);
            }
        }
    }

    /// Waits for the pipes and, if `with_links` says so, for notifications, but not beyond `until`. Returns the event of a
    /// pipe, and whether there are notifications.
    fn poll(&mut self, until: Instant, with_links: bool) -> io::Result<(Option<Event>, bool)> {
        let mut files =
            vec![PollFd::new(&self.stop, PollFlags::IN), PollFd::new(&self.reloads, PollFlags::IN)];
        let links = self.links.as_fd();
        if with_links {
            files.push(PollFd::from_borrowed_fd(links, PollFlags::IN));
        }
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut files, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let happened = |file: Option<&PollFd<'_>>| file.is_some_and(|file| !file.revents().is_empty());
        let (stopped, is_reload) = (happened(files.first()), happened(files.get(1)));
        let changed = happened(files.get(2));
        if stopped {
            return Ok((Some(Event::Stop), changed));
        }
        if is_reload {
            self.reloads.read_exact(&mut [0])?;
            return Ok((Some(Event::Reload), changed));
        }
        Ok((None, changed))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Event, Events};
    use crate::interfaces::netlink::LinkNotifications;

    #[test]
    fn a_stop_ends_every_wait_and_a_deadline_its_own() {
        let links = LinkNotifications::subscribe().expect("a socket");
        let (mut events, waker) = Events::new(links).expect("a pipe");
        let mut event = events.wait(Instant::now()).expect("poll");
        while let Event::Links(_) = event {
            event = events.wait(Instant::now()).expect("poll");
        }
        assert_eq!(event, Event::Deadline);
        let far = Instant::now() + Duration::from_secs(3600);
        waker.reload().expect("somebody waits");
        let mut event = events.wait(far).expect("poll");
        while let Event::Links(_) = event {
            event = events.wait(far).expect("poll");
        }
        assert_eq!(event, Event::Reload);
        waker.stop();
        assert_eq!(events.wait(far).expect("poll"), Event::Stop);
        assert_eq!(events.wait(far).expect("poll"), Event::Stop);
    }
}
