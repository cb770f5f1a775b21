//! What is told of a change that was made, or would have been.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::edit::{Edited, Edits, Outcome};
use crate::resource::{Fault, difference::difference, standing::FromSidecars};

/// For finding the fewest lines that tell all differences of a request.
const COMPARING: Duration = Duration::from_millis(250);

/// What became of every document of a request.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Applied {
    /// True where nothing was really changed.
    pub dry_run: bool,
    /// In the order of the request.
    pub results: Vec<AppliedDocument>,
    /// What of it has no effect as it is, and what it brings about for other documents.
    #[serde(default)]
    pub warnings: Vec<Fault>,
}

/// What became of one document.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AppliedDocument {
    /// Its kind.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Its version now; empty in a dry run of what is new.
    pub resource_version: String,
    /// In a dry run: what would change, line by line, as a unified diff of YAML; empty where nothing would. It has what the server
    /// adds, such as addresses, but not what it only notes in `metadata` and `status`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff: Option<String>,
}

impl Applied {
    /// Tells of a change.
    pub(super) fn new(edits: &Edits, dry_run: bool, sidecars: FromSidecars) -> Self {
        let deadline = Instant::now() + COMPARING;
        let result = |edited: &Edited| {
            let key = edited.document.key();
            let [before, after] =
                [&*edits.before, &edits.after].map(|documents| documents.get(&key).map(Arc::as_ref));
            AppliedDocument {
                kind: key.kind.name().to_owned(),
                outcome: edited.outcome,
                resource_version: edited.document.metadata().resource_version.clone(),
                diff: dry_run.then(|| difference(before, after, deadline)),
                namespace: key.namespace,
                name: key.name,
            }
        };
        let results = edits.edited.iter().map(result).collect();
        Self { dry_run, results, warnings: edits.warnings(sidecars) }
    }
}
