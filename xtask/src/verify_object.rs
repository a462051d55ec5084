//! `cargo xtask verify-object`: what the kernel program in an agent can do, and whether it comes from this
//! source.

mod embedded;
mod flow;
mod instruction;
mod loaded;
mod object;
mod rules;
mod tag;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::report::Tally;
use crate::setup::{self, Purpose};
use crate::workspace::{self, Profile};
use crate::{build, kernel_program};
use loaded::Loaded;
use object::KernelObject;
use rules::Findings;
use tag::{Tags, hexadecimal};

/// Command line of the verb.
#[derive(clap::Args)]
pub struct Arguments {
    /// An object file to check instead of the one in the agent.
    #[arg(long, value_name = "FILE")]
    object: Option<PathBuf>,
    /// Only inspect the object; do not compare it with a rebuild or with what the kernel has loaded.
    #[arg(long = "static")]
    only_static: bool,
}

/// Builds the agent, extracts the object and checks it.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    setup::ensure(Purpose::Build)?;
    let bytes = match &arguments.object {
        Some(file) => fs::read(file).with_context(|| format!("cannot read {}", file.display()))?,
        None => {
            build::release()?;
            of_the_agent(Profile::Release)?
        }
    };
    let tally = verify(&bytes, (!arguments.only_static).then_some(Profile::Release))?;
    println!("{} passed, {} failed", tally.passed, tally.failed);
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs every check on the object in the agent that the tests ran.
pub fn tested() -> Result<Tally> {
    build::tested()?;
    verify(&of_the_agent(Profile::Tested)?, Some(Profile::Tested))
}

fn of_the_agent(profile: Profile) -> Result<Vec<u8>> {
    let path = workspace::program("minimizer", profile);
    let agent = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(embedded::find(&agent).with_context(|| path.display().to_string())?.to_vec())
}

/// Checks an object. With a profile, compares it also with a rebuild and with what that profile's loader
/// loads.
fn verify(bytes: &[u8], compare: Option<Profile>) -> Result<Tally> {
    let object = KernelObject::parse(bytes)?;
    let findings = rules::check(&object);
    print(bytes, &object, &findings);
    let mut results = vec![("the rules hold", conclude(&findings.violations))];
    if let Some(profile) = compare {
        results.push(("a rebuild gives the same bytes", rebuilt(bytes)));
        results.push(("the kernel loads these programs", loaded_is(bytes, &object, profile)));
    }
    let mut tally = Tally::default();
    for (what, result) in results {
        match result {
            Ok(()) => {
                println!("ok      {what}");
                tally.passed += 1;
            }
            Err(error) => {
                println!("FAILED  {what}: {error:#}");
                tally.failed += 1;
            }
        }
    }
    Ok(tally)
}

fn conclude(violations: &[String]) -> Result<()> {
    if violations.is_empty() { Ok(()) } else { bail!("\n        {}", violations.join("\n        ")) }
}

/// Builds the object anew in an empty folder and compares it.
fn rebuilt(bytes: &[u8]) -> Result<()> {
    let folder = workspace::root().join("target/verify-object");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    eprintln!("building the kernel program anew in {}", folder.display());
    let linker = kernel_program::installed_linker(workspace::root());
    let program =
        kernel_program::KernelProgram { package: "minimizer-ebpf", bin: "minimizer", features: "program" };
    let (path, _) =
        kernel_program::build(workspace::root(), &linker, &folder, &program).map_err(anyhow::Error::msg)?;
    let fresh = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    same_bytes(bytes, &fresh, &path)
}

fn same_bytes(bytes: &[u8], fresh: &[u8], path: &Path) -> Result<()> {
    if bytes == fresh {
        return Ok(());
    }
    let differs = bytes.iter().zip(fresh).position(|(one, other)| one != other);
    let at = differs.unwrap_or(bytes.len().min(fresh.len()));
    bail!(
        "{} bytes against {} in {}, the first difference at byte {at:#x}",
        bytes.len(),
        fresh.len(),
        path.display()
    )
}

/// Lets the agent's loader load its object, and compares the kernel's view of it.
fn loaded_is(bytes: &[u8], object: &KernelObject, profile: Profile) -> Result<()> {
    let Loaded { object_digest, tags } = loaded::ask(profile)?;
    let digest = hexadecimal(&Sha256::digest(bytes));
    if object_digest != digest {
        bail!("the agent loads the object with digest {object_digest}, this one has {digest}");
    }
    for program in &object.programs {
        let name = &program.name;
        let tag = tags.get(name).with_context(|| format!("the agent does not load program {name}"))?;
        let Tags { sha256, sha1 } = Tags::of(program);
        // The kernel's version decides which tag it computes; both cover every instruction.
        let (sha256, sha1) = (hexadecimal(&sha256), hexadecimal(&sha1));
        if *tag != sha256 && *tag != sha1 {
            bail!("the kernel's tag of {name} is {tag}, the object's {sha256} or {sha1}");
        }
    }
    Ok(())
}

fn print(bytes: &[u8], object: &KernelObject, findings: &Findings) {
    println!("object        {} bytes, SHA-256 {}", bytes.len(), hexadecimal(&Sha256::digest(bytes)));
    println!("licence       {}", object.licence);
    for program in &object.programs {
        let Tags { sha256, sha1 } = Tags::of(program);
        println!("program       {} in {}", program.name, program.section);
        println!("  instructions  {}", program.instructions.len());
        println!(
            "  tag           {} (Linux 6.18 and later), {} (before)",
            hexadecimal(&sha256),
            hexadecimal(&sha1)
        );
    }
    for (number, calls) in &findings.helpers {
        println!(
            "helper        {number:<4} {:<24} {calls} calls",
            rules::helper_name(*number).unwrap_or("?")
        );
    }
    for (name, map) in &object.maps {
        let kind = rules::kind_name(map.kind);
        println!("map           {name:<12} {kind}, {} x {} bytes", map.entries, map.value_bytes);
    }
    for (name, flow) in &findings.flows {
        let (loads, stores) = (flow.packet_loads, flow.foreign_stores.len());
        println!("{name:<13} {loads} loads of header fields");
        println!("{:<13} {stores} stores to anything but the stack and map values", "");
    }
}
