//! pillion's control plane and command line.

pub mod app;
pub mod authority;
pub mod cli;
pub mod clock;
pub mod compile;
pub mod config;
pub mod demo;
pub mod error;
pub mod explain;
pub mod history;
pub mod inject;
pub mod mesh_api;
pub mod publish;
pub mod registry;
pub mod resource;
pub mod said;
pub mod serve;
pub mod shutdown;
pub mod store;
pub mod tap;
pub mod telemetry;
pub mod token;
pub mod web;
