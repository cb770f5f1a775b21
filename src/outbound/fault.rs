//! Faults that policies have callers see, until they are over: as if the service did it, so what a delay takes counts against
//! the request's deadline, and only requests that would be sent to somebody see any.

use std::{
    rc::Rc,
    time::{Duration, SystemTime},
};

use ::http::{HeaderName, HeaderValue, Response};
use metrics::Counter;
use pillion_api::{
    model::{Abort, InjectedFault, Percent, RouteMatch},
    route::{RequestHead, fits_any},
};
use tokio::time::Instant;

use crate::{
    error::{More, Reason, Refusal},
    http::Body,
    telemetry::{names::Metric, prometheus::Registry},
};

/// On every response to a request that was made to see one.
const FAULT: HeaderName = HeaderName::from_static("pillion-fault");

/// The faults of one service, as far as they are for this caller.
#[derive(Debug)]
pub(super) struct Injector(Vec<Rc<Active>>);

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
        write!(f, "fault {} of policy {}", self.name, self.source)
    }
}

/// What one request is made to see: a delay at most, and an abort at most.
#[derive(Debug, Default)]
pub(super) struct Fate {
    delay: Option<(Duration, Rc<Active>)>,
    abort: Option<(Abort, Rc<Active>)>,
}

impl Injector {
    /// `caller`: what others see as the source of requests. `None`: nothing is for it. `now` and `wall` are the same moment.
    pub(super) fn new(
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
            Some(Rc::new(Active {
                name: fault.name.clone(),
                source: policy.to_owned(),
                matches: fault.matches.clone(),
                delay: fault.delay,
                abort: fault.abort,
                over: now + fault.until.duration_since(wall).ok()?,
                delays: counter(&fault.name, "delay"),
                aborts: counter(&fault.name, "abort"),
            }))
        });
        let active: Vec<_> = active.collect();
        (!active.is_empty()).then_some(Self(active))
    }
}

impl Fate {
    /// Adds what of a service's faults falls to a request. The first of each kind that does is taken, so the service that is
    /// added first goes before the other. `roll`: below [`Percent::OF`].
    pub(super) fn add(
        &mut self,
        faults: &Injector,
        head: RequestHead<'_>,
        now: Instant,
        mut roll: impl FnMut() -> u32,
    ) {
        for active in faults.0.iter().filter(|active| now < active.over) {
            if !fits_any(&active.matches, head) {
                continue;
            }
            if let (None, Some((delay, percent))) = (&self.delay, active.delay)
                && percent.takes(roll())
            {
                self.delay = Some((delay, active.clone()));
            }
            if let (None, Some((abort, percent))) = (&self.abort, active.abort)
                && percent.takes(roll())
            {
                self.abort = Some((abort, active.clone()));
            }
        }
    }

    /// Has its request see it. Gives what the response is to say of it.
    ///
    /// # Errors
    /// [`Reason::FaultInjected`], or the reason of the deadline.
    pub(super) async fn befall(self, deadline: Option<(Instant, Reason)>) -> Result<Mark, Refusal> {
        let mut mark = Mark(None);
        if let Some((delay, active)) = self.delay {
            active.delays.increment(1);
            mark = Mark(Some(Box::new(active.mark(format_args!("delay={}ms", delay.as_millis())))));
            let until = Instant::now() + delay;
            tokio::time::sleep_until(deadline.map_or(until, |(deadline, _)| until.min(deadline))).await;
            if let Some((_, reason)) = deadline.filter(|(deadline, _)| *deadline < until) {
                return Err(mark.refusal(Refusal::new(reason, format_args!("delayed by {active:?}"))));
            }
        }
        let Some((abort, active)) = self.abort else { return Ok(mark) };
        active.aborts.increment(1);
        mark = Mark(Some(Box::new(active.mark(format_args!("abort={}", abort.status.as_u16())))));
        let more = More { status: Some((abort.status, abort.grpc)), ..More::default() };
        Err(mark.refusal(Refusal::new(Reason::FaultInjected, format_args!("{active:?}")).with(more)))
    }
}

/// Says on a response what its request was made to see.
pub(super) struct Mark(Option<Box<HeaderValue>>);

impl Mark {
    /// Of a request that saw nothing.
    pub(super) const NONE: Self = Self(None);

    /// Has it said, also where there is no response.
    pub(super) fn put(self, result: &mut Result<Response<Body>, Refusal>) {
        match (&mut *result, self.0) {
            (_, None) => {}
            (Ok(response), Some(mark)) => drop(response.headers_mut().insert(FAULT, *mark)),
            (Err(refusal), Some(mark)) => say(refusal, *mark),
        }
    }

    fn refusal(self, mut refusal: Refusal) -> Refusal {
        if let Some(mark) = self.0 {
            say(&mut refusal, *mark);
        }
        refusal
    }
}

fn say(refusal: &mut Refusal, mark: HeaderValue) {
    refusal.more.get_or_insert_default().fields.push((FAULT, mark));
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
    use ::http::{HeaderMap, Method, StatusCode, Uri};
    use pillion_api::{
        model::{Caller, StringMatch},
        route::RequestHead,
    };

    use super::*;

    /// So many thousandths of a percent.
    fn share(number: u32) -> Percent {
        Percent::per_million(10 * number).expect("a share")
    }

    fn fault(name: &str, delay: Option<u64>, abort: Option<u16>, seconds: u64) -> InjectedFault {
        let status = |code| StatusCode::from_u16(code).expect("a status");
        InjectedFault {
            name: name.into(),
            matches: Vec::new(),
            callers: Vec::new(),
            delay: delay.map(|ms| (Duration::from_millis(ms), share(100))),
            abort: abort.map(|code| (Abort { status: status(code), grpc: 14 }, share(100))),
            until: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
        }
    }

    fn injector(faults: &[InjectedFault], caller: &str, now: Instant) -> Option<Injector> {
        let moment = (now, SystemTime::UNIX_EPOCH);
        Injector::new(faults, "n/p", "a.n", caller, moment, &Registry::new())
    }

    fn fate(injectors: &[&Injector], path: &str, now: Instant, roll: u32) -> Fate {
        let (uri, headers): (Uri, _) = (path.parse().expect("a path"), HeaderMap::new());
        let head = RequestHead { method: &Method::GET, uri: &uri, headers: &headers };
        let mut fate = Fate::default();
        for injector in injectors {
            fate.add(injector, head, now, || roll);
        }
        fate
    }

    fn seen(fate: &Fate) -> (Option<u64>, Option<u16>) {
        let delay = fate.delay.as_ref().map(|(delay, _)| delay.as_millis() as u64);
        (delay, fate.abort.as_ref().map(|(abort, _)| abort.status.as_u16()))
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
            (&web, "/slow/x", 0, 999, (Some(200), Some(503))),
            (&web, "/slow/x", 0, 1000, (None, None)),
            (&web, "/fast", 0, 0, (None, Some(503))),
            (&web, "/slow", 10, 0, (None, Some(503))),
            (&web, "/slow", 20, 0, (None, None)),
            (&other, "/slow", 0, 0, (Some(200), None)),
            (&other, "/fast", 0, 0, (None, None)),
        ] {
            let at = now + Duration::from_secs(seconds);
            assert_eq!(
                seen(&fate(&[injector], path, at, roll)),
                expected,
                "{path} after {seconds} s, {roll}"
            );
        }
        assert!(injector(&faults[2..], "web.n", now + Duration::from_secs(1)).is_none_or(|it| seen(&fate(
            &[&it],
            "/",
            now + Duration::from_secs(1),
            0
        )) == (
            None, None
        )));
        assert!(injector(&faults[1..2], "api.n", now).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_delay_counts_against_the_deadline_and_all_is_marked() {
        let now = Instant::now();
        let always = |mut fault: InjectedFault| {
            fault.delay = fault.delay.map(|(delay, _)| (delay, share(100_000)));
            fault.abort = fault.abort.map(|(abort, _)| (abort, share(100_000)));
            injector(&[fault], "web.n", now).expect("it is for it")
        };
        let befall = |faults: &Injector, deadline| fate(&[faults], "/", now, 0).befall(deadline);
        let slow = always(fault("slow", Some(200), None, 10));
        let mut answer = Ok(Response::new(Body::Empty));
        befall(&slow, None).await.expect("it goes on").put(&mut answer);
        assert_eq!(answer.expect("an answer").headers()[FAULT], "slow; policy=n/p; delay=200ms");
        assert_eq!(now.elapsed().as_millis(), 200);
        let began = Instant::now();
        let late = befall(&slow, Some((began + Duration::from_millis(100), Reason::RequestTimeout))).await;
        let late = late.err().expect("too late");
        assert_eq!(late.reason, Reason::RequestTimeout);
        assert_eq!(late.more.expect("it is marked").fields[0].1, "slow; policy=n/p; delay=200ms");
        assert_eq!(began.elapsed().as_millis(), 100);
        let refusal = befall(&always(fault("down", None, Some(418), 10)), None).await;
        let refusal = refusal.err().expect("it is aborted");
        assert_eq!(refusal.reason, Reason::FaultInjected);
        let more = refusal.more.expect("a status of its own");
        assert_eq!(more.status, Some((StatusCode::IM_A_TEAPOT, 14)));
        assert_eq!(more.fields[0].1, "down; policy=n/p; abort=418");
    }

    #[tokio::test(start_paused = true)]
    async fn of_each_kind_the_service_called_goes_before_the_backend() {
        let now = Instant::now();
        let called = injector(&[fault("slow", Some(200), None, 10)], "web.n", now).expect("it is for it");
        let both = fault("worse", Some(900), Some(503), 10);
        let backend = injector(&[both], "web.n", now).expect("it is for it");
        assert_eq!(seen(&fate(&[&called, &backend], "/", now, 0)), (Some(200), Some(503)));
        assert_eq!(seen(&fate(&[&backend, &called], "/", now, 0)), (Some(900), Some(503)));
    }
}
