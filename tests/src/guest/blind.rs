//! Drivers that keep the program attached and do not run it: whatever this kernel's drivers do, the ledger says how long
//! nobody watched.
//!
//! `cargo xtask test --kernels` gives the machine cards at one hub: what one sends arrives at all others.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use minimizer::interfaces::netlink::{Link, Netlink};
use minimizer::kernel::attach::Mode;

use super::watching::{Watching, seen, send, unwatched, wait_for};
use crate::veth::ip;

/// Address of the card that sends.
const SENDER: &str = "52:54:00:00:00:01";
/// The cards that receive, by their addresses, with what is special about them.
const CARDS: [(&str, &str); 3] = [
    ("52:54:00:00:00:02", "vmxnet3"),
    ("52:54:00:00:00:03", "virtio with small buffers"),
    ("52:54:00:00:00:04", "virtio with big buffers"),
];
const FRAMES: u64 = 30;
/// What is done to the cards while they are watched, after which the program shall still see everything.
const DISTURBANCES: [(&str, &[&str]); 2] = [("down and up", &["down", "up"]), ("another mtu", &["mtu 1400"])];

/// Most frames that show whether a card is seen, one between drains.
const PROBES_MAX: u64 = 100;
/// So many frames after blindness is noticed, another copy of the program has had its chance.
const BLIND_PROBES: u64 = 5;

/// A card that is watched, or not.
struct Card {
    what: &'static str,
    name: String,
    watching: Option<Watching>,
    /// Time in which it is certain that the program saw nothing of what was received.
    blind: Duration,
    told: Vec<String>,
}

/// What a card does after a change.
struct Course<'card> {
    card: &'card Card,
    watching: &'card Watching,
    seen_before: u64,
    /// Frames that were sent while it was known to be blind.
    blind: u64,
    /// When the program was last known to have missed what was sent.
    missed_until: Instant,
}

/// Sends to cards of several kinds, before and after what makes drivers forget the program.
///
/// # Errors
/// When frames are missing of which the ledger says nothing.
pub fn check() -> Result<String> {
    let sender = name_of(SENDER)?;
    ip(&format!("link set dev {sender} up"))?;
    let mut cards =
        CARDS.iter().map(|(address, what)| Card::new(what, address)).collect::<Result<Vec<_>>>()?;
    let mut sent = observe("attached", &mut cards, &sender)?;
    for (what, changes) in DISTURBANCES {
        for card in &cards {
            for change in changes {
                ip(&format!("link set dev {} {change}", card.name))?;
            }
        }
        sent += observe(what, &mut cards, &sender)?;
    }
    cards.iter_mut().try_for_each(|card| card.end(sent))?;
    check_skb(&cards, &sender)?;
    let told = cards.iter().map(|card| format!("{}: {}", card.what, card.told.join(", ")));
    Ok(told.collect::<Vec<_>>().join("; "))
}

/// In the network stack the program sees what every card receives.
fn check_skb(cards: &[Card], sender: &str) -> Result<()> {
    let names: Vec<_> = cards.iter().map(|card| card.name.as_str()).collect();
    let watching = Watching::start(&names, Mode::Skb)?;
    send_to_all(cards, sender)?;
    watching.drained()?;
    let ledger = watching.end()?.ledger;
    for card in cards {
        let seen = seen(&ledger, &card.name);
        ensure!(seen == FRAMES, "{} in skb mode: {seen} of {FRAMES} seen", card.what);
    }
    Ok(())
}

/// Sends until every watched card is seen, or is still not after another copy of the program was put in place. Returns
/// how many frames were sent.
fn observe(change: &str, cards: &mut [Card], sender: &str) -> Result<u64> {
    let mut courses: Vec<_> = cards.iter().filter_map(Card::course).collect();
    send_to_all(cards, sender)?;
    let mut sent = FRAMES;
    let missed_since = Instant::now();
    let mut sent_at = missed_since;
    all_drained(&courses)?;
    while courses.iter().any(|course| !course.is_decided()) {
        ensure!(sent < PROBES_MAX + FRAMES, "neither seen nor known to be blind: {}", undecided(&courses));
        for course in &mut courses {
            // The latest frame that is known to be missed: how long its drain took says nothing.
            if !course.is_seen() {
                course.missed_until = sent_at;
            }
            course.blind += u64::from(course.watching.is_blind(&course.card.name));
        }
        // Where another copy of the program is put in place, it may be lost, and vmxnet3 counts anew.
        sent_at = Instant::now();
        send(sender, 1)?;
        sent += 1;
        all_drained(&courses)?;
    }
    let found: Vec<_> = courses
        .iter()
        .map(|course| {
            let blind = course.missed_until.saturating_duration_since(missed_since);
            let blind = if course.blind > 0 { blind } else { Duration::ZERO };
            (course.card.name.clone(), course.found(), blind)
        })
        .collect();
    // What is seen goes on to be seen.
    let before: Vec<_> = courses.iter().map(Course::seen).collect();
    send_to_all(cards, sender)?;
    sent += FRAMES;
    all_drained(&courses)?;
    for (course, before) in courses.iter().zip(before).filter(|(course, _)| course.is_seen()) {
        let seen = course.seen() - before;
        ensure!(seen >= FRAMES, "{} after {change}: {seen} of {FRAMES} seen", course.card.what);
    }
    for (name, found, blind) in found {
        let card = cards.iter_mut().find(|card| card.name == name).context("the card is there")?;
        card.blind += blind;
        card.told.push(format!("{change}: {found}"));
    }
    Ok(sent)
}

/// Sends, and waits until the drivers of all cards have received it.
fn send_to_all(cards: &[Card], sender: &str) -> Result<()> {
    for card in cards {
        wait_for(&format!("{} has a carrier", card.what), || Ok(link(&card.name)?.carrier))?;
    }
    let before = cards.iter().map(Card::received).collect::<Result<Vec<_>>>()?;
    send(sender, FRAMES)?;
    for (card, before) in cards.iter().zip(before) {
        let what = format!("{} received {FRAMES} frames more than {before}", card.what);
        wait_for(&what, || Ok(card.received()? >= before + FRAMES))?;
    }
    Ok(())
}

fn all_drained(courses: &[Course<'_>]) -> Result<()> {
    courses.iter().try_for_each(|course| course.watching.drained())
}

fn undecided(courses: &[Course<'_>]) -> String {
    let undecided = courses.iter().filter(|course| !course.is_decided()).map(|course| course.card.what);
    undecided.collect::<Vec<_>>().join(", ")
}

impl Card {
    /// Attaches the agent to the card with this address, if its driver takes the program.
    fn new(what: &'static str, address: &str) -> Result<Self> {
        let name = name_of(address)?;
        ip(&format!("link set dev {name} up"))?;
        let (watching, told) = match Watching::start(&[&name], Mode::Native) {
            Ok(watching) => (Some(watching), Vec::new()),
            Err(error) => {
                let error = error.to_string();
                ensure!(error.contains(&name), "the message does not name {name}: {error}");
                ensure!(link(&name)?.xdp.is_empty(), "{what} has the program, although: {error}");
                (None, vec![format!("refused: {error}")])
            }
        };
        Ok(Self { what, name, watching, blind: Duration::ZERO, told })
    }

    /// Frames received by the driver's count.
    fn received(&self) -> Result<u64> {
        Ok(link(&self.name)?.counters.received_packets)
    }

    fn course(&self) -> Option<Course<'_>> {
        let watching = self.watching.as_ref()?;
        Some(Course {
            card: self,
            watching,
            seen_before: watching.seen(&self.name),
            blind: 0,
            missed_until: Instant::now(),
        })
    }

    /// Stops the agent, and compares the ledger with what was sent.
    fn end(&mut self, sent: u64) -> Result<()> {
        let Some(watching) = self.watching.take() else { return Ok(()) };
        let ledger = watching.end()?.ledger;
        let (seen, unwatched) = (seen(&ledger, &self.name), unwatched(&ledger, &self.name)?);
        let found = format!(
            "{seen} of {sent} seen, unwatched {} times for {:.1} s",
            unwatched.times,
            unwatched.time.as_secs_f64()
        );
        self.told.push(found);
        let told = || format!("{}: {}", self.what, self.told.join(", "));
        ensure!(seen <= sent, told());
        ensure!((seen == sent) == (unwatched.times == 0), told());
        ensure!(unwatched.time >= self.blind, "nothing was seen for {:?}; {}", self.blind, told());
        Ok(())
    }
}

impl Course<'_> {
    fn seen(&self) -> u64 {
        self.watching.seen(&self.card.name)
    }

    fn is_seen(&self) -> bool {
        self.seen() > self.seen_before
    }

    fn is_decided(&self) -> bool {
        let is_blind = self.watching.is_blind(&self.card.name);
        if self.is_seen() { !is_blind } else { self.blind >= BLIND_PROBES }
    }

    fn found(&self) -> &'static str {
        match (self.is_seen(), self.blind) {
            (true, 0) => "sees",
            (true, _) => "was blind, and a reload healed it",
            (false, _) => "is blind, and a reload does not heal it",
        }
    }
}

fn link(name: &str) -> Result<Link> {
    Ok(Netlink::open()?.link(name)?)
}

/// The interface with this address.
fn name_of(address: &str) -> Result<String> {
    for entry in fs::read_dir("/sys/class/net")? {
        let path = entry?.path();
        // Bonding puts a file beside the folders of the interfaces.
        if fs::read_to_string(path.join("address")).is_ok_and(|known| known.trim_end() == address) {
            return Ok(path.file_name().context("it has a name")?.to_string_lossy().into_owned());
        }
    }
    bail!("no interface has the address {address}")
}
