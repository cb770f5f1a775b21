//! Log lines to standard error, as text or JSON. Nobody who serves waits for them to be written.

use pillion_api::lines::{Ending, Lines};
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One object a line, for machines.
    Json,
}

/// Starts logging for the process, until what it gives is dropped. `filter` is in `tracing`'s syntax, such as `info` or `info,pillion_proxy=debug`.
///
/// # Errors
/// What is wrong with the filter.
pub fn start(filter: &str, format: Format) -> Result<Ending<Vec<u8>>, String> {
    let filter = parse(filter)?;
    let told = move |lost: u64| match format {
        Format::Text => format!("{lost} log lines were left out: they were not taken in time\n"),
        Format::Json => format!(
            "{{\"level\":\"WARN\",\"message\":\"log lines were left out: they were not taken in time\",\"lost\":{lost}}}\n"
        ),
    };
    let (writer, ending) =
        Lines::to(std::io::stderr(), told).map_err(|error| format!("a thread for log lines: {error}"))?;
    let lines = tracing_subscriber::fmt::layer().with_writer(move || writer.clone()).with_target(false);
    let lines = match format {
        Format::Text => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).try_init().map_err(|error| error.to_string())?;
    Ok(ending)
}

/// Checks a filter.
///
/// # Errors
/// What is wrong with it.
pub fn parse(filter: &str) -> Result<Targets, String> {
    let mut targets = Targets::new();
    for directive in filter.split(',') {
        let (target, level) = match directive.split_once('=') {
            Some((target, level)) => (Some(target.trim()), level.trim()),
            None => (None, directive.trim()),
        };
        // `Targets` itself would take a misspelt level for a target, and be silent about everything else.
        let level = level.parse::<LevelFilter>().ok().filter(|_| !level.is_empty() && target != Some(""));
        let level = level.ok_or_else(|| {
            format!(
                "{directive:?} is neither a level (error, warn, info, debug, trace, off) nor TARGET=LEVEL"
            )
        })?;
        targets = match target {
            Some(target) => targets.with_target(target, level),
            None => targets.with_default(level),
        };
    }
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_targets() {
        for right in ["info", "INFO,pillion_proxy=debug", "off, h2=warn"] {
            assert!(parse(right).is_ok(), "{right}");
        }
        for wrong in ["", "inof", "info,", "=", "=info", "h2=", "h2=loud", "a=b=info"] {
            assert!(parse(wrong).expect_err(wrong).contains("TARGET=LEVEL"), "{wrong}");
        }
    }
}
