//! The cases: what is made ready once, and the one operation that is measured. Both ways of measuring share them, so
//! that nanoseconds and instructions are of the same thing.
//!
//! Each case owns all it needs and has a `run` that does the operation once.

pub mod balance;
pub mod chain;
pub mod identity;
pub mod route;
pub mod sniff;
pub mod telemetry;

/// One operation, ready to be repeated.
pub trait Case {
    /// What comes of it; given back so that no compiler finds the work useless.
    type Output;

    /// Does it once.
    fn run(&mut self) -> Self::Output;
}
