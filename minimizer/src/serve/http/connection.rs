//! One connection: its handshake, its requests and its limits.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::answer;
use super::phase::{Phase, PhasedStream, Phases};
use super::web::{Admission, Web, WebConfig};
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
}

/// Serves one connection until its end. Errors of a connection concern its client alone: they are counted, not reported.
pub async fn serve(stream: TcpStream, site: Arc<Site>, is_plain: bool) {
    let access = Arc::clone(&site.access);
    let _open = access.accept();
    let phases = Phases::new();
    tokio::select! {
        () = converse(stream, site, is_plain, phases.clone()) => {}
        phase = phases.overrun() => match phase {
            Phase::Header => access.refuse(Refusal::SlowRequest),
            Phase::Answer => access.refuse(Refusal::SlowReader),
            Phase::Idle => {}
        },
    }
}

async fn converse(mut stream: TcpStream, site: Arc<Site>, is_plain: bool, phases: Phases) {
    let web = site.web.as_ref().filter(|_| !is_plain);
    let config = web.map(|web| web.current(&site.access));
    let Some(tls) = config.as_ref().and_then(|config| config.tls.clone()) else {
        return exchange(stream, site, config, phases).await;
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
        Ok(stream) => exchange(stream, site, config, phases).await,
        Err(_) => site.access.refuse(Refusal::Handshake),
    }
}

/// Answers requests. `begun` is the web configuration that was in force when the connection began; there is none on a
/// plain port and without a web configuration.
async fn exchange<Stream>(stream: Stream, site: Arc<Site>, begun: Option<Arc<WebConfig>>, phases: Phases)
where
    Stream: AsyncRead + AsyncWrite + Send + Unpin,
{
    let stream = TokioIo::new(PhasedStream::new(stream, phases.clone()));
    let service = service_fn(move |request: Request<Incoming>| {
        phases.enter(Phase::Answer);
        let (site, begun) = (Arc::clone(&site), begun.clone());
        async move { Ok::<_, Infallible>(respond(&request, &site, begun.as_ref()).await) }
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
    begun: Option<&Arc<WebConfig>>,
) -> Response<Full<Bytes>> {
    AccessCounts::add(&site.access.requests);
    // A connection that began without a web configuration is on a plain port, where none applies.
    let web = site.web.as_ref().zip(begun).map(|(web, begun)| (web, web.current(&site.access), begun));
    let mut is_last = !request.body().is_end_stream();
    let mut response = match &web {
        None => answer::answer(request, &site.published, &site.access),
        Some((web, config, begun)) => {
            // Another configuration may ask for other certificates: the client must connect again to show its own.
            is_last |= !Arc::ptr_eq(config, begun);
            let authorization = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
            match web.admits(config, authorization).await {
                Admission::Admitted => answer::answer(request, &site.published, &site.access),
                Admission::Refused => {
                    site.access.refuse(Refusal::Unauthorized);
                    answer::unauthorized()
                }
                Admission::Busy => {
                    site.access.refuse(Refusal::Busy);
                    answer::busy()
                }
            }
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
