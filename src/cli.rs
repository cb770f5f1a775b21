//! The command line of `pillion-proxy`.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::{
    app,
    config::{Config, check, raw::Raw},
    redirect::{self, Failure},
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
    /// Lead this network namespace's traffic to its sidecar, by rules of nftables or iptables
    ///
    /// TCP that processes here open goes to the sidecar's outbound port, TCP that arrives to its inbound port. The sidecar's own
    /// connections (it runs as a user of its own), loopback and UDP are left alone. Needs CAP_NET_ADMIN, and none of the sidecar's
    /// settings. To do it again replaces the rules.
    Redirect(Box<redirect::settings::Raw>),
}

/// Does what the command line says.
pub fn run() -> ExitCode {
    let Cli { verb, config, settings } = Cli::parse();
    let configured =
        |act: fn(Config) -> ExitCode| match check::load(settings, config.as_deref(), &host_name()) {
            Ok(config) => act(config),
            Err(faults) => {
                complain(&faults.0);
                ExitCode::from(BAD_CONFIG)
            }
        };
    match verb {
        Some(Verb::Redirect(raw)) => redirect(*raw),
        Some(Verb::CheckConfig) => configured(|_| {
            say("the settings are valid");
            ExitCode::SUCCESS
        }),
        Some(Verb::PrintConfig) => configured(|config| {
            say(print_config(&config).trim_end());
            ExitCode::SUCCESS
        }),
        None => configured(serve),
    }
}

fn serve(config: Config) -> ExitCode {
    let started = log::start(&config.log_level, config.log_format);
    let yaml = print_config(&config);
    match started.and_then(|()| app::run(config, yaml)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error.lines().map(str::to_owned).collect::<Vec<_>>());
            ExitCode::from(FAILED)
        }
    }
}

fn redirect(raw: redirect::settings::Raw) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&[error.to_string()]);
            return ExitCode::from(FAILED);
        }
    };
    match runtime.block_on(redirect::run(raw)) {
        Ok(said) => {
            say(said.trim_end());
            ExitCode::SUCCESS
        }
        Err(Failure::Settings(faults)) => {
            complain(&faults);
            ExitCode::from(BAD_CONFIG)
        }
        Err(Failure::Failed(faults)) => {
            complain(&faults);
            ExitCode::from(FAILED)
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
