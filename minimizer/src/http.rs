//! The agent's web server: metrics, health, readiness, status and a page for people.
//!
//! It runs on its own thread over published snapshots: no request, however slow, reaches the drain.

mod answer;
mod listen;
mod page;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{sleep, timeout};

pub use listen::{ListenError, Listener};

use crate::metrics::Published;

/// Where the agent listens when nothing else is said: loopback only.
pub const DEFAULT_ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 14739);

/// Connections that are served at once; more wait.
const CONNECTIONS_MAX: usize = 256;
/// Time to send a request's header, and to idle between requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(90);
/// Age at which a connection is asked to close, so that clients that do not read cannot pile up.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(600);
/// Time to read the last answer when the connection is asked to close.
const CLOSE_GRACE: Duration = Duration::from_secs(10);
/// Pause when the process has no file descriptor left for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A running server. Dropping it closes the port and all connections.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves `published` on `listener`, on a thread of its own.
    ///
    /// # Errors
    /// When the thread or its event loop cannot be made.
    pub fn start(listener: Listener, published: Published) -> io::Result<Self> {
        let address = listener.address();
        let listener = listener.into_inner();
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let (stop, stopped) = oneshot::channel();
        let serve = async move {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tokio::select! {
                () = accept(&listener, &published) => {}
                _ = stopped => {}
            }
            Ok::<(), io::Error>(())
        };
        let thread = std::thread::Builder::new().name("http".to_owned()).spawn(move || {
            if let Err(error) = runtime.block_on(serve) {
                eprintln!("minimizer: no web server at {address}: {error}");
            }
        })?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Either fails only when the thread has ended already.
        self.stop.take().map(|stop| stop.send(()));
        self.thread.take().map(JoinHandle::join);
    }
}

async fn accept(listener: &tokio::net::TcpListener, published: &Published) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let permit = Arc::clone(&permits).acquire_owned().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let published = published.clone();
                tokio::spawn(async move {
                    serve(stream, published).await;
                    drop(permit);
                });
            }
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Serves one connection until its end. Its errors are the client's business.
async fn serve(stream: TcpStream, published: Published) {
    let service = service_fn(|request| {
        let answer = answer::answer(&request, &published);
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = sleep(CONNECTION_AGE_MAX) => connection.as_mut().graceful_shutdown(),
    }
    timeout(CLOSE_GRACE, connection).await.ok();
}
