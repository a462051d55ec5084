//! A folder of files that a sink writes: how they are named, described, finished, recovered and deleted.
//!
//! Record files (JSON Lines, Parquet) and IPFIX files share all of it; docs/FILES.md says what a reader may rely on.

mod directory;
mod error;
mod footer;
mod journal;
mod leftovers;
mod manifest;
mod mode;
mod name;
mod open;
mod places;
mod retention;
mod unfinished;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::warn;

use crate::delivery::ending::Ending;

pub(super) use error::FileError;
pub(super) use footer::{FooterOrigin, of_group};
pub(super) use manifest::{BatchShare, Begun, Header, Manifest, Sums};
pub(super) use name::Encoding;
pub(super) use open::OpenFile;
use places::Places;
use retention::Retention;

/// Time until something is tried again that could not be deleted, read or completed.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// Whether a sink has written files to this directory, and notes of them are still there.
pub(super) fn is_used(directory: &Path) -> bool {
    directory.join(name::NOTES).is_dir()
}

/// A directory that belonged to a sink which is not there any more.
struct Former {
    path: PathBuf,
    places: Option<Places>,
    retention: Retention,
}

/// The files of one sink in its folder.
pub(super) struct Folder {
    path: PathBuf,
    sink: String,
    /// Its directories, once they are open.
    places: Option<Arc<Places>>,
    retention: Retention,
    /// Directories of sinks that are not there any more.
    former: Vec<Former>,
    /// Whether the manifests of earlier runs were listed.
    is_searched: bool,
    /// Whether unfinished files of earlier runs were dealt with.
    is_cleared: bool,
    /// Those that could not be dealt with are not tried again before this moment.
    rest_until: Option<Instant>,
    /// The temporary name of the file that was begun last: it is no leftover, even where files cannot be locked.
    begun: Option<String>,
    /// How often something that was left behind could not be dealt with.
    failures: u64,
    /// Number of the latest file.
    sequence: u64,
    ending: Ending,
}

impl Folder {
    /// The folder at `path`, which is neither read nor made yet.
    pub(super) fn new(path: &Path, sink: &str) -> Self {
        Self {
            path: path.to_owned(),
            sink: sink.to_owned(),
            places: None,
            retention: Retention::new(sink.to_owned()),
            former: Vec::new(),
            is_searched: false,
            is_cleared: false,
            rest_until: None,
            begun: None,
            failures: 0,
            sequence: 0,
            ending: Ending::default(),
        }
    }

    /// Names no file any more once the sinks are abandoned: what is in it is lost, as the ledger says.
    pub(super) fn heed(&mut self, ending: &Ending) {
        self.ending = ending.clone();
    }

    /// Deletes the files of these directories too, when their manifests say so.
    pub(super) fn adopt(&mut self, former: Vec<PathBuf>) {
        let retention = || Retention::new(self.sink.clone());
        self.former.extend(former.into_iter().map(|path| Former {
            path,
            places: None,
            retention: retention(),
        }));
    }

    /// Its directories: opened, and made where they are missing. When somebody moved or removed them, others are opened.
    fn places(&mut self) -> Result<Arc<Places>, FileError> {
        if let Some(places) = &self.places {
            if places.are_in_place() {
                return Ok(Arc::clone(places));
            }
            warn!("sink {}: somebody moved or removed {}; it is begun anew", self.sink, self.path.display());
            self.places = None;
        }
        let places = Arc::new(Places::open(&self.path)?);
        (self.is_searched, self.is_cleared, self.rest_until) = (false, false, None);
        self.places = Some(Arc::clone(&places));
        Ok(places)
    }

    /// Deals, once, with what earlier runs left behind.
    pub(super) fn search(&mut self) -> Result<(), FileError> {
        let places = self.places()?;
        if self.must_clear() {
            places.adopt()?;
            let cleared = leftovers::clear(&places, &self.sink, self.begun.as_deref())?;
            if self.is_searched {
                cleared.completed.iter().for_each(|manifest| self.retention.add(manifest));
            }
            // One entry that cannot be dealt with stops neither what is behind it nor the sink.
            self.is_cleared = cleared.failures.is_empty();
            self.rest_until = (!self.is_cleared).then(|| Instant::now() + TRY_AGAIN);
            for error in cleared.failures {
                self.failures += 1;
                warn!("sink {}: {error}; the sink goes on, and tries it again each minute", self.sink);
            }
        }
        if !self.is_searched {
            self.retention.search(&places)?;
            self.is_searched = true;
            self.search_former();
        }
        Ok(())
    }

    /// Deals with what sinks left behind that are not there any more. What cannot be searched now is searched by the next run.
    fn search_former(&mut self) {
        for former in self.former.iter_mut().filter(|former| former.places.is_none()) {
            let search = |retention: &mut Retention| {
                let places = Places::open_existing(&former.path)?;
                places.adopt()?;
                let cleared = leftovers::clear(&places, &self.sink, None)?;
                retention.search(&places)?;
                Ok::<_, FileError>((places, cleared.failures))
            };
            let failures = match search(&mut former.retention) {
                Ok((places, failures)) => {
                    former.places = Some(places);
                    failures
                }
                Err(error) => vec![error],
            };
            for error in failures {
                self.failures += 1;
                warn!("sink {}: {error}; it is tried again at the next start", self.sink);
            }
        }
    }

    /// Whether [`Self::search`] has something to do.
    pub(super) fn must_search(&self) -> bool {
        !self.is_searched || self.must_clear()
    }

    fn must_clear(&self) -> bool {
        !self.is_cleared && self.rest_until.is_none_or(|until| Instant::now() >= until)
    }

    /// A file was left unfinished during this run: the next search deals with it.
    pub(super) fn leave_behind(&mut self) {
        (self.is_cleared, self.rest_until, self.begun) = (false, None, None);
    }

    /// Tells the retention that the policy in force promises. Files written under an earlier policy that promised
    /// less time keep their own.
    pub(super) fn promise(&mut self, header: &Header) {
        self.retention.promise(header);
    }

    /// When a file's time is over, or has to be looked up.
    pub(super) fn next(&self) -> Option<Instant> {
        let again = self.rest_until.filter(|_| !self.is_cleared);
        let former = self.former.iter().filter_map(|former| former.retention.next());
        again.into_iter().chain(self.retention.next()).chain(former).min()
    }

    /// Deletes files whose time is over, for a bounded time. What cannot be deleted is counted.
    pub(super) fn work(&mut self) {
        if let Some(places) = &self.places {
            self.retention.work(places);
        }
        for Former { places, retention, .. } in &mut self.former {
            if let Some(places) = places {
                retention.work(places);
            }
        }
    }

    /// How often a file could not be deleted, its manifest not be read, or what was left behind not be dealt with.
    pub(super) fn retention_failures(&self) -> u64 {
        let former = self.former.iter().map(|former| former.retention.failures());
        self.failures + self.retention.failures() + former.sum::<u64>()
    }
}
