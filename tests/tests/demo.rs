//! `minimizer demo`: it proves what it prints, and leaves nothing behind however it ends.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use minimizer::commands::demo::generator::Traffic;
use minimizer::commands::demo::payload_check;
use minimizer::commands::demo::screen;
use minimizer::commands::demo::{RECEIVER, SENDER};
use minimizer::interfaces::netlink::Netlink;
use minimizer::policy::compile::CompiledPolicy;
use minimizer_common::tunnel::Tunnels;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tests::command::{Agent, minimizer};
use tests::leftovers::{Holdings, host_interfaces};

fn demo(arguments: &[&str]) -> Output {
    Command::new(minimizer()).arg("demo").args(arguments).output().expect("the demo starts")
}

fn text(octets: &[u8]) -> String {
    String::from_utf8(octets.to_vec()).expect("the output is UTF-8")
}

/// The JSON object of a demo that must succeed.
fn summary(arguments: &[&str]) -> Value {
    let output = demo(&[arguments, &["--check", "--output", "json"]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

fn outcome_sum(outcomes: &Value) -> u64 {
    let outcomes = outcomes.as_object().expect("outcomes are an object");
    outcomes.values().map(|value| value.as_u64().unwrap_or_else(|| outcome_sum(value))).sum()
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn the_last_screen_says_what_was_checked() {
    let output = demo(&["--duration", "3s", "--check"]);
    let screen = text(&output.stdout);
    assert!(output.status.success(), "{screen}{}", text(&output.stderr));
    let links = Netlink::open().expect("a socket").links().expect("the kernel lists its interfaces");
    for expected in [
        "frames sent in",
        "RECORDS BY PROTOCOL",
        "\n  TCP ",
        "\n  UDP/6 ",
        "ns per packet",
        "balanced: every packet has one outcome",
        "payload bytes read: 0",
        "replay CAPTURE.pcap",
    ] {
        assert!(screen.contains(expected), "{expected:?} is missing in:\n{screen}");
    }
    for name in screen::host_interfaces(&links) {
        assert!(screen.contains(&format!("-i {name}")), "{name} is missing in:\n{screen}");
    }
    assert!(!screen.contains('\x1b'), "no control sequences in a pipe");
    let intervals = screen.lines().filter(|line| line.contains("packets seen, ")).count();
    assert!(intervals >= 3, "a line for every second:\n{screen}");
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn sent_is_seen_and_the_ledger_balances() {
    let summary = summary(&["--duration", "1s", "--interval", "100ms"]);
    let interface = &summary["ledger"]["interfaces"][RECEIVER];
    assert!(summary["sent"].as_u64() > Some(0));
    assert_eq!(summary["sent"], summary["seen"]);
    assert_eq!(summary["sent"], interface["seen"]);
    assert_eq!(Some(outcome_sum(&interface["outcomes"])), interface["seen"].as_u64());
    assert_eq!(summary["ledger"]["balanced"], true);
    assert_eq!(summary["payload_check"]["passed"], true);
    let protocols = summary["protocols"].as_object().expect("an object");
    for protocol in ["TCP", "TCP/6", "UDP", "UDP/6", "ICMP", "ICMPv6", "SCTP", "SCTP/6"] {
        assert!(protocols.contains_key(protocol), "{protocol}");
    }
    let packets: u64 = protocols.values().filter_map(|sums| sums["packets"].as_u64()).sum();
    assert_eq!(Some(packets), summary["ledger"]["exported"]["packets"].as_u64());
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_table_too_small_changes_no_total() {
    let summary = summary(&["--duration", "1s", "--flows-per-cpu", "64"]);
    assert!(summary["ledger"]["overflow"]["packets"].as_u64() > Some(0));
    assert_eq!(summary["sent"], summary["seen"]);
}

/// A file that is removed when the test ends.
struct Capture(PathBuf);

impl Capture {
    /// Writes a classic pcap file with these frames.
    fn write(name: &str, frames: &[&[u8]]) -> Self {
        let mut octets = Vec::new();
        for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
            octets.extend(word.to_le_bytes());
        }
        for frame in frames {
            let length = u32::try_from(frame.len()).expect("frames are short");
            for word in [1_700_000_000, 0, length, length] {
                octets.extend(word.to_le_bytes());
            }
            octets.extend(*frame);
        }
        let path = std::env::temp_dir().join(format!("minimizer-demo-{}-{name}", std::process::id()));
        fs::write(&path, octets).expect("a temporary file");
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("the path is UTF-8")
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn the_frames_of_a_capture_are_sent_over_and_over() {
    let traffic = Traffic::mixed(3);
    let frames: Vec<_> = traffic.round().take(500).collect();
    // Longer than an Ethernet MTU: network cards merge segments before a capture sees them.
    let mut merged = frames[0].to_vec();
    merged.resize(9000, 0);
    let capture = Capture::write("whole.pcap", &[&frames[..], &[&merged[..]]].concat());
    let summary = summary(&["--duration", "1s", "--pcap", capture.path()]);
    assert!(summary["sent"].as_u64() > Some(501), "more than one round");
    assert_eq!(summary["sent"], summary["seen"]);
    assert_eq!(summary["unsendable"], 0);
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_damaged_capture_is_used_up_to_the_damage_and_named() {
    let traffic = Traffic::mixed(3);
    let frames: Vec<_> = traffic.round().take(10).collect();
    let capture = Capture::write("cut.pcap", &frames);
    let whole = fs::read(&capture.0).expect("readable");
    fs::write(&capture.0, &whole[..whole.len() - 1]).expect("writable");
    let output = demo(&["--duration", "500ms", "--output", "json", "--pcap", capture.path()]);
    let summary: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert!(summary["sent"].as_u64() > Some(0));
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("is damaged at byte"), "{}", text(&output.stderr));
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_capture_with_nothing_to_send_is_refused() {
    let capture = Capture::write("empty.pcap", &[]);
    let output = demo(&["--duration", "500ms", "--pcap", capture.path()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("holds no frame"), "{}", text(&output.stderr));
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn frames_that_no_interface_carries_are_told_as_that() {
    let frame = vec![0x55; 70_000];
    let capture = Capture::write("oversize.pcap", &[&frame[..], &frame[..]]);
    let output = demo(&["--duration", "500ms", "--pcap", capture.path()]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("(EMSGSIZE)") && said.contains("no frame has a length"), "{said}");
    assert!(!said.contains("CAP_NET_RAW"), "{said}");
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn the_payload_check_notices_a_header_byte() {
    let traffic = Traffic::mixed(1);
    let compiled = CompiledPolicy::full_record(Tunnels::NONE);
    let frames = &traffic.frames()[..200];
    let check = payload_check::check(frames, &compiled).expect("the check runs");
    assert!(check.passed && check.frames == 200 && check.inverted_octets > 0, "{check:?}");
    // The last octet of an IPv4 source address, or one in the middle of an IPv6 source address.
    let check = payload_check::compare(frames, &compiled, |_| 29..30).expect("the check runs");
    assert!(!check.passed, "{check:?}");
}

/// A demo without an end, in whose network frames are moving.
struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
    holdings: Holdings,
}

impl Running {
    fn start() -> Self {
        let mut child = Command::new(minimizer())
            .args(["demo", "--duration", "1h", "--interval", "100ms"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the demo starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("the demo prints");
        assert!(line.contains("packets seen"), "{line}");
        let holdings = Holdings::of(child.id()).expect("the demo runs");
        assert!(!holdings.programs.is_empty() && !holdings.maps.is_empty(), "{holdings:?}");
        assert_eq!(holdings.links.len(), 1, "one interface is attached");
        for name in [SENDER, RECEIVER] {
            assert!(holdings.interfaces.contains(name), "{holdings:?}");
        }
        Self { child, stdout, holdings }
    }

    /// Sends the signal; returns the exit code, if any, and what was printed since the start.
    fn end(mut self, signal: Signal) -> (Option<i32>, String) {
        kill_process(Pid::from_child(&self.child), signal).expect("the demo runs");
        let mut printed = String::new();
        self.stdout.read_to_string(&mut printed).expect("the output is UTF-8");
        let status = self.child.wait().expect("the demo ends");
        self.holdings.wait_gone().expect("nothing is left behind");
        let host = host_interfaces().expect("the host has interfaces");
        assert!(!host.contains(SENDER) && !host.contains(RECEIVER), "{host:?}");
        (status.code(), printed)
    }
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn an_interrupt_ends_it_early_with_the_same_screen_and_nothing_left() {
    for signal in [Signal::INT, Signal::TERM] {
        let (code, printed) = Running::start().end(signal);
        assert_eq!(code, Some(0), "{printed}");
        let sent = printed.lines().find(|line| line.contains("frames sent in")).expect("the last screen");
        let numbers: Vec<u64> = sent.split([' ', ',']).filter_map(|word| word.parse().ok()).collect();
        assert_eq!(numbers.first(), numbers.last(), "sent is seen: {sent}");
        assert!(printed.contains("balanced: every packet has one outcome"), "{printed}");
    }
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_kill_leaves_nothing() {
    let (code, _) = Running::start().end(Signal::KILL);
    assert_eq!(code, None);
}

#[test]
fn an_unknown_policy_is_bad_configuration() {
    let output = demo(&["--policy", "absent"]);
    assert_eq!(output.status.code(), Some(78), "{}", text(&output.stderr));
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn its_metrics_are_served_outside_of_the_private_network() {
    let mut command = Command::new(minimizer());
    command.args(["demo", "--duration", "1h", "--interval", "100ms", "--output", "json"]);
    let agent = Agent::start(command.args(["--listen", "127.0.0.1:0"])).expect("it serves on this host");
    let status = agent.wait_for(|status| status["ledger"]["exported"]["packets"].as_u64() > Some(0));
    let status = status.expect("it counts");
    assert_eq!(status["interfaces"][0]["name"], RECEIVER, "{status}");
    let metrics = agent.get("/metrics", "").expect("it answers").2;
    assert!(metrics.contains("minimizer_ledger_balanced 1\n"), "{metrics}");
    let (ended, said) = agent.stop().expect("it ends");
    assert!(ended.success(), "{said}");
}
