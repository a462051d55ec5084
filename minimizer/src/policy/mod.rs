//! A policy, from its text to what the kernel enforces.

pub mod builtin;
mod cautions;
mod check;
pub mod class;
pub mod classes;
pub mod compile;
pub mod diff;
pub mod embedded;
pub mod explain;
pub mod field;
pub mod file;
pub mod indicators;
pub mod interval;
pub mod join;
pub mod joins;
pub mod mandate;
pub mod model;
pub mod pins;
pub mod prefixes;
pub mod probing;
pub mod signature;
pub mod signed;
pub mod space;
pub mod special;
pub mod tables;
pub mod transform;
pub mod words;
