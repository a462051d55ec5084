//! What recipients get under a drawn policy, and what only the harness knows of it.
//!
//! The packets go through the program in the kernel and by the agent's own path: drain, batch, view, order, sink of files. The reference
//! of the tests says which of what the kernel stored is of which packets, and so which line. An adversary has the lines alone.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use jiff::Timestamp;
use minimizer::delivery::batch::{Batch, Origin};
use minimizer::delivery::sink::Losses;
use minimizer::kernel::features::Kernel;
use minimizer::kernel::prepared::{Clock, Options};
use minimizer::kernel::program::Program;
use minimizer::policy::compile::CompiledPolicy;
use minimizer::policy::field::{Field, Fields, Kind};
use minimizer::policy::join::Collected;
use minimizer::policy::model::{Policy, Recipient};
use minimizer::records::drain::drain;
use minimizer::records::keys::Keys;
use minimizer::records::packed::{Packing, SlotDecoder};
use minimizer::records::record::Record;
use minimizer::records::terms::{Keyring, Terms};
use minimizer::sinks::files::{FilesConfig, Format};
use serde_json::{Map, Value};

use super::drawn::{EPOCH, INTERVAL};
use super::traffic::{self, Packet, Sent};
use crate::minimum::{Frame, IF_INDEX, START_MS};
use crate::reference::{self, Arrived, Key};

const FLOWS_PER_CPU: u32 = 16_384;

/// A line of a recipient's file.
pub struct Line {
    /// What it says.
    pub cells: BTreeMap<Field, String>,
    /// The same without counts, times and control bits.
    pub key: String,
    /// The flows that it is made of, by number. The recipient does not know them.
    pub made_of: Vec<usize>,
    /// The only subscriber of these flows.
    pub subscriber: Option<usize>,
}

/// What the harness knows of the packets of one direction between two ports.
pub struct Flow {
    /// The exact addresses, source and destination.
    pub addresses: [IpAddr; 2],
    /// The exact ports.
    pub ports: [u16; 2],
    /// The subscriber at either end.
    pub subscriber: Option<usize>,
    /// Whether the subscriber is the source.
    pub is_up: bool,
    /// Packets.
    pub packets: u64,
    /// Whether packets came back, other than resets.
    pub is_answered: bool,
    /// By recipient: the key of the line that it is in, unless that is held back.
    pub keys: Vec<String>,
    /// By pair of recipients: the key of what both are told.
    pub common: Vec<String>,
}

/// A batch.
pub struct Told {
    /// All flows.
    pub flows: Vec<Flow>,
    /// By recipient, the lines of its file.
    pub lines: Vec<Vec<Line>>,
    /// Packets of which the kernel stored something.
    pub stored: u64,
}

/// A policy with its program of one epoch.
pub struct Collector {
    recipients: Vec<Recipient>,
    /// With recipients that get what two of the policy's are both told; that is stored for these anyway.
    compiled: Arc<CompiledPolicy>,
    /// Positions of the recipients of each pair, in the order of [`Flow::common`], and what both are told.
    pub pairs: Vec<([usize; 2], Recipient)>,
    keyring: Keyring,
    epoch: u64,
    batches: u64,
    /// When the last batch began.
    begin_ms: u64,
    running: Option<(Program, Arc<Terms>)>,
}

impl Collector {
    /// Nothing is loaded before the first epoch.
    ///
    /// # Errors
    /// When the policy has no tables.
    pub fn new(policy: &Policy) -> Result<Self> {
        let mut whole = policy.clone();
        let mut pairs = Vec::new();
        for (one, first) in policy.recipients.iter().enumerate() {
            for (other, second) in policy.recipients.iter().enumerate().skip(one + 1) {
                let common = Policy::common(first, second);
                pairs.push(([one, other], common.clone()));
                whole.recipients.push(common);
            }
        }
        ensure!(whole.collected() == policy.collected(), "what two are told is more than what each is told");
        Ok(Self {
            recipients: policy.recipients.clone(),
            compiled: Arc::new(CompiledPolicy::compile(whole)?),
            pairs,
            keyring: Keyring::new(Keys::load(None)?),
            epoch: 0,
            batches: 0,
            begin_ms: 0,
            running: None,
        })
    }

    /// When the last batch began, in milliseconds since 1970.
    pub const fn begin_ms(&self) -> u64 {
        self.begin_ms
    }

    /// Begins an epoch as the agent does: new keys of pseudonyms, and a program with new keys of its hash.
    ///
    /// # Errors
    /// When the kernel refuses a program.
    pub fn begin_epoch(&mut self) -> Result<()> {
        self.epoch += 1;
        let now = i64::try_from(START_MS / 1000 + self.epoch * EPOCH.as_secs())?;
        let terms = self.keyring.terms(&self.compiled, Timestamp::from_second(now)?)?;
        let options = Options {
            flows_per_cpu: FLOWS_PER_CPU,
            clock: Clock::Control,
            compiled: Arc::clone(&self.compiled),
            ..Options::default()
        };
        let mut program = Program::load_for(Kernel::detect(), &options)?;
        program.watch(IF_INDEX, 0)?;
        if let Some(key) = terms.pseudonym_key() {
            program.generations().set_first_pseudonym_key(key);
        }
        self.running = Some((program, terms));
        Ok(())
    }

    /// Collects packets, and writes what each recipient gets of them into files in a folder.
    ///
    /// # Errors
    /// When the kernel or the disk refuses something, or a line is of no packet.
    pub fn batch(&mut self, sent: &[Sent], folder: &Path) -> Result<Told> {
        self.batches += 1;
        let (program, terms) = self.running.as_mut().context("an epoch has begun")?;
        let interval_ms = u64::try_from(INTERVAL.as_millis())?;
        let begin_ms = START_MS + self.epoch * EPOCH.as_secs() * 1000 + self.batches * interval_ms;
        self.begin_ms = begin_ms;
        program.set_time_base(begin_ms);
        for sent in sent {
            program.set_time(begin_ms + sent.at_ms);
            program.run(&sent.frame)?;
        }
        let decoder = SlotDecoder::new(program.compiled(), program.time(), &[IF_INDEX]);
        let mut quiet = program.generations().flip()?;
        let (packed, totals) = drain(&mut quiet, &mut Packing::default(), decoder);
        let records: Vec<_> = packed.iter().collect();
        let origin = Origin {
            number: self.batches,
            interval_ms: (begin_ms, begin_ms + interval_ms),
            interfaces: Vec::new(),
            losses: Losses::default(),
            program_tag: program.tag()?.into(),
        };
        let batch = Batch::new(packed, totals, Arc::clone(terms), origin, 1);
        let stored = records.iter().map(|record| record.packets).sum();
        let flows = flows(sent, &records, terms, self.recipients.len())?;
        let lines = self.recipients.iter().enumerate().map(|(position, recipient)| {
            let folder = folder.join(format!("{}-{}", recipient.name, self.batches));
            let has_rest = written(&batch, recipient, &folder)?;
            lines(&folder, position, recipient, &flows, has_rest)
        });
        Ok(Told { lines: lines.collect::<Result<_>>()?, flows, stored })
    }
}

/// The packets of one direction between two ports.
#[derive(Default)]
struct Sum {
    packets: u64,
    control_bits: u8,
}

impl Sum {
    /// Whether there is more than resets, which any host sends.
    fn speaks(&self, packet: &Packet) -> bool {
        const FIN_SYN_PSH: u8 = 0x0b;
        const RST: u8 = 0x04;
        packet.protocol != traffic::TCP
            || self.control_bits & RST == 0
            || self.control_bits & FIN_SYN_PSH != 0
    }
}

const fn is_value(field: Field) -> bool {
    matches!(field.kind(), Kind::Count | Kind::Time | Kind::ControlBits)
}

/// The flows that are collected, with the keys that their lines have.
fn flows(sent: &[Sent], records: &[Record], terms: &Terms, recipients: usize) -> Result<Vec<Flow>> {
    let policy = &terms.compiled.policy;
    let keys = (0..policy.recipients.len()).map(|position| {
        let view = terms.view_at(position);
        let told = Field::ALL.iter().copied().filter(|field| view.fields().has(*field) && !is_value(*field));
        let fields: Fields = told.collect();
        view.keys_of(records.iter()).iter().map(|record| shown(record, fields)).collect::<Result<Vec<_>>>()
    });
    let keys = keys.collect::<Result<Vec<_>>>()?;
    let places: HashMap<Key, usize> =
        records.iter().enumerate().map(|(place, record)| (Key::of(record), place)).collect();
    let key = terms.pseudonym_key().map_or([0; 2], |key| *(*key).as_ref());
    let mut sums: HashMap<Packet, Sum> = HashMap::new();
    for Sent { packet, control_bits, .. } in sent {
        let sum = sums.entry(*packet).or_default();
        sum.packets += 1;
        sum.control_bits |= control_bits;
    }
    let (mut seen, mut flows) = (HashSet::new(), Vec::new());
    for Sent { frame, packet, .. } in sent {
        if !seen.insert(*packet) {
            continue;
        }
        let frame = Frame::new(frame.clone());
        let arrived = Arrived { outer: frame.outer(policy), interface: IF_INDEX, time_ms: START_MS };
        let Ok(read) = frame.packet(policy) else { continue };
        let collected: &Collected = &terms.compiled.collected;
        let Ok(stored) = reference::stored(policy, collected, &read, &arrived, key) else {
            continue;
        };
        let place = *places.get(&stored.key).context("what the kernel stored is what the reference says")?;
        let [source, destination] = packet.addresses.map(traffic::number);
        flows.push(Flow {
            addresses: packet.addresses,
            ports: packet.ports,
            subscriber: source.or(destination),
            is_up: source.is_some(),
            packets: sums[packet].packets,
            is_answered: [packet, &packet.answer()]
                .iter()
                .all(|it| sums.get(it).is_some_and(|sum| sum.speaks(it))),
            keys: keys[..recipients].iter().map(|keys| keys[place].clone()).collect(),
            common: keys[recipients..].iter().map(|keys| keys[place].clone()).collect(),
        });
    }
    Ok(flows)
}

fn shown(record: &Record, fields: Fields) -> Result<String> {
    let Value::Object(map) = serde_json::to_value(record.with(fields))? else {
        anyhow::bail!("a record is an object");
    };
    Ok(key(&cells(&map)))
}

fn cells(map: &Map<String, Value>) -> BTreeMap<Field, String> {
    let cell = |(name, value): (&String, &Value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Some((Field::named(name)?, text))
    };
    map.iter().filter_map(cell).collect()
}

/// The cells that tell flows apart, in one text.
fn key(cells: &BTreeMap<Field, String>) -> String {
    let told = cells.iter().filter(|(field, _)| !is_value(**field));
    told.map(|(field, cell)| format!("{field}={cell} ")).collect()
}

/// Writes a file as the agent's sender does. Returns whether its last line stands for what was held back.
fn written(batch: &Batch, recipient: &Recipient, folder: &Path) -> Result<bool> {
    let mut sink = FilesConfig::new(folder.to_owned(), Format::JsonLines).sink("attacked");
    let heading = batch.heading(Some(&recipient.name))?;
    let offered = batch.offered(Some(&recipient.name))?;
    sink.begin(&heading)?;
    offered.each(|records| sink.take(records, heading.fields).map(drop))?;
    let residual = offered.valued_residual();
    if let Some(residual) = residual {
        sink.take(&[residual], offered.values.residual_fields())?;
    }
    sink.end()?;
    sink.close()?;
    Ok(residual.is_some())
}

/// The flows of which a line with some key can be made, by number, and what the policy of the recipient means for it.
#[derive(Default)]
struct Made {
    /// Those that are not held back one by one.
    of: Vec<usize>,
    /// Those that nobody answered, where these are held back.
    unanswered: Vec<usize>,
}

impl Made {
    /// Whether the line must be there.
    fn is_certain(&self, recipient: &Recipient, flows: &[Flow]) -> bool {
        let packets: u64 = self.of.iter().map(|number| flows[*number].packets).sum();
        recipient.k_threshold.is_none()
            && !self.of.is_empty()
            && packets >= u64::from(recipient.mitigations.min_packets)
    }
}

/// Reads the file, and adds to each line what the harness knows. The line that stands for what was held back is left out.
fn lines(
    folder: &Path,
    position: usize,
    recipient: &Recipient,
    flows: &[Flow],
    has_rest: bool,
) -> Result<Vec<Line>> {
    let mut by_key: HashMap<&str, Made> = HashMap::new();
    for (number, flow) in flows.iter().enumerate() {
        let made = by_key.entry(&flow.keys[position]).or_default();
        let is_held_back = recipient.mitigations.established_only && !flow.is_answered;
        if is_held_back { &mut made.unanswered } else { &mut made.of }.push(number);
    }
    let mut texts = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            texts.push(fs::read_to_string(&path)?);
        }
    }
    ensure!(texts.len() <= 1, "{}: {} files of one batch", recipient.name, texts.len());
    let mut maps = Vec::new();
    for text in texts.iter().flat_map(|text| text.lines()) {
        let map: Map<String, Value> = serde_json::from_str(text)?;
        if !map.contains_key("minimizer") {
            maps.push(map);
        }
    }
    if has_rest {
        let rest = maps.pop().context("what was held back has a line")?;
        ensure!(key(&cells(&rest)).is_empty(), "{}: {rest:?} is told of what is held back", recipient.name);
    }
    let mut lines = Vec::new();
    for map in maps {
        let cells = cells(&map);
        let key = key(&cells);
        let Some(made) = by_key.get(&*key) else {
            bail!("{}: no packet is {map:?}", recipient.name);
        };
        let made_of = if made.of.is_empty() { &made.unanswered } else { &made.of };
        let mut subscribers = made_of.iter().map(|number| flows[*number].subscriber);
        let first = subscribers.next().flatten();
        let subscriber = first.filter(|_| subscribers.all(|other| other == first));
        lines.push(Line { cells, key, made_of: made_of.clone(), subscriber });
    }
    let told: HashSet<_> = lines.iter().map(|line| &*line.key).collect();
    ensure!(told.len() == lines.len(), "{}: two lines have one key", recipient.name);
    for (key, made) in &by_key {
        let is_missing = made.is_certain(recipient, flows) && !told.contains(key);
        ensure!(!is_missing, "{}: no line is {key}", recipient.name);
    }
    Ok(lines)
}
