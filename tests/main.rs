//! pillion's integration tests: the real programs, as processes, on loopback and on free ports.

mod support;

mod bad_input;
mod breaker;
mod chaos;
mod demo;
mod drain;
mod floors;
mod forward_proxy;
mod grpc;
mod http;
mod metrics;
mod mtls;
mod reference;
mod tcp;
mod websocket;
