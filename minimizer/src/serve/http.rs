//! The agent's web server: metrics, health, readiness, status and a page for people.
//!
//! It runs on a thread of its own and reads published snapshots, so that no request, however slow, delays the drain.

mod answer;
mod connection;
mod hosts;
mod listen;
mod local;
mod phase;
mod places;
mod web;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{error, info, warn};

pub use hosts::HostName;
pub use listen::{ListenAddress, ListenError, Listener};
pub use web::{Web, WebConfigError};

use crate::serve::access::AccessCounts;
use crate::serve::snapshot::Published;
use connection::{Ends, Loopback, Site};
use hosts::Hosts;
use local::Connections;
use phase::Phases;
use places::{Peer, Places};

/// Connections that one port serves at a time. A further one takes the place of one that waits.
pub const CONNECTIONS_MAX: usize = 512;
/// File descriptors that connections leave to interfaces, tables and sinks.
const OTHER_DESCRIPTORS: u64 = 512;
/// Fewest connections on one port, however few file descriptors there are.
const CONNECTIONS_MIN: usize = 32;
/// Pause after a connection could not be accepted, which happens when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Nice value of the thread: when there is no CPU for both, the drain comes first.
const NICENESS: i32 = 5;

/// Who is told counts where no web configuration says who may ask, of the users of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Root and the user of the agent.
    Owner,
    /// All: the counts are of traffic that nobody sent.
    Everybody,
}

/// A running server. Dropping it closes its ports and all its connections.
#[derive(Debug)]
pub struct Server {
    ports: Vec<(ListenAddress, bool)>,
    stop: watch::Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves `published` on `listeners`, on a thread of its own. `web` says who is answered and how connections are
    /// encrypted; plain listeners ignore it, and tell counts to `audience`. Requests name the host by one of its own names or one of `names`.
    ///
    /// # Errors
    /// When the thread or its event loop cannot be started.
    pub fn start(
        listeners: Vec<Listener>,
        published: Published,
        web: Option<Web>,
        names: Vec<HostName>,
        audience: Audience,
    ) -> io::Result<Self> {
        let port = |listener: &Listener| {
            let address = listener.address();
            (address, !address.is_plain && web.as_ref().is_some_and(Web::is_encrypted))
        };
        let ports = listeners.iter().map(port).collect();
        let most = connections_most(raise_descriptor_limit(), listeners.len());
        let hosts = Hosts::new(names);
        let site =
            Arc::new(Site { published, access: Arc::new(AccessCounts::default()), web, hosts, audience });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let (stop, mut stopped) = watch::channel(());
        let serve = async move {
            let mut accepting = JoinSet::new();
            for listener in listeners {
                let is_plain = listener.address().is_plain;
                let (listener, local) = listener.into_inner();
                let local = Arc::new(local);
                listener.set_nonblocking(true)?;
                let listener = tokio::net::TcpListener::from_std(listener)?;
                let site = Arc::clone(&site);
                accepting.spawn(async move { accept(&listener, &site, &local, is_plain, most).await });
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
        Ok(Self { ports, stop, thread: Some(thread) })
    }

    /// Logs where it serves, in the order of the listeners, and who can listen in.
    pub fn announce(&self) {
        for (address, is_encrypted) in &self.ports {
            let socket = address.socket;
            info!("serving http{}://{socket}/", if *is_encrypted { "s" } else { "" });
            if !is_encrypted && !is_loopback(socket) {
                warn!(
                    "others reach {socket} without TLS: whoever is on the way reads metrics and status, and passwords \
                     if there are some; give '--web.config.file FILE' with `tls_server_config`, or serve this host only \
                     with '--listen 127.0.0.1:{}'",
                    socket.port()
                );
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when the thread has already ended.
        self.stop.send(()).ok();
        self.thread.take().map(JoinHandle::join);
    }
}

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Raises the soft limit of file descriptors to the hard one, and returns it; `None` is no limit. The usual soft limit of
/// 1024 exists for programs that call `select(2)`; this one does not.
fn raise_descriptor_limit() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        // A refusal leaves the limit as it was.
        Err(_) => current,
    }
}

/// Connections that each port serves at a time: full ports leave enough descriptors to sinks and drain.
fn connections_most(descriptors: Option<u64>, ports: usize) -> usize {
    let Some(descriptors) = descriptors else { return CONNECTIONS_MAX };
    let of_ports = usize::try_from(descriptors.saturating_sub(OTHER_DESCRIPTORS)).unwrap_or(usize::MAX);
    (of_ports / ports.max(1)).clamp(CONNECTIONS_MIN, CONNECTIONS_MAX)
}

/// Accepts connections on one port. Each port has its own limit, so that a full port does not block the others.
async fn accept(
    listener: &tokio::net::TcpListener,
    site: &Arc<Site>,
    local: &Arc<Connections>,
    is_plain: bool,
    most: usize,
) {
    let places = Places::new(most);
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                let peer = Peer::from(address.ip());
                let here = stream.local_addr().ok().filter(|here| is_loopback(*here));
                let loopback =
                    here.map(|here| Loopback { connections: Arc::clone(local), peer: address, here });
                let phases = Phases::new();
                let place = places.take(peer, phases.clone());
                let site = Arc::clone(site);
                tokio::spawn(async move {
                    connection::serve(stream, site, Ends { peer, loopback, is_plain }, phases).await;
                    drop(place);
                });
            }
            Err(_) => {
                // There may be no file descriptor left.
                places.cut_one();
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CONNECTIONS_MAX, CONNECTIONS_MIN, connections_most};

    #[test]
    fn connections_leave_file_descriptors_to_the_agent() {
        for (descriptors, ports, most) in [
            (None, 3, CONNECTIONS_MAX),
            (Some(1 << 20), 3, CONNECTIONS_MAX),
            (Some(1024), 1, 512),
            (Some(1024), 4, 128),
            (Some(256), 1, CONNECTIONS_MIN),
        ] {
            assert_eq!(connections_most(descriptors, ports), most, "{descriptors:?} {ports}");
        }
    }
}
