//! How many instructions the verifier walked, from the source that each kernel has.

use std::fs::File;
use std::os::fd::AsRawFd as _;

use aya::VerifierLogLevel;
use aya::programs::ProgramError as AyaError;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::kernel::attach::Action;
use crate::kernel::error::ProgramError;
use crate::kernel::features::Kernel;
use crate::kernel::prepared::{Options, Prepared};
use crate::kernel::program::{OBJECT, Program, xdp_mut};

/// Loads the program as [`Program::load_for`] does and returns the count, if the kernel gives it.
///
/// For tests only: on kernels before 5.16, no thread of the process can open a file during the call.
///
/// # Errors
/// If the program does not load.
pub fn instructions(kernel: Kernel, options: &Options) -> Result<Option<u32>, ProgramError> {
    let count = Program::load_for(kernel, options)?.info()?.verified_instruction_count();
    count.map_or_else(|| from_log(kernel, options), |count| Ok(Some(count)))
}

/// Kernels before 5.16 give the count only in the verifier's log, and the loader keeps the log only if the
/// load fails. The load of a verified program fails if there is no number left for its descriptor.
fn from_log(kernel: Kernel, options: &Options) -> Result<Option<u32>, ProgramError> {
    let Prepared { mut ebpf, .. } = Prepared::new(kernel, OBJECT, options, VerifierLogLevel::STATS)?;
    let xdp = xdp_mut(&mut ebpf, Action::Pass.program(options.compiled.policy.tunnels))?;
    let before = getrlimit(Resource::Nofile);
    let Ok(next) = File::open("/dev/null").map(|file| file.as_raw_fd().unsigned_abs()) else {
        return Ok(None);
    };
    if setrlimit(Resource::Nofile, Rlimit { current: Some(next.into()), ..before }).is_err() {
        return Ok(None);
    }
    let loaded = xdp.load();
    // Restores the limit. The kernel does not refuse the old value.
    let _ = setrlimit(Resource::Nofile, before);
    Ok(match loaded {
        Err(AyaError::LoadError { verifier_log, .. }) => count(&verifier_log.to_string()),
        _ => None,
    })
}

/// The number in `processed 1234 insns (limit 1000000) …`.
fn count(log: &str) -> Option<u32> {
    log.lines()
        .rev()
        .find_map(|line| line.trim().strip_prefix("processed ")?.split_once(" insns")?.0.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn the_verifier_says_at_the_end_what_it_walked() {
        let log = "stack depth 184+0\nprocessed 23456 insns (limit 1000000) max_states_per_insn 4\n";
        assert_eq!(count(log), Some(23456));
        assert_eq!(count("0: R1=ctx\n"), None);
    }
}
