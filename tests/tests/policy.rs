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
fn check_warns_of_half_of_the_times() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("policy.toml");
    let warned = |fields: &str| -> Result<Option<String>> {
        let text = format!(
            "name = \"half\"\n[[recipients]]\nname = \"soc\"\npurpose = \"to test\"\n[recipients.fields]\n{fields}"
        );
        fs::write(&path, text)?;
        let said = printed(&["check", path.to_str().context("is UTF-8")?])?;
        Ok(said.lines().find(|line| line.contains("CAUTION")).map(str::to_owned))
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
        ensure!(!printed(&["check", &example(name)])?.contains("CAUTION"), "{name}");
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
    for verb in ["CHECK", "EXPLAIN", "SCHEMA", "DIFF", "KEYGEN", "SIGN", "VERIFY"] {
        ensure!(page.contains(&format!("MINIMIZER POLICY {verb}")), "{verb} is missing");
    }
    Ok(())
}
