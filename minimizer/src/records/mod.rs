//! Records: from the slots of a generation to what one recipient gets.

pub mod drain;
pub mod fields;
pub mod keys;
pub mod merge;
pub mod order;
pub mod packed;
pub mod prefix_preserving;
pub mod record;
pub mod shown;
pub mod terms;
pub mod view;
