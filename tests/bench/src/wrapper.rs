//! The wrapper in the kernel: sends packets of many flows through a contender without a system call between them.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use aya::maps::{Array, IterableMap as _, MapData, PerCpuArray, PerCpuValues, ProgramArray};
use aya::programs::{ProgramFd, SchedClassifier, TestRun as _, TestRunAttrs, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use bench_ebpf::SCHEDULE_ENTRIES;
use minimizer::support::sys::Mapping;
use minimizer_common::settings::ACTION_PASS;

use super::contenders::{Contender, Hook, cpus, object, take_map, tc, xdp};
use super::schedule::Schedule;
use super::timed;
use super::traffic::Traffic;

/// Frames that the kernel hands over at a time. The queue of a veth holds 256.
const BATCH_FRAMES: u32 = 64;
/// `TC_ACT_OK` of `linux/pkt_cls.h`: lets the packet pass.
const TC_ACTION_OK: u32 = 0;

/// A loaded wrapper with a schedule of its own.
pub struct Wrapper {
    hook: Hook,
    traffic: Traffic,
    frame: Vec<u8>,
    ebpf: Ebpf,
    schedule: Mapping,
    position: PerCpuArray<MapData, u64>,
    slot: ProgramArray<MapData>,
    /// Identifier of the program that is called.
    in_slot: Option<u32>,
}

impl Wrapper {
    /// Loads a wrapper for one kind of traffic on the XDP hook.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn load(traffic: Traffic, schedule: &Schedule) -> anyhow::Result<Self> {
        Self::load_on(Hook::Xdp, traffic, schedule)
    }

    /// Loads a wrapper for one kind of traffic.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn load_on(hook: Hook, traffic: Traffic, schedule: &Schedule) -> anyhow::Result<Self> {
        let layout = traffic.layout().words();
        let mut ebpf = EbpfLoader::new().override_global("LAYOUT", &layout, true).load(object()?)?;
        let loaded = match hook {
            Hook::Xdp => xdp(&mut ebpf, "vary")?.load(),
            Hook::Tc => tc(&mut ebpf, "vary_tc")?.load(),
        };
        loaded.context("the kernel refuses the wrapper")?;
        let array: Array<_, u64> = take_map(&mut ebpf, "SCHEDULE")?;
        let schedule_map = Mapping::new(array.map().fd(), SCHEDULE_ENTRIES as usize * size_of::<u64>())?;
        let position = take_map(&mut ebpf, "POSITION")?;
        let slot = take_map(&mut ebpf, "PROGRAM")?;
        let frame = traffic.frame();
        let mut wrapper =
            Self { hook, traffic, frame, ebpf, schedule: schedule_map, position, slot, in_slot: None };
        wrapper.follow(schedule)?;
        Ok(wrapper)
    }

    /// The kind of packets.
    #[must_use]
    pub const fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Sets the order of the flows to come, from its start.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn follow(&mut self, schedule: &Schedule) -> anyhow::Result<()> {
        for (index, entry) in schedule.entries.iter().enumerate() {
            self.schedule.write(index * size_of::<u64>(), *entry);
        }
        self.seek(0)
    }

    /// Goes to an entry of the schedule.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn seek(&mut self, entry: u64) -> anyhow::Result<()> {
        let everywhere = PerCpuValues::try_from(vec![entry; cpus()?])?;
        Ok(self.position.set(0, everywhere, 0)?)
    }

    /// Sends packets through a contender, and returns the CPU time of the test run.
    ///
    /// # Errors
    /// What the kernel answers; a packet that does not pass.
    pub fn send(&mut self, contender: &mut Contender, packets: u32) -> anyhow::Result<Duration> {
        let aimed = self.aim(contender.info.id(), &contender.program)?;
        let sent = contender.within(|if_index| timed(|| aimed.send_from(if_index, packets)));
        let ((), time) = sent.with_context(|| contender.kind.name().to_owned())?;
        contender.sent += u64::from(packets);
        Ok(time)
    }

    /// Has live frames handled by a program, whatever it does with them.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn send_live(&mut self, id: u32, program: &ProgramFd, packets: u32) -> anyhow::Result<()> {
        let attrs = TestRunAttrs::new().xdp_live_frames(BATCH_FRAMES);
        self.aim(id, program)?.run(packets, attrs, None).map(|_| ())
    }

    /// Makes the program of this identifier the one that is called.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn aim(&mut self, id: u32, program: &ProgramFd) -> anyhow::Result<Aimed<'_>> {
        // Replacing the program patches the wrapper's code, which is none of the packet's cost.
        if self.in_slot != Some(id) {
            self.slot.set(0, program, 0)?;
            self.in_slot = Some(id);
        }
        let wrapper = match self.hook {
            Hook::Xdp => Runner::Xdp(xdp(&mut self.ebpf, "vary")?),
            Hook::Tc => Runner::Tc(tc(&mut self.ebpf, "vary_tc")?),
        };
        Ok(Aimed { wrapper, frame: &self.frame })
    }
}

/// A wrapper that calls a certain program. Several threads may run it at once, without waiting for each
/// other: the kernel makes a test run wait for a grace period only when no other runs the same program.
pub struct Aimed<'wrapper> {
    wrapper: Runner<'wrapper>,
    frame: &'wrapper [u8],
}

/// The program of a wrapper.
enum Runner<'wrapper> {
    Xdp(&'wrapper Xdp),
    Tc(&'wrapper SchedClassifier),
}

impl Aimed<'_> {
    /// Sends packets.
    ///
    /// # Errors
    /// What the kernel answers; a packet that does not pass.
    pub fn send(&self, packets: u32) -> anyhow::Result<()> {
        self.send_from(None, packets)
    }

    /// Sends packets that come from this interface of the calling thread's namespace, if not from the loopback
    /// interface.
    ///
    /// # Errors
    /// What the kernel answers; a packet that does not pass.
    pub fn send_from(&self, if_index: Option<u32>, packets: u32) -> anyhow::Result<()> {
        // The kernel's `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let octets = u32::try_from(self.frame.len())?;
        let context = if_index.map(|if_index| [0, octets, 0, if_index, 0, 0].map(u32::to_ne_bytes).concat());
        let result = self.run(packets, TestRunAttrs::new(), context.as_deref())?;
        let pass = match self.wrapper {
            Runner::Xdp(_) => ACTION_PASS,
            Runner::Tc(_) => TC_ACTION_OK,
        };
        ensure!(result == pass, "the program returned {result}");
        Ok(())
    }

    fn run(&self, packets: u32, attrs: TestRunAttrs, ctx_in: Option<&[u8]>) -> anyhow::Result<u32> {
        let data_in = Some(self.frame);
        let options = TestRunOptions { data_in, ctx_in, repeat: packets, attrs, ..TestRunOptions::default() };
        let result = match self.wrapper {
            Runner::Xdp(program) => program.test_run(options)?,
            Runner::Tc(program) => program.test_run(options)?,
        };
        Ok(result.return_value)
    }
}
