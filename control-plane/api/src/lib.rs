//! The protocol between pillion's control plane and its sidecars, and the policy model with its pure decisions.
//!
//! Read in this order: [`wire`] (what is sent), [`name`], [`network`] and [`model`] (what it means, checked and typed), [`path`], [`route`], [`retry`], [`holds`],
//! [`filter`], [`ejection`], [`own`] and [`hash`] (what a sidecar decides from it), [`latency`], [`hops`] (where a request's time went) and [`digest`](mod@digest) (conventions both sides must share), [`codec`]
//! (messages as bytes), [`lines`] (log lines, which both write alike).
//! Both sides use the same decisions, so that the control plane can explain exactly what a sidecar will do.

pub mod codec;
pub mod digest;
pub mod ejection;
pub mod filter;
pub mod hash;
pub mod holds;
pub mod hops;
pub mod latency;
pub mod lines;
pub mod model;
pub mod name;
pub mod network;
pub mod own;
pub mod path;
pub mod retry;
pub mod route;

/// The wire protocol, generated from `proto/pillion/v1/control_plane.proto`.
#[allow(missing_docs, clippy::all, unreachable_pub)]
pub mod wire {
    include!("generated/pillion.v1.rs");
}
