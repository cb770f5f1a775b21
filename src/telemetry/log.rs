//! Log lines to standard error, as text or JSON.

use tracing_subscriber::{Layer, filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One object a line, for machines.
    Json,
}

/// Starts logging for the process. `filter` is in `tracing`'s syntax, such as `info` or `info,pillion_proxy=debug`.
///
/// # Errors
/// What is wrong with the filter.
pub fn start(filter: &str, format: Format) -> Result<(), String> {
    let filter = parse(filter)?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let lines = match format {
        Format::Text => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).try_init().map_err(|error| error.to_string())
}

/// Checks a filter.
///
/// # Errors
/// What is wrong with it.
pub fn parse(filter: &str) -> Result<Targets, String> {
    filter.parse().map_err(|error| format!("{filter:?} is no log filter: {error}"))
}
