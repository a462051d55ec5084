//! What the agent tells while it runs: snapshots, metrics, status, the page, the ledger file.

pub mod counts;
pub mod drains;
pub mod http;
pub mod ledger_file;
pub mod metrics;
mod page;
pub mod snapshot;
pub mod status;
