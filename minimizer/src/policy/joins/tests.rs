//! Verdicts on pairs of recipients, and what they rest on.

use std::path::Path;

use super::Verdict;
use crate::policy::check::check_beyond;
use crate::policy::model::Policy;

const SCOPE: &str =
    "[scope]\ndomestic = [\"203.0.113.0/24\"]\ndirections = [\"foreign-domestic\", \"domestic-foreign\"]\n";

/// A policy with recipients `a`, `b` and so on that have these fields and what else is written before them.
fn policy(unlinkable: &str, recipients: &[&str]) -> String {
    let recipients = ["a", "b", "c"].iter().zip(recipients).map(|(name, keys)| {
        let (before, fields) = keys.split_once('|').unwrap_or(("", keys));
        format!(
            "[[recipients]]\nname = \"{name}\"\npurpose = \"x\"\n{before}\n[recipients.fields]\n{fields}\n"
        )
    });
    format!("name = \"p\"\n{unlinkable}\n{SCOPE}{}", recipients.collect::<String>())
}

fn parse(text: &str) -> Policy {
    Policy::parse(text, Path::new("p.toml")).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// The policy, also where it needs words that are missing.
fn lenient(text: &str) -> Policy {
    let checked = check_beyond(text, "p.toml".to_owned(), Path::new(""));
    checked.unwrap_or_else(|findings| panic!("{findings}\n{text}")).0
}

fn verdict(one: &str, other: &str) -> Verdict {
    let pairs = lenient(&policy("", &[one, other])).pairs();
    let [pair] = &pairs[..] else { panic!("{pairs:?}") };
    assert_eq!(pair.remedy.is_empty(), pair.verdict == Verdict::NotJoinable, "{pair}");
    // It is the same from both ends.
    assert_eq!(lenient(&policy("", &[other, one])).pairs()[0].verdict, pair.verdict);
    pair.verdict
}

const BY_CLASS: &str = "sourceIPv4Address = { foreign = \"exact\", domestic = \"pseudonym\" }\n\
    destinationIPv4Address = { foreign = \"exact\", domestic = \"pseudonym\" }\n";
const ALL_PSEUDONYMS: &str = "sourceIPv4Address = \"pseudonym\"\ndestinationIPv4Address = \"pseudonym\"\nprotocolIdentifier = \"exact\"\n";

#[test]
fn what_both_are_told_decides() {
    let truncated = "sourceIPv4Address = { foreign = { truncate = 24 }, domestic = \"pseudonym\" }\n";
    assert_eq!(verdict(BY_CLASS, truncated), Verdict::Joinable);
    assert_eq!(verdict(BY_CLASS, "sourceIPv4Address = { truncate = 8 }"), Verdict::NotJoinable);
    let preserving = "sourceIPv4Address = \"prefix-preserving\"\n";
    assert_eq!(verdict(preserving, BY_CLASS), Verdict::Joinable);
    let exact = "protocolIdentifier = \"exact\"\noctetDeltaCount = \"exact\"";
    let rounded = "protocolIdentifier = \"exact\"\noctetDeltaCount = \"log2\"";
    assert_eq!(verdict(exact, exact), Verdict::JoinableByCounts);
    assert_eq!(verdict(exact, rounded), Verdict::NotJoinable);
    let fine = "flowStartMilliseconds = { coarsen = \"10ms\" }";
    let hour = "flowStartMilliseconds = { coarsen = \"1h\" }";
    assert_eq!(verdict(fine, fine), Verdict::JoinableByCounts);
    assert_eq!(verdict(fine, hour), Verdict::NotJoinable);
    let port = "sourceTransportPort = \"exact\"\nprotocolIdentifier = \"exact\"";
    let classes = "sourceTransportPort = \"classes\"\nprotocolIdentifier = \"exact\"";
    assert_eq!(verdict(port, port), Verdict::Joinable);
    assert_eq!(verdict(port, classes), Verdict::NotJoinable);
}

/// Whoever has records in the same batches as somebody in the other's files is the same one.
#[test]
fn recipients_who_tell_the_same_parties_apart_can_be_joined() {
    let domestic = |field: &str, transform: &str| {
        format!("{field} = {{ foreign = \"omit\", domestic = {transform} }}\nprotocolIdentifier = \"exact\"")
    };
    let source = |transform: &str| domestic("sourceIPv4Address", transform);
    let pseudonym = source("\"pseudonym\"");
    for (other, found) in [
        (pseudonym.clone(), Verdict::JoinableByCounts),
        (source("\"exact\""), Verdict::JoinableByCounts),
        (source("\"prefix-preserving\""), Verdict::JoinableByCounts),
        (source("{ truncate = 25 }"), Verdict::JoinableByCounts),
        (source("{ truncate = 24 }"), Verdict::NotJoinable),
        // The other way of the same party.
        (domestic("destinationIPv4Address", "\"pseudonym\""), Verdict::JoinableByCounts),
        // Other parties.
        (domestic("sourceIPv6Address", "\"pseudonym\""), Verdict::NotJoinable),
        (domestic("sourceIPv6Address", "{ truncate = 64 }"), Verdict::NotJoinable),
        (
            "sourceIPv4Address = { foreign = \"pseudonym\", domestic = \"omit\" }".to_owned(),
            Verdict::NotJoinable,
        ),
        ("protocolIdentifier = \"exact\"".to_owned(), Verdict::NotJoinable),
    ] {
        assert_eq!(verdict(&pseudonym, &other), found, "{other}");
    }
    let both = lenient(&policy("", &[&pseudonym, &pseudonym])).pairs();
    assert_eq!(
        both[0].to_string(),
        "a and b: joinable by counts: both tell the same parties apart, under whatever names, and over an epoch find them by the \
         batches in which each has records; not joinable if one of them got no sourceIPv4Address"
    );
    // A remedy against counts would leave the parties.
    let counts = format!("{pseudonym}\noctetDeltaCount = \"exact\"");
    assert_eq!(
        lenient(&policy("", &[&counts, &counts])).pairs()[0].remedy,
        "not joinable if one of them got none of octetDeltaCount and sourceIPv4Address"
    );
}

#[test]
fn a_record_of_many_sources_has_no_twin_of_one() {
    let services = "k_threshold = 10|destinationTransportPort = \"exact\"\nprotocolIdentifier = \"exact\"";
    let single = "sourceIPv4Address = \"exact\"\nsourceIPv6Address = \"pseudonym\"\ndestinationTransportPort = \"exact\"\n\
                  protocolIdentifier = \"exact\"";
    assert_eq!(verdict(services, single), Verdict::NotJoinable);
    // Ten sources can be in one prefix.
    let prefix = single.replace("\"exact\"\nsourceIPv6", "{ truncate = 24 }\nsourceIPv6");
    assert_eq!(verdict(services, &prefix), Verdict::Joinable);
}

#[test]
fn a_remedy_helps() {
    let fields = format!("{BY_CLASS}protocolIdentifier = \"exact\"\noctetDeltaCount = \"exact\"");
    let pair = &parse(&policy("", &[&fields, &fields])).pairs()[0];
    assert_eq!(
        pair.to_string(),
        "a and b: joinable: both are told sourceIPv4Address and destinationIPv4Address (32 bits) and protocolIdentifier (3 bits); \
         not joinable if one of them got none of sourceIPv4Address, destinationIPv4Address and octetDeltaCount"
    );
    assert_eq!(verdict(&fields, "protocolIdentifier = \"exact\""), Verdict::NotJoinable);
}

#[test]
fn what_must_not_be_joined_is_refused_where_it_can_be() {
    let refused = |unlinkable: &str, recipients: &[&str]| {
        let text = policy(unlinkable, recipients);
        Policy::parse(&text, Path::new("p.toml")).expect_err(&text).to_string()
    };
    let said = refused("unlinkable = [[\"b\", \"a\"]]", &[BY_CLASS, BY_CLASS]);
    assert!(said.contains("p.toml:2:15: b and a: joinable: both are told sourceIPv4Address"), "{said}");
    for (wrong, why) in [
        ("[\"a\", \"c\"]", "`c` is no recipient"),
        ("[\"a\", \"a\"]", "two recipients"),
        ("[\"a\"]", "write pairs"),
        ("[\"a\", \"b\", \"b\"]", "write pairs"),
    ] {
        let said = refused(&format!("unlinkable = [{wrong}]"), &[BY_CLASS, ALL_PSEUDONYMS]);
        assert!(said.contains(why), "{said}");
    }
    let said = refused("unlinkable = [[\"a\", \"b\"]]", &[ALL_PSEUDONYMS, ALL_PSEUDONYMS]);
    assert!(said.contains("both tell the same parties apart"), "{said}");
    let protocols = "protocolIdentifier = \"exact\"";
    let fine = parse(&policy("unlinkable = [[\"a\", \"b\"]]", &[ALL_PSEUDONYMS, protocols, BY_CLASS]));
    assert_eq!(fine.unlinkable, [["a".to_owned(), "b".to_owned()]]);
    assert_eq!(fine.pairs().len(), 3);
}
