//! What a machine has in memory when it starts: one program, one module.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use cpio::NewcBuilder;
use cpio::newc::{ModeFileType, trailer};

/// Writes the archive that the kernel unpacks; `init` is its first process.
pub fn write(archive: &Path, init: &Path, veth_module: &Path) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(archive)?);
    // The root folder would otherwise be writable by all.
    directory(&mut out, ".")?;
    file(&mut out, "init", 0o755, &fs::read(init)?)?;
    file(&mut out, "veth.ko", 0o644, &fs::read(veth_module)?)?;
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
