//! Messages on their way: the one being filled, those that wait, and those that were sent and may have to be sent again.

use std::collections::VecDeque;
use std::num::TryFromIntError;
use std::time::Instant;

use netgauze_flow_pkt::ipfix::{IpfixPacket, OptionsTemplateRecord, Set, TemplateRecord};
use netgauze_flow_pkt::wire::serializer::ipfix::{
    DataRecordWritingError, IpfixPacketWritingError, OptionsTemplateRecordWritingError, SetWritingError,
    TemplateRecordWritingError,
};
use netgauze_flow_pkt::{DataSetId, DataSetIdError};
use netgauze_parse_utils::{WritablePdu as _, WritablePduWithOneInput as _};
use thiserror::Error;

use super::element::{TooShort, time};
use crate::sinks::folder::Sums;
use crate::support::clock;

/// Octets of the header of a message.
pub(super) const HEADER_OCTETS: usize = 16;
/// Octets of the header of a set.
const SET_HEADER_OCTETS: usize = 4;

/// Why something cannot be encoded. A vector has room for everything and lengths are computed from the elements, so that
/// each of these is an error of this program.
#[derive(Debug, Error)]
pub(super) enum EncodeError {
    /// A value.
    #[error("a value cannot be written: {0}")]
    Field(#[from] TooShort),
    /// A record of options.
    #[error("a record of options cannot be written: {0}")]
    Options(#[from] DataRecordWritingError),
    /// A template.
    #[error("a template cannot be written: {0}")]
    Template(#[from] TemplateRecordWritingError),
    /// A template of options.
    #[error("a template of options cannot be written: {0}")]
    OptionsTemplate(#[from] OptionsTemplateRecordWritingError),
    /// The header of a set.
    #[error("a set cannot be written: {0}")]
    Set(#[from] SetWritingError),
    /// The header of a message.
    #[error("a message cannot be written: {0}")]
    Message(#[from] IpfixPacketWritingError),
    /// The number of a template.
    #[error("no template has this number: {0}")]
    TemplateId(#[from] DataSetIdError),
    /// A length.
    #[error("a message is too long: {0}")]
    Length(#[from] TryFromIntError),
}

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MessageKind {
    /// Templates and options, which every new session begins with.
    Description,
    /// Records of flows.
    Flows,
}

/// A message.
#[derive(Debug)]
pub(super) struct Message {
    /// The whole message. Time and sequence number are filled in when it is sent.
    pub(super) octets: Vec<u8>,
    /// Data records in it, including those of options.
    records: u32,
    /// Records of flows in it, with their packets and octets.
    pub(super) sums: Sums,
    pub(super) kind: MessageKind,
    /// When it was begun.
    made_at: Instant,
    /// Its sequence number, once it is sent.
    sequence: u32,
    /// When it was sent.
    pub(super) sent_at: Option<Instant>,
}

/// The messages of an observation domain.
#[derive(Debug)]
pub(super) struct Outbox {
    domain: u32,
    octets_max: usize,
    /// Data records before the first message that waits.
    sequence: u32,
    open: Option<Message>,
    /// The last set of the open message: its id and offset.
    set: Option<(u16, usize)>,
    waiting: VecDeque<Message>,
    sent: VecDeque<Message>,
    spare: Vec<Vec<u8>>,
}

impl Outbox {
    /// An empty outbox, whose messages will not be longer than `octets_max`.
    pub(super) fn new(domain: u32, octets_max: u16) -> Self {
        Self {
            domain,
            octets_max: usize::from(octets_max),
            sequence: 0,
            open: None,
            set: None,
            waiting: VecDeque::new(),
            sent: VecDeque::new(),
            spare: Vec::new(),
        }
    }

    /// The observation domain.
    pub(super) const fn domain(&self) -> u32 {
        self.domain
    }

    /// Whether it holds no message in any state.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_none() && self.waiting.is_empty() && self.sent.is_empty()
    }

    /// Whether no message waits to be sent.
    pub(super) fn is_sent(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether it holds records of flows, in any state.
    pub(super) fn has_flows(&self) -> bool {
        let messages = self.open.iter().chain(&self.waiting).chain(&self.sent);
        messages.into_iter().any(|message| message.kind == MessageKind::Flows)
    }

    /// Room for a data record of that length in a message of that kind. The caller appends the record.
    pub(super) fn record(
        &mut self,
        kind: MessageKind,
        id: u16,
        octets: usize,
    ) -> Result<&mut Vec<u8>, EncodeError> {
        self.data(kind, id, octets).map(|message| &mut message.octets)
    }

    /// Room for a data record of a flow with these counts: zeros, which the caller overwrites.
    pub(super) fn data_record(
        &mut self,
        id: u16,
        octets: usize,
        sums: Sums,
    ) -> Result<&mut [u8], EncodeError> {
        let message = self.data(MessageKind::Flows, id, octets)?;
        message.sums.add(sums);
        let begin = message.octets.len();
        message.octets.resize(begin + octets, 0);
        Ok(&mut message.octets[begin..])
    }

    fn data(&mut self, kind: MessageKind, id: u16, octets: usize) -> Result<&mut Message, EncodeError> {
        let set = Set::Data { id: DataSetId::new(id)?, records: Box::new([]) };
        let message = self.room(kind, &set, octets)?;
        message.records += 1;
        Ok(message)
    }

    /// Adds a template.
    pub(super) fn template(&mut self, template: &TemplateRecord) -> Result<(), EncodeError> {
        let message = self.room(MessageKind::Description, &Set::Template(Box::new([])), template.len())?;
        Ok(template.write(&mut message.octets)?)
    }

    /// Adds a template of options in a set of its own: some collectors read only the first of a set.
    pub(super) fn options_template(&mut self, template: &OptionsTemplateRecord) -> Result<(), EncodeError> {
        self.end_set()?;
        let message =
            self.room(MessageKind::Description, &Set::OptionsTemplate(Box::new([])), template.len())?;
        template.write(&mut message.octets)?;
        self.end_set()
    }

    fn room(&mut self, kind: MessageKind, set: &Set, octets: usize) -> Result<&mut Message, EncodeError> {
        let is_set = self.set.is_some_and(|(id, _)| id == set.id());
        let needed = octets + if is_set { 0 } else { SET_HEADER_OCTETS };
        let fits =
            |message: &Message| message.kind == kind && message.octets.len() + needed <= self.octets_max;
        if !self.open.as_ref().is_some_and(fits) {
            self.finish()?;
        }
        let is_set = is_set && self.open.is_some();
        if !is_set {
            self.end_set()?;
        }
        let message = self.open.get_or_insert_with(|| {
            let mut octets = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(self.octets_max));
            octets.clear();
            octets.resize(HEADER_OCTETS, 0);
            let made_at = Instant::now();
            Message { octets, records: 0, sums: Sums::default(), kind, made_at, sequence: 0, sent_at: None }
        });
        if !is_set {
            self.set = Some((set.id(), message.octets.len()));
            set.write(&mut message.octets, None)?;
        }
        Ok(message)
    }

    fn end_set(&mut self) -> Result<(), EncodeError> {
        if let (Some((_, at)), Some(message)) = (self.set.take(), &mut self.open) {
            let length = u16::try_from(message.octets.len() - at)?;
            message.octets[at + 2..at + 4].copy_from_slice(&length.to_be_bytes());
        }
        Ok(())
    }

    /// Ends the open message, which then waits to be sent.
    pub(super) fn finish(&mut self) -> Result<(), EncodeError> {
        self.end_set()?;
        self.waiting.extend(self.open.take());
        Ok(())
    }

    /// Puts the messages that `write` adds in front of those that wait.
    pub(super) fn first(
        &mut self,
        write: impl FnOnce(&mut Self) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        self.finish()?;
        let mut later = std::mem::take(&mut self.waiting);
        let written = write(self).and_then(|()| self.finish());
        if written.is_err() {
            // Half of a description helps nobody: the next call writes all of it.
            self.waiting.clear();
            (self.open, self.set) = (None, None);
        }
        self.waiting.append(&mut later);
        written
    }

    /// What the next message to send is for.
    pub(super) fn next_kind(&self) -> Option<MessageKind> {
        self.waiting.front().map(|message| message.kind)
    }

    /// The next message to send, with its sequence number and the time.
    pub(super) fn next(&mut self) -> Result<Option<&mut Message>, EncodeError> {
        let header = self.header();
        let Some(message) = self.waiting.front_mut() else {
            return Ok(None);
        };
        message.sequence = self.sequence;
        header.write(&mut &mut message.octets[..HEADER_OCTETS], None)?;
        let length = u16::try_from(message.octets.len())?;
        message.octets[2..4].copy_from_slice(&length.to_be_bytes());
        Ok(Some(message))
    }

    fn header(&self) -> IpfixPacket {
        IpfixPacket::new(time(clock::realtime_ns() / 1_000_000), self.sequence, self.domain, Box::new([]))
    }

    /// A message without any set, to which a host without a collector answers with an error.
    pub(super) fn empty_message(&self) -> Result<Vec<u8>, EncodeError> {
        let mut octets = Vec::with_capacity(HEADER_OCTETS);
        self.header().write(&mut octets, None)?;
        Ok(octets)
    }

    /// When the oldest message with flows was begun that waits or may have to be sent again.
    pub(super) fn oldest_flows(&self) -> Option<Instant> {
        let mut messages = self.sent.iter().chain(&self.waiting);
        messages.find(|message| message.kind == MessageKind::Flows).map(|message| message.made_at)
    }

    /// Notes that the next message was sent. It is kept until it arrived.
    pub(super) fn sent(&mut self) {
        if let Some(mut message) = self.waiting.pop_front() {
            self.sequence = self.sequence.wrapping_add(message.records);
            message.sent_at = Some(Instant::now());
            self.sent.push_back(message);
        }
    }

    /// Sent messages that may have to be sent again, the oldest first.
    pub(super) const fn may_return(&self) -> &VecDeque<Message> {
        &self.sent
    }

    /// Notes that the oldest of the sent messages arrived.
    pub(super) fn arrived(&mut self, messages: usize) {
        for message in self.sent.drain(..messages.min(self.sent.len())) {
            if self.spare.len() < 512 {
                self.spare.push(message.octets);
            }
        }
    }

    /// The session ended, and only the oldest `arrived` of the sent messages arrived. The next session sends the flows of
    /// the others again. It does not need their templates and options, because it begins with its own.
    pub(super) fn restart(&mut self, arrived: usize) {
        self.arrived(arrived);
        if let Some(message) = self.sent.front() {
            self.sequence = message.sequence;
        }
        while let Some(message) = self.sent.pop_back() {
            self.waiting.push_front(message);
        }
        self.waiting.retain(|message| message.kind == MessageKind::Flows);
    }
}

#[cfg(test)]
mod tests {
    use super::{HEADER_OCTETS, MessageKind, Outbox};

    fn flows(outbox: &mut Outbox, records: usize) {
        for _ in 0..records {
            outbox.record(MessageKind::Flows, 300, 10).unwrap().extend([7; 10]);
        }
        outbox.finish().unwrap();
    }

    fn send(outbox: &mut Outbox) -> Vec<(u32, usize)> {
        let mut sent = Vec::new();
        while let Some(message) = outbox.next().unwrap() {
            let octets = &message.octets;
            assert_eq!(usize::from(u16::from_be_bytes([octets[2], octets[3]])), octets.len());
            sent.push((u32::from_be_bytes(octets[8..12].try_into().unwrap()), octets.len()));
            outbox.sent();
        }
        sent
    }

    #[test]
    fn no_message_is_longer_than_allowed() {
        let mut outbox = Outbox::new(1, 50);
        flows(&mut outbox, 7);
        let full = HEADER_OCTETS + 4 + 30;
        assert_eq!(send(&mut outbox), [(0, full), (3, full), (6, HEADER_OCTETS + 14)]);
        assert!(outbox.is_sent() && !outbox.is_empty());
        outbox.arrived(3);
        assert!(outbox.is_empty());
    }

    #[test]
    fn what_comes_back_has_the_numbers_that_follow_what_arrived() {
        let mut outbox = Outbox::new(1, 50);
        flows(&mut outbox, 9);
        send(&mut outbox);
        outbox.restart(1);
        outbox
            .first(|outbox| {
                outbox.record(MessageKind::Description, 256, 4)?.extend([1; 4]);
                Ok(())
            })
            .unwrap();
        let numbers: Vec<_> = send(&mut outbox).iter().map(|(sequence, _)| *sequence).collect();
        assert_eq!(numbers, [3, 4, 7]);
        // The former description does not come back.
        outbox.restart(0);
        let numbers: Vec<_> = send(&mut outbox).iter().map(|(sequence, _)| *sequence).collect();
        assert_eq!(numbers, [3, 6]);
    }
}
