//! Programs and kinds of packets that take turns, so that noise hits all alike.

use serde::Serialize;

use super::contenders::Contender;
use super::wrapper::Wrapper;

/// How long to measure.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Effort {
    /// Rounds, in each of which every program runs once.
    pub runs: usize,
    /// Packets that a program sees in a round, after as many that warm the caches.
    pub packets: u32,
    /// Packets after which the order of many flows repeats.
    pub period: u32,
    /// Flows that fill half of every table.
    pub table_flows: u32,
    /// The same of the table that is flooded.
    pub full_table_flows: u32,
    /// Packets that are sent to each program on a cable.
    pub live_packets: u32,
    /// Whether other flow agents listen to the cable, too.
    pub with_agents: bool,
}

impl Effort {
    /// Packets after which the order of so many flows repeats: a power of two, at least 16 a flow where that
    /// is less than of many.
    #[must_use]
    pub fn period_for(&self, flows: u64) -> u32 {
        let enough = flows.saturating_mul(16).next_power_of_two();
        u32::try_from(enough).unwrap_or(u32::MAX).clamp(1 << 16, self.period.max(1 << 16))
    }
}

/// Wrappers, contenders, and which of them are measured together.
#[derive(Default)]
pub struct Field {
    /// The wrappers.
    pub wrappers: Vec<Wrapper>,
    /// The programs.
    pub contenders: Vec<Contender>,
    /// Places in both, in the order of their turns.
    pub queues: Vec<(usize, usize)>,
}

impl Field {
    /// Sends packets once in every queue.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn pass(&mut self, packets: u32) -> anyhow::Result<()> {
        for (wrapper, contender) in &self.queues {
            self.wrappers[*wrapper].send(&mut self.contenders[*contender], packets)?;
        }
        Ok(())
    }

    /// Ends every contender; see [`Contender::end`].
    ///
    /// # Errors
    /// Those of each.
    pub fn end(self) -> anyhow::Result<()> {
        self.contenders.into_iter().try_for_each(Contender::end)
    }

    /// Measures every queue once a round; returns gross nanoseconds per packet, by queue and round.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn rounds(&mut self, effort: Effort) -> anyhow::Result<Vec<Vec<f64>>> {
        let mut nanoseconds = vec![Vec::new(); self.queues.len()];
        for _ in 0..effort.runs {
            for ((wrapper, contender), series) in self.queues.iter().zip(&mut nanoseconds) {
                let (wrapper, contender) = (&mut self.wrappers[*wrapper], &mut self.contenders[*contender]);
                // The queue before has filled the caches with its own table.
                wrapper.send(contender, effort.packets)?;
                series.push(cost(wrapper, contender, effort.packets)?);
            }
        }
        Ok(nanoseconds)
    }
}

/// Gross nanoseconds per packet of one run.
///
/// # Errors
/// What the kernel answers.
pub fn cost(wrapper: &mut Wrapper, contender: &mut Contender, packets: u32) -> anyhow::Result<f64> {
    let time = wrapper.send(contender, packets)?;
    Ok(time.as_secs_f64() * 1e9 / f64::from(packets))
}
