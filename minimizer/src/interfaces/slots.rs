//! Which interface each slot has, and how the slots follow changes of the kernel's interfaces.
//!
//! A slot belongs to one interface at a time. It passes to another interface only after a flip, so that every
//! batch is known to have one interface's packets. An interface that returns under its old name is the same
//! one.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use minimizer_common::generation::INTERFACES_MAX;
use thiserror::Error;
use tracing::warn;

use crate::interfaces::netlink::{Link, Netlink, NetlinkError};
use crate::interfaces::selection::Selection;
use crate::interfaces::slot::{Attached, InterfaceSlot, Unwatched, Watched};
use crate::interfaces::tap::{HostTraffic, TapRefused};
use crate::kernel::attach::{Action, Mode};
use crate::kernel::error::ProgramError;
use crate::kernel::program::Program;
use crate::support::printable;

/// The pause before the agent asks again for the list of interfaces if the kernel did not give it.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Why the program is not attached to an interface.
#[derive(Debug, Error)]
pub enum AttachError {
    /// The kernel or the driver refuses the attachment.
    #[error("{name}: {source}")]
    Refused {
        /// Name of the interface, and the one by which it was selected.
        name: String,
        /// The cause.
        source: ProgramError,
    },
    /// Another program is attached already.
    #[error(
        "{name} already has an XDP program ({programs}), which is left alone; 'minimizer doctor -i {word}' \
         says whose it is and how it is detached"
    )]
    Busy {
        /// Names of the interface.
        name: String,
        /// Its name as a word of a shell.
        word: String,
        /// Ids and modes of those programs.
        programs: String,
    },
    /// A tap would cut this host off.
    #[error(transparent)]
    Tap(#[from] TapRefused),
    /// Nothing may be attached now.
    #[error("{0}")]
    Paused(String),
    /// The kernel program does not support it.
    #[error(transparent)]
    Program(#[from] ProgramError),
}

/// The watched interfaces.
pub struct InterfaceSlots {
    selection: Selection,
    mode: Mode,
    force_tap: bool,
    netlink: Netlink,
    /// By slot number.
    places: Vec<InterfaceSlot>,
    /// Selected interfaces without a slot.
    refused: BTreeSet<u32>,
    ask_again: Option<Instant>,
    /// Why nothing may be attached now.
    paused: Option<String>,
}

/// An interface to which the program shall be attached, and its slot.
pub struct Candidate {
    slot: usize,
    link: Link,
    /// The interfaces below it on which its driver runs the program.
    ports: Vec<u32>,
    action: Action,
    /// Why the program must not be attached after all.
    objection: Option<AttachError>,
}

impl InterfaceSlots {
    /// Watches no interface yet.
    ///
    /// # Errors
    /// If the kernel gives no netlink socket.
    pub fn new(selection: Selection, mode: Mode, force_tap: bool) -> Result<Self, NetlinkError> {
        let netlink = Netlink::open()?;
        let (places, refused) = Default::default();
        Ok(Self { selection, mode, force_tap, netlink, places, refused, ask_again: None, paused: None })
    }

    /// Takes the program off every interface. Until [`Self::resume`] nothing is attached; the gaps count as not watched.
    pub fn pause(&mut self, program: &mut Program, reason: String) {
        for place in &mut self.places {
            if let Some(if_index) = place.hold(&reason) {
                program.detach(if_index);
            }
        }
        self.paused = Some(reason);
    }

    /// Lets the next look attach again.
    pub fn resume(&mut self) {
        self.paused = None;
        self.places.iter_mut().for_each(InterfaceSlot::release);
    }

    /// Why nothing may be attached now.
    pub fn paused(&self) -> Option<&str> {
        self.paused.as_deref()
    }

    /// When to look again, even if no interface changes.
    pub fn next_look(&self) -> Option<Instant> {
        self.places.iter().filter_map(InterfaceSlot::next_attempt).chain(self.ask_again).min()
    }

    /// Compares the slots with the list of all interfaces. It detaches the program from interfaces that are
    /// gone, follows new names, and returns the interfaces to which the program shall be attached. No change
    /// happened before `since`.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn look(&mut self, program: &mut Program, since: Instant) -> Result<Vec<Candidate>, NetlinkError> {
        self.ask_again = Some(Instant::now() + ASK_AGAIN);
        let links = self.netlink.links()?;
        for place in &mut self.places {
            if let Some(if_index) = place.follow(&links, since) {
                program.detach(if_index);
            }
        }
        self.follow_ports(program, &links);
        self.tell_apart();
        let mut candidates = self.candidates(&links);
        if !self.force_tap && candidates.iter().any(|candidate| candidate.action == Action::Drop) {
            let host = HostTraffic::read(&mut self.netlink)?;
            for candidate in candidates.iter_mut().filter(|candidate| candidate.action == Action::Drop) {
                candidate.objection = host
                    .permit(&candidate.link, self.selection.name_of(&candidate.link))
                    .err()
                    .map(AttachError::from);
            }
        }
        if let Some(reason) = &self.paused {
            for candidate in &mut candidates {
                candidate.objection = Some(AttachError::Paused(reason.clone()));
            }
        }
        self.ask_again = None;
        Ok(candidates)
    }

    /// Whether a drain must come first: a slot would pass to another interface before the ledger has the
    /// packets of its last one, or programs that started before the latest change may still run.
    pub fn needs_drain(&self, program: &Program, candidates: &[Candidate]) -> bool {
        let is_unsettled = !candidates.is_empty() && program.is_unsettled();
        is_unsettled
            || candidates.iter().any(|candidate| {
                let place = self.places.get(candidate.slot);
                place.is_some_and(|place| !place.is_drained && place.last_index != Some(candidate.link.index))
            })
    }

    /// Records that a drain has ended: the ledger has all packets of interfaces without an attachment.
    pub fn drained(&mut self) {
        for place in self.places.iter_mut().filter(|place| place.attached().is_none()) {
            place.is_drained = true;
        }
    }

    /// Attaches the program to the candidates. It reports each failure and tries again later, after ever
    /// longer pauses. Returns the slots that passed to other interfaces.
    ///
    /// # Errors
    /// At the start: why the program cannot be attached to an interface that the operator named.
    pub fn attach(
        &mut self,
        program: &mut Program,
        candidates: Vec<Candidate>,
        is_start: bool,
    ) -> Result<Vec<usize>, AttachError> {
        let mut retired = Vec::new();
        let slot_number = |slot| u32::try_from(slot).unwrap_or(u32::MAX);
        let mut pairs = Vec::new();
        for Candidate { slot, link, ports, .. } in &candidates {
            pairs.extend(ports.iter().chain([&link.index]).map(|index| (*index, slot_number(*slot))));
        }
        program.watch_all(&pairs)?;
        for Candidate { slot, link, ports, action, objection } in candidates {
            if self.places.get(slot).is_none() {
                let place = InterfaceSlot::new(&link, action, self.selection.name_of(&link));
                self.places.insert(slot, place);
            } else if self.places[slot].is_another(&link) {
                retired.push(slot);
                self.places[slot] = InterfaceSlot::new(&link, action, self.selection.name_of(&link));
            }
            let place = &mut self.places[slot];
            place.last_index = Some(link.index);
            place.set_ports(ports);
            let attached = match objection {
                Some(objection) => Err(objection),
                None => {
                    let selected = self.selection.name_of(&link);
                    attach(program, &mut self.netlink, &link, selected, (action, self.mode))
                }
            };
            match attached {
                Ok(attached) => place.attach(attached, &link, is_start),
                Err(error) if is_start && place.is_named && self.paused.is_none() => return Err(error),
                Err(error) => place.block(&link, error.to_string()),
            }
        }
        Ok(retired)
    }

    /// Names and gaps, by slot number.
    pub fn unwatched(&self) -> impl Iterator<Item = (&str, Unwatched)> {
        let now = Instant::now();
        self.places.iter().map(move |place| (place.name.as_str(), place.unwatched(now)))
    }

    /// Interface indices by slot number.
    pub fn if_indices(&self) -> impl Iterator<Item = u32> {
        self.places.iter().map(|place| place.last_index.unwrap_or(0))
    }

    /// Interface indices and slot numbers of what is attached, ports of bonds included.
    pub fn slots(&self) -> Vec<(u32, u32)> {
        let attached = (0..).zip(&self.places).filter(|(_, place)| place.attached().is_some());
        attached.flat_map(|(slot, place)| place.indices().map(move |index| (index, slot))).collect()
    }

    /// Notes a reload: `program` has taken over the links of the one before.
    ///
    /// # Errors
    /// When the kernel does not tell its number.
    pub fn reloaded(&mut self, program: &Program) -> Result<(), ProgramError> {
        for place in &mut self.places {
            if place.attached().is_some() {
                place.set_program(program.info_of(place.action)?.id());
            }
        }
        Ok(())
    }

    /// The watched interfaces, by slot number.
    pub fn watched(&self) -> Vec<Watched> {
        self.places.iter().map(InterfaceSlot::watched).collect()
    }

    /// The number of selected interfaces without a slot.
    pub fn refused(&self) -> usize {
        self.refused.len()
    }

    /// Follows the ports of bonds. Frames of a port that the program does not know yet are those of an unknown interface.
    fn follow_ports(&mut self, program: &mut Program, links: &[Link]) {
        for (slot, place) in (0..).zip(&mut self.places) {
            let here = links.iter().find(|link| place.is_behind(link.index) && place.attached().is_some());
            let Some(ports) = here.map(|link| link.ports(links)).filter(|ports| *ports != place.ports())
            else {
                continue;
            };
            let before = place.set_ports(ports);
            let pairs: Vec<_> = place.indices().map(|index| (index, slot)).collect();
            // There is room again after the next flip.
            if program.watch_all(&pairs).is_err() {
                place.set_ports(before);
            }
        }
    }

    /// Compares what the drivers of attached interfaces have received with what the program saw of each slot since the
    /// latest call. Returns whether another copy of the program should take the place of this one.
    pub fn observe(&mut self, seen: &[u64]) -> bool {
        // A list that cannot be had now can be had at the next drain.
        let Ok(links) = self.netlink.links() else { return false };
        let now = Instant::now();
        let mut is_due = false;
        for (place, seen) in self.places.iter_mut().zip(seen) {
            // Whoever has another index by now is another interface; the notification of that is on its way.
            let link = links.iter().find(|link| place.is_behind(link.index));
            if let Some(link) =
                link.filter(|link| self.mode == Mode::Native || !link.counts_what_it_rejects())
            {
                is_due |= place.observe(now, link.counters.received_packets, *seen);
            }
        }
        is_due
    }

    /// Selected interfaces that are not attached, with slots for them.
    fn candidates(&mut self, links: &[Link]) -> Vec<Candidate> {
        let now = Instant::now();
        let mut candidates: Vec<Candidate> = Vec::new();
        let mut refused = BTreeSet::new();
        for link in links {
            if let Some(slot) = self.places.iter().position(|place| place.is_behind(link.index)) {
                if self.places[slot].next_attempt().is_some_and(|attempt| attempt <= now) {
                    let (link, action) = (link.clone(), self.places[slot].action);
                    let ports = link.ports(links);
                    candidates.push(Candidate { slot, link, ports, action, objection: None });
                }
                continue;
            }
            let is_used = |slot: usize| candidates.iter().any(|candidate| candidate.slot == slot);
            let find = |is_it: fn(&InterfaceSlot, &Link) -> bool| {
                let mut places = self.places.iter().enumerate();
                places.position(|(slot, place)| place.is_gone() && is_it(place, link) && !is_used(slot))
            };
            let returned = find(InterfaceSlot::is_called).or_else(|| find(InterfaceSlot::was_selected_as));
            let action = match (returned, self.selection.action(link)) {
                (Some(slot), _) => self.places[slot].action,
                (None, Some(action)) => action,
                (None, None) => continue,
            };
            let slot = returned.or_else(|| self.new_slot(&candidates));
            match slot {
                Some(slot) => {
                    let (link, ports) = (link.clone(), link.ports(links));
                    candidates.push(Candidate { slot, link, ports, action, objection: None });
                }
                None => {
                    refused.insert(link.index);
                    if !self.refused.contains(&link.index) {
                        warn!(
                            "{} is selected and not watched: all {INTERFACES_MAX} slots are taken; select \
                             fewer interfaces, or run a second agent for the others",
                            link.name
                        );
                    }
                }
            }
        }
        self.refused = refused;
        candidates
    }

    /// A slot for a new interface: an unused one, or else the slot of the interface that is gone for longest
    /// among those that the operator did not name.
    fn new_slot(&self, candidates: &[Candidate]) -> Option<usize> {
        let is_used = |slot: usize| candidates.iter().any(|candidate| candidate.slot == slot);
        let fresh = (self.places.len()..INTERFACES_MAX).find(|slot| !is_used(*slot));
        fresh.or_else(|| {
            let gone =
                self.places.iter().enumerate().filter(|(slot, place)| !place.is_named && !is_used(*slot));
            gone.filter_map(|(slot, place)| Some((place.gone_since()?, slot))).min().map(|(_, slot)| slot)
        })
    }

    /// Renames interfaces that are gone if an existing interface has their name.
    fn tell_apart(&mut self) {
        let present: BTreeSet<String> =
            self.places.iter().filter(|place| !place.is_gone()).map(|place| place.name.clone()).collect();
        for place in self.places.iter_mut().filter(|place| place.is_gone()) {
            if present.contains(&place.name) {
                // The kernel allows no slash in an interface's name.
                place.name = format!("{}/{}", place.name, place.last_index.unwrap_or(0));
            }
        }
    }
}

fn attach(
    program: &mut Program,
    netlink: &mut Netlink,
    link: &Link,
    selected: Option<&str>,
    (action, mode): (Action, Mode),
) -> Result<Attached, AttachError> {
    match program.attach_for(action, link.index, mode) {
        Ok(()) => {
            let program_id = program.info_of(action)?.id();
            Ok(Attached { if_index: link.index, mode, program_id })
        }
        Err(ProgramError::Busy { .. }) => {
            let attached = netlink.link(&link.name).map(|link| link.xdp).unwrap_or_default();
            let programs: Vec<_> = attached
                .iter()
                .map(|program| format!("id {}, {}", program.program_id, program.mode.name()))
                .collect();
            Err(AttachError::Busy {
                name: link.name_for(selected),
                word: printable::shell_word(&link.name),
                programs: programs.join("; "),
            })
        }
        Err(source) => Err(AttachError::Refused { name: link.name_for(selected), source }),
    }
}
