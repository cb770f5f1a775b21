//! `pillion server`.

use std::{io::IsTerminal as _, path::PathBuf};

use pillion_api::lines::Lines;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tracing::warn;
use tracing_subscriber::{filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

use super::Failure;
use crate::{app, config::ServerArgs, error::Error};

pub(super) async fn run(args: ServerArgs, default_data_dir: Option<PathBuf>) -> Result<(), Failure> {
    let config = args.check(default_data_dir).map_err(failure)?;
    let filter: Targets =
        config.log_level.parse().map_err(|error| Failure::Settings(format!("log-level: {error}")))?;
    // Colours are for people; a log file has none.
    let colours = std::io::stderr().is_terminal();
    let told = |lost| format!("{lost} log lines were left out: they were not taken in time\n");
    // Nobody who serves waits for a line to be written.
    let (writer, _logging) = Lines::to(std::io::stderr(), told)
        .map_err(|error| Failure::Local(format!("cannot start a thread for log lines: {error}")))?;
    let lines = tracing_subscriber::fmt::layer().with_ansi(colours).with_writer(move || writer.clone());
    tracing_subscriber::registry().with(filter).with(lines).init();
    raise_file_limit();
    let failed = |error| Failure::Local(format!("cannot hear signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    app::run(config, shutdown).await.map_err(failure)
}

/// Each sidecar is an open file, and what shells and service managers allow by default is often 1,024. Whoever is to have
/// fewer sets the hard limit.
fn raise_file_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        warn!(%error, ?current, ?maximum, "cannot raise the limit of open files, which is also that of sidecars");
    }
}

fn failure(error: Error) -> Failure {
    match error {
        Error::Settings(_) => {
            let list: String = error.to_string().lines().map(|line| format!("\n  {line}")).collect();
            Failure::Settings(format!("the server's settings are wrong:{list}"))
        }
        Error::Failed { .. } => Failure::Local(error.to_string()),
    }
}
