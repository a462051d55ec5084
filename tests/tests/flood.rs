//! Ten million spoofed tuples into a table for 64 Ki flows: every packet is in a record or in a residual
//! counter, flows that were there first keep their records, and memory does not grow.

use std::collections::HashMap;
use std::fs;

use minimizer::commands::demo::network::Cable;
use minimizer::commands::demo::sender::Handed;
use minimizer::delivery::ledger::Ledger;
use minimizer::interfaces::netlink::Netlink;
use minimizer::kernel::attach::Mode;
use minimizer::kernel::prepared::Options;
use minimizer::kernel::program::Program;
use minimizer::records::drain::Totals;
use minimizer_common::generation::Counts;
use minimizer_common::outcome::Outcome;
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};
use tests::drained::drained;
use tests::live_frames::LiveFrames;
use tests::network::Network;

/// Spoofed packets in each of two intervals.
const FLOOD_FRAMES: u64 = 5_000_000;
const FLOWS_PER_CPU: u32 = 65_536;
/// Frames that are handed over in one system call.
const BURST_FRAMES: u32 = 200_000;
/// Flows that are there before the flood, and packets of each before and after it.
const FLOWS: u16 = 500;
const PACKETS: u32 = 64;
const UDP: u8 = 17;
/// Octets of the IP packet.
const PACKET_OCTETS: u64 = 46;
/// What an interval's records may need beyond those of the interval before.
const GROWTH_MIB: u64 = 8;

/// A minimal Ethernet frame with UDP from 198.51.100.7 and a port, which the flood replaces.
fn frame(port: u16) -> Vec<u8> {
    let ethernet = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x00];
    let ipv4 = [0x45, 0, 0, 46, 0, 0, 0, 0, 64, UDP, 0, 0, 198, 51, 100, 7, 192, 0, 2, 1];
    let udp = [&port.to_be_bytes()[..], &[0, 53, 0, 26, 0, 0]].concat();
    [&ethernet[..], &ipv4, &udp, &[0; 18]].concat()
}

/// The sending end.
struct Flood {
    cable: Cable,
    netlink: Netlink,
    handed: Handed,
}

impl Flood {
    /// Sends, and returns how many frames the driver took.
    fn send(&mut self, live: &LiveFrames, frame: &[u8], count: u32) -> u64 {
        let before = self.cable.settle(&mut self.netlink, self.handed).expect("the cable empties");
        live.send(frame, count).expect("the kernel sends it");
        self.handed.accepted += u64::from(count);
        self.cable.settle(&mut self.netlink, self.handed).expect("the cable empties") - before
    }

    /// Sends packets of each flow that behaves well; by port, how many.
    fn greet(&mut self, live: &LiveFrames, sent: &mut HashMap<u16, u64>) {
        for port in 1..=FLOWS {
            *sent.entry(port).or_default() += self.send(live, &frame(port), PACKETS);
        }
    }
}

/// Peak of the process's memory.
fn peak_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("is readable");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("is there");
    let kib = line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number");
    kib / 1024
}

/// The interface's packets that no record has.
fn overflow_packets(totals: &Totals) -> u64 {
    totals.residuals.iter().map(|residual| residual.packets).sum()
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_flood_of_spoofed_tuples_is_counted_to_the_last_packet() {
    // As a card's queues do, all packets of a flow come in on one CPU, and so does the flood.
    let mut cpu = CpuSet::new();
    cpu.set(sched_getcpu());
    sched_setaffinity(None, &cpu).expect("the kernel keeps the thread on its CPU");
    let network = Network::new(1, 1500).expect("a private network can be made");
    let cable = network.cables()[0].clone();
    let options = Options { flows_per_cpu: FLOWS_PER_CPU, ..Options::default() };
    let mut program = Program::load(&options).expect("the program loads");
    program.watch(cable.receiver.index, 0).expect("slot 0 exists");
    program.attach(cable.receiver.index, Mode::Native).expect("veth takes the program");
    let steady = LiveFrames::to(cable.sender.index).expect("the kernel takes the program");
    let spoofed = LiveFrames::flood(cable.sender.index).expect("the kernel takes the program");
    let netlink = Netlink::open().expect("a netlink socket");
    let mut ledger = Ledger::new(vec![cable.receiver.name.clone()]);
    let mut flood = Flood { cable: cable.clone(), netlink, handed: Handed::default() };

    let mut peaks = Vec::new();
    let mut spoofed_total = 0;
    for _ in 0..2 {
        let mut sent = HashMap::new();
        flood.greet(&steady, &mut sent);
        let mut spoofed_sent = 0;
        while spoofed_sent < FLOOD_FRAMES {
            spoofed_sent += flood.send(&spoofed, &frame(0), BURST_FRAMES);
        }
        flood.greet(&steady, &mut sent);
        spoofed_total += spoofed_sent;

        let (records, totals) = drained(&mut program, &[cable.receiver.index]).expect("the kernel flips");
        ledger.add(&totals);
        ledger.add_exported(totals.recorded, Counts::default());
        assert!(ledger.is_balanced(), "{}", serde_json::to_string(&ledger).expect("serializes"));

        let interface = &totals.interfaces[0];
        let all = spoofed_sent + sent.values().sum::<u64>();
        assert_eq!(interface.seen_packets, all, "seen is sent");
        let (counted, overflow) = (interface.outcome(Outcome::Counted), interface.outcome(Outcome::Overflow));
        assert_eq!(counted + overflow, all, "every packet is counted or overflows");
        assert_eq!(interface.octets_counted, all * PACKET_OCTETS);
        assert_eq!(overflow_packets(&totals), overflow);
        for residual in &totals.residuals {
            assert_eq!((residual.interface, residual.ipv6, residual.protocol), (0, false, UDP));
            assert_eq!(residual.octets, residual.packets * PACKET_OCTETS);
        }
        assert!(overflow > spoofed_sent / 2, "the table was too small: {overflow}");
        let slots = program.generations().shape().slots_per_cpu();
        assert!(totals.occupancy.slots_used > slots / 2, "and was used: {:?}", totals.occupancy);

        assert_eq!(records.iter().map(|record| record.packets).sum::<u64>(), counted);
        let kept = records
            .iter()
            .filter(|record| record.tuple.ipv4().0 == [198, 51, 100, 7])
            .map(|record| (record.tuple.source_port(), record.packets))
            .collect::<HashMap<_, _>>();
        assert_eq!(kept, sent, "flows that were there first keep their records");
        println!("{all} packets: {counted} in {} records, {overflow} in residual counters", records.len());
        drop(records);
        peaks.push(peak_mib());
    }
    assert!(spoofed_total >= 2 * FLOOD_FRAMES);
    assert!(peaks[1] <= peaks[0] + GROWTH_MIB, "the second flood took no more memory: {peaks:?} MiB");
}
