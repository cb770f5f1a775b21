//! pillion's integration tests: the real programs, as processes, on loopback and on free ports.

mod support;

mod bad_input;
mod breaker;
mod cancellation;
mod chaos;
mod compose;
mod demo;
mod dns;
mod drain;
mod egress;
mod exact;
mod floors;
mod forward_proxy;
mod framing;
mod grpc;
mod http;
mod http2_abuse;
mod identity;
mod inject;
mod keep_alive;
mod limits;
mod loops;
mod metrics;
mod mtls;
mod netns;
mod redirect;
mod reference;
mod resets;
mod resolve;
mod rolling;
mod run;
mod streams;
mod tcp;
mod timeouts;
mod websocket;
