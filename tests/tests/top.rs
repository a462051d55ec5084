//! `minimizer top` in a real terminal, asking a real agent.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tests::command::{Agent, minimizer};
use tests::veth::{RECEIVER, SENDER, Veth};

const PACKETS: u64 = 1000;
const PAYLOAD_OCTETS: usize = 100;
/// Longest wait for what must come; beyond, something is stuck.
const LIMIT: Duration = Duration::from_secs(60);

fn start() -> Result<Agent> {
    let mut command = Command::new(minimizer());
    command.args(["run", "-i", RECEIVER, "-i", SENDER, "--interval", "200ms", "--listen", "127.0.0.1:0"]);
    Agent::start(command.args(["--flows-per-cpu", "1024"]))
}

/// A terminal of 80 columns and 24 rows with a shell in it, in the network namespace of the thread that made it.
struct Terminal {
    socket: String,
}

impl Terminal {
    fn new(name: &str) -> Result<Self> {
        let terminal = Self { socket: format!("minimizer-{name}-{}", std::process::id()) };
        terminal.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            "80",
            "-y",
            "24",
            "env",
            "PS1=prompt> ",
            "sh",
        ])?;
        // What is typed earlier is shown before the prompt, and two prompts share a line later.
        terminal.wait_for("the first prompt", |screen| screen.contains("prompt>"))?;
        Ok(terminal)
    }

    fn tmux(&self, arguments: &[&str]) -> Result<String> {
        let output =
            Command::new("tmux").args(["-L", &self.socket]).args(arguments).env("TERM", "xterm").output()?;
        ensure!(output.status.success(), "tmux {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn keys(&self, keys: &[&str]) -> Result<()> {
        self.tmux(&[&["send-keys"], keys].concat()).map(drop)
    }

    /// Waits until the screen is as wanted, and returns it.
    fn wait_for(&self, what: &str, is_wanted: impl Fn(&str) -> bool) -> Result<String> {
        let begin = Instant::now();
        loop {
            let screen = self.tmux(&["capture-pane", "-p"])?;
            if is_wanted(&screen) {
                return Ok(screen);
            }
            ensure!(begin.elapsed() < LIMIT, "{what} does not come; the screen is\n{screen}");
            // Paces questions; nothing depends on it.
            thread::park_timeout(Duration::from_millis(50));
        }
    }

    fn is_alternate(&self) -> Result<bool> {
        Ok(self.tmux(&["display-message", "-p", "#{alternate_on}"])?.trim() == "1")
    }

    /// Waits until the shell is back, and checks that the terminal is as it was.
    fn assert_restored(&self, exit_code: &str) -> Result<()> {
        // Until then, what is typed goes to the view, which ends without reading it.
        let is_back =
            |screen: &str| screen.trim_end().lines().last().is_some_and(|line| line.trim_end() == "prompt>");
        self.wait_for("the shell", is_back)?;
        self.keys(&["echo ended $?; stty -a | tr -s ' ;' '\\n' | grep -x -e icanon -e echo", "Enter"])?;
        let ended = format!("ended {exit_code}");
        for line in [&ended, "icanon", "echo"] {
            self.wait_for(line, |screen| screen.lines().any(|other| other.trim_end() == line))?;
        }
        ensure!(!self.is_alternate()?, "the view is still there");
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]).ok();
    }
}

fn command(agent: &Agent) -> String {
    format!("{} top --listen {}", minimizer().display(), agent.address())
}

#[test]
#[cfg_attr(
    any(without_kernel, without_tmux),
    ignore = "needs root, the kernel program and tmux: cargo xtask test"
)]
fn sorts_filters_pauses_and_restores_the_terminal() -> Result<()> {
    let veth = Veth::new()?;
    let agent = start()?;
    veth.send(PACKETS, PAYLOAD_OCTETS)?;
    agent.wait_for(|status| status["ledger"]["interfaces"][RECEIVER]["seen"] == PACKETS)?;
    let terminal = Terminal::new("keys")?;
    terminal.keys(&[&command(&agent), "Enter"])?;
    let screen = terminal.wait_for("the view", |screen| screen.contains("q quit"))?;
    for part in
        ["ready", "balanced", "carrier-default", RECEIVER, SENDER, "seen 1000, counted 1000", "counted"]
    {
        ensure!(screen.contains(part), "{part} is missing in\n{screen}");
    }
    ensure!(terminal.is_alternate()?);
    let is_above = |screen: &str, one: &str, other: &str| {
        let line = |name| screen.lines().position(|line| line.starts_with(name));
        line(one).zip(line(other)).is_some_and(|(one, other)| one < other)
    };
    terminal.keys(&["1"])?;
    terminal.wait_for("the order of names", |screen| is_above(screen, RECEIVER, SENDER))?;
    terminal.keys(&["r"])?;
    terminal.wait_for("the reverse order", |screen| is_above(screen, SENDER, RECEIVER))?;
    terminal.keys(&["/", "rec", "Enter"])?;
    terminal.wait_for("one interface", |screen| !screen.contains(SENDER) && screen.contains(RECEIVER))?;
    terminal.keys(&["Enter"])?;
    terminal.wait_for("the detail", |screen| screen.contains("highest"))?;
    terminal.keys(&["Enter", "p"])?;
    terminal.wait_for("the pause", |screen| screen.contains("PAUSED") && screen.contains("seen 1000"))?;
    veth.send(PACKETS, PAYLOAD_OCTETS)?;
    agent.wait_for(|status| status["ledger"]["interfaces"][RECEIVER]["seen"] == 2 * PACKETS)?;
    ensure!(terminal.tmux(&["capture-pane", "-p"])?.contains("seen 1000,"));
    terminal.keys(&["p"])?;
    terminal.wait_for("the present", |screen| screen.contains("seen 2000,"))?;
    // Smaller than anything fits into.
    for (columns, rows) in [("40", "10"), ("12", "3"), ("80", "24")] {
        terminal.tmux(&["resize-window", "-x", columns, "-y", rows])?;
        terminal.wait_for("a smaller view", |screen| screen.contains("minimizer"))?;
    }
    terminal.keys(&["q"])?;
    terminal.assert_restored("0")
}

#[test]
#[cfg_attr(
    any(without_kernel, without_tmux),
    ignore = "needs root, the kernel program and tmux: cargo xtask test"
)]
fn says_when_the_agent_is_gone_and_restores_the_terminal_on_a_signal() -> Result<()> {
    let _veth = Veth::new()?;
    let agent = start()?;
    let terminal = Terminal::new("gone")?;
    terminal.keys(&[&format!("{} -i {RECEIVER}", command(&agent)), "Enter"])?;
    let screen = terminal.wait_for("the view", |screen| screen.contains("q quit"))?;
    ensure!(!screen.contains(SENDER), "{screen}");
    agent.stop()?;
    terminal.wait_for("the end of the agent", |screen| screen.contains("AGENT GONE"))?;
    let shell = terminal.tmux(&["display-message", "-p", "#{pane_pid}"])?;
    let shell = shell.trim();
    let children = fs::read_to_string(format!("/proc/{shell}/task/{shell}/children"))?;
    let view = Pid::from_raw(children.trim().parse()?).context("the view runs")?;
    kill_process(view, Signal::TERM)?;
    terminal.wait_for("the shell", |screen| screen.contains("prompt>"))?;
    terminal.assert_restored("0")
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn without_a_terminal_it_prints_once() -> Result<()> {
    let veth = Veth::new()?;
    let agent = start()?;
    veth.send(PACKETS, PAYLOAD_OCTETS)?;
    agent.wait_for(|status| status["ledger"]["interfaces"][RECEIVER]["seen"] == PACKETS)?;
    let top = |arguments: &[&str]| -> Result<String> {
        let listen = agent.address().to_string();
        let output = Command::new(minimizer()).args(["top", "--listen", &listen]).args(arguments).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    };
    let table = top(&["-i", "receive*"])?;
    ensure!(table.contains("PACKETS/S") && table.contains(RECEIVER) && !table.contains(SENDER), "{table}");
    let report: serde_json::Value = serde_json::from_str(&top(&["--output", "json", "-i", RECEIVER])?)?;
    assert_eq!(report["interfaces"].as_array().map(Vec::len), Some(1), "{report:#}");
    assert_eq!(report["ledger"]["interfaces"][RECEIVER]["seen"], PACKETS, "{report:#}");
    assert!(report["interfaces"][0]["rates"]["packets_per_second"].is_number(), "{report:#}");
    Ok(())
}
