//! One connection: its handshake, its requests and its limits.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustix::process::geteuid;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::hosts::Hosts;
use super::local::Connections;
use super::phase::{Phase, PhasedStream, Phases};
use super::places::Peer;
use super::web::{Admission, Web, WebConfig};
use super::{Audience, answer};
use crate::serve::access::{AccessCounts, Refusal};
use crate::serve::snapshot::Published;
use crate::serve::status::TLS_IS_SPOKEN;

/// Most octets of a request's first line and header fields together.
const HEADER_OCTETS_MAX: usize = 8 << 10;
/// Most header fields of a request.
const HEADER_FIELDS_MAX: usize = 64;
/// Age at which the server closes a connection after the present answer.
const AGE_MAX: Duration = Duration::from_secs(600);
/// Time that the client has to take this last answer.
const CLOSE_GRACE: Duration = Duration::from_secs(10);
/// First octet of every TLS connection: the type of a handshake record (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 22;

/// What the server serves, on all of its ports.
#[derive(Debug)]
pub struct Site {
    /// The agent's latest state.
    pub published: Published,
    /// What the server did since the start.
    pub access: Arc<AccessCounts>,
    /// Who is answered, and how connections are encrypted; everybody and in plain text without it.
    pub web: Option<Web>,
    /// By which names this host may be asked.
    pub hosts: Hosts,
    /// Who is told counts without a web configuration.
    pub audience: Audience,
}

/// Both addresses of a connection to a loopback address.
#[derive(Clone, Debug)]
pub struct Loopback {
    /// Where the kernel says whose it is.
    pub connections: Arc<Connections>,
    /// The client's.
    pub peer: SocketAddr,
    /// The agent's.
    pub here: SocketAddr,
}

impl Loopback {
    /// Whether root or the agent's own user asks.
    fn is_trusted(&self) -> bool {
        let user = self.connections.user(self.peer, self.here);
        user.is_some_and(|user| user == 0 || user == geteuid().as_raw())
    }
}

/// The two ends of a connection.
#[derive(Clone, Debug)]
pub struct Ends {
    /// Who asks.
    pub peer: Peer,
    /// Its addresses if it came to a loopback address.
    pub loopback: Option<Loopback>,
    /// Whether it came to a port where the web configuration does not hold.
    pub is_plain: bool,
}

/// Serves one connection until its end. Errors of a connection concern its client alone: they are counted, not reported.
pub async fn serve(stream: TcpStream, site: Arc<Site>, ends: Ends, phases: Phases) {
    let access = Arc::clone(&site.access);
    let _open = access.accept();
    tokio::select! {
        () = converse(stream, site, ends, phases.clone()) => {}
        phase = phases.overrun() => match phase {
            Phase::Header => access.refuse(Refusal::SlowRequest),
            Phase::Answer => access.refuse(Refusal::SlowReader),
            Phase::Displaced => access.refuse(Refusal::Displaced),
            Phase::Idle => {}
        },
    }
}

async fn converse(mut stream: TcpStream, site: Arc<Site>, ends: Ends, phases: Phases) {
    let web = site.web.as_ref().filter(|_| !ends.is_plain);
    let config = web.map(|web| web.current(&site.access));
    let Some(tls) = config.as_ref().and_then(|config| config.tls.clone()) else {
        return exchange(stream, site, ends, config, phases).await;
    };
    let mut first = [0];
    if stream.peek(&mut first).await.is_ok_and(|octets| octets == 1) && first[0] != TLS_HANDSHAKE {
        site.access.refuse(Refusal::Handshake);
        let answer = format!(
            "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\n\
             connection: close\r\n\r\n{TLS_IS_SPOKEN}",
            TLS_IS_SPOKEN.len()
        );
        let _gone = stream.write_all(answer.as_bytes()).await;
        return;
    }
    match TlsAcceptor::from(tls).accept(stream).await {
        Ok(stream) => exchange(stream, site, ends, config, phases).await,
        Err(_) => site.access.refuse(Refusal::Handshake),
    }
}

/// Answers requests. `begun` is the web configuration that was in force when the connection began; there is none on a
/// plain port and without a web configuration.
async fn exchange<Stream>(
    stream: Stream,
    site: Arc<Site>,
    ends: Ends,
    begun: Option<Arc<WebConfig>>,
    phases: Phases,
) where
    Stream: AsyncRead + AsyncWrite + Send + Unpin,
{
    let stream = TokioIo::new(PhasedStream::new(stream, phases.clone()));
    let service = service_fn(move |request: Request<Incoming>| {
        phases.enter(Phase::Answer);
        let (site, ends, begun) = (Arc::clone(&site), ends.clone(), begun.clone());
        async move { Ok::<_, Infallible>(respond(&request, &site, &ends, begun.as_ref()).await) }
    });
    let connection = http1::Builder::new()
        .max_headers(HEADER_FIELDS_MAX)
        .max_header_size(HEADER_OCTETS_MAX)
        .serve_connection(stream, service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = sleep(AGE_MAX) => connection.as_mut().graceful_shutdown(),
    }
    timeout(CLOSE_GRACE, connection).await.ok();
}

async fn respond(
    request: &Request<Incoming>,
    site: &Site,
    ends: &Ends,
    begun: Option<&Arc<WebConfig>>,
) -> Response<Full<Bytes>> {
    AccessCounts::add(&site.access.requests);
    // A connection that began without a web configuration is on a plain port, where none applies.
    let web = site.web.as_ref().zip(begun).map(|(web, begun)| (web, web.current(&site.access), begun));
    let mut is_last = !request.body().is_end_stream();
    // Another configuration may ask for other certificates: the client must connect again to show its own.
    is_last |= web.as_ref().is_some_and(|(_, config, begun)| !Arc::ptr_eq(config, begun));
    // First: a page of another site does not get as far as the question for a password.
    let verdict = match (site.hosts.check(request, ends.loopback.is_some()), &web) {
        (Err(why), _) => Err(why),
        (Ok(()), None) => Ok(Admission::Admitted),
        (Ok(()), Some((web, config, _))) => {
            let authorization = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
            Ok(web.admits(config, ends.peer, authorization).await)
        }
    };
    let mut response = match verdict {
        Ok(Admission::Admitted) => {
            // Where no web configuration says who may ask, the kernel says which user of this host asks.
            let is_trusted = || {
                web.is_some()
                    || site.audience == Audience::Everybody
                    || ends.loopback.as_ref().is_none_or(Loopback::is_trusted)
            };
            answer::answer(request, &site.published, &site.access, is_trusted)
        }
        Ok(Admission::Refused) => {
            site.access.refuse(Refusal::Unauthorized);
            answer::unauthorized()
        }
        Ok(Admission::Busy) => {
            site.access.refuse(Refusal::Busy);
            answer::busy()
        }
        Err(why) => {
            site.access.refuse(Refusal::Misdirected);
            answer::misdirected(&why)
        }
    };
    if let Some((_, config, _)) = &web {
        for (name, value) in &config.headers {
            response.headers_mut().insert(name, value.clone());
        }
    }
    // The server does not read bodies. The octets of an unread body would be taken for the next request.
    if is_last {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
