//! The agent's web server: metrics, health, readiness, status and a page for people.
//!
//! It runs on its own thread over published snapshots: no request, however slow, reaches the drain.

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

use crate::serve::counts::AccessCounts;
use crate::serve::snapshot::Published;
use connection::Site;

/// Connections that are served at once on one port; more wait.
pub const CONNECTIONS_MAX: usize = 512;
/// Pause when the process has no file descriptor left for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How far the thread stands behind that of the drain when there is no CPU for both.
const NICENESS: i32 = 5;

/// A running server. Dropping it closes its ports and all connections.
#[derive(Debug)]
pub struct Server {
    urls: Vec<String>,
    stop: watch::Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves `published` on `listeners`, on a thread of its own; `web` says to whom, on all but those that are plain.
    ///
    /// # Errors
    /// When the thread or its event loop cannot be made.
    pub fn start(listeners: Vec<Listener>, published: Published, web: Option<Web>) -> io::Result<Self> {
        let url = |listener: &Listener| {
            let address = listener.address();
            let is_encrypted = !address.is_plain && web.as_ref().is_some_and(Web::is_encrypted);
            format!("http{}://{}/", if is_encrypted { "s" } else { "" }, address.socket)
        };
        let urls = listeners.iter().map(url).collect();
        raise_descriptor_limit();
        let site = Arc::new(Site { published, counts: Arc::new(AccessCounts::default()), web });
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
            // It changes when it is gone.
            let _stopped = stopped.changed().await;
            Ok::<(), io::Error>(())
        };
        let thread = std::thread::Builder::new().name("http".to_owned()).spawn(move || {
            // Where this is refused, it is as before.
            let _refused = rustix::process::nice(NICENESS);
            if let Err(error) = runtime.block_on(serve) {
                error!("the web server has ended: {error}");
            }
        })?;
        Ok(Self { urls, stop, thread: Some(thread) })
    }

    /// Where it serves, in the order of the listeners.
    #[must_use]
    pub fn urls(&self) -> &[String] {
        &self.urls
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Either fails only when the thread has ended already.
        self.stop.send(()).ok();
        self.thread.take().map(JoinHandle::join);
    }
}

/// Takes as many file descriptors as this process may have: those who fill the ports leave sinks and drain enough. The
/// soft limit of 1024 is for programs that call `select(2)`.
fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Where this is refused, it is as before.
    let _refused = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// Accepts connections on one port. Each port has its own share, so that those who fill one do not close the others.
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
