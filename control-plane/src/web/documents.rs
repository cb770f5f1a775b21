//! The handlers for documents: list, get, put, delete, apply.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;
use utoipa::IntoParams;

use super::{
    WebState, access,
    applied::Applied,
    edit::{self, EditError, Edited, Edits, Outcome},
    input::{self, Body, Params, Segments},
    precondition::Precondition,
    problem::Problem,
    watch,
};
use crate::{
    resource::{
        Document, Documents, Fault, Key, Kind, admit, hint, status::Shown, text::Written,
        transitions::Transitions,
    },
    store::Bucket,
    token::Role,
};

/// A change is answered when sidecars are told of it; after so long in any case.
const PUBLISHED: Duration = Duration::from_secs(2);

/// How to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ListParams {
    /// Goes on with every change, as server-sent events: `added` for each document there is, then `synced`, then
    /// `added`, `modified` and `deleted` as they happen; at last `ended`, where the token does not do any more.
    #[serde(default)]
    watch: bool,
}

/// How to change.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ChangeParams {
    /// Checks everything and changes nothing.
    #[serde(default)]
    dry_run: bool,
}

/// How to delete.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct DeleteParams {
    /// Checks everything and changes nothing.
    #[serde(default)]
    dry_run: bool,
    /// Deletes it even though other documents name it.
    #[serde(default)]
    force: bool,
    /// What a dry run of the same has answered as `seen`: it is deleted only if it is still what that has seen.
    seen: Option<String>,
}

/// How to apply.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ApplyParams {
    /// Checks everything, changes nothing, and shows what would change, line by line.
    #[serde(default)]
    dry_run: bool,
    /// What a dry run of the same documents has answered as `seen`: it is applied only if what is stored is still what that was
    /// compared with.
    seen: Option<String>,
}

/// Documents of a kind in all namespaces.
#[utoipa::path(get, path = "/v1/{kind}", tag = "documents",
    params(("kind" = String, Path, description = "A kind's plural: meshconfigs, services, externalservices, httproutes, grpcroutes or trafficpolicies"), ListParams),
    responses((status = 200, description = "A List of documents, or events where watch=true"),
              (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list_everywhere(
    State(state): State<WebState>,
    Segments(plural): Segments<String>,
    Params(params): Params<ListParams>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let kind = input::kind(&plural)?;
    access::may_read(&state, &headers, None).await?;
    let response = list(&state, kind, None, &params).await?;
    Ok(access::while_allowed(&state, headers, None, response))
}

/// Documents of a kind in one namespace.
#[utoipa::path(get, path = "/v1/namespaces/{namespace}/{kind}", tag = "documents",
    params(("namespace" = String, Path), ("kind" = String, Path, description = "A kind's plural: meshconfigs, services, externalservices, httproutes, grpcroutes or trafficpolicies"),
           ListParams),
    responses((status = 200, description = "A List of documents, or events where watch=true"),
              (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list_namespace(
    State(state): State<WebState>,
    Segments((namespace, plural)): Segments<(String, String)>,
    Params(params): Params<ListParams>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let kind = input::kind(&plural)?;
    input::namespace(&namespace)?;
    access::may_read(&state, &headers, Some(&namespace)).await?;
    let response = list(&state, kind, Some(namespace.clone()), &params).await?;
    Ok(access::while_allowed(&state, headers, Some(namespace), response))
}

async fn list(
    state: &WebState,
    kind: Kind,
    namespace: Option<String>,
    params: &ListParams,
) -> Result<Response, Problem> {
    if params.watch {
        return watch::stream(state, kind, namespace).await;
    }
    let (revision, documents) = state.documents.current().await?;
    let shown = state.shown(&documents);
    let items: Vec<Value> =
        documents.list(kind, namespace.as_deref()).map(|(_, document)| shown.document(document)).collect();
    let metadata = json!({ "resourceVersion": revision.to_string() });
    Ok(Json(json!({ "apiVersion": "v1", "kind": "List", "metadata": metadata, "items": items }))
        .into_response())
}

/// One document.
#[utoipa::path(get, path = "/v1/namespaces/{namespace}/{kind}/{name}", tag = "documents",
    params(("namespace" = String, Path), ("kind" = String, Path), ("name" = String, Path)),
    responses((status = 200, description = "The document with its status; its version is the ETag"),
              (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get(
    State(state): State<WebState>,
    Segments((namespace, plural, name)): Segments<(String, String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let key = input::key(&namespace, &plural, &name)?;
    access::may_read(&state, &headers, Some(&namespace)).await?;
    let (_, documents) = state.documents.current().await?;
    match documents.get(&key) {
        Some(document) => Ok(shown(&state, &state.transitions, document, &documents)),
        None => Err(absent(&state, &headers, &key, &documents).await),
    }
}

/// Makes or replaces one document.
#[utoipa::path(put, path = "/v1/namespaces/{namespace}/{kind}/{name}", tag = "documents",
    params(("namespace" = String, Path), ("kind" = String, Path), ("name" = String, Path), ChangeParams,
           ("if-match" = Option<String>, Header, description = "The resourceVersion it must be at, in quotes; or *"),
           ("if-none-match" = Option<String>, Header, description = "*: it must not be there")),
    request_body(content((Value = "application/yaml"), (Value = "application/json"))),
    security(("token" = [])),
    responses((status = 200, description = "Replaced, or unchanged; `Warning` headers say what of it has no effect as it is"),
              (status = 201, description = "Made"),
              (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn put(
    State(state): State<WebState>,
    Segments((namespace, plural, name)): Segments<(String, String, String)>,
    Params(params): Params<ChangeParams>,
    headers: HeaderMap,
    body: Result<Body, Problem>,
) -> Result<Response, Problem> {
    let key = input::key(&namespace, &plural, &name)?;
    access::needs(&state, &headers, Role::Operator, Some(&namespace)).await?;
    let precondition = input::precondition(&headers)?;
    let Body(written) = body?;
    let [written] = written.as_slice() else {
        return Err(Problem::bad_request("body", format!("must be one document, has {}", written.len())));
    };
    let written = std::slice::from_ref(written);
    let documents = admitted(&state, written, read(written, Some(&key))).await?;
    let edits = state.editor.apply(documents, precondition, params.dry_run, SystemTime::now()).await;
    let edits = edits.map_err(|error| placed(error.into(), written))?;
    if !params.dry_run {
        state.announce(&edits.edited).await;
    }
    let edit = edits.edited.first().expect("one document in, one out");
    // What has not come about has not changed since when anything is what it is.
    let only_tried = Transitions::default();
    let transitions = if params.dry_run { &only_tried } else { &state.transitions };
    let mut response = shown(&state, transitions, &edit.document, &edits.after);
    if edit.outcome == Outcome::Created {
        *response.status_mut() = StatusCode::CREATED;
    }
    for warning in edits.warnings((state.sidecars)()).iter().filter_map(warning) {
        response.headers_mut().append(header::WARNING, warning);
    }
    Ok(response)
}

/// As Kubernetes sends them: `299 pillion "…"`, the one header field for what is not in the answer itself.
fn warning(warning: &Fault) -> Option<HeaderValue> {
    let quoted = warning.to_string().replace('\\', r"\\").replace('"', "\\\"");
    HeaderValue::try_from(format!("299 pillion \"{quoted}\"")).ok()
}

/// Deletes one document.
#[utoipa::path(delete, path = "/v1/namespaces/{namespace}/{kind}/{name}", tag = "documents",
    params(("namespace" = String, Path), ("kind" = String, Path), ("name" = String, Path), DeleteParams,
           ("if-match" = Option<String>, Header, description = "The resourceVersion it must be at, in quotes; or *")),
    security(("token" = [])),
    responses((status = 200, body = Applied, description = "Deleted"),
              (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn delete(
    State(state): State<WebState>,
    Segments((namespace, plural, name)): Segments<(String, String, String)>,
    Params(params): Params<DeleteParams>,
    headers: HeaderMap,
) -> Result<Json<Applied>, Problem> {
    let key = input::key(&namespace, &plural, &name)?;
    access::needs(&state, &headers, Role::Operator, Some(&namespace)).await?;
    let precondition = match (input::precondition(&headers)?, input::seen(params.seen.as_deref())?) {
        (Precondition::None, seen) => seen,
        (stated, Precondition::None) => stated,
        _ => return Err(Problem::bad_request("seen", "cannot be together with if-match or if-none-match")),
    };
    let edits =
        state.editor.delete(std::slice::from_ref(&key), precondition, params.force, params.dry_run).await;
    let edits = match edits {
        Err(EditError::Missing(key)) => {
            let (_, documents) = state.documents.current().await?;
            return Err(absent(&state, &headers, &key, &documents).await);
        }
        other => other?,
    };
    if !params.dry_run {
        state.announce(&edits.edited).await;
    }
    Ok(Json(state.applied(&edits, params.dry_run).await?))
}

/// Brings many documents to what is wanted: all of them, or none.
#[utoipa::path(post, path = "/v1/apply", tag = "documents", params(ApplyParams),
    request_body(description = "Documents separated by ---, or a List", content((Value = "application/yaml"), (Value = "application/json"))),
    security(("token" = [])),
    responses((status = 200, body = Applied, description = "What became of each"),
              (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn apply(
    State(state): State<WebState>,
    Params(params): Params<ApplyParams>,
    headers: HeaderMap,
    body: Result<Body, Problem>,
) -> Result<Json<Applied>, Problem> {
    // Any operator may ask; below, each namespace that the documents are in must be among the token's.
    let token_first = access::needs(&state, &headers, Role::Operator, None).await;
    if let Err(problem) = &token_first
        && !problem.kind.ends_with("token-lacks-namespace")
    {
        return Err(problem.clone());
    }
    let Body(written) = body?;
    if written.is_empty() {
        return Err(Problem::bad_request("body", "holds no document"));
    }
    let precondition = input::seen(params.seen.as_deref())?;
    let read = read(&written, None);
    // Before anything is said of what there is in those namespaces.
    if token_first.is_err() {
        let namespaces: BTreeSet<&str> = read.iter().filter_map(namespace).collect();
        for namespace in namespaces {
            access::needs(&state, &headers, Role::Operator, Some(namespace)).await?;
        }
    }
    let documents = admitted(&state, &written, read).await?;
    let edits = state.editor.apply(documents, precondition, params.dry_run, SystemTime::now()).await;
    let edits = edits.map_err(|error| placed(error.into(), &written))?;
    if !params.dry_run {
        state.announce(&edits.edited).await;
    }
    let mut applied = state.applied(&edits, params.dry_run).await?;
    place(&mut applied.warnings, &written);
    Ok(Json(applied))
}

fn read(written: &[Written], expected: Option<&Key>) -> Vec<admit::Read> {
    written.iter().enumerate().map(|(index, one)| admit::read(index, one, expected)).collect()
}

/// Where a document is to be, if that can be said of it.
fn namespace(read: &admit::Read) -> Option<&str> {
    let unclear =
        read.faults.iter().any(|fault| fault.field.is_empty() || fault.field.starts_with("metadata"));
    read.document.as_ref().filter(|_| !unclear).map(|document| document.metadata().namespace.as_str())
}

/// The documents of a request, where they are right by themselves; else all that is wrong with any of them, also beside the
/// others and what there is.
async fn admitted(
    state: &WebState,
    written: &[Written],
    read: Vec<admit::Read>,
) -> Result<Vec<Document>, Problem> {
    let mut faults: Vec<Fault> = read.iter().flat_map(|read| read.faults.iter().cloned()).collect();
    let whole = read.iter().enumerate().filter(|(_, read)| namespace(read).is_some());
    let whole: Vec<(usize, &admit::Read)> = whole.collect();
    faults.extend(edit::duplicates(&whole));
    if faults.is_empty() {
        return Ok(read.into_iter().filter_map(|read| read.document).collect());
    }
    faults.extend(state.editor.faults_beside_others(&whole).await?);
    Err(placed(Problem::invalid(faults), written))
}

/// That there is no such document; and whether it is elsewhere, as far as whoever asks may read there.
async fn absent(state: &WebState, headers: &HeaderMap, key: &Key, documents: &Documents) -> Problem {
    let mut elsewhere = Vec::new();
    for other in hint::namesakes(key, documents) {
        if access::may_read(state, headers, Some(&other.namespace)).await.is_ok() {
            elsewhere.push(format!("{}/{} (-n {})", other.namespace, other.name, other.namespace));
        }
    }
    Problem::not_found(format!("there is no {key}{}", hint::question(elsewhere)))
}

/// Adds lines to faults that were found after the text was left behind, and puts them in the order of the text.
fn placed(mut problem: Problem, written: &[Written]) -> Problem {
    place(&mut problem.faults, written);
    problem.faults.sort_by_key(|fault| (fault.index, fault.line, fault.column));
    problem
}

fn place(faults: &mut [Fault], written: &[Written]) {
    for fault in faults {
        let place = fault.index.and_then(|index| written.get(index)).and_then(|it| it.position(&fault.field));
        (fault.line, fault.column) = place.unzip();
    }
}

fn shown(
    state: &WebState,
    transitions: &Transitions,
    document: &Document,
    documents: &Documents,
) -> Response {
    let shown = Shown::new(documents, (state.sidecars)(), transitions, SystemTime::now());
    let mut response = Json(shown.document(document)).into_response();
    let version = &document.metadata().resource_version;
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{version}\"")) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

impl WebState {
    /// Documents with what follows from them now.
    pub(super) fn shown<'documents>(&'documents self, documents: &'documents Documents) -> Shown<'documents> {
        Shown::new(documents, (self.sidecars)(), &self.transitions, SystemTime::now())
    }

    async fn applied(&self, edits: &Edits, dry_run: bool) -> Result<Applied, Problem> {
        Applied::new(edits, dry_run, (self.sidecars)(), &self.comparisons).await
    }

    /// Tells who listens what was changed, and waits, within reason, until it is what sidecars are told: whoever changes
    /// something may count on it from then on.
    async fn announce(&self, edited: &[Edited]) {
        for edit in edited.iter().filter(|edit| edit.outcome != Outcome::Unchanged) {
            let key: Key = edit.document.key();
            tracing::info!(document = %key, outcome = ?edit.outcome, "documents changed");
            (self.on_change)(&key, edit.outcome);
        }
        let revision = *self.store.revisions(Bucket::Documents).borrow();
        let mut published = self.published.clone();
        let caught_up = timeout(PUBLISHED, published.wait_for(|published| *published >= revision)).await;
        if caught_up.is_err() {
            tracing::warn!(revision, "sidecars have not been told of a change within {PUBLISHED:?}");
        }
    }
}
