//! What the agent says about itself: snapshots, metrics, status, the page, the ledger file.

pub mod access;
pub mod drains;
pub mod http;
pub mod ledger_file;
pub mod metrics;
mod page;
pub mod snapshot;
pub mod status;
