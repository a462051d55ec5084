//! The running agent's page, as a real browser shows it.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::browser::Browser;
use tests::command::{Agent, minimizer};
use tests::veth::{RECEIVER, Veth};

const PACKETS: u64 = 1000;
const PAYLOAD_OCTETS: usize = 100;
/// Folder in which screenshots are left, when it is set.
const SCREENSHOTS: &str = "MINIMIZER_SCREENSHOTS";

const DESKTOP: (u32, u32) = (1200, 900);
const PHONE: (u32, u32) = (360, 740);

/// The terms of a sum on the page, by name.
fn sum(whole: &str) -> String {
    format!(
        "Object.fromEntries(Array.from(document.querySelectorAll('[data-sum={whole}] td[data-of]'), \
         (cell) => [cell.dataset.of, Number(cell.querySelector('data').value)]))"
    )
}

fn start() -> Result<Agent> {
    let mut command = Command::new(minimizer());
    command.args(["run", "-i", RECEIVER, "--interval", "200ms", "--listen", "127.0.0.1:0"]);
    Agent::start(command.args(["--flows-per-cpu", "1024"]))
}

/// Sends packets and waits until all of them, since the start, were drained and handed over.
fn send(veth: &Veth, agent: &Agent, since_start: u64) -> Result<Value> {
    veth.send(PACKETS, PAYLOAD_OCTETS)?;
    agent.wait_for(|status| {
        let ledger = &status["ledger"];
        ledger["interfaces"][RECEIVER]["seen"] == since_start && ledger["exported"]["packets"] == since_start
    })
}

#[test]
#[cfg_attr(
    any(without_kernel, without_chromium),
    ignore = "needs root, the kernel program and Chromium: cargo xtask test"
)]
fn numbers_are_those_of_the_status_and_nothing_is_asked_elsewhere() -> Result<()> {
    let veth = Veth::new()?;
    let agent = start()?;
    let url = format!("http://{}/", agent.address());
    let status = send(&veth, &agent, PACKETS)?;
    let mut browser = Browser::start()?;
    for (size, scheme, scripts) in
        [(DESKTOP, "light", true), (DESKTOP, "dark", true), (PHONE, "light", true), (PHONE, "dark", false)]
    {
        let case = format!("{}-{scheme}-{}", size.0, if scripts { "scripts" } else { "plain" });
        browser.load(&url, size, scheme, scripts)?;
        let outcomes = browser.evaluate(&sum("seen"))?;
        assert_eq!(outcomes["seen"], status["ledger"]["interfaces"][RECEIVER]["seen"], "{case}");
        assert_eq!(outcomes["counted"], PACKETS, "{case}");
        let places = browser.evaluate(&sum("counted"))?;
        for name in ["exported", "queued", "dropped"] {
            assert_eq!(places[name], status["ledger"][name]["packets"], "{case}: {name}");
        }
        let text = browser.evaluate("document.body.innerText")?;
        let text = text.as_str().context("a page has text")?;
        for part in ["balanced", "carrier-default", "Payload is never read", RECEIVER, "✓ adds up"] {
            ensure!(text.contains(part), "{case}: {part} is missing in {text}");
        }
        // The cable's addresses and the port of its packets.
        for secret in ["192.0.2.", "2001:db8", ":9 "] {
            ensure!(!text.contains(secret), "{case}: {secret} is in {text}");
        }
        let wide = browser.evaluate("document.documentElement.scrollWidth")?;
        assert_eq!(wide, size.0, "{case}: the page is wider than the screen");
        let unnamed = "document.querySelectorAll('svg:not([aria-label])').length";
        assert_eq!(browser.evaluate(unnamed)?, 0, "{case}");
        leave(&case, &browser.screenshot()?)?;
        let complaints = browser.complaints();
        ensure!(complaints.is_empty(), "{case}: {complaints:?}");
        let requests = browser.requests();
        let is_own = |request: &String| request.starts_with(&url) || request.starts_with("data:");
        ensure!(!requests.is_empty() && requests.iter().all(is_own), "{case}: {requests:?}");
    }
    Ok(())
}

#[test]
#[cfg_attr(
    any(without_kernel, without_chromium),
    ignore = "needs root, the kernel program and Chromium: cargo xtask test"
)]
fn the_page_renews_itself_in_place_and_says_when_the_agent_is_gone() -> Result<()> {
    let veth = Veth::new()?;
    let agent = start()?;
    send(&veth, &agent, PACKETS)?;
    let mut browser = Browser::start()?;
    browser.load(&format!("http://{}/", agent.address()), DESKTOP, "light", true)?;
    browser.evaluate("window.marker = 1; document.querySelector('[data-key=fields]').open = true; null")?;
    send(&veth, &agent, 2 * PACKETS)?;
    browser.wait_for(&format!("{}.seen", sum("seen")), &json!(2 * PACKETS))?;
    assert_eq!(browser.evaluate("window.marker")?, 1, "the page was loaded again");
    assert_eq!(browser.evaluate("document.querySelector('[data-key=fields]').open")?, true);
    let complaints = browser.complaints();
    ensure!(complaints.is_empty(), "{complaints:?}");
    let (ended, said) = agent.stop()?;
    ensure!(ended.success(), "{said}");
    browser.wait_for("document.getElementById('gone').hidden", &json!(false))
}

/// Leaves a screenshot where people look at it.
fn leave(name: &str, png: &[u8]) -> Result<()> {
    if let Some(folder) = env::var_os(SCREENSHOTS) {
        fs::write(Path::new(&folder).join(format!("{name}.png")), png)?;
    }
    Ok(())
}
