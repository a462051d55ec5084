//! Files of messages (RFC 5655): written under a hidden name, and given their own when they are complete.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;

use super::outbox::{HEADER_OCTETS, Outbox};
use super::transport::{Retirement, Transport};
use crate::delivery::loss::Loss;
use crate::delivery::sink::{Heading, SinkError, Taken};

/// What names of complete files end with, and those of others.
const COMPLETE: &str = ".ipfix";
const PART: &str = ".ipfix.part";
/// How often it is looked for files that are kept too long.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Length of the time in a name.
const TIME_OCTETS: usize = "20261123T031500Z".len();
/// Files of one second.
const COUNT_MAX: u32 = 9999;

/// Writes files.
pub(super) struct Files {
    directory: PathBuf,
    /// Names of files begin with it.
    name: String,
    rotate_every: Duration,
    rotate_octets: u64,
    /// How long the recipient may keep files.
    retention: Option<Duration>,
    part: Option<Part>,
    is_recovered: bool,
    look_at: Option<Instant>,
    octets_written: u64,
}

/// A file that is being written.
struct Part {
    file: File,
    path: PathBuf,
    complete: PathBuf,
    octets: u64,
    began_at: Instant,
    is_synced: bool,
}

impl Files {
    pub(super) const fn new(
        directory: PathBuf,
        name: String,
        rotate_every: Duration,
        rotate_octets: u64,
    ) -> Self {
        Self {
            directory,
            name,
            rotate_every,
            rotate_octets,
            retention: None,
            part: None,
            is_recovered: false,
            look_at: None,
            octets_written: 0,
        }
    }

    fn is_due(&self) -> bool {
        self.part.as_ref().is_some_and(|part| {
            part.began_at.elapsed() >= self.rotate_every || part.octets >= self.rotate_octets
        })
    }

    /// Begins a file.
    fn begin(&self) -> io::Result<Part> {
        fs::create_dir_all(&self.directory)?;
        let time = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        for count in 0..=COUNT_MAX {
            let stem = format!("{}-{time}-{count:04}", self.name);
            let complete = self.directory.join(format!("{stem}{COMPLETE}"));
            if complete.try_exists()? {
                continue;
            }
            let path = self.directory.join(format!(".{stem}{PART}"));
            let file = match OpenOptions::new().append(true).create_new(true).open(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                file => file?,
            };
            // Nobody else takes it for one that was left behind.
            lock(&file)?;
            let began_at = Instant::now();
            return Ok(Part { file, path, complete, octets: 0, began_at, is_synced: true });
        }
        Err(io::Error::other("there are too many files of this second"))
    }

    /// Completes the file that is being written.
    fn complete(&mut self) -> Result<(), SinkError> {
        let Some(part) = &self.part else { return Ok(()) };
        complete(&part.file, &part.path, &part.complete)
            .map_err(|error| failed(&part.path, "complete", &error))?;
        self.part = None;
        Ok(())
    }

    /// Completes files that an agent left behind which was interrupted.
    fn recover(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some(stem) = name.strip_prefix('.').and_then(|name| name.strip_suffix(PART)) else {
                continue;
            };
            if !self.is_ours(stem) {
                continue;
            }
            let mut file = OpenOptions::new().read(true).write(true).open(&path)?;
            if lock(&file).is_err() {
                continue;
            }
            let whole = whole_messages(&mut file)?;
            if whole == 0 {
                fs::remove_file(&path)?;
                continue;
            }
            file.set_len(whole)?;
            complete(&file, &path, &self.directory.join(format!("{stem}{COMPLETE}")))?;
        }
        Ok(())
    }

    /// Whether files of this sink are called like that.
    fn is_ours(&self, stem: &str) -> bool {
        let rest = stem.strip_prefix(self.name.as_str()).and_then(|rest| rest.strip_prefix('-'));
        rest.and_then(|rest| rest.split_once('-')).is_some_and(|(time, count)| {
            time.len() == TIME_OCTETS
                && time.ends_with('Z')
                && count.len() == 4
                && count.bytes().all(|octet| octet.is_ascii_digit())
        })
    }

    /// Removes files that are older than the recipient may keep them.
    fn remove_old(&self, retention: Duration) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if !name.strip_suffix(COMPLETE).is_some_and(|stem| self.is_ours(stem)) {
                continue;
            }
            let written = fs::metadata(&path)?.modified()?;
            if SystemTime::now().duration_since(written).is_ok_and(|age| age >= retention) {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    fn look(&mut self) -> Result<(), SinkError> {
        let Some(retention) = self.retention else { return Ok(()) };
        if self.look_at.is_some_and(|at| Instant::now() < at) {
            return Ok(());
        }
        self.look_at = Some(Instant::now() + LOOK_EVERY);
        self.remove_old(retention).map_err(|error| failed(&self.directory, "remove old files from", &error))
    }
}

impl Transport for Files {
    fn heed(&mut self, heading: &Heading<'_>) {
        if self.retention != heading.recipient.retention {
            self.retention = heading.recipient.retention;
            self.look_at = None;
        }
    }

    fn open(&mut self, _outbox: &mut Outbox) -> Result<bool, SinkError> {
        if self.is_due() {
            self.complete()?;
        }
        if self.part.is_some() {
            return Ok(false);
        }
        let part = self.begin().map_err(|error| failed(&self.directory, "begin a file in", &error))?;
        if !self.is_recovered {
            self.recover()
                .map_err(|error| failed(&self.directory, "complete what was left behind in", &error))?;
            self.is_recovered = true;
        }
        self.part = Some(part);
        self.look()?;
        Ok(true)
    }

    fn send(&mut self, outbox: &mut Outbox) -> Result<(), SinkError> {
        let Some(part) = &mut self.part else { return Ok(()) };
        while let Some(message) = outbox.next()? {
            if let Err(error) = part.file.write_all(&message.octets) {
                // A piece of a message would make everything behind it unreadable.
                part.file.set_len(part.octets).map_err(|error| failed(&part.path, "shorten", &error))?;
                return Err(failed(&part.path, "write", &error));
            }
            let octets = u64::try_from(message.octets.len()).unwrap_or(0);
            part.octets += octets;
            part.is_synced = false;
            self.octets_written += octets;
            outbox.sent();
        }
        Ok(())
    }

    fn confirm(&mut self, outbox: &mut Outbox, patience: Duration) -> Result<Taken, SinkError> {
        if let Some(part) = &mut self.part
            && !part.is_synced
        {
            if patience.is_zero() {
                return Ok(Taken::Held);
            }
            part.file.sync_data().map_err(|error| failed(&part.path, "write", &error))?;
            part.is_synced = true;
        }
        outbox.arrived(usize::MAX);
        Ok(if outbox.is_sent() { Taken::Delivered } else { Taken::Held })
    }

    fn retire(&mut self, _outbox: &mut Outbox) -> Result<Retirement, SinkError> {
        self.complete()?;
        Ok(Retirement::Renewed)
    }

    fn tend_at(&self) -> Option<Instant> {
        let rotate_at = self.part.as_ref().map(|part| part.began_at + self.rotate_every);
        let look_at = self.retention.and(self.look_at);
        [rotate_at, look_at].into_iter().flatten().min()
    }

    fn tend(&mut self) -> Result<(), SinkError> {
        if self.is_due() {
            self.complete()?;
        }
        self.look()
    }

    fn close(&mut self, outbox: &mut Outbox) -> Result<Taken, SinkError> {
        self.complete()?;
        outbox.arrived(usize::MAX);
        Ok(if outbox.is_sent() { Taken::Delivered } else { Taken::Held })
    }

    fn octets_written(&self) -> u64 {
        self.octets_written
    }
}

fn lock(file: &File) -> io::Result<()> {
    file.try_lock().map_err(|error| match error {
        TryLockError::Error(error) => error,
        TryLockError::WouldBlock => io::ErrorKind::WouldBlock.into(),
    })
}

/// Sees to it that the file is on the device, under its own name.
fn complete(file: &File, path: &Path, complete: &Path) -> io::Result<()> {
    file.sync_all()?;
    fs::rename(path, complete)?;
    match complete.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// Length of the whole messages that a file begins with.
fn whole_messages(file: &mut File) -> io::Result<u64> {
    let octets = file.metadata()?.len();
    let (mut whole, mut header) = (0, [0; HEADER_OCTETS]);
    loop {
        file.seek(SeekFrom::Start(whole))?;
        if file.read_exact(&mut header).is_err() {
            return Ok(whole);
        }
        let length = u64::from(u16::from_be_bytes([header[2], header[3]]));
        let is_message = header[..2] == [0, 10] && length >= 16;
        if !is_message || whole + length > octets {
            return Ok(whole);
        }
        whole += length;
    }
}

fn failed(path: &Path, what: &str, error: &io::Error) -> SinkError {
    let is_full = matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    );
    let (loss, fix) = if is_full {
        (Loss::DiskFull, "make room there, or let the recipient keep files for a shorter time")
    } else {
        (Loss::Unwritable, "the agent must be allowed to write there, and the device must work")
    };
    SinkError::new(loss, format!("cannot {what} {}: {error}; {fix}", path.display()))
}
