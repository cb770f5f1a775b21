//! The shape of each kind of document as JSON Schema, and what breaks it in plain sentences.

use std::{collections::BTreeMap, sync::LazyLock};

use gateway_api::experimental::{grpcroutes::GrpcRouteSpec, httproutes::HttpRouteSpec};
use jsonschema::{
    ValidationError, Validator,
    error::{TypeKind, ValidationErrorKind},
    paths::LocationSegment,
};
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{
    Kind, Metadata,
    external::ExternalServiceSpec,
    fault::{Fault, Path},
    hint,
    mesh_config::MeshConfigSpec,
    policy::TrafficPolicySpec,
    service::ServiceSpec,
};

struct Shape {
    schema: Value,
    validator: Validator,
}

static SHAPES: LazyLock<BTreeMap<Kind, Shape>> = LazyLock::new(|| {
    let shape = |kind: Kind| {
        let spec = match kind {
            Kind::MeshConfig => strict_schema::<MeshConfigSpec>(),
            Kind::Service => strict_schema::<ServiceSpec>(),
            Kind::ExternalService => strict_schema::<ExternalServiceSpec>(),
            Kind::HttpRoute => strict_schema::<HttpRouteSpec>(),
            Kind::GrpcRoute => strict_schema::<GrpcRouteSpec>(),
            Kind::TrafficPolicy => strict_schema::<TrafficPolicySpec>(),
        };
        let schema = json!({
            "type": "object",
            "required": ["apiVersion", "kind", "metadata", "spec"],
            "additionalProperties": false,
            "properties": {
                "apiVersion": {"type": "string", "enum": [kind.api_version()]},
                "kind": {"type": "string", "enum": [kind.name()]},
                "metadata": strict_schema::<Metadata>(),
                "spec": spec,
                "status": {"description": "Written by the server; ignored when sent."},
            },
        });
        let validator = jsonschema::validator_for(&schema).expect("our own schemas are schemas");
        (kind, Shape { schema, validator })
    };
    Kind::ALL.into_iter().map(shape).collect()
});

/// The JSON Schema of a kind.
pub fn schema(kind: Kind) -> &'static Value {
    &SHAPES[&kind].schema
}

/// Says everything in which a document has not the shape of its kind, and gives it back with that mended, so that
/// what its values mean can be checked as well.
pub(super) fn check(kind: Kind, document: &Value) -> (Vec<Fault>, Value) {
    /// A mended member can lack members of its own; no document is nested deeper than this in required members.
    const ROUNDS: usize = 8;
    let shape = &SHAPES[&kind];
    let mut faults = Vec::new();
    let mut mended = document.clone();
    for round in 0..ROUNDS {
        let current = mended.clone();
        let mut right = true;
        for error in shape.validator.iter_errors(&current) {
            right = false;
            if round == 0 {
                faults.extend(sentences(kind, shape, &error));
            }
            mend(&mut mended, shape, &error);
        }
        if right {
            break;
        }
    }
    (faults, mended)
}

/// A schema for what people write: nothing is null, nothing unknown is let by, nothing is by reference.
fn strict_schema<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    make_strict(&mut schema);
    schema
}

fn make_strict(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(make_strict),
        Value::Object(object) => {
            // From the inside out, so that an alternative of alternatives is one list already.
            object.values_mut().for_each(make_strict);
            for keyword in ["anyOf", "oneOf"] {
                collapse_alternatives(object, keyword);
            }
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    object.insert("type".into(), only);
                }
            }
            if let Some(Value::Array(options)) = object.get_mut("enum") {
                options.retain(|option| !option.is_null());
            }
            if object.contains_key("properties") && !object.contains_key("additionalProperties") {
                object.insert("additionalProperties".into(), false.into());
            }
            if object.get("format").and_then(Value::as_str) == Some("int32") {
                object.entry("minimum").or_insert(i32::MIN.into());
                object.entry("maximum").or_insert(i32::MAX.into());
            }
            if object.get("format").and_then(Value::as_str) == Some("uint32") {
                object.entry("maximum").or_insert(u32::MAX.into());
            }
            object.remove("default");
        }
        _ => {}
    }
}

/// "This or null" is this; "a number or a string" is one list of types; "this word or that" is one list of words: so each
/// error stays one sentence.
fn collapse_alternatives(object: &mut Map<String, Value>, keyword: &str) {
    let Some(Value::Array(alternatives)) = object.get(keyword) else { return };
    let mut kept: Vec<Map<String, Value>> = alternatives
        .iter()
        .filter(|it| it["type"] != "null")
        .filter_map(|it| it.as_object().cloned())
        .collect();
    let simple =
        |it: &Map<String, Value>| it.get("type").is_some_and(Value::is_string) && !it.contains_key("enum");
    let merged = match kept.as_mut_slice() {
        [only] => std::mem::take(only),
        several if several.iter().all(|it| it.contains_key("const")) => {
            let words: Value = several.iter().map(|it| it["const"].clone()).collect();
            Map::from_iter([("type".to_owned(), "string".into()), ("enum".to_owned(), words)])
        }
        several if several.iter().all(simple) => {
            let types: Value = several.iter().map(|it| it["type"].clone()).collect();
            let mut merged: Map<String, Value> = several.iter_mut().flat_map(std::mem::take).collect();
            merged.insert("type".into(), types);
            merged
        }
        _ => return,
    };
    object.remove(keyword);
    for (name, value) in merged {
        object.entry(name).or_insert(value);
    }
}

/// What is wrong, each with the field it is wrong in.
fn sentences(kind: Kind, shape: &Shape, error: &ValidationError<'_>) -> Vec<Fault> {
    let at = path(error);
    let is = |value: &Value| format!("is {value}");
    let one = |message: String| vec![Fault::new(at.as_str(), message)];
    let instance = error.instance();
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => unexpected
            .iter()
            .map(|name| {
                Fault::new(at.field(name), unknown_field(kind, &at, name, &known_fields(shape, error)))
            })
            .collect(),
        ValidationErrorKind::Required { property } => {
            vec![Fault::new(at.field(property.as_str().unwrap_or_default()), "is required")]
        }
        ValidationErrorKind::Type { kind } => {
            let types = types(kind);
            if types == ["string"]
                && let Some(number) = instance.as_number()
                && is_duration(at.as_str())
            {
                let number = number.as_u64().filter(|number| *number > 0).unwrap_or(5);
                return one(format!("must be a duration such as \"{number}s\", {}", describe(instance)));
            }
            let types = types.into_iter().map(with_article).collect::<Vec<_>>().join(" or ");
            one(format!("must be {types}, {}", describe(instance)))
        }
        ValidationErrorKind::Enum { options } => {
            let options = options.as_array().map(Vec::as_slice).unwrap_or_default();
            match options {
                [only] => one(format!("must be {only}, {}", is(instance))),
                several => {
                    let several = several.iter().map(Value::to_string).collect::<Vec<_>>().join(", ");
                    one(format!("must be one of {several}, {}", describe(instance)))
                }
            }
        }
        // The least there is of its type: the bound of what it means is another, and not told here.
        ValidationErrorKind::Minimum { limit } if limit.as_u64() == Some(0) => {
            one(format!("must not be negative, {}", is(instance)))
        }
        ValidationErrorKind::Minimum { limit } => one(format!("must be at least {limit}, {}", is(instance))),
        ValidationErrorKind::Maximum { limit } => one(format!("must be at most {limit}, {}", is(instance))),
        _ => one(error.to_string()),
    }
}

/// Whether a field, which is a text, is a duration; told by its name.
fn is_duration(field: &str) -> bool {
    const NAMES: [&str; 20] = [
        "after",
        "attempt",
        "backendRequest",
        "backoff",
        "base",
        "connectTimeout",
        "decay",
        "duration",
        "for",
        "idle",
        "idleTimeout",
        "initialDelay",
        "interval",
        "max",
        "minRttInterval",
        "per",
        "queueTimeout",
        "request",
        "timeout",
        "window",
    ];
    NAMES.contains(&field.rsplit('.').next().unwrap_or_default())
}

fn unknown_field(kind: Kind, at: &Path, name: &str, known: &[&str]) -> String {
    /// What Kubernetes knows of a Service's spec and its ports beyond what a mesh needs.
    const KUBERNETES_SERVICE: [&str; 17] = [
        "type",
        "clusterIPs",
        "externalIPs",
        "externalName",
        "externalTrafficPolicy",
        "internalTrafficPolicy",
        "ipFamilies",
        "ipFamilyPolicy",
        "loadBalancerClass",
        "loadBalancerIP",
        "loadBalancerSourceRanges",
        "publishNotReadyAddresses",
        "sessionAffinity",
        "sessionAffinityConfig",
        "trafficDistribution",
        "nodePort",
        "healthCheckNodePort",
    ];
    if kind == Kind::Service && at.as_str().starts_with("spec") && KUBERNETES_SERVICE.contains(&name) {
        return "is not supported yet".to_owned();
    }
    match known.iter().find(|known| hint::is_near(known, name)) {
        Some(near) => format!("is not a known field; did you mean {near:?}?"),
        None => "is not a known field".to_owned(),
    }
}

/// The fields that the object of an error may have.
fn known_fields<'shape>(shape: &'shape Shape, error: &ValidationError<'_>) -> Vec<&'shape str> {
    let object = error.schema_path().as_str().trim_end_matches("/additionalProperties");
    let properties = shape.schema.pointer(&format!("{object}/properties")).and_then(Value::as_object);
    properties.map(|properties| properties.keys().map(String::as_str).collect()).unwrap_or_default()
}

/// Puts something of the right shape where an error is. Its value means nothing: faults found there are not reported.
fn mend(document: &mut Value, shape: &Shape, error: &ValidationError<'_>) {
    let Some(place) = document.pointer_mut(error.instance_path().as_str()) else { return };
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            if let Some(object) = place.as_object_mut() {
                unexpected.iter().for_each(|name| drop(object.remove(name)));
            }
        }
        ValidationErrorKind::Required { property } => {
            let object = error.schema_path().as_str().trim_end_matches("/required");
            let name = property.as_str().unwrap_or_default();
            let expected = shape.schema.pointer(&format!("{object}/properties/{name}"));
            if let (Some(place), Some(expected)) = (place.as_object_mut(), expected) {
                place.insert(name.to_owned(), something(expected));
            }
        }
        _ => {
            let keyword = error.schema_path().as_str();
            let expected = keyword.rfind('/').and_then(|end| shape.schema.pointer(&keyword[..end]));
            if let Some(expected) = expected {
                *place = something(expected);
            }
        }
    }
}

/// A value of a schema's type.
fn something(schema: &Value) -> Value {
    if let Some(option) = schema["enum"].get(0) {
        return option.clone();
    }
    let name = schema["type"].as_str().or_else(|| schema["type"].get(0).and_then(Value::as_str));
    match name {
        Some("string") => "".into(),
        Some("integer" | "number") => schema.get("minimum").cloned().unwrap_or_else(|| 0.into()),
        Some("boolean") => false.into(),
        Some("array") => json!([]),
        _ => json!({}),
    }
}

/// The field of an error. Whether a number in it is an index is told by what is there.
fn path(error: &ValidationError<'_>) -> Path {
    error.instance_path().segments().fold(Path::root(), |path, segment| match segment {
        LocationSegment::Property(name) => path.field(&name),
        LocationSegment::Index(index) => path.index(index),
    })
}

fn types(kind: &TypeKind) -> Vec<String> {
    match kind {
        TypeKind::Single(one) => vec![one.to_string()],
        TypeKind::Multiple(several) => several.iter().map(|one| one.to_string()).collect(),
    }
}

fn with_article(name: String) -> String {
    match name.as_str() {
        "integer" => "a whole number".into(),
        "object" => "an object".into(),
        "array" => "a list".into(),
        "boolean" => "true or false".into(),
        other => format!("a {other}"),
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::Object(_) => "is an object".into(),
        Value::Array(_) => "is a list".into(),
        Value::String(text) if text.len() > 100 => "is a long string".into(),
        Value::String(text) => format!("is the string {text:?}"),
        other => format!("is {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_object_of_every_kind_is_closed() {
        fn closed(schema: &Value, at: &str) {
            if let Some(object) = schema.as_object() {
                assert!(
                    object.get("properties").is_none_or(|properties| !properties.is_object())
                        || object.contains_key("additionalProperties"),
                    "{at}"
                );
                assert!(!object.contains_key("$ref") && !object.contains_key("anyOf"), "{at}");
                object.iter().for_each(|(name, inner)| closed(inner, &format!("{at}/{name}")));
            }
        }
        for kind in Kind::ALL {
            closed(schema(kind), kind.name());
        }
    }

    #[test]
    fn distance_counts_letters() {
        for (one, other, expected) in
            [("name", "name", 0), ("weight", "wieght", 2), ("port", "ports", 1), ("", "abc", 3)]
        {
            assert_eq!(hint::distance(one, other), expected, "{one} {other}");
        }
    }
}
