//! `pillion apply`.

use std::path::PathBuf;

use clap::Args;
use reqwest::Method;

use super::{Client, Failure, files::Sources, print, warn};
use crate::{
    resource::Fault,
    web::{Applied, Outcome},
};

/// Bring documents to what files say.
#[derive(Debug, Args)]
pub(super) struct ApplyArgs {
    /// A YAML or JSON file, a folder of them, or - for standard input; may be repeated
    #[arg(short, long = "filename", required = true, value_name = "FILE|DIR|-")]
    filename: Vec<PathBuf>,
    /// Check everything, change nothing
    #[arg(long)]
    dry_run: bool,
    /// Of a dry run: show what would change, line by line
    #[arg(long, requires = "dry_run")]
    diff: bool,
}

pub(super) async fn run(args: &ApplyArgs, client: &Client) -> Result<(), Failure> {
    let sources = Sources::read(&args.filename)?;
    let path = ["v1".to_owned(), "apply".to_owned()];
    let flags = [("dryRun", args.dry_run)];
    let answer = client.change(Method::POST, &path, &flags, Some(&sources.to_list())).await;
    let answer = answer.map_err(|failure| match failure {
        // The server's words with this machine's files and lines.
        Failure::Refused(problem) if problem.faults.iter().any(|fault| fault.index.is_some()) => {
            Failure::Faults(sources.place(&problem.faults))
        }
        other => other,
    })?;
    tell(answer, args.diff, |warnings| sources.place(warnings))
}

/// One line for each document, with its differences where they are wanted; and what is to be known besides, for people, by the
/// lines that `place` makes of it.
pub(super) fn tell(
    answer: serde_json::Value,
    diff: bool,
    place: impl FnOnce(&[Fault]) -> Vec<String>,
) -> Result<(), Failure> {
    let applied: Applied = serde_json::from_value(answer)
        .map_err(|error| Failure::Local(format!("the server's answer is not understood: {error}")))?;
    let note = if applied.dry_run { " (dry run)" } else { "" };
    let line = |result: &crate::web::AppliedDocument| {
        let outcome = match result.outcome {
            Outcome::Created => "created",
            Outcome::Configured => "configured",
            Outcome::Unchanged => "unchanged",
            Outcome::Deleted => "deleted",
        };
        let lines = result.diff.as_deref().filter(|_| diff).unwrap_or_default();
        format!("{} {}/{} {outcome}{note}\n{lines}", result.kind, result.namespace, result.name)
    };
    print(&applied.results.iter().map(line).collect::<String>())?;
    place(&applied.warnings).iter().for_each(|warning| warn(warning));
    Ok(())
}

/// Each warning as it is.
pub(super) fn unplaced(warnings: &[Fault]) -> Vec<String> {
    warnings.iter().map(ToString::to_string).collect()
}
