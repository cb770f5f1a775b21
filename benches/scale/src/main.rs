//! How the control plane bears many sidecars: real streams, each by the sidecar's own client, to a real `pillion server`.
//!
//! One step per number of sidecars, each with a server of its own: everybody joins, things change, the server is
//! killed and comes back. What was measured goes to a JSON file and plots; where a bar is missed or anything that a
//! sidecar holds is wrong, the program ends with 1.

mod busy;
mod changes;
mod crowd;
mod fleet;
mod mesh;
mod plot;
mod relay;
mod report;
mod restart;
mod server;
mod settings;
mod sidecar;
mod step;
mod wire;

use std::process::ExitCode;

use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::LocalSet;

use crate::{
    mesh::Mesh,
    report::Report,
    settings::{Instead, Settings},
};

/// What went wrong, for people.
type Error = Box<dyn std::error::Error>;

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "progress and the report are this program's output"
)]
fn main() -> ExitCode {
    let settings = Settings::parse();
    if let Err(error) = raise_file_limit() {
        eprintln!("cannot raise the limit of open files: {error}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime.map_err(Error::from).and_then(|runtime| {
        // One thread for all sidecars: their client belongs to one.
        LocalSet::new().block_on(&runtime, async {
            if let Some(Instead::Busy(busy)) = &settings.instead {
                return busy::run(&settings.program, busy).await;
            }
            let report = run(&settings).await?;
            println!("{}", report.summary());
            Ok(ExitCode::from(u8::from(!report.is_well())))
        })
    });
    match ended {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "a run takes minutes: people want to see it move")]
async fn run(settings: &Settings) -> Result<Report, Error> {
    let mut report = Report::new(settings);
    for size in &settings.sidecars {
        let services = size.services.unwrap_or(settings.services);
        let mesh = Mesh { services, sidecars: size.sidecars, subscriptions: settings.subscriptions };
        println!("{} sidecars, {services} services …", size.sidecars);
        report.add(step::measure(settings, mesh).await?);
        report.write(&settings.out)?;
    }
    Ok(report)
}

/// Every sidecar is a socket here.
fn raise_file_limit() -> std::io::Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}
