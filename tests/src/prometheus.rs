//! A real Prometheus, and promtool.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::command::get;
use crate::tools::tool;

/// A Prometheus in the network namespace of the calling thread, killed when dropped.
pub struct Prometheus(Child);

impl Prometheus {
    const ADDRESS: &str = "127.0.0.1:9090";

    /// Starts it in a folder with this configuration and these further options.
    ///
    /// # Errors
    /// When it is not installed.
    pub fn start(folder: &Path, config: &str, options: &[&str]) -> Result<Self> {
        let path = folder.join("prometheus.yml");
        fs::write(&path, config)?;
        let mut prometheus = tool("prometheus");
        prometheus.arg(format!("--config.file={}", path.display()));
        prometheus.arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
        prometheus.arg(format!("--web.listen-address={}", Self::ADDRESS)).args(options);
        prometheus.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(prometheus.spawn().context("prometheus is a package of Debian")?))
    }

    /// Asks for a path of its API; returns what it says under `data`.
    ///
    /// # Errors
    /// What it says is wrong.
    pub fn api(&self, path: &str) -> Result<Value> {
        let (status, _, body) = get(&format!("http://{}/api/v1/{path}", Self::ADDRESS), "")?;
        let mut body: Value = serde_json::from_str(&body)?;
        ensure!(status == 200 && body["status"] == "success", "{path}: {body}");
        Ok(body["data"].take())
    }

    /// The values of an expression, as text.
    ///
    /// # Errors
    /// What it says is wrong with it.
    pub fn query(&self, expression: &str) -> Result<Vec<String>> {
        let data = self.api(&format!("query?query={}", encoded(expression)))?;
        let results = data["result"].as_array().context("a vector")?;
        // Native histograms have no value, but a count.
        let value = |result: &Value| {
            let value = result["value"][1].as_str().or_else(|| result["histogram"][1]["count"].as_str());
            value.map(str::to_owned)
        };
        Ok(results.iter().filter_map(value).collect())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Text as a part of a URL.
fn encoded(text: &str) -> String {
    let octets = text.bytes().map(|octet| match octet {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(octet).to_string(),
        _ => format!("%{octet:02X}"),
    });
    octets.collect()
}

/// Runs promtool in a folder with an input; returns what it prints.
///
/// # Errors
/// When it finds a fault.
pub fn promtool(folder: &Path, arguments: &[&str], input: &str) -> Result<String> {
    let mut promtool = tool("promtool");
    promtool.current_dir(folder).args(arguments);
    promtool.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = promtool.spawn().context("promtool is in Debian's package prometheus")?;
    child.stdin.take().context("stdin is piped")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8([output.stdout, output.stderr].concat())?;
    ensure!(output.status.success(), "promtool {arguments:?}: {said}");
    Ok(said)
}
