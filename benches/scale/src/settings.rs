//! The command line; each setting is an environment variable, too.

use std::path::PathBuf;

use clap::Parser;

/// Measures the control plane under many sidecars.
#[derive(Debug, Clone, Parser)]
pub(crate) struct Settings {
    /// The `pillion` program, release build.
    #[arg(long, env = "SCALE_PROGRAM", default_value = "target/release/pillion")]
    pub(crate) program: PathBuf,
    /// One step for each number.
    #[arg(long, env = "SCALE_SIDECARS", value_delimiter = ',', default_value = "100,300,1000,2000,5000")]
    pub(crate) sidecars: Vec<usize>,
    /// Each with a route and a policy. A whole divisor of `sidecars × subscriptions` gives all as many subscribers.
    #[arg(long, env = "SCALE_SERVICES", default_value_t = 500)]
    pub(crate) services: usize,
    /// Services that each sidecar subscribes to.
    #[arg(long, env = "SCALE_SUBSCRIPTIONS", default_value_t = 10)]
    pub(crate) subscriptions: usize,
    /// Changes of each kind.
    #[arg(long, env = "SCALE_CHANGES", default_value_t = 60)]
    pub(crate) changes: usize,
    /// Where `scale.json` and the plots go.
    #[arg(long, env = "SCALE_OUT", default_value = "target/bench")]
    pub(crate) out: PathBuf,
}
