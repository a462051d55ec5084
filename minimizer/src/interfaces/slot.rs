//! The interface of one slot: its name, whether the program is attached, and for how long it was not.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::interfaces::blindness::{Blindness, Sight};
use crate::interfaces::netlink::Link;
use crate::kernel::attach::{Action, Mode};
use crate::support::backoff::Backoff;

/// Pause before the second attempt to attach.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// Pause before a second copy of the program is tried where the first saw nothing; each later pause is twice as long.
const BLIND_PAUSE_MIN: Duration = Duration::from_secs(60);
/// Longest pause between such copies.
const BLIND_PAUSE_MAX: Duration = Duration::from_secs(3600);
/// Longest pause between attempts.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// How often and for how long the program was not attached, since its first attachment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unwatched {
    /// The number of gaps.
    pub times: u64,
    /// Their total time.
    pub time: Duration,
}

/// An attachment as the kernel knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Index of the interface.
    pub if_index: u32,
    /// Where the program runs.
    pub mode: Mode,
    /// The kernel's id of the program.
    pub program_id: u32,
}

/// A watched interface, for other modules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Its name; the last one if the interface is gone.
    pub name: String,
    /// The action for its frames.
    pub action: Action,
    /// The attachment, if there is one.
    pub attached: Option<Attached>,
    /// Why there is none, or why it is of no use.
    pub reason: Option<String>,
    /// Whether the program is attached and sees nothing of what the interface receives.
    pub is_blind: bool,
    /// Whether the interface is up.
    pub up: bool,
}

/// Why an attachment is of no use.
const BLIND: &str =
    "attached, and the driver does not run the program: it receives frames of which the program sees none";

/// The program is attached and sees nothing.
#[derive(Debug)]
struct Blind {
    next_attempt: Instant,
    backoff: Backoff,
}

/// The state of the interface.
#[derive(Debug)]
enum State {
    /// The program is attached.
    Attached(Attached),
    /// The interface exists, but the program is not attached.
    Blocked { reason: String, next_attempt: Instant, backoff: Backoff },
    /// The interface does not exist.
    Gone { since: Instant },
}

/// The interface of one slot.
#[derive(Debug)]
pub struct InterfaceSlot {
    /// Its present name.
    pub name: String,
    /// The name by which it was selected.
    selected: String,
    /// Whether the operator named it exactly; otherwise a pattern matched.
    pub is_named: bool,
    /// The action for its frames.
    pub action: Action,
    state: State,
    /// Index of the last interface for which an attachment was tried here.
    pub last_index: Option<u32>,
    /// Whether the ledger has all its packets.
    pub is_drained: bool,
    up: bool,
    /// Indices of the interfaces below it on which its driver runs the program: a bond's ports.
    ports: Vec<u32>,
    blindness: Blindness,
    /// Set while the program is attached and sees nothing of what is received.
    blind: Option<Blind>,
    unwatched: Unwatched,
    /// When the present gap began.
    gap: Option<Instant>,
}

impl InterfaceSlot {
    /// The slot of an interface to which the program is about to be attached. `selected` is the name by which the operator
    /// selected it; a pattern did if there is none.
    pub fn new(link: &Link, action: Action, selected: Option<&str>) -> Self {
        Self {
            name: link.name.clone(),
            selected: selected.unwrap_or(&link.name).to_owned(),
            is_named: selected.is_some(),
            action,
            state: State::Gone { since: Instant::now() },
            last_index: None,
            is_drained: true,
            up: false,
            ports: Vec::new(),
            blindness: Blindness::default(),
            blind: None,
            unwatched: Unwatched::default(),
            gap: None,
        }
    }

    /// Compares the slot with the list of all interfaces. Returns the index of the interface if the program
    /// has to be detached.
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
        self.blind = None;
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

    /// Books the open gap as unwatched, and returns its length in seconds.
    fn close_gap(&mut self, now: Instant) -> Option<f64> {
        let gap = now.saturating_duration_since(self.gap.take()?);
        self.unwatched.time += gap;
        Some(gap.as_secs_f64())
    }

    /// Records that the program is attached.
    pub fn attach(&mut self, attached: Attached, link: &Link, is_start: bool) {
        let now = Instant::now();
        match self.close_gap(now) {
            Some(seconds) => info!("{} is watched again; it was not for {seconds:.3} s", link.name),
            None if is_start => {}
            None => info!("{} is new, and watched", link.name),
        }
        self.name.clone_from(&link.name);
        self.up = link.up;
        self.is_drained = false;
        self.blindness.attached(now, link.counters.received_packets);
        self.blind = None;
        self.state = State::Attached(attached);
    }

    /// Indices of the interfaces below it on which its driver runs the program.
    pub fn ports(&self) -> &[u32] {
        &self.ports
    }

    /// Enters the ports, and returns those before.
    pub const fn set_ports(&mut self, ports: Vec<u32>) -> Vec<u32> {
        std::mem::replace(&mut self.ports, ports)
    }

    /// Indices under which packets of the interface come in: its own, and those of its ports.
    pub fn indices(&self) -> impl Iterator<Item = u32> {
        self.last_index.into_iter().chain(self.ports.iter().copied())
    }

    /// Compares the frames that the driver has received in all with those that the program saw since the latest drain.
    /// Returns whether another copy of the program should be tried: it may see what this one does not.
    pub fn observe(&mut self, now: Instant, received: u64, seen: u64) -> bool {
        if self.attached().is_none() {
            return false;
        }
        match self.blindness.observe(now, received, seen) {
            Sight::Sees => {
                if self.blind.take().is_some()
                    && let Some(seconds) = self.close_gap(now)
                {
                    info!("{} is seen again; it was not for {seconds:.3} s", self.name);
                }
                false
            }
            Sight::Unknown => false,
            Sight::Blind(since) => {
                let blind = self.blind.get_or_insert_with(|| {
                    warn!(
                        "{} receives frames, and its program sees none of them, although it is attached: the \
                         driver does not run it. Another copy is put in its place; if that does not help, '--mode skb' \
                         does",
                        self.name
                    );
                    Blind { next_attempt: now, backoff: Backoff::new(BLIND_PAUSE_MIN, BLIND_PAUSE_MAX) }
                });
                let is_due = blind.next_attempt <= now;
                if is_due {
                    blind.next_attempt = now + blind.backoff.fail();
                }
                self.open_gap(since);
                is_due
            }
        }
    }

    /// Whether the program is attached and sees nothing of what is received.
    pub const fn is_blind(&self) -> bool {
        self.blind.is_some()
    }

    /// Records that the interface exists but the program could not be attached.
    pub fn block(&mut self, link: &Link, reason: String) {
        let now = Instant::now();
        self.open_gap(now);
        self.name.clone_from(&link.name);
        self.up = link.up;
        let mut backoff = match &self.state {
            State::Blocked { backoff, .. } => backoff.clone(),
            _ => Backoff::new(PAUSE_MIN, PAUSE_MAX),
        };
        if !matches!(&self.state, State::Blocked { reason: known, .. } if *known == reason) {
            warn!("{} is not watched, which is tried again: {reason}", self.name);
        }
        self.state = State::Blocked { reason, next_attempt: now + backoff.fail(), backoff };
    }

    /// Records that the program is taken off the interface, if it is attached, until [`Self::release`]. Returns the index
    /// of the interface.
    pub fn hold(&mut self, reason: &str) -> Option<u32> {
        let if_index = self.attached()?.if_index;
        let now = Instant::now();
        self.blind = None;
        self.is_drained = false;
        self.open_gap(now);
        self.state = State::Blocked {
            reason: reason.to_owned(),
            next_attempt: now + PAUSE_MAX,
            backoff: Backoff::new(PAUSE_MIN, PAUSE_MAX),
        };
        Some(if_index)
    }

    /// Makes the next attempt to attach due now.
    pub fn release(&mut self) {
        if let State::Blocked { next_attempt, backoff, .. } = &mut self.state {
            (*next_attempt, *backoff) = (Instant::now(), Backoff::new(PAUSE_MIN, PAUSE_MAX));
        }
    }

    /// Whether the interface with this index is the one in this slot.
    pub fn is_behind(&self, if_index: u32) -> bool {
        !self.is_gone() && self.last_index == Some(if_index)
    }

    /// Whether the slot has no interface now.
    pub const fn is_gone(&self) -> bool {
        matches!(self.state, State::Gone { .. })
    }

    /// When the interface disappeared, if it has.
    pub const fn gone_since(&self) -> Option<Instant> {
        match self.state {
            State::Gone { since } => Some(since),
            _ => None,
        }
    }

    /// Whether the slot's last interface had the name of this one.
    pub fn is_called(&self, link: &Link) -> bool {
        self.name == link.name
    }

    /// Whether the slot's interface was selected by a name of this one.
    pub fn was_selected_as(&self, link: &Link) -> bool {
        link.is_called(&self.selected)
    }

    /// Whether the slot had another interface than this one before.
    pub fn is_another(&self, link: &Link) -> bool {
        self.is_gone() && !self.is_called(link) && !self.was_selected_as(link)
    }

    /// The attachment, if there is one.
    pub const fn attached(&self) -> Option<Attached> {
        match self.state {
            State::Attached(attached) => Some(attached),
            _ => None,
        }
    }

    /// Records that another program is attached.
    pub fn set_program(&mut self, id: u32) {
        if let State::Attached(attached) = &mut self.state {
            attached.program_id = id;
            self.blindness.reloaded(Instant::now());
        }
    }

    /// When to try again to attach.
    pub const fn next_attempt(&self) -> Option<Instant> {
        match self.state {
            State::Blocked { next_attempt, .. } => Some(next_attempt),
            _ => None,
        }
    }

    /// The gaps until now.
    pub fn unwatched(&self, now: Instant) -> Unwatched {
        let open = self.gap.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        Unwatched { time: self.unwatched.time + open, ..self.unwatched }
    }

    /// The interface, for other modules.
    pub fn watched(&self) -> Watched {
        let reason = match &self.state {
            State::Attached(_) => self.is_blind().then(|| BLIND.to_owned()),
            State::Blocked { reason, .. } => Some(reason.clone()),
            State::Gone { .. } => Some("there is no such interface".to_owned()),
        };
        Watched {
            name: self.name.clone(),
            action: self.action,
            attached: self.attached(),
            reason,
            is_blind: self.is_blind(),
            up: self.up,
        }
    }
}
