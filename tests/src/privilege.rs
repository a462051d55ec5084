//! Whether a test that needs the kernel can run here, and what happens when it cannot.

use std::env;

use minimizer::kernel::program::OBJECT;

/// Set to 1 where a test that cannot run is a failure.
const REQUIRED: &str = "MINIMIZER_REQUIRE_BPF";

/// Whether a test can load programs and make networks. When not, it says so on stderr and the test
/// is to return.
///
/// # Panics
/// When the test cannot run and `MINIMIZER_REQUIRE_BPF` is 1.
#[must_use]
pub fn can_use_kernel() -> bool {
    let reason = if !rustix::process::geteuid().is_root() {
        "it takes root to load programs and to make network namespaces"
    } else if OBJECT.is_empty() {
        "this build has no kernel program: run `cargo xtask setup` and build again"
    } else {
        return true;
    };
    assert!(env::var_os(REQUIRED).is_none_or(|value| value != "1"), "{REQUIRED} is 1, but {reason}");
    eprintln!("skipped: {reason}");
    false
}
