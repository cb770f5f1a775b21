//! What takes over where a service cannot serve: another service, or an answer that is always the same. One step, never a
//! circle: the fallback of a fallback does not count.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use ::http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE},
    uri::Authority,
};
use metrics::Counter;
use pillion_api::{
    model::{Fallback, FallbackTo, FixedResponse, On},
    name::ServiceName,
};
use tokio::time::Instant;

use super::{
    Outbound,
    attempt::{Destination, Held, Plan, told},
    services::Service,
    steer::Steering,
};
use crate::{
    error::{Reason, Refusal},
    http::{
        Body, InterimSink, client,
        headers::{self, ERROR, FALLBACK},
        refusal::percent_encoded,
        replay::{Replay, Room},
    },
    middleware::{Served, limit::Place, record::End},
    telemetry::{edge::Outcome, names::Metric},
};

/// It is said once in the log; again when there was none for so long.
const QUIET: Duration = Duration::from_secs(10);

/// How often fallbacks have taken over for a service, or could not either.
#[derive(Debug, Default)]
pub(super) struct FellBack {
    /// Few.
    counted: RefCell<Vec<Counted>>,
    /// When that last happened.
    last: Cell<Option<Instant>>,
}

#[derive(Debug)]
struct Counted {
    reason: Reason,
    to: Box<str>,
    result: &'static str,
    counter: Counter,
}

/// What a reason is to a policy's `on`.
fn occasion(reason: Reason) -> Option<On> {
    Some(match reason {
        Reason::NoEndpoints | Reason::NoAddress => On::NoEndpoints,
        Reason::NoReadyEndpoints => On::NoReadyEndpoints,
        Reason::BreakersOpen => On::BreakersOpen,
        Reason::TooManyRequests | Reason::QueueFull | Reason::ConnectionLimit => On::LimitReached,
        Reason::Connect
        | Reason::ConnectTimeout
        | Reason::TlsHandshake
        | Reason::PeerIdentity
        | Reason::AppConnect
        | Reason::NotProcessed => On::ConnectFailure,
        _ => return None,
    })
}

/// Whether a fallback is for a failure.
pub(super) fn covers(fallback: &Fallback, reason: Reason) -> bool {
    occasion(reason).is_some_and(|on| fallback.on.contains(&on))
}

/// Whether it was a fallback that has answered.
pub(super) fn stepped_in(served: &Served<Held>) -> bool {
    served.result.as_ref().is_ok_and(|response| response.headers().contains_key(FALLBACK))
}

/// Why nobody has served a request. Also where the peer's sidecar says that its application does not take connections.
fn failure(served: &Served<Held>) -> Option<Refusal> {
    match &served.result {
        Err(refusal) => Some(refusal.clone()),
        Ok(response) => {
            let error = response.headers().get(ERROR)?.to_str().ok()?;
            (told(response.headers())? == Reason::AppConnect).then(|| Refusal::new(Reason::AppConnect, error))
        }
    }
}

/// A request that can be had once more, as long as no more of its body has been sent than is kept.
struct Spare {
    head: Request<Body>,
    /// `None`: it has none, or none that is needed.
    body: Option<Replay>,
}

impl Spare {
    /// Keeps at most `most` bytes for what takes over, if there is room. An answer that is always the same needs none.
    fn of(to: &FallbackTo, request: Request<Body>, most: usize, room: &Rc<Room>) -> (Request<Body>, Self) {
        let head = client::head_of(&request);
        if matches!(to, FallbackTo::Response(_)) || http_body::Body::is_end_stream(request.body()) {
            return (request, Self { head, body: None });
        }
        let (parts, body) = request.into_parts();
        let (body, replay) = Replay::of(body, most, room);
        (Request::from_parts(parts, body), Self { head, body: Some(replay) })
    }

    fn back(self) -> Option<Request<Body>> {
        match self.body {
            None => Some(self.head),
            Some(replay) => replay.reader().map(|body| self.head.map(|_| body)),
        }
    }
}

impl Outbound {
    /// Sends a request as always; where that fails for a reason that the fallback is for, has it take over.
    pub(super) async fn send_or_fall_back(
        &self,
        fallback: &Fallback,
        request: Request<Body>,
        authority: Authority,
        to: Destination<'_>,
        plan: Plan<'_>,
        interim: &dyn InterimSink,
    ) -> Served<Held> {
        let (request, spare) = Spare::of(&fallback.to, request, plan.kept(), &self.kept);
        let mut served = self.send(request, authority.clone(), to, plan, interim).await;
        let Some(refusal) = failure(&served).filter(|refusal| covers(fallback, refusal.reason)) else {
            return served;
        };
        let Some(request) = spare.back() else { return served };
        if let Some(mut end) = served.end.take() {
            // Its breaker is told how it was, whatever comes now.
            end.begun(match &served.result {
                Ok(response) => Outcome::Status(response.status()),
                Err(refusal) => Outcome::Refused(refusal.reason),
            });
        }
        // Its answer, and the connection's window that it holds, are not needed any more.
        drop(served);
        self.fall_back(fallback, refusal, request, authority, to.called, plan, interim).await
    }

    /// Has the fallback answer what was refused.
    #[expect(clippy::too_many_arguments, reason = "those of `send`, the fallback, and what it is for")]
    pub(super) async fn fall_back(
        &self,
        fallback: &Fallback,
        refusal: Refusal,
        request: Request<Body>,
        authority: Authority,
        called: &Service,
        plan: Plan<'_>,
        interim: &dyn InterimSink,
    ) -> Served<Held> {
        // What is waited for from here on is no part of what has failed.
        plan.timeline.attempt(Instant::now());
        let mut served = match &fallback.to {
            FallbackTo::Response(fixed) => {
                Served { result: Ok(answer(fixed, &request)), edge: None, end: None }
            }
            FallbackTo::Backend { service, port } => {
                match Box::pin(self.fallback_backend(called, service, *port)).await {
                    Err(second) => Served::refused(second),
                    Ok((backend, port, place)) => {
                        let source = &*self.needs.workload;
                        let steering =
                            Steering::of(&backend, &request, source, &mut *self.random.borrow_mut());
                        let key = steering.key;
                        let to = Destination {
                            called,
                            backend: &backend,
                            port,
                            endpoint: None,
                            key,
                            session: None,
                            // The fallback of a fallback does not count.
                            fallback: None,
                        };
                        let mut sent = Box::pin(self.send(request, authority, to, plan, interim)).await;
                        if let Some(end) = &mut sent.end {
                            end.keep(place);
                        }
                        steering.mark(sent)
                    }
                }
            }
        };
        match &mut served.result {
            Ok(response) => {
                self.fell_back(called, fallback, &refusal, "served");
                let mark = format!("{}; to={}", refusal.reason.as_str(), name(fallback));
                let mark =
                    HeaderValue::try_from(mark).expect("reasons and names of services are visible ASCII");
                response.headers_mut().insert(FALLBACK, mark);
                served
            }
            Err(second) => {
                self.fell_back(called, fallback, &refusal, "failed");
                let second = second.clone();
                if let Some(mut end) = served.end.take() {
                    end.begun(Outcome::Refused(second.reason));
                }
                Served::refused(both(&refusal, fallback, &second))
            }
        }
    }

    /// The service that takes over, the application port there, and a place among its requests.
    pub(super) async fn fallback_backend(
        &self,
        called: &Service,
        service: &ServiceName,
        port: u16,
    ) -> Result<(Rc<Service>, u16, Option<Place>), Refusal> {
        let backend = self.services.get(service, Instant::now()).await?;
        let found = backend.config()?.port(port).map(|port| port.target_port);
        let target =
            found.ok_or_else(|| Refusal::new(Reason::UnknownPort, format_args!("{service}:{port}")))?;
        let place = backend.place_beside(called)?;
        Ok((backend, target, place))
    }

    /// Counts and says that a fallback was needed.
    pub(super) fn fell_back(
        &self,
        called: &Service,
        fallback: &Fallback,
        refusal: &Refusal,
        result: &'static str,
    ) {
        let FellBack { counted, last } = &called.fell_back;
        let (reason, to) = (refusal.reason, name(fallback));
        let mut counted = counted.borrow_mut();
        let same = |it: &Counted| it.reason == reason && it.result == result && *it.to == *to;
        let known = counted.iter().position(same).unwrap_or_else(|| {
            let labels = [called.name.as_str(), reason.as_str(), to, result];
            let counter = self.needs.registry.counter(Metric::Fallbacks, &labels);
            counted.push(Counted { reason, to: to.into(), result, counter });
            counted.len() - 1
        });
        counted[known].counter.increment(1);
        let now = Instant::now();
        let before = last.replace(Some(now));
        if before.is_none_or(|before| now - before > QUIET) {
            let service = &called.name;
            tracing::warn!(%service, to, result, reason = reason.as_str(), %refusal, "the fallback takes over");
        }
    }
}

/// What takes over, for people.
pub(super) fn name(fallback: &Fallback) -> &str {
    match &fallback.to {
        FallbackTo::Response(_) => "response",
        FallbackTo::Backend { service, .. } => service.as_str(),
    }
}

/// Neither could: the first reason, with why the fallback was no help.
pub(super) fn both(first: &Refusal, fallback: &Fallback, second: &Refusal) -> Refusal {
    let detail = format_args!("{}; nor could the fallback {}: {second}", first.detail, name(fallback));
    Refusal::new(first.reason, detail)
}

/// The fixed response to a request. To gRPC, a trailers-only response.
fn answer(fixed: &FixedResponse, request: &Request<Body>) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    let headers = response.headers_mut();
    headers.clone_from(&fixed.headers);
    if headers::is_grpc(request.headers()) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from(u16::from(fixed.grpc_status)));
        if !fixed.grpc_message.is_empty() {
            headers.insert("grpc-message", percent_encoded(&fixed.grpc_message));
        }
        return response;
    }
    // It stands for something that is not there for the moment.
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    let bodiless = matches!(fixed.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    *response.status_mut() = fixed.status;
    if !bodiless && request.method() != Method::HEAD {
        *response.body_mut() = Body::Full(fixed.body.clone());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_occasion_is_one_of_which_nothing_was_processed() {
        let mut seen = Vec::new();
        for reason in Reason::ALL {
            let Some(on) = occasion(*reason) else { continue };
            assert!(reason.unprocessed(), "{reason:?} may have been processed");
            if !seen.contains(&on) {
                seen.push(on);
            }
        }
        assert_eq!(seen.len(), 5);
    }

    #[test]
    fn a_fixed_response_fits_its_request() {
        let fixed = FixedResponse {
            status: StatusCode::OK,
            headers: [(CONTENT_TYPE, HeaderValue::from_static("application/json"))].into_iter().collect(),
            body: "[]".into(),
            grpc_status: 14,
            grpc_message: "later, 100 %".into(),
        };
        let request = |method, kind: &'static str| {
            let mut request = Request::new(Body::Empty);
            *request.method_mut() = method;
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            request
        };
        let http = answer(&fixed, &request(Method::GET, "text/plain"));
        assert_eq!(
            (http.status().as_u16(), &http.headers()[CONTENT_TYPE]),
            (200, &"application/json".parse().expect("a value"))
        );
        assert!(matches!(http.body(), Body::Full(body) if body == "[]"));
        assert!(matches!(answer(&fixed, &request(Method::HEAD, "text/plain")).body(), Body::Empty));
        let empty = FixedResponse { status: StatusCode::NO_CONTENT, ..fixed.clone() };
        assert!(matches!(answer(&empty, &request(Method::GET, "text/plain")).body(), Body::Empty));
        let grpc = answer(&fixed, &request(Method::POST, "application/grpc+proto"));
        assert_eq!(
            (grpc.status().as_u16(), &grpc.headers()["grpc-status"]),
            (200, &"14".parse().expect("a value"))
        );
        assert_eq!(grpc.headers()["grpc-message"], "later, 100 %25");
        assert!(matches!(grpc.body(), Body::Empty));
    }
}
