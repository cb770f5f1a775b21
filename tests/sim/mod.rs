//! A small world in which the sidecar's own balancer, breaker and retries meet replicas that are slow, fail or vanish. Time is
//! paused and chance is seeded: minutes pass in a moment, and the same seed gives the same figures.
//!
//! [`world`] has the replicas, [`sidecar`] the callers' sidecars and what calls through them, [`figures`] what is measured and printed.
//! Each of the other files is one thing that goes wrong. `cargo test --workspace --test integration sim:: -- --nocapture` shows all of it.

mod figures;
mod flaky;
mod outage;
mod sidecar;
mod slow;
mod world;
mod zone;

/// Each scenario is run with every one of them.
const SEEDS: [u64; 5] = [1, 2, 3, 5, 8];
