//! An agent in a process of its own, whose wall clock is set from its standard input: each line says how many seconds it is
//! ahead. The agent prints how many records it made of each batch for both recipients.

use std::env;
use std::io::{self, BufRead as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use minimizer::agent::time_mark::TimeMark;
use minimizer::agent::{Agent, AgentOptions};
use minimizer::delivery::accounting::Accounting;
use minimizer::interfaces::selection::Selection;
use minimizer::kernel::attach::Mode;
use minimizer::kernel::prepared::Options;
use minimizer::kernel::program::Program;
use minimizer::policy::compile::CompiledPolicy;
use minimizer::records::keys::Keys;
use minimizer::records::terms::Keyring;
use minimizer::sinks::stdout;
use minimizer::support::{log, traces};
use tests::clocks::SetClocks;

fn main() -> Result<()> {
    let _log = log::start()?;
    traces::hide_memory()?;
    let arguments = env::args().collect::<Vec<_>>();
    let [_, policy, keys, interface] = arguments.as_slice() else {
        anyhow::bail!("usage: epochs POLICY KEYS INTERFACE");
    };
    let clocks = Arc::new(SetClocks::default());
    let compiled = CompiledPolicy::load(policy, &[])?;
    let options = Options { flows_per_cpu: 64, compiled, clocks: clocks.clone(), ..Options::default() };
    let program = Program::load(&options)?;
    let keyring = Keyring::new(Keys::load(Some(Path::new(keys)))?);
    let queue = stdout::queue(None);
    let accounting = Accounting::new(vec![Arc::clone(&queue)]);
    let options = AgentOptions {
        selection: Selection::one(interface),
        force_tap: false,
        mode: Mode::Skb,
        interval: Duration::from_secs(1),
    };
    let mark = TimeMark::in_memory(clocks.clone());
    let agent = Agent::start(program, keyring, options, accounting.clone(), mark, |_| {})?;
    let viewer = thread::spawn(move || -> Result<()> {
        while let Some(batch) = queue.next_batch() {
            let mut records = 0;
            for recipient in ["plain", "permuted"] {
                batch.offered(Some(recipient))?.each(|some| {
                    records += some.len();
                    Ok::<_, io::Error>(())
                })?;
            }
            let offered = batch.offered(None)?;
            accounting.exported(&queue, &batch, offered.len(), offered.suppressed);
            writeln!(io::stdout(), "{records}")?;
        }
        Ok(())
    });
    for line in io::stdin().lock().lines() {
        clocks.set_ahead(line?.parse().context("seconds")?);
    }
    agent.stopper().stop();
    agent.wait()?;
    viewer.join().map_err(|_| anyhow::anyhow!("the viewer panicked"))?
}
