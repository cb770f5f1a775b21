//! The `pillion` binary: the control plane and its command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    pillion::cli::main()
}
