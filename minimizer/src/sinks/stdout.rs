//! The standard output as a sink.

use std::sync::Arc;

use crate::delivery::queue::Queue;
use crate::delivery::waiting::Bounds;

/// Name and kind of the standard output as a sink.
pub const STANDARD_OUTPUT: &str = "stdout";

/// The queue of the standard output.
#[must_use]
pub fn queue(recipient: Option<&str>) -> Arc<Queue> {
    Arc::new(Queue::new(STANDARD_OUTPUT, recipient, STANDARD_OUTPUT, Bounds::default()))
}
