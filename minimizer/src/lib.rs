//! The agent: loads the kernel program, drains what it counted, exports records, keeps the ledger.
