//! The content of a machine's memory at start: programs with their libraries, and modules.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use cpio::NewcBuilder;
use cpio::newc::{ModeFileType, trailer};

use super::guest::Guest;

/// Where the guest looks for modules.
const MODULES: &str = "modules";

/// Writes the archive that the kernel unpacks; the guest's program is its first process.
pub fn write(archive: &Path, guest: &Guest, modules: &Path) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(archive)?);
    // Without this entry everybody could write to the root folder.
    directory(&mut out, ".")?;
    // A folder comes before its content, and each folder comes once.
    let inner = |path: &Path| path.strip_prefix("/").unwrap_or(path).to_string_lossy().into_owned();
    let folders: BTreeSet<_> =
        guest.libraries.iter().flat_map(|path| path.ancestors().skip(1)).map(inner).collect();
    for folder in folders.iter().filter(|folder| !folder.is_empty()) {
        directory(&mut out, folder)?;
    }
    for library in &guest.libraries {
        file(&mut out, &inner(library), 0o755, &fs::read(library)?)?;
    }
    // Where a process without a search path finds it.
    directory(&mut out, "bin")?;
    file(&mut out, "bin/ip", 0o755, &fs::read(&guest.ip)?)?;
    file(&mut out, "init", 0o755, &fs::read(&guest.program)?)?;
    directory(&mut out, MODULES)?;
    for module in fs::read_dir(modules)? {
        let module = module?;
        let name = format!("{MODULES}/{}", module.file_name().to_string_lossy());
        file(&mut out, &name, 0o644, &fs::read(module.path())?)?;
    }
    trailer(out)?.flush()
}

fn directory(out: &mut impl Write, name: &str) -> io::Result<()> {
    let entry = NewcBuilder::new(name).mode(0o755).set_mode_file_type(ModeFileType::Directory).nlink(2);
    entry.write(out, 0).finish()?;
    Ok(())
}

fn file(out: &mut impl Write, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
    let octets = u32::try_from(content.len()).map_err(io::Error::other)?;
    let entry = NewcBuilder::new(name).mode(mode).set_mode_file_type(ModeFileType::Regular);
    let mut entry = entry.write(out, octets);
    entry.write_all(content)?;
    entry.finish()?;
    Ok(())
}
