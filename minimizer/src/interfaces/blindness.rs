//! Whether an attached program sees what its interface receives.
//!
//! Some drivers forget the program when they rebuild their rings (vmxnet3), and some accept it and never run it (virtio
//! with buffers of several pages), while link and `ip link` show it all the same. Only the driver's own count of received
//! frames tells.

use std::time::{Duration, Instant};

/// Drivers may publish their counts late: the slowest do every two seconds. What was received within this time after a
/// frame was seen proves nothing.
const COUNTS_LATE: Duration = Duration::from_secs(5);

/// What an interface received and what its program saw, from one drain to the next.
#[derive(Debug, Default)]
pub struct Blindness {
    /// When the latest drain was that found packets, or when the program was attached.
    seen: Option<Instant>,
    /// Frames received by the latest drain, and when that was.
    received: Option<(u64, Instant)>,
    /// The latest moment before the first frame was received that was not seen, since the program last saw one. It may have
    /// been seen and only been counted late.
    unseen: Option<Instant>,
}

/// What a drain says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// The program saw packets.
    Sees,
    /// Nothing was received, or it is too early to tell.
    Unknown,
    /// Frames were received since this moment, and the program saw none. Whatever was missed came in later: the time between
    /// the last frame that was seen and the proof belongs to it.
    Blind(Instant),
}

impl Blindness {
    /// Begins anew: a program was attached when the driver had received so many frames.
    pub const fn attached(&mut self, now: Instant, received: u64) {
        *self = Self { seen: Some(now), received: Some((received, now)), unseen: None };
    }

    /// Another program has taken over, and gets the time to see something.
    pub const fn reloaded(&mut self, now: Instant) {
        self.seen = Some(now);
    }

    /// Compares the frames that the driver says it has received in all with the frames that the program saw since the
    /// latest call.
    pub fn observe(&mut self, now: Instant, received: u64, seen: u64) -> Sight {
        let before = self.received.replace((received, now));
        if seen > 0 {
            self.seen = Some(now);
            self.unseen = None;
            return Sight::Sees;
        }
        let Some((_, since)) = before.filter(|(before, _)| received > *before) else { return Sight::Unknown };
        let unseen = *self.unseen.get_or_insert(since);
        let is_late = self.seen.is_none_or(|seen| since.saturating_duration_since(seen) >= COUNTS_LATE);
        if is_late { Sight::Blind(unseen) } else { Sight::Unknown }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Blindness, Sight};

    #[test]
    fn only_what_is_received_long_after_the_last_packet_proves_blindness() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut blindness = Blindness::default();
        blindness.attached(start, 100);
        assert_eq!(blindness.observe(at(1), 100, 0), Sight::Unknown, "nothing was received");
        assert_eq!(blindness.observe(at(2), 200, 0), Sight::Unknown, "may be from before");
        assert_eq!(blindness.observe(at(6), 200, 0), Sight::Unknown, "nothing was received");
        assert_eq!(
            blindness.observe(at(7), 201, 0),
            Sight::Blind(at(1)),
            "what was received before is missing too"
        );
        assert_eq!(blindness.observe(at(8), 300, 5), Sight::Sees);
        assert_eq!(blindness.observe(at(9), 310, 0), Sight::Unknown, "counted late");
        assert_eq!(blindness.observe(at(10), 320, 1), Sight::Sees);
        assert_eq!(blindness.observe(at(20), 320, 0), Sight::Unknown, "nothing was received");
        assert_eq!(blindness.observe(at(30), 0, 0), Sight::Unknown, "the driver began to count anew");
        assert_eq!(blindness.observe(at(40), 1, 0), Sight::Blind(at(30)));
        blindness.reloaded(at(40));
        assert_eq!(blindness.observe(at(42), 2, 0), Sight::Unknown, "the other program gets its time");
        assert_eq!(blindness.observe(at(46), 3, 0), Sight::Unknown, "may be from before");
        assert_eq!(blindness.observe(at(47), 4, 0), Sight::Blind(at(30)), "it sees as little");
        blindness.attached(at(48), 5);
        assert_eq!(blindness.observe(at(60), 99, 0), Sight::Unknown);
        assert_eq!(
            blindness.observe(at(61), 100, 0),
            Sight::Blind(at(48)),
            "nothing was seen since the start"
        );
    }
}
