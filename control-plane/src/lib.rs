//! pillion's control plane and command line.

pub mod compile;
pub mod demo;
pub mod store;
