//! `pillion delete`.

use std::path::PathBuf;

use clap::Args;
use reqwest::Method;

use super::{Client, Failure, apply, files::Sources, get};
use crate::resource::{Key, Kind, admit};

/// Delete documents.
#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    #[arg(required_unless_present = "filename", requires = "name", value_parser = get::parse_kind, help = get::KINDS)]
    kind: Option<Kind>,
    /// Which document
    name: Option<String>,
    /// Its namespace [default: default; of a MeshConfig: pillion-system]
    #[arg(short, long)]
    namespace: Option<String>,
    /// Every document in these files
    #[arg(short, long = "filename", conflicts_with = "kind", value_name = "FILE|DIR|-")]
    filename: Vec<PathBuf>,
    /// Delete it even though others name it
    #[arg(long)]
    force: bool,
    /// Check everything, change nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(args: &DeleteArgs, client: &Client) -> Result<(), Failure> {
    let mut keys = match (&args.kind, &args.name) {
        (Some(kind), Some(name)) => {
            let namespace = args.namespace.as_deref().unwrap_or(kind.default_namespace());
            vec![Key::new(*kind, namespace, name.as_str())]
        }
        _ => keys(&Sources::read(&args.filename)?)?,
    };
    // Who names others goes before who is named.
    keys.sort_by(|one, other| other.cmp(one));
    let flags = [("force", args.force), ("dryRun", args.dry_run)];
    let mut refused = Vec::new();
    for key in keys {
        let path = Client::path(key.kind, Some(&key.namespace), Some(&key.name));
        match client.change(Method::DELETE, &path, &flags, None).await {
            Ok(answer) => apply::tell(answer, false, apply::unplaced)?,
            Err(Failure::Refused(problem)) => refused.push(problem),
            Err(other) => return Err(other),
        }
    }
    match refused.len() {
        0 => Ok(()),
        1 => Err(Failure::Refused(refused.remove(0))),
        many => {
            let details: String = refused.iter().map(|problem| format!("\n  {}", problem.detail)).collect();
            Err(Failure::Local(format!("{many} documents were not deleted:{details}")))
        }
    }
}

fn keys(sources: &Sources) -> Result<Vec<Key>, Failure> {
    let mut keys = Vec::new();
    let mut faults = Vec::new();
    for (index, written) in sources.written().enumerate() {
        match admit::key(written) {
            Some(key) => keys.push(key),
            None => faults.push(format!("document {} has no known kind and metadata.name", index + 1)),
        }
    }
    if faults.is_empty() { Ok(keys) } else { Err(Failure::Faults(faults)) }
}
