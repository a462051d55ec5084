//! What a running agent says about itself: the report behind `/status`, as text, and read back from a running agent.

mod ask;
mod basic;
mod course;
mod ledger;
mod policy;
mod report;
mod text;

pub use ask::{StatusError, TLS_IS_SPOKEN, ask};
pub use basic::BasicReport;
pub use course::{Course, InterfaceCourse, InterfaceRates};
pub use ledger::{CountsReport, InterfaceLedger, LedgerReport, OutcomePackets};
pub use policy::PolicyReport;
pub use report::{DrainReport, InterfaceReport, Report, TableReport};
pub(crate) use text::span;
