//! The standard output as a sink.

use std::sync::Arc;

use crate::delivery::queue::{Bounds, Lane};

/// Name and kind of the standard output as a sink.
pub const STANDARD_OUTPUT: &str = "stdout";

/// The lane of the standard output.
#[must_use]
pub fn lane(recipient: Option<&str>) -> Arc<Lane> {
    Arc::new(Lane::new(STANDARD_OUTPUT, recipient, STANDARD_OUTPUT, Bounds::default()))
}
