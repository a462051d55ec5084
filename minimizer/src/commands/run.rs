//! `run`: the agent on live interfaces until it is told to stop.

mod reload;
mod sinks;
mod time_mark;

use std::convert::Infallible;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;

use jiff::Timestamp;
use signal_hook::consts::SIGHUP;
use thiserror::Error;
use tracing::warn;

use crate::agent::error::AgentError;
use crate::agent::time_mark::TimeMarkError;
use crate::agent::{Agent, AgentOptions};
use crate::commands::cli;
use crate::commands::live::{Interval, Live, Top};
use crate::commands::options::{Settings, SettingsError};
use crate::commands::policy_choice::PolicyChoiceError;
use crate::commands::signals::Caught;
use crate::commands::text::{self, Output};
use crate::delivery::accounting::Accounting;
use crate::delivery::batch::{Batch, Offered};
use crate::delivery::ledger::Ledger;
use crate::delivery::loss::Loss;
use crate::delivery::queue::Queue;
use crate::interfaces::netlink::{Netlink, NetlinkError};
use crate::interfaces::selection::{Selection, SelectionError};
use crate::kernel::error::ProgramError;
use crate::kernel::prepared::Options;
use crate::kernel::program::Program;
use crate::kernel::table_size::{self, Room};
use crate::policy::compile::CompiledPolicy;
use crate::policy::mandate::MandateError;
use crate::records::keys::KeyError;
use crate::serve::http::{ListenError, Listener, Server, Web, WebConfigError};
use crate::serve::ledger_file::{self, LedgerFileError, LedgerOrigin};
use crate::serve::snapshot::{Published, Snapshot};
use crate::sinks::stdout;
use crate::support::log;
use crate::support::privilege::{self, PrivilegeError, Task};
use crate::support::sys;
use reload::Reload;
use sinks::{Senders, UnknownRecipient};

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
    TimeMark(#[from] TimeMarkError),
    /// The kernel does not list its interfaces.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The selection of interfaces cannot be used.
    #[error(transparent)]
    Selection(#[from] SelectionError),
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
    #[error("cannot start the web server: {0}")]
    Server(#[source] io::Error),
    /// The policy lacks the recipient of a sink.
    #[error(transparent)]
    Sink(#[from] UnknownRecipient),
    /// The senders do not start.
    #[error("cannot start the threads of the sinks: {0}")]
    Senders(#[source] io::Error),
    /// The program does not load.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The agent does not start, or it stopped.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// Signals cannot be caught.
    #[error("cannot wait for signals: {0}")]
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
    let settings = Settings::new(args)?;
    let choice = settings.choice;
    let (compiled, keyring) = (choice.compile()?, choice.keyring()?);
    let mark = time_mark::open(settings.state_directory.as_deref(), &compiled)?;
    let selection = select(&settings.interfaces, &settings.taps)?;
    privilege::check(Task::Run)?;
    let web = settings.web_config.as_deref().map(Web::open).transpose()?;
    let listeners = settings.listen.iter().copied().map(Listener::bind).collect::<Result<_, _>>()?;
    let room = table_size::decide(settings.flows, compiled.memory).map_err(ProgramError::from)?;
    let mut program = load(&room, &compiled)?;
    let options = AgentOptions {
        selection,
        force_tap: settings.force_tap,
        mode: settings.mode.into(),
        interval: settings.interval,
    };
    let printed_lane = settings.output.map(|_| stdout::queue(choice.recipient()));
    let accounting =
        Accounting::new(sinks::queues(&settings.sinks).into_iter().chain(printed_lane.clone()).collect());
    sinks::check(&accounting, &compiled.policy)?;
    let published = Published::new(Snapshot::starting(&mut program, &options)?);
    drop_tables(&mut program, compiled);
    let observed = published.clone();
    // Caught before anything is attached: from here on, a signal always ends with a last drain.
    let signals = Caught::stop_signals().map_err(RunError::Signals)?;
    let reload_signal = Caught::new(&[SIGHUP]).map_err(RunError::Signals)?;
    let senders = Senders::start(&settings.sinks, &accounting, &published).map_err(RunError::Senders)?;
    let agent = Agent::start(program, keyring, options, accounting.clone(), mark, move |progress| {
        observed.progressed(progress)
    })?;
    let stopper = agent.stopper();
    signals.stop(move || stopper.stop()).map_err(RunError::Signals)?;
    let reload = Reload {
        choice,
        room,
        reloader: agent.reloader(),
        published: published.clone(),
        accounting: accounting.clone(),
    };
    reload_signal.handle("reload", move |_| reload.reload()).map_err(RunError::Signals)?;
    let server =
        Server::start(listeners, published.clone(), web, settings.hosts).map_err(RunError::Server)?;
    server.announce();
    let printed = match (settings.output, &printed_lane) {
        (Some(output), Some(queue)) => {
            let printed = print(queue, &accounting, &published, output);
            // The reader of the output is gone: nobody wants more records.
            agent.stopper().stop();
            printed
        }
        _ => Ok(()),
    };
    let ended = agent.wait();
    if let Some(queue) = printed_lane {
        // Batches that came after the output failed are lost, and counted.
        while let Some(batch) = queue.next_batch() {
            accounting.lost(&queue, &batch, Loss::Output);
        }
    }
    senders.finish(settings.shutdown_timeout);
    let ledger = accounting.ledger();
    // The file first: a closed standard output must not prevent it.
    if let Some(path) = &settings.ledger {
        ledger_file::write(path, &LedgerOrigin::of(&published.latest()), &ledger)?;
    }
    printed
        .and_then(|()| print_ledger(&ledger, settings.output.unwrap_or(Output::Json)))
        .map_err(RunError::Output)?;
    ended?;
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

/// Prints batches until the queue is closed. If writing fails, the batch is lost.
fn print(queue: &Queue, accounting: &Accounting, published: &Published, output: Output) -> io::Result<()> {
    let mut live = (output == Output::Table).then(Live::new).filter(Live::is_terminal);
    while let Some(batch) = queue.next_batch() {
        // The recipient was checked at the start, but a reloaded policy may lack it: then nobody may see the batch.
        let Ok(offered) = batch.offered(queue.recipient()) else {
            accounting.lost(queue, &batch, Loss::NoRecipient);
            published.settled(&accounting.ledger());
            continue;
        };
        let result = match output {
            Output::Json => print_records(&offered),
            Output::Table => show(&mut live, &batch, &offered, accounting),
        };
        match result {
            Ok(()) => accounting.exported(queue, &batch, offered.len(), offered.suppressed),
            Err(_) => accounting.lost(queue, &batch, Loss::Output),
        }
        published.settled(&accounting.ledger());
        result?;
    }
    Ok(())
}

fn print_records(offered: &Offered<'_>) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    let view = offered.view;
    offered.each(|records| text::json_lines(&mut out, records, view.fields()))?;
    text::json_lines(&mut out, offered.valued_residual().as_slice(), view.residual_fields())?;
    out.flush()
}

/// Shows the largest flows of a batch: redrawn in place on a terminal, otherwise as a table.
fn show(
    live: &mut Option<Live>,
    batch: &Batch,
    offered: &Offered<'_>,
    accounting: &Accounting,
) -> io::Result<()> {
    let mut top = Top::default();
    let Ok(()) = offered.each(|records| {
        top.add(records);
        Ok::<_, Infallible>(())
    });
    let (top, records, fields) = (top.into_sorted(), offered.len(), offered.view.fields());
    if let Some(live) = live {
        let ledger = accounting.ledger();
        let names: Vec<_> = ledger.interfaces().map(|(name, _)| name).collect();
        let interval = Interval { totals: &batch.totals, records, top: &top, fields };
        return live.show(&format!("{}  Ctrl-C ends", names.join(", ")), &interval, &ledger);
    }
    let mut out = BufWriter::new(io::stdout().lock());
    text::table(&mut out, &top, fields)?;
    let (more, packets) = (records - top.len(), batch.totals.recorded.packets);
    writeln!(out, "{records} records, {packets} packets ({more} more records)\n")?;
    out.flush()
}

/// Prints the ledger below the table, or to the standard error so that it does not mix with JSON Lines.
fn print_ledger(ledger: &Ledger, output: Output) -> io::Result<()> {
    match output {
        Output::Table => text::ledger(&mut io::stdout().lock(), ledger),
        Output::Json => {
            log::result(&serde_json::to_string(ledger)?);
            Ok(())
        }
    }
}
