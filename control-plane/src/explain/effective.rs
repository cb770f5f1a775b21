//! What holds for the requests to one service that another one gets: each value with the policy, or the rule, that it is from.

use std::{collections::BTreeSet, time::SystemTime};

use pillion_api::{
    holds::{self, Policies, Say, Side},
    model::{self, On, RouteRule},
    own,
};

use super::{
    policy::{DEFAULT, policy, unwritten},
    view::{FieldView, PolicyView},
    words::time,
};
use crate::resource::Documents;

/// What holds for requests to `called` that `serving` gets, by `rule` if a route leads them there. `own`: the services of a
/// workload that serves them, and the application's port there.
pub(super) fn effective(
    called: &model::Service,
    serving: &model::Service,
    rule: Option<&RouteRule>,
    own: (&[model::Service], u16),
    documents: &Documents,
    now: SystemTime,
) -> PolicyView {
    let view = |service: &model::Service| policy(service.name.as_str(), &service.policy, documents, now);
    let of_serving = view(serving);
    let elsewhere = called.name != serving.name;
    let of_called = if elsewhere { view(called) } else { of_serving.clone() };
    let sides = Sides {
        policies: Policies { called: &called.policy, serving: &serving.policy },
        called: &of_called.fields,
        serving: &of_serving.fields,
        elsewhere,
    };
    let mut fields = Vec::new();
    let mut done = BTreeSet::new();
    for row in &of_serving.fields {
        let (section, say) = holds::say(&row.field).unwrap_or(("", Say::Serving));
        if say == Say::Serving && section != "fallback" {
            fields.push(row.clone());
        } else if done.insert(section) {
            match say {
                Say::Workload => {
                    let holder = holder(section, serving, own);
                    let other = holder.filter(|holder| holder.name != serving.name).map(view);
                    fields.extend(part(
                        other.as_ref().map_or(sides.serving, |view| view.fields.as_slice()),
                        section,
                    ));
                }
                _ => fields.extend(sides.section(section, say)),
            }
        }
    }
    if let Some(rule) = rule {
        by_rule(&mut fields, rule);
    }
    PolicyView { called: called.name.to_string(), called_source: of_called.source, fields, ..of_serving }
}

/// The rows of both policies.
struct Sides<'a> {
    policies: Policies<'a>,
    called: &'a [FieldView],
    serving: &'a [FieldView],
    /// They are of two services.
    elsewhere: bool,
}

impl Sides<'_> {
    fn section(&self, section: &str, say: Say) -> Vec<FieldView> {
        let of = |rows: &[FieldView]| part(rows, section).collect::<Vec<_>>();
        match say {
            Say::Called => of(self.called),
            Say::ServingFirst => of(match self.policies.side(section) {
                Side::Called => self.called,
                Side::Serving => self.serving,
            }),
            // In the order in which they are asked.
            Say::Both if self.elsewhere => {
                let mut rows = of(self.called);
                rows.extend(of(self.serving));
                let any = rows.iter().any(|row| row.source != DEFAULT);
                // A default beside what somebody has written says nothing; twice, even less.
                let mut seen = BTreeSet::new();
                rows.retain(|row| row.source != DEFAULT || !any && seen.insert(row.field.clone()));
                rows
            }
            // Where the one called is at a limit of its own, it is its fallback that takes over, and no other.
            _ if section == "fallback" && self.elsewhere => {
                let limit = self.policies.called.fallback.as_ref();
                let limit = limit.filter(|fallback| fallback.on.contains(&On::LimitReached));
                let only = |row: FieldView| match row.field.as_str() {
                    "fallback.on" => {
                        FieldView { value: "LimitReached, of the service called".to_owned(), ..row }
                    }
                    _ => row,
                };
                let of_called = limit.iter().flat_map(|_| of(self.called).into_iter().map(only));
                let of_serving = of(self.serving);
                let none = self.policies.serving.fallback.is_none() && limit.is_some();
                of_called.chain(of_serving.into_iter().filter(|_| !none)).collect()
            }
            _ => of(self.serving),
        }
    }
}

/// The rows of one section.
fn part<'a>(rows: &'a [FieldView], section: &'a str) -> impl Iterator<Item = FieldView> + 'a {
    let is_in = move |row: &&FieldView| holds::say(&row.field).is_some_and(|(known, _)| known == section);
    rows.iter().filter(is_in).cloned()
}

/// The service of a workload whose policy says anything on a matter; that which the caller's sidecar means is asked first.
fn holder<'a>(
    section: &str,
    serving: &'a model::Service,
    (own, port): (&'a [model::Service], u16),
) -> Option<&'a model::Service> {
    let says = |service: &&model::Service| {
        let policy = &service.policy;
        match section {
            "rateLimits" => !policy.rate_limits.is_empty(),
            "concurrency" => policy.concurrency.is_some(),
            "requestLimits" => policy.request_limits.is_some(),
            _ => policy.health_check.is_some(),
        }
    };
    let leads = |service: &&model::Service| service.ports.iter().any(|it| it.target_port == port);
    own::meant_first(own.iter().filter(leads), Some(&serving.name)).find(says)
}

/// What the rule itself says goes before all policies.
fn by_rule(fields: &mut Vec<FieldView>, rule: &RouteRule) {
    let source = format!("rule {} of route {}", rule.rule, rule.route);
    if rule.retry.is_some() && fields.iter().any(|row| row.field == "retry") {
        let place = fields.iter().position(|row| row.field == "retry").expect("it has just been seen");
        fields.splice(place..=place, unwritten("retry"));
    }
    let or_none =
        |time_of: std::time::Duration| if time_of.is_zero() { "none".to_owned() } else { time(time_of) };
    let retry = rule.retry.as_ref();
    let codes = retry.filter(|retry| !retry.codes.is_empty());
    for (field, value) in [
        ("timeouts.request", rule.request_timeout.map(or_none)),
        ("timeouts.attempt", rule.backend_request_timeout.map(or_none)),
        ("retry.attempts", retry.and_then(|retry| retry.attempts).map(|attempts| attempts.to_string())),
        ("retry.backoff.base", retry.and_then(|retry| retry.backoff).map(time)),
        ("retry.codes", codes.map(|retry| format!("{:?}", retry.codes))),
    ] {
        let row = fields.iter_mut().find(|row| row.field == field);
        if let (Some(row), Some(value)) = (row, value) {
            (row.value, row.source) = (value, source.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use pillion_api::wire;
    use prost::Message as _;

    use super::*;
    use crate::{
        compile::compile,
        resource::{Kind, admit, schema, text},
    };

    /// `pay` is called, `one` serves; both with such a policy.
    fn rows(pay: &str, one: &str, rule: &str) -> Vec<String> {
        let service = |name: &str| {
            format!(
                "---\n{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {{ports: [{{port: 80, targetPort: \
                 8080}}]}}}}\n"
            )
        };
        let policy = |name: &str, spec: &str| match spec {
            "" => String::new(),
            spec => format!(
                "---\n{{apiVersion: pillion.dev/v1alpha1, kind: TrafficPolicy, metadata: {{name: p-{name}}}, spec: {{targetRefs: \
                 [{{group: '', kind: Service, name: {name}}}], {spec}}}}}\n"
            ),
        };
        let route = format!(
            "---\n{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {{name: r}}, spec: {{parentRefs: \
             [{{group: '', kind: Service, name: pay}}], rules: [{{backendRefs: [{{name: one, port: 80}}]{rule}}}]}}}}\n"
        );
        let yaml = service("pay") + &service("one") + &policy("pay", pay) + &policy("one", one) + &route;
        let mut documents = Documents::default();
        for (index, written) in text::read(&yaml, text::Format::Yaml).expect("YAML").iter().enumerate() {
            documents.insert(admit::admit(index, written, None).expect("a valid document"));
        }
        let (compiled, faults) = compile(&documents, &[]);
        assert!(faults.is_empty(), "{faults:?}");
        let read = |name: &str| {
            let config = wire::ServiceConfig::decode(compiled[name].config.bytes.clone()).expect("a message");
            model::Service::try_from(config).expect("a valid configuration")
        };
        let (pay, one) = (read("pay.default"), read("one.default"));
        let own = [one.clone()];
        let view =
            effective(&pay, &one, pay.routes.first(), (&own, 8080), &documents, SystemTime::UNIX_EPOCH);
        let rows = view.fields.into_iter().filter(|row| row.source != DEFAULT);
        rows.map(|row| {
            let source = row
                .source
                .replace("TrafficPolicy default/p-", "")
                .replace("rule 0 of route default/r", "rule");
            format!("{}={} {source}", row.field, row.value)
        })
        .collect()
    }

    #[test]
    fn each_value_is_from_whose_policy_holds() {
        for (pay, one, rule, expected) in [
            // As a newcomer met it: the backend says nothing of retries, so those of the service called hold.
            (
                "timeouts: {request: 5s, attempt: 1s, idle: 3s}, retry: {attempts: 4}, hedge: {after: 20ms}",
                "circuitBreaker: {consecutiveFailures: 3}, timeouts: {request: 9s, idle: 8s}",
                "",
                &[
                    "circuitBreaker.consecutiveFailures=3 one",
                    "timeouts.request=5s pay",
                    "timeouts.attempt=1s pay",
                    "timeouts.idle=3s pay",
                    "retry.attempts=4 pay",
                    "hedge.after=20ms pay",
                ][..],
            ),
            (
                "timeouts: {attempt: 1s}, retry: {attempts: 4}, circuitBreaker: {consecutiveFailures: 9}",
                "timeouts: {attempt: 2s}, retry: {attempts: 5}",
                ", timeouts: {request: 7s}, retry: {attempts: 1}",
                &["timeouts.request=7s rule", "timeouts.attempt=2s one", "retry.attempts=1 rule"],
            ),
            (
                "",
                "",
                ", timeouts: {request: 0s}, retry: {codes: [500, 503]}",
                &["timeouts.request=none rule", "retry.codes=[500, 503] rule"],
            ),
            (
                "connections: {maxRequests: 5, maxPending: 6}",
                "connections: {maxRequests: 7, maxPending: 8}, rateLimits: [{total: {requests: 1}}]",
                "",
                &[
                    "connections.maxPending=8 one",
                    "connections.maxRequests=5 pay",
                    "connections.maxRequests=7 one",
                    "rateLimits=[{\"total\":{\"requests\":1}}] one",
                ],
            ),
            (
                "fallback: {on: [NoEndpoints, LimitReached], response: {status: 200}}",
                "fallback: {on: [BreakersOpen], response: {status: 202}}",
                "",
                &[
                    "fallback.on=LimitReached, of the service called pay",
                    "fallback.response.status=200 pay",
                    "fallback.on=[\"BreakersOpen\"] one",
                    "fallback.response.status=202 one",
                ],
            ),
            ("fallback: {on: [NoEndpoints], response: {status: 200}}", "", "", &[]),
        ] {
            let (mut rows, mut expected) = (rows(pay, one, rule), expected.to_vec());
            rows.sort();
            expected.sort_unstable();
            assert_eq!(rows, expected, "{pay} / {one} / {rule}");
        }
    }

    #[test]
    fn of_each_field_it_is_known_whose_holds() {
        let spec = &schema::schema(Kind::TrafficPolicy)["properties"]["spec"]["properties"];
        for (section, inner) in
            spec.as_object().expect("it has fields").iter().filter(|(name, _)| *name != "targetRefs")
        {
            let fields = inner["properties"].as_object();
            let fields = fields.into_iter().flatten().map(|(name, _)| format!("{section}.{name}"));
            let known =
                holds::say(section).is_some() || fields.clone().all(|field| holds::say(&field).is_some());
            assert!(known, "whose {section} holds? Add it to `holds::TABLE`");
        }
    }
}
