//! A driver may run the program under an index that nobody watches: those packets are nobody else's.

use std::sync::Arc;

use anyhow::{Result, ensure};
use minimizer::commands::demo::generator::Traffic;
use minimizer::delivery::ledger::{Ledger, UNKNOWN};
use minimizer::interfaces::slot::Unwatched;
use minimizer::kernel::attach::{Action, Mode};
use minimizer::kernel::prepared::Options;
use minimizer::kernel::program::Program;
use minimizer_common::generation::Counts;
use minimizer_common::outcome::Outcome;
use tests::drained::drained;
use tests::expected::Expected;
use tests::network::Network;

const FRAMES: u64 = 3000;

/// Attached to four cables, of which one is watched: the control page's hash is without collisions for watched indices
/// only, so that packets of the others would be found in the watched one's slot.
#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn packets_of_an_interface_that_nobody_watches_are_nobody_elses() -> Result<()> {
    for action in [Action::Pass, Action::Drop] {
        let mut network = Network::new(4, 1500)?;
        let [watched, other, port, former] = [0, 1, 2, 3].map(|cable| network.cables()[cable].receiver.index);
        let mut program = Program::load(&Options { flows_per_cpu: 4096, ..Options::default() })?;
        program.watch(watched, 0)?;
        for if_index in [watched, other, port, former] {
            program.attach_for(action, if_index, Mode::Native)?;
        }
        let traffic = Arc::new(Traffic::mixed(9));
        let sent = network.send_all(0, &traffic, FRAMES)?;
        let unknown = network.send_all(1, &traffic, 2 * FRAMES)?;
        // Ports of the first, as those of a bond are; then one of them is none any more.
        program.watch_all(&[(watched, 0), (port, 0), (former, 0)])?;
        let sent_as_port = network.send_all(2, &traffic, FRAMES)?;
        program.watch_all(&[(watched, 0), (port, 0)])?;
        let unknown = unknown + network.send_all(3, &traffic, FRAMES)?;
        program.detach_all();

        let (records, totals) = drained(&mut program, &[watched])?;
        let packets: u64 = records.iter().map(|record| record.packets).sum();
        let mut ledger = Ledger::new(vec!["watched".to_owned()]);
        ledger.enter(0, "watched", Unwatched::default());
        ledger.add(&totals);
        ledger.add_exported(totals.recorded, Counts::default());
        ensure!(ledger.is_balanced(), "{ledger:?}");
        let seen: Vec<_> = ledger.interfaces().map(|(name, totals)| (name, totals.seen_packets)).collect();
        assert_eq!(seen, [("watched", sent + sent_as_port), (UNKNOWN, unknown)]);
        let expected: u64 = [sent, sent_as_port]
            .map(|sent| Expected::of(traffic.round(), sent, 0).outcomes[Outcome::Counted as usize])
            .iter()
            .sum();
        assert_eq!(packets, expected, "only what is watched is in records");
        assert_eq!(totals.unknown.outcome(Outcome::UnknownInterface), unknown);
        assert_eq!(totals.unknown.outcomes.iter().sum::<u64>(), unknown);
        // Nothing is left for the next drain.
        let (_, totals) = drained(&mut program, &[watched])?;
        assert_eq!(totals.unknown.seen_packets, 0);
    }
    Ok(())
}
