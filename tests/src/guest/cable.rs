//! Live frames on a virtual cable: every frame is counted once, and nothing stays attached.

use std::collections::HashMap;
use std::env;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use minimizer::commands::demo::generator::Traffic;
use minimizer::delivery::ledger::Ledger;
use minimizer::kernel::attach::Mode;
use minimizer::kernel::prepared::Options;
use minimizer::kernel::program::Program;
use minimizer_common::generation::Counts;
use minimizer_common::tuple::Tuple;

use super::in_a_thread;
use super::variants::Variant;
use crate::drained::drained;
use crate::expected::Expected;
use crate::network::Network;

const FRAMES: u64 = 10_000;
/// Flips under traffic at least.
const FLIPS_MIN: u32 = 10;
/// What a process says when it has attached the program.
const ATTACHED: &str = "attached";

/// What was drained so far.
struct Drained {
    ledger: Ledger,
    flows: HashMap<Tuple, Counts>,
}

impl Drained {
    fn drain(&mut self, program: &mut Program, if_index: u32) -> Result<()> {
        let (records, totals) = drained(program, &[if_index])?;
        ensure!(totals.residuals.is_empty(), "the table was too small");
        self.ledger.add(&totals);
        self.ledger.add_exported(totals.recorded, Counts::default());
        ensure!(self.ledger.is_balanced(), "not balanced: {:?}", self.ledger);
        for record in records {
            let flow = self.flows.entry(record.tuple).or_default();
            flow.packets += record.packets;
            flow.octets += record.octets;
        }
        Ok(())
    }
}

/// Sends frames through a packet socket while generations flip: sent is seen is the sum of all
/// outcomes, and each is the one that the parser on the host finds.
///
/// # Errors
/// What differs.
pub fn ledger(variant: &Variant, traffic: &Arc<Traffic>) -> Result<String> {
    in_a_thread(|| {
        let mut network = Network::new(1, 1500)?;
        let if_index = network.cables()[0].receiver.index;
        let mut program = variant.load()?;
        program.watch(if_index, 0)?;
        program.attach(if_index, Mode::Native)?;
        ensure!(network.is_attached(0)?, "the program is not attached");

        let mut drained = Drained { ledger: Ledger::new(vec!["cable".to_owned()]), flows: HashMap::new() };
        let sender = network.send(0, traffic, Some(FRAMES))?;
        let mut flips = 0;
        while !sender.is_finished() || flips < FLIPS_MIN {
            drained.drain(&mut program, if_index)?;
            flips += 1;
        }
        let sent = network.settle(0, sender.wait()?)?;
        program.detach_all();
        ensure!(!network.is_attached(0)?, "the program is still attached");
        drained.drain(&mut program, if_index)?;

        let expected = Expected::of(traffic.round(), sent, 0);
        let (_, interface) = drained.ledger.interfaces().next().context("the ledger has an interface")?;
        ensure!(interface.seen_packets == sent, "{sent} sent, {} seen", interface.seen_packets);
        ensure!(interface.outcomes[..] == expected.outcomes, "outcomes differ");
        ensure!(interface.octets_counted == expected.octets(), "octets differ");
        ensure!(drained.flows == expected.flows, "tuples, packets or octets differ");
        Ok(format!("{sent} frames, {flips} flips, {} octets in records", expected.octets()))
    })
}

/// A process that is killed leaves nothing attached.
///
/// # Errors
/// When it does.
pub fn detachment() -> Result<String> {
    in_a_thread(|| {
        let mut network = Network::new(1, 1500)?;
        let if_index = network.cables()[0].receiver.index;
        let mut process = Command::new(env::current_exe()?)
            .arg(if_index.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().context("it is piped")?).read_line(&mut line)?;
        ensure!(line.trim_end() == ATTACHED, "the process ended: {}", process.wait()?);
        ensure!(network.is_attached(0)?, "the program is not attached");
        process.kill()?;
        process.wait()?;
        ensure!(!network.is_attached(0)?, "the program outlives its process");
        Ok("gone with the process that was killed".to_owned())
    })
}

/// Attaches the program, says so, and waits for its end.
///
/// # Errors
/// When it cannot be attached.
pub fn attach_until_killed(if_index: u32) -> Result<()> {
    let mut program = Program::load(&Options { flows_per_cpu: 64, ..Options::default() })?;
    program.watch(if_index, 0)?;
    program.attach(if_index, Mode::Native)?;
    println!("{ATTACHED}");
    // Ends when whoever started this process does.
    std::io::stdin().lines().for_each(drop);
    Ok(())
}
