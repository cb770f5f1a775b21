//! The outbound tail's first half: which policy holds for a request, and which backend by the service's routes.

use std::rc::Rc;

use ::http::{Request, Response, uri::Authority};
use pillion_api::{
    model::{self, RouteRule},
    route::{self, Decision, RequestHead},
};
use rand::Rng;
use tokio::time::Instant;

use super::{
    Outbound, Target,
    attempt::{Destination, Held, Times},
    services::Service,
    steer::Steering,
};
use crate::{
    error::{Reason, Refusal},
    http::{Body, InterimSink},
    middleware::{self, Policy, Served, fault::FAULT, record::Recorded},
};

impl Outbound {
    /// Takes a request for a service down the chain.
    pub(super) async fn call(
        self: &Rc<Self>,
        request: Request<Body>,
        authority: Authority,
        target: &Target,
        interim: &dyn InterimSink,
    ) -> Response<Recorded<Held>> {
        let now = Instant::now();
        let found = self.services.get(&target.service, now).await;
        let found = found.and_then(|service| service.config().map(|config| (service, config)));
        let (service, config) = match found {
            Ok(found) => found,
            Err(refusal) => {
                return Box::pin(self.refuse(request, self.refused_edge(), refusal)).await;
            }
        };
        let head = RequestHead { method: request.method(), uri: request.uri(), headers: request.headers() };
        // Routes are for the service; whoever names an endpoint means that one.
        let decision = match target.endpoint {
            None => route::choose(&config, target.port, head),
            Some(_) => Decision::Direct,
        };
        let rule = match decision {
            Decision::Rule(rule) => Some(rule),
            Decision::Direct | Decision::NoMatch => None,
        };
        let faults = service.faults();
        let policy = Policy {
            voice: &self.voice,
            edge: service.edge.clone(),
            limit: Some(&service.requests),
            faults: faults.as_deref(),
            guard: None,
            timeout: rule.and_then(|rule| rule.request_timeout).or(config.policy.request_timeout),
            open: &self.open,
            request_headers: rule.map(|rule| &rule.request_headers).filter(|changes| !changes.is_empty()),
            response_headers: rule.map(|rule| &rule.response_headers).filter(|changes| !changes.is_empty()),
        };
        let times = Times {
            whole: policy.timeout.map(|timeout| (now + timeout, timeout)),
            each: rule.and_then(|rule| rule.backend_request_timeout),
        };
        let tail = |request| async {
            if matches!(decision, Decision::NoMatch) {
                return Served::refused(Refusal::new(Reason::RouteNotMatched, &target.service));
            }
            match self.backend(&service, &config, target.port, rule).await {
                Ok((backend, port)) => {
                    let marked = match backend.faults().filter(|_| !Rc::ptr_eq(&backend, &service)) {
                        None => None,
                        Some(faults) => {
                            let deadline = times.whole.map(|(deadline, _)| deadline);
                            let now = Instant::now();
                            match Box::pin(faults.inject(&request, now, deadline)).await {
                                Ok(mark) => mark.map(Box::new),
                                Err(refusal) => return Served::refused(refusal),
                            }
                        }
                    };
                    let endpoint = target.endpoint.as_deref();
                    let source = &*self.needs.workload;
                    let steering = Steering::of(&backend, &request, source, &mut *self.random.borrow_mut());
                    let key = steering.key;
                    let to = Destination { called: &service, backend: &backend, port, endpoint, key };
                    let mut served =
                        steering.mark(self.send(request, authority, now, to, times, interim).await);
                    if let (Some(mark), Ok(response)) = (marked, &mut served.result) {
                        response.headers_mut().insert(FAULT, *mark);
                    }
                    served
                }
                Err(refusal) => Served::refused(refusal),
            }
        };
        middleware::run(request, now, policy, tail).await
    }

    /// The service that gets the request, and the application port there.
    async fn backend(
        &self,
        called: &Rc<Service>,
        config: &model::Service,
        port: u16,
        rule: Option<&RouteRule>,
    ) -> Result<(Rc<Service>, u16), Refusal> {
        let Some(rule) = rule else {
            let known = config.port(port).map(|port| (called.clone(), port.target_port));
            return known
                .ok_or_else(|| Refusal::new(Reason::UnknownPort, format_args!("{}:{port}", called.name)));
        };
        let chosen = route::backend(&rule.backends, |total| self.random.borrow_mut().random_range(0..total));
        let chosen = chosen.ok_or_else(|| {
            Refusal::new(Reason::NoBackend, format_args!("rule {} of route {}", rule.rule, rule.route))
        })?;
        let absent = |detail: &dyn std::fmt::Display| {
            Refusal::new(Reason::NoBackend, format_args!("{detail}, named by route {}", rule.route))
        };
        let backend = if chosen.service == called.name {
            called.clone()
        } else {
            self.services.get(&chosen.service, Instant::now()).await.map_err(|refusal| {
                match refusal.reason {
                    Reason::UnknownService => absent(&chosen.service),
                    _ => refusal,
                }
            })?
        };
        let target_port = backend.config()?.port(chosen.port).map(|port| port.target_port);
        let target_port =
            target_port.ok_or_else(|| absent(&format_args!("{}:{}", chosen.service, chosen.port)))?;
        Ok((backend, target_port))
    }
}
