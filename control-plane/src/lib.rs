//! pillion's control plane and command line.

pub mod compile;
pub mod resource;
pub mod store;
