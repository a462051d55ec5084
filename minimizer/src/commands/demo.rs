//! `demo`: sends traffic through a private network and counts it with the real program.

pub mod cost;
pub mod generator;
mod latch;
pub mod network;
pub mod payload_check;
pub mod screen;
pub mod sender;

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::agent::error::AgentError;
use crate::agent::progress::Progress;
use crate::agent::time_mark::TimeMark;
use crate::agent::{Agent, AgentOptions};
use crate::commands::cli;
use crate::commands::live::{Interval, Live, Top};
use crate::commands::pcap::{Capture, CaptureError};
use crate::commands::policy_choice::PolicyChoice;
use crate::commands::run::{self, RunError, UnfitPolicy};
use crate::commands::signals::Caught;
use crate::commands::text::Output;
use crate::delivery::accounting::Accounting;
use crate::delivery::queue::Queue;
use crate::delivery::waiting::Bounds;
use crate::interfaces::netlink::{Netlink, NetlinkError};
use crate::interfaces::selection::Selection;
use crate::kernel::attach::Mode;
use crate::kernel::error::ProgramError;
use crate::kernel::table_size;
use crate::policy::compile::CompiledPolicy;
use crate::records::terms::Keyring;
use crate::serve::http::{Audience, ListenError, Listener, Server};
use crate::serve::snapshot::{Published, Snapshot};
use crate::support::refusal::{Asked, told};
use cost::{Cost, Meter};
use generator::Traffic;
use latch::Latch;
use network::{Cable, NetworkError};
use payload_check::PayloadCheckError;
use screen::{Protocols, Summary};
use sender::{FrameSender, Handed};
use tracing::warn;

/// The interface that traffic is sent from.
pub const SENDER: &str = "generator";
/// The interface that the program is attached to.
pub const RECEIVER: &str = "watched";
/// Ethernet's default MTU; no generated frame is longer.
const MTU_OCTETS: u32 = 1500;
/// The largest MTU of a veth: captures hold frames that a network card merged (GRO).
const CAPTURE_MTU_OCTETS: u32 = 65_535;
/// Most octets of frames taken from a capture: they are held in memory.
const CAPTURE_OCTETS_MAX: usize = 256 << 20;
/// A fixed seed, so that the generated traffic is always the same.
const SEED: u64 = 1;

/// Why the demo does not start, or failed.
#[derive(Debug, Error)]
pub enum DemoError {
    /// The private network cannot be made.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The interfaces cannot be listed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The program does not load.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The agent does not start, or stopped.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The address of the web server is not free.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A step that `run` has too failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The socket to send frames cannot be had, or no thread that sends.
    #[error("cannot begin to send frames into the private network: {}", told(Asked::PacketSocket, .0))]
    Sender(#[source] io::Error),
    /// Frames could not be sent.
    #[error("cannot send frames into the private network: {}", told(Asked::Send, .0))]
    Send(#[source] io::Error),
    /// The capture cannot be read, or not to its end.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The capture holds no frame to send.
    #[error("{0} holds no frame that an interface could send")]
    Empty(String),
    /// The payload check could not be made.
    #[error(transparent)]
    PayloadCheck(#[from] PayloadCheckError),
    /// The output cannot be written.
    #[error("cannot write to the standard output: {0}")]
    Output(#[source] io::Error),
    /// `--check` found a fault.
    #[error("check failed: {0}")]
    Check(&'static str),
}

/// Runs the demo and prints its last screen.
///
/// Threads that are started before do not enter the private network. The log's is the only one, and it needs none.
///
/// # Errors
/// See [`DemoError`]. Network and program end with the process, however it ends.
pub fn demo(args: &cli::Demo) -> Result<(), DemoError> {
    let choice = PolicyChoice::new(&args.policy, None).map_err(RunError::Policy)?;
    let compiled = choice.compile().map_err(RunError::Policy)?;
    let keyring = choice.keyring().map_err(RunError::Key)?;
    run::permit(&compiled).map_err(RunError::Mandate)?;
    let (traffic, damage) = match &args.pcap {
        Some(path) => capture(path)?,
        None => (Traffic::mixed(SEED), None),
    };
    if let Some(damage) = &damage {
        warn!("{damage}; the frames before are sent");
    }
    let host_interfaces = screen::host_interfaces(&Netlink::open()?.links()?);
    // A socket stays in the network in which it was made: this one in the host's.
    let listener = args.listen.map(Listener::bind).transpose()?;
    network::enter_private_namespace()?;
    let mut netlink = Netlink::open()?;
    let mtu_octets = if args.pcap.is_some() { CAPTURE_MTU_OCTETS } else { MTU_OCTETS };
    let cable = Cable::lay(&mut netlink, SENDER, RECEIVER, mtu_octets)?;

    let summary = measure(args, (compiled, keyring), Arc::new(traffic), &cable, netlink, listener)?;
    match args.output {
        Output::Table => screen::print(&summary, &host_interfaces),
        Output::Json => screen::print_json(&summary, &host_interfaces),
    }
    .map_err(DemoError::Output)?;
    if args.check {
        summary.check().map_err(DemoError::Check)?;
    }
    damage.map_or(Ok(()), |damage| Err(damage.into()))
}

/// Reads the frames of a capture, and the damage that ended it early, if any.
fn capture(path: &Path) -> Result<(Traffic, Option<CaptureError>), DemoError> {
    let mut frames = Vec::new();
    let mut octets = 0;
    let mut damage = None;
    for frame in Capture::open(path)? {
        match frame {
            Ok(frame) => {
                octets += frame.data.len();
                frames.push(frame.data);
            }
            Err(error) => damage = Some(error),
        }
        if octets > CAPTURE_OCTETS_MAX {
            warn!("{} is large; its first {} frames are sent", path.display(), frames.len());
            break;
        }
    }
    let traffic = Traffic::of_frames(frames);
    match damage {
        Some(damage) if traffic.is_empty() => Err(damage.into()),
        _ if traffic.is_empty() => Err(DemoError::Empty(path.display().to_string())),
        damage => Ok((traffic, damage)),
    }
}

/// Sends and counts until the time is over, and collects the results.
fn measure(
    args: &cli::Demo,
    (compiled, keyring): (Arc<CompiledPolicy>, Keyring),
    traffic: Arc<Traffic>,
    cable: &Cable,
    netlink: Netlink,
    listener: Option<Listener>,
) -> Result<Summary, DemoError> {
    let signals = Caught::stop_signals().map_err(RunError::Signals)?;
    let flows = args.table.flows().unwrap_or_default();
    let interval =
        compiled.policy.interval(args.interval, cli::DEFAULT_DEMO_INTERVAL).map_err(UnfitPolicy::from);
    let interval = interval.map_err(RunError::Sink)?;
    let room = table_size::decide(flows, compiled.memory).map_err(ProgramError::from)?;
    let mut program = run::load(&room, &compiled)?;
    let meter = Meter::start(&program)?;
    let options = AgentOptions {
        selection: Selection::one(&cable.receiver.name),
        force_tap: false,
        mode: Mode::Native,
        interval,
    };
    let published = Published::new(Snapshot::starting(&mut program, &options)?);
    let observed = published.clone();
    let queue = Queue::new("screen", args.policy.recipient.as_deref(), "screen", Bounds::default());
    let accounting = Accounting::new(vec![Arc::new(queue)]);
    let observe = move |progress: &Progress<'_>| observed.progressed(progress);
    // A demo is short: nobody needs its mark later.
    let mark = TimeMark::in_memory(Arc::clone(program.clocks()));
    let agent = Agent::start(program, keyring, options, accounting.clone(), mark, observe)?;
    // A capture is of somebody's traffic.
    let audience = if args.pcap.is_some() { Audience::Owner } else { Audience::Everybody };
    let server = listener
        .map(|listener| Server::start(vec![listener], published.clone(), None, Vec::new(), audience))
        .transpose();
    let server = server.map_err(RunError::Server)?;
    if let Some(server) = &server {
        server.announce();
    }
    let end = Arc::new(Latch::default());
    let stopped = Arc::clone(&end);
    // There are no sinks to hurry.
    signals.stop(move || stopped.set(), || ()).map_err(RunError::Signals)?;

    let sender =
        FrameSender::start(Arc::clone(&traffic), cable.sender.index, None).map_err(DemoError::Sender)?;
    let conductor = Conductor { sender, netlink, cable: cable.clone(), meter, start: Instant::now() };
    let conductor = thread::Builder::new()
        .name("conductor".to_owned())
        .spawn({
            let (end, stopper, duration) = (Arc::clone(&end), agent.stopper(), args.duration);
            move || {
                let conducted = conductor.conduct(&end, duration);
                end.set();
                // Only now: everything that was sent has been seen.
                stopper.stop();
                conducted
            }
        })
        .map_err(AgentError::Thread)?;
    let shown = show(&accounting, &published, &end, args);
    end.set();
    let conducted = conductor.join().map_err(|_| AgentError::Panicked)?;
    agent.wait()?;
    accounting.lock().complete();
    let protocols = shown.map_err(DemoError::Output)?;
    let conducted = conducted?;
    Ok(Summary {
        ledger: accounting.ledger(),
        protocols,
        sent: conducted.transmitted,
        unsendable: conducted.handed.unsendable,
        elapsed: conducted.elapsed,
        cost: conducted.cost,
        payload_check: payload_check::check(traffic.frames(), &compiled)?,
    })
}

/// Shows every batch until the queue is closed, and sums up records by protocol.
fn show(
    accounting: &Accounting,
    published: &Published,
    end: &Latch,
    args: &cli::Demo,
) -> io::Result<Protocols> {
    let mut live = Live::new();
    let mut protocols = Protocols::default();
    let title = format!("demo on {RECEIVER}, {} s, Ctrl-C ends", args.duration.as_secs_f64());
    let [queue] = accounting.queues() else { return Ok(protocols) };
    while let Some(batch) = queue.next_batch() {
        // Never skipped: the recipient was checked at the start, and a demo does not reload.
        let Ok(offered) = batch.offered(queue.recipient()) else { continue };
        let mut top = Top::default();
        let Ok(()) = offered.each(|records| {
            protocols.add(records);
            top.add(records);
            Ok::<_, Infallible>(())
        });
        // The screen is the sink, so the records are exported.
        accounting.exported(queue, &batch, offered.len(), offered.suppressed);
        published.settled(&accounting.ledger());
        let (records, top, fields) = (offered.len(), &*top.into_sorted(), offered.values.fields());
        let interval = Interval { totals: &batch.totals, records, top, fields };
        // The last batch covers a fraction of an interval: its rate would mislead.
        let is_rest = live.is_terminal() && end.wait(Duration::ZERO);
        if args.output == Output::Table && !is_rest {
            live.show(&title, &interval, &accounting.ledger())?;
        }
    }
    Ok(protocols)
}

/// Stops the sender in time and determines what was sent.
struct Conductor {
    sender: FrameSender,
    netlink: Netlink,
    cable: Cable,
    meter: Option<Meter>,
    start: Instant,
}

struct Conducted {
    handed: Handed,
    transmitted: u64,
    elapsed: Duration,
    cost: Option<Cost>,
}

impl Conductor {
    fn conduct(mut self, end: &Latch, duration: Duration) -> Result<Conducted, DemoError> {
        end.wait(duration);
        let handed = self.sender.finish().map_err(DemoError::Send)?;
        let elapsed = self.start.elapsed();
        let transmitted = self.cable.settle(&mut self.netlink, handed)?;
        let cost = self.meter.as_ref().and_then(Meter::read);
        Ok(Conducted { handed, transmitted, elapsed, cost })
    }
}
