//! Which sources a threshold counts: those that nobody can make at will, as far as the policy says so.

use std::path::Path;

use minimizer_common::protocol::UDP;
use minimizer_common::tuple::{Tags, Tuple};

use super::definition::minimized;
use super::view;
use crate::policy::model::Policy;
use crate::records::record::Record;

/// A policy with a threshold of ten, whose domestic prefixes are those of [`super::classes`].
fn policy(counts: &str, others: &str) -> Policy {
    let text = format!(
        "name = \"p\"\ninterval = \"10s\"\n[scope]\ndomestic = [\"10.0.0.0/8\", \"2001:db8::/32\"]\n\
         foreign = [\"10.9.0.0/16\"]\ndirections = [\"foreign-domestic\", \"domestic-foreign\"]\n\
         [[recipients]]\nname = \"statistics\"\npurpose = \"to count\"\nk_threshold = 10\nk_counts = \"{counts}\"\n\
         fields = {{ protocolIdentifier = \"exact\", packetDeltaCount = \"log2\" }}\n{others}"
    );
    Policy::parse(&text, Path::new("p.toml")).unwrap_or_else(|error| panic!("{error}"))
}

fn ipv4(source: [u8; 4]) -> Record {
    let octets = [source, [203, 0, 113, 1]].concat();
    let addresses = [u64::from_ne_bytes(octets.try_into().expect("eight")), 0, 0, 0];
    record(Tuple::new(addresses, (1, 53), Tags::NONE, UDP, 0))
}

fn ipv6(network: u16, host: u16) -> Record {
    let source = [0x2001, 0xdb8, 0, network, 0, 0, 0, host].map(u16::to_be);
    let words: Vec<_> = source
        .chunks_exact(4)
        .map(|words| words.iter().rev().fold(0_u64, |all, word| all << 16 | u64::from(*word)))
        .collect();
    record(Tuple::new([words[0], words[1], 1, 1], (1, 53), Tags::NONE.with_ipv6(), UDP, 0))
}

fn record(tuple: Tuple) -> Record {
    Record { tuple, packets: 1, octets: 60, ..super::super::threshold::NO_FLOW }
}

/// How many records of these packets the first recipient gets.
fn records(policy: &Policy, packets: &[Record]) -> usize {
    let collected = policy.collected().fields;
    let stored: Vec<_> = packets.iter().map(|packet| minimized(&collected, packet, None)).collect();
    view(&policy.recipients[0], &collected, 1).of(&stored).records.len()
}

#[test]
fn hosts_of_one_network_are_one_source() {
    let others = [
        "",
        "[[recipients]]\nname = \"soc\"\npurpose = \"to look\"\nfields = { sourceIPv6Address = \"exact\" }\n",
    ];
    for others in others {
        let policy = policy("all", others);
        let one_network: Vec<_> = (0..200).map(|host| ipv6(1, host)).collect();
        assert_eq!(records(&policy, &one_network), 0, "a host forges the last 64 bits at will");
        let ten_networks: Vec<_> = (0..10).map(|network| ipv6(network, 1)).collect();
        assert_eq!(records(&policy, &ten_networks), 1);
        assert_eq!(records(&policy, &ten_networks[1..]), 0);
    }
}

/// Nine sources that somebody forged and one that is real: a record says that the tenth was there.
#[test]
fn forged_sources_do_not_count_where_only_domestic_ones_do() {
    let forged = (1..10).map(|host| ipv4([198, 51, 100, host]));
    let packets: Vec<_> = forged.chain([ipv4([10, 0, 0, 1])]).collect();
    let domestic: Vec<_> = (1..11).map(|host| ipv4([10, 0, 0, host])).collect();
    let foreign: Vec<_> = (1..101).map(|host| ipv4([10, 9, 0, host])).collect();
    let soc = |transform: &str| {
        format!(
            "[[recipients]]\nname = \"soc\"\npurpose = \"to look\"\nfields = {{ sourceIPv4Address = {transform} }}\n"
        )
    };
    for others in [
        String::new(),
        soc("\"exact\""),
        soc("\"pseudonym\""),
        soc("{ foreign = \"exact\", domestic = \"pseudonym\" }"),
    ] {
        let [all, only_domestic] = ["all", "domestic"].map(|counts| policy(counts, &others));
        assert_eq!(records(&all, &packets), 1, "`explain` says that it does");
        assert_eq!(records(&only_domestic, &packets), 0, "{others}");
        assert_eq!(records(&only_domestic, &domestic), 1, "{others}");
        assert_eq!(records(&only_domestic, &domestic[1..]), 0, "{others}");
        assert_eq!(records(&only_domestic, &foreign), 0, "{others}");
    }
}

/// Nine sources that somebody forged and one that is real, with noise at the threshold: in one interval the record says little.
#[test]
fn noise_hides_one_source_more_or_less() {
    let mut noisy = policy("all", "");
    noisy.recipients[0].mitigations.k_noise = 9;
    let released = |sources: u8| {
        let packets: Vec<_> = (0..sources).map(|host| ipv4([198, 51, 100, host])).collect();
        (0..600).map(|_| records(&noisy, &packets)).sum::<usize>()
    };
    assert_eq!(released(9), 0, "the threshold stays what it is");
    assert_eq!(released(19), 600, "and is never more than the noise above");
    for sources in 10..19 {
        let [expected, found] = [60 * (usize::from(sources) - 9), released(sources)];
        assert!(found.abs_diff(expected) < 60, "{sources} sources: {found} and not {expected}");
    }
}
