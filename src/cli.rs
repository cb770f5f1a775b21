//! The command line of `pillion-proxy`.

mod ready;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::{
    app,
    config::{Config, check, raw::Raw},
    telemetry::log,
};

/// Exit code for settings that are wrong (`EX_CONFIG` of sysexits).
const BAD_CONFIG: u8 = 78;
/// Exit code for everything else that keeps it from running.
const FAILED: u8 = 1;

/// The pillion sidecar: mutual TLS, balancing and circuit breaking for one workload.
///
/// Every setting can be given as a flag, in the environment, or in a YAML file under the flag's name in camelCase.
#[derive(Debug, Parser)]
#[command(name = "pillion-proxy", version, args_conflicts_with_subcommands = false)]
struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Settings in a YAML file; flags and the environment win over it
    #[arg(long, env = "PILLION_CONFIG", value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Raw,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Check the settings, report every fault, and do nothing else
    CheckConfig,
    /// Print the settings in force as YAML, without secrets
    PrintConfig,
    /// Ask the sidecar on this host whether it takes connections; fail, with the reason, if it does not
    Ready(ready::Ready),
}

/// Does what the command line says.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    if let Some(Verb::Ready(ready)) = &cli.verb {
        return match ready::run(ready, cli.settings.admin_listen.as_deref()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(reason) => {
                complain(&[reason]);
                ExitCode::from(FAILED)
            }
        };
    }
    let file = cli.config.as_deref();
    let shown = |config: &Config| print_config(config);
    match (check::load(cli.settings, file, &host_name()), cli.verb) {
        (Err(faults), _) => {
            complain(&faults.0);
            ExitCode::from(BAD_CONFIG)
        }
        (Ok(_), Some(Verb::CheckConfig)) => {
            say("the settings are valid");
            ExitCode::SUCCESS
        }
        (Ok(config), Some(Verb::PrintConfig)) => {
            say(shown(&config).trim_end());
            ExitCode::SUCCESS
        }
        (Ok(config), _) => {
            let started = log::start(&config.log_level, config.log_format);
            let yaml = shown(&config);
            match started.and_then(|()| app::run(config, yaml)) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    complain(&error.lines().map(str::to_owned).collect::<Vec<_>>());
                    ExitCode::from(FAILED)
                }
            }
        }
    }
}

fn print_config(config: &Config) -> String {
    Raw::from(config).to_yaml()
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .unwrap_or_else(|_| "workload".into())
}

#[expect(clippy::print_stdout, reason = "the answer to a command")]
fn say(text: &str) {
    println!("{text}");
}

#[expect(clippy::print_stderr, reason = "errors before there is a log")]
fn complain(faults: &[String]) {
    for fault in faults {
        eprintln!("pillion-proxy: {fault}");
    }
}
