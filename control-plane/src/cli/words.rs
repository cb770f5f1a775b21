//! Documents in plain words.

use std::time::{Duration, SystemTime};

use serde_json::Value;

/// `80 → 8080 (http), 90`.
pub(super) fn ports(ports: &Value) -> String {
    let port = |port: &Value| {
        let number = port["port"].to_string();
        let target = match &port["targetPort"] {
            Value::Null => String::new(),
            Value::String(name) => format!(" → {name}"),
            number => format!(" → {number}"),
        };
        let spoken = port["appProtocol"].as_str().map(|it| format!(" ({it})")).unwrap_or_default();
        format!("{number}{target}{spoken}")
    };
    list(ports).map(port).collect::<Vec<_>>().join(", ")
}

/// `app=web, tier=front`; `none` where there are no labels.
pub(super) fn labels(labels: &Value) -> String {
    let pairs: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    if pairs.is_empty() { "none".into() } else { pairs.join(", ") }
}

/// Every condition of a status that is not met, with its reason; `yes` where all are.
pub(super) fn accepted(status: &Value) -> String {
    let against: Vec<String> = conditions(status)
        .filter(|condition| condition["status"] != "True")
        .map(|condition| format!("no: {}", condition["reason"].as_str().unwrap_or("?")))
        .collect();
    if against.is_empty() { "yes".into() } else { against.join(", ") }
}

/// Everything that the server has against a document.
pub(super) fn complaints(status: &Value) -> Vec<String> {
    let mut complaints: Vec<String> = conditions(status)
        .filter(|condition| condition["status"] != "True")
        .map(|condition| {
            let text = |field: &str| condition[field].as_str().unwrap_or_default();
            format!("{} ({}): {}", text("reason"), text("type"), text("message"))
        })
        .collect();
    complaints.dedup();
    complaints
}

fn conditions(status: &Value) -> impl Iterator<Item = &Value> {
    let of_others = list(&status["parents"]).chain(list(&status["ancestors"]));
    list(&status["conditions"]).chain(of_others.flat_map(|it| list(&it["conditions"])))
}

/// `5m`, `3h`, `12d`; `?` where the time is none.
pub(super) fn age(created: Option<&str>, now: SystemTime) -> String {
    let created = created.and_then(|text| humantime::parse_rfc3339(text).ok());
    let Some(seconds) = created.and_then(|created| now.duration_since(created).ok()).map(|age| age.as_secs())
    else {
        return "?".into();
    };
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A route's rule: when it is taken, and what happens then.
pub(super) fn rule(rule: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    let matches: Vec<String> = list(&rule["matches"]).map(request_match).collect();
    lines.push(match matches.as_slice() {
        [] => "any request".into(),
        several => format!("requests with {}", several.join("; or with ")),
    });
    let backends: Vec<(&str, &Value, u64)> = list(&rule["backendRefs"])
        .map(|it| (it["name"].as_str().unwrap_or("?"), &it["port"], it["weight"].as_u64().unwrap_or(1)))
        .collect();
    let total: u64 = backends.iter().map(|(_, _, weight)| weight).sum();
    let redirects = list(&rule["filters"]).any(|filter| filter["requestRedirect"].is_object());
    if total == 0 && !redirects {
        lines.push("→ nowhere: no backend has any weight, so the answer is 500".into());
    }
    for (name, port, weight) in backends.iter().filter(|_| total > 0) {
        let tenths = (weight * 1000 + total / 2) / total;
        lines.push(format!("→ {}.{} % to {name} port {port}", tenths / 10, tenths % 10));
    }
    for filter in list(&rule["filters"]) {
        for (field, whose) in [("requestHeaderModifier", "request"), ("responseHeaderModifier", "response")] {
            lines.extend(header_changes(&filter[field], whose));
        }
        for (field, what) in [
            ("requestRedirect", "→ redirects, with"),
            ("urlRewrite", "rewrites, with"),
            ("requestMirror", "mirrors, with"),
        ] {
            if filter[field].is_object() {
                lines.push(format!("{what} {}", settings("", &filter[field]).join(", ")));
            }
        }
    }
    for (field, what) in [("retry", "tries again, with"), ("sessionPersistence", "keeps a session, with")] {
        if rule[field].is_object() {
            lines.push(format!("{what} {}", settings("", &rule[field]).join(", ")));
        }
    }
    for (field, what) in [("request", "the request may take"), ("backendRequest", "each try may take")] {
        if let Some(time) = rule["timeouts"][field].as_str() {
            lines.push(format!("{what} {time}"));
        }
    }
    lines
}

fn header_changes(modifier: &Value, whose: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for (list_name, verb) in [("set", "sets"), ("add", "adds")] {
        for header in list(&modifier[list_name]) {
            let text = |field: &str| header[field].as_str().unwrap_or_default();
            lines.push(format!("{verb} the {whose} header {}: {}", text("name"), text("value")));
        }
    }
    for name in list(&modifier["remove"]) {
        lines.push(format!("removes the {whose} header {}", name.as_str().unwrap_or_default()));
    }
    lines
}

fn request_match(one: &Value) -> String {
    let mut parts = Vec::new();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    if let Some(method) = one["method"].as_str() {
        parts.push(format!("method {method}"));
    }
    // A GRPCRoute's.
    for field in ["service", "method"] {
        if let Some(value) = one["method"][field].as_str() {
            let like = if one["method"]["type"] == "RegularExpression" { "like " } else { "" };
            parts.push(format!("gRPC {field} {like}{value}"));
        }
    }
    if one["path"].is_object() {
        let value = one["path"]["value"].as_str().unwrap_or("/");
        parts.push(match one["path"]["type"].as_str() {
            Some("Exact") => format!("path exactly {value}"),
            Some("RegularExpression") => format!("path like {value}"),
            _ => format!("path below {value}"),
        });
    }
    for (field, what) in [("headers", "header"), ("queryParams", "query parameter")] {
        for it in list(&one[field]) {
            let like = if it["type"] == "RegularExpression" { "like" } else { "is" };
            parts.push(format!("{what} {} {like} {}", text(&it["name"]), text(&it["value"])));
        }
    }
    if parts.is_empty() { "any path".into() } else { parts.join(" and ") }
}

/// What a policy sets, one line each: `circuitBreaker.openTime.base: 1s`.
pub(super) fn settings(prefix: &str, value: &Value) -> Vec<String> {
    leaves(prefix, value).into_iter().map(|(path, value)| format!("{path}: {value}")).collect()
}

/// Every value in one, with the way to it: `rateLimits[0].total.requests` and `100`. A list of plain values is one: `500, 503`.
pub(super) fn leaves(prefix: &str, value: &Value) -> Vec<(String, String)> {
    let plain = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match value {
        Value::Object(object) if !object.is_empty() => object
            .iter()
            .flat_map(|(name, inner)| {
                let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                leaves(&path, inner)
            })
            .collect(),
        Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
            let items = items.iter().enumerate();
            items.flat_map(|(index, item)| leaves(&format!("{prefix}[{index}]"), item)).collect()
        }
        Value::Array(items) if !items.is_empty() => {
            vec![(prefix.to_owned(), items.iter().map(plain).collect::<Vec<_>>().join(", "))]
        }
        Value::Object(_) if prefix.is_empty() => Vec::new(),
        other => vec![(prefix.to_owned(), plain(other))],
    }
}

/// A text in lines of about so many characters, broken between words where there are any.
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                *line += " ";
                *line += word;
            }
            _ => {
                let letters: Vec<char> = word.chars().collect();
                lines.extend(letters.chunks(width).map(|part| part.iter().collect::<String>()));
            }
        }
    }
    if lines.is_empty() { vec![text.to_owned()] } else { lines }
}

/// A policy's faults, with whose requests they are for, and how long each goes on: `outage: 50 % answered with 503, of requests
/// with path below /pay, of web, for 9m 30s more`.
pub(super) fn faults(list_of: &Value, now: SystemTime) -> impl Iterator<Item = String> {
    list(list_of).enumerate().map(move |(index, fault)| {
        let name = fault["name"].as_str().map_or_else(|| index.to_string(), str::to_owned);
        let percent = |of: &Value| of["percent"].as_f64().unwrap_or(100.0);
        let mut parts = Vec::new();
        if let Some(duration) = fault["delay"]["duration"].as_str() {
            parts.push(format!("{} % delayed by {duration}", percent(&fault["delay"])));
        }
        if fault["abort"].is_object() {
            let status = fault["abort"]["status"].as_u64().unwrap_or(503);
            parts.push(format!("{} % answered with {status}", percent(&fault["abort"])));
        }
        let mut words = vec![parts.join(" and ")];
        let matches: Vec<String> = list(&fault["matches"]).map(request_match).collect();
        if !matches.is_empty() {
            words.push(format!("of requests with {}", matches.join("; or with ")));
        }
        let callers: Vec<String> = list(&fault["callers"]).map(caller).collect();
        if !callers.is_empty() {
            words.push(format!("of {}", callers.join(" and ")));
        }
        words.push(left(fault, now));
        format!("{name}: {}", words.join(", "))
    })
}

/// A caller whose requests a fault is for.
fn caller(caller: &Value) -> String {
    match (caller["service"].as_str(), caller["namespace"].as_str()) {
        (Some(service), Some(namespace)) => format!("{service}.{namespace}"),
        (Some(service), None) => service.to_owned(),
        (None, Some(namespace)) => format!("all of namespace {namespace}"),
        (None, None) => "all of its namespace".to_owned(),
    }
}

/// `for 9m 30s more`, or `over`.
fn left(fault: &Value, now: SystemTime) -> String {
    let until = fault["until"].as_str().and_then(|until| humantime::parse_rfc3339(until).ok());
    match until.and_then(|until| until.duration_since(now).ok()).map(|left| left.as_secs()) {
        None | Some(0) => "over".to_owned(),
        Some(left) => format!("for {} more", humantime::format_duration(Duration::from_secs(left))),
    }
}

/// How long a policy's longest fault still goes on; empty without one.
pub(super) fn fault_left(list_of: &Value, now: SystemTime) -> String {
    let longest = list(list_of).max_by(|one, other| one["until"].as_str().cmp(&other["until"].as_str()));
    longest.map(|fault| left(fault, now)).unwrap_or_default()
}

/// `1 fault`, `2 faults`.
pub(super) fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// The items of a JSON list; none where it is none.
pub(super) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn complaints_are_found_wherever_a_status_has_its_conditions() {
        let bad = serde_json::json!({"type": "T", "status": "False", "reason": "R", "message": "m"});
        let good = serde_json::json!({"type": "T", "status": "True", "reason": "", "message": ""});
        for status in [
            serde_json::json!({"conditions": [good, bad]}),
            serde_json::json!({"parents": [{"conditions": [bad, good]}]}),
            serde_json::json!({"ancestors": [{"conditions": [bad]}]}),
        ] {
            assert_eq!(complaints(&status), ["R (T): m"], "{status}");
        }
    }

    #[test]
    fn a_rule_reads_as_a_sentence() {
        let canary = json!({
            "matches": [{"method": "GET", "path": {"value": "/pay"}}, {"headers": [{"name": "beta", "value": "1"}]}],
            "backendRefs": [{"name": "v1", "port": 80, "weight": 2}, {"name": "v2", "port": 80}],
            "timeouts": {"request": "2s"},
        });
        assert_eq!(
            rule(&canary),
            [
                "requests with method GET and path below /pay; or with header beta is 1",
                "→ 66.7 % to v1 port 80",
                "→ 33.3 % to v2 port 80",
                "the request may take 2s",
            ]
        );
        assert_eq!(
            rule(&json!({})),
            ["any request", "→ nowhere: no backend has any weight, so the answer is 500"]
        );
    }

    #[test]
    fn every_value_has_a_line_of_its_own() {
        let limits = json!({
            "rateLimits": [{"name": "all", "total": {"requests": 100}}, {"perClient": {"requests": 1, "per": "1m"}}],
            "failureStatuses": {"http": [500, 503]}, "tcp": {}, "on": [],
        });
        let mut lines = settings("", &limits);
        lines.sort();
        assert_eq!(
            lines,
            [
                "failureStatuses.http: 500, 503",
                "on: []",
                "rateLimits[0].name: all",
                "rateLimits[0].total.requests: 100",
                "rateLimits[1].perClient.per: 1m",
                "rateLimits[1].perClient.requests: 1",
                "tcp: {}",
            ]
        );
    }

    #[test]
    fn long_texts_are_broken_between_words() {
        assert_eq!(wrapped("a few words of it", 9), ["a few", "words of", "it"]);
        assert_eq!(wrapped("{\"payments\":\"later\"}", 10), ["{\"payments", "\":\"later\"}"]);
        assert_eq!(wrapped("", 10), [""]);
    }

    #[test]
    fn faults_say_how_long_they_go_on() {
        let now = humantime::parse_rfc3339("2026-01-01T00:00:00Z").unwrap();
        let list = json!([
            {"name": "outage", "abort": {"percent": 50}, "until": "2026-01-01T00:10:00Z"},
            {"delay": {"duration": "200ms"}, "matches": [{}], "until": "2025-01-01T00:00:00Z"},
            {"name": "drill", "abort": {"status": 418}, "until": "2026-01-01T00:01:00Z",
             "callers": [{"service": "web"}, {"service": "job", "namespace": "batch"}, {"namespace": "lab"}],
             "matches": [{"path": {"value": "/pay"}, "method": "POST"}, {"headers": [{"name": "beta", "value": "1"}]}]},
        ]);
        assert_eq!(
            faults(&list, now).collect::<Vec<_>>(),
            [
                "outage: 50 % answered with 503, for 10m more",
                "1: 100 % delayed by 200ms, of requests with any path, over",
                "drill: 100 % answered with 418, of requests with method POST and path below /pay; or with header beta is 1, of web \
                 and job.batch and all of namespace lab, for 1m more",
            ]
        );
        assert_eq!(fault_left(&list, now), "for 10m more");
        assert_eq!(fault_left(&Value::Null, now), "");
    }

    #[test]
    fn ages_are_short() {
        let created = "2026-01-01T00:00:00Z";
        let start = humantime::parse_rfc3339(created).unwrap();
        for (seconds, expected) in [(5, "5s"), (65, "1m"), (7200, "2h"), (200_000, "2d")] {
            assert_eq!(age(Some(created), start + Duration::from_secs(seconds)), expected);
        }
        assert_eq!(age(Some("yesterday"), start), "?");
    }
}
