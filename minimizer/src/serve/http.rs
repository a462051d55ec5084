//! The agent's web server: metrics, health, readiness, status and a page for people.
//!
//! It runs on a thread of its own and reads published snapshots, so that no request, however slow, delays the drain.

mod answer;
mod connection;
mod listen;
mod phase;
mod web;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::error;

pub use listen::{ListenAddress, ListenError, Listener};
pub use web::{Web, WebConfigError};

use crate::serve::access::AccessCounts;
use crate::serve::snapshot::Published;
use connection::Site;

/// Connections that one port serves at a time. Further ones wait until one ends.
pub const CONNECTIONS_MAX: usize = 512;
/// Pause after a connection could not be accepted, which happens when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Nice value of the thread: when there is no CPU for both, the drain comes first.
const NICENESS: i32 = 5;

/// A running server. Dropping it closes its ports and all its connections.
#[derive(Debug)]
pub struct Server {
    urls: Vec<String>,
    stop: watch::Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves `published` on `listeners`, on a thread of its own. `web` says who is answered and how connections are
    /// encrypted; plain listeners ignore it.
    ///
    /// # Errors
    /// When the thread or its event loop cannot be started.
    pub fn start(listeners: Vec<Listener>, published: Published, web: Option<Web>) -> io::Result<Self> {
        let url = |listener: &Listener| {
            let address = listener.address();
            let is_encrypted = !address.is_plain && web.as_ref().is_some_and(Web::is_encrypted);
            format!("http{}://{}/", if is_encrypted { "s" } else { "" }, address.socket)
        };
        let urls = listeners.iter().map(url).collect();
        raise_descriptor_limit();
        let site = Arc::new(Site { published, access: Arc::new(AccessCounts::default()), web });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let (stop, mut stopped) = watch::channel(());
        let serve = async move {
            let mut ports = JoinSet::new();
            for listener in listeners {
                let is_plain = listener.address().is_plain;
                let listener = listener.into_inner();
                listener.set_nonblocking(true)?;
                let listener = tokio::net::TcpListener::from_std(listener)?;
                let site = Arc::clone(&site);
                ports.spawn(async move { accept(&listener, &site, is_plain).await });
            }
            // Returns when the server is dropped, which sends a value.
            let _stopped = stopped.changed().await;
            Ok::<(), io::Error>(())
        };
        let thread = std::thread::Builder::new().name("http".to_owned()).spawn(move || {
            // A refusal changes nothing but the priority.
            let _refused = rustix::process::nice(NICENESS);
            if let Err(error) = runtime.block_on(serve) {
                error!("the web server has ended: {error}");
            }
        })?;
        Ok(Self { urls, stop, thread: Some(thread) })
    }

    /// The URLs that it serves, in the order of the listeners.
    #[must_use]
    pub fn urls(&self) -> &[String] {
        &self.urls
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when the thread has already ended.
        self.stop.send(()).ok();
        self.thread.take().map(JoinHandle::join);
    }
}

/// Raises the soft limit of file descriptors to the hard one, so that full ports leave enough descriptors to sinks and
/// drain. The usual soft limit of 1024 exists for programs that call `select(2)`; this one does not.
fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // A refusal leaves the limit as it was.
    let _refused = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// Accepts connections on one port. Each port has its own limit, so that a full port does not block the others.
async fn accept(listener: &tokio::net::TcpListener, site: &Arc<Site>, is_plain: bool) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let permit = Arc::clone(&permits).acquire_owned().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let site = Arc::clone(site);
                tokio::spawn(async move {
                    connection::serve(stream, site, is_plain).await;
                    drop(permit);
                });
            }
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}
