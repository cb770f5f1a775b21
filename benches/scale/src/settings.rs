//! The command line; each setting is an environment variable, too.

use std::{path::PathBuf, str::FromStr};

use clap::{Args, Parser, Subcommand};

/// Measures the control plane under many sidecars.
#[derive(Debug, Clone, Parser)]
pub(crate) struct Settings {
    /// The `pillion` program, release build.
    #[arg(long, env = "SCALE_PROGRAM", default_value = "target/release/pillion", global = true)]
    pub(crate) program: PathBuf,
    /// One step for each: so many sidecars, or `5000x2500`, so many sidecars and another number of services.
    #[arg(
        long,
        env = "SCALE_SIDECARS",
        value_delimiter = ',',
        default_value = "100,300,1000,2000,5000,5000x2500"
    )]
    pub(crate) sidecars: Vec<Size>,
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
    #[command(subcommand)]
    pub(crate) instead: Option<Instead>,
}

/// What else there is to do.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Instead {
    /// Runs a busy mesh of many services and looks at the control plane's memory, while a command runs or for some time.
    ///
    /// The command finds the dashboard in PILLION_DASHBOARD_URL and the name of the token's file in PILLION_TOKEN_FILE.
    Busy(Busy),
}

/// How large, and how long.
#[derive(Debug, Clone, Args)]
pub(crate) struct Busy {
    /// One workload each.
    #[arg(long, env = "BUSY_SERVICES", default_value_t = 200)]
    pub(crate) services: usize,
    /// Calls between them.
    #[arg(long, env = "BUSY_EDGES", default_value_t = 1000)]
    pub(crate) edges: usize,
    /// Without a command: for so long. Half an hour fills what is kept.
    #[arg(long, env = "BUSY_MINUTES", default_value_t = 31)]
    pub(crate) minutes: u64,
    /// Runs while the mesh does.
    #[arg(last = true)]
    pub(crate) command: Vec<String>,
}

/// The size of a mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) sidecars: usize,
    /// `None`: as in most steps.
    pub(crate) services: Option<usize>,
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (sidecars, services) =
            text.split_once('x').map_or((text, None), |(one, other)| (one, Some(other)));
        let number = |text: &str| match text.parse() {
            Ok(0) | Err(_) => Err(format!("{text:?} is not a number from 1")),
            Ok(number) => Ok(number),
        };
        Ok(Self { sidecars: number(sidecars)?, services: services.map(number).transpose()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_one_number_or_two() {
        assert_eq!("100".parse(), Ok(Size { sidecars: 100, services: None }));
        assert_eq!("5000x2500".parse(), Ok(Size { sidecars: 5000, services: Some(2500) }));
        for wrong in ["", "x", "0", "5x", "a"] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong:?}");
        }
    }
}
