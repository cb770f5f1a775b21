//! Copies of requests for those who are to see them, too: nobody waits for what becomes of one.

use std::{cell::RefCell, collections::HashMap, pin::Pin, rc::Rc, sync::Arc, time::Duration};

use ::http::{Request, uri::Authority};
use http_body::Body as _;
use metrics::Counter;
use pillion_api::{model::Mirror, name::ServiceName};
use rand::Rng;
use tokio::time::Instant;

use super::{
    Outbound,
    attempt::{Destination, Plan, Times},
    steer::Steering,
};
use crate::{
    error::{Reason, Refusal},
    http::{Body, NoInterim, headers, tee},
    middleware::{
        Served, Timeout,
        limit::{Limit, Place},
        record::End as _,
    },
    telemetry::{
        edge::{Edge, Outcome},
        hops::Timeline,
        listeners::End,
        names::Metric,
        prometheus::Registry,
    },
};

/// Copies under way at a time on one worker.
const MOST: u32 = 256;
/// For one whose rule says nothing of time.
const LONGEST: Duration = Duration::from_secs(30);

/// The copies of one worker.
#[derive(Debug)]
pub(super) struct Mirrors {
    under_way: Limit,
    registry: Arc<Registry>,
    counters: RefCell<HashMap<(ServiceName, &'static str), Counter>>,
}

impl Mirrors {
    pub(super) fn new(registry: Arc<Registry>) -> Self {
        let under_way = Limit::new(MOST, Reason::TooManyRequests);
        Self { under_way, registry, counters: RefCell::default() }
    }

    fn count(&self, service: &ServiceName, outcome: &'static str) {
        let mut counters = self.counters.borrow_mut();
        let counter = counters
            .entry((service.clone(), outcome))
            .or_insert_with(|| self.registry.counter(Metric::Mirrored, &[&service.to_string(), outcome]));
        counter.increment(1);
    }
}

impl Outbound {
    /// Sends copies of a request to those of `mirrors` whose turn it is. Gives the request back, to be sent as ever.
    pub(super) fn mirror(
        self: &Rc<Self>,
        mirrors: &[Mirror],
        mut request: Request<Body>,
        authority: &Authority,
        timeout: Option<Duration>,
        timeline: &Timeline,
    ) -> Request<Body> {
        // What follows an upgrade is no request that could be copied.
        if headers::is_upgrade(request.headers()) {
            return request;
        }
        for mirror in mirrors {
            if !mirror.takes(|denominator| self.random.borrow_mut().random_range(0..denominator)) {
                continue;
            }
            match self.mirrors.under_way.enter() {
                Ok(place) => {
                    let (original, mut copy, whole) = copy(request);
                    request = original;
                    let noted = Timeline::new(Instant::now());
                    timeline.note(|exchange| noted.notes().begin(exchange.copied(copy.headers_mut())));
                    let copy = Shadow {
                        mirror: mirror.clone(),
                        request: copy,
                        authority: authority.clone(),
                        timeout: timeout.unwrap_or(LONGEST),
                        timeline: noted,
                    };
                    self.clone().send_copy(copy, whole, place);
                }
                Err(_) => self.mirrors.count(&mirror.service, "overloaded"),
            }
        }
        request
    }

    fn send_copy(self: Rc<Self>, copy: Shadow, whole: Option<tee::Whole>, place: Place) {
        // Of its own type: there may be one for each request.
        tokio::task::spawn_local(async move {
            let _place = place;
            let service = copy.mirror.service.clone();
            let sent = tokio::time::timeout(copy.timeout, self.sent(copy)).await;
            let outcome = match sent {
                _ if whole.is_some_and(|whole| !whole.is_it()) => "truncated",
                Ok(Ok(true)) => "answered",
                Ok(Ok(false)) => "failed",
                Ok(Err(refusal)) => {
                    tracing::debug!(reason = refusal.reason.as_str(), %refusal, "a mirrored request was refused");
                    "refused"
                }
                Err(_) => "timeout",
            };
            self.mirrors.count(&service, outcome);
        });
    }

    /// Sends one copy, and reads what is answered to its end. Gives whether that was no failure.
    async fn sent(&self, copy: Shadow) -> Result<bool, Refusal> {
        let Shadow { mirror, request: copy, authority, timeout, timeline } = copy;
        let now = timeline.started();
        let service = self.services.get(&mirror.service, now).await?;
        let port = service.config()?.port(mirror.port).map(|port| port.target_port);
        let port = port.ok_or_else(|| {
            Refusal::new(Reason::UnknownPort, format_args!("{}:{}", mirror.service, mirror.port))
        })?;
        let _place = service.requests.enter()?;
        let source = &*self.needs.workload;
        let key = Steering::of(&service, &copy, source, &mut *self.random.borrow_mut()).key;
        let to = Destination {
            called: &service,
            backend: &service,
            port,
            endpoint: None,
            key,
            session: None,
            fallback: None,
        };
        let whole = Timeout { after: timeout, reason: Reason::RequestTimeout };
        let times = Times { whole: Some((now + timeout, whole)), each: None };
        // Once is enough: a copy is for looking at.
        let given_up = Outcome::Refused(Reason::RequestTimeout);
        let mut telling = Telling { timeline, edge: service.edge.clone(), outcome: given_up };
        let plan = Plan { times, rules: None, hedge: None, timeline: &telling.timeline, by: None };
        let Served { result, end, edge } = self.send(copy, authority, to, plan, &NoInterim).await;
        telling.edge = edge.unwrap_or(telling.edge.clone());
        let (outcome, result) = match result {
            Ok(response) => {
                let outcome = Outcome::Status(response.status());
                telling.timeline.note(|exchange| exchange.status = Some(response.status()));
                let mut body = response.into_body();
                while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                    if frame.is_err() {
                        break;
                    }
                }
                (outcome, Ok(!outcome.is_failure()))
            }
            Err(refusal) => (Outcome::Refused(refusal.reason), Err(refusal)),
        };
        telling.outcome = outcome;
        if let Some(mut end) = end {
            end.begun(outcome);
            end.ended(outcome, Instant::now());
        }
        result
    }
}

/// A copy of a request.
struct Shadow {
    mirror: Mirror,
    request: Request<Body>,
    authority: Authority,
    timeout: Duration,
    /// With what is noted of it, where its span is recorded.
    timeline: Timeline,
}

/// Tells those who record spans of a copy, however it ends. It counts for nobody's requests.
struct Telling {
    timeline: Timeline,
    edge: Rc<Edge>,
    /// As long as nothing else is known.
    outcome: Outcome,
}

impl Drop for Telling {
    fn drop(&mut self) {
        let Some(mut exchange) = self.timeline.notes().take() else { return };
        exchange.moments = self.timeline.moments();
        let took_us = self.timeline.started().elapsed().as_micros() as u64;
        let (edge, outcome) = (self.edge.key(), Some(self.outcome));
        self.edge.listeners().ended(exchange, &End { edge, outcome, took_us, split: None, received: 0 });
    }
}

/// Makes two of a request; the copy's body comes as that of the original is read.
fn copy(request: Request<Body>) -> (Request<Body>, Request<Body>, Option<tee::Whole>) {
    let (parts, body) = request.into_parts();
    let mut copy = Request::new(Body::Empty);
    *copy.method_mut() = parts.method.clone();
    *copy.uri_mut() = parts.uri.clone();
    *copy.version_mut() = parts.version;
    *copy.headers_mut() = parts.headers.clone();
    if body.is_end_stream() {
        return (Request::from_parts(parts, body), copy, None);
    }
    let (teed, copied) = tee::tee(body);
    let whole = copied.whole();
    *copy.body_mut() = Body::Wrapped(Box::new(copied));
    (Request::from_parts(parts, teed), copy, Some(whole))
}
