//! The program in the kernel: it loads, counts what it is given, and the drain finds exactly that.

use minimizer::delivery::ledger::Ledger;
use minimizer::kernel::prepared::{Clock, Options};
use minimizer::kernel::program::Program;
use minimizer::policy::field::Fields;
use minimizer::records::drain::drain;
use minimizer::records::packed::{Packing, SlotDecoder};
use minimizer_common::generation::Counts;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tests::drained::drained;

const PASS: u32 = 2;

/// An IPv4 TCP SYN in an untagged Ethernet frame.
fn syn(source_port: u16) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
    frame.extend([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 198, 51, 100, 2]);
    frame.extend(source_port.to_be_bytes());
    frame.extend([0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    frame.resize(60, 0);
    frame
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn what_the_kernel_counts_is_what_the_drain_finds() {
    let options = Options { flows_per_cpu: 64, clock: Clock::Control, ..Options::default() };
    let mut program = Program::load(&options).expect("the program loads");
    program.watch(1, 0).expect("slot 0 exists");
    program.set_time(1_700_000_000_000);
    for round in 0..10_u16 {
        for port in 0..=round {
            assert_eq!(program.run(&syn(port)).expect("the kernel runs it"), PASS);
        }
    }
    assert_eq!(program.run(&[0; 60]).expect("the kernel runs it"), PASS);
    let (records, totals) = drained(&mut program, &[1]).expect("the kernel flips");
    let selected_and_protocols = (totals.selected.len(), totals.interfaces[0].protocols);
    assert_eq!(selected_and_protocols, (0, [[55, 0, 0, 0], [0; 4]]), "all of it is TCP over IPv4");
    let mut ledger = Ledger::new(vec!["test".into()]);
    ledger.add(&totals);
    ledger.add_exported(totals.recorded, Counts::default());
    assert!(ledger.is_balanced(), "{}", serde_json::to_string(&ledger).expect("serializes"));
    assert_eq!(records.len(), 10);
    assert_eq!(ledger.exported().packets, 55);
    assert_eq!(ledger.exported().octets, 55 * 40);
    let first = records.iter().find(|record| record.tuple.source_port() == 0).expect("port 0 was sent");
    assert_eq!(
        serde_json::to_value(first.with(Fields::ALL)).expect("serializes"),
        serde_json::json!({
            "sourceIPv4Address": "192.0.2.1", "destinationIPv4Address": "198.51.100.2",
            "sourceTransportPort": 0, "destinationTransportPort": 80, "protocolIdentifier": 6,
            "ipClassOfService": 0, "tcpControlBits": 2, "ingressInterface": 1, "packetDeltaCount": 10,
            "octetDeltaCount": 400, "flowStartMilliseconds": 1_700_000_000_000_u64,
            "flowEndMilliseconds": 1_700_000_000_000_u64,
        })
    );
    let info = program.info().expect("the kernel tells");
    println!("instructions walked by the verifier: {:?}", info.verified_instruction_count());
    let (records, _) = drained(&mut program, &[1]).expect("the kernel flips");
    assert!(records.is_empty());
}

/// A CPU that comes online later has a number that is possible now, and every possible number has a run.
#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn every_cpu_counts_in_a_run_of_its_own() {
    let options = Options { flows_per_cpu: 64, clock: Clock::Control, ..Options::default() };
    let mut program = Program::load(&options).expect("the program loads");
    program.watch(1, 0).expect("slot 0 exists");
    let runs = program.generations().shape().cpus;
    let possible = std::fs::read_to_string("/sys/devices/system/cpu/possible").expect("sysfs");
    let highest = possible.trim().rsplit(['-', ',']).next().and_then(|number| number.parse::<u32>().ok());
    assert_eq!(highest.map(|number| number + 1), Some(runs), "{possible}");
    let allowed = sched_getaffinity(None).expect("this thread has CPUs");
    let cpus: Vec<u32> =
        (0..runs).filter(|cpu| usize::try_from(*cpu).is_ok_and(|cpu| allowed.is_set(cpu))).collect();
    for cpu in &cpus {
        let mut only = CpuSet::new();
        only.set(usize::try_from(*cpu).expect("small"));
        sched_setaffinity(None, &only).expect("the CPU is online");
        for port in 0..=u16::try_from(*cpu).expect("small") {
            program.run(&syn(port)).expect("the kernel runs it");
        }
    }
    sched_setaffinity(None, &allowed).expect("as it was");
    let decoder = SlotDecoder::new(program.compiled(), program.time(), &[1]);
    let mut quiet = program.generations().flip().expect("the kernel flips");
    for cpu in &cpus {
        assert_eq!(quiet.counters(*cpu, 0).seen_packets, u64::from(*cpu) + 1, "CPU {cpu}");
    }
    let (_, totals) = drain(&mut quiet, &mut Packing::default(), decoder);
    let flows: u64 = cpus.iter().map(|cpu| u64::from(*cpu) + 1).sum();
    assert_eq!(totals.occupancy.slots_used, flows);
    assert_eq!(totals.occupancy.slots_used_max, cpus.iter().max().map_or(0, |cpu| u64::from(*cpu) + 1));
}
