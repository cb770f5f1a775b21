//! The REST API over a real loopback listener: what it does, and each way in which it refuses.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod addresses;
mod changes;
mod refusals;
mod support;
mod tapping;
mod watching;
