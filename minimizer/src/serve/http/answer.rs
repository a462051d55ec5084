//! What the server answers to each request.

use std::sync::Arc;
use std::time::Instant;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, VARY, WWW_AUTHENTICATE,
};
use hyper::{Method, Request, Response, StatusCode};

use super::hosts::Misdirected;
use crate::serve::access::{AccessCounts, Refusal};
use crate::serve::metrics::{self, ExpositionFormat, Scrape};
use crate::serve::page;
use crate::serve::snapshot::Published;
use crate::serve::status::Report;
use crate::support::panics;

const PLAIN: &str = "text/plain; charset=utf-8";

/// What other users of this host read in the place of counts.
const FORBIDDEN: &str = "forbidden: at this address only root and the user of the agent are told counts; all others get health, \
                         readiness and the state, at /-/healthy, /-/ready and /status. For metrics and page give the agent an address \
                         where a web configuration asks for a password or a certificate\n";

/// The answer to `request`. Its body is ignored. `is_trusted` says whether who asks may know counts.
pub fn answer<Body>(
    request: &Request<Body>,
    published: &Published,
    access: &Arc<AccessCounts>,
    is_trusted: impl Fn() -> bool,
) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET and HEAD\n".to_owned());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    panics::planted("http");
    let snapshot = published.latest();
    match request.uri().path() {
        "/metrics" | "/" if !is_trusted() => {
            access.refuse(Refusal::Forbidden);
            respond(StatusCode::FORBIDDEN, PLAIN, FORBIDDEN)
        }
        "/metrics" => {
            let accept: Vec<_> =
                request.headers().get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
            let format = ExpositionFormat::negotiate(&accept.join(","));
            let mut response = match metrics::render(Scrape::now(snapshot, Arc::clone(access)), format) {
                Ok(text) => respond(StatusCode::OK, format.content_type(), text),
                Err(error) => respond(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, format!("{error}\n")),
            };
            response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
            response
        }
        "/-/healthy" => match snapshot.healthy(Instant::now()) {
            Ok(()) => respond(StatusCode::OK, PLAIN, "healthy\n".to_owned()),
            Err(reason) => respond(StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("unhealthy: {reason}\n")),
        },
        "/-/ready" => match snapshot.ready(Instant::now()) {
            Ok(()) => respond(StatusCode::OK, PLAIN, "ready\n".to_owned()),
            Err(reason) => respond(StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("not ready: {reason}\n")),
        },
        "/status" => {
            let report = Report::new(&snapshot);
            let json = if is_trusted() {
                serde_json::to_string(&report)
            } else {
                serde_json::to_string(&report.basic())
            };
            match json {
                Ok(json) => respond(StatusCode::OK, "application/json", json + "\n"),
                Err(error) => respond(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, format!("{error}\n")),
            }
        }
        "/" => respond(StatusCode::OK, "text/html; charset=utf-8", page::landing(&snapshot)),
        page::SCRIPT_PATH => respond(StatusCode::OK, "text/javascript; charset=utf-8", page::SCRIPT),
        _ => respond(StatusCode::NOT_FOUND, PLAIN, "not found; see /\n".to_owned()),
    }
}

/// The answer to a request without a known user and that user's password.
pub fn unauthorized() -> Response<Full<Bytes>> {
    let body = "unauthorized: a user and a password of the web configuration are needed\n";
    let mut response = respond(StatusCode::UNAUTHORIZED, PLAIN, body.to_owned());
    let challenge = HeaderValue::from_static("Basic realm=\"minimizer\", charset=\"UTF-8\"");
    response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    response
}

/// The answer to a request that names another host, or that the page of another site makes.
pub fn misdirected(why: &Misdirected) -> Response<Full<Bytes>> {
    let (status, body) = match why {
        Misdirected::Unsaid => (
            StatusCode::BAD_REQUEST,
            "the request does not say once which host it means: send one Host header\n".to_owned(),
        ),
        Misdirected::Host(name) => (
            StatusCode::MISDIRECTED_REQUEST,
            format!(
                "misdirected: this agent does not know itself as \"{name}\"; ask it by an address, or add the name to \
                 `hosts` of agent.toml\n"
            ),
        ),
        Misdirected::Origin(site) => (
            StatusCode::MISDIRECTED_REQUEST,
            format!(
                "misdirected: a page of \"{site}\" asks, which is another site; if it may, add its name to `hosts` of \
                 agent.toml\n"
            ),
        ),
    };
    respond(status, PLAIN, body)
}

/// The answer to a request whose password waited too long for its check.
pub fn busy() -> Response<Full<Bytes>> {
    let mut response = respond(
        StatusCode::SERVICE_UNAVAILABLE,
        PLAIN,
        "busy: many passwords wait to be checked\n".to_owned(),
    );
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    for (name, value) in [
        (CONTENT_TYPE, content_type),
        (CACHE_CONTROL, "no-store"),
        (hyper::header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (hyper::header::CONTENT_SECURITY_POLICY, page::CONTENT_SECURITY_POLICY),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::BodyExt as _;
    use hyper::{Method, Request, StatusCode};

    use super::answer;
    use crate::serve::access::Refusal;
    use crate::serve::snapshot::Published;
    use crate::serve::snapshot::example::example;

    fn ask(published: &Published, method: Method, path: &str) -> (StatusCode, String, String) {
        let request = Request::builder().method(method).uri(path).body(()).expect("a request");
        let response = answer(&request, published, &Arc::default(), || true);
        let content_type = response.headers()["content-type"].to_str().expect("ASCII").to_owned();
        let status = response.status();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let body = runtime.block_on(response.into_body().collect()).expect("a body").to_bytes();
        (status, content_type, String::from_utf8(body.to_vec()).expect("UTF-8"))
    }

    #[test]
    fn not_ready_before_the_first_drain() {
        let mut snapshot = example();
        snapshot.drains = Default::default();
        let published = Published::new(snapshot);
        let (status, _, body) = ask(&published, Method::GET, "/-/ready");
        assert_eq!(
            (status, body.as_str()),
            (StatusCode::SERVICE_UNAVAILABLE, "not ready: no drain has ended yet\n")
        );
        assert_eq!(ask(&published, Method::GET, "/-/healthy").0, StatusCode::OK);
        published.update(|snapshot| *snapshot = example());
        assert_eq!(ask(&published, Method::GET, "/-/ready").0, StatusCode::OK);
    }

    #[test]
    fn who_is_not_trusted_gets_health_readiness_and_the_state_without_counts() {
        let (published, access) = (Published::new(example()), Arc::default());
        let ask = |path: &str| {
            let request = Request::builder().uri(path).body(()).expect("a request");
            let response = answer(&request, &published, &access, || false);
            let status = response.status();
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let body = runtime.block_on(response.into_body().collect()).expect("a body").to_bytes();
            (status, String::from_utf8(body.to_vec()).expect("UTF-8"))
        };
        for path in ["/metrics", "/"] {
            let (status, body) = ask(path);
            assert!(status == StatusCode::FORBIDDEN && body.contains("web configuration"), "{path}: {body}");
        }
        for path in ["/-/healthy", "/-/ready"] {
            assert_eq!(ask(path).0, StatusCode::OK, "{path}");
        }
        let (status, body) = ask("/status");
        assert!(status == StatusCode::OK && body.contains("\"withheld\":true"), "{body}");
        assert!(!body.contains("octets") && !body.contains("packets"), "{body}");
        assert_eq!(access.refused(Refusal::Forbidden), 2);
    }

    #[test]
    fn only_reading_and_only_what_there_is() {
        let published = Published::new(example());
        assert_eq!(ask(&published, Method::POST, "/metrics").0, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(ask(&published, Method::GET, "/metricsx").0, StatusCode::NOT_FOUND);
        assert_eq!(ask(&published, Method::GET, "/../etc/passwd").0, StatusCode::NOT_FOUND);
        assert_eq!(ask(&published, Method::GET, "/metrics?x=1").0, StatusCode::OK);
    }

    #[test]
    fn the_page_escapes_names_and_loads_nothing() {
        let (status, content_type, html) = ask(&Published::new(example()), Method::GET, "/");
        assert_eq!((status, content_type.as_str()), (StatusCode::OK, "text/html; charset=utf-8"));
        assert!(html.contains("eth&quot;0\\"), "{html}");
        assert!(!html.contains("eth\"0"), "{html}");
        let sources: Vec<_> = html.split("src=").skip(1).collect();
        assert!(sources.len() == 1 && sources[0].starts_with("\"/page.js\""), "{html}");
        assert!(!html.contains("http:") && !html.contains("https:"), "{html}");
        for link in ["/metrics", "/status", "/-/healthy", "/-/ready"] {
            assert!(html.contains(&format!("href=\"{link}\"")), "{link} is missing in {html}");
        }
    }
}
