//! What of a document does nothing although it is right: because of what stands beside it, of the time, or of whom it names.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

use gateway_api::experimental::httproutes::{HttpRouteRules as Rule, HttpRouteRulesMatches as Match};
use pillion_api::holds::{self, Say};
use serde_json::Value;

use super::{
    Document, Documents, Fault, Key, Kind, Resource,
    attachments::{Attached, Attachments},
    duration,
    policy::{TrafficPolicySpec, faults},
    references::Policy,
    route,
    standing::FromSidecars,
};

/// Whom and what is looked at beside a document.
pub(super) struct Beside<'documents> {
    documents: &'documents Documents,
    /// By their Service.
    routes: BTreeMap<Key, Vec<(Key, Attached)>>,
    /// Which serve requests that a route leads to them.
    backends: BTreeSet<Key>,
    now: SystemTime,
}

impl<'documents> Beside<'documents> {
    pub(super) fn new(documents: &'documents Documents, attachments: &Attachments, now: SystemTime) -> Self {
        let mut routes: BTreeMap<Key, Vec<(Key, Attached)>> = BTreeMap::new();
        for ((key, _), attached) in attachments {
            if let Ok(it) = attached {
                routes.entry(it.service.clone()).or_default().push((key.clone(), it.clone()));
            }
        }
        let backends = documents.routes().flat_map(|(key, document)| backends(key, document)).collect();
        Self { documents, routes, backends, now }
    }

    /// What does nothing of a document by itself.
    pub(super) fn of(&self, document: &Document, sidecars: &FromSidecars) -> Vec<Fault> {
        match document {
            Document::HttpRoute(_) | Document::GrpcRoute(_) => self.of_route(document),
            Document::TrafficPolicy(policy) => {
                let mut told = self.of_policy(&policy.spec);
                told.extend(self.strangers(&policy.metadata.namespace, &policy.spec, sidecars));
                told
            }
            _ => Vec::new(),
        }
    }

    fn of_policy(&self, spec: &TrafficPolicySpec) -> Vec<Fault> {
        let mut told = Vec::new();
        for (index, fault) in spec.faults.iter().flatten().enumerate() {
            let Some(until) = fault.until.as_ref().filter(|_| faults::left(fault, self.now).is_none()) else {
                continue;
            };
            told.push(match &fault.r#for {
                Some(_) => Fault::new(
                    format!("spec.faults[{index}]"),
                    format!(
                        "fault {} is over since {until}, and is not begun anew; delete the policy first",
                        fault.name.clone().unwrap_or_else(|| index.to_string())
                    ),
                ),
                None => Fault::new(
                    format!("spec.faults[{index}].until"),
                    format!("is over, {until}: nothing is injected"),
                ),
            });
        }
        let timeouts = spec.timeouts.as_ref();
        let of = |text: Option<&String>| duration::parse(text?).ok();
        let attempt = timeouts.and_then(|it| it.attempt.as_ref());
        let request = timeouts.and_then(|it| it.request.as_ref());
        if let (Some(each), Some(whole)) = (of(attempt), of(request))
            && each >= whole
        {
            let (each, whole) = (attempt.expect("parsed"), request.expect("parsed"));
            told.push(Fault::new(
                "spec.timeouts.attempt",
                format!("has no effect: {each} is not less than timeouts.request, {whole}"),
            ));
        }
        told
    }

    /// Callers and clients that a policy names and nobody knows.
    fn strangers(&self, own: &str, spec: &TrafficPolicySpec, sidecars: &FromSidecars) -> Vec<Fault> {
        let mut told = Vec::new();
        for (at, fault) in spec.faults.iter().flatten().enumerate() {
            for (index, caller) in fault.callers.iter().flatten().enumerate() {
                let namespace = caller.namespace.as_deref().unwrap_or(own);
                let (known, who) = match &caller.service {
                    Some(name) => {
                        let full = format!("{name}.{namespace}");
                        let known = self.documents.service(namespace, name).is_some()
                            || sidecars.callers.contains(&full);
                        (known, format!("neither a Service nor a workload {full}"))
                    }
                    None => {
                        let known = self.documents.services(Some(namespace)).next().is_some()
                            || sidecars
                                .callers
                                .iter()
                                .any(|it| it.split_once('.').is_some_and(|it| it.1 == namespace));
                        (known, format!("nothing in namespace {namespace}"))
                    }
                };
                if !known {
                    let field = format!("spec.faults[{at}].callers[{index}]");
                    told.push(Fault::new(field, format!("is nobody known now: there is {who}")));
                }
            }
        }
        // In a mesh without a sidecar nobody is known yet.
        let limits = spec.rate_limits.iter().flatten().enumerate().filter(|_| !sidecars.accounts.is_empty());
        for (at, limit) in limits {
            for (index, other) in limit.overrides.iter().flatten().enumerate() {
                let namespace = other.client.namespace.as_deref().unwrap_or(own);
                let (known, who) = match &other.client.service_account {
                    Some(name) => (
                        sidecars.accounts.contains(&format!("{namespace}/{name}")),
                        format!("has service account {name} in namespace {namespace}"),
                    ),
                    None => (
                        sidecars
                            .accounts
                            .iter()
                            .any(|it| it.split_once('/').is_some_and(|it| it.0 == namespace)),
                        format!("is in namespace {namespace}"),
                    ),
                };
                if !known {
                    let field = format!("spec.rateLimits[{at}].overrides[{index}].client");
                    told.push(Fault::new(field, format!("is nobody known now: no sidecar {who}")));
                }
            }
        }
        told
    }

    /// What does nothing of the policy that a service has, because routes lead all of its requests to other services.
    pub(super) fn elsewhere(
        &self,
        policy: &Resource<TrafficPolicySpec>,
        service: &Key,
        policies: &BTreeMap<Key, Policy<'_>>,
    ) -> Vec<Fault> {
        let Some((routes, serving)) = self.led_away(service) else { return Vec::new() };
        let names = |keys: &BTreeSet<Key>| {
            let name = |key: &Key| match key.namespace == service.namespace {
                true => key.name.clone(),
                false => format!("{}.{}", key.name, key.namespace),
            };
            keys.iter().map(name).collect::<Vec<_>>().join(", ")
        };
        let send = if routes.len() == 1 { "sends" } else { "send" };
        let routes = routes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let why = format!(
            "has no effect on calls of {}: {routes} {send} them to {}",
            service.name,
            names(&serving)
        );
        let theirs: Vec<Value> =
            serving.iter().map(|it| said(policies.get(it).map(|(_, it)| &it.spec))).collect();
        let mut told: Vec<Fault> = Vec::new();
        for field in fields(&said(Some(&policy.spec))) {
            let (them, whose) = match serving.len() {
                1 => ("that one", "whose policy says it itself"),
                _ => ("those", "whose policies say it themselves"),
            };
            let (section, why) = match holds::say(&field) {
                // The one called has a say where a limit of its own is reached.
                Some(("fallback", Say::Serving)) if for_limits(&policy.spec) => continue,
                Some((section, Say::Serving)) => (section, format!("{why}; put it on {them}")),
                Some((section, Say::ServingFirst)) if theirs.iter().all(|spec| has(spec, section)) => {
                    (section, format!("{why}, {whose}"))
                }
                _ => continue,
            };
            let fault = Fault::new(format!("spec.{section}"), why);
            if !told.contains(&fault) {
                told.push(fault);
            }
        }
        told
    }

    /// By which routes all requests for a service are sent to which others. `None`: it may serve some itself.
    fn led_away(&self, service: &Key) -> Option<(BTreeSet<Key>, BTreeSet<Key>)> {
        if self.backends.contains(service) {
            return None;
        }
        let found = self.documents.service(&service.namespace, &service.name)?;
        // Those of other namespaces are for callers from there.
        let routes = self.routes.get(service)?.iter().filter(|(_, it)| it.consumer_namespace.is_none());
        let routes: Vec<_> = routes.collect();
        let is_led =
            |port: u16| routes.iter().any(|(_, it)| it.ports.as_ref().is_none_or(|it| it.contains(&port)));
        let mut ports = found.spec.ports.iter();
        if !ports.all(|it| it.app_protocol.as_deref() != Some("tcp") && is_led(it.port)) {
            return None;
        }
        let routes: BTreeSet<Key> = routes.into_iter().map(|(key, _)| key.clone()).collect();
        let documents = routes.iter().filter_map(|key| Some((key, self.documents.get(key)?)));
        let serving: BTreeSet<Key> = documents.flat_map(|(key, document)| backends(key, document)).collect();
        (!serving.is_empty()).then_some((routes, serving))
    }

    fn of_route(&self, document: &Document) -> Vec<Fault> {
        let own = document.key();
        let spec = route::of(document).expect("it is a route");
        let mut told = Vec::new();
        for (index, rule) in spec.rules.iter().flatten().enumerate() {
            let mut backends = rule.backend_refs.iter().flatten().peekable();
            if backends.peek().is_some() && backends.all(|it| it.weight == Some(0)) {
                let why = "have weight 0, all of them: such requests are refused with 500";
                told.push(Fault::new(format!("spec.rules[{index}].backendRefs"), why));
            }
            // What a GRPCRoute matches is not in what the two have in common.
            if let Some(others) =
                (own.kind == Kind::HttpRoute).then(|| self.before(&own, document, index)).flatten()
            {
                let others = others.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                let why = if others == own.to_string() {
                    "is never used: rules before it match the same requests".to_owned()
                } else {
                    format!("is never used: {others} goes before it and matches the same requests")
                };
                told.push(Fault::new(format!("spec.rules[{index}]"), why));
            }
        }
        told
    }

    /// The routes that take all that a rule matches, wherever the route is for. `None`: something is left.
    fn before(&self, own: &Key, document: &Document, index: usize) -> Option<BTreeSet<Key>> {
        let mut takers = BTreeSet::new();
        let wanted = matches(document, index);
        for service in self.parents(document) {
            let of_service = self.routes.get(&service)?;
            for (_, attached) in of_service.iter().filter(|(key, _)| key == own) {
                let rivals = || {
                    of_service.iter().filter(|(key, other)| {
                        key.kind == Kind::HttpRoute
                            && other.consumer_namespace == attached.consumer_namespace
                            && covers(other, attached)
                    })
                };
                for one in &wanted {
                    let taker = rivals().find(|(key, _)| self.goes_first(key, own, document, index, one))?;
                    takers.insert(taker.0.clone());
                }
            }
        }
        (!takers.is_empty()).then_some(takers)
    }

    /// The services that a route names.
    fn parents(&self, document: &Document) -> BTreeSet<Key> {
        let key = document.key();
        let spec = route::of(document).expect("it is a route");
        spec.parent_refs.iter().flatten().map(|it| super::attachments::parent(&key, it)).collect()
    }

    /// Whether another route, or a rule before in the same one, has the same match and is tried first.
    fn goes_first(&self, key: &Key, own: &Key, document: &Document, index: usize, one: &Match) -> bool {
        let Some(other) = self.documents.get(key) else { return false };
        let Document::HttpRoute(route) = &**other else { return false };
        let age = |it: &Document| it.metadata().creation_timestamp.clone();
        let order = (age(other), format!("{}/{}", key.namespace, key.name));
        let rules = route.spec.rules.iter().flatten().count();
        let rules = match key == own {
            true => index,
            false if order < (age(document), format!("{}/{}", own.namespace, own.name)) => rules,
            false => 0,
        };
        (0..rules).any(|index| matches(other, index).contains(one))
    }
}

/// What to add where a policy goes before another one although it does nothing any more.
pub(super) fn is_over(spec: &TrafficPolicySpec, now: SystemTime) -> Option<&'static str> {
    let only_faults = TrafficPolicySpec {
        target_refs: spec.target_refs.clone(),
        faults: spec.faults.clone(),
        ..Default::default()
    };
    let list = spec.faults.as_deref().unwrap_or_default();
    let over = *spec == only_faults && list.iter().all(|fault| faults::left(fault, now).is_none());
    match list.len() {
        _ if !over => None,
        0 => None,
        1 => Some("; its only fault is over, delete it"),
        _ => Some("; all of its faults are over, delete it"),
    }
}

/// Whether one is for all ports that the other is for.
fn covers(one: &Attached, other: &Attached) -> bool {
    match (&one.ports, &other.ports) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(ports), Some(others)) => ports.is_superset(others),
    }
}

/// What requests are sent to by the rules of a route.
fn backends(key: &Key, document: &Document) -> Vec<Key> {
    let spec = route::of(document).expect("it is a route");
    let all = spec.rules.iter().flatten().flat_map(|rule: &Rule| rule.backend_refs.iter().flatten());
    let used = all.filter(|it| it.weight != Some(0));
    let service = |namespace: Option<&String>, name: &str| {
        Key::new(Kind::Service, namespace.unwrap_or(&key.namespace).as_str(), name)
    };
    used.map(|it| service(it.namespace.as_ref(), &it.name)).collect()
}

/// What a rule of an HTTPRoute matches, written in one way.
fn matches(document: &Document, index: usize) -> Vec<Match> {
    let Document::HttpRoute(route) = document else { return Vec::new() };
    let rule = route.spec.rules.iter().flatten().nth(index);
    let list = rule.and_then(|rule| rule.matches.clone()).filter(|list| !list.is_empty());
    let mut list = list.unwrap_or_else(|| vec![Match::default()]);
    for one in &mut list {
        // The prefix that every path has is the default.
        if one.path.as_ref().is_some_and(|path| {
            let prefix = path.r#type.as_ref().is_none_or(|it| format!("{it:?}") == "PathPrefix");
            prefix && path.value.as_deref().is_none_or(|value| value == "/")
        }) {
            one.path = None;
        }
        one.headers = one.headers.take().filter(|list| !list.is_empty());
        one.query_params = one.query_params.take().filter(|list| !list.is_empty());
    }
    list
}

/// Whether a fallback is for limits too.
fn for_limits(spec: &TrafficPolicySpec) -> bool {
    let on = spec.fallback.iter().flat_map(|fallback| fallback.on.iter().flatten());
    on.into_iter().any(|it| it == "LimitReached")
}

/// A policy as people write it.
fn said(spec: Option<&TrafficPolicySpec>) -> Value {
    spec.and_then(|spec| serde_json::to_value(spec).ok()).unwrap_or_default()
}

/// Its fields, and of those that the table takes apart what is in them.
fn fields(spec: &Value) -> Vec<String> {
    let object = |value: &Value| value.as_object().cloned().unwrap_or_default();
    let mut fields = Vec::new();
    for (name, value) in object(spec) {
        match name.as_str() {
            "connections" | "timeouts" => {
                fields.extend(object(&value).keys().map(|inner| format!("{name}.{inner}")));
            }
            _ => fields.push(name),
        }
    }
    fields
}

fn has(spec: &Value, section: &str) -> bool {
    spec.pointer(&format!("/{}", section.replace('.', "/"))).is_some()
}
