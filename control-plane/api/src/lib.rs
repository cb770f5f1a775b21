//! The protocol between pillion's control plane and its sidecars, and the policy model with its pure decisions.
//!
//! Read in this order: [`wire`] (what is sent), [`model`] (what it means, checked and typed), [`route`] and
//! [`breaker`] (what a sidecar decides from it). Both sides use the same decisions, so that the control plane can
//! explain exactly what a sidecar will do.

/// The wire protocol, generated from `proto/pillion/v1/control_plane.proto`.
#[allow(missing_docs, clippy::all, unreachable_pub)]
pub mod wire {
    include!("generated/pillion.v1.rs");
}
