//! The load that `make bench` puts on a pair of sidecars. Threads with blocking sockets, so that a request costs the
//! generator little and starts within microseconds of when it was planned; every response is compared with what is
//! expected, byte by byte.

mod burst;
mod exchange;
mod handshakes;
mod options;
mod report;
mod schedule;
mod steady;
mod tls;

use std::process::ExitCode;

use clap::Parser;

use crate::options::{Command, Options};

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the report is this program's only output")]
fn main() -> ExitCode {
    let options = Options::parse();
    let expected = match options.expected() {
        Ok(expected) => expected,
        Err(error) => {
            eprintln!("{}: {error}", options.expect.display());
            return ExitCode::from(66);
        }
    };
    // A sleeping thread may be woken up to this many nanoseconds late. Where this can't be set, 50 µs is the default.
    let _ = std::fs::write("/proc/self/timerslack_ns", "1");
    let report = match &options.command {
        Command::Steady(steady) => Ok(steady::run(&options, &expected, *steady)),
        Command::Burst(burst) => Ok(burst::run(&options, &expected, *burst)),
        Command::Handshakes(handshakes) => handshakes::run(&options, &expected, handshakes),
    };
    match report {
        Ok(report) => {
            println!("{}", report.into_json());
            ExitCode::SUCCESS
        }
        Err(faults) => {
            eprintln!("{faults}");
            ExitCode::from(66)
        }
    }
}
