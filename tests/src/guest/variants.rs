//! Every way in which the program can be loaded: the one table of them.

use minimizer::kernel::error::ProgramError;
use minimizer::kernel::features::Kernel;
use minimizer::kernel::prepared::{Clock, Options};
use minimizer::kernel::program::Program;
use minimizer::policy::compile::CompiledPolicy;
use minimizer::policy::model::Policy;
use minimizer_common::tunnel::Tunnels;

use crate::policies;

/// Large enough for every corpus here, small enough for the machine.
const FLOWS_PER_CPU: u32 = 8192;

/// One way to load the program.
pub struct Variant {
    /// Its name in the report.
    pub name: String,
    /// What is chosen.
    pub options: Options,
    /// What is taken for granted of the kernel.
    pub kernel: Kernel,
}

impl Variant {
    /// Loads it as the agent would.
    pub fn load(&self) -> Result<Program, ProgramError> {
        let mut program = Program::load_for(self.kernel, &self.options)?;
        // The same code with the other verdict, which is loaded where there is a tap.
        program.load_tap()?;
        Ok(program)
    }
}

/// All variants that a kernel can run: the one for single buffers everywhere, since it has to work
/// where nothing else does.
pub fn all(kernel: Kernel) -> Vec<Variant> {
    let least = Kernel { multi_buffer: false, large_values: false };
    let kernels = std::iter::once(least).chain((kernel != least).then_some(kernel));
    let choices =
        [(Clock::Tick, Tunnels::NONE), (Clock::Control, Tunnels::NONE), (Clock::Tick, Tunnels::ALL)];
    kernels.flat_map(|kernel| choices.map(|(clock, tunnels)| variant(kernel, clock, tunnels))).collect()
}

/// The policies whose programs are loaded and run beside those variants, with the name of each.
pub fn policies() -> Vec<(String, Policy)> {
    let carrier_default = Policy::load("carrier-default", &[]).expect("is built in");
    vec![
        ("carrier-default".to_owned(), carrier_default),
        ("everything".to_owned(), policies::everything(Tunnels::NONE)),
        ("everything/tunnels".to_owned(), policies::everything(Tunnels::ALL)),
    ]
}

fn variant(kernel: Kernel, clock: Clock, tunnels: Tunnels) -> Variant {
    let length = if kernel.multi_buffer { "buffers" } else { "buffer" };
    let time = match clock {
        Clock::Tick => "tick",
        Clock::Control => "control",
    };
    let inner = if tunnels.is_empty() { "" } else { "/tunnels" };
    let compiled = CompiledPolicy::full_record(tunnels);
    let options = Options { flows_per_cpu: FLOWS_PER_CPU, clock, compiled, ..Options::default() };
    Variant { name: format!("{length}/{time}{inner}"), options, kernel }
}
