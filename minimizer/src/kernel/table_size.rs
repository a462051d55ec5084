//! The size of the flow tables: from flows to memory, and whether the host has that memory.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use minimizer_common::generation::{GROUP_HALVES, Shape};
use procfs::{Current as _, Meminfo};
use thiserror::Error;
use tracing::info;

use crate::policy::compile::memory::PolicyMemory;
use crate::support::cpus::{self, CpusError};

/// Memory of the agent without its tables.
pub const AGENT_BYTES: u64 = 64 << 20;
/// Generations of the table.
const GENERATIONS: u64 = 2;
const MIB: f64 = (1 << 20) as f64;

/// The number of flows in an interval for which the tables are sized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flows {
    /// On all CPUs together.
    All(NonZeroU32),
    /// On each CPU.
    PerCpu(NonZeroU32),
}

impl Default for Flows {
    /// Enough for a busy server. It takes 18.5 MiB for each CPU.
    fn default() -> Self {
        Self::PerCpu(NonZeroU32::new(65_536).expect("is not 0"))
    }
}

/// For how many flows each CPU's table has room, shared by all who load programs. `--flows` promises room for a number of
/// flows on all CPUs together, and receive queues are uneven: a card puts all PPPoE packets, for one, on one queue. So the
/// tables begin with twice an even share, and grow when a CPU gets more.
#[derive(Clone, Debug, Default)]
pub struct Room {
    per_cpu: Arc<AtomicU32>,
    most: u32,
}

impl Room {
    /// Tables for these flows on each CPU at first, and for `most` when one CPU gets more than its share.
    #[must_use]
    pub fn new(per_cpu: u32, most: u32) -> Self {
        Self { per_cpu: Arc::new(per_cpu.into()), most }
    }

    /// Flows on each CPU.
    #[must_use]
    pub fn per_cpu(&self) -> u32 {
        self.per_cpu.load(Ordering::Relaxed)
    }

    /// Records that tables for these flows on each CPU are in force.
    pub fn grown(&self, per_cpu: u32) {
        self.per_cpu.store(per_cpu, Ordering::Relaxed);
    }

    /// Flows on each CPU for which the tables should have room now that one CPU needs more; `None` if they have what was
    /// asked for.
    ///
    /// # Errors
    /// If the host does not have the memory for any larger table.
    pub fn larger(&self, policy: PolicyMemory) -> Result<Option<u32>, SizeError> {
        if self.most <= self.per_cpu() {
            return Ok(None);
        }
        let cpus = cpus::numbers()?;
        let needed = Shape::for_flows(cpus, self.most).map_or(u64::MAX / 2, |shape| bytes(&shape));
        let (policy, available) = (policy.kernel, available());
        if needed.saturating_add(policy) <= available {
            return Ok(Some(self.most));
        }
        // The agent has its own memory already.
        let fits = largest(cpus, available.saturating_sub(policy).saturating_add(AGENT_BYTES));
        if let Some(fits) = fits.filter(|fits| *fits > self.per_cpu()) {
            return Ok(Some(fits.min(self.most)));
        }
        let advice = "spread the receive queues over more CPUs, or free memory".to_owned();
        Err(TooLarge { needed, policy, agent: 0, available, advice }.into())
    }
}

/// The tables do not fit.
#[derive(Debug, Error)]
#[error(
    "the flow tables would take {:.1} MiB, the prefixes and indicators of the policy {:.1} MiB, and the agent {} MiB beside \
     them; {:.1} MiB are available (MemAvailable in /proc/meminfo): {}",
    *.needed as f64 / MIB, *.policy as f64 / MIB, *.agent >> 20, *.available as f64 / MIB,
    .advice
)]
pub struct TooLarge {
    needed: u64,
    policy: u64,
    agent: u64,
    available: u64,
    advice: String,
}

/// Why the agent cannot choose a size.
#[derive(Debug, Error)]
pub enum SizeError {
    /// The number of CPUs is unknown.
    #[error(transparent)]
    Cpus(#[from] CpusError),
    /// The host does not have the memory.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

/// The number of flows for one CPU's table if all CPUs together see `flows`. It is twice an even share,
/// because receive queues are never even, and at most `flows`.
#[must_use]
pub fn flows_per_cpu(flows: u32, online: u32) -> u32 {
    let twice_the_share = (u64::from(flows) * 2).div_ceil(u64::from(online.max(1)));
    u32::try_from(twice_the_share).map_or(flows, |share| share.min(flows))
}

/// The largest total of flows that gives each CPU's table at most `flows_per_cpu`.
fn total(flows_per_cpu: u32, online: u32) -> u32 {
    let most = u64::from(flows_per_cpu) * u64::from(online) / 2;
    u32::try_from(most).unwrap_or(u32::MAX).max(flows_per_cpu)
}

/// Memory of all generations.
#[must_use]
pub const fn bytes(shape: &Shape) -> u64 {
    shape.bytes() * GENERATIONS
}

/// The largest number of flows for each of `cpus` CPUs whose tables, together with the agent, fit into
/// `available` bytes. These flows fill half of the slots, whose number is a power of two.
fn largest(cpus: u32, available: u64) -> Option<u32> {
    let sizes = (0..u32::BITS).map_while(|power| u32::try_from(GROUP_HALVES / 2).ok()?.checked_shl(power));
    let fits = |flows: &u32| {
        Shape::for_flows(cpus, *flows).is_some_and(|shape| bytes(&shape) + AGENT_BYTES <= available)
    };
    sizes.take_while(fits).last()
}

/// Chooses the number of flows for which each CPU's table is sized, and says how much memory the tables and a policy
/// take before the agent allocates it.
///
/// # Errors
/// See [`SizeError`].
pub fn decide(flows: Flows, policy: PolicyMemory) -> Result<Room, SizeError> {
    let cpus = cpus::numbers()?;
    let online = cpus::online()?;
    let (per_cpu, most) = match flows {
        Flows::All(flows) => (flows_per_cpu(flows.get(), online), flows.get()),
        Flows::PerCpu(flows) => (flows.get(), flows.get()),
    };
    let shape = Shape::for_flows(cpus, per_cpu);
    // A size that cannot be numbered is larger than any memory.
    let needed = shape.map_or(u64::MAX / 2, |shape| bytes(&shape));
    let available = available();
    // The agent has compiled the policy already: what it takes then is no longer available.
    let policy = policy.kernel;
    if needed.saturating_add(AGENT_BYTES).saturating_add(policy) > available {
        let fits = largest(cpus, available.saturating_sub(policy)).map(|largest| match flows {
            Flows::All(_) => format!("--flows {}", total(largest, online)),
            Flows::PerCpu(_) => format!("--flows-per-cpu {largest}"),
        });
        let advice = fits.map_or_else(
            || "not even the smallest would fit".to_owned(),
            |fits| format!("'{fits}' would fit"),
        );
        return Err(TooLarge { needed, policy, agent: AGENT_BYTES, available, advice }.into());
    }
    info!(
        "flow tables take {:.1} MiB: {per_cpu} flows on each of {cpus} CPUs, two generations",
        needed as f64 / MIB
    );
    if policy > 1 << 20 {
        info!(
            "prefixes, indicators and pseudonyms of the policy take {:.1} MiB in the kernel",
            policy as f64 / MIB
        );
    }
    Ok(Room::new(per_cpu, most))
}

/// Whether the program of another policy fits beside the one in force.
///
/// # Errors
/// See [`SizeError`].
pub fn check_reload(flows_per_cpu: u32, policy: PolicyMemory) -> Result<(), SizeError> {
    let shape = Shape::for_flows(cpus::numbers()?, flows_per_cpu);
    let needed = shape.map_or(u64::MAX / 2, |shape| bytes(&shape));
    let (policy, available) = (policy.kernel, available());
    if needed.saturating_add(policy) > available {
        let advice = "a reload takes them a second time; restart to load the policy".to_owned();
        return Err(TooLarge { needed, policy, agent: 0, available, advice }.into());
    }
    Ok(())
}

fn available() -> u64 {
    Meminfo::current().ok().and_then(|memory| memory.mem_available).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use minimizer_common::generation::Shape;

    use super::{AGENT_BYTES, Room, TooLarge, bytes, flows_per_cpu, largest, total};
    use crate::policy::compile::memory::PolicyMemory;

    #[test]
    fn a_cpu_has_room_for_twice_its_share_and_for_no_more_than_all() {
        for (flows, online, expected) in [
            (65_536, 1, 65_536),
            (65_536, 2, 65_536),
            (65_536, 4, 32_768),
            (1_000_000, 64, 31_250),
            (1, 128, 1),
            (u32::MAX, 2, u32::MAX),
            (10, 3, 7),
        ] {
            assert_eq!(flows_per_cpu(flows, online), expected, "{flows} on {online}");
        }
    }

    #[test]
    fn the_size_that_would_fit_fits_and_twice_as_much_does_not() {
        for cpus in [1, 2, 64, 128] {
            for available in [200 << 20, 3 << 30, 512_u64 << 30] {
                let Some(largest) = largest(cpus, available) else {
                    assert!(available < 1 << 30, "{cpus} CPUs");
                    continue;
                };
                let bytes = |flows| Shape::for_flows(cpus, flows).map(|shape| bytes(&shape) + AGENT_BYTES);
                assert!(bytes(largest) <= Some(available));
                assert!(largest.checked_mul(2).and_then(bytes).is_none_or(|bytes| bytes > available));
                let most = total(largest, cpus);
                assert!(flows_per_cpu(most, cpus) <= largest, "{most} on {cpus}");
            }
        }
        assert_eq!(largest(1, 1 << 20), None);
    }

    #[test]
    fn tables_grow_once_to_all_that_was_asked_for() {
        let policy = PolicyMemory { kernel: 0, agent: 0, loading: 0 };
        let room = Room::new(64, 512);
        assert_eq!((room.per_cpu(), room.larger(policy).expect("fits")), (64, Some(512)));
        room.clone().grown(512);
        assert_eq!((room.per_cpu(), room.larger(policy).expect("fits")), (512, None));
        let huge = PolicyMemory { kernel: u64::MAX / 4, ..policy };
        let error = Room::new(64, 512).larger(huge).expect_err("does not fit").to_string();
        assert!(error.contains("spread the receive queues"), "{error}");
    }

    #[test]
    fn a_refusal_says_what_would_fit() {
        let advice = "'--flows 4096' would fit".to_owned();
        let too_large =
            TooLarge { needed: 3 << 30, policy: 5 << 20, agent: AGENT_BYTES, available: 1 << 30, advice };
        let text = too_large.to_string();
        assert!(text.contains("indicators of the policy 5.0 MiB"), "{text}");
        assert!(text.contains("3072.0 MiB") && text.contains("1024.0 MiB are available"), "{text}");
        assert!(text.ends_with("'--flows 4096' would fit"), "{text}");
    }
}
