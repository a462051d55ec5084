//! Tests that the example policies and the snippets of docs/POLICY.md are accepted.

use std::fs;
use std::path::{Path, PathBuf};

use crate::commands::config::Config;
use crate::policy::builtin::BUILT_IN;
use crate::policy::field::Field;
use crate::policy::model::Policy;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn built_in_policies_are_policies_of_their_name() {
    for built_in in BUILT_IN {
        let policy = Policy::load(built_in.name, &[]).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(policy.name, built_in.name);
    }
}

#[test]
fn the_full_record_is_full() {
    let policy = Policy::load("full-record", &[]).expect("is built in");
    let missing: Vec<_> =
        Field::ALL.iter().filter(|field| !policy.recipients[0].fields.contains_key(field)).collect();
    assert_eq!(missing, [&Field::SelectorId]);
}

#[test]
fn every_example_is_a_policy_of_its_name() {
    let entries = fs::read_dir(root().join("policies")).expect("is there");
    let paths: Vec<_> = entries.map(|entry| entry.expect("can be read").path()).collect();
    let policies: Vec<_> =
        paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect();
    assert!(policies.len() >= 4, "{policies:?}");
    for path in policies {
        let policy = Policy::load(&path.display().to_string(), &[]).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(Some(&*policy.name), path.file_stem().and_then(|stem| stem.to_str()));
    }
}

#[test]
fn the_documentation_shows_what_is_accepted() {
    let path = root().join("docs/POLICY.md");
    let text = fs::read_to_string(&path).expect("can be read");
    let mut snippets = 0;
    for snippet in text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()) {
        snippets += 1;
        if snippet.contains("interfaces = ") {
            Config::parse(snippet, &path).unwrap_or_else(|error| panic!("{error}\n{snippet}"));
            continue;
        }
        let whole = if snippet.contains("name = ") {
            snippet.to_owned()
        } else {
            let recipient =
                "[[recipients]]\nname = \"r\"\npurpose = \"x\"\nfields = { vlanId = \"exact\" }\n";
            format!("name = \"p\"\n{snippet}{recipient}")
        };
        Policy::parse(&whole, &path).unwrap_or_else(|error| panic!("{error}\n{whole}"));
    }
    assert_eq!(snippets, 4);
}
