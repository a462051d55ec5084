//! What must be counted for given frames, by the parser as it runs on the host.

use std::collections::HashMap;

use minimizer_common::generation::Counts;
use minimizer_common::outcome::Outcome;
use minimizer_common::tunnel::Tunnels;
use minimizer_common::tuple::Tuple;
use minimizer_ebpf::parser::cursor::Cursor;
use minimizer_ebpf::parser::walk::walk;

/// Outcomes and records of a sequence of frames on one interface.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Packets by outcome, in the order of [`Outcome::ALL`]; `counted` includes what may overflow.
    pub outcomes: Vec<u64>,
    /// Packets and octets by tuple.
    pub flows: HashMap<Tuple, Counts>,
    /// Tunnels whose inner packets count.
    tunnels: Tunnels,
}

impl Default for Expected {
    /// What no frame at all must give.
    fn default() -> Self {
        Self { outcomes: vec![0; Outcome::COUNT], flows: HashMap::new(), tunnels: Tunnels::NONE }
    }
}

impl Expected {
    /// What no frame at all must give, with tunnels listed.
    #[must_use]
    pub fn with(tunnels: Tunnels) -> Self {
        Self { tunnels, ..Self::default() }
    }

    /// What the first `count` frames of an endlessly repeated `round` must give on the interface in
    /// `slot`.
    #[must_use]
    pub fn of<'frame>(round: impl Iterator<Item = &'frame [u8]>, count: u64, slot: u32) -> Self {
        let round: Vec<_> = round.collect();
        let length = round.len() as u64;
        let mut expected = Self::default();
        for (position, frame) in (0..).zip(round) {
            let times = count / length + u64::from(position < count % length);
            expected.add(frame, times, slot);
        }
        expected
    }

    /// Adds what a frame must give that arrives `times` times on the interface in `slot`.
    pub fn add(&mut self, frame: &[u8], times: u64, slot: u32) {
        if times == 0 {
            return;
        }
        let outcome = match walk(&mut Cursor::over(frame), self.tunnels) {
            Ok(packet) => {
                let tuple = Tuple::new(
                    packet.addresses,
                    packet.ports,
                    packet.tags.with_interface(slot),
                    packet.protocol,
                    packet.traffic_class,
                );
                let flow = self.flows.entry(tuple).or_default();
                flow.packets += times;
                flow.octets += times * u64::from(packet.length_octets);
                Outcome::Counted
            }
            Err(outcome) => outcome,
        };
        self.outcomes[outcome as usize] += times;
    }

    /// Frames of all outcomes.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.outcomes.iter().sum()
    }

    /// IP octets of all flows.
    #[must_use]
    pub fn octets(&self) -> u64 {
        self.flows.values().map(|flow| flow.octets).sum()
    }
}
