//! Reads a file that a person wrote. A FIFO under its name would hold its reader up for ever, and a device may have no end.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// More than any policy, list, configuration or certificate takes.
const OCTETS_MAX: u64 = 256 << 20;

/// The octets of a regular file. Links are followed.
///
/// # Errors
/// When it cannot be read, is no regular file, or has more than 256 MiB.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    // Without this flag opening a FIFO would wait for a writer.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !kind.is_file() {
        return Err(io::Error::other(
            "it is no regular file, but a FIFO or a device: copy what it gives to a file",
        ));
    }
    let mut octets = Vec::new();
    file.take(OCTETS_MAX + 1).read_to_end(&mut octets)?;
    if u64::try_from(octets.len()).is_ok_and(|octets| octets > OCTETS_MAX) {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(octets)
}

/// The text of a regular file.
///
/// # Errors
/// As [`read`], and when it is no UTF-8.
pub fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::read;

    #[test]
    fn a_fifo_and_a_device_are_refused_and_nobody_waits() {
        let folder = tempfile::tempdir().expect("a folder");
        let (fifo, file) = (folder.path().join("fifo"), folder.path().join("file"));
        mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO");
        for path in [&*fifo, Path::new("/dev/zero")] {
            let error = read(path).expect_err("is refused").to_string();
            assert!(error.contains("no regular file"), "{error}");
        }
        assert!(read(folder.path()).is_err());
        fs::write(&file, "text").expect("is written");
        assert_eq!(read(&file).expect("is read"), b"text");
    }
}
