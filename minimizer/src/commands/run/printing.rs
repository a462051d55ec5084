//! The records and the ledger on the standard output. Whoever reads it may read slowly, or not at all: printing has a thread
//! of its own.

use std::convert::Infallible;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::sinks::AtWork;
use crate::commands::live::{Interval, Live, Top};
use crate::commands::text::{self, Output};
use crate::delivery::accounting::Accounting;
use crate::delivery::batch::{Batch, Offered};
use crate::delivery::ledger::Ledger;
use crate::delivery::loss::Loss;
use crate::delivery::queue::Queue;
use crate::serve::snapshot::Published;
use crate::serve::status::LedgerReport;
use crate::support::{limited, log};

/// Longest wait for who reads the ledger at the end.
const LEDGER_LIMIT: Duration = Duration::from_secs(1);

/// Prints batches on a thread of its own until their queue is closed and empty. `failed` is told when the output cannot be
/// written; batches from then on are lost.
///
/// # Errors
/// When there is no thread.
pub fn start(
    queue: Arc<Queue>,
    accounting: Accounting,
    published: Published,
    output: Output,
    at_work: AtWork,
    failed: impl FnOnce(io::Error) + Send + 'static,
) -> io::Result<()> {
    let print = move || {
        if let Err(error) = print(&queue, &accounting, &published, output) {
            failed(error);
        }
        // Batches that came after the output failed are lost, and counted.
        while let Some(batch) = queue.next_batch() {
            accounting.lost(&queue, &batch, Loss::Output);
        }
        drop(at_work);
    };
    thread::Builder::new().name("output".to_owned()).spawn(print).map(drop)
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
        queue.begin_call();
        let result = match output {
            Output::Json => print_records(&offered),
            Output::Table => show(&mut live, &batch, &offered, accounting),
        };
        queue.end_call();
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
    let values = offered.values;
    offered.each(|records| text::json_lines(&mut out, records, values.fields()))?;
    text::json_lines(&mut out, offered.valued_residual().as_slice(), values.residual_fields())?;
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
    let (top, records, fields) = (top.into_sorted(), offered.len(), offered.values.fields());
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

/// Prints the ledger below the table, or to the standard error so that it does not mix with JSON Lines. It waits for the
/// reader, but not for long.
///
/// # Errors
/// When it cannot be written, or nobody reads it.
pub fn print_ledger(ledger: &Ledger, output: Output) -> io::Result<()> {
    match output {
        Output::Table => {
            let ledger = ledger.clone();
            let print = move || text::ledger(&mut io::stdout().lock(), &ledger);
            limited::within(LEDGER_LIMIT, "output", print)?
                .unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
        }
        Output::Json => {
            log::result(&serde_json::to_string(&LedgerReport::told(ledger))?);
            Ok(())
        }
    }
}
