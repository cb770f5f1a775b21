//! `pillion-proxy`: see the library's map.

fn main() -> std::process::ExitCode {
    pillion_proxy::cli::run()
}
