//! A recipient of coarse times over a network learns no finer ones from when its records arrive: they are held and merged until the
//! unit of their times has ended.

use std::collections::BTreeMap;
use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::command::{Agent, minimizer};
use tests::ipfix::LIMIT;
use tests::ipfix::decoded::Decoded;
use tests::veth::{RECEIVER, Veth};

/// Elements: packets of a flow, source port, and when its last packet came.
const PACKETS: u16 = 2;
const SOURCE_PORT: u16 = 7;
const END: u16 = 153;

const POLICY: &str = "name = \"coarse\"\n[[recipients]]\nname = \"statistics\"\npurpose = \"to count\"\n\
                      [recipients.fields]\nsourceTransportPort = \"exact\"\nprotocolIdentifier = \"exact\"\n\
                      packetDeltaCount = \"exact\"\noctetDeltaCount = \"exact\"\n\
                      flowStartMilliseconds = { coarsen = \"UNIT\" }\nflowEndMilliseconds = { coarsen = \"UNIT\" }\n";

fn policy(unit: &str) -> String {
    POLICY.replace("UNIT", unit)
}

/// An agent that drains so often, for a recipient whose times are in this unit.
fn start(folder: &Path, collector: &UdpSocket, (interval, unit): (&str, &str), more: &str) -> Result<Agent> {
    fs::write(folder.join("policy.toml"), policy(unit))?;
    let text = format!(
        "interfaces = [\"{RECEIVER}\"]\npolicy = \"policy.toml\"\nlisten = \"127.0.0.1:0\"\ninterval = \"{interval}\"\n\
         flows_per_cpu = 1024\nledger = \"ledger.json\"\n[[sinks]]\nname = \"net\"\nrecipient = \"statistics\"\n{more}\n\
         ipfix = {{ collector = \"{}\" }}\n",
        collector.local_addr()?
    );
    let path = folder.join("agent.toml");
    fs::write(&path, text)?;
    Agent::start(Command::new(minimizer()).args(["run", "--config"]).arg(&path))
}

/// A collector in the namespace of the calling thread.
fn collector() -> Result<UdpSocket> {
    tests::veth::ip("link set dev lo up")?;
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// What arrived at the collector: of each flow the port, the packets, the unit of the end, and when it arrived at the latest.
#[derive(Default)]
struct Arrived {
    decoded: Decoded,
    flows: Vec<(u64, u64, u64, u64)>,
}

impl Arrived {
    fn receive(&mut self, socket: &UdpSocket) -> Result<()> {
        let mut octets = vec![0; 65_536];
        while let Ok(length) = socket.recv(&mut octets) {
            let known = self.decoded.flows.len();
            self.decoded.message(&octets[..length])?;
            let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
            for (_, values) in &self.decoded.flows[known..] {
                let number = |element: u16| {
                    let octets = values.get(&element).context("has the element")?;
                    Ok::<_, anyhow::Error>(
                        octets.iter().fold(0, |number, octet| number << 8 | u64::from(*octet)),
                    )
                };
                self.flows.push((number(SOURCE_PORT)?, number(PACKETS)?, number(END)?, now));
            }
        }
        Ok(())
    }

    fn packets(&self) -> u64 {
        self.flows.iter().map(|(_, packets, ..)| packets).sum()
    }
}

fn ledger(folder: &Path) -> Result<Value> {
    Ok(serde_json::from_slice(&fs::read(folder.join("ledger.json"))?)?)
}

/// Two packets of one flow, until everything that was sent was drained.
fn send(socket: &UdpSocket, agent: &Agent, sent: &mut u64) -> Result<Value> {
    for _ in 0..2 {
        socket.send_to(b"12345678", ("192.0.2.2", 9))?;
    }
    *sent += 2;
    agent.wait_for(|status| {
        let seen = status["ledger"]["interfaces"][RECEIVER]["outcomes"]["counted"].as_u64();
        seen.is_some_and(|seen| seen >= *sent)
    })
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn no_record_arrives_before_its_unit_has_ended() -> Result<()> {
    // Units longer than intervals, and not longer.
    for (interval, unit, unit_ms) in [("200ms", "3s", 3000), ("1s", "1s", 1000)] {
        unit_ends(interval, unit, unit_ms).with_context(|| format!("{unit} every {interval}"))?;
    }
    Ok(())
}

fn unit_ends(interval: &str, unit: &str, unit_ms: u64) -> Result<()> {
    let merges = interval != unit;
    let _veth = Veth::new()?;
    let (folder, collector) = (tempfile::tempdir()?, collector()?);
    let agent = start(folder.path(), &collector, (interval, unit), "")?;
    let socket = UdpSocket::bind(("192.0.2.1", 0))?;
    let (mut arrived, mut sent, mut was_queued) = (Arrived::default(), 0, false);
    let begin = Instant::now();
    let ends = |arrived: &Arrived| {
        arrived.flows.iter().map(|(.., end, _)| *end).collect::<std::collections::BTreeSet<_>>()
    };
    while ends(&arrived).len() < 2 {
        ensure!(begin.elapsed() < LIMIT, "two units do not arrive");
        let status = send(&socket, &agent, &mut sent)?;
        let account = &status["ledger"]["sinks"]["net"];
        was_queued |= account["queued"]["packets"].as_u64() >= Some(8)
            && account["queued"]["records"].as_u64() <= Some(4);
        ensure!(status["ledger"]["balanced"] == true, "{status:#}");
        arrived.receive(&collector)?;
    }
    ensure!(was_queued || !merges, "what is held counts as queued, and is merged");
    for (_, _, end, at) in &arrived.flows {
        ensure!(end % unit_ms == 0 && *at >= end + unit_ms, "{:?}", arrived.flows);
    }
    let port = u64::from(socket.local_addr()?.port());
    let mut by_unit = BTreeMap::<u64, u64>::new();
    arrived
        .flows
        .iter()
        .filter(|(of, ..)| *of == port)
        .for_each(|(.., end, _)| *by_unit.entry(*end).or_default() += 1);
    ensure!(!merges || by_unit.values().all(|count| *count == 1), "{:?}", arrived.flows);
    // The agent ends in the middle of a unit, and what is held leaves.
    send(&socket, &agent, &mut sent)?;
    ensure!(agent.stop()?.0.success());
    arrived.receive(&collector)?;
    let ledger = ledger(folder.path())?;
    ensure!(ledger["balanced"] == true && ledger["queued"]["packets"] == 0, "{ledger:#}");
    ensure!(ledger["exported"]["packets"] == arrived.packets() && arrived.packets() >= sent, "{ledger:#}");
    ensure!(ledger["dropped"]["packets"] == 0, "{ledger:#}");
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn what_is_held_leaves_at_a_reload_to_another_policy_and_beyond_the_bounds_it_is_dropped() -> Result<()> {
    let _veth = Veth::new()?;
    let (folder, collector) = (tempfile::tempdir()?, collector()?);
    // A unit of an hour: nothing leaves by itself.
    let agent = start(folder.path(), &collector, ("200ms", "3s"), "queue_records = 3")?;
    let file = folder.path().join("policy.toml");
    fs::write(&file, policy("1h"))?;
    agent.hang_up()?;
    agent.wait_for(|status| status["policy"]["reloads"] == 1)?;
    let dropped =
        |status: &Value| status["ledger"]["sinks"]["net"]["dropped"]["queue_full"]["packets"].as_u64();
    let (mut sent, begin) = (0, Instant::now());
    let status = loop {
        ensure!(begin.elapsed() < LIMIT, "nothing is dropped");
        let status = send(&UdpSocket::bind(("192.0.2.1", 0))?, &agent, &mut sent)?;
        if dropped(&status).is_some() {
            break status;
        }
    };
    ensure!(status["ledger"]["balanced"] == true, "{status:#}");
    let mut arrived = Arrived::default();
    arrived.receive(&collector)?;
    let last = UdpSocket::bind(("192.0.2.1", 0))?;
    let port = u64::from(last.local_addr()?.port());
    send(&last, &agent, &mut sent)?;
    let has_arrived = |arrived: &Arrived| arrived.flows.iter().any(|(of, ..)| *of == port);
    arrived.receive(&collector)?;
    ensure!(!has_arrived(&arrived), "{:?}", arrived.flows);
    fs::write(&file, policy("1h").replace("to count", "to count more"))?;
    agent.hang_up()?;
    while !has_arrived(&arrived) {
        ensure!(begin.elapsed() < LIMIT, "nothing arrives after the reload");
        std::thread::park_timeout(Duration::from_millis(10));
        arrived.receive(&collector)?;
    }
    ensure!(agent.stop()?.0.success());
    arrived.receive(&collector)?;
    let ledger = ledger(folder.path())?;
    let packets = |name: &str| ledger[name]["packets"].as_u64().unwrap_or_default();
    ensure!(ledger["balanced"] == true && packets("queued") == 0, "{ledger:#}");
    ensure!(packets("exported") == arrived.packets() && packets("dropped") > 0, "{ledger:#}");
    Ok(())
}
