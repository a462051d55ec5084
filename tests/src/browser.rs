//! A real browser without a window: loads pages, evaluates expressions in them, says what it asked for.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Seconds after which a browser that hangs is ended.
const LIFE_SECONDS: &str = "300";
/// Longest wait for what must come.
const LIMIT: Duration = Duration::from_secs(60);

/// A Chromium with an empty profile, and one page of it. It runs in the network namespace of the thread that starts it.
pub struct Browser {
    child: Child,
    commands: File,
    messages: BufReader<File>,
    session: Option<String>,
    sent: u64,
    events: Vec<Value>,
    _folder: TempDir,
}

impl Browser {
    /// Starts it with a blank page.
    ///
    /// # Errors
    /// When there is no Chromium, or it does not start.
    pub fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (commands, messages) = (folder.path().join("commands"), folder.path().join("messages"));
        for pipe in [&commands, &messages] {
            mkfifo(pipe, Mode::S_IRUSR | Mode::S_IWUSR)?;
        }
        // It reads commands at descriptor 3 and answers at 4.
        let script = "exec 3<\"$1\" 4>\"$2\"; shift 2; exec \"$@\"";
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "sh"]).args([&commands, &messages]).args([
            "timeout",
            LIFE_SECONDS,
            "chromium",
        ]);
        shell.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]);
        shell.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
        shell.args([
            "--disable-dev-shm-usage",
            "--no-proxy-server",
            "--hide-scrollbars",
            "--remote-debugging-pipe",
        ]);
        shell.arg(format!("--user-data-dir={}", folder.path().join("profile").display())).arg("about:blank");
        let child = shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let commands = File::options().write(true).open(commands)?;
        let messages = BufReader::new(File::open(messages)?);
        let events = Vec::new();
        let mut browser = Self { child, commands, messages, session: None, sent: 0, events, _folder: folder };
        let page = browser.command("Target.createTarget", json!({ "url": "about:blank" }))?;
        let attach = json!({ "targetId": page["targetId"], "flatten": true });
        let session = browser.command("Target.attachToTarget", attach)?;
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Network", "Log"] {
            browser.command(&format!("{domain}.enable"), json!({}))?;
        }
        Ok(browser)
    }

    /// Sends a command and returns its answer; what happens meanwhile is kept.
    ///
    /// # Errors
    /// When the browser refuses, or has ended.
    pub fn command(&mut self, method: &str, parameters: Value) -> Result<Value> {
        self.sent += 1;
        let mut command = json!({ "id": self.sent, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            command["sessionId"] = json!(session);
        }
        self.commands.write_all(format!("{command}\0").as_bytes())?;
        loop {
            let message = self.message()?;
            if message["id"] == self.sent {
                ensure!(message.get("error").is_none(), "{method}: {message}");
                return Ok(message["result"].clone());
            }
            self.events.push(message);
        }
    }

    fn message(&mut self) -> Result<Value> {
        let mut message = Vec::new();
        self.messages.read_until(0, &mut message)?;
        if message.pop().is_none() {
            bail!("chromium ended: is the package chromium installed?");
        }
        Ok(serde_json::from_slice(&message)?)
    }

    /// Loads a page for a screen of this size, in the light or in the dark, with or without its scripts.
    ///
    /// # Errors
    /// When it does not load.
    pub fn load(&mut self, url: &str, size: (u32, u32), scheme: &str, scripts: bool) -> Result<()> {
        let (width, height) = size;
        let metrics =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.command("Emulation.setDeviceMetricsOverride", metrics)?;
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.command("Emulation.setEmulatedMedia", features)?;
        self.command("Emulation.setScriptExecutionDisabled", json!({ "value": !scripts }))?;
        self.events.clear();
        let answer = self.command("Page.navigate", json!({ "url": url }))?;
        ensure!(answer.get("errorText").is_none(), "{url}: {answer}");
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            let event = self.message()?;
            self.events.push(event);
        }
        Ok(())
    }

    /// The value of a JavaScript expression in the page.
    ///
    /// # Errors
    /// When it throws.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let parameters = json!({ "expression": expression, "returnByValue": true });
        let answer = self.command("Runtime.evaluate", parameters)?;
        ensure!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        Ok(answer["result"]["value"].clone())
    }

    /// Evaluates until the value is this one.
    ///
    /// # Errors
    /// When it does not become so, with the last value.
    pub fn wait_for(&mut self, expression: &str, wanted: &Value) -> Result<()> {
        let begin = Instant::now();
        loop {
            let value = self.evaluate(expression)?;
            if value == *wanted {
                return Ok(());
            }
            ensure!(begin.elapsed() < LIMIT, "{expression} is {value}");
            // Paces questions; nothing depends on it.
            thread::park_timeout(Duration::from_millis(50));
        }
    }

    /// Everything that the page asked for since it was loaded.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        let requests = self.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        requests.filter_map(|event| event["params"]["request"]["url"].as_str().map(str::to_owned)).collect()
    }

    /// Everything that the page, or the browser about it, complained of since it was loaded.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let is_complaint = |event: &&Value| {
            ["Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"]
                .iter()
                .any(|method| event["method"] == *method)
        };
        self.events.iter().filter(is_complaint).map(ToString::to_string).collect()
    }

    /// The whole page as a PNG.
    ///
    /// # Errors
    /// When there is none.
    pub fn screenshot(&mut self) -> Result<Vec<u8>> {
        let parameters = json!({ "format": "png", "captureBeyondViewport": true });
        let answer = self.command("Page.captureScreenshot", parameters)?;
        Ok(STANDARD.decode(answer["data"].as_str().context("the screenshot has data")?)?)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It ends with all of its processes; when it has ended already, nothing is left to do.
        self.session = None;
        self.command("Browser.close", json!({})).ok();
        self.child.wait().ok();
    }
}
