//! `run`: the agent on live interfaces until it is told to stop.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::agent::{Agent, AgentError, AgentOptions, Batch, Outlet};
use crate::cli;
use crate::http::{ListenError, Listener, Server};
use crate::ledger::Ledger;
use crate::live::Live;
use crate::metrics::{Published, Snapshot};
use crate::netlink::{Netlink, NetlinkError};
use crate::policy::{Policy, PolicyError};
use crate::privilege::{self, PrivilegeError, Task};
use crate::program::{Options, Program, ProgramError};
use crate::report::{self, Output};
use crate::selection::{Selection, SelectionError};
use crate::size;

/// Records that an interval shows in a table.
const ROWS_MAX: usize = 20;

/// Why `run` does not start, or ended.
#[derive(Debug, Error)]
pub enum RunError {
    /// The policy cannot be used.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// An interface cannot be found.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The selection of interfaces cannot be used.
    #[error(transparent)]
    Selection(#[from] SelectionError),
    /// Capabilities are missing.
    #[error(transparent)]
    Privilege(#[from] PrivilegeError),
    /// The address for the web server cannot be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The web server does not start.
    #[error("cannot start the web server: {0}")]
    Server(#[source] io::Error),
    /// The program does not load.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The agent does not start, or stopped.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// No signals.
    #[error("cannot wait for signals: {0}")]
    Signals(#[source] io::Error),
    /// Records cannot be printed.
    #[error("cannot write to the standard output: {0}; records from then on are counted as dropped")]
    Output(#[source] io::Error),
    /// The ledger cannot be written.
    #[error("cannot write the ledger to {}: {source}", path.display())]
    Ledger {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something is not accounted for.
    #[error("the ledger does not balance: this is a defect, please report it with the ledger")]
    Unbalanced,
}

/// Watches the interfaces until SIGINT or SIGTERM, then drains once more and prints the ledger.
///
/// # Errors
/// See [`RunError`]. Nothing is left attached.
pub fn run(args: &cli::Run) -> Result<(), RunError> {
    let policy = Policy::named(&args.policy.policy, &args.policy.tunnels)?;
    let selection = select(args)?;
    privilege::check(Task::Run)?;
    let listener = Listener::bind(args.listen)?;
    let runtime = Runtime::new().map_err(RunError::Signals)?;
    let mut program = load(&args.table, policy)?;
    let options = AgentOptions {
        selection,
        force_tap: args.force_tap,
        mode: args.mode.into(),
        interval: args.interval,
    };
    let published = Published::new(Snapshot::starting(&mut program, &options)?);
    let observed = published.clone();
    // Before anything is attached: a signal at any later moment ends with a last drain.
    let signals = Signals::catch(&runtime)?;
    let agent = Agent::start(program, options, move |progress| observed.progressed(progress))?;
    let stopper = agent.stopper();
    signals.stop(&runtime, move || stopper.stop());
    let server = Server::start(listener, published.clone()).map_err(RunError::Server)?;
    eprintln!("minimizer: serving http://{}/", server.address());
    let outlet = agent.outlet();
    let printed = print(&outlet, &published, args.output);
    // Without an output there is nothing to run for.
    agent.stopper().stop();
    let ended = agent.wait();
    // Whatever came after the output failed is lost, and counted as such.
    while let Some(batch) = outlet.next() {
        outlet.dropped(&batch);
    }
    let ledger = outlet.ledger();
    // The file first: a standard output that is closed must not cost it.
    if let Some(path) = &args.ledger {
        write_ledger(path, &ledger)?;
    }
    printed.and_then(|()| print_ledger(&ledger, args.output)).map_err(RunError::Output)?;
    ended?;
    if ledger.is_balanced() { Ok(()) } else { Err(RunError::Unbalanced) }
}

/// Loads the program for live interfaces, once it has said how much memory its tables take.
///
/// # Errors
/// See [`ProgramError`].
pub fn load(table: &cli::Table, policy: Policy) -> Result<Program, ProgramError> {
    let flows_per_cpu = size::decide(table)?;
    Program::load(&Options { flows_per_cpu, tunnels: policy.tunnels, ..Options::default() })
}

/// SIGINT and SIGTERM, from now on caught and remembered.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Catches the signals.
    ///
    /// # Errors
    /// When the kernel or the runtime refuses.
    pub fn catch(runtime: &Runtime) -> Result<Self, RunError> {
        let _context = runtime.enter();
        let catch = |kind| signal(kind).map_err(RunError::Signals);
        Ok(Self { interrupt: catch(SignalKind::interrupt())?, terminate: catch(SignalKind::terminate())? })
    }

    /// Calls `stop` on the first signal; a second one ends the process as signals do.
    pub fn stop(mut self, runtime: &Runtime, stop: impl Fn() + Send + 'static) {
        runtime.spawn(async move {
            self.next().await;
            stop();
            let number = self.next().await;
            eprintln!("minimizer: stopped by a second signal; the last interval is not printed");
            #[expect(clippy::disallowed_methods, reason = "the user insists; links end with the process")]
            std::process::exit(128 + number);
        });
    }

    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => 2,
            _ = self.terminate.recv() => 15,
        }
    }
}

/// Writes the ledger as JSON.
///
/// # Errors
/// When the file cannot be written.
pub fn write_ledger(path: &Path, ledger: &Ledger) -> Result<(), RunError> {
    let write = || -> io::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        serde_json::to_writer_pretty(&mut file, ledger)?;
        file.write_all(b"\n")?;
        file.flush()
    };
    write().map_err(|source| RunError::Ledger { path: path.to_owned(), source })
}

/// The interfaces that are meant. A name must be there; a pattern may match nothing yet.
fn select(args: &cli::Run) -> Result<Selection, RunError> {
    let selection = Selection::new(&args.interfaces, &args.taps)?;
    let links = Netlink::open()?.links()?;
    for pattern in selection.check(&links)? {
        eprintln!("minimizer: no interface matches {pattern} yet; those that appear are watched");
    }
    Ok(selection)
}

/// Prints batches until there are no more. When writing fails, the batch is lost.
fn print(outlet: &Outlet, published: &Published, output: Output) -> io::Result<()> {
    let mut live = (output == Output::Table).then(Live::new).filter(Live::is_terminal);
    while let Some(batch) = outlet.next() {
        let result = match &mut live {
            Some(live) => {
                let ledger = outlet.ledger();
                let names: Vec<_> = ledger.interfaces().map(|(name, _)| name).collect();
                live.show(&format!("{}  Ctrl-C ends", names.join(", ")), &batch, &ledger)
            }
            None => print_batch(&batch, output),
        };
        match result {
            Ok(()) => {
                outlet.exported(&batch);
                published.exported(&outlet.ledger(), batch.records.len());
            }
            Err(_) => {
                outlet.dropped(&batch);
                published.dropped(&outlet.ledger());
            }
        }
        result?;
    }
    Ok(())
}

fn print_batch(batch: &Batch, output: Output) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    match output {
        Output::Json => report::json_lines(&mut out, &batch.records)?,
        Output::Table => {
            let mut top: Vec<_> = batch.records.iter().collect();
            top.sort_unstable_by_key(|record| (std::cmp::Reverse(record.octets), record.tuple));
            report::table(&mut out, top.iter().copied().take(ROWS_MAX))?;
            let more = top.len().saturating_sub(ROWS_MAX);
            writeln!(
                out,
                "{} records, {} packets ({more} more records)\n",
                top.len(),
                batch.totals.recorded.packets
            )?;
        }
    }
    out.flush()
}

/// The ledger goes where it does not mix with records: to the table, or beside the JSON Lines.
fn print_ledger(ledger: &Ledger, output: Output) -> io::Result<()> {
    match output {
        Output::Table => report::ledger(&mut io::stdout().lock(), ledger),
        Output::Json => {
            let mut err = io::stderr().lock();
            serde_json::to_writer(&mut err, ledger)?;
            err.write_all(b"\n")
        }
    }
}
