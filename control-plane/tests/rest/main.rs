//! The REST API over a real loopback listener: what it does, and each way in which it refuses.

mod changes;
mod refusals;
mod support;
mod watching;
