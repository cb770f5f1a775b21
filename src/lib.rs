//! The pillion sidecar.
//!
//! The way of one request, file by file: `main` → [`app`] → [`net::listen`] (accept) → [`tls::accept`] (inbound) →
//! [`net::sniff`] (which protocol) → [`http::serve`] → [`middleware`] (the chain, one page) → [`inbound`] or
//! [`outbound`] (the tail) → [`balance`] → [`tls::connect`] → [`http::client`], and back up the same list.
//!
//! A worker thread owns its connections from accept to close, and everything it needs to serve them: nothing of that
//! is shared or locked. The main thread runs the rest: [`control`], [`admin`], [`dns`], gathering [`telemetry`], and sending
//! spans ([`otlp`]).

pub mod admin;
pub mod app;
pub mod balance;
pub mod cli;
pub mod config;
pub mod control;
pub mod dns;
pub mod drain;
pub mod error;
pub mod http;
pub mod inbound;
pub mod middleware;
pub mod net;
pub mod otlp;
pub mod outbound;
pub mod redirect;
pub mod run;
pub mod task;
pub mod telemetry;
pub mod tls;
