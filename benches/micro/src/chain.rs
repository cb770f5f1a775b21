//! The chain around an answer that is there at once: with nothing switched on, with everything, and with somebody who listens.

use std::{
    path::Path,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use http::{HeaderValue, Request, Response, header};
use pillion_api::{
    model::{AccessLog as Wanted, HeaderModifier, Percent},
    wire::{StartTap, TapFilter},
};
use pillion_proxy::{
    error::{Hop, Reason},
    http::{Body, refusal::Voice},
    middleware::{self, Policy, Served, Timeout, limit::Limit},
    net::listen::Open,
    telemetry::{
        access_log::{AccessLog, Sink},
        edge::{Edge, Edges},
        hops::Timeline,
        listeners::{Heard, Listeners},
        tap::{Taps, Watching},
    },
};

use tokio::time::Instant;

use crate::{Case, telemetry};

/// One request down the chain and back.
#[derive(Debug)]
pub struct Chain {
    runtime: tokio::runtime::Runtime,
    voice: Voice,
    edge: Rc<Edge>,
    limit: Option<Limit>,
    timeout: Option<Duration>,
    open: Open,
    changes: Option<HeaderModifier>,
}

impl Chain {
    /// Only what every request goes through.
    pub fn bare() -> Self {
        // Timeouts need a runtime's clock; nothing else here does.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        Self {
            runtime: runtime.expect("a runtime without I/O"),
            voice: Voice { hop: Hop::Outbound, workload: "client-1".into() },
            edge: telemetry::edge(&Edges::default()),
            limit: None,
            timeout: None,
            open: Open::default(),
            changes: None,
        }
    }

    /// An access log that would have it if it failed, as of nearly all requests.
    pub fn heard() -> Self {
        let successes = Percent::per_million(0).expect("none is a share");
        let wanted = Wanted { successes, ..Wanted::default() };
        let sink = Sink::new(Some(Path::new("/dev/null"))).expect("it is on every system");
        let listeners = Rc::new(Listeners::default());
        let log = AccessLog::new(Arc::new(wanted), Arc::new(sink));
        listeners.set(Heard { log: Some(log), ..Heard::default() });
        Self { edge: telemetry::edge(&Edges::new(false, listeners)), ..Self::bare() }
    }

    /// Somebody who watches other requests live.
    pub fn watched() -> Self {
        let mut taps = Taps::new(Arc::default());
        let filter = Some(TapFilter { path_prefix: "/admin".into(), ..TapFilter::default() });
        taps.start(StartTap { filter, lease_ms: 1000, ..StartTap::default() }, Instant::now());
        let taps = taps.follow().borrow().clone().expect("one");
        let listeners = Rc::new(Listeners::default());
        let watching = Some(Watching { taps, workload: "client-1".into() });
        listeners.set(Heard { watching, ..Heard::default() });
        Self { edge: telemetry::edge(&Edges::new(false, listeners)), ..Self::bare() }
    }

    /// A limit, a deadline, and changes to both heads.
    pub fn with_everything() -> Self {
        let set = (header::HeaderName::from_static("x-bench"), HeaderValue::from_static("1"));
        let changes = HeaderModifier { set: vec![set], ..Default::default() };
        Self {
            limit: Some(Limit::new(1024, Reason::TooManyRequests)),
            timeout: Some(Duration::from_secs(1)),
            changes: Some(changes),
            ..Self::bare()
        }
    }
}

impl Case for Chain {
    type Output = ();

    fn run(&mut self) {
        let _clock = self.runtime.enter();
        let request = Request::builder()
            .uri("http://backend.bench/api/v1/items?page=2")
            .header(header::HOST, "backend.bench")
            .header(header::ACCEPT, "*/*")
            .header(header::USER_AGENT, "bench")
            .body(Body::Empty)
            .expect("a valid request");
        let timeline = Timeline::new(Instant::now());
        let policy = Policy {
            voice: &self.voice,
            timeline: &timeline,
            edge: self.edge.clone(),
            place: self.limit.as_ref().map(Limit::enter).transpose(),
            guard: None,
            report: None,
            caller: None,
            rule: None,
            policies: None,
            timeout: Timeout::of(self.timeout, None),
            idle: None,
            open: &self.open,
            request_headers: self.changes.as_ref(),
            response_headers: self.changes.as_ref(),
        };
        let tail = async |_| Served { result: Ok(Response::new(Body::Empty)), edge: None, end: Some(()) };
        let running = pin!(middleware::run(request, policy, tail));
        match running.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(response) => drop(response),
            Poll::Pending => unreachable!("the tail answers at once"),
        }
    }
}
