//! From a batch to the sinks, and what became of every packet on the way.

pub mod account;
pub mod accounting;
pub mod batch;
pub mod ending;
pub mod history;
pub mod ledger;
pub mod loss;
pub mod queue;
pub mod sender;
pub mod settlement;
pub mod sink;
pub mod tally;
mod units;
pub mod waiting;
