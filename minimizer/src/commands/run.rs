//! `run`: the agent on live interfaces until it is told to stop.

mod destinations;
mod ended;
mod fit;
mod printing;
mod reload;
mod rollback;
mod sinks;
mod time_mark;
mod watchdog;

use std::io;
use std::sync::{Arc, mpsc};

use jiff::Timestamp;
use signal_hook::consts::SIGHUP;
use thiserror::Error;
use tracing::{info, warn};

use crate::agent::error::AgentError;
use crate::agent::{Agent, AgentOptions};
use crate::commands::cli;
use crate::commands::options::{Settings, SettingsError};
use crate::commands::policy_choice::PolicyChoiceError;
use crate::commands::signals::Caught;
use crate::commands::text::Output;
use crate::delivery::accounting::Accounting;
use crate::interfaces::netlink::{Netlink, NetlinkError};
use crate::interfaces::selection::{CheckError, Selection, SelectionError};
use crate::kernel::error::ProgramError;
use crate::kernel::prepared::Options;
use crate::kernel::program::Program;
use crate::kernel::table_size::{self, Room};
use crate::policy::compile::CompiledPolicy;
use crate::policy::mandate::MandateError;
use crate::records::keys::KeyError;
use crate::serve::http::{Audience, ListenError, Listener, Server, Web, WebConfigError};
use crate::serve::ledger_file::{LedgerFileError, LedgerOrigin, LedgerWriter};
use crate::serve::snapshot::{Published, Snapshot};
use crate::sinks::stdout;
use crate::support::panics;
use crate::support::privilege::{self, PrivilegeError, Task};
use crate::support::refusal::{Asked, told};
use crate::support::state_file::StateFileError;
use crate::support::sys;
use ended::Ended;
use fit::Agreed;
pub use fit::UnfitPolicy;
use reload::Reload;
use rollback::{Rollback, RollbackError};
use sinks::Senders;
use watchdog::Watchdog;

/// Why `run` does not start, or why it ended.
#[derive(Debug, Error)]
pub enum RunError {
    /// The settings are incomplete or unusable.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The policy cannot be used.
    #[error(transparent)]
    Policy(#[from] PolicyChoiceError),
    /// The master secret cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The mandate does not permit collection now.
    #[error(transparent)]
    Mandate(#[from] MandateError),
    /// The time mark cannot be read or written.
    #[error(transparent)]
    TimeMark(#[from] StateFileError),
    /// The kernel does not list its interfaces.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The selection of interfaces cannot be used.
    #[error(transparent)]
    Selection(#[from] SelectionError),
    /// The selection does not fit the interfaces of this host.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// Capabilities are missing.
    #[error(transparent)]
    Privilege(#[from] PrivilegeError),
    /// The address of the web server is not free.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The web configuration cannot be used.
    #[error(transparent)]
    Web(#[from] WebConfigError),
    /// The web server does not start.
    #[error("cannot start the web server: {}", told(Asked::Thread, .0))]
    Server(#[source] io::Error),
    /// The policy does not fit the agent.
    #[error(transparent)]
    Sink(#[from] UnfitPolicy),
    /// The policy is older than the last one in force.
    #[error(transparent)]
    Rollback(#[from] RollbackError),
    /// The senders do not start.
    #[error("cannot start the threads of the sinks: {}", told(Asked::Thread, .0))]
    Senders(#[source] io::Error),
    /// The program does not load.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The agent does not start, or it stopped.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// There are no threads.
    #[error("cannot start a thread: {}", told(Asked::Thread, .0))]
    Threads(#[source] io::Error),
    /// A thread panicked.
    #[error("{0}: this is a defect, please report it with the log; the ledger is incomplete")]
    Panicked(String),
    /// Signals cannot be caught.
    #[error("cannot wait for signals: {}", told(Asked::Thread, .0))]
    Signals(#[source] io::Error),
    /// Records cannot be printed.
    #[error("cannot write to the standard output: {0}; records from then on are counted as dropped")]
    Output(#[source] io::Error),
    /// The ledger cannot be written.
    #[error(transparent)]
    Ledger(#[from] LedgerFileError),
    /// The ledger does not balance: packets are unaccounted for.
    #[error("the ledger does not balance: this is a defect, please report it with the ledger")]
    Unbalanced,
}

/// Policies that took less memory while they were loaded leave it to the allocator.
const GIVEN_BACK_OCTETS: u64 = 4 << 20;

/// Watches the interfaces until SIGINT or SIGTERM, then drains once more and prints the ledger.
///
/// # Errors
/// See [`RunError`]. Nothing is left attached.
pub fn run(args: &cli::Run) -> Result<(), RunError> {
    let mut settings = Settings::new(args)?;
    let choice = settings.choice;
    let (compiled, keyring) = (choice.compile()?, choice.keyring()?);
    let policy = &compiled.policy;
    let interval = policy.interval(settings.interval, cli::DEFAULT_INTERVAL).map_err(UnfitPolicy::from)?;
    destinations::pin(&mut settings.sinks, policy, choice.must_be_signed()).map_err(UnfitPolicy::from)?;
    let state = time_mark::directory(settings.state_directory.as_deref());
    let rollback = Rollback::new(state.as_deref(), choice.must_be_signed());
    rollback.permit(&compiled.policy)?;
    let mark = time_mark::open(settings.state_directory.as_deref(), &compiled)?;
    let selection = select(&settings.interfaces, &settings.taps)?;
    privilege::check(Task::Run)?;
    let web = settings.web_config.as_deref().map(Web::open).transpose()?;
    let listeners = settings.listen.iter().copied().map(Listener::bind).collect::<Result<_, _>>()?;
    let room = table_size::decide(settings.flows, compiled.memory).map_err(ProgramError::from)?;
    let mut program = load(&room, &compiled)?;
    let options =
        AgentOptions { selection, force_tap: settings.force_tap, mode: settings.mode.into(), interval };
    let printed_lane = settings.output.map(|_| stdout::queue(choice.recipient()));
    let accounting = Accounting::new(
        sinks::queues(&settings.sinks, interval).into_iter().chain(printed_lane.clone()).collect(),
    );
    let agreed = Agreed {
        accounting: accounting.clone(),
        sinks: settings.sinks.clone(),
        interval,
        must_be_signed: choice.must_be_signed(),
    };
    agreed.check(&compiled.policy)?;
    // Written before anything is attached: an agent that cannot tell older policies later does not start.
    rollback.keep(&compiled.policy)?;
    let published = Published::new(Snapshot::starting(&mut program, &options)?);
    let ledger_file = settings.ledger.as_deref();
    let ledger_file = ledger_file.map(|path| LedgerWriter::start(path, published.clone())).transpose()?;
    let (tell, told) = mpsc::channel();
    let tell = move |ended| {
        // Nobody waits any more when the process ends.
        let _unheard = tell.send(ended);
    };
    panics::tell({
        let (tell, published) = (tell.clone(), published.clone());
        move |said| {
            published.failed(said);
            tell(Ended::Panic(said.to_owned()));
        }
    });
    drop_tables(&mut program, compiled);
    // Caught before anything is attached: from here on, a signal always ends with a last drain.
    let signals = Caught::stop_signals().map_err(RunError::Signals)?;
    let reload_signal = Caught::new(&[SIGHUP]).map_err(RunError::Signals)?;
    let senders = Senders::start(&settings.sinks, &accounting, &published, state.as_deref())
        .map_err(RunError::Senders)?;
    let (observed, due) = (published.clone(), ledger_file.as_ref().map(LedgerWriter::due));
    let watchdog = Watchdog::start(accounting.clone(), published.clone(), due.clone());
    let _watchdog = watchdog.map_err(RunError::Threads)?;
    let agent = Agent::start(program, keyring, options, accounting.clone(), mark, move |progress| {
        observed.progressed(progress);
        if let Some(due) = &due {
            due.tell();
        }
    })?;
    let (stopper, ending) = (agent.stopper(), senders.ending());
    let stop = {
        let tell = tell.clone();
        move || tell(Ended::Stop)
    };
    signals.stop(stop, move || ending.cut()).map_err(RunError::Signals)?;
    let reload =
        Reload { choice, room, reloader: agent.reloader(), published: published.clone(), agreed, rollback };
    reload_signal.handle("reload", move |_| reload.reload()).map_err(RunError::Signals)?;
    let server = Server::start(listeners, published.clone(), web, settings.hosts, Audience::Owner);
    let server = server.map_err(RunError::Server)?;
    server.announce();
    if let (Some(output), Some(queue)) = (settings.output, printed_lane) {
        let tell = tell.clone();
        let failed = move |error| tell(Ended::Output(error));
        let (accounting, published, at_work) = (accounting.clone(), published.clone(), senders.at_work());
        printing::start(queue, accounting, published, output, at_work, failed).map_err(RunError::Threads)?;
    }
    ended::tell_of_drain(agent, tell).map_err(RunError::Threads)?;
    let course = ended::wait(&told, &stopper);
    published.ends();
    info!(
        "nothing is attached any more; sinks have {} to take what waits",
        humantime::format_duration(settings.shutdown_timeout)
    );
    senders.finish(settings.shutdown_timeout);
    let panic = course.panic.or_else(|| ended::panic(&told));
    if let Some(said) = &panic {
        accounting.lock().lacks(said);
    }
    if let Err(error @ AgentError::Hangs(_)) = &course.drain {
        accounting.lock().lacks(&error.to_string());
    }
    accounting.lock().complete();
    // The file first: nobody who reads the output, or does not, may prevent it.
    let ledger = accounting.ledger();
    let filed =
        ledger_file.map_or(Ok(()), |file| file.finish(LedgerOrigin::of(&published.latest()), ledger.clone()));
    let output = settings.output.unwrap_or(Output::Json);
    let printed = match course.output {
        None => printing::print_ledger(&ledger, output),
        // Who reads the log may still be there.
        Some(error) => printing::print_ledger(&ledger, Output::Json).and(Err(error)),
    };
    if let Some(said) = panic {
        return Err(RunError::Panicked(said));
    }
    course.drain?;
    printed.map_err(RunError::Output)?;
    filed?;
    if ledger.is_balanced() { Ok(()) } else { Err(RunError::Unbalanced) }
}

/// Checks that the policy's mandate permits collection now, by the wall clock alone.
///
/// # Errors
/// Why it does not.
pub fn permit(compiled: &CompiledPolicy) -> Result<(), MandateError> {
    let Some(mandate) = &compiled.policy.mandate else { return Ok(()) };
    let now = Timestamp::now();
    mandate.standing(now, now).map(drop)
}

/// Loads the program for live interfaces.
///
/// # Errors
/// See [`ProgramError`].
pub fn load(room: &Room, compiled: &Arc<CompiledPolicy>) -> Result<Program, ProgramError> {
    let (flows_per_cpu, room, compiled) = (room.per_cpu(), room.clone(), Arc::clone(compiled));
    Program::load(&Options { flows_per_cpu, room, compiled, ..Options::default() })
}

/// Drops what only the load of the program needed of its policy, and gives the memory back.
fn drop_tables(program: &mut Program, compiled: Arc<CompiledPolicy>) {
    let large = compiled.memory.loading > GIVEN_BACK_OCTETS;
    program.drop_tables();
    drop(compiled);
    if large {
        sys::give_back_memory();
    }
}

/// Resolves the selection of interfaces. A name must exist; a pattern may match nothing yet.
fn select(interfaces: &[String], taps: &[String]) -> Result<Selection, RunError> {
    let selection = Selection::new(interfaces, taps)?;
    let links = Netlink::open()?.links()?;
    for pattern in selection.check(&links)? {
        warn!("no interface matches {pattern} yet; those that appear are watched");
    }
    Ok(selection)
}
