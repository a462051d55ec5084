//! The snapshot that tests of metrics, status, page and top look at.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use minimizer_common::generation::Counts;
use minimizer_common::outcome::Outcome;
use minimizer_common::protocol::ProtocolClass;

use super::{Build, PolicyInForce, Reloads, Snapshot};
use crate::delivery::account::{Account, SinkState};
use crate::delivery::ledger::Ledger;
use crate::delivery::settlement::Entry;
use crate::delivery::tally::Tally;
use crate::interfaces::slot::{Attached, Unwatched, Watched};
use crate::kernel::attach::{Action, Mode};
use crate::kernel::cost::Cost;
use crate::policy::mandate::Mandate;
use crate::records::drain::{InterfaceTotals, Occupancy, ResidualTotals, Totals};
use crate::serve::drains::Drains;

/// A snapshot in which every number is different, and the ledger balances.
pub(crate) fn example() -> Snapshot {
    let mut totals = InterfaceTotals {
        seen_packets: 0,
        seen_octets: 90_001,
        octets_counted: 70_002,
        ..InterfaceTotals::ZERO
    };
    for (index, packets) in (0..Outcome::COUNT).zip(101..) {
        totals.outcomes[index] = packets;
        totals.seen_packets += packets;
    }
    totals.protocols[0][ProtocolClass::Udp as usize] = 43;
    let overflow = totals.outcome(Outcome::Overflow);
    let residual = ResidualTotals { interface: 0, ipv6: false, protocol: 17, packets: overflow, octets: 2 };
    let occupancy = Occupancy {
        slots_used: 11,
        slots: 262_144,
        spill_used: 12,
        spill: 32_768,
        slots_per_cpu: 131_072,
        slots_used_max: 9,
        fullest_cpu: 1,
        spill_per_cpu: 16_384,
        spill_used_max: 10,
    };
    let mut ledger = Ledger::new(vec!["eth\"0\\".to_owned(), "gone".to_owned()]);
    let packets = totals.outcome(Outcome::Counted);
    ledger.add(&Totals {
        recorded: Counts { packets, octets: 70_000 },
        interfaces: vec![totals, InterfaceTotals::ZERO],
        residuals: vec![residual],
        occupancy,
        ..Totals::default()
    });
    let suppressed = Counts { packets: 4, octets: 300 };
    ledger.settle(Entry {
        exported: Counts { packets: packets - 7, octets: 68_700 },
        suppressed,
        dropped: Counts { packets: 1, octets: 600 },
        unconfirmed: Counts { packets: 18, octets: 1_900 },
        ..Entry::default()
    });
    assert!(ledger.is_balanced());
    let mut soc = Account::new("soc", "operations", "ipfix");
    soc.offered = Tally { records: 60, packets: 101, octets: 70_000 };
    soc.exported = Tally { records: 42, packets: 88, octets: 60_000 };
    soc.sent_unconfirmed = Tally { records: 19, packets: 21, octets: 2_200 };
    soc.state = SinkState::Up;
    soc.suppressed = Tally { records: 1, packets: 5, octets: 310 };
    soc.queued = Tally { records: 14, packets: 6, octets: 9_000 };
    soc.dropped.insert("unreachable".to_owned(), Tally { records: 3, packets: 2, octets: 690 });
    soc.octets_written = 2_345;
    soc.failures = 15;
    ledger.set_sinks([soc].into_iter());
    assert!(ledger.is_balanced());
    let unwatched = Unwatched { times: 7, time: Duration::from_millis(2750) };
    ledger.enter(1, "gone", unwatched);
    let watched = vec![
        Watched {
            name: "eth\"0\\".to_owned(),
            action: Action::Pass,
            attached: Some(Attached { if_index: 13, mode: Mode::Native, program_id: 4711 }),
            reason: None,
            is_blind: false,
            up: true,
        },
        Watched {
            name: "gone".to_owned(),
            action: Action::Drop,
            attached: None,
            reason: Some("there is no such interface".to_owned()),
            is_blind: false,
            up: false,
        },
    ];
    let mut drains = Drains::default();
    drains.succeeded(Duration::from_millis(3));
    let mandate = Mandate {
        id: "NCO-7".to_owned(),
        purpose: "one".to_owned(),
        legal_basis: "a law".to_owned(),
        valid_from: Timestamp::from_second(1_690_000_001).expect("a time"),
        valid_until: Timestamp::from_second(1_710_000_002).expect("a time"),
    };
    Snapshot {
        policy: PolicyInForce {
            name: "example".to_owned(),
            digest: "ef".repeat(32),
            recipients: vec!["soc".to_owned()],
            mandate: Some(mandate),
            prefixes: 31,
            indicators: 32,
            has_protocols: true,
            explanation: Arc::default(),
        },
        reloads: Reloads { succeeded: 33, failed: 34, error: Some("a reason".to_owned()) },
        build: Build { version: "1.2.3", object_digest: "ab".repeat(32), program_tag: "cd".repeat(8) },
        started: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_250),
        interval: Duration::from_millis(2500),
        watched,
        paused: None,
        refused: 8,
        ledger,
        occupancy,
        table_bytes: 9_000_000,
        drains,
        costs: vec![("minimizer", Cost { runs: 35, time: Duration::from_micros(1500) })],
        history: Arc::default(),
        begun: Instant::now(),
        failed: None,
        is_ending: false,
    }
}
