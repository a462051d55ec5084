//! A small disk of its own that can be filled, and frozen so that whoever writes to it hangs.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use tempfile::TempDir;

/// An ext4 file system of 16 MiB in a file.
pub struct Disk {
    folder: TempDir,
}

/// Nobody can write to the disk until this is dropped.
pub struct Frozen(PathBuf);

/// There is no room on the disk until this is dropped.
pub struct Full(PathBuf);

fn command(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

impl Disk {
    /// Makes and mounts it.
    ///
    /// # Errors
    /// When a tool of it fails.
    pub fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let image = folder.path().join("image");
        File::create(&image)?.set_len(16 << 20)?;
        command(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image))?;
        let disk = Self { folder };
        fs::create_dir(disk.path())?;
        command(Command::new("mount").args(["-o", "loop"]).args([&image, &disk.path()]))?;
        Ok(disk)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    /// Has everybody who writes to it hang.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn freeze(&self) -> Result<Frozen> {
        command(Command::new("fsfreeze").arg("-f").arg(self.path()))?;
        Ok(Frozen(self.path()))
    }

    /// Writes until there is no room.
    ///
    /// # Errors
    /// Others than that there is no room.
    pub fn fill(&self) -> Result<Full> {
        let path = self.path().join("filler");
        let mut file = File::create(&path)?;
        for octets in [1 << 16, 1 << 10, 1] {
            while match file.write_all(&vec![1; octets]) {
                Ok(()) => true,
                Err(error) if error.kind() == ErrorKind::StorageFull => false,
                Err(error) => return Err(error.into()),
            } {}
        }
        file.sync_all()?;
        Ok(Full(path))
    }
}

fn quietly(program: &str, option: &str, path: &Path) {
    // Whatever is left goes with the machine.
    Command::new(program).arg(option).arg(path).output().ok();
}

impl Drop for Frozen {
    fn drop(&mut self) {
        quietly("fsfreeze", "-u", &self.0);
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        quietly("umount", "-l", &self.path());
    }
}
