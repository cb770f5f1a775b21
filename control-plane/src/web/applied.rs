//! What is told of a change that was made, or would have been.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::{sync::Semaphore, task};
use utoipa::ToSchema;

use super::{
    edit::{Edits, Outcome},
    precondition::Seen,
    problem::Problem,
};
use crate::resource::{Document, Fault, Key, difference::difference, standing::FromSidecars};

/// For finding the fewest lines that tell all differences of a request.
const COMPARING: Duration = Duration::from_millis(250);
/// Dry runs that are compared at once, each of which may keep a processor for so long.
const AT_ONCE: usize = 4;

/// What became of every document of a request.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Applied {
    /// True where nothing was really changed.
    pub dry_run: bool,
    /// In a dry run: what it has seen of the documents that are stored, to be sent back with the same documents as `seen`, so that
    /// what is applied is what the dry run has shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<String>,
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
    ///
    /// # Errors
    /// Of a dry run: that too many are compared already.
    pub(super) async fn new(
        edits: &Edits,
        dry_run: bool,
        sidecars: FromSidecars,
        comparisons: &Comparisons,
    ) -> Result<Self, Problem> {
        let diffs = if dry_run { comparisons.of(edits).await? } else { Vec::new() };
        let mut diffs = diffs.into_iter();
        let results = edits.edited.iter().map(|edited| {
            let key = edited.document.key();
            AppliedDocument {
                kind: key.kind.name().to_owned(),
                outcome: edited.outcome,
                resource_version: edited.document.metadata().resource_version.clone(),
                diff: diffs.next(),
                namespace: key.namespace,
                name: key.name,
            }
        });
        let results = results.collect();
        let seen = dry_run.then(|| {
            let keys: Vec<Key> = edits.edited.iter().map(|edited| edited.document.key()).collect();
            Seen::of(&keys, &edits.before, edits.revision).to_string()
        });
        Ok(Self { dry_run, seen, results, warnings: edits.warnings(sidecars) })
    }
}

/// Compares documents where no request is kept waiting by it.
pub(super) struct Comparisons {
    places: Arc<Semaphore>,
}

impl Default for Comparisons {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

impl Comparisons {
    /// What each document of a change would be changed by.
    async fn of(&self, edits: &Edits) -> Result<Vec<String>, Problem> {
        let pairs = edits.edited.iter().map(|edited| {
            let key = edited.document.key();
            [&*edits.before, &edits.after].map(|documents| documents.get(&key).cloned())
        });
        let pairs: Vec<[Option<Arc<Document>>; 2]> = pairs.collect();
        self.run(move || {
            let deadline = Instant::now() + COMPARING;
            let pairs = pairs.iter().map(|pair| pair.each_ref().map(Option::as_deref));
            pairs.map(|[before, after]| difference(before, after, deadline)).collect()
        })
        .await
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            let detail =
                format!("{AT_ONCE} dry runs are being compared; nothing was done; try again in a second");
            let title = "There are too many dry runs";
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too-many-dry-runs", title, detail));
        };
        // The place is taken for as long as there is work, also where nobody waits for it any more.
        let done = task::spawn_blocking(move || (work(), place)).await;
        done.map(|(done, _)| done).map_err(|error| {
            tracing::error!(%error, "a dry run could not be compared");
            let title = "The differences could not be found";
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "not-compared", title, error.to_string())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn comparing_keeps_nobody_waiting_and_has_a_bound() {
        let comparisons = Comparisons::default();
        let (let_go, held): (Vec<mpsc::Sender<()>>, Vec<mpsc::Receiver<()>>) =
            (0..AT_ONCE).map(|_| mpsc::channel()).unzip();
        let hold = |held: mpsc::Receiver<()>| {
            comparisons.run(move || held.recv_timeout(Duration::from_secs(30)).is_ok())
        };
        let all = futures_util::future::join_all(held.into_iter().map(hold));
        // Polled after all others have begun, on the thread that serves.
        let one_more = async {
            let refused = comparisons.run(|| ()).await.expect_err("all places are taken");
            drop(let_go.iter().map(|one| one.send(())).collect::<Vec<_>>());
            refused
        };
        let (done, refused) = tokio::join!(all, one_more);
        assert!(done.iter().all(|done| *done == Ok(true)), "{done:?}");
        assert_eq!((refused.status, refused.kind.as_str()), (503, "urn:pillion:problem:too-many-dry-runs"));
        assert!(refused.detail.contains("try again"), "{refused:?}");
        assert_eq!(comparisons.run(|| 1).await, Ok(1), "places are given back");
    }
}
