//! Live frames on virtual cables between two network namespaces: packets per second that arrive, and what
//! became of them.
//!
//! The kernel runs the sender, the cable and the receiving end's programs on one CPU, one after the other, so
//! that a program that takes longer lets fewer packets arrive. The frames are for another host: the network
//! stack drops what passes, once listeners have seen it.
//!
//! Each receiver has a cable of its own, to which its program stays attached, with the tables that it has filled. One
//! sender serves all cables, and walks through a schedule of the same length whatever the number of flows: what it
//! costs is in the figures of the empty programs, too, and does not depend on the flows.

pub mod agents;
pub mod cable;

use std::path::Path;
use std::thread;
use std::time::Instant;

use anyhow::ensure;
use aya::programs::XdpMode;
use minimizer::kernel::attach::{Action, Mode};
use serde::Serialize;

use agents::Agent;
use cable::{Cable, Cables};

use super::contenders::{Contender, Kind, Size};
use super::rounds::Effort;
use super::schedule::{Popularity, Schedule};
use super::statistics::{Spread, difference, ratio};
use super::traffic::Traffic;
use super::wrapper::Wrapper;

/// Rounds in which agents take part: they take seconds to start and to stop.
const AGENT_ROUNDS: usize = 3;
/// Most flows with which agents take part.
const AGENT_FLOWS: u64 = 1000;
/// Dropped packets are that much cheaper, and need as many more to be measured as long.
const DROPPED_FACTOR: u32 = 4;

/// What is at the receiving end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Nothing.
    Nothing,
    /// A program, which lets packets pass.
    Program(Kind),
    /// The real program of this build or the other, which drops packets after it has counted them.
    Tap(Kind),
    /// A flow agent, and no program.
    Agent(Agent),
}

impl Subject {
    /// All, the ones that are compared with first.
    const ALL: [Self; 12] = [
        Self::Nothing,
        Self::Program(Kind::Empty),
        Self::Program(Kind::Discard),
        Self::Program(Kind::Minimizer),
        Self::Tap(Kind::Minimizer),
        Self::Program(Kind::Beside),
        Self::Tap(Kind::Beside),
        Self::Program(Kind::Floor),
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
            Self::Program(Kind::Beside) => "beside, pass",
            Self::Program(kind) => kind.name(),
            Self::Tap(Kind::Beside) => "beside, tap",
            Self::Tap(_) => "minimizer, tap",
            Self::Agent(agent) => agent.name(),
        }
    }

    /// Whether nothing but what is compared with drops the packets, too.
    const fn drops(self) -> bool {
        matches!(self, Self::Tap(_) | Self::Program(Kind::Discard))
    }

    /// The empty program that does with packets what this one does.
    const fn empty(self) -> Self {
        Self::Program(if self.drops() { Kind::Discard } else { Kind::Empty })
    }

    /// The real program of this build, doing with packets what this one does.
    const fn ours(self) -> Self {
        if self.drops() { Self::Tap(Kind::Minimizer) } else { Self::Program(Kind::Minimizer) }
    }

    /// Whether the other build's agent is there.
    const fn is_beside(self) -> bool {
        matches!(self, Self::Program(Kind::Beside) | Self::Tap(Kind::Beside))
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
    /// Nanoseconds per packet more than that empty program.
    pub added_ns: Spread,
    /// What the real program of this build adds as a share of what this one adds, round by round; both drop the packets,
    /// or both let them pass. Absent for itself and for what counts nothing.
    pub minimizer_ratio: Option<Spread>,
    /// Packets sent that the receiving end did not take, as a share: the cable had no room.
    pub undelivered: Spread,
    /// Packets sent that the subject does not report, as a share; absent where nobody counts.
    pub lost: Option<Spread>,
    #[serde(skip)]
    subject: Subject,
    #[serde(skip)]
    series: Vec<f64>,
}

impl Row {
    /// The figure of one subject.
    #[must_use]
    pub fn figure(&self, subject: Subject) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.subject == subject)
    }

    /// The packets per second of a subject with these flows as a share of those in another row, round by round.
    #[must_use]
    pub fn mpps_to(&self, other: &Self, subject: Subject) -> Option<Spread> {
        Some(ratio(&self.figure(subject)?.series, &other.figure(subject)?.series))
    }
}

/// Measures everything with `flows` flows.
///
/// # Errors
/// What the kernel answers; a program that miscounted.
pub fn measure(effort: Effort, flows: u64, beside: Option<&Path>) -> anyhow::Result<Row> {
    // The namespaces end with the thread.
    thread::scope(|scope| scope.spawn(|| on_cables(effort, flows, beside)).join())
        .map_err(|_| anyhow::anyhow!("the measuring thread panicked"))?
}

fn on_cables(effort: Effort, flows: u64, beside: Option<&Path>) -> anyhow::Result<Row> {
    let schedule = Schedule::drawn(flows, Popularity::Uniform, effort.period_for(flows));
    let mut cables = Cables::new()?;
    let mut wrapper = Wrapper::load(Traffic::Ipv4Udp, &schedule.reordered())?;
    let table_flows = effort.table_flows.max(u32::try_from(flows)?);
    let size = Size { beside, ..Size::of(table_flows) };
    let mut absent = Vec::new();
    let mut receivers = Vec::new();
    for subject in Subject::ALL {
        match subject {
            Subject::Agent(_) if !effort.with_agents || flows > AGENT_FLOWS => {}
            Subject::Agent(agent) if !agent.is_installed() => {
                absent.push(format!("{} is not installed", agent.name()));
            }
            _ if subject.is_beside() && beside.is_none() => {}
            _ => receivers.push(Receiver::new(&mut cables, subject, size)?),
        }
    }
    // Every flow is known then. Agents get all their packets in the rounds.
    for receiver in receivers.iter_mut().filter(|receiver| receiver.contender.is_some()) {
        receiver.send(&mut cables, &mut wrapper, effort.period_for(flows))?;
    }
    wrapper.follow(&schedule)?;
    for round in 0..effort.runs {
        for receiver in &mut receivers {
            if round < AGENT_ROUNDS || !matches!(receiver.subject, Subject::Agent(_)) {
                let factor = if receiver.subject.drops() { DROPPED_FACTOR } else { 1 };
                receiver.run(&mut cables, &mut wrapper, effort.live_packets * factor)?;
            }
        }
    }
    for receiver in &mut receivers {
        receiver.check()?;
    }
    let figures = receivers.iter().map(|receiver| figure(receiver, &receivers)).collect();
    receivers.into_iter().filter_map(|receiver| receiver.contender).try_for_each(Contender::end)?;
    Ok(Row { flows, packets: effort.live_packets, figures, absent })
}

fn figure(receiver: &Receiver, all: &[Receiver]) -> Figure {
    let subject = receiver.subject;
    let of = |wanted: Subject| {
        let found = all.iter().find(|receiver| receiver.subject == wanted);
        found.map_or(&[][..], |receiver| &receiver.mpps)
    };
    let added = |wanted: Subject| {
        let [one, empty] = [of(wanted), of(wanted.empty())]
            .map(|rates| rates.iter().map(|mpps| 1e3 / mpps).collect::<Vec<_>>());
        difference(&one, &empty)
    };
    let counts = match subject {
        Subject::Program(kind) => !matches!(kind, Kind::Empty | Kind::Discard),
        Subject::Tap(_) => true,
        Subject::Nothing | Subject::Agent(_) => false,
    };
    let is_compared = counts && subject != subject.ours();
    Figure {
        name: subject.name(),
        mpps: Spread::of(receiver.mpps.iter().copied()),
        empty_ratio: ratio(&receiver.mpps, of(subject.empty())),
        added_ns: Spread::of(added(subject)),
        minimizer_ratio: is_compared.then(|| ratio(&added(subject.ours()), &added(subject))),
        undelivered: Spread::of(receiver.undelivered.iter().copied()),
        lost: (!receiver.lost.is_empty()).then(|| Spread::of(receiver.lost.iter().copied())),
        subject,
        series: receiver.mpps.clone(),
    }
}

/// Packets that were sent.
struct Sent {
    /// How many of them arrived.
    arrived: u64,
    /// When the call began and returned.
    begin: Instant,
    end: Instant,
    /// When the last arrived.
    latest: Instant,
}

/// A subject at its end of a cable, and its runs.
struct Receiver {
    subject: Subject,
    cable: Cable,
    /// The program, unless there is none.
    contender: Option<Contender>,
    /// Packets sent to it.
    sent: u64,
    mpps: Vec<f64>,
    undelivered: Vec<f64>,
    lost: Vec<f64>,
}

impl Receiver {
    fn new(cables: &mut Cables, subject: Subject, size: Size<'_>) -> anyhow::Result<Self> {
        let cable = cables.lay()?;
        let contender = cables.at_receiver(|| attach(subject, &cable, size))?;
        let [mpps, undelivered, lost] = [const { Vec::new() }; 3];
        Ok(Self { subject, cable, contender, sent: 0, mpps, undelivered, lost })
    }

    /// Sends packets and waits until no more arrive.
    fn send(&mut self, cables: &mut Cables, wrapper: &mut Wrapper, packets: u32) -> anyhow::Result<Sent> {
        let before = cables.received(&self.cable)?;
        let begin = Instant::now();
        wrapper.send_live(self.cable.redirect.id, &self.cable.redirect.program, packets)?;
        let end = Instant::now();
        let (received, latest) = cables.settled(&self.cable)?;
        let arrived = received - before;
        self.sent += u64::from(packets);
        if let Some(contender) = &mut self.contender {
            contender.sent += arrived;
        }
        Ok(Sent { arrived, begin, end, latest })
    }

    fn run(&mut self, cables: &mut Cables, wrapper: &mut Wrapper, packets: u32) -> anyhow::Result<()> {
        let listening = match self.subject {
            Subject::Agent(agent) => Some(cables.at_receiver(|| agent.start(&self.cable.receiver))?),
            _ => None,
        };
        if listening.is_none() {
            // The subject before has filled the caches with its own table.
            self.send(cables, wrapper, packets / 2)?;
        }
        // What a call costs however many packets it sends: the kernel waits for a grace period in it.
        let one = self.send(cables, wrapper, 1)?;
        let call = one.end - one.begin;
        let Sent { arrived, begin, end, latest } = self.send(cables, wrapper, packets)?;
        // Counters that have reached their end when the call returns say nothing about when they did.
        let took = if arrived == u64::from(packets) { end - begin } else { latest.max(end) - begin };
        let seconds = took.saturating_sub(call).as_secs_f64();
        self.mpps.push(arrived as f64 / seconds / 1e6);
        self.undelivered.push(1.0 - arrived as f64 / f64::from(packets));
        if let Some(listening) = listening {
            let reported = cables.at_receiver(|| listening.reported())?;
            self.lost.push(1.0 - reported as f64 / (u64::from(packets) + 1) as f64);
        }
        Ok(())
    }

    /// A program must have counted every packet that arrived.
    fn check(&mut self) -> anyhow::Result<()> {
        let Some(contender) = &mut self.contender else { return Ok(()) };
        let Some(account) = contender.account()? else { return Ok(()) };
        let (counted, arrived) = (account.packets + account.missed, contender.sent);
        let name = self.subject.name();
        ensure!(counted == arrived, "{name} counted {counted} of {arrived} packets: {account:?}");
        self.lost.push(1.0 - account.packets as f64 / self.sent as f64);
        Ok(())
    }
}

fn attach(subject: Subject, cable: &Cable, size: Size<'_>) -> anyhow::Result<Option<Contender>> {
    let (kind, action) = match subject {
        Subject::Nothing | Subject::Agent(_) => return Ok(None),
        Subject::Program(kind) => (kind, Action::Pass),
        Subject::Tap(kind) => (kind, Action::Drop),
    };
    if kind == Kind::Beside {
        return Contender::attached(size.order(&cable.receiver, action == Action::Drop)?).map(Some);
    }
    let mut contender = Contender::load(kind, size)?;
    if kind == Kind::Minimizer {
        let program = contender.real()?;
        program.watch(cable.receiver_index, 0)?;
        program.attach_for(action, cable.receiver_index, Mode::Native)?;
    } else {
        contender.own()?.attach_to_if_index(cable.receiver_index, XdpMode::Driver)?;
    }
    Ok(Some(contender))
}
