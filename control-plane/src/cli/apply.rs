//! `pillion apply`.

use std::path::PathBuf;

use clap::Args;
use reqwest::Method;

use super::{Client, Failure, files::Sources, print};
use crate::web::{Applied, Outcome};

/// Bring documents to what files say.
#[derive(Debug, Args)]
pub(super) struct ApplyArgs {
    /// A YAML or JSON file, a folder of them, or - for standard input; may be repeated
    #[arg(short, long = "filename", required = true, value_name = "FILE|DIR|-")]
    filename: Vec<PathBuf>,
    /// Check everything, change nothing
    #[arg(long)]
    dry_run: bool,
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
    print(&results(answer)?)
}

/// One line for each document.
pub(super) fn results(answer: serde_json::Value) -> Result<String, Failure> {
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
        format!("{} {}/{} {outcome}{note}\n", result.kind, result.namespace, result.name)
    };
    Ok(applied.results.iter().map(line).collect())
}
