//! What the kernel stores of a packet is what the policy leaves of it, and nothing else, for policies drawn at random.

use minimizer::kernel::features::Kernel;
use minimizer_common::outcome::Outcome;
use minimizer_common::tunnel::Tunnels;
use tests::minimum::{Frame, compare, compare_drawn};
use tests::policies;

const POLICIES: u64 = 120;
const FRAMES: usize = 300;

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn what_is_stored_is_what_the_policy_leaves() {
    let kernel = Kernel::detect();
    let mut outcomes = [0; Outcome::COUNT];
    let mut records = 0;
    for seed in 0..POLICIES {
        let compared =
            compare_drawn(kernel, seed, FRAMES).unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));
        records += compared.records.len();
        for (sum, count) in outcomes.iter_mut().zip(compared.outcomes) {
            *sum += count;
        }
    }
    for outcome in [Outcome::Counted, Outcome::OutOfScope, Outcome::NotSelected] {
        let packets = outcomes[outcome as usize];
        assert!(packets > 1000, "{}: {packets}", outcome.name());
    }
    println!("{POLICIES} policies, {records} records, outcomes {outcomes:?}");
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_policy_that_does_everything_does_it_right() {
    for tunnels in [Tunnels::NONE, Tunnels::ALL] {
        let frames = Frame::draw(7, 3000);
        compare(Kernel::detect(), policies::everything(tunnels), &frames, 7)
            .unwrap_or_else(|error| panic!("{error:#}"));
    }
}
