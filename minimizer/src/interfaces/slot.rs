//! One slot number's interface: its name, whether it is attached, and for how long it was not.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::interfaces::netlink::Link;
use crate::kernel::attach::{Action, Mode};

/// Pause before a second attempt to attach; each later pause is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// Longest pause between attempts.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// How often and how long nobody watched an interface, from its first attachment on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unwatched {
    /// How often.
    pub times: u64,
    /// How long, altogether.
    pub time: Duration,
}

/// An attachment as the kernel knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Index of the interface.
    pub if_index: u32,
    /// Where the program runs.
    pub mode: Mode,
    /// The kernel's number of the program.
    pub program_id: u32,
}

/// A watched interface as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Name; of one that is gone, its last.
    pub name: String,
    /// What becomes of its frames.
    pub action: Action,
    /// The attachment, when there is one.
    pub attached: Option<Attached>,
    /// Why there is none.
    pub reason: Option<String>,
    /// Whether the interface is up.
    pub up: bool,
}

/// What is with the interface.
#[derive(Debug)]
enum State {
    /// It is attached.
    Attached(Attached),
    /// It is there and not attached.
    Blocked { reason: String, next_attempt: Instant, pause: Duration },
    /// There is no such interface.
    Gone { since: Instant },
}

/// A slot number's interface.
#[derive(Debug)]
pub struct InterfaceSlot {
    /// Its name, followed when it changes.
    pub name: String,
    /// The name under which it was selected.
    selected: String,
    /// Whether the operator named it; else a pattern matched.
    pub is_named: bool,
    /// What becomes of its frames.
    pub action: Action,
    state: State,
    /// Index of the latest interface that was attached here.
    pub last_index: Option<u32>,
    /// Whether all its packets are in the ledger.
    pub is_drained: bool,
    up: bool,
    unwatched: Unwatched,
    /// Since when it is not watched.
    gap: Option<Instant>,
}

impl InterfaceSlot {
    /// A place for an interface that is about to be attached.
    pub fn new(link: &Link, action: Action, is_named: bool) -> Self {
        Self {
            name: link.name.clone(),
            selected: link.name.clone(),
            is_named,
            action,
            state: State::Gone { since: Instant::now() },
            last_index: None,
            is_drained: true,
            up: false,
            unwatched: Unwatched::default(),
            gap: None,
        }
    }

    /// Follows the interface through the list of all; returns its index when it has to be detached.
    pub fn follow(&mut self, links: &[Link], since: Instant) -> Option<u32> {
        let index = self.last_index.filter(|_| !self.is_gone())?;
        let link = links.iter().find(|link| link.index == index);
        self.up = link.is_some_and(|link| link.up);
        if let Some(link) = link
            && link.name != self.name
        {
            info!("{} is now called {}", self.name, link.name);
            self.name.clone_from(&link.name);
        }
        match (&self.state, link) {
            (State::Attached(attached), Some(link))
                if link.xdp.iter().all(|xdp| xdp.program_id != attached.program_id) =>
            {
                warn!("somebody has detached the program from {}", self.name);
                self.leave(since);
                Some(index)
            }
            (State::Attached(_), None) => {
                warn!(
                    "{} is gone; what it saw is counted, and it is watched again when it is back",
                    self.name
                );
                self.leave(since);
                Some(index)
            }
            (State::Blocked { .. }, None) => {
                self.state = State::Gone { since };
                None
            }
            _ => None,
        }
    }

    fn leave(&mut self, since: Instant) {
        self.state = State::Gone { since };
        self.is_drained = false;
        self.open_gap(since);
    }

    fn open_gap(&mut self, since: Instant) {
        if self.gap.is_none() {
            self.gap = Some(since);
            self.unwatched.times += 1;
        }
    }

    /// Enters that the interface is attached.
    pub fn attach(&mut self, attached: Attached, link: &Link, is_start: bool) {
        let now = Instant::now();
        match self.gap.take() {
            Some(since) => {
                let gap = now.saturating_duration_since(since);
                self.unwatched.time += gap;
                let seconds = gap.as_secs_f64();
                info!("{} is watched again; it was not for {seconds:.3} s", link.name);
            }
            None if is_start => {}
            None => info!("{} is new, and watched", link.name),
        }
        self.name.clone_from(&link.name);
        self.up = link.up;
        self.is_drained = false;
        self.state = State::Attached(attached);
    }

    /// Enters that the interface is there and could not be attached.
    pub fn block(&mut self, link: &Link, reason: String) {
        let now = Instant::now();
        self.open_gap(now);
        self.name.clone_from(&link.name);
        self.up = link.up;
        let pause = match &self.state {
            State::Blocked { pause, .. } => (*pause * 2).min(PAUSE_MAX),
            _ => PAUSE_MIN,
        };
        if !matches!(&self.state, State::Blocked { reason: known, .. } if *known == reason) {
            warn!("{} is not watched, which is tried again: {reason}", self.name);
        }
        self.state = State::Blocked { reason, next_attempt: now + pause, pause };
    }

    /// Whether the interface of this index is here.
    pub fn is_behind(&self, if_index: u32) -> bool {
        !self.is_gone() && self.last_index == Some(if_index)
    }

    /// Whether there is no interface here now.
    pub const fn is_gone(&self) -> bool {
        matches!(self.state, State::Gone { .. })
    }

    /// Since when there is none.
    pub const fn gone_since(&self) -> Option<Instant> {
        match self.state {
            State::Gone { since } => Some(since),
            _ => None,
        }
    }

    /// Whether an interface of this name is the one that was here.
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name
    }

    /// Whether the interface had this name when it was selected.
    pub fn was_selected_as(&self, name: &str) -> bool {
        self.selected == name
    }

    /// Whether an interface that gets this slot is another than the one that had it.
    pub fn is_another(&self, link: &Link) -> bool {
        self.is_gone() && !self.is_called(&link.name) && !self.was_selected_as(&link.name)
    }

    /// The attachment, when there is one.
    pub const fn attached(&self) -> Option<Attached> {
        match self.state {
            State::Attached(attached) => Some(attached),
            _ => None,
        }
    }

    /// Enters that another program is attached.
    pub const fn set_program(&mut self, id: u32) {
        if let State::Attached(attached) = &mut self.state {
            attached.program_id = id;
        }
    }

    /// When to try again.
    pub const fn next_attempt(&self) -> Option<Instant> {
        match self.state {
            State::Blocked { next_attempt, .. } => Some(next_attempt),
            _ => None,
        }
    }

    /// How often and how long nobody watched it, until now.
    pub fn unwatched(&self, now: Instant) -> Unwatched {
        let open = self.gap.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        Unwatched { time: self.unwatched.time + open, ..self.unwatched }
    }

    /// What others see of it.
    pub fn watched(&self) -> Watched {
        let reason = match &self.state {
            State::Attached(_) => None,
            State::Blocked { reason, .. } => Some(reason.clone()),
            State::Gone { .. } => Some("there is no such interface".to_owned()),
        };
        Watched {
            name: self.name.clone(),
            action: self.action,
            attached: self.attached(),
            reason,
            up: self.up,
        }
    }
}
