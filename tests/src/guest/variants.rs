//! Every way in which the program can be loaded: the one table of them.

use minimizer::kernel::Kernel;
use minimizer::program::{Clock, Options, Program, ProgramError};

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
        Program::load_for(self.kernel, &self.options)
    }
}

/// All variants that a kernel can run: the one for single buffers everywhere, since it has to work
/// where nothing else does.
pub fn all(kernel: Kernel) -> Vec<Variant> {
    let kernels = [Kernel { multi_buffer: false }, Kernel { multi_buffer: true }];
    let kernels = kernels.into_iter().filter(|lesser| kernel.multi_buffer || !lesser.multi_buffer);
    let clocks = [Clock::Tick, Clock::Control];
    kernels.flat_map(|kernel| clocks.map(|clock| variant(kernel, clock))).collect()
}

fn variant(kernel: Kernel, clock: Clock) -> Variant {
    let length = if kernel.multi_buffer { "buffers" } else { "buffer" };
    let time = match clock {
        Clock::Tick => "tick",
        Clock::Control => "control",
    };
    let options = Options { flows_per_cpu: FLOWS_PER_CPU, clock, hash_keys: None };
    Variant { name: format!("{length}/{time}"), options, kernel }
}
