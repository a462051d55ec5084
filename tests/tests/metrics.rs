//! The running agent's web server, as Prometheus, promtool and slow clients see it.

use std::fmt::Debug;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::command::{Agent, get, minimizer};
use tests::privilege::can_use_kernel;
use tests::veth::{HEADER_OCTETS, RECEIVER, Veth};

const OPEN_METRICS: &str = "application/openmetrics-text;version=1.0.0";
const PACKETS: u64 = 1000;
const PAYLOAD_OCTETS: usize = 100;
/// Longest wait for what must come; beyond, something is stuck.
const LIMIT: Duration = Duration::from_secs(60);
/// Paces questions; nothing depends on it.
const PACE: Duration = Duration::from_millis(20);

fn start(interval: &str) -> Result<Agent> {
    let mut command = Command::new(minimizer());
    command.args(["run", "-i", RECEIVER, "--interval", interval, "--listen", "127.0.0.1:0"]);
    Agent::start(command.args(["--flows-per-cpu", "1024"]))
}

/// Asks until the answer is as wanted.
fn wait_for<T: Debug>(ask: impl Fn() -> Result<T>, is_wanted: impl Fn(&T) -> bool) -> Result<T> {
    let begin = Instant::now();
    loop {
        let answer = ask();
        match answer {
            Ok(answer) if is_wanted(&answer) => return Ok(answer),
            answer => ensure!(begin.elapsed() < LIMIT, "the last answer was {answer:?}"),
        }
        thread::park_timeout(PACE);
    }
}

/// The value of the sample that begins with `name`.
fn sample(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[test]
fn both_formats_have_the_counts_and_promtool_finds_no_fault() -> Result<()> {
    if !can_use_kernel() {
        return Ok(());
    }
    let veth = Veth::new()?;
    let agent = start("100ms")?;
    veth.send(PACKETS, PAYLOAD_OCTETS)?;
    let seen = format!("minimizer_seen_packets_total{{interface=\"{RECEIVER}\"}}");
    let is_complete = |text: &str| sample(text, &seen) == Some(1000.0);
    let ask = |accept: &str| agent.get("/metrics", accept);
    let (status, content_type, text) = wait_for(|| ask("*/*"), |(_, _, text)| is_complete(text))?;
    assert_eq!((status, content_type.as_str()), (200, "text/plain; version=0.0.4; charset=utf-8"));
    let counted = format!("minimizer_packets_total{{interface=\"{RECEIVER}\",outcome=\"counted\"}}");
    assert_eq!(sample(&text, &counted), Some(1000.0), "{text}");
    assert_eq!(sample(&text, "minimizer_ledger_balanced"), Some(1.0), "{text}");
    promtool(&text)?;

    let (_, content_type, text) = ask(OPEN_METRICS)?;
    assert_eq!(content_type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(is_complete(&text) && text.ends_with("# EOF\n"), "{text}");
    Ok(())
}

/// Passes the text to `promtool check metrics`, which knows the 0.0.4 format and the naming rules.
fn promtool(text: &str) -> Result<()> {
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = promtool.spawn().context("promtool is in Debian's package prometheus")?;
    child.stdin.take().context("stdin is piped")?.write_all(text.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = [output.stdout, output.stderr].concat();
    ensure!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
    Ok(())
}

#[test]
fn ready_only_after_a_drain() -> Result<()> {
    if !can_use_kernel() {
        return Ok(());
    }
    let _veth = Veth::new()?;
    // Its first drain is a minute away, longer than this test waits for anything.
    let idle = start("60s")?;
    let (status, _, text) = idle.get("/-/ready", "")?;
    assert_eq!((status, text.as_str()), (503, "not ready: no drain has ended yet\n"));
    assert_eq!(idle.get("/-/healthy", "")?.0, 200);
    let (ended, said) = idle.stop()?;
    assert!(ended.success(), "{said}");

    let busy = start("100ms")?;
    wait_for(|| busy.get("/-/ready", ""), |(status, ..)| *status == 200)?;
    Ok(())
}

#[test]
fn clients_that_do_not_finish_hold_nobody_up() -> Result<()> {
    if !can_use_kernel() {
        return Ok(());
    }
    let veth = Veth::new()?;
    let agent = start("100ms")?;
    let mut slow = Vec::new();
    for number in 0..100 {
        let mut client = TcpStream::connect(agent.address())?;
        // Half of them never finish their request, the others never read the answers.
        let request = if number % 2 == 0 { "GET /metr" } else { "GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n" };
        client.write_all(request.repeat(if number % 2 == 0 { 1 } else { 200 }).as_bytes())?;
        slow.push(client);
    }
    veth.send(PACKETS, PAYLOAD_OCTETS)?;
    let ask = || Ok(serde_json::from_str::<Value>(&agent.get("/status", "")?.2)?);
    let status = wait_for(ask, |status| status["ledger"]["exported"]["packets"] == PACKETS)?;
    assert_eq!(status["ledger"]["balanced"], true, "{status}");
    assert_eq!(status["interfaces"][0]["mode"], "native", "{status}");
    for client in &mut slow {
        // All of them are still connected: nothing to read yet, or an answer, but no end.
        client.set_nonblocking(true)?;
        let read = client.read(&mut [0; 1]);
        let is_connected = match &read {
            Ok(octets) => *octets == 1,
            Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
        };
        assert!(is_connected, "{read:?}");
    }
    let (ended, said) = agent.stop()?;
    assert!(ended.success(), "{said}");
    Ok(())
}

/// A real Prometheus, killed when dropped.
struct Prometheus(Child);

impl Prometheus {
    const ADDRESS: &str = "127.0.0.1:9090";

    fn start(folder: &Path, target: &str) -> Result<Self> {
        let config = folder.join("prometheus.yml");
        let scrape = format!(
            "scrape_configs: [{{job_name: minimizer, scrape_interval: 200ms, scrape_timeout: 200ms, \
             static_configs: [{{targets: ['{target}']}}]}}]\n"
        );
        std::fs::write(&config, scrape)?;
        let mut prometheus = Command::new("prometheus");
        prometheus.arg(format!("--config.file={}", config.display()));
        prometheus.arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
        prometheus.arg(format!("--web.listen-address={}", Self::ADDRESS));
        prometheus.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(prometheus.spawn().context("prometheus is a package of Debian")?))
    }

    /// The values of a query, as text.
    fn query(query: &str) -> Result<Vec<String>> {
        let (status, _, body) = get(&format!("http://{}/api/v1/query?query={query}", Self::ADDRESS), "")?;
        let body: Value = serde_json::from_str(&body)?;
        ensure!(status == 200 && body["status"] == "success", "{body}");
        let results = body["data"]["result"].as_array().context("a vector")?;
        Ok(results.iter().filter_map(|result| result["value"][1].as_str().map(str::to_owned)).collect())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn prometheus_scrapes_what_was_sent() -> Result<()> {
    if !can_use_kernel() {
        return Ok(());
    }
    let veth = Veth::new()?;
    let agent = start("100ms")?;
    let folder = tempfile::tempdir()?;
    let _prometheus = Prometheus::start(folder.path(), &agent.address().to_string())?;
    veth.send(PACKETS, PAYLOAD_OCTETS)?;
    let [ethernet, ip, udp] = HEADER_OCTETS;
    let payload = u64::try_from(PAYLOAD_OCTETS)?;
    let expected = [
        ("minimizer_exported_packets_total", PACKETS),
        ("minimizer_seen_packets_total", PACKETS),
        ("minimizer_seen_octets_total", PACKETS * (ethernet + ip + udp + payload)),
        ("minimizer_counted_octets_total", PACKETS * (ip + udp + payload)),
        ("minimizer_exported_octets_total", PACKETS * (ip + udp + payload)),
        ("minimizer_packets_total%7Boutcome=%22counted%22%7D", PACKETS),
        ("sum(minimizer_packets_total)", PACKETS),
        ("sum(minimizer_packets_total%7Breason!=%22%22%7D)", 0),
        ("minimizer_overflow_packets_total", 0),
        ("minimizer_queued_packets", 0),
        ("minimizer_ledger_balanced", 1),
        ("minimizer_interface_attached%7Bmode=%22native%22%7D", 1),
        ("minimizer_build_info", 1),
        (
            "minimizer_drain_duration_seconds_bucket%7Ble=%22%2BInf%22%7D%20-%20on()%20minimizer_drain_duration_seconds_count",
            0,
        ),
        ("up", 1),
    ];
    for (query, value) in expected {
        wait_for(|| Prometheus::query(query), |values| *values == [value.to_string()]).context(query)?;
    }
    Ok(())
}
