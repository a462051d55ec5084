//! The Kafka sink before real brokers: what arrives is what was taken, whatever breaks on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::slice::from_ref;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use minimizer::commands::demo::generator::Traffic;
use minimizer::delivery::loss::Loss;
use minimizer::delivery::sink::{CHUNK_RECORDS_MAX, Heading, Sink, SinkError, Taken};
use minimizer::policy::field::{Field, Fields};
use minimizer::records::record::Record;
use minimizer::sinks::kafka::{Compression, KafkaConfig, Mechanism, Sasl};
use minimizer::support::tls::ClientTls;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tests::authority::Authority;
use tests::command::{Agent, minimizer};
use tests::kafka::batches::{BEGIN_MS, Batches, WAIT_LIMIT, attempt, bring, records, settle};
use tests::kafka::{Broker, Cluster, Encrypted, Message, TOPIC, create, free, in_clickhouse};
use tests::network::Network;

const PARTITIONS: usize = 4;

fn config(brokers: &[String]) -> KafkaConfig {
    KafkaConfig {
        brokers: brokers.to_vec(),
        topic: TOPIC.to_owned(),
        exporter: Some("edge-1".to_owned()),
        compression: Compression::None,
        records_per_message: 1,
        tls: None,
        sasl: None,
    }
}

/// Why the sink does not begin.
fn refusal(config: &KafkaConfig) -> Result<SinkError> {
    let batches = Batches::new()?;
    match config.sink("test").begin(&batches.heading(1)) {
        Err(error) => Ok(error),
        Ok(()) => bail!("it begins"),
    }
}

fn json(records: &[Record], fields: Fields) -> Result<Vec<String>> {
    let mut lines: Vec<_> =
        records.iter().map(|record| serde_json::to_string(&record.with(fields))).collect::<Result<_, _>>()?;
    lines.sort();
    Ok(lines)
}

fn lines(messages: &[Message]) -> Vec<String> {
    let mut lines: Vec<_> =
        messages.iter().flat_map(|message| message.value.split('\n')).map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
#[cfg_attr(without_python, ignore = "needs the Python packages: cargo xtask test")]
fn each_record_is_a_message_with_its_flows_key_and_its_batchs_headers() -> Result<()> {
    let broker = Broker::with_topic(PARTITIONS)?;
    let (batches, records) = (Batches::new()?, records(10_000));
    let mut sink = config(from_ref(&broker.address)).sink("test");
    ensure!(bring(&mut *sink, &batches.heading(1), &records)?.is_empty());
    // The flows of the first batch, an interval later.
    ensure!(bring(&mut *sink, &batches.heading(2), &records[..1000])?.is_empty());
    ensure!(sink.close()? == Taken::Delivered);
    let messages = broker.consume()?;
    ensure!(lines(&messages) == json(&[&records[..], &records[..1000]].concat(), batches.fields())?);
    ensure!(sink.octets_written() > messages.iter().map(|message| message.value.len() as u64).sum());
    let mut partition_of = BTreeMap::new();
    let mut numbers: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    let mut run = None;
    for message in &messages {
        let key = message.key.as_deref().context("a key")?;
        ensure!(key.len() == 16, "{key}");
        ensure!(*partition_of.entry(key).or_insert(message.partition) == message.partition, "{message:?}");
        let value: Value = serde_json::from_str(&message.value)?;
        ensure!(value["flowEndMilliseconds"] == message.time_ms, "{message:?}");
        let header = |name: &str| message.headers.get(name).map_or("", |value| value);
        let batch = header("batch");
        let (begin, end) = (header("begin").parse::<u64>()?, header("end").parse::<u64>()?);
        ensure!(begin == BEGIN_MS + batch.parse::<u64>()? * 10_000 && end == begin + 10_000);
        ensure!(header("policy") == batches.policy.digest && header("recipient") == "laboratory");
        ensure!(header("exporter") == "edge-1" && message.headers.len() == 8, "{message:?}");
        ensure!(
            header("run").len() == 16 && header("run") == *run.get_or_insert(header("run")),
            "{message:?}"
        );
        ensure!(numbers.entry(batch).or_default().insert(header("message").parse()?), "{message:?}");
    }
    ensure!(partition_of.values().collect::<BTreeSet<_>>().len() == PARTITIONS);
    for (batch, count) in [("1", 10_000), ("2", 1000)] {
        ensure!(
            numbers[batch].iter().copied().eq(1..=count),
            "messages of a batch are numbered without a gap"
        );
    }
    Ok(())
}

#[test]
#[cfg_attr(without_python, ignore = "needs the Python packages: cargo xtask test")]
fn every_compression_and_records_together_arrive() -> Result<()> {
    let (batches, records) = (Batches::new()?, records(5000));
    let expected = json(&records, batches.fields())?;
    let compressions =
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
    for (compression, records_per_message) in compressions.into_iter().zip([7, 1, 100, 1000, 1]) {
        let cluster = Cluster::start(PARTITIONS)?;
        let config = KafkaConfig { compression, records_per_message, ..config(&cluster.brokers) };
        let mut sink = config.sink("test");
        ensure!(bring(&mut *sink, &batches.heading(1), &records)?.is_empty());
        settle(&mut *sink)?;
        let messages = cluster.consume()?;
        ensure!(lines(&messages) == expected, "{compression:?}");
        ensure!(messages.iter().all(|message| message.key.is_some() == (records_per_message == 1)));
        ensure!(messages.len() <= records.len() / records_per_message + PARTITIONS * 2);
    }
    Ok(())
}

#[test]
#[cfg_attr(without_python, ignore = "needs the Python packages: cargo xtask test")]
fn fields_without_a_flow_are_spread_and_have_no_key() -> Result<()> {
    let cluster = Cluster::start(PARTITIONS)?;
    let (batches, records) = (Batches::new()?, records(10_000));
    let counts = Fields::NONE.with(Field::PacketDeltaCount).with(Field::OctetDeltaCount);
    let mut sink = config(&cluster.brokers).sink("test");
    let heading = Heading { fields: counts, ..batches.heading(1) };
    ensure!(bring(&mut *sink, &heading, &records)?.is_empty());
    settle(&mut *sink)?;
    let messages = cluster.consume()?;
    ensure!(lines(&messages) == json(&records, counts)?);
    ensure!(messages.iter().all(|message| message.key.is_none() && message.time_ms == heading.end_ms));
    ensure!(messages.iter().map(|message| message.partition).collect::<BTreeSet<_>>().len() > 1);
    Ok(())
}

#[test]
#[cfg_attr(without_python, ignore = "needs the Python packages: cargo xtask test")]
fn brokers_that_go_in_the_middle_of_traffic_and_return_get_every_record() -> Result<()> {
    let mut cluster = Cluster::start(PARTITIONS)?;
    let (batches, records) = (Batches::new()?, records(12_000));
    let mut sink = config(&cluster.brokers).sink("test");
    let mut losses = Vec::new();
    for (number, part) in (1..).zip(records.chunks(2000)) {
        if number == 3 {
            // Acknowledgements come late, so that some are on their way when the brokers go.
            cluster.tell("delay 500")?;
            sink.begin(&batches.heading(number))?;
            for chunk in part.chunks(CHUNK_RECORDS_MAX) {
                ensure!(sink.take(chunk, batches.fields())? == Taken::Held);
            }
            cluster.tell("down")?;
            let error = wait_for_error(&mut *sink)?;
            ensure!(error.loss == Loss::Unreachable && !error.held_is_lost, "{error}");
            let error = sink.begin(&batches.heading(number + 1)).err().context("nobody is there")?;
            ensure!(error.loss == Loss::Unreachable, "{error}");
            cluster.tell("up")?;
            cluster.tell("delay 0")?;
            continue;
        }
        losses.extend(bring(&mut *sink, &batches.heading(number), part)?);
    }
    settle(&mut *sink)?;
    ensure!(losses.iter().all(|loss| *loss == Loss::Unreachable), "{losses:?}");
    let messages = cluster.consume()?;
    // What was on its way may be there twice, as the same message of the same batch.
    let mut once = BTreeMap::new();
    for message in &messages {
        let name = (message.headers["batch"].clone(), message.headers["message"].clone());
        let value = once.entry(name).or_insert(&message.value);
        ensure!(*value == &message.value, "{message:?}");
    }
    eprintln!("{} messages, {} of them twice", messages.len(), messages.len() - once.len());
    let mut lines: Vec<_> = once.into_values().cloned().collect();
    lines.sort();
    ensure!(lines == json(&records, batches.fields())?);
    Ok(())
}

fn wait_for_error(sink: &mut dyn Sink) -> Result<SinkError> {
    let begin = Instant::now();
    loop {
        match sink.tend() {
            Err(error) => return Ok(error),
            Ok(taken) => ensure!(taken == Taken::Held && begin.elapsed() < WAIT_LIMIT, "no error: {taken:?}"),
        }
    }
}

#[test]
#[cfg_attr(without_python, ignore = "needs the Python packages: cargo xtask test")]
fn a_killed_broker_costs_nothing_that_was_not_acknowledged() -> Result<()> {
    let broker = Broker::with_topic(PARTITIONS)?;
    let address = broker.address.clone();
    let (batches, records) = (Batches::new()?, records(20_000));
    let (before, after) = records.split_at(10_000);
    let mut sink = config(from_ref(&address)).sink("test");
    ensure!(bring(&mut *sink, &batches.heading(1), before)?.is_empty());
    settle(&mut *sink)?;
    ensure!(lines(&broker.consume()?) == json(before, batches.fields())?);
    drop(broker);
    // The sink takes what comes while it does not know that nobody is there, and then refuses.
    let mut next = 0;
    let error = match attempt(&mut *sink, &batches.heading(2), after, &mut next) {
        Err(error) => error,
        Ok(()) => wait_for_error(&mut *sink)?,
    };
    ensure!(error.loss == Loss::Unreachable && !error.held_is_lost, "{error}");
    let broker = Broker::start_as(&address, &address, &[])?;
    broker.create(PARTITIONS)?;
    bring(&mut *sink, &batches.heading(2), &after[next..])?;
    settle(&mut *sink)?;
    // It kept nothing in memory of what it had before.
    ensure!(lines(&broker.consume()?) == json(after, batches.fields())?);
    Ok(())
}

#[test]
#[cfg_attr(without_python, ignore = "needs the Python packages: cargo xtask test")]
fn a_broker_that_stands_still_blocks_nobody_and_gets_every_record_later() -> Result<()> {
    let broker = Broker::with_topic(PARTITIONS)?;
    let (batches, records) = (Batches::new()?, records(80_000));
    let mut sink = config(from_ref(&broker.address)).sink("test");
    ensure!(bring(&mut *sink, &batches.heading(1), &records[..1000])?.is_empty());
    settle(&mut *sink)?;
    let process = Pid::from_child(broker.process());
    kill_process(process, Signal::STOP)?;
    let mut next = 1000;
    let error = attempt(&mut *sink, &batches.heading(2), &records, &mut next);
    let error = error.err().context("more is taken than may be held")?;
    ensure!(error.loss == Loss::Stalled && !error.held_is_lost, "{error}");
    kill_process(process, Signal::CONT)?;
    bring(&mut *sink, &batches.heading(2), &records[next..])?;
    settle(&mut *sink)?;
    let messages = broker.consume()?;
    let once: BTreeSet<_> = lines(&messages).into_iter().collect();
    ensure!(once.into_iter().eq(json(&records, batches.fields())?));
    Ok(())
}

#[test]
#[cfg_attr(without_python, ignore = "needs the Python packages: cargo xtask test")]
fn what_the_brokers_refuse_is_named() -> Result<()> {
    let broker = Broker::with_topic(PARTITIONS)?;
    let nothing = refusal(&KafkaConfig { topic: "absent".to_owned(), ..config(from_ref(&broker.address)) })?;
    ensure!(
        nothing.loss == Loss::Refused && nothing.message.contains("there is no topic `absent`"),
        "{nothing}"
    );
    let nobody = refusal(&config(&[free()?]))?;
    ensure!(nobody.loss == Loss::Unreachable && nobody.message.contains("refused"), "{nobody}");
    let mut cluster = Cluster::start(PARTITIONS)?;
    let (batches, records) = (Batches::new()?, records(10));
    // By Kafka's list of errors: a message too large, too few replicas in sync, no permission.
    for (code, loss) in [(10, Loss::Refused), (19, Loss::Stalled), (29, Loss::Refused)] {
        let mut sink = config(&cluster.brokers).sink("test");
        cluster.tell(&format!("fail {code}"))?;
        let error = match attempt(&mut *sink, &batches.heading(1), &records, &mut 0) {
            Err(error) => error,
            Ok(()) => wait_for_error(&mut *sink)?,
        };
        ensure!(error.loss == loss && !error.held_is_lost, "{code}: {error}");
        settle(&mut *sink)?;
    }
    ensure!(cluster.consume()?.len() == 30, "what was refused once was sent again");
    Ok(())
}

/// Set for a copy of a test that has authorities of its own as those of the host: the broker, and the folder of the
/// agent's certificate.
const BROKER: &str = "MINIMIZER_TEST_BROKER";
const FOLDER: &str = "MINIMIZER_TEST_FOLDER";

/// Sends records to a broker that is trusted by an authority of the host.
fn send_trusting_the_host(broker: String) -> Result<()> {
    let folder = PathBuf::from(env::var_os(FOLDER).context("a folder")?);
    let identity = Some((folder.join("agent.pem"), folder.join("agent.key")));
    let config = KafkaConfig {
        tls: Some(ClientTls { ca: None, identity, ..ClientTls::default() }),
        ..config(&[broker])
    };
    let batches = Batches::new()?;
    let mut sink = config.sink("test");
    attempt(&mut *sink, &batches.heading(2), &records(1000), &mut 0)?;
    settle(&mut *sink)
}

#[test]
#[cfg_attr(without_python, ignore = "needs the Python packages: cargo xtask test")]
fn certificates_let_in_and_keep_out() -> Result<()> {
    if let Ok(broker) = env::var(BROKER) {
        return send_trusting_the_host(broker);
    }
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    let (authority, other) = (Authority::new("authority")?, Authority::new("other")?);
    authority.write_own(folder, "ca")?;
    other.write_own(folder, "other")?;
    authority.write(folder, "broker", "localhost")?;
    authority.write(folder, "agent", "agent.example")?;
    other.write(folder, "stranger", "stranger.example")?;
    let (plain, encrypted) = (free()?, free()?);
    let port = encrypted.rsplit(':').next().context("a port")?;
    let broker = Broker::start_as(&plain, &format!("localhost:{port}"), &[])?;
    let path = |name: &str| folder.join(name);
    let (certificate, key, ca) = (path("broker.pem"), path("broker.key"), path("ca.pem"));
    let files = [&certificate, &key, &ca].map(|path| path.to_str().unwrap_or_default());
    let _encrypted = Encrypted::start(port.parse()?, &plain, files)?;
    let address = format!("localhost:{port}");
    let properties = [
        format!("bootstrap.servers={address}"),
        "security.protocol=ssl".to_owned(),
        format!("ssl.ca.location={}", ca.display()),
        format!("ssl.certificate.location={}", path("agent.pem").display()),
        format!("ssl.key.location={}", path("agent.key").display()),
    ];
    let properties: Vec<_> = properties.iter().map(|property| &**property).collect();
    create(PARTITIONS, &properties)?;
    let with = |ca: &str, identity: Option<&str>| {
        let identity = identity.map(|name| (path(&format!("{name}.pem")), path(&format!("{name}.key"))));
        let tls = ClientTls { ca: Some(path(&format!("{ca}.pem"))), identity, ..ClientTls::default() };
        KafkaConfig { tls: Some(tls), ..config(from_ref(&address)) }
    };
    let (batches, records) = (Batches::new()?, records(1000));
    let mut sink = with("ca", Some("agent")).sink("test");
    ensure!(bring(&mut *sink, &batches.heading(1), &records)?.is_empty());
    settle(&mut *sink)?;
    let messages = tests::kafka::consume(&properties)?;
    ensure!(lines(&messages) == json(&records, batches.fields())?);
    for (host, is_trusted) in [("ca.pem", true), ("other.pem", false)] {
        // The variable belongs to the whole process: other tests must not run with it.
        let ended = Command::new(env::current_exe()?)
            .args(["--exact", "certificates_let_in_and_keep_out"])
            .env(BROKER, &address)
            .env(FOLDER, folder)
            .env("SSL_CERT_FILE", folder.join(host))
            .env_remove("SSL_CERT_DIR")
            .output()?;
        let said = String::from_utf8_lossy(&ended.stdout);
        ensure!(ended.status.success() == is_trusted, "{host}: {said}");
        ensure!(is_trusted || said.contains("UnknownIssuer"), "{host}: {said}");
    }
    ensure!(tests::kafka::consume(&properties)?.len() == 2 * records.len());
    drop(broker);
    for (config, part) in [
        (with("other", Some("agent")), "certificate"),
        (with("ca", Some("stranger")), "`tls"),
        (with("ca", None), "`tls"),
        (with("absent", None), "absent.pem"),
    ] {
        let error = refusal(&config)?;
        ensure!(error.loss == Loss::Refused && error.message.contains(part), "{part}: {error}");
    }
    fs::set_permissions(path("agent.key"), fs::Permissions::from_mode(0o644))?;
    let error = refusal(&with("ca", Some("agent")))?;
    ensure!(error.loss == Loss::Refused && error.message.contains("chmod 600"), "{error}");
    Ok(())
}

#[test]
#[cfg_attr(without_python, ignore = "needs the Python packages: cargo xtask test")]
fn an_unknown_user_is_refused() -> Result<()> {
    let broker = Broker::start(&["--authentication"])?;
    let folder = tempfile::tempdir()?;
    let password_file = folder.path().join("password");
    fs::write(&password_file, "secret\n")?;
    fs::set_permissions(&password_file, fs::Permissions::from_mode(0o600))?;
    let begin = Instant::now();
    for mechanism in [Mechanism::ScramSha256, Mechanism::ScramSha512] {
        let sasl = Sasl { mechanism, username: "nobody".to_owned(), password_file: password_file.clone() };
        let config = KafkaConfig { sasl: Some(sasl), ..config(from_ref(&broker.address)) };
        let mut error = refusal(&config)?;
        // It may not have started yet.
        while error.loss == Loss::Unreachable && begin.elapsed() < WAIT_LIMIT {
            error = refusal(&config)?;
        }
        ensure!(error.loss == Loss::Refused && error.message.contains("Sasl"), "{error}");
    }
    Ok(())
}

/// Frames that all interfaces together saw.
fn seen(ledger: &Value) -> u64 {
    let interfaces = ledger["interfaces"].as_object().into_iter().flatten();
    interfaces.map(|(_, interface)| interface["seen"].as_u64().unwrap_or(0)).sum()
}

#[test]
#[cfg_attr(
    any(without_kernel, without_python),
    ignore = "needs root, the kernel program and the Python packages: cargo xtask test"
)]
fn what_the_ledger_says_was_exported_is_in_the_topic_and_in_the_tables() -> Result<()> {
    let mut network = Network::new(3, 1500)?;
    let mut cluster = Cluster::start(PARTITIONS)?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("agent.toml");
    let sink = |name: &str, brokers: &[String]| {
        format!(
            "[[sinks]]\nname = \"{name}\"\nrecipient = \"laboratory\"\n\
             kafka = {{ brokers = {brokers:?}, topic = \"{TOPIC}\", compression = \"lz4\" }}\n"
        )
    };
    let text = format!(
        "interfaces = [\"receive*\"]\npolicy = \"full-record\"\nlisten = \"127.0.0.1:0\"\ninterval = \"200ms\"\n\
         ledger = \"ledger.json\"\nshutdown_timeout = \"2s\"\n{}{}",
        sink("good", &cluster.brokers),
        sink("nobody", &[free()?])
    );
    fs::write(&path, text)?;
    let agent = Agent::start(Command::new(minimizer()).args(["run", "--config"]).arg(&path))?;
    let traffic = Arc::new(Traffic::mixed(0x6b));
    let mut arrived = network.send_all(0, &traffic, 20_000)?;
    cluster.tell("down")?;
    arrived += network.send_all(1, &traffic, 20_000)?;
    agent.wait_for(|status| status["ledger"]["sinks"]["good"]["failing"].is_object())?;
    cluster.tell("up")?;
    arrived += network.send_all(2, &traffic, 20_000)?;
    agent.wait_for(|status| {
        let sink = &status["ledger"]["sinks"]["good"];
        let packets = |tally: &str| sink[tally]["packets"].as_u64().unwrap_or(0);
        seen(&status["ledger"]) == arrived && packets("exported") == packets("offered")
    })?;
    let (exit, said) = agent.stop()?;
    ensure!(exit.success(), "{exit}: {said}");
    let ledger: Value = serde_json::from_slice(&fs::read(folder.path().join("ledger.json"))?)?;
    ensure!(ledger["balanced"] == true && seen(&ledger) == arrived, "{ledger:#}");
    let good = &ledger["sinks"]["good"];
    ensure!(good["exported"]["packets"] == ledger["exported"]["packets"], "{ledger:#}");
    let lost = &ledger["sinks"]["nobody"]["dropped"];
    ensure!(ledger["sinks"]["nobody"]["exported"]["packets"] == 0, "{ledger:#}");
    ensure!(
        lost["unreachable"]["packets"].as_u64().or(lost["shutdown"]["packets"].as_u64()) > Some(0),
        "{lost:#}"
    );
    let mut once = BTreeMap::new();
    let messages = cluster.consume()?;
    for message in &messages {
        once.insert((&message.headers["batch"], &message.headers["message"]), &message.value);
    }
    let (mut packets, mut octets) = (0, 0);
    for value in once.values() {
        let value: Value = serde_json::from_str(value)?;
        packets += value["packetDeltaCount"].as_u64().context("packets")?;
        octets += value["octetDeltaCount"].as_u64().context("octets")?;
    }
    ensure!(
        good["exported"]["packets"] == packets && good["exported"]["octets"] == octets,
        "{packets}: {good:#}"
    );
    // Half of them once more: what comes twice counts once. ClickHouse writes large numbers as texts.
    let tables = in_clickhouse(&[&messages[..], &messages[..messages.len() / 2]].concat())?;
    let number = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
    for table in ["records", "hourly"] {
        let sums = [0, 1, 2].map(|column| number(&tables[table][column]));
        ensure!(sums == [Some(once.len() as u64), Some(packets), Some(octets)], "{table}: {tables:#}");
    }
    Ok(())
}
