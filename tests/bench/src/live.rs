//! Live frames on a virtual cable between two network namespaces: packets per second that arrive, and what
//! became of them.
//!
//! The kernel runs the sender, the cable and the receiving end's programs on one CPU, one after the other, so
//! that a program that takes longer lets fewer packets arrive. The frames are for another host: the network
//! stack drops what passes, once listeners have seen it.

pub mod agents;
pub mod cable;

use std::thread;
use std::time::Instant;

use anyhow::ensure;
use aya::programs::XdpMode;
use minimizer::kernel::attach::{Action, Mode};
use serde::Serialize;

use agents::{Agent, Listening};
use cable::{Cable, Sender};

use super::contenders::{Contender, Kind, Size};
use super::rounds::Effort;
use super::schedule::{Popularity, Schedule};
use super::statistics::{Spread, ratio};
use super::traffic::Traffic;

/// Rounds in which agents take part: they take seconds to start and to stop.
const AGENT_ROUNDS: usize = 3;
/// Dropped packets are that much cheaper, and need as many more to be measured as long.
const DROPPED_FACTOR: u32 = 4;

/// What is at the receiving end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Nothing.
    Nothing,
    /// A program, which lets packets pass.
    Program(Kind),
    /// The real program, which drops them after it has counted them.
    Tap,
    /// A flow agent, and no program.
    Agent(Agent),
}

impl Subject {
    /// All, the ones that are compared with first.
    const ALL: [Self; 9] = [
        Self::Nothing,
        Self::Program(Kind::Empty),
        Self::Program(Kind::Discard),
        Self::Program(Kind::Minimizer),
        Self::Tap,
        Self::Program(Kind::PerCpuHash),
        Self::Program(Kind::SharedHash),
        Self::Agent(Agent::Softflowd),
        Self::Agent(Agent::Pmacctd),
    ];

    /// Name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "no program",
            Self::Program(Kind::Empty) => "empty, pass",
            Self::Program(Kind::Discard) => "empty, drop",
            Self::Program(Kind::Minimizer) => "minimizer, pass",
            Self::Program(kind) => kind.name(),
            Self::Tap => "minimizer, tap",
            Self::Agent(agent) => agent.name(),
        }
    }

    /// Whether nothing but what is compared with drops the packets, too.
    const fn drops(self) -> bool {
        matches!(self, Self::Tap | Self::Program(Kind::Discard))
    }
}

/// Result for one number of flows.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Flows, drawn uniformly.
    pub flows: u64,
    /// Packets sent to each in a round; four times as many where they are dropped.
    pub packets: u32,
    /// By what is at the receiving end.
    pub figures: Vec<Figure>,
    /// Agents that were not measured, and why.
    pub absent: Vec<String>,
}

/// Result for one subject.
#[derive(Debug, Serialize)]
pub struct Figure {
    /// See [`Subject::name`].
    pub name: &'static str,
    /// Millions of packets per second that the receiving end took.
    pub mpps: Spread,
    /// The same as a share of the empty program that does with the packets what this one does.
    pub empty_ratio: Spread,
    /// Packets sent that the receiving end did not take, as a share: the cable had no room.
    pub undelivered: Spread,
    /// Packets sent that the subject does not report, as a share; absent where nobody counts.
    pub lost: Option<Spread>,
    #[serde(skip)]
    subject: Subject,
}

impl Row {
    /// The figure of one subject.
    #[must_use]
    pub fn figure(&self, subject: Subject) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.subject == subject)
    }
}

/// Measures everything with `flows` flows.
///
/// # Errors
/// What the kernel answers; a program that miscounted.
pub fn measure(effort: Effort, flows: u64) -> anyhow::Result<Row> {
    // The namespaces end with the thread.
    thread::scope(|scope| scope.spawn(|| on_cable(effort, flows)).join())
        .map_err(|_| anyhow::anyhow!("the measuring thread panicked"))?
}

fn on_cable(effort: Effort, flows: u64) -> anyhow::Result<Row> {
    let traffic = Traffic::Ipv4Udp;
    let mut cable = Cable::lay()?;
    let schedule = Schedule::drawn(flows, Popularity::Uniform, effort.period_for(flows));
    let mut sender = Sender::new(&cable, traffic, &schedule)?;
    let mut absent = Vec::new();
    let mut subjects = Vec::new();
    for subject in Subject::ALL {
        match subject {
            Subject::Agent(_) if !effort.with_agents => {}
            Subject::Agent(agent) if !agent.is_installed() => {
                absent.push(format!("{} is not installed", agent.name()));
            }
            _ => subjects.push(subject),
        }
    }
    let mut series = vec![Series::default(); subjects.len()];
    for round in 0..effort.runs {
        for (subject, series) in subjects.iter().zip(&mut series) {
            if matches!(subject, Subject::Agent(_)) && round >= AGENT_ROUNDS {
                continue;
            }
            let factor = if subject.drops() { DROPPED_FACTOR } else { 1 };
            let run = run(&mut cable, &mut sender, *subject, effort.live_packets * factor)?;
            series.mpps.push(run.mpps);
            series.undelivered.push(run.undelivered);
            series.lost.extend(run.lost);
        }
    }
    let rates = |wanted: Subject| {
        let found = subjects.iter().zip(&series).find(|(subject, _)| **subject == wanted);
        found.map_or(&[][..], |(_, series)| &series.mpps)
    };
    let figure = |subject: &Subject, series: &Series| {
        let empty = if subject.drops() { Kind::Discard } else { Kind::Empty };
        Figure {
            name: subject.name(),
            mpps: Spread::of(rates(*subject).iter().copied()),
            empty_ratio: ratio(rates(*subject), rates(Subject::Program(empty))),
            undelivered: Spread::of(series.undelivered.iter().copied()),
            lost: (!series.lost.is_empty()).then(|| Spread::of(series.lost.iter().copied())),
            subject: *subject,
        }
    };
    let figures = subjects.iter().zip(&series).map(|(subject, series)| figure(subject, series)).collect();
    Ok(Row { flows, packets: effort.live_packets, figures, absent })
}

/// The runs of one subject.
#[derive(Clone, Default)]
struct Series {
    mpps: Vec<f64>,
    undelivered: Vec<f64>,
    lost: Vec<f64>,
}

/// One run of one subject.
struct Run {
    mpps: f64,
    /// Share of the packets sent that did not arrive.
    undelivered: f64,
    /// Share of the packets sent that it does not report, if it reports.
    lost: Option<f64>,
}

/// What is at the receiving end during a run. Dropped, it is gone.
enum Attached {
    Nothing,
    Program(Box<Contender>),
    Agent(Listening),
}

fn run(cable: &mut Cable, sender: &mut Sender, subject: Subject, packets: u32) -> anyhow::Result<Run> {
    let index = cable.receiver_index;
    let attached = cable.at_receiver(|| attach(subject, index))?;
    let before = cable.received()?;
    // What a call costs however many packets it sends: the kernel waits for a grace period in it.
    let begin = Instant::now();
    sender.send(1)?;
    let call = begin.elapsed();
    let (first, _) = cable.settled()?;
    let begin = Instant::now();
    sender.send(packets)?;
    let end = Instant::now();
    let (received, latest) = cable.settled()?;
    let arrived = received - first;
    // Counters that have reached their end when the call returns say nothing about when they did.
    let took = if arrived == u64::from(packets) { end - begin } else { latest.max(end) - begin };
    let seconds = took.saturating_sub(call).as_secs_f64();
    let mpps = arrived as f64 / seconds / 1e6;
    let sent = u64::from(packets) + 1;
    let reported = match attached {
        Attached::Nothing => None,
        Attached::Program(mut contender) => {
            let account = contender.account()?;
            if let Some(account) = account {
                let counted = account.packets + account.missed;
                let arrived = received - before;
                ensure!(counted == arrived, "{} counted {counted} of {arrived} packets", subject.name());
            }
            account.map(|account| account.packets)
        }
        Attached::Agent(listening) => Some(listening.reported()?),
    };
    let undelivered = 1.0 - arrived as f64 / f64::from(packets);
    Ok(Run { mpps, undelivered, lost: reported.map(|reported| 1.0 - reported as f64 / sent as f64) })
}

fn attach(subject: Subject, if_index: u32) -> anyhow::Result<Attached> {
    /// Flows for which the agent makes its tables when nothing else is said.
    const FLOWS: u32 = 1 << 16;
    let mut action = Action::Pass;
    let kind = match subject {
        Subject::Nothing => return Ok(Attached::Nothing),
        Subject::Agent(agent) => return Ok(Attached::Agent(agent.start()?)),
        Subject::Program(kind) => kind,
        Subject::Tap => {
            action = Action::Drop;
            Kind::Minimizer
        }
    };
    let mut contender = Contender::load(kind, Size::of(FLOWS))?;
    if kind == Kind::Minimizer {
        let program = contender.real()?;
        program.watch(if_index, 0)?;
        program.attach_for(action, if_index, Mode::Native)?;
    } else {
        contender.own()?.attach_to_if_index(if_index, XdpMode::Driver)?;
    }
    Ok(Attached::Program(Box::new(contender)))
}
