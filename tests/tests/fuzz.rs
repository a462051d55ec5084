//! What the fuzzers check, on generated frames and on everything they ever found.

use std::fs;
use std::path::Path;

use minimizer_common::tunnel::Tunnels;
use tests::fuzz::{check_kernel, check_walk, input};
use tests::packets::{Generator, mutations};
use tests::privilege::can_use_kernel;

const PACKETS: usize = 300;

#[test]
fn generated_frames_hold() {
    let in_kernel = can_use_kernel();
    let mut generator = Generator::new(51);
    for _ in 0..PACKETS {
        let packet = generator.packet();
        for frame in mutations(&packet, generator.random()).into_iter().chain([packet.octets.clone()]) {
            for tunnels in [Tunnels::NONE, Tunnels::ALL] {
                let octets = input(tunnels, &frame);
                check_walk(&octets);
                if in_kernel {
                    check_kernel(&octets);
                }
            }
        }
    }
}

/// A file for each finding, called after what was wrong.
#[test]
fn findings_of_the_fuzzers_stay_fixed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
    let in_kernel = can_use_kernel();
    for file in fs::read_dir(folder).expect("the folder is there") {
        let path = file.expect("is readable").path();
        println!("{}", path.display());
        let octets = fs::read(&path).expect("is readable");
        check_walk(&octets);
        if in_kernel {
            check_kernel(&octets);
        }
    }
}
