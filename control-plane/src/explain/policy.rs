//! Every value of a service's policy, and where it is from: made from the schema of `TrafficPolicy`, so that no field is
//! forgotten.

use serde_json::Value;

use super::view::{FieldView, PolicyView};
use crate::resource::{Documents, Key, Kind, schema};

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

/// The policy of a service. `source` is `<namespace>/<name>` of the `TrafficPolicy` that sidecars were told of; empty: none.
pub fn policy(service: &str, source: &str, documents: &Documents) -> PolicyView {
    let document = source
        .split_once('/')
        .and_then(|(namespace, name)| documents.get(&Key::new(Kind::TrafficPolicy, namespace, name)))
        .map(|document| document.to_value());
    let source = (!source.is_empty()).then(|| format!("{} {source}", Kind::TrafficPolicy.name()));
    let fields = fields(document.as_ref().map(|it| &it["spec"]), source.as_deref().unwrap_or(DEFAULT));
    PolicyView { service: service.to_owned(), source, fields }
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
    fields.push(FieldView {
        field: at.to_owned(),
        value,
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
    use serde_json::json;

    use super::*;

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
}
