//! A small world in which the sidecar's own decisions meet replicas that are slow, fail, hang or vanish. Time is paused and chance is
//! seeded: minutes pass in a moment, and the same seed gives the same figures.
//!
//! What decides is the product's code, not a copy: whom a request goes to, and what an answer says of an endpoint
//! (`pillion_proxy::balance`: balancer, breakers, panic, zones, slow start), whether an attempt may follow and after how long
//! (`pillion_api::retry`), how many may (`pillion_proxy::outbound::Budgets`), and when one goes beside another (`Quantiles::patience`). Not
//! the product's are the order of these steps, which [`sidecar`] has after `src/outbound/attempt`, and what sockets, connections and the
//! control plane do: that is for the tests with real programs, and `benches/resilience`.
//!
//! [`world`] has the replicas, [`sidecar`] the callers' sidecars and what calls through them, [`figures`] what is measured and printed.
//! Each of the other files is one thing that goes wrong. `cargo test --workspace --test integration sim:: -- --nocapture` shows all of it.

mod figures;
mod flaky;
mod hanging;
mod outage;
mod overload;
mod returning;
mod sidecar;
mod slow;
mod world;
mod zone;

/// Each scenario is run with every one of them.
const SEEDS: [u64; 5] = [1, 2, 3, 5, 8];
