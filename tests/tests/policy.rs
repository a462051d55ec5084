//! `minimizer policy` as its users meet it: output, exit codes, places of errors.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::command::minimizer;

fn run(arguments: &[&str]) -> Result<Output> {
    Ok(Command::new(minimizer()).arg("policy").args(arguments).output()?)
}

/// Standard output of a call that must succeed.
fn printed(arguments: &[&str]) -> Result<String> {
    let output = run(arguments)?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn example(name: &str) -> String {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../policies").join(name).display().to_string()
}

#[test]
fn check_says_ok_with_digests() -> Result<()> {
    let said = printed(&["check", &example("active-cyberdefence.toml")])?;
    ensure!(said.starts_with("ok: active-cyberdefence, SHA-256 "), "{said}");
    ensure!(said.contains("5 lines of indicators") && said.contains("example.prefixes: SHA-256 "), "{said}");
    ensure!(printed(&["check", "full-record"])?.starts_with("ok: full-record"), "a built-in policy");
    Ok(())
}

#[test]
fn whose_records_can_be_joined_is_told_of_each_pair_and_refused_where_it_must_not_be() -> Result<()> {
    let path = example("recipient-abroad.toml");
    let said = printed(&["check", &path])?;
    for pair in [
        "own-soc and partner-abroad: joinable: both are told sourceIPv4Address",
        "own-soc and statistics: not joinable: each record of statistics is of 10 sources or more",
        "partner-abroad and statistics: joinable: both are told destinationTransportPort",
    ] {
        ensure!(said.lines().any(|line| line.starts_with(pair)), "{said}");
    }
    let explained: Value = serde_json::from_str(&printed(&["explain", &path, "--output", "json"])?)?;
    let verdicts = explained["pairs"].as_array().context("pairs")?.iter().map(|pair| &pair["verdict"]);
    ensure!(verdicts.collect::<Vec<_>>() == ["joinable", "not-joinable", "joinable"], "{explained:#}");
    let folder = tempfile::tempdir()?;
    let promised = folder.path().join("policy.toml");
    let text = fs::read_to_string(&path)?;
    ensure!(
        text.contains("unlinkable = [") && !text.contains("no two can join"),
        "the policy promises what is true"
    );
    fs::write(
        &promised,
        text.replace("unlinkable = [", "unlinkable = [[\"own-soc\", \"partner-abroad\"], "),
    )?;
    let output = run(&["check", promised.to_str().context("is UTF-8")?])?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(
        output.status.code() == Some(78) && said.contains("own-soc and partner-abroad: joinable"),
        "{said}"
    );
    ensure!(said.contains("not joinable if one of them got none of"), "{said}");
    Ok(())
}

#[test]
fn check_warns_of_half_of_the_times() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("policy.toml");
    let warned = |fields: &str| -> Result<Option<String>> {
        let text = format!(
            "name = \"half\"\n[[recipients]]\nname = \"soc\"\npurpose = \"to test\"\n[recipients.fields]\n{fields}"
        );
        fs::write(&path, text)?;
        let said = printed(&["check", path.to_str().context("is UTF-8")?])?;
        Ok(said.lines().find(|line| line.starts_with("CAUTION: ")).map(str::to_owned))
    };
    let [start, end] =
        ["Start", "End"].map(|which| format!("flow{which}Milliseconds = {{ coarsen = \"1s\" }}\n"));
    let said = warned(&start)?.context("it warns")?;
    ensure!(said.contains("soc gets flowStartMilliseconds without flowEndMilliseconds"), "{said}");
    let said = warned(&end)?.context("it warns")?;
    ensure!(said.contains("soc gets flowEndMilliseconds without flowStartMilliseconds"), "{said}");
    ensure!(
        warned(&format!("{start}{end}"))?.is_none() && warned("protocolIdentifier = \"exact\"\n")?.is_none()
    );
    for name in
        ["active-cyberdefence.toml", "carrier-default.toml", "full-record.toml", "recipient-abroad.toml"]
    {
        ensure!(!printed(&["check", &example(name)])?.contains("without flowStartMilliseconds"), "{name}");
    }
    Ok(())
}

#[test]
fn bad_policies_are_exit_code_78_with_file_line_and_column() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("bad.toml");
    fs::write(&path, "name = \"bad\"\n[[recipients]]\nname = \"r\"\nfields = { vlanId = \"log2\" }\n")?;
    let path = path.to_str().context("is UTF-8")?;
    for arguments in [&["check", path][..], &["explain", path], &["diff", "full-record", path]] {
        let output = run(arguments)?;
        let said = String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(78) && output.stdout.is_empty(), "{said}");
        ensure!(said.contains("bad.toml:2:1: `r` has no purpose"), "{said}");
        ensure!(said.contains("bad.toml:4:21: vlanId cannot be \"log2\": allowed are \"exact\""), "{said}");
    }
    let output = run(&["check", "no-such-policy"])?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(78), "{said}");
    ensure!(said.contains("built in are carrier-default and full-record"), "{said}");
    Ok(())
}

const RECIPIENT: &str = "[[recipients]]\nname = \"r\"\npurpose = \"to test\"\n\
                         fields = { packetDeltaCount = \"exact\" }\n";

/// What a policy with this text is refused for, in a folder that has a list of prefixes with this content.
fn refused(text: &[u8], list: &[u8]) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("p.toml");
    fs::write(&path, text)?;
    fs::write(folder.path().join("list"), list)?;
    let output = run(&["check", path.to_str().context("is UTF-8")?])?;
    ensure!(output.status.code() == Some(78), "{output:?}");
    Ok(String::from_utf8(output.stderr)?)
}

#[test]
fn one_fault_is_told_once() -> Result<()> {
    let scope = |listed: &str| {
        format!("name = \"p\"\n[scope]\n{listed}\ndirections = [\"foreign-domestic\"]\n{RECIPIENT}")
    };
    for (listed, list, fault) in [
        ("domestic = [\"192.0.2.1/24\"]", "", "p.toml:3:13: `192.0.2.1/24` has bits set behind its length"),
        ("domestic_files = [\"list\"]", "nonsense\n", "list:1: `nonsense` is no prefix"),
        ("domestic_files = [\"absent\"]", "", "absent: No such file"),
        ("domestic_files = [\"list\"]", "; only comments\n", "list lists no prefix"),
    ] {
        let said = refused(scope(listed).as_bytes(), list.as_bytes())?;
        ensure!(said.contains(fault) && !said.contains("things are wrong"), "{said}");
        ensure!(
            !said.contains("the scope lists no prefix") && !said.contains("no prefix is domestic"),
            "{said}"
        );
    }
    // A list is the text of others: no terminal obeys it.
    let said = refused(scope("domestic_files = [\"list\"]").as_bytes(), b"\x1b[2J\n")?;
    ensure!(said.contains("`\\x1b[2J` is no prefix") && !said.contains('\x1b'), "{said}");
    // Where nothing is listed, that is the fault.
    let said = refused(scope("").as_bytes(), b"")?;
    ensure!(said.contains("the scope lists no prefix") && said.contains("no prefix is domestic"), "{said}");
    Ok(())
}

#[test]
fn marks_and_encodings_of_editors_are_read_or_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("p.toml");
    let text = format!(
        "\u{feff}name = \"p\"\n[scope]\ndomestic_files = [\"list\"]\ndirections = [\"foreign-domestic\"]\n{RECIPIENT}"
    );
    fs::write(&path, &text)?;
    fs::write(folder.path().join("list"), "\u{feff}203.0.113.0/24\n1.10.16.0/20 ; SBL256894\r\n")?;
    let path = path.to_str().context("is UTF-8")?;
    let said = printed(&["check", path])?;
    // The digest is that of the file as it lies there.
    let digest = printed_digest(path)?;
    ensure!(said.starts_with(&format!("ok: p, SHA-256 {digest}")) && said.contains("2 prefixes"), "{said}");

    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    for (policy, list) in [
        (utf16(&text), &b"203.0.113.0/24"[..]),
        (text.clone().into_bytes(), &utf16("\u{feff}203.0.113.0/24")),
    ] {
        let said = refused(&policy, list)?;
        ensure!(said.contains("it is text in UTF-16") && !said.contains("no prefix"), "{said}");
    }
    let said = refused(b"name = \"p\"\n# \xe9\n", b"")?;
    ensure!(said.contains("no text in UTF-8, from line 2, octet 3 on"), "{said}");
    let agent = folder.path().join("agent.toml");
    fs::write(&agent, utf16("\u{feff}interval = \"1s\""))?;
    let output = Command::new(minimizer()).args(["run", "--config"]).arg(&agent).output()?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(78) && said.contains("it is text in UTF-16"), "{said}");
    fs::write(&agent, "\u{feff}interval = \"1ms\"")?;
    let output = Command::new(minimizer()).args(["run", "--config"]).arg(&agent).output()?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(said.contains("agent.toml:1:12: `1ms`: allowed are 100ms to 60s"), "{said}");
    Ok(())
}

/// SHA-256 of a file, as another program computes it.
fn printed_digest(path: &str) -> Result<String> {
    let output = Command::new("sha256sum").arg(path).output()?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.split(' ').next().context("a digest")?.to_owned())
}

#[test]
fn times_and_moments_are_told_as_they_were_meant() -> Result<()> {
    let mandate = |until: &str| {
        format!(
            "name = \"p\"\nacknowledged = [\"every communication is collected, between domestic parties too\"]\n[mandate]\nid = \"m\"\npurpose = \"to see\"\nlegal_basis = \"law 1\"\n\
             valid_from = 2026-04-01T00:00:00Z\nvalid_until = {until}\n{RECIPIENT}"
        )
    };
    let said = refused(mandate("9999-12-31T23:59:59Z").as_bytes(), b"")?;
    ensure!(said.contains("is later than 9999-12-30T22:00:00") && !said.contains("time zone"), "{said}");
    let said = refused(mandate("9999-12-31").as_bytes(), b"")?;
    ensure!(said.contains("is a different moment in each time zone"), "{said}");
    let retention = |text: &str| format!("name = \"p\"\n{}retention = \"{text}\"\n", RECIPIENT);
    let said = refused(retention("1M").as_bytes(), b"")?;
    ensure!(said.contains("`M` would be months") && said.contains("\"1m\" if minutes are meant"), "{said}");
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("p.toml");
    for (text, words) in [
        ("1m", "May keep records for 1 minute."),
        ("1 month", "May keep records for 30 days, 10 hours, 33 minutes and 36 seconds."),
        ("90 days", "May keep records for 90 days."),
    ] {
        fs::write(&path, retention(text))?;
        let said = printed(&["explain", path.to_str().context("is UTF-8")?])?;
        ensure!(said.contains(words), "{said}");
    }
    Ok(())
}

#[test]
fn explain_prints_sentences_or_json() -> Result<()> {
    let text = printed(&["explain", "carrier-default"])?;
    ensure!(
        text.starts_with("Policy carrier-default\n") && text.contains("Payload is never read."),
        "{text}"
    );
    let text = printed(&["explain", "carrier-default", "--tunnel", "vxlan"])?;
    ensure!(text.contains("Inside of vxlan"), "{text}");
    let json: Value = serde_json::from_str(&printed(&["explain", "carrier-default", "--output", "json"])?)?;
    let source = &json["fields"][0];
    assert_eq!(source["field"], "sourceIPv4Address");
    assert_eq!(source["remains"][0]["where"][0], "kept in the kernel");
    assert_eq!(source["remains"][1]["technique"], "truncation");
    Ok(())
}

#[test]
fn diff_marks_what_is_wider_and_succeeds() -> Result<()> {
    let text = printed(&["diff", "carrier-default", "full-record"])?;
    ensure!(text.lines().any(|line| line.starts_with("+ WIDER     recipient laboratory: is new")), "{text}");
    ensure!(text.lines().any(|line| line.starts_with("- narrower  recipient operations: ")), "{text}");
    let same = printed(&["diff", "full-record", "full-record"])?;
    assert_eq!(same, "no difference in what they mean\n");
    let json: Value =
        serde_json::from_str(&printed(&["diff", "--output", "json", "full-record", "carrier-default"])?)?;
    ensure!(json.as_array().is_some_and(|all| all.iter().any(|one| one["way"] == "narrower")), "{json}");
    Ok(())
}

/// What an officer has to see before signing: the addresses, and what becomes of packets from them and to them.
#[test]
fn diff_tells_a_hole_with_its_addresses_and_both_directions() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let write = |name: &str, scope: &str| -> Result<String> {
        let path = folder.path().join(name);
        let text = format!(
            "name = \"p\"\n[scope]\n{scope}\ndirections = [\"foreign-domestic\", \"domestic-foreign\"]\n{RECIPIENT}"
        );
        fs::write(&path, text)?;
        Ok(path.display().to_string())
    };
    let before = write("before.toml", "domestic = [\"203.0.113.0/24\"]")?;
    for (name, scope) in [
        ("half.toml", "domestic = [\"203.0.113.0/25\"]"),
        ("hole.toml", "domestic = [\"203.0.113.0/24\"]\nforeign = [\"203.0.113.128/25\"]"),
        ("more.toml", "domestic = [\"203.0.113.0/24\", \"203.0.113.128/25\", \"192.0.2.0/24\"]"),
    ] {
        let said = printed(&["diff", &before, &write(name, scope)?])?;
        ensure!(said.ends_with("1 difference, 1 of them wider\n"), "{said}");
        let moved = if name == "more.toml" { "192.0.2.0/24" } else { "203.0.113.128/25" };
        ensure!(
            said.contains(&format!("1 prefix ({moved}); packets from them to foreign addresses: ")),
            "{said}"
        );
        ensure!(
            said.matches(" -> ").count() == 4 && said.contains("packets to them from domestic addresses: "),
            "{said}"
        );
    }
    Ok(())
}

/// A policy of an earlier release can be compared, also where it would be refused now.
#[test]
fn diff_compares_with_what_would_be_refused_now() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("before.toml");
    let recipient = RECIPIENT.replace("fields", "k_threshold = 10\nfields");
    fs::write(&path, format!("name = \"p\"\n{recipient}"))?;
    let path = path.to_str().context("is UTF-8")?;
    let output = run(&["diff", path, "carrier-default"])?;
    let (said, warned) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    ensure!(output.status.success() && said.contains("recipient operations: is new"), "{said}{warned}");
    ensure!(
        warned.contains("would be refused now") && warned.contains("in one interval between two drains"),
        "{warned}"
    );
    for arguments in [&["diff", "carrier-default", path][..], &["check", path], &["explain", path]] {
        assert_eq!(run(arguments)?.status.code(), Some(78), "{arguments:?}");
    }
    Ok(())
}

/// An indicator that expires while the agent runs must not keep the policy from being used.
#[test]
fn expired_indicators_and_free_files_are_cautions() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("p.toml");
    let text = format!(
        "name = \"p\"\n[selectors]\nfiles = [\"list\"]\nindicators = [\"7 2020-01-01T00:00:00Z 203.0.113.7 tcp/443\"]\n{RECIPIENT}"
    );
    fs::write(&path, text)?;
    fs::write(folder.path().join("list"), "8 - 203.0.113.8\n9 2021-01-01T00:00:00Z 203.0.113.9\n")?;
    let path = path.to_str().context("is UTF-8")?;
    for verb in ["check", "explain"] {
        let said = printed(&[verb, path])?.split_whitespace().collect::<Vec<_>>().join(" ");
        ensure!(
            said.contains("CAUTION: 2 lines of indicators expired, the last at 2021-01-01T00:00:00Z, and match nothing any \
                           more: 9 203.0.113.9/32, 7 203.0.113.7/32 tcp/443."),
            "{said}"
        );
        ensure!(said.contains("CAUTION: list has no `sha256`"), "{said}");
    }
    let said = printed(&["pin", path])?;
    ensure!(said.starts_with("pinned: list, SHA-256 "), "{said}");
    ensure!(!printed(&["check", path])?.contains("no `sha256`"), "it is pinned");
    ensure!(printed(&["pin", path])?.starts_with("as it was: list"), "nothing has changed");
    Ok(())
}

/// The threshold of one interval is that of another if somebody else chooses the interval.
#[test]
fn an_interval_that_the_policy_fixes_is_no_choice() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("p.toml");
    let text = "name = \"p\"\ninterval = \"3s\"\n[[recipients]]\nname = \"r\"\npurpose = \"to count\"\nk_threshold = 10\n\
                fields = { protocolIdentifier = \"exact\" }\n";
    fs::write(&path, text)?;
    let path = path.to_str().context("is UTF-8")?;
    let output = Command::new(minimizer())
        .args(["run", "-i", "lo", "--listen", "127.0.0.1:0", "--interval", "100ms", "--policy", path])
        .output()?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(78), "{said}");
    ensure!(said.contains("the policy p wants 3 seconds between drains, and not 100 milliseconds"), "{said}");
    let said = printed(&["explain", path])?.split_whitespace().collect::<Vec<_>>().join(" ");
    ensure!(said.contains("fewer than 10 different sources made in one interval of 3 seconds"), "{said}");
    ensure!(
        said.contains("Whoever forges 9 sources learns by the record whether there was another one."),
        "{said}"
    );
    ensure!(said.contains("At each drain, 3 seconds apart"), "{said}");
    Ok(())
}

/// Their recipients want scans, which the mitigations would hold back.
#[test]
fn shipped_policies_with_pseudonyms_are_said_to_be_probed() -> Result<()> {
    for (name, recipient) in [
        ("active-cyberdefence.toml", ""),
        ("recipient-abroad.toml", "own-soc"),
        ("recipient-abroad.toml", "partner-abroad"),
    ] {
        let said = printed(&["check", &example(name)])?;
        let warned = format!("CAUTION: {recipient}");
        let is_probed =
            |line: &str| line.starts_with(&warned) && line.contains("finds out which pseudonym is whose");
        ensure!(said.lines().any(is_probed), "{said}");
        ensure!(
            printed(&["explain", &example(name)])?.contains("- probing: whoever sends packets"),
            "{name}"
        );
    }
    let said = printed(&["check", "carrier-default"])?;
    ensure!(!said.contains("CAUTION"), "{said}");
    Ok(())
}

/// No shipped policy hands over a port that Linux gives to clients, except for laboratories.
#[test]
fn shipped_policies_keep_no_port_of_a_client() -> Result<()> {
    for name in ["active-cyberdefence.toml", "carrier-default.toml", "recipient-abroad.toml"] {
        let said = printed(&["check", &example(name)])?;
        ensure!(!said.contains("gets ports of clients"), "{said}");
        let explained = printed(&["explain", &example(name)])?;
        ensure!(explained.contains("if below 1024, else 0") && !explained.contains("49152"), "{explained}");
    }
    let said = printed(&["check", "full-record"])?;
    ensure!(
        said.contains("laboratory gets ports of clients in sourceTransportPort and destinationTransportPort"),
        "{said}"
    );
    Ok(())
}

#[test]
fn schemas_know_every_field_and_nothing_else() -> Result<()> {
    let schema: Value = serde_json::from_str(&printed(&["schema"])?)?;
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["additionalProperties"], false);
    let fields = &schema["$defs"]["recipient"]["properties"]["fields"];
    assert_eq!(fields["additionalProperties"], false);
    for field in minimizer::policy::field::Field::ALL {
        ensure!(fields["properties"][field.name()].is_object(), "{field} is missing");
    }
    let agent: Value = serde_json::from_str(&printed(&["schema", "agent"])?)?;
    ensure!(agent["properties"]["interfaces"].is_object(), "{agent}");
    Ok(())
}

#[test]
fn the_manual_has_every_policy_verb() -> Result<()> {
    let output = Command::new(minimizer()).arg("man").output()?;
    let page = String::from_utf8(output.stdout)?;
    for verb in ["CHECK", "EXPLAIN", "SCHEMA", "DIFF", "KEYGEN", "PIN", "SIGN", "VERIFY"] {
        ensure!(page.contains(&format!("MINIMIZER POLICY {verb}")), "{verb} is missing");
    }
    Ok(())
}
