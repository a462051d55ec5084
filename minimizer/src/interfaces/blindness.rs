//! Whether an attached program sees what its interface receives.
//!
//! Some drivers forget the program when they rebuild their rings (vmxnet3), and some accept it and never run it (virtio
//! without merged buffers), while link and `ip link` show it all the same. Only the driver's own count of received frames
//! tells.

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
}

/// What a drain says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// The program saw packets.
    Sees,
    /// Nothing was received, or it is too early to tell.
    Unknown,
    /// Frames were received since this moment, and the program saw none.
    Blind(Instant),
}

impl Blindness {
    /// Begins anew: a program was attached.
    pub const fn attached(&mut self, now: Instant) {
        *self = Self { seen: Some(now), received: None };
    }

    /// Compares the frames that the driver says it has received in all with the frames that the program saw since the
    /// latest call.
    pub fn observe(&mut self, now: Instant, received: u64, seen: u64) -> Sight {
        let before = self.received.replace((received, now));
        if seen > 0 {
            self.seen = Some(now);
            return Sight::Sees;
        }
        let Some((received_before, since)) = before else { return Sight::Unknown };
        let is_late = self.seen.is_none_or(|seen| since.saturating_duration_since(seen) >= COUNTS_LATE);
        if is_late && received > received_before { Sight::Blind(since) } else { Sight::Unknown }
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
        blindness.attached(start);
        assert_eq!(blindness.observe(at(1), 100, 0), Sight::Unknown, "nothing to compare with");
        assert_eq!(blindness.observe(at(2), 200, 0), Sight::Unknown, "may be from before");
        assert_eq!(blindness.observe(at(6), 200, 0), Sight::Unknown, "nothing was received");
        assert_eq!(blindness.observe(at(7), 201, 0), Sight::Blind(at(6)));
        assert_eq!(blindness.observe(at(8), 300, 5), Sight::Sees);
        assert_eq!(blindness.observe(at(9), 310, 0), Sight::Unknown, "counted late");
        assert_eq!(blindness.observe(at(20), 310, 0), Sight::Unknown, "nothing was received");
        assert_eq!(blindness.observe(at(30), 0, 0), Sight::Unknown, "the driver began to count anew");
        assert_eq!(blindness.observe(at(40), 1, 0), Sight::Blind(at(30)));
        blindness.attached(at(41));
        assert_eq!(blindness.observe(at(60), 99, 0), Sight::Unknown);
    }
}
