//! Bonds and teams: what comes in through their ports is theirs, as the ports come and go, and never another interface's.

use anyhow::{Context as _, Result, bail, ensure};
use aya::util::KernelVersion;
use minimizer::delivery::ledger::UNKNOWN;
use minimizer::interfaces::netlink::Netlink;
use minimizer::kernel::attach::Mode;

use super::watching::{Watching, seen, send, unwatched, wait_for};
use crate::network::Network;
use crate::veth::ip;

type Check = fn() -> Result<String>;

/// The checks by their names.
pub const CHECKS: [(&str, Check); 4] = [
    ("bond native", || bond(Mode::Native)),
    ("bond skb", || bond(Mode::Skb)),
    ("team native", || refused("team0", "team")),
    ("team skb", team),
];

/// An interface beside the bond.
const OTHER: &str = "v2";
const PORTS: [&str; 2] = ["p1", "p2"];
const FRAMES: u64 = 30;
/// The first kernel whose bonds run programs.
const NATIVE_BONDS: KernelVersion = KernelVersion::new(5, 15, 0);
/// Frames that only the backup port gets, one between drains: that takes longer than the proof that a program sees nothing.
const BACKUP_FRAMES: u64 = 14;
/// Most frames that are sent until a port is followed.
const PROBES_MAX: u64 = 50;

/// Watches a bond and another interface, in either order, while a port leaves the bond and comes back.
fn bond(mode: Mode) -> Result<String> {
    let kind = "bond mode active-backup";
    if mode == Mode::Native && KernelVersion::current()? < NATIVE_BONDS {
        return refused("bond0", kind);
    }
    let mut told = Vec::new();
    for watched in [[OTHER, "bond0"], ["bond0", OTHER]] {
        let _network = network("bond0", kind)?;
        ip("link set dev bond0 type bond active_slave p1")?;
        told.push(watch_bond(mode, watched)?);
    }
    Ok(told.join("; in the other order: "))
}

fn watch_bond(mode: Mode, watched: [&str; 2]) -> Result<String> {
    let watching = Watching::start(&watched, mode)?;
    let saw =
        |expected: u64| wait_for(&format!("bond0 saw {expected}"), || Ok(watching.seen("bond0") == expected));
    send("s-p1", FRAMES)?;
    saw(FRAMES).with_context(|| told(&watching))?;
    // The other port becomes the active one. What arrives at the port that left is nobody's.
    ip("link set dev p1 nomaster")?;
    ip("link set dev p1 up")?;
    send("s-p1", FRAMES)?;
    send("s-p2", FRAMES)?;
    let mut expected = 2 * FRAMES;
    saw(expected).with_context(|| told(&watching))?;
    // It comes back as the backup.
    ip("link set dev p1 down")?;
    ip("link set dev p1 master bond0")?;
    let mut probes = 0;
    if mode == Mode::Native {
        send("s-p1", FRAMES)?;
        probes += FRAMES;
        watching.drained()?;
        while watching.seen("bond0") == expected {
            ensure!(probes < PROBES_MAX, "the port that came back is not followed: {}", told(&watching));
            send("s-p1", 1)?;
            watching.drained()?;
            probes += 1;
        }
    }
    // The bond counts what its backup receives: it is not blind when it sees none of that.
    let backup = if mode == Mode::Skb && watched[0] == OTHER { BACKUP_FRAMES } else { 0 };
    for _ in 0..backup {
        send("s-p1", 1)?;
        watching.drained()?;
        ensure!(!watching.is_blind("bond0"), "said to be blind: {}", told(&watching));
    }
    send("s-p2", FRAMES)?;
    // In native mode the program runs before the bond rejects what its backup port receives.
    expected += match mode {
        Mode::Native => FRAMES + probes,
        Mode::Skb => FRAMES,
    };
    let all = || Ok(watching.seen("bond0") + watching.seen(UNKNOWN) >= expected);
    wait_for(&format!("{expected} frames"), all).with_context(|| told(&watching))?;
    let ended = watching.end()?;
    let unknown = seen(&ended.ledger, UNKNOWN);
    expected -= unknown;
    let [other, bond] = [OTHER, "bond0"].map(|name| seen(&ended.ledger, name));
    ensure!(mode == Mode::Native || unknown == 0, "{unknown} frames of unknown interfaces in skb mode");
    ensure!(
        (other, bond) == (0, expected),
        "{OTHER} saw {other}, bond0 {bond}, and not {expected}; {unknown} unknown"
    );
    let gaps = unwatched(&ended.ledger, "bond0")?.times;
    ensure!(gaps == 0, "bond0 was not watched {gaps} times");
    let index = Netlink::open()?.link("bond0")?.index;
    ensure!(ended.recorded == [(index, bond)].into(), "records: {:?}, bond0 is {index}", ended.recorded);
    Ok(format!("bond0 saw {bond}, {OTHER} none, unknown interfaces {unknown}"))
}

/// Watches a team and another interface.
fn team() -> Result<String> {
    let _network = network("team0", "team")?;
    let watching = Watching::start(&[OTHER, "team0"], Mode::Skb)?;
    send("s-p1", FRAMES)?;
    wait_for("team0 saw all", || Ok(watching.seen("team0") == FRAMES))?;
    let ledger = watching.end()?.ledger;
    ensure!(seen(&ledger, "team0") == FRAMES && seen(&ledger, OTHER) == 0, "{ledger:?}");
    Ok(format!("team0 saw {FRAMES}, {OTHER} none"))
}

/// The driver does not take the program, and the agent says of which interface.
fn refused(name: &str, kind: &str) -> Result<String> {
    let _network = network(name, kind)?;
    let Err(error) = Watching::start(&[OTHER, name], Mode::Native) else { bail!("it is attached") };
    let error = error.to_string();
    ensure!(error.contains(name), "the message does not name it: {error}");
    Ok(format!("refused: {error}"))
}

/// A private network with another interface, and two ports below a controller.
fn network(name: &str, kind: &str) -> Result<Network> {
    let mut network = Network::new(0, 1500)?;
    network.lay(OTHER)?;
    ip(&format!("link add dev {name} type {kind}"))?;
    for port in PORTS {
        network.lay(port)?;
        ip(&format!("link set dev {port} down"))?;
        ip(&format!("link set dev {port} master {name}"))?;
        ip(&format!("link set dev {port} up"))?;
    }
    ip(&format!("link set dev {name} up"))?;
    Ok(network)
}

fn told(watching: &Watching) -> String {
    let seen: Vec<_> = [OTHER, "bond0", UNKNOWN].map(|name| format!("{name} {}", watching.seen(name))).into();
    seen.join(", ")
}
