//! The server as sidecars and people see it: real TLS, real gRPC, real HTTP, on loopback.

mod destinations;
mod mesh_pages;
mod slow_store;
mod streams;
mod support;
mod tapping;
mod trust;
