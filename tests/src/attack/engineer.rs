//! An engineer who may write to the files of an agent, and has no key that it trusts.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use minimizer::policy::model::Policy;
use rand::RngExt as _;
use rand::rngs::ChaCha8Rng;
use rand::seq::IndexedRandom as _;

use super::drawn::{Drawn, POLICY, PREFIXES};
use super::report::{Adversary, Attempt, Report};
use crate::captures::{Captured, pcap};
use crate::command::{Agent, minimizer};
use crate::network::Network;

const REFUSED: i32 = 78;
/// Name of the earlier policy, which was signed too.
const EARLIER: &str = "earlier.toml";
const CAPTURE: &str = "capture.pcap";
const CONFIG: &str = "agent.toml";

/// What the engineer edits.
#[derive(Clone, Copy)]
enum Edit {
    Finer,
    Recipient,
    Direction,
    Hole,
    PinAndHole,
    OwnKey,
    OtherSignature,
    Octet,
    Option,
    Destination,
}

impl Edit {
    const ALL: [Self; 10] = [
        Self::Finer,
        Self::Recipient,
        Self::Direction,
        Self::Hole,
        Self::PinAndHole,
        Self::OwnKey,
        Self::OtherSignature,
        Self::Octet,
        Self::Option,
        Self::Destination,
    ];

    const fn attack(self) -> &'static str {
        match self {
            Self::Finer => "a field that is told as it is",
            Self::Recipient => "one recipient more",
            Self::Direction => "one direction more",
            Self::Hole => "prefixes changed, pinned",
            Self::PinAndHole => "prefixes changed, the pin removed",
            Self::OwnKey => "signed with a key of its own",
            Self::OtherSignature => "the signature of an earlier text",
            Self::Octet => "any octet of policy or signature",
            Self::Option => "an option of the command line",
            Self::Destination => "another server in agent.toml",
        }
    }

    /// Whether it makes the policy wider, so that `policy diff` has to say it.
    const fn widens(self) -> bool {
        matches!(self, Self::Finer | Self::Recipient | Self::Direction | Self::Hole | Self::PinAndHole)
    }
}

/// The files of an agent that requires a signature.
struct Host<'folder> {
    folder: &'folder Path,
    officer: String,
    /// What was signed.
    text: String,
    signature: String,
}

impl<'folder> Host<'folder> {
    fn new(folder: &'folder Path, drawn: &Drawn) -> Result<Self> {
        let mut host = Self { folder, officer: String::new(), text: String::new(), signature: String::new() };
        host.write(POLICY, &drawn.text)?;
        let frame = Captured::whole(1_700_000_000_000_000_000, vec![0; 60]);
        fs::write(folder.join(CAPTURE), pcap(&[frame]))?;
        host.officer = host.done(&["policy", "keygen", "officer"])?.trim_end().to_owned();
        host.done(&["policy", "keygen", "engineer"])?;
        host.write(EARLIER, &drawn.text.replace("serial = 2", "serial = 1"))?;
        for policy in [POLICY, EARLIER] {
            host.done(&["policy", "pin", policy])?;
            host.done(&["policy", "sign", policy, "--key", "officer.key"])?;
        }
        host.text = host.read(POLICY)?;
        host.signature = host.read("policy.toml.sig")?;
        host.write("before.toml", &host.text)?;
        Ok(host)
    }

    fn read(&self, name: &str) -> Result<String> {
        fs::read_to_string(self.folder.join(name)).with_context(|| name.to_owned())
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        fs::write(self.folder.join(name), text).with_context(|| name.to_owned())
    }

    fn run(&self, arguments: &[&str]) -> Result<Output> {
        Ok(Command::new(minimizer()).args(arguments).current_dir(self.folder).output()?)
    }

    fn done(&self, arguments: &[&str]) -> Result<String> {
        let output = self.run(arguments)?;
        ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Puts the files back as they were signed.
    fn restore(&self) -> Result<()> {
        self.write(POLICY, &self.text)?;
        self.write("policy.toml.sig", &self.signature)?;
        self.write(PREFIXES, &super::traffic::DOMESTIC.join("\n"))
    }

    /// Whether an agent with these arguments takes the policy.
    fn takes(&self, more: &[&str]) -> Result<bool> {
        let replay = ["replay", CAPTURE, "--policy", POLICY, "--require-signature", &self.officer];
        let output = self.run(&[&replay[..], more].concat())?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() || output.status.code() == Some(REFUSED), "{said}");
        Ok(output.status.success())
    }

    /// Whether `policy diff` says that the policy is wider than the one that was signed, or refuses it.
    fn tells(&self) -> Result<bool> {
        let output = self.run(&["policy", "diff", "before.toml", POLICY])?;
        let said = String::from_utf8(output.stdout)?;
        Ok(output.status.code() == Some(REFUSED)
            || said
                .lines()
                .last()
                .is_some_and(|line| line.ends_with("of them wider") && !line.contains(", 0 of")))
    }
}

/// Plays the adversary with the files of a policy in a folder.
///
/// # Errors
/// When a command does what none should.
pub fn play(report: &mut Report, random: &mut ChaCha8Rng, drawn: &Drawn, folder: &Path) -> Result<()> {
    let host = Host::new(folder, drawn)?;
    ensure!(host.takes(&[])?, "what was signed is refused");
    for edit in Edit::ALL {
        let mut add = |class, is_hit| {
            let adversary = Adversary::Engineer;
            let attempt = Attempt {
                adversary,
                attack: edit.attack(),
                class,
                hits: usize::from(is_hit),
                attempts: 1,
                chance: 0.0,
                stated: Some(0.0),
            };
            report.add(attempt, &host.text);
        };
        if let Some(is_taken) = attempted(&host, random, &drawn.policy, edit)? {
            add("taken, though unsigned", is_taken);
            if edit.widens() {
                add("not told by policy diff", !host.tells()?);
            }
        }
        host.restore()?;
    }
    ensure!(host.takes(&[])?, "what was signed is refused afterwards");
    Ok(())
}

/// Edits the files, and returns whether an agent takes them; `None` if the policy has nothing that could be edited so.
fn attempted(host: &Host<'_>, random: &mut ChaCha8Rng, policy: &Policy, edit: Edit) -> Result<Option<bool>> {
    let text = host.read(POLICY)?;
    let mut more: Vec<String> = Vec::new();
    match edit {
        Edit::Finer => {
            let lines: Vec<_> = text.lines().filter(|line| line.contains(" = ")).collect();
            let (_, fields) = text.split_once("[[recipients]]").context("it has recipients")?;
            let is_coarse = |line: &&&str| {
                fields.contains(**line)
                    && !line.ends_with("\"exact\"")
                    && is_field(line)
                    && !line.contains("coarsen")
            };
            let coarse: Vec<_> = lines.iter().filter(is_coarse).collect();
            let Some(line) = coarse.choose(random) else { return Ok(None) };
            let (field, _) = line.split_once(" = ").context("a field")?;
            host.write(POLICY, &text.replacen(**line, &format!("{field} = \"exact\""), 1))?;
        }
        Edit::Recipient => {
            let more = "[[recipients]]\nname = \"friend\"\npurpose = \"to help\"\nfields = { sourceIPv4Address = \"exact\" }\n";
            host.write(POLICY, &format!("{text}{more}"))?;
        }
        Edit::Direction => {
            if policy.scope.is_none() {
                return Ok(None);
            }
            host.write(POLICY, &text.replace("directions = [", "directions = [\"foreign-foreign\", "))?;
        }
        Edit::Hole | Edit::PinAndHole => {
            if policy.scope.is_none() {
                return Ok(None);
            }
            if let Edit::PinAndHole = edit {
                let lines = text.lines().map(|line| match line.split_once(" = ") {
                    Some(("domestic_files", _)) => format!("domestic_files = [\"{PREFIXES}\"]"),
                    _ => line.to_owned(),
                });
                let unpinned = lines.collect::<Vec<_>>().join("\n");
                ensure!(unpinned != text.trim_end(), "the pin is in the text: {text}");
                host.write(POLICY, &unpinned)?;
            }
            let longer = super::traffic::DOMESTIC.map(|prefix| prefix.replace("/24", "/25"));
            host.write(PREFIXES, &longer.join("\n"))?;
        }
        Edit::OwnKey => {
            host.write(POLICY, &text.replace("to be attacked", "anything"))?;
            host.done(&["policy", "sign", POLICY, "--key", "engineer.key"])?;
        }
        Edit::OtherSignature => host.write("policy.toml.sig", &host.read("earlier.toml.sig")?)?,
        Edit::Octet => {
            let name = *[POLICY, "policy.toml.sig"].choose(random).context("one of two")?;
            let mut octets = fs::read(host.folder.join(name))?;
            let place = random.random_range(0..octets.len());
            octets[place] ^= 1 << random.random_range(0..7);
            fs::write(host.folder.join(name), octets)?;
        }
        Edit::Option => {
            let option = [
                &["--tunnel", "vxlan"][..],
                &["--policy", "full-record"],
                &["--require-signature", "engineer.key"],
            ];
            more = option.choose(random).context("one")?.iter().map(|word| (*word).to_owned()).collect();
        }
        Edit::Destination => return destination(host, policy).map(Some),
    }
    let more: Vec<_> = more.iter().map(|word| &**word).collect();
    if more.first().is_some_and(|option| *option != "--tunnel") {
        // An option that is given twice is a mistake of the command line: these stand in place of the right ones.
        let output = if more[0] == "--policy" {
            host.run(&["replay", CAPTURE, more[0], more[1], "--require-signature", &host.officer])?
        } else {
            return Ok(None);
        };
        return Ok(Some(output.status.success()));
    }
    host.takes(&more).map(Some)
}

fn is_field(line: &str) -> bool {
    let name = line.split(' ').next().unwrap_or_default();
    minimizer::policy::field::Field::named(name).is_some()
}

/// agent.toml sends the records of a recipient to a server that the policy does not list.
fn destination(host: &Host<'_>, policy: &Policy) -> Result<bool> {
    let config = format!(
        "interfaces = [\"lo\"]\nlisten = \"127.0.0.1:0\"\npolicy = \"{POLICY}\"\nrequire_signature = \"{}\"\n[[sinks]]\nname = \
         \"out\"\nrecipient = \"{}\"\nipfix = {{ collector = \"198.51.100.9:4739\" }}\n",
        host.officer, policy.recipients[0].name
    );
    host.write(CONFIG, &config)?;
    let output = host.run(&["run", "--config", CONFIG])?;
    Ok(output.status.code() != Some(REFUSED))
}

/// Plays a rollback: an older policy, as signed as the one that was in force, is put in its place.
///
/// # Errors
/// When an agent does not start with the newer one.
pub fn roll_back(report: &mut Report, drawn: &Drawn, folder: &Path) -> Result<()> {
    let host = Host::new(folder, drawn)?;
    let network = Network::new(1, 1500)?;
    let start = |policy: &str| {
        let mut command = Command::new(minimizer());
        command.args(["run", "-i", "receive0", "--listen", "127.0.0.1:0", "--flows-per-cpu", "1024"]);
        command.args(["--require-signature", &host.officer, "--state", "."]).args(["--policy", policy]);
        Agent::start(command.current_dir(folder))
    };
    let (exit, said) = start(POLICY)?.stop()?;
    ensure!(exit.success(), "{said}");
    let is_taken = start(EARLIER).is_ok();
    drop(network);
    let attempt = Attempt {
        adversary: Adversary::Engineer,
        attack: "an older signed policy",
        class: "taken, though older",
        hits: usize::from(is_taken),
        attempts: 1,
        chance: 0.0,
        stated: Some(0.0),
    };
    report.add(attempt, "rollback");
    Ok(())
}
