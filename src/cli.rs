//! The command line of `pillion-proxy`.

mod ready;

use std::{ffi::OsString, io::Write as _, path::PathBuf, process::ExitCode};

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, builder::Resettable};
use tokio::signal::unix::{SignalKind, signal};

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
/// The same where all other codes are the application's: that of `env`, `timeout` and `docker run` for their own failures.
const FAILED_BESIDE_AN_APPLICATION: u8 = 125;

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
    /// Lead this network namespace's traffic to its sidecar, by rules of nftables or iptables
    ///
    /// TCP that processes here open goes to the sidecar's outbound port, TCP that arrives to its inbound port. The sidecar's own
    /// connections (it runs as a user of its own), loopback and UDP are left alone; with `--redirect-dns`, port 53 is not, by UDP
    /// or TCP. Needs CAP_NET_ADMIN, and none of the sidecar's
    /// settings. To do it again replaces the rules.
    Redirect(Box<Redirect>),
    /// Run an application with this sidecar, both as one: it is started when the sidecar is ready, gets the signals that
    /// come, and its exit code is the sidecar's. Takes all settings of `pillion-proxy`
    Run(Box<Run>),
}

/// Which rules, and what then.
#[derive(Debug, Args)]
struct Redirect {
    #[command(flatten)]
    rules: redirect::settings::Raw,
    /// Stay afterwards until told to end: for a container that others share the network namespace of
    #[arg(long, conflicts_with_all = ["check", "remove", "dry_run"])]
    hold: bool,
}

/// What to run, and how.
#[derive(Debug, Args)]
struct Run {
    #[command(flatten)]
    settings: Raw,
    /// The application and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Does what the command line says.
pub fn run() -> ExitCode {
    let cli = match Cli::from_arg_matches(&command().get_matches()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let Cli { verb, config, settings } = cli;
    let configured = |settings: Raw, act: &dyn Fn(Config) -> ExitCode| match check::load(
        settings,
        config.as_deref(),
        &host_name(),
    ) {
        Ok(config) => act(config),
        Err(faults) => {
            complain(&faults.0);
            ExitCode::from(BAD_CONFIG)
        }
    };
    match verb {
        Some(Verb::Redirect(redirect)) => lead(*redirect),
        // Only where to ask is wanted of the settings: the others may be right for the sidecar's container alone.
        Some(Verb::Ready(ready)) => match check::read(config.as_deref()) {
            Err(fault) => {
                complain(&[fault]);
                ExitCode::from(BAD_CONFIG)
            }
            Ok(file) => match ready::run(&ready, settings.over(file).admin_listen.as_deref()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(reason) => {
                    complain(&[reason]);
                    ExitCode::from(FAILED)
                }
            },
        },
        Some(Verb::CheckConfig) => configured(settings, &|_| {
            say("the settings are valid");
            ExitCode::SUCCESS
        }),
        Some(Verb::PrintConfig) => configured(settings, &|config| {
            say(print_config(&config).trim_end());
            ExitCode::SUCCESS
        }),
        Some(Verb::Run(run)) => {
            configured(run.settings.over(settings), &|config| serve(config, &run.command))
        }
        None => configured(settings, &|config| serve(config, &[])),
    }
}

/// `application`: the command to run beside, if any.
fn serve(config: Config, application: &[OsString]) -> ExitCode {
    let started = log::start(&config.log_level, config.log_format);
    let yaml = print_config(&config);
    match started.and_then(|_logging| app::run(config, yaml, application)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            complain(&error.lines().map(str::to_owned).collect::<Vec<_>>());
            ExitCode::from(if application.is_empty() { FAILED } else { FAILED_BESIDE_AN_APPLICATION })
        }
    }
}

fn lead(Redirect { rules, hold }: Redirect) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&[error.to_string()]);
            return ExitCode::from(FAILED);
        }
    };
    match runtime.block_on(redirect::run(rules)) {
        Ok(said) => {
            say(said.trim_end());
            match if hold { runtime.block_on(until_told()) } else { Ok(()) } {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    complain(&[format!("signals: {error}")]);
                    ExitCode::from(FAILED)
                }
            }
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

/// A first process of a container gets no signal that it does not ask for.
async fn until_told() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// The verb `run` takes all settings as flags, which win over those before it; the environment is read once, for both.
fn command() -> clap::Command {
    Cli::command().mut_subcommand("run", |run| {
        run.mut_args(|arg| if arg.is_last_set() { arg } else { arg.env(Resettable::Reset).hide(true) })
    })
}

fn print_config(config: &Config) -> String {
    Raw::from(config).to_yaml()
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .unwrap_or_else(|_| "workload".into())
}

fn say(text: &str) {
    // Whoever reads it may have read enough.
    let _ = writeln!(std::io::stdout(), "{text}");
}

#[expect(clippy::print_stderr, reason = "errors before there is a log")]
fn complain(faults: &[String]) {
    for fault in faults {
        eprintln!("pillion-proxy: {fault}");
    }
}
