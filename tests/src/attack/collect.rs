//! What recipients get under a drawn policy, and what only the harness knows of it.
//!
//! The packets go through the program in the kernel and by the agent's own path: drain, batch, view, order, sink of files. The reference
//! of the tests says which of what the kernel stored is of which packets, and so which line. An adversary has the lines alone.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
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
use super::traffic::{self, Sent};
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
    /// By recipient: the key of the line that it is in, unless the threshold keeps that back.
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
        let flows = flows(sent, &records, terms, self.recipients.len())?;
        let lines = self.recipients.iter().enumerate().map(|(position, recipient)| {
            let folder = folder.join(format!("{}-{}", recipient.name, self.batches));
            written(&batch, recipient, &folder)?;
            lines(&folder, position, recipient, &flows)
        });
        Ok(Told { lines: lines.collect::<Result<_>>()?, flows })
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
    let mut seen = HashSet::new();
    let mut flows = Vec::new();
    for Sent { frame, packet, .. } in sent {
        if !seen.insert(*packet) {
            continue;
        }
        let arrived = Arrived { outer: None, interface: IF_INDEX, time_ms: START_MS };
        let Ok(read) = Frame::new(frame.clone()).packet(policy) else { continue };
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

/// Writes a file as the agent's sender does.
fn written(batch: &Batch, recipient: &Recipient, folder: &Path) -> Result<()> {
    let mut sink = FilesConfig::new(folder.to_owned(), Format::JsonLines).sink("attacked");
    let heading = batch.heading(Some(&recipient.name))?;
    let offered = batch.offered(Some(&recipient.name))?;
    sink.begin(&heading)?;
    offered.each(|records| sink.take(records, heading.fields).map(drop))?;
    if let Some(residual) = offered.valued_residual() {
        sink.take(&[residual], offered.values.residual_fields())?;
    }
    sink.end()?;
    sink.close()?;
    Ok(())
}

/// Reads the file, and adds to each line what the harness knows. The line that stands for those of too few sources is left out.
fn lines(folder: &Path, position: usize, recipient: &Recipient, flows: &[Flow]) -> Result<Vec<Line>> {
    let mut by_key: HashMap<&str, Vec<usize>> = HashMap::new();
    for (number, flow) in flows.iter().enumerate() {
        by_key.entry(&flow.keys[position]).or_default().push(number);
    }
    let mut lines = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "jsonl") {
            continue;
        }
        for text in fs::read_to_string(&path)?.lines() {
            let map: Map<String, Value> = serde_json::from_str(text)?;
            if map.contains_key("minimizer") {
                continue;
            }
            let cells = cells(&map);
            let key = key(&cells);
            let Some(made_of) = by_key.get(&*key) else {
                ensure!(
                    recipient.k_threshold.is_some() && key.is_empty(),
                    "{}: no packet is {text}",
                    recipient.name
                );
                continue;
            };
            let mut subscribers = made_of.iter().map(|number| flows[*number].subscriber);
            let first = subscribers.next().flatten();
            let subscriber = first.filter(|_| subscribers.all(|other| other == first));
            lines.push(Line { cells, key, made_of: made_of.clone(), subscriber });
        }
    }
    let told = by_key.len();
    ensure!(
        lines.len() == told || recipient.k_threshold.is_some() && lines.len() <= told,
        "{}: {} lines of {told}",
        recipient.name,
        lines.len()
    );
    Ok(lines)
}
