//! The packet whose flow is varied, and the order in which the flows come.

use bench_ebpf::{IPV4_DESTINATION, IPV6_SOURCE_MIDDLE, SCHEDULE_ENTRIES};
use serde::Serialize;

/// IP version of the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4 without options.
    Ipv4,
    /// IPv6 without extension headers.
    Ipv6,
}

/// TCP with ACK set, behind an IP header.
const TCP_HEADER: [u8; 20] = [0, 0, 1, 0xbb, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0];

impl Family {
    /// Name of the wrapper that varies its packets.
    #[must_use]
    pub const fn wrapper(self) -> &'static str {
        match self {
            Self::Ipv4 => "vary_ipv4",
            Self::Ipv6 => "vary_ipv6",
        }
    }

    /// IP length of the packet.
    #[must_use]
    pub const fn octets(self) -> u64 {
        match self {
            Self::Ipv4 => 40,
            Self::Ipv6 => 60,
        }
    }

    /// The packet: Ethernet, IP, TCP, padded to the shortest Ethernet frame.
    #[must_use]
    pub fn frame(self) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        match self {
            Self::Ipv4 => {
                frame.extend([0x08, 0x00, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1]);
                frame.extend(IPV4_DESTINATION);
            }
            Self::Ipv6 => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, 64, 0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0]);
                frame.extend(IPV6_SOURCE_MIDDLE);
                frame.extend([0, 0, 0, 1]);
                frame.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
            }
        }
        frame.extend(TCP_HEADER);
        frame.resize(frame.len().max(60), 0);
        frame
    }
}

/// The order of the flows: source address in the lower, ports in the upper half of each entry.
pub struct Schedule {
    /// As many as fit; the wrapper starts again at the end.
    pub entries: Vec<u64>,
    /// Different flows among them.
    pub distinct: u64,
}

impl Schedule {
    /// `packets` packets of flows drawn uniformly, each independently of the others, and again.
    #[must_use]
    pub fn uniform(flows: u64, packets: u32) -> Self {
        let mut random = SplitMix(0x6d69_6e69);
        let mut seen = vec![false; usize::try_from(flows).unwrap_or(usize::MAX)];
        let mut distinct = 0;
        let draw = |_| {
            let flow = random.below(flows);
            let seen = &mut seen[usize::try_from(flow).unwrap_or(usize::MAX)];
            distinct += u64::from(!std::mem::replace(seen, true));
            mix(flow)
        };
        let order: Vec<u64> = (0..packets.min(SCHEDULE_ENTRIES)).map(draw).collect();
        let entries = order.into_iter().cycle().take(SCHEDULE_ENTRIES as usize).collect();
        Self { entries, distinct }
    }

    /// Each flow once, in random order, and again.
    #[must_use]
    pub fn each_once(flows: u64) -> Self {
        // `mix` has no order; the flows themselves need none.
        let entries = (0..flows).cycle().take(SCHEDULE_ENTRIES as usize).map(mix).collect();
        Self { entries, distinct: flows }
    }
}

/// Scrambles a flow's number; different numbers stay different.
const fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

/// SplitMix64: random enough for an order, and the same on every machine.
struct SplitMix(u64);

impl SplitMix {
    const fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        // The bias is below bound / 2^64.
        mix(self.0) % bound
    }
}

#[cfg(test)]
mod tests {
    use super::{Family, Schedule};
    use bench_ebpf::{IPV4, IPV6, Layout, SCHEDULE_ENTRIES};
    use minimizer_common::tunnel::Tunnels;
    use minimizer_ebpf::cursor::Cursor;
    use minimizer_ebpf::walk::walk;
    use std::collections::BTreeSet;

    #[test]
    fn the_frame_is_a_packet_and_the_wrapper_changes_only_its_source() {
        for (family, layout) in [(Family::Ipv4, IPV4), (Family::Ipv6, IPV6)] {
            let before = family.frame();
            let after = varied(&before, layout, 0x5678_1234_0403_0201);
            let before =
                walk(&mut Cursor::over(before.as_slice()), Tunnels::NONE).expect("the frame is well-formed");
            let after =
                walk(&mut Cursor::over(after.as_slice()), Tunnels::NONE).expect("so is the varied one");
            assert_eq!(u64::from(before.length_octets), family.octets());
            assert_ne!(before.addresses, after.addresses);
            assert_eq!(after.ports, (0x3412, 0x7856));
            assert_eq!((before.control_bits, after.control_bits), (0x10, 0x10));
            // Nothing but the last four octets of the source address changed.
            let changed: Vec<u64> =
                before.addresses.iter().zip(after.addresses).map(|(before, after)| before ^ after).collect();
            match family {
                Family::Ipv4 => assert!(changed[0] <= u64::from(u32::MAX) && changed[1..] == [0; 3]),
                Family::Ipv6 => assert!(changed[0] == 0 && changed[1] << 32 == 0 && changed[2..] == [0; 2]),
            }
        }
    }

    /// What the wrapper does in the kernel.
    fn varied(frame: &[u8], layout: Layout, entry: u64) -> Vec<u8> {
        let mut frame = frame.to_vec();
        let address = layout.rest | (entry & 0xffff_ffff) << layout.shift;
        frame[layout.address..layout.address + 8].copy_from_slice(&address.to_ne_bytes());
        frame[layout.ports..layout.ports + 4].copy_from_slice(&entry.to_ne_bytes()[4..]);
        frame
    }

    #[test]
    fn schedules_know_their_flows() {
        let all = SCHEDULE_ENTRIES;
        for schedule in [Schedule::uniform(1, all), Schedule::uniform(1000, 900), Schedule::each_once(1000)] {
            assert_eq!(schedule.entries.len(), all as usize);
            let flows: BTreeSet<u64> = schedule.entries.iter().copied().collect();
            assert_eq!(flows.len() as u64, schedule.distinct);
        }
        let uniform = Schedule::uniform(1 << 20, all);
        assert!(uniform.distinct > 1_000_000, "four packets per flow miss 1.8 % of the flows");
    }
}
