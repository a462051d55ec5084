//! The metrics of a running agent, as Prometheus and promtool see them, and what is deployed with them.

use std::fmt::Debug;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use serde_json::Value;
use tests::command::{Agent, minimizer};
use tests::prometheus::{Prometheus, promtool};
use tests::veth::{HEADER_OCTETS, RECEIVER, Veth};

/// The folder of the workspace.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const OPEN_METRICS: &str = "application/openmetrics-text;version=1.0.0";
const PROTOBUF: &str =
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
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

/// A configuration of Prometheus that scrapes the agent often.
fn scrapes(agent: &Agent) -> String {
    format!(
        "scrape_configs: [{{job_name: minimizer, scrape_interval: 200ms, scrape_timeout: 200ms, \
         static_configs: [{{targets: ['{}']}}]}}]\n",
        agent.address()
    )
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
#[cfg_attr(
    any(without_kernel, without_prometheus),
    ignore = "needs root, the kernel program and Prometheus: cargo xtask test"
)]
fn both_formats_have_the_counts_and_promtool_finds_no_fault() -> Result<()> {
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
    assert_eq!(promtool(Path::new("."), &["check", "metrics"], &text)?, "");
    let series = text.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(sample(&text, "minimizer_metrics_series"), Some(series as f64), "{text}");
    // Nobody measures the program, or somebody who has nothing to do with this test does.
    let is_measured = fs::read_to_string(Measuring::SWITCH)?.trim() == "1";
    assert_eq!(text.contains("minimizer_program_runs_total"), is_measured, "{text}");

    let (_, content_type, text) = ask(OPEN_METRICS)?;
    assert_eq!(content_type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(is_complete(&text) && text.ends_with("# EOF\n"), "{text}");
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn ready_only_after_a_drain() -> Result<()> {
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
#[cfg_attr(
    any(without_kernel, without_prometheus),
    ignore = "needs root, the kernel program and Prometheus: cargo xtask test"
)]
fn prometheus_scrapes_what_was_sent() -> Result<()> {
    let veth = Veth::new()?;
    let agent = start("100ms")?;
    let folder = tempfile::tempdir()?;
    let prometheus = Prometheus::start(folder.path(), &scrapes(&agent), &[])?;
    veth.send(PACKETS, PAYLOAD_OCTETS)?;
    let [ethernet, ip, udp] = HEADER_OCTETS;
    let payload = u64::try_from(PAYLOAD_OCTETS)?;
    let expected = [
        ("minimizer_exported_packets_total", PACKETS),
        ("minimizer_seen_packets_total", PACKETS),
        ("minimizer_seen_octets_total", PACKETS * (ethernet + ip + udp + payload)),
        ("minimizer_counted_octets_total", PACKETS * (ip + udp + payload)),
        ("minimizer_exported_octets_total", PACKETS * (ip + udp + payload)),
        ("minimizer_packets_total{outcome=\"counted\"}", PACKETS),
        ("sum(minimizer_packets_total)", PACKETS),
        ("sum(minimizer_packets_total{reason!=\"\"})", 0),
        ("minimizer_protocol_packets_total{ip_version=\"4\",protocol=\"udp\"}", PACKETS),
        ("sum(minimizer_protocol_packets_total)", PACKETS),
        ("minimizer_overflow_packets_total", 0),
        ("minimizer_queued_packets", 0),
        ("minimizer_ledger_balanced", 1),
        ("minimizer_interface_attached{mode=\"native\"}", 1),
        ("minimizer_build_info", 1),
        (
            "minimizer_drain_duration_seconds_bucket{le=\"+Inf\"} - on() minimizer_drain_duration_seconds_count",
            0,
        ),
        ("up", 1),
        ("minimizer_metrics_series - scrape_samples_scraped", 0),
        ("process_resident_memory_bytes > bool 1e6", 1),
        ("process_open_fds < bool process_max_fds", 1),
        ("process_cpu_seconds_total > bool 0", 1),
    ];
    for (query, value) in expected {
        wait_for(|| prometheus.query(query), |values| *values == [value.to_string()]).context(query)?;
    }
    Ok(())
}

/// A Prometheus with native histograms asks for protobuf, and gets them.
#[test]
#[cfg_attr(
    any(without_kernel, without_prometheus),
    ignore = "needs root, the kernel program and Prometheus: cargo xtask test"
)]
fn prometheus_scrapes_native_histograms() -> Result<()> {
    let _veth = Veth::new()?;
    let agent = start("100ms")?;
    let folder = tempfile::tempdir()?;
    let options = ["--enable-feature=native-histograms"];
    let prometheus = Prometheus::start(folder.path(), &scrapes(&agent), &options)?;
    let above = |limit: f64| move |values: &Vec<String>| matches!(&values[..], [value] if value.parse().is_ok_and(|value: f64| value > limit));
    wait_for(|| prometheus.query("histogram_count(minimizer_drain_duration_seconds)"), above(5.0))?;
    // A drain takes longer than the system call that it begins with.
    let quantile = "histogram_quantile(0.5, rate(minimizer_drain_duration_seconds[1m]))";
    wait_for(|| prometheus.query(quantile), above(1e-6)).context(quantile)?;
    wait_for(|| prometheus.query("histogram_sum(minimizer_drain_duration_seconds)"), above(0.0))?;
    // The rest is there as well.
    for query in ["minimizer_ledger_balanced", "up"] {
        wait_for(|| prometheus.query(query), |values| *values == ["1"]).context(query)?;
    }
    let (status, content_type, _) = {
        let mut answer =
            ureq::get(format!("http://{}/metrics", agent.address())).header("accept", PROTOBUF).call()?;
        let content_type = answer.headers()["content-type"].to_str()?.to_owned();
        (answer.status().as_u16(), content_type, answer.body_mut().read_to_vec()?)
    };
    assert_eq!((status, content_type.replace("; ", ";").as_str()), (200, PROTOBUF));
    Ok(())
}

/// Has the kernel measure programs until it is dropped.
struct Measuring(Vec<u8>);

impl Measuring {
    const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

    fn start() -> Result<Self> {
        let before = fs::read(Self::SWITCH)?;
        fs::write(Self::SWITCH, "1")?;
        Ok(Self(before))
    }
}

impl Drop for Measuring {
    fn drop(&mut self) {
        fs::write(Self::SWITCH, &self.0).ok();
    }
}

/// `carrier-default` with a mandate that lasts for a month.
fn mandated(folder: &Path) -> Result<std::path::PathBuf> {
    let policy = folder.join("policy.toml");
    let now = Timestamp::now();
    let text = format!(
        "acknowledged = [\"every communication is collected, between domestic parties too\"]\n{}\n[mandate]\nid = \"NCO-7\"\npurpose = \"to test\"\nlegal_basis = \"none\"\nvalid_from = {}\n\
         valid_until = {}\n",
        fs::read_to_string(Path::new(ROOT).join("policies/carrier-default.toml"))?,
        now - Duration::from_secs(60),
        now + Duration::from_secs(30 * 86_400)
    );
    fs::write(&policy, text)?;
    Ok(policy)
}

/// The expressions of the dashboard with the titles of their panels, with all that can be chosen chosen.
fn dashboard() -> Result<Vec<(String, String)>> {
    let text = fs::read_to_string(Path::new(ROOT).join("deploy/grafana/minimizer.json"))?;
    let dashboard: Value = serde_json::from_str(&text)?;
    let mut expressions = Vec::new();
    for panel in dashboard["panels"].as_array().context("panels")? {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().context("an expression")?;
            let expression = [("$__rate_interval", "1m"), ("$instance", ".*"), ("$interface", ".*")]
                .iter()
                .fold(expression.to_owned(), |text, (variable, value)| text.replace(variable, value));
            ensure!(!expression.contains('$'), "{expression}");
            expressions.push((panel["title"].to_string(), expression));
        }
    }
    Ok(expressions)
}

/// Every expression of the dashboard and of the rules, against a real Prometheus that scrapes a real agent.
#[test]
#[cfg_attr(
    any(without_kernel, without_prometheus),
    ignore = "needs root, the kernel program and Prometheus: cargo xtask test"
)]
fn dashboard_and_rules_are_answered() -> Result<()> {
    let veth = Veth::new()?;
    let _measuring = Measuring::start()?;
    let folder = tempfile::tempdir()?;
    let mut command = Command::new(minimizer());
    command.args(["run", "-i", RECEIVER, "--interval", "100ms", "--listen", "127.0.0.1:0", "--policy"]);
    command.arg(mandated(folder.path())?).args(["--flows-per-cpu", "1024", "--output", "json"]);
    let agent = Agent::start(&mut command)?;
    let deployed = Path::new(ROOT).join("deploy/prometheus");
    let config = format!(
        "global: {{evaluation_interval: 200ms}}\nrule_files: ['{0}/recording.yml', '{0}/alerts.yml']\n{1}",
        deployed.display(),
        scrapes(&agent)
    );
    let prometheus = Prometheus::start(folder.path(), &config, &[])?;
    let mut expressions = dashboard()?;
    let recording = fs::read_to_string(deployed.join("recording.yml"))?;
    let recorded = recording.lines().filter_map(|line| line.trim().strip_prefix("- record: "));
    expressions.extend(recorded.map(|name| (name.to_owned(), name.to_owned())));
    assert!(expressions.len() > 50, "{}", expressions.len());
    for (title, expression) in &expressions {
        let ask = || {
            // A rate needs a change between two scrapes.
            veth.send(1, PAYLOAD_OCTETS)?;
            prometheus.query(expression)
        };
        let has_numbers =
            |values: &Vec<String>| !values.is_empty() && values.iter().any(|value| value != "NaN");
        wait_for(ask, has_numbers).with_context(|| format!("{title}: {expression}"))?;
    }

    let rules = wait_for(
        || prometheus.api("rules"),
        |rules| {
            let healths =
                rules["groups"].as_array().into_iter().flatten().flat_map(|group| group["rules"].as_array());
            healths.flatten().all(|rule| rule["health"] == "ok")
        },
    )?;
    let groups = rules["groups"].as_array().context("groups")?;
    let rules: Vec<_> = groups.iter().flat_map(|group| group["rules"].as_array()).flatten().collect();
    let text = recording + &fs::read_to_string(deployed.join("alerts.yml"))?;
    assert_eq!(rules.len(), text.lines().filter(|line| line.trim().starts_with("- ")).count() - 2);
    for rule in rules {
        assert!(rule["state"].as_str().is_none_or(|state| state == "inactive"), "{rule:#}");
    }
    Ok(())
}

#[test]
#[cfg_attr(without_prometheus, ignore = "needs Prometheus: cargo xtask test")]
fn promtool_accepts_what_is_deployed() -> Result<()> {
    let deployed = Path::new(ROOT).join("deploy/prometheus");
    promtool(&deployed, &["check", "rules", "--lint-fatal", "alerts.yml", "recording.yml"], "")?;
    promtool(&deployed, &["check", "config", "prometheus.yml"], "")?;
    promtool(&deployed, &["test", "rules", "tests.yml"], "")?;
    // Each alert has a test in which it is raised.
    let alerts = fs::read_to_string(deployed.join("alerts.yml"))?;
    let tests = fs::read_to_string(deployed.join("tests.yml"))?;
    for alert in alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        let name = format!("alertname: {alert}\n");
        let asked = tests.split(&name).skip(1);
        let mut asked = asked.map(|rest| rest.split("- alertname").next().unwrap_or_default());
        assert!(asked.any(|one| one.contains("exp_alerts")), "{alert} is never raised");
    }
    Ok(())
}
