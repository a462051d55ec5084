//! A file system in memory, with as little room as a test wants.

use std::ffi::CString;
use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// It is gone when this is dropped.
pub struct Tmpfs(
    /// Where it is mounted.
    pub PathBuf,
);

impl Tmpfs {
    /// Mounts one at a path, which is made if it is missing.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn mount(path: PathBuf, octets: u64) -> Result<Self> {
        fs::create_dir_all(&path)?;
        let size = CString::new(format!("size={octets}"))?;
        mount("tmpfs", &path, "tmpfs", MountFlags::empty(), Some(size.as_c_str()))?;
        Ok(Self(path))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).ok();
    }
}
