//! What the sidecar counts, and how it is told: plain cells on the threads that serve, gathered about once a second.
//!
//! Nothing here is locked, formatted or looked up while a request is served. A worker counts in cells of its own
//! ([`edge`]); the main thread asks the workers for what has come together ([`report`]), adds it to the Prometheus
//! registry ([`prometheus`]) and sends it to the control plane. Whoever wants to hear of single requests is told by [`listeners`].

pub mod access_log;
pub mod detections;
pub mod edge;
pub mod exchange;
pub mod exemplars;
pub mod gather;
pub mod hops;
pub mod listeners;
pub mod log;
pub mod losses;
pub mod names;
pub mod openmetrics;
pub mod outcome;
pub mod prometheus;
pub mod repeats;
pub mod report;
pub mod stalls;
pub mod tallies;
pub mod tap;
mod told;
pub mod trace;
