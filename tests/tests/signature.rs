//! Signed policies as officers and operators meet them: keys, notes, and what is refused without.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};

use anyhow::{Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tests::captures::{Captured, pcap};
use tests::command::minimizer;

const POLICY: &str = "name = \"signed\"\n[[recipients]]\nname = \"r\"\npurpose = \"to test\"\n\
                      fields = { protocolIdentifier = \"exact\", packetDeltaCount = \"exact\" }\n";

/// A folder in which commands run, with a policy, a capture of one frame, and the keys of two people.
struct Folder {
    folder: TempDir,
    keys: [String; 2],
}

impl Folder {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("policy.toml"), POLICY)?;
        let frame = Captured::whole(1_700_000_000_000_000_000, vec![0; 60]);
        fs::write(folder.path().join("capture.pcap"), pcap(&[frame]))?;
        let mut made = Self { folder, keys: Default::default() };
        for (number, name) in ["officer", "other"].into_iter().enumerate() {
            made.keys[number] = made.printed(&["policy", "keygen", name])?.trim_end().to_owned();
        }
        Ok(made)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Result<Output> {
        Ok(Command::new(minimizer()).args(arguments).current_dir(self.folder.path()).output()?)
    }

    /// Standard output of a call that must succeed.
    fn printed(&self, arguments: &[&str]) -> Result<String> {
        let output = self.run(arguments)?;
        ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Checks that verifying, and every verb that would put the policy in force, refuses it for this reason.
    fn refused(&self, key: &str, reason: &str) -> Result<()> {
        let policy = ["--policy", "policy.toml", "--require-signature", key];
        let verify = &["policy", "verify", "policy.toml", "--key", key][..];
        let replay = [&["replay", "capture.pcap"][..], &policy].concat();
        let run = [&["run", "-i", "lo", "--listen", "127.0.0.1:0"][..], &policy].concat();
        for arguments in [verify, &replay, &run] {
            let output = self.run(arguments)?;
            let said = String::from_utf8(output.stderr)?;
            ensure!(output.status.code() == Some(78) && output.stdout.is_empty(), "{arguments:?}: {said}");
            ensure!(said.contains(reason), "{arguments:?}: {said}");
        }
        Ok(())
    }
}

#[test]
fn private_keys_are_for_their_owner_and_never_overwritten() -> Result<()> {
    let folder = Folder::new()?;
    let mode = fs::metadata(folder.path("officer.key"))?.permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let key = fs::read_to_string(folder.path("officer.key"))?;
    ensure!(key.starts_with("PRIVATE+KEY+officer+"), "the key is in the file");
    ensure!(
        folder.keys[0].starts_with("officer+") && !folder.keys[0].contains("PRIVATE"),
        "{}",
        folder.keys[0]
    );
    for arguments in
        [&["policy", "keygen", "officer"][..], &["policy", "keygen", "new", "--out", "officer.key"]]
    {
        let output = folder.run(arguments)?;
        let said = String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(78) && said.contains("nothing was overwritten"), "{said}");
    }
    assert_eq!(fs::read_to_string(folder.path("officer.key"))?, key);
    folder.printed(&["policy", "keygen", "example.org/officer"])?;
    ensure!(folder.path("example.org-officer.key").exists(), "a name with a slash is a file here");
    Ok(())
}

#[test]
fn what_is_not_signed_as_required_is_refused() -> Result<()> {
    let folder = Folder::new()?;
    let [officer, other] = folder.keys.each_ref().map(String::as_str);
    folder.refused(officer, "policy.toml.sig: there is no signature of the policy")?;
    let signed = folder.printed(&["policy", "sign", "policy.toml", "--key", "officer.key"])?;
    ensure!(signed.starts_with("signed: signed, SHA-256 ") && signed.contains("policy.toml.sig"), "{signed}");
    let verified = folder.printed(&["policy", "verify", "policy.toml", "--key", officer])?;
    ensure!(
        verified.starts_with("ok: signed, SHA-256 ") && verified.ends_with("signed by officer\n"),
        "{verified}"
    );
    folder.refused(other, "not signed by other+")?;
    folder.refused("absent", "`absent` is neither a verifier key")?;
    fs::write(folder.path("policy.toml"), POLICY.replace("to test", "anything"))?;
    folder.refused(officer, "the policy was changed after it was signed")?;
    // Whoever reads the private key could sign: one that others can read is not taken.
    fs::set_permissions(folder.path("other.key"), fs::Permissions::from_mode(0o644))?;
    let output = folder.run(&["policy", "sign", "policy.toml", "--key", "other.key"])?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(78) && said.contains("chmod 600 other.key"), "{said}");
    Ok(())
}

/// What nobody signed is anybody's: it is not read as a policy, whatever it would do to a reader.
#[test]
fn a_policy_without_a_signature_is_not_parsed() -> Result<()> {
    let folder = Folder::new()?;
    let officer = folder.keys[0].as_str();
    folder.printed(&["policy", "sign", "policy.toml", "--key", "officer.key"])?;
    for octets in [&b"name = \"unfinished"[..], b"\xff\xfen\0a\0", &[b'['; 100_000]] {
        fs::write(folder.path("policy.toml"), octets)?;
        folder.refused(officer, "the policy was changed after it was signed")?;
        for arguments in [
            &["replay", "capture.pcap", "--policy", "policy.toml", "--require-signature", officer][..],
            &["policy", "verify", "policy.toml", "--key", officer],
        ] {
            let said = String::from_utf8(folder.run(arguments)?.stderr)?;
            ensure!(!said.contains("policy.toml:1:") && !said.contains("UTF-16"), "{said}");
        }
    }
    // The text that was signed is as good as before.
    fs::write(folder.path("policy.toml"), POLICY)?;
    folder.printed(&["policy", "verify", "policy.toml", "--key", officer])?;
    Ok(())
}

/// A signature covers what the policy's files say, or nothing is signed.
#[test]
fn files_without_a_digest_are_not_signed() -> Result<()> {
    let folder = Folder::new()?;
    let officer = folder.keys[0].as_str();
    let scope = "[scope]\ndomestic_files = [\"home\"]\ndirections = [\"foreign-domestic\"]\n";
    fs::write(
        folder.path("policy.toml"),
        POLICY.replace("[[recipients]]", &format!("{scope}[[recipients]]")),
    )?;
    fs::write(folder.path("home"), "203.0.113.0/24\n")?;
    let sign = ["policy", "sign", "policy.toml", "--key", "officer.key"];
    let output = folder.run(&sign)?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(78) && said.contains("names home without its `sha256`"), "{said}");
    ensure!(!folder.path("policy.toml.sig").exists(), "nothing is signed");
    folder.printed(&["policy", "pin", "policy.toml"])?;
    folder.printed(&sign)?;
    folder.printed(&["policy", "verify", "policy.toml", "--key", officer])?;
    // A hole in the domestic prefix, by whoever writes to the file.
    fs::write(folder.path("home"), "203.0.113.0/25\n")?;
    folder.refused(officer, "home is not the file that was signed off")
}

/// agent.toml chooses among the servers that the signed policy lists.
#[test]
fn records_go_only_where_the_signed_policy_says() -> Result<()> {
    let folder = Folder::new()?;
    let config = format!(
        "interfaces = [\"lo\"]\nlisten = \"127.0.0.1:0\"\npolicy = \"policy.toml\"\nrequire_signature = \"{}\"\n[[sinks]]\n\
         name = \"out\"\nrecipient = \"r\"\nipfix = {{ collector = \"192.0.2.9:4739\" }}\n",
        folder.keys[0]
    );
    fs::write(folder.path("agent.toml"), config)?;
    for (listed, reason) in [
        (
            None,
            "does not say to which servers the records of r may go: list 192.0.2.9:4739 under `destinations`",
        ),
        (
            Some("{ host = \"192.0.2.10\", port = 4739, country = \"JP\" }"),
            "does not let the records of r go to 192.0.2.9:4739; it allows 192.0.2.10:4739",
        ),
        (Some(""), "it allows no server"),
    ] {
        let destinations = listed.map_or_else(String::new, |listed| format!("destinations = [{listed}]\n"));
        fs::write(folder.path("policy.toml"), POLICY.replace("fields", &format!("{destinations}fields")))?;
        folder.printed(&["policy", "sign", "policy.toml", "--key", "officer.key"])?;
        let output = folder.run(&["run", "--config", "agent.toml"])?;
        let said = String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(78) && said.contains(reason), "{listed:?}: {said}");
    }
    Ok(())
}

/// The documents say that the tag of the program names the build and not the policy.
#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn the_tag_of_the_program_is_the_same_under_every_policy() -> Result<()> {
    let folder = Folder::new()?;
    let mut tags = Vec::new();
    for policy in ["policy.toml", "carrier-default", "full-record"] {
        folder.printed(&["replay", "capture.pcap", "--policy", policy, "--ledger", "ledger"])?;
        let ledger: Value = serde_json::from_str(&fs::read_to_string(folder.path("ledger"))?)?;
        tags.push((ledger["policy"]["sha256"].clone(), ledger["program_tag"].clone()));
    }
    ensure!(tags.windows(2).all(|pair| pair[0].1 == pair[1].1 && pair[0].0 != pair[1].0), "{tags:?}");
    Ok(())
}

/// Whoever edits the command line or agent.toml does not choose whether a signature is required.
#[test]
#[cfg_attr(without_kernel, ignore = "needs root for a namespace of its own: cargo xtask test")]
fn the_host_requires_a_signature_whatever_the_command_line_says() -> Result<()> {
    let folder = Folder::new()?;
    let [officer, other] = folder.keys.each_ref().map(String::as_str);
    let program = minimizer();
    let here = |change: &str, arguments: &str| -> Result<(Option<i32>, String)> {
        let script = format!(
            "mount -t tmpfs tmpfs /etc && mkdir /etc/minimizer && echo '{officer}' >/etc/minimizer/require-signature && \
             {change} exec {} {arguments}",
            program.display()
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
        let output = command.current_dir(folder.folder.path()).output()?;
        Ok((output.status.code(), String::from_utf8(output.stderr)?))
    };
    let replay = "replay capture.pcap --policy policy.toml";
    let another = format!("{replay} --require-signature {other}");
    for (change, arguments, reason) in [
        ("", replay, "a signature is required"),
        ("", "replay capture.pcap", "carrier-default is built in and nobody signed it"),
        ("", &another, "requires the signature of officer, and here that of other is required"),
        ("chmod g+w /etc/minimizer/require-signature;", replay, "others than root can change it"),
        ("chown 1 /etc/minimizer;", replay, "others than root can change it"),
    ] {
        let (code, said) = here(change, arguments)?;
        ensure!(code == Some(78) && said.contains(reason), "{change} {arguments}: {said}");
    }
    folder.printed(&["policy", "sign", "policy.toml", "--key", "officer.key"])?;
    let (code, said) = here("", replay)?;
    ensure!(code == Some(0), "{said}");
    Ok(())
}

#[test]
fn nothing_is_added_to_what_was_signed() -> Result<()> {
    let folder = Folder::new()?;
    let required = ["replay", "capture.pcap", "--require-signature", &folder.keys[0]];
    for (arguments, reason) in [
        (&[][..], "the policy carrier-default is built in and nobody signed it"),
        (&["--policy", "policy.toml", "--tunnel", "vxlan"], "--tunnel vxlan would widen"),
    ] {
        let output = folder.run(&[&required[..], arguments].concat())?;
        let said = String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(78) && said.contains(reason), "{said}");
    }
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_signed_policy_is_put_in_force() -> Result<()> {
    let folder = Folder::new()?;
    folder.printed(&["policy", "sign", "policy.toml", "--key", "officer.key"])?;
    fs::write(folder.path("officer.pub"), format!("{}\n", folder.keys[0]))?;
    for key in [&*folder.keys[0], "officer.pub"] {
        let replay = ["replay", "capture.pcap", "--policy", "policy.toml", "--ledger", "ledger"];
        folder.printed(&[&replay[..], &["--require-signature", key]].concat())?;
        let text = fs::read_to_string(folder.path("ledger"))?;
        ensure!(text.starts_with("{\n  \"policy\": {\n    \"name\": \"signed\","), "{text}");
        let ledger: Value = serde_json::from_str(&text)?;
        ensure!(ledger["program_tag"].as_str().is_some_and(|tag| tag.len() == 16), "{text}");
        ensure!(ledger["object_sha256"].as_str().is_some_and(|digest| digest.len() == 64), "{text}");
        assert_eq!(ledger["interfaces"]["replay"]["seen"], 1, "{text}");
    }
    Ok(())
}
