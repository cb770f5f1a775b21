//! Faults that a policy of the service has its callers see, until they are over: as if the service did it, so what a delay
//! takes counts against the request's deadline.

use std::time::{Duration, SystemTime};

use http::{HeaderName, HeaderValue, Request, Response};
use metrics::Counter;
use pillion_api::{
    model::{Abort, InjectedFault, Percent, RouteMatch},
    route::{RequestHead, fits_any},
};
use rand::Rng;
use tokio::time::Instant;

use crate::{
    error::{More, Reason, Refusal},
    http::Body,
    telemetry::{names::Metric, prometheus::Registry},
};

/// On every response to a request that was made to see one.
pub const FAULT: HeaderName = HeaderName::from_static("pillion-fault");

/// The faults of one service, as far as they are for this caller.
#[derive(Debug)]
pub struct Injector(Vec<Active>);

struct Active {
    name: String,
    /// The policy.
    source: String,
    matches: Vec<RouteMatch>,
    delay: Option<(Duration, Percent)>,
    abort: Option<(Abort, Percent)>,
    over: Instant,
    delays: Counter,
    aborts: Counter,
}

impl std::fmt::Debug for Active {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.name, self.source)
    }
}

/// What one request is made to see.
#[derive(Debug, Default, Clone, Copy)]
struct Fate<'a> {
    delay: Option<(Duration, &'a Active)>,
    abort: Option<(Abort, &'a Active)>,
}

impl Injector {
    /// `caller`: what others see as the source of requests. `None`: nothing is for it. `now` and `wall` are the same moment.
    pub fn new(
        faults: &[InjectedFault],
        policy: &str,
        target: &str,
        caller: &str,
        (now, wall): (Instant, SystemTime),
        registry: &Registry,
    ) -> Option<Self> {
        let counter =
            |name: &str, kind: &str| registry.counter(Metric::FaultsInjected, &[target, name, kind]);
        let active = faults.iter().filter(|fault| fault.is_for(caller)).filter_map(|fault| {
            Some(Active {
                name: fault.name.clone(),
                source: policy.to_owned(),
                matches: fault.matches.clone(),
                delay: fault.delay,
                abort: fault.abort,
                over: now + fault.until.duration_since(wall).ok()?,
                delays: counter(&fault.name, "delay"),
                aborts: counter(&fault.name, "abort"),
            })
        });
        let active: Vec<_> = active.collect();
        (!active.is_empty()).then_some(Self(active))
    }

    /// The first delay and the first abort that fall to a request. `roll`: from 0 to 99.
    fn decide(&self, head: RequestHead<'_>, now: Instant, mut roll: impl FnMut() -> Percent) -> Fate<'_> {
        let mut fate = Fate::default();
        for active in self.0.iter().filter(|active| now < active.over) {
            if !fits_any(&active.matches, head) {
                continue;
            }
            if let (None, Some((delay, percent))) = (fate.delay, active.delay)
                && roll() < percent
            {
                fate.delay = Some((delay, active));
            }
            if let (None, Some((abort, percent))) = (fate.abort, active.abort)
                && roll() < percent
            {
                fate.abort = Some((abort, active));
            }
        }
        fate
    }

    /// Has a request see what falls to it. Gives what its response is marked with.
    ///
    /// # Errors
    /// [`Reason::FaultInjected`], [`Reason::RequestTimeout`].
    pub async fn inject(
        &self,
        request: &Request<Body>,
        deadline: Option<(Instant, Reason)>,
    ) -> Result<Option<Box<HeaderValue>>, Refusal> {
        let now = Instant::now();
        let head = RequestHead { method: request.method(), uri: request.uri(), headers: request.headers() };
        let Fate { delay, abort } = self.decide(head, now, || rand::rng().random_range(0..100));
        let mut mark = None;
        if let Some((delay, active)) = delay {
            active.delays.increment(1);
            mark = Some(active.mark(format_args!("delay={}ms", delay.as_millis())));
            let until = now + delay;
            tokio::time::sleep_until(deadline.map_or(until, |(deadline, _)| until.min(deadline))).await;
            if let Some((_, reason)) = deadline.filter(|(deadline, _)| *deadline < until) {
                let detail = format_args!("delayed by fault {} of policy {}", active.name, active.source);
                return Err(Refusal::new(reason, detail));
            }
        }
        if let Some((abort, active)) = abort {
            active.aborts.increment(1);
            let detail = format_args!("fault {} of policy {}", active.name, active.source);
            let mark = active.mark(format_args!("abort={}", abort.status.as_u16()));
            return Err(Refusal::new(Reason::FaultInjected, detail).with(More {
                status: Some((abort.status, abort.grpc)),
                fields: vec![(FAULT, mark)],
                ..More::default()
            }));
        }
        Ok(mark.map(Box::new))
    }
}

/// Says on a response what its request was made to see.
pub fn mark(mark: Option<Box<HeaderValue>>, result: &mut Result<Response<Body>, Refusal>) {
    if let (Some(mark), Ok(response)) = (mark, result) {
        response.headers_mut().insert(FAULT, *mark);
    }
}

impl Active {
    /// Such as `outage; policy=demo/payments; abort=503`.
    fn mark(&self, what: std::fmt::Arguments<'_>) -> HeaderValue {
        let text = format!("{}; policy={}; {what}", self.name, self.source);
        HeaderValue::try_from(text).expect("names of documents and faults are visible ASCII")
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method, StatusCode, Uri};
    use pillion_api::{
        model::{Caller, StringMatch},
        route::RequestHead,
    };

    use super::*;

    fn fault(name: &str, delay: Option<u64>, abort: Option<u16>, seconds: u64) -> InjectedFault {
        let status = |code| StatusCode::from_u16(code).expect("a status");
        InjectedFault {
            name: name.into(),
            matches: Vec::new(),
            callers: Vec::new(),
            delay: delay.map(|ms| (Duration::from_millis(ms), 50)),
            abort: abort.map(|code| (Abort { status: status(code), grpc: 14 }, 50)),
            until: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
        }
    }

    fn injector(faults: &[InjectedFault], caller: &str, now: Instant) -> Option<Injector> {
        let moment = (now, SystemTime::UNIX_EPOCH);
        Injector::new(faults, "n/p", "a.n", caller, moment, &Registry::new())
    }

    fn fate(injector: &Injector, path: &str, now: Instant, roll: Percent) -> (Option<u64>, Option<u16>) {
        let (uri, headers): (Uri, _) = (path.parse().expect("a path"), HeaderMap::new());
        let head = RequestHead { method: &Method::GET, uri: &uri, headers: &headers };
        let fate = injector.decide(head, now, || roll);
        (
            fate.delay.map(|(delay, _)| delay.as_millis() as u64),
            fate.abort.map(|(abort, _)| abort.status.as_u16()),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn it_falls_by_chance_and_match_to_some_callers_until_it_is_over() {
        let now = Instant::now();
        let path = Some(StringMatch::PathPrefix("/slow".into()));
        let mut slow = fault("slow", Some(200), None, 10);
        slow.matches = vec![RouteMatch { path, ..RouteMatch::default() }];
        let mut down = fault("down", None, Some(503), 20);
        down.callers = vec![Caller { namespace: "n".into(), service: Some("web".into()) }];
        let faults = [slow, down, fault("gone", Some(1), Some(500), 0)];
        let (web, other) = (injector(&faults, "web.n", now), injector(&faults, "other.n", now));
        let (web, other) = (web.expect("some are for it"), other.expect("one is for it"));
        for (injector, path, seconds, roll, expected) in [
            (&web, "/slow/x", 0, 49, (Some(200), Some(503))),
            (&web, "/slow/x", 0, 50, (None, None)),
            (&web, "/fast", 0, 0, (None, Some(503))),
            (&web, "/slow", 10, 0, (None, Some(503))),
            (&web, "/slow", 20, 0, (None, None)),
            (&other, "/slow", 0, 0, (Some(200), None)),
            (&other, "/fast", 0, 0, (None, None)),
        ] {
            let at = now + Duration::from_secs(seconds);
            assert_eq!(fate(injector, path, at, roll), expected, "{path} after {seconds} s, {roll}");
        }
        assert!(
            injector(&faults[2..], "web.n", now + Duration::from_secs(1))
                .is_none_or(|it| { fate(&it, "/", now + Duration::from_secs(1), 0) == (None, None) })
        );
        assert!(injector(&faults[1..2], "api.n", now).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_delay_counts_against_the_deadline_and_all_is_marked() {
        let now = Instant::now();
        let always = |mut fault: InjectedFault| {
            fault.delay = fault.delay.map(|(delay, _)| (delay, 100));
            fault.abort = fault.abort.map(|(abort, _)| (abort, 100));
            injector(&[fault], "web.n", now).expect("it is for it")
        };
        let request = Request::new(Body::Empty);
        let slow = always(fault("slow", Some(200), None, 10));
        let mark = slow.inject(&request, None).await.expect("it goes on").expect("it is marked");
        assert_eq!(
            (mark.as_bytes(), now.elapsed().as_millis()),
            (&b"slow; policy=n/p; delay=200ms"[..], 200)
        );
        let now = Instant::now();
        let late =
            slow.inject(&request, Some((now + Duration::from_millis(100), Reason::RequestTimeout))).await;
        assert_eq!(late.expect_err("too late").reason, Reason::RequestTimeout);
        assert_eq!(now.elapsed().as_millis(), 100);
        let refusal = always(fault("down", None, Some(418), 10)).inject(&request, None).await;
        let refusal = refusal.expect_err("it is aborted");
        assert_eq!(refusal.reason, Reason::FaultInjected);
        let more = refusal.more.expect("a status of its own");
        assert_eq!(more.status, Some((StatusCode::IM_A_TEAPOT, 14)));
        assert_eq!(more.fields[0].1, "down; policy=n/p; abort=418");
    }
}
