//! The running agent's web server: who is let in, what stays out, and that none of them holds up the drain.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::net::sockopt::set_socket_recv_buffer_size;
use serde_json::Value;
use tests::authority::Authority;
use tests::command::{Agent, get, minimizer};
use tests::network::Network;
use tests::prometheus::Prometheus;
use tests::veth::{RECEIVER, Veth};

/// Where web configurations hold, and where they do not. Each test has its own network.
const GUARDED: &str = "127.0.0.1:9443";
const PLAIN: &str = "127.0.0.1:9080";
/// The name that may connect, in the certificates of clients.
const CLIENT: &str = "prometheus.example";
const PASSWORD: &str = "correct: horse";
const PACKETS: u64 = 1000;
const PAYLOAD_OCTETS: usize = 100;
/// Longest wait for what must come; beyond, something is stuck.
const LIMIT: Duration = Duration::from_secs(60);
/// Paces questions; nothing depends on it.
const PACE: Duration = Duration::from_millis(20);

fn wait_for(what: &str, is_so: impl Fn() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    while !is_so()? {
        ensure!(begin.elapsed() < LIMIT, "waited for: {what}");
        thread::park_timeout(PACE);
    }
    Ok(())
}

fn start(options: &[&str]) -> Result<Agent> {
    let mut command = Command::new(minimizer());
    command.args(["run", "-i", RECEIVER, "--interval", "500ms", "--flows-per-cpu", "1024"]);
    Agent::start(command.args(["--output", "json"]).args(options))
}

/// The value of a metric of the agent, by its name with labels.
fn metric(name: &str) -> Result<f64> {
    let text = get(&format!("http://{PLAIN}/metrics"), "")?.2;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.with_context(|| format!("{name} is missing in {text}"))?.parse().context("a number")
}

/// A folder with certificates of one authority: of the server, of a client that may connect and of one that may not.
struct Guard<'folder>(&'folder Path);

impl<'folder> Guard<'folder> {
    fn new(folder: &'folder Path) -> Result<Self> {
        let authority = Authority::new("authority")?;
        authority.write_own(folder, "ca")?;
        for (file, name) in [("server", "localhost"), ("client", CLIENT), ("other", "other.example")] {
            authority.write(folder, file, name)?;
        }
        Ok(Self(folder))
    }

    /// A web configuration that lets in only who has both a certificate and a password.
    fn web_config(&self) -> Result<PathBuf> {
        let path = self.0.join("web.yml");
        let hash = bcrypt::hash(PASSWORD, 6)?;
        let text = format!(
            "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n  client_ca_file: ca.pem\n  \
             client_auth_type: RequireAndVerifyClientCert\n  client_allowed_sans: [{CLIENT}]\n\
             http_server_config:\n  headers:\n    Strict-Transport-Security: max-age=3600\n\
             basic_auth_users:\n  prometheus: {hash}\n"
        );
        fs::write(&path, text)?;
        Ok(path)
    }

    /// Asks the guarded port with curl.
    fn curl(&self, path: &str, options: &[&str]) -> Result<Output> {
        let mut curl = Command::new("curl");
        curl.current_dir(self.0).args(["--silent", "--show-error", "--include", "--max-time", "20"]);
        curl.args(["--noproxy", "*", "--cacert", "ca.pem"]).args(options);
        let port = GUARDED.rsplit(':').next().context("a port")?;
        curl.arg(format!("https://localhost:{port}{path}")).output().context("curl is a package of Debian")
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

#[test]
#[cfg_attr(
    any(without_kernel, without_curl),
    ignore = "needs root, the kernel program and curl: cargo xtask test"
)]
fn only_who_has_certificate_and_password_is_let_in() -> Result<()> {
    let _veth = Veth::new()?;
    let folder = tempfile::tempdir()?;
    let guard = Guard::new(folder.path())?;
    let web = guard.web_config()?;
    let plain = format!("http://{PLAIN}");
    let web = web.to_str().context("UTF-8")?;
    let agent = start(&["--listen", GUARDED, "--listen", &plain, "--web.config.file", web])?;
    let client = ["--cert", "client.pem", "--key", "client.key"];
    let user = format!("prometheus:{PASSWORD}");
    let with_user = [&client[..], &["--user", &user]].concat();

    for version in ["--tlsv1.2", "--tlsv1.3"] {
        let max = version.trim_start_matches("--tlsv");
        let answer = text(&guard.curl("/metrics", &[&with_user[..], &[version, "--tls-max", max]].concat())?);
        for part in ["HTTP/1.1 200 OK", "strict-transport-security: max-age=3600", "\nminimizer_build_info{"]
        {
            assert!(answer.contains(part), "{version}: {part} is missing in {answer}");
        }
    }
    for (user, status) in [
        (None, "401 Unauthorized"),
        (Some("prometheus:wrong"), "401 Unauthorized"),
        (Some("nobody:correct: horse"), "401 Unauthorized"),
    ] {
        let user: Vec<&str> = user.map(|user| ["--user", user]).into_iter().flatten().collect();
        for path in ["/metrics", "/status", "/-/healthy", "/", "/absent"] {
            let answer = text(&guard.curl(path, &[&client[..], &user].concat())?);
            assert!(answer.contains(status) && answer.contains("www-authenticate: Basic"), "{answer}");
            assert!(!answer.contains("minimizer_build_info"), "{answer}");
        }
    }
    // Without a certificate, or with one of another name, there is no connection to ask on.
    for certificate in [&[][..], &["--cert", "other.pem", "--key", "other.key"]] {
        let answer = guard.curl("/metrics", &[certificate, &["--user", &user]].concat())?;
        assert!(!answer.status.success() && !text(&answer).contains("HTTP/"), "{}", text(&answer));
    }
    let mut old = Command::new("curl");
    old.args(["--silent", "--noproxy", "*"]).arg(format!("http://{GUARDED}/metrics"));
    assert!(text(&old.output()?).contains("TLS is spoken here"));
    assert_eq!(metric("minimizer_web_refusals_total{reason=\"unauthorized\"}")?, 15.0);
    assert_eq!(metric("minimizer_web_refusals_total{reason=\"handshake\"}")?, 3.0);

    // Whoever is on this host asks the other port, and is told of it.
    let status = Command::new(minimizer()).args(["status", "--listen", PLAIN]).output()?;
    assert!(status.status.success() && text(&status).contains(RECEIVER), "{}", text(&status));
    let status = Command::new(minimizer()).args(["status", "--listen", GUARDED]).output()?;
    let said = text(&status);
    assert!(status.status.code() == Some(1) && said.contains("--listen http://127.0.0.1:"), "{said}");
    let (ended, said) = agent.stop()?;
    ensure!(ended.success(), "{said}");
    Ok(())
}

#[test]
#[cfg_attr(
    any(without_kernel, without_prometheus),
    ignore = "needs root, the kernel program and Prometheus: cargo xtask test"
)]
fn prometheus_scrapes_with_certificate_and_password() -> Result<()> {
    let _veth = Veth::new()?;
    let folder = tempfile::tempdir()?;
    let guard = Guard::new(folder.path())?;
    let web = guard.web_config()?;
    let plain = format!("http://{PLAIN}");
    let _agent = start(&[
        "--listen",
        GUARDED,
        "--listen",
        &plain,
        "--web.config.file",
        web.to_str().context("UTF-8")?,
    ])?;
    let config = format!(
        "scrape_configs: [{{job_name: minimizer, scrape_interval: 200ms, scrape_timeout: 200ms, scheme: https, \
         tls_config: {{ca_file: ca.pem, cert_file: client.pem, key_file: client.key, server_name: localhost}}, \
         basic_auth: {{username: prometheus, password: '{PASSWORD}'}}, \
         static_configs: [{{targets: ['{GUARDED}']}}]}}]\n"
    );
    let prometheus = Prometheus::start(folder.path(), &config, &[])?;
    wait_for("the first scrape", || Ok(prometheus.query("up").is_ok_and(|up| up == ["1"])))?;
    let scrapes = "count_over_time(up[1m]) > 20 and sum_over_time(up[1m]) > 20";
    wait_for("twenty scrapes", || Ok(prometheus.query(scrapes).is_ok_and(|values| values.len() == 1)))?;
    // Its password was checked once, and its connection was kept.
    assert!(metric("minimizer_web_connections_total")? < metric("minimizer_web_requests_total")?);
    Ok(())
}

#[test]
#[cfg_attr(
    any(without_kernel, without_curl),
    ignore = "needs root, the kernel program and curl: cargo xtask test"
)]
fn a_changed_configuration_holds_and_a_broken_one_does_not() -> Result<()> {
    let _veth = Veth::new()?;
    let folder = tempfile::tempdir()?;
    let guard = Guard::new(folder.path())?;
    let web = guard.web_config()?;
    let plain = format!("http://{PLAIN}");
    let options = ["--listen", GUARDED, "--listen", &plain, "--web.config.file"];
    let agent = start(&[&options[..], &[web.to_str().context("UTF-8")?]].concat())?;
    let user = format!("prometheus:{PASSWORD}");
    let all = ["--cert", "client.pem", "--key", "client.key", "--user", &user];
    let is_answered = |with: &[&str]| Ok(text(&guard.curl("/-/healthy", with)?).contains("200 OK"));
    ensure!(is_answered(&all)?, "the first configuration does not hold");

    // Another authority, with other certificates, under the same names.
    let later = tempfile::tempdir()?;
    Guard::new(later.path())?;
    for file in ["ca.pem", "server.pem", "server.key", "client.pem", "client.key"] {
        fs::copy(later.path().join(file), folder.path().join("new"))?;
        fs::rename(folder.path().join("new"), folder.path().join(file))?;
    }
    wait_for("the new certificates", || is_answered(&all))?;
    let failures = metric("minimizer_web_config_reload_failures_total")?;
    let reloads = metric("minimizer_web_config_reloads_total")?;
    ensure!(reloads >= 1.0, "{reloads} reloads");

    let before = fs::read_to_string(&web)?;
    fs::write(&web, "tls_server_config: {cert_file: absent.pem, key_file: server.key}\n")?;
    for _ in 0..3 {
        ensure!(is_answered(&all)?, "the configuration before does not hold");
    }
    assert_eq!(metric("minimizer_web_config_reload_failures_total")?, failures + 1.0);
    assert_eq!(metric("minimizer_web_config_reloads_total")?, reloads);

    // Mended, and without the user.
    fs::write(&web, before.split("basic_auth_users").next().context("a part")?)?;
    ensure!(is_answered(&all[..4])?, "the mended configuration does not hold");
    let (ended, said) = agent.stop()?;
    ensure!(ended.success(), "{said}");
    let lines =
        said.lines().filter(|line| line.contains("before stays in force: ") && line.contains("absent.pem"));
    assert_eq!(lines.count(), 1, "{said}");
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_configuration_that_cannot_be_used_attaches_nothing() -> Result<()> {
    let _veth = Veth::new()?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("web.yml");
    for (text_of_it, part) in [
        ("tls_server_config: {cert_file: a.pem, key_file: a.key}\n", "web.yml:1:"),
        ("basic_auth_users:\n  a: secret\n", "web.yml:2:6: the password of `a` is no bcrypt hash"),
        ("tls_sever_config: {}\n", "unknown field `tls_sever_config`"),
    ] {
        fs::write(&path, text_of_it)?;
        let mut command = Command::new(minimizer());
        command.args(["run", "-i", RECEIVER, "--listen", PLAIN, "--web.config.file"]).arg(&path);
        let output = command.output()?;
        assert_eq!(output.status.code(), Some(78), "{}", text(&output));
        assert!(text(&output).contains(part), "{}", text(&output));
    }
    let taken = TcpListener::bind(GUARDED)?;
    let plain = format!("http://{PLAIN}");
    let mut command = Command::new(minimizer());
    let output = command.args(["run", "-i", RECEIVER, "--listen", &plain, "--listen", GUARDED]).output()?;
    let holder = format!("cannot listen on {GUARDED}: the port is in use by process {}", std::process::id());
    assert!(output.status.code() == Some(1) && text(&output).contains(&holder), "{}", text(&output));
    drop(taken);
    let links = tests::veth::ip(&format!("link show dev {RECEIVER}"))?;
    assert!(!links.contains("xdp"), "{links}");
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn several_addresses_of_both_versions() -> Result<()> {
    let _network = Network::new(1, 1500)?;
    fs::write("/proc/sys/net/ipv6/conf/lo/disable_ipv6", "0")?;
    tests::veth::ip("address replace ::1/128 dev lo")?;
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("agent.toml");
    fs::write(
        &config,
        format!("interfaces = [\"receive0\"]\nlisten = [\"[::1]:9081\", \"{PLAIN}\", \"[::]:9082\"]\n"),
    )?;
    let mut command = Command::new(minimizer());
    let agent = Agent::start(command.args(["run", "--flows-per-cpu", "1024", "--config"]).arg(&config))?;
    assert_eq!(agent.address().to_string(), "[::1]:9081");
    wait_for("all of them", || {
        let all = ["[::1]:9081", PLAIN, "[::1]:9082", "127.0.0.1:9082"];
        Ok(all.iter().all(|address| {
            get(&format!("http://{address}/-/healthy"), "").is_ok_and(|(status, ..)| status == 200)
        }))
    })
}

/// What a client hears until the server ends the connection.
fn heard(mut client: TcpStream) -> Result<String> {
    client.set_read_timeout(Some(LIMIT))?;
    let mut heard = Vec::new();
    match client.read_to_end(&mut heard) {
        // What was sent and not read makes the kernel say so.
        Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => Err(error.into()),
        _ => Ok(String::from_utf8_lossy(&heard).into_owned()),
    }
}

fn said(address: SocketAddr, request: &[u8]) -> Result<TcpStream> {
    let mut client = TcpStream::connect(address)?;
    client.write_all(request)?;
    Ok(client)
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn who_does_not_finish_is_cut_and_what_is_too_long_refused() -> Result<()> {
    let _veth = Veth::new()?;
    let agent = start(&["--listen", PLAIN])?;
    let address = agent.address();
    let begin = Instant::now();
    let unfinished = said(address, b"GET /metrics HTTP/1.1\r\nhost: a\r\n")?;
    let silent = said(address, b"")?;
    // More answers are asked for than buffers take, and none is read.
    let mut reader = TcpStream::connect(address)?;
    set_socket_recv_buffer_size(&reader, 4096)?;
    reader.write_all(&b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n".repeat(1000))?;

    let long = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(9000));
    assert!(heard(said(address, long.as_bytes())?)?.starts_with("HTTP/1.1 431 "));
    let many = format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(100));
    assert!(heard(said(address, many.as_bytes())?)?.starts_with("HTTP/1.1 431 "));
    assert!(heard(said(address, b"\x16\x03\x01\x00\x05hello\r\n\r\n")?)?.starts_with("HTTP/1.1 400 "));
    // A body is not read: the answer ends the connection.
    let body = heard(said(address, b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\nabc")?)?;
    assert!(body.starts_with("HTTP/1.1 405 ") && body.contains("connection: close"), "{body}");
    let body = heard(said(address, b"GET /-/healthy HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabc")?)?;
    assert!(body.starts_with("HTTP/1.1 200 ") && body.contains("connection: close"), "{body}");

    assert_eq!(heard(unfinished)?, "");
    assert_eq!(heard(silent)?, "");
    // Not before their time, which is that of a header.
    assert!(begin.elapsed() >= Duration::from_secs(9), "{:?}", begin.elapsed());
    wait_for("the end of slow clients", || {
        Ok(metric("minimizer_web_refusals_total{reason=\"slow_request\"}")? >= 2.0
            && metric("minimizer_web_refusals_total{reason=\"slow_reader\"}")? >= 1.0)
    })?;
    drop(reader);
    Ok(())
}

/// 200 clients that scrape without a pause, and 200 that never finish, beside a drain that is due each half second.
#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn scrapes_and_slow_clients_hold_no_drain_up() -> Result<()> {
    let veth = Veth::new()?;
    let agent = start(&["--listen", PLAIN])?;
    let address = agent.address();
    let slow: Vec<_> = (0..200).map(|_| said(address, b"GET /metr")).collect::<Result<_>>()?;
    let (is_over, scrapes) = (AtomicBool::new(false), AtomicU64::new(0));
    let status = || -> Result<Value> { Ok(serde_json::from_str(&agent.get("/status", "")?.2)?) };
    thread::scope(|scope| -> Result<()> {
        for _ in 0..200 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let scraped = get(&format!("http://{address}/metrics"), "");
                    scrapes.fetch_add(
                        u64::from(scraped.is_ok_and(|(status, ..)| status == 200)),
                        Ordering::Relaxed,
                    );
                }
            });
        }
        let observed = (|| {
            wait_for("scrapes", || Ok(scrapes.load(Ordering::Relaxed) > 200))?;
            let before = status()?;
            veth.send(PACKETS, PAYLOAD_OCTETS)?;
            let count = |status: &Value, name: &str| status["drains"][name].as_u64().context("a number");
            let drains = count(&before, "succeeded")?;
            wait_for("twenty drains", || Ok(count(&status()?, "succeeded")? >= drains + 20))?;
            let after = status()?;
            let time = |status: &Value| status["uptime_milliseconds"].as_u64().context("a number");
            // Two drains may be on their way: one at each end.
            let due = (time(&after)? - time(&before)?) / 500;
            let done = count(&after, "succeeded")? - drains;
            eprintln!("{} scrapes, {done} drains of {due} due", scrapes.load(Ordering::Relaxed));
            ensure!(done + 2 >= due, "{done} drains of {due}");
            ensure!(after["ready"] == true, "{after:#}");
            ensure!(after["ledger"]["balanced"] == true, "{after:#}");
            ensure!(after["ledger"]["exported"]["packets"] == PACKETS, "{after:#}");
            Ok(())
        })();
        is_over.store(true, Ordering::Relaxed);
        observed
    })?;
    for client in slow {
        assert_eq!(heard(client)?, "");
    }
    let (ended, said) = agent.stop()?;
    ensure!(ended.success(), "{said}");
    Ok(())
}
