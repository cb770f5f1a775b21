//! Changes of documents as server-sent events. A status that changed for what sidecars say is told with the next change of
//! the store.

use std::{collections::BTreeMap, convert::Infallible, time::Duration};

use axum::{
    http::StatusCode,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use super::{WebState, problem::Problem};
use crate::{
    resource::{Documents, Key, Kind, status},
    store::Bucket,
};

/// How many may watch at once.
pub(super) const WATCHERS: usize = 256;
/// Events made ahead of a slow reader; beyond that it sees the latest state only, not each step.
const AHEAD: usize = 64;
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What one watcher was told last: each document's version, and the document as it was shown.
type Shown = BTreeMap<Key, (String, Value)>;

/// Starts a watch of one kind, in one namespace or all.
pub(super) async fn stream(
    state: &WebState,
    kind: Kind,
    namespace: Option<String>,
) -> Result<Response, Problem> {
    let Ok(permit) = std::sync::Arc::clone(&state.watchers).try_acquire_owned() else {
        let detail = format!("{WATCHERS} watches are open already");
        let title = "There are too many watches";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too-many-watches", title, detail));
    };
    // Before the first read, so that no change between the two is missed.
    let revisions = state.store.revisions(Bucket::Documents);
    // A store that fails is told before the stream begins.
    state.documents.current().await?;
    let (sender, receiver) = mpsc::channel::<Result<Event, Infallible>>(AHEAD);
    let state = state.clone();
    tokio::spawn(async move {
        run(&state, kind, namespace.as_deref(), revisions, &sender).await;
        drop(permit);
    });
    Ok(Sse::new(ReceiverStream::new(receiver))
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response())
}

/// Ends when the reader is gone or the store is.
async fn run(
    state: &WebState,
    kind: Kind,
    namespace: Option<&str>,
    mut revisions: watch::Receiver<u64>,
    sender: &mpsc::Sender<Result<Event, Infallible>>,
) {
    let mut shown = Shown::new();
    let mut synced = false;
    loop {
        revisions.mark_unchanged();
        let Ok((revision, documents)) = state.documents.current().await else { return };
        let changes = differences(&mut shown, kind, namespace, &documents, &state.shown(&documents));
        for (name, id, object) in changes {
            let data = json!({ "type": name.to_uppercase(), "object": object });
            if sender.send(Ok(Event::default().event(name).id(id).data(data.to_string()))).await.is_err() {
                return;
            }
        }
        if !synced {
            synced = true;
            let data = json!({ "type": "SYNCED", "resourceVersion": revision.to_string() });
            if sender.send(Ok(Event::default().event("synced").data(data.to_string()))).await.is_err() {
                return;
            }
        }
        tokio::select! {
            changed = revisions.changed() => if changed.is_err() { return },
            () = sender.closed() => return,
        }
    }
}

/// What is new since `shown`, which is brought up to date: event name, version, document.
fn differences(
    shown: &mut Shown,
    kind: Kind,
    namespace: Option<&str>,
    documents: &Documents,
    view: &status::Shown<'_>,
) -> Vec<(&'static str, String, Value)> {
    let mut events = Vec::new();
    let gone: Vec<Key> = shown.keys().filter(|key| documents.get(key).is_none()).cloned().collect();
    for key in gone {
        if let Some((version, object)) = shown.remove(&key) {
            events.push(("deleted", version, object));
        }
    }
    for (key, document) in documents.list(kind, namespace) {
        let version = document.metadata().resource_version.clone();
        // The status may change with other documents, so it is compared too.
        let object = view.document(document);
        let name = match shown.get(key) {
            None => "added",
            Some((_, before)) if *before != object => "modified",
            Some(_) => continue,
        };
        shown.insert(key.clone(), (version.clone(), object.clone()));
        events.push((name, version, object));
    }
    events
}
