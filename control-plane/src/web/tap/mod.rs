//! Live requests as server-sent events: who may watch, and a stream that says what it leaves out and why it ends.

mod question;

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    extract::{Query, State},
    http::{HeaderMap, StatusCode, Uri},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use pillion_api::tap::Party;
use serde::Serialize;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_stream::wrappers::ReceiverStream;

use self::question::{Question, TapParams};
use super::{WebState, access, problem::Problem};
use crate::{
    clock::unix_ms,
    registry::Member,
    resource::{Documents, Fault, Key, Kind, tap::Tap as Shown},
    tap::{About, Away, MAX_TAPS, Meant, Reader, Resource, Scope, TapEnded, TapEvent, TapStatus, Wanted},
    token::{Purpose, Role, TokenError},
};

/// Live traffic is more than a viewer's: paths alone may tell what nobody else is to know.
const ROLE: Role = Role::Operator;
/// Events made ahead of a slow reader. Beyond these and those of the tap itself they are left out, and counted.
const AHEAD: usize = 16;
/// Between looks at how it goes.
const STATUS: Duration = Duration::from_millis(500);
/// Between looks at what may have changed meanwhile, in those.
const REVIEW: u32 = 4;
/// A reader that takes nothing for so long is not there.
const STALLED: Duration = Duration::from_secs(60);
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Live requests, as they end, as server-sent events
///
/// `request`: one of them. `status`: how it goes, at first and whenever that has changed: which sidecars tell, what was left out, and
/// why nothing may come. `ended`: the last one, where the server ends it, and why. Needs the role operator, also on loopback; a token
/// of one namespace watches that namespace's sidecars.
#[utoipa::path(
    get,
    path = "/v1/mesh/tap",
    tag = "mesh",
    params(TapParams),
    security(("token" = [])),
    responses(
        (status = 200, description = "A stream: `request` events are this, `status` events TapStatus, `ended` TapEnded",
            content_type = "text/event-stream", body = TapEvent),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Too many are open", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn watch(
    State(state): State<WebState>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let pairs = Query::<Vec<(String, String)>>::try_from_uri(&uri)
        .map_err(|rejection| Problem::bad_request("query", rejection.body_text()))?;
    let question = TapParams::read(pairs.0);
    let namespace = question.as_ref().ok().and_then(|question| only_namespace(&state, &question.scope));
    let allowed = Allowed::check(&state, &headers, namespace).await;
    let mut question = match question {
        Ok(question) => question,
        // Whoever may not watch at all learns nothing more than that.
        Err(faults) => match allowed {
            Err(problem) if !problem.kind.ends_with("token-lacks-namespace") => return Err(problem),
            _ => return Err(wrong(faults)),
        },
    };
    let allowed = allowed?;
    question.scope.namespace.clone_from(&allowed.only);
    let (_, documents) = state.documents.current().await?;
    let shown = documents.mesh_config().tap();
    if !shown.is_enabled() {
        let title = "Live requests are not shown";
        let detail = "the mesh's MeshConfig says so (spec.tap.enabled: false)";
        return Err(Problem::new(StatusCode::FORBIDDEN, "tap-disabled", title, detail));
    }
    is_there(&state, &question.scope, &documents)?;
    let Question { scope, filter, max_per_second } = question;
    let headers = shown.shown_headers();
    let wanted = Wanted { scope: scope.clone(), filter, max_per_second, headers };
    let Some(reader) = state.taps.open(wanted, Instant::now()) else {
        let detail = format!("{MAX_TAPS} are open already");
        let title = "Too many watch live requests";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too-many-taps", title, detail));
    };
    tracing::info!(token = allowed.id, resource = %scope.resource, callers = scope.callers, "live requests are watched");
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::spawn(run(Watch { state, scope, allowed, shown }, reader, sender));
    Ok(Sse::new(ReceiverStream::new(receiver))
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response())
}

fn wrong(faults: Vec<Fault>) -> Problem {
    let detail = if faults.len() == 1 { "1 fault".to_owned() } else { format!("{} faults", faults.len()) };
    let status = StatusCode::UNPROCESSABLE_ENTITY;
    Problem { faults, ..Problem::new(status, "invalid", "The question is not valid", detail) }
}

/// Who watches, and where they may.
struct Allowed {
    /// The token's own name.
    id: String,
    token: String,
    /// Of what is watched; `None`: several.
    namespace: Option<String>,
    /// The only one whose sidecars may be asked.
    only: Option<String>,
}

impl Allowed {
    async fn check(
        state: &WebState,
        headers: &HeaderMap,
        namespace: Option<String>,
    ) -> Result<Self, Problem> {
        let token = access::bearer(headers)?.to_owned();
        let info = state.tokens.authorize(&token, ROLE, namespace.as_deref(), SystemTime::now()).await?;
        let only = match info.purpose {
            Purpose::Api { namespace, .. } => namespace,
            Purpose::Join { .. } => None,
        };
        Ok(Self { id: info.id, token, namespace, only })
    }

    /// Why they may not any more.
    async fn fault(&self, state: &WebState) -> Option<String> {
        let now = SystemTime::now();
        match state.tokens.authorize(&self.token, ROLE, self.namespace.as_deref(), now).await {
            Err(TokenError::Fault(fault)) => Some(fault.to_string()),
            // A store that is away says nothing of the token.
            Ok(_) | Err(TokenError::Store(_)) => None,
        }
    }
}

/// The namespace that a question is about, if it is one.
fn only_namespace(state: &WebState, scope: &Scope) -> Option<String> {
    match &scope.resource {
        Resource::Mesh => None,
        Resource::Of(Party::Namespace(name)) => Some(name.clone()),
        Resource::Of(Party::Service(name)) => Some(name.namespace().to_owned()),
        Resource::Of(Party::Workload(_)) => {
            let mut namespaces = members(state, scope).map(|member| member.workload.namespace.clone());
            let first = namespaces.next()?;
            namespaces.all(|other| other == first).then_some(first)
        }
    }
}

/// Registered workloads whose sidecars are meant, where it is not their callers'.
fn members(state: &WebState, scope: &Scope) -> impl Iterator<Item = Member> {
    let (publisher, scope) = (Arc::clone(&state.publisher), scope.clone());
    state.registry.members().into_iter().filter(move |member| {
        let about = About { namespace: &member.workload.namespace, workload: member.name() };
        let serves = |service: &str| publisher.services_of(member.uid()).iter().any(|own| **own == *service);
        scope.concerns(about, serves, |_| false)
    })
}

/// What nobody has heard of cannot be watched.
fn is_there(state: &WebState, scope: &Scope, documents: &Documents) -> Result<(), Problem> {
    match &scope.resource {
        Resource::Of(Party::Service(name)) => {
            let key = |kind| Key::new(kind, name.namespace(), name.name());
            let there = |kind| documents.get(&key(kind)).is_some();
            if there(Kind::Service) || scope.callers && there(Kind::ExternalService) {
                return Ok(());
            }
            let outside = if there(Kind::ExternalService) {
                "; it is an ExternalService, which has callers only (seenBy=callers)"
            } else {
                ""
            };
            Err(Problem::not_found(format!("there is no Service {name:?}{outside}", name = name.as_str())))
        }
        Resource::Of(Party::Workload(name)) if members(state, scope).next().is_none() => {
            Err(Problem::not_found(format!("no workload {name:?} is registered")))
        }
        Resource::Mesh | Resource::Of(_) => Ok(()),
    }
}

/// What a stream goes by.
struct Watch {
    state: WebState,
    scope: Scope,
    allowed: Allowed,
    /// What the MeshConfig showed when it began.
    shown: Shown,
}

impl Watch {
    /// Why it cannot go on.
    async fn fault(&self) -> Option<String> {
        if let Some(fault) = self.allowed.fault(&self.state).await {
            return Some(fault);
        }
        let (_, documents) = self.state.documents.current().await.ok()?;
        let changed = documents.mesh_config().tap().in_force() != self.shown.in_force();
        changed.then(|| "what the MeshConfig shows of live requests has changed; begin again".to_owned())
    }

    /// Those that are meant, be they connected here or not. Who calls is known of connected ones only.
    fn meant(&self) -> impl Iterator<Item = Meant> {
        members(&self.state, &self.scope).map(|member| Meant {
            uid: member.uid().to_owned(),
            name: member.name().to_owned(),
            connected: member.connected(),
            since_ms: member.since_ms,
        })
    }
}

type Sender = mpsc::Sender<Result<Event, Infallible>>;

/// Ends when the reader is gone, or may not watch any more, or the server ends.
async fn run(watch: Watch, mut reader: Reader, sender: Sender) {
    let mut shutdown = watch.state.shutdown.clone();
    let mut ticks = interval(STATUS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let nobody = watch.scope.nobody();
    let (mut told, mut away, mut until_review) = (None::<TapStatus>, Away::default(), 0);
    loop {
        let event = tokio::select! {
            request = reader.next() => event("request", &request),
            _ = ticks.tick() => {
                if until_review == 0 {
                    until_review = REVIEW;
                    if let Some(reason) = watch.fault().await {
                        return end(&sender, reason).await;
                    }
                    away.review(watch.meant(), unix_ms());
                }
                until_review -= 1;
                let status = reader.status(&away, &nobody, Instant::now());
                if told.as_ref() == Some(&status) {
                    continue;
                }
                event("status", told.insert(status))
            }
            () = shutdown.requested() => {
                return end(&sender, "the control plane is shutting down".to_owned()).await;
            }
            () = sender.closed() => return,
        };
        match timeout(STALLED, sender.send(Ok(event))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(_) => {
                tracing::info!(token = watch.allowed.id, "a reader of live requests has not read for long");
                return;
            }
        }
    }
}

async fn end(sender: &Sender, reason: String) {
    // One that does not read hears of it by the stream's end.
    let _ = timeout(STATUS, sender.send(Ok(event("ended", &TapEnded { reason })))).await;
}

fn event(name: &'static str, data: &impl Serialize) -> Event {
    let text = serde_json::to_string(data).expect("there are string keys only");
    Event::default().event(name).data(text)
}
