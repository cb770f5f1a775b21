//! Every value of a service's policy, and where it is from: made from the schema of `TrafficPolicy`, so that no field is
//! forgotten.

use std::time::SystemTime;

use pillion_api::model;
use serde_json::{Value, json};

use super::view::{FieldView, PolicyView};
use crate::resource::{Documents, Key, Kind, policy::faults, schema};

/// Where a value is from that nobody has written.
pub const DEFAULT: &str = "default";

/// Sections that are off unless they are written: their members' defaults hold only then.
const UNLESS_WRITTEN: [&str; 13] = [
    "circuitBreaker.slowCalls",
    "concurrency",
    "fallback",
    "fallback.backendRef",
    "fallback.response",
    "healthCheck",
    "healthCheck.grpc",
    "healthCheck.http",
    "healthCheck.tcp",
    "hedge",
    "loadBalancer.slowStart",
    "requestLimits",
    "retry",
];

/// The policy of a service at some moment, as sidecars were told of it.
pub fn policy(
    service: &str,
    told: &model::TrafficPolicy,
    documents: &Documents,
    now: SystemTime,
) -> PolicyView {
    let source = told.source.as_str();
    let document = source
        .split_once('/')
        .and_then(|(namespace, name)| documents.get(&Key::new(Kind::TrafficPolicy, namespace, name)));
    let mut written = document.map(|document| document.to_value());
    let injected = written.as_mut().and_then(|written| written.pointer_mut("/spec/faults")?.as_array_mut());
    injected.into_iter().flatten().for_each(|fault| say_if_over(fault, now));
    let source = (!source.is_empty()).then(|| format!("{} {source}", Kind::TrafficPolicy.name()));
    let mut fields = fields(written.as_ref().map(|it| &it["spec"]), source.as_deref().unwrap_or(DEFAULT));
    conditional(&mut fields, told);
    PolicyView {
        service: service.to_owned(),
        called: service.to_owned(),
        called_source: source.clone(),
        source,
        fields,
    }
}

/// The rows of a section in which nothing is written, although it is on.
pub(super) fn unwritten(section: &str) -> Vec<FieldView> {
    let mut fields = fields(Some(&json!({ section: {} })), DEFAULT);
    fields.retain(|field| field.field.strip_prefix(section).is_some_and(|rest| rest.starts_with('.')));
    fields
}

/// What is over does nothing any more, though it is still written.
fn say_if_over(fault: &mut Value, now: SystemTime) {
    let read = serde_json::from_value::<faults::Fault>(fault.clone());
    if read.is_ok_and(|fault| faults::left(&fault, now).is_none()) {
        *fault = Value::String(format!("{}: over", fault["name"].as_str().unwrap_or("it is")));
    }
}

/// Defaults that depend on another value of the policy, or on the section that they are in, are what sidecars take.
fn conditional(fields: &mut [FieldView], told: &model::TrafficPolicy) {
    let percent = |share: f64| (share * 100.0).round().to_string();
    let mut values = Vec::new();
    if let Some(breaker) = &told.breaker {
        let ejected = breaker.max_ejected_share.map_or("all but one".to_owned(), percent);
        values.push(("circuitBreaker.panicPercent", percent(breaker.panic_share)));
        values.push(("circuitBreaker.maxEjectedPercent", ejected));
    }
    if let Some(model::Budget { percent, min_per_second, .. }) = told.retry.as_ref().map(|it| it.budget) {
        values.push(("retry.budget.percent", percent.to_string()));
        values.push(("retry.budget.minPerSecond", min_per_second.to_string()));
    }
    if let Some(model::Budget { percent, min_per_second, .. }) = told.hedge.as_ref().map(|it| it.budget) {
        values.push(("hedge.budget.percent", percent.to_string()));
        values.push(("hedge.budget.minPerSecond", min_per_second.to_string()));
    }
    for (field, value) in values {
        let row = fields.iter_mut().find(|row| row.field == field && row.source == DEFAULT);
        row.into_iter().for_each(|row| row.value.clone_from(&value));
    }
}

/// Every leaf of a policy's spec; the written ones are from `source`.
fn fields(written: Option<&Value>, source: &str) -> Vec<FieldView> {
    let spec = &schema::schema(Kind::TrafficPolicy)["properties"]["spec"];
    let mut fields = Vec::new();
    walk(&mut fields, "", spec, written, source);
    // What it is for is no value of it.
    fields.retain(|field| !field.field.starts_with("targetRefs"));
    fields
}

fn walk(fields: &mut Vec<FieldView>, at: &str, schema: &Value, written: Option<&Value>, source: &str) {
    let (about, default) = described(schema);
    let properties = schema["properties"].as_object();
    let on = written.is_some() || (default.is_none() && !UNLESS_WRITTEN.contains(&at));
    let section = properties.filter(|_| on);
    if let Some(properties) = section {
        for (name, property) in properties {
            let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
            walk(fields, &path, property, written.and_then(|written| written.get(name)), source);
        }
        return;
    }
    let (value, source) = match written {
        Some(written) => (text(written), source),
        None => (default.unwrap_or("none").to_owned(), DEFAULT),
    };
    let structured = written.is_some_and(|written| written.is_array() || written.is_object());
    fields.push(FieldView {
        field: at.to_owned(),
        value,
        structured,
        source: source.to_owned(),
        about: about.to_owned(),
    });
}

/// What a description says, and the default with which it ends.
fn described(schema: &Value) -> (&str, Option<&str>) {
    let text = schema["description"].as_str().unwrap_or_default();
    match text.rsplit_once("Default: ") {
        Some((about, default)) => (about.trim(), Some(default.trim_end_matches('.'))),
        None => (text, None),
    }
}

/// As people would write it on one line.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use pillion_api::wire;
    use prost::Message as _;
    use serde_json::json;

    use super::*;
    use crate::{
        compile::compile,
        resource::{admit, text},
    };

    #[test]
    fn every_field_of_the_schema_has_a_row_with_a_value() {
        let mut leaves = Vec::new();
        let mut open =
            vec![(String::new(), schema::schema(Kind::TrafficPolicy)["properties"]["spec"].clone())];
        while let Some((path, schema)) = open.pop() {
            match schema["properties"].as_object() {
                Some(properties) => open.extend(properties.iter().map(|(name, inner)| {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    (path, inner.clone())
                })),
                None => leaves.push((path, schema)),
            }
        }
        let rows = fields(None, DEFAULT);
        assert!(rows.len() >= 15, "{rows:#?}");
        for (leaf, schema) in leaves.iter().filter(|(leaf, _)| !leaf.starts_with("targetRefs")) {
            // The row of the leaf, or of a section around it that is off as a whole.
            let row =
                rows.iter().find(|row| *leaf == row.field || leaf.starts_with(&format!("{}.", row.field)));
            let row = row.unwrap_or_else(|| panic!("no row for {leaf}"));
            assert_eq!(row.source, DEFAULT);
            assert!(!row.value.is_empty() && !row.about.is_empty(), "{row:?}: {schema}");
        }
    }

    #[test]
    fn of_each_section_it_is_known_whether_it_is_on_by_itself() {
        const ON: [&str; 4] = ["circuitBreaker", "connections", "loadBalancer", "timeouts"];
        let spec = &schema::schema(Kind::TrafficPolicy)["properties"]["spec"]["properties"];
        let sections = spec.as_object().expect("it has fields").iter();
        for (name, _) in sections.filter(|(_, schema)| schema["properties"].is_object()) {
            let known = ON.contains(&name.as_str()) || UNLESS_WRITTEN.contains(&name.as_str());
            assert!(known, "{name}: is it on unless written? Add it to ON or to UNLESS_WRITTEN");
        }
        let off = fields(None, DEFAULT);
        assert!(off.iter().any(|row| row.field == "healthCheck" && row.value == "none"), "{off:#?}");
        let written =
            fields(Some(&json!({"healthCheck": {"http": {"path": "/up"}}})), "TrafficPolicy demo/x");
        let value = |field: &str| written.iter().find(|row| row.field == field).map(|row| row.value.as_str());
        assert_eq!((value("healthCheck.http.path"), value("healthCheck.grpc")), (Some("/up"), Some("none")));
        assert_eq!(value("healthCheck.interval"), Some("1s"));
    }

    #[test]
    fn what_is_written_is_from_its_document_and_the_rest_by_default() {
        let spec = json!({"circuitBreaker": {"consecutiveFailures": 3, "openTime": {"base": "2s"}}});
        let rows = fields(Some(&spec), "TrafficPolicy demo/x");
        let row = |field: &str| {
            let row = rows.iter().find(|row| row.field == field).expect(field);
            (row.value.as_str(), row.source.as_str())
        };
        assert_eq!(row("circuitBreaker.consecutiveFailures"), ("3", "TrafficPolicy demo/x"));
        assert_eq!(row("circuitBreaker.openTime.base"), ("2s", "TrafficPolicy demo/x"));
        assert_eq!(row("circuitBreaker.openTime.max"), ("1m", DEFAULT));
        assert_eq!(row("connections.maxRequests"), ("1024", DEFAULT));
        assert_eq!(row("timeouts.request"), ("none", DEFAULT));
    }

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    /// A service with a policy.
    fn documents(spec: &str) -> Documents {
        let yaml = format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: pay, namespace: demo}}, spec: {{ports: [{{port: 80}}]}}}}\n---\n\
             {{apiVersion: pillion.dev/v1alpha1, kind: TrafficPolicy, metadata: {{name: pay, namespace: demo}}, spec: {{targetRefs: \
             [{{group: '', kind: Service, name: pay}}], {spec}}}}}\n"
        );
        let mut documents = Documents::default();
        for (index, written) in text::read(&yaml, text::Format::Yaml).expect("YAML").iter().enumerate() {
            documents.insert(admit::admit(index, written, None).expect("a valid document"));
        }
        documents
    }

    /// The rows of a policy, and the same as sidecars read it.
    fn told(spec: &str) -> (Vec<FieldView>, model::TrafficPolicy) {
        let documents = documents(spec);
        let (compiled, faults) = compile(&documents, &[]);
        assert!(faults.is_empty(), "{faults:?}");
        let config =
            wire::ServiceConfig::decode(compiled["pay.demo"].config.bytes.clone()).expect("a message");
        let told = model::Service::try_from(config).expect("a valid configuration").policy;
        (policy("pay.demo", &told, &documents, NOW).fields, told)
    }

    /// What a row says beside what sidecars go by.
    type Row = (&'static str, fn(&model::TrafficPolicy) -> String);

    const ROWS: [Row; 37] = [
        ("loadBalancer.decay", |it| time(it.load_balancer.decay)),
        ("circuitBreaker.consecutiveFailures", |it| breaker(it).consecutive_failures.to_string()),
        ("circuitBreaker.failureRatio.percent", |it| percent(breaker(it).failure_ratio)),
        ("circuitBreaker.failureRatio.window", |it| time(breaker(it).window)),
        ("circuitBreaker.failureRatio.minimumRequests", |it| breaker(it).minimum_requests.to_string()),
        ("circuitBreaker.openTime.base", |it| time(breaker(it).base_open)),
        ("circuitBreaker.openTime.max", |it| time(breaker(it).max_open)),
        ("circuitBreaker.halfOpenRequests", |it| breaker(it).half_open_requests.to_string()),
        ("circuitBreaker.panicPercent", |it| percent(breaker(it).panic_share)),
        ("circuitBreaker.maxEjectedPercent", |it| {
            breaker(it).max_ejected_share.map_or("all but one".to_owned(), percent)
        }),
        ("circuitBreaker.consecutiveConnectFailures", |it| {
            breaker(it).consecutive_connect_failures.to_string()
        }),
        ("circuitBreaker.disabled", |it| it.breaker.is_none().to_string()),
        ("connections.connectTimeout", |it| time(it.connect_timeout)),
        ("connections.idleTimeout", |it| time(it.idle_timeout)),
        ("connections.maxRequests", |it| it.max_requests.unwrap_or(model::MAX_REQUESTS).to_string()),
        ("connections.maxPending", |it| it.max_pending.unwrap_or(model::MAX_PENDING).to_string()),
        ("connections.maxConnections", |it| number(it.max_connections)),
        ("connections.maxRequestsPerConnection", |it| number(it.max_requests_per_connection)),
        ("connections.queueTimeout", |it| time(it.queue_timeout)),
        ("timeouts.request", |it| it.request_timeout.map_or("none".to_owned(), time)),
        ("timeouts.attempt", |it| it.attempt_timeout.map_or("none".to_owned(), time)),
        ("timeouts.idle", |it| it.stream_idle_timeout.map_or("none".to_owned(), time)),
        ("retry.attempts", |it| retry(it).attempts.to_string()),
        ("retry.backoff.base", |it| time(retry(it).backoff)),
        ("retry.backoff.max", |it| time(retry(it).max_backoff)),
        ("retry.maxRetryAfter", |it| time(retry(it).max_retry_after)),
        ("retry.nonIdempotent", |it| retry(it).non_idempotent.to_string()),
        ("retry.maxBodyBytes", |it| retry(it).max_body.to_string()),
        ("retry.budget.percent", |it| retry(it).budget.percent.to_string()),
        ("retry.budget.minPerSecond", |it| retry(it).budget.min_per_second.to_string()),
        ("retry.budget.window", |it| format!("{}s", retry(it).budget.window)),
        ("hedge.budget.percent", |it| hedge(it).budget.percent.to_string()),
        ("hedge.budget.minPerSecond", |it| hedge(it).budget.min_per_second.to_string()),
        ("hedge.budget.window", |it| format!("{}s", hedge(it).budget.window)),
        ("concurrency.limit", |it| concurrency(it).limit.to_string()),
        ("concurrency.queue.maxRequests", |it| concurrency(it).max_queue.to_string()),
        ("concurrency.queue.timeout", |it| time(concurrency(it).queue_timeout)),
    ];

    fn breaker(policy: &model::TrafficPolicy) -> model::CircuitBreaker {
        policy.breaker.clone().unwrap_or_default()
    }

    fn retry(policy: &model::TrafficPolicy) -> model::Retry {
        policy.retry.clone().unwrap_or_default()
    }

    fn hedge(policy: &model::TrafficPolicy) -> model::Hedge {
        policy.hedge.clone().unwrap_or_default()
    }

    fn concurrency(policy: &model::TrafficPolicy) -> model::Concurrency {
        policy.concurrency.clone().unwrap_or_default()
    }

    fn time(duration: std::time::Duration) -> String {
        humantime::format_duration(duration).to_string()
    }

    fn percent(share: f64) -> String {
        (share * 100.0).round().to_string()
    }

    fn number(number: Option<u32>) -> String {
        number.map_or("none".to_owned(), |number| number.to_string())
    }

    #[test]
    fn each_row_is_what_sidecars_go_by() {
        const WRITTEN: &str = "loadBalancer: {decay: 7s}, circuitBreaker: {consecutiveFailures: 3, failureRatio: {percent: 20, window: 6s, \
                               minimumRequests: 9}, openTime: {base: 2s, max: 8s}, halfOpenRequests: 4, panicPercent: 30, \
                               maxEjectedPercent: 40, consecutiveConnectFailures: 2, disabled: false}, connections: {connectTimeout: \
                               200ms, idleTimeout: 9s, maxRequests: 11, maxPending: 12, maxConnections: 13, \
                               maxRequestsPerConnection: 14, queueTimeout: 300ms}, timeouts: {request: 5s, attempt: 4s, idle: 3s}, \
                               retry: {attempts: 4, backoff: {base: 30ms, max: 400ms}, maxRetryAfter: 6s, nonIdempotent: true, \
                               maxBodyBytes: 1000, budget: {percent: 31, minPerSecond: 32, window: 33s}}, hedge: {after: 1s, budget: \
                               {percent: 34, minPerSecond: 35, window: 36s}}, concurrency: {limit: 15, queue: {maxRequests: 16, timeout: 50ms}}";
        const FALLBACK: &str = "fallback: {on: [BreakersOpen], response: {status: 200}}";
        for (spec, source) in [
            ("circuitBreaker: {}, retry: {}, hedge: {after: 1s}, concurrency: {}", DEFAULT),
            (FALLBACK, DEFAULT),
            (WRITTEN, "TrafficPolicy demo/pay"),
        ] {
            let (rows, told) = told(spec);
            for (field, taken) in ROWS {
                let row = rows.iter().find(|row| row.field == field);
                // What is off as a whole has a row for all of it.
                let Some(row) = row else {
                    assert!(
                        spec == FALLBACK && !field.starts_with("circuitBreaker"),
                        "{field} has no row: {spec}"
                    );
                    continue;
                };
                assert_eq!(
                    (row.value.as_str(), row.source.as_str()),
                    (taken(&told).as_str(), source),
                    "{field} of {spec}"
                );
            }
        }
    }

    #[test]
    fn what_is_over_is_said_to_be() {
        let spec = "faults: [{name: drill, abort: {status: 503}, until: 1970-01-01T00:01:00Z}, {abort: {status: 500}, until: \
                    1970-01-01T00:02:00Z}]";
        let document = documents(spec);
        let told = model::TrafficPolicy { source: "demo/pay".into(), ..model::TrafficPolicy::default() };
        let row = |seconds| {
            let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            let fields = policy("pay.demo", &told, &document, now).fields;
            fields.into_iter().find(|row| row.field == "faults").expect("a row")
        };
        assert!(row(0).structured && row(0).value.starts_with("[{\"abort\""), "{:?}", row(0));
        assert!(row(61).value.starts_with("[\"drill: over\",{\"abort\""), "{:?}", row(61));
        assert_eq!(row(200).value, "[\"drill: over\",\"it is: over\"]");
    }

    #[test]
    fn a_policy_without_faults_has_none() {
        let (rows, _) = told("retry: {attempts: 2}");
        let row = rows.iter().find(|row| row.field == "faults").expect("a row");
        assert_eq!((row.value.as_str(), row.source.as_str()), ("none", DEFAULT));
    }
}
