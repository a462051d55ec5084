//! What the fuzzers check, on generated frames and on everything they ever found.

use std::fs;
use std::path::Path;

use minimizer_common::tunnel::Tunnels;
use tests::fuzz::{check_kernel, check_walk, input};
use tests::packets::{Generator, mutations};

const PACKETS: usize = 300;

/// Calls `check` with generated frames and mutations of them, without tunnels and with all.
fn for_generated_frames(check: impl Fn(&[u8])) {
    let mut generator = Generator::new(51);
    for _ in 0..PACKETS {
        let packet = generator.packet();
        for frame in mutations(&packet, generator.random()).into_iter().chain([packet.octets.clone()]) {
            for tunnels in [Tunnels::NONE, Tunnels::ALL] {
                check(&input(tunnels, &frame));
            }
        }
    }
}

/// Calls `check` with each finding. A finding is a file, named after what was wrong.
fn for_findings(check: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
    for file in fs::read_dir(folder).expect("the folder is there") {
        let path = file.expect("is readable").path();
        println!("{}", path.display());
        check(&fs::read(&path).expect("is readable"));
    }
}

#[test]
fn generated_frames_hold_on_the_host() {
    for_generated_frames(check_walk);
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn generated_frames_hold_in_the_kernel() {
    for_generated_frames(check_kernel);
}

#[test]
fn findings_of_the_fuzzers_stay_fixed_on_the_host() {
    for_findings(check_walk);
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn findings_of_the_fuzzers_stay_fixed_in_the_kernel() {
    for_findings(check_kernel);
}
