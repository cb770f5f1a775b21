//! From what was written to a typed document, or to everything that is wrong with it.

use std::time::SystemTime;

use serde_json::Value;

use super::{
    DEFAULT_NAMESPACE, Document, Fault, Faults, Key, Kind, fault::covers, metadata, policy::faults, route,
    schema, text::Written,
};
use crate::clock;

/// What was made of one document.
pub struct Read {
    /// As far as its shape could be mended; right by itself only where there are no faults.
    pub document: Option<Document>,
    /// Every fault of the document by itself; what it says of others is for [`super::references`].
    pub faults: Vec<Fault>,
}

/// Admits one document.
///
/// # Errors
/// Every fault of the document by itself.
pub fn admit(index: usize, written: &Written, expected: Option<&Key>) -> Result<Document, Vec<Fault>> {
    match read(index, written, expected) {
        Read { document: Some(document), faults } if faults.is_empty() => Ok(document),
        Read { faults, .. } => Err(faults),
    }
}

/// Reads one document.
///
/// `index` is its place in the request, for the faults. `expected` is the document that the request is about, where it
/// names one: what is absent is filled in from there, what differs is a fault. What only the server writes is left as
/// it was sent, but for `status`, which is dropped.
pub fn read(index: usize, written: &Written, expected: Option<&Key>) -> Read {
    let mut value = written.value.clone();
    fill_in(&mut value, expected);
    let label = label(&value);
    let Read { document, faults } = match kind(&value, expected) {
        Ok(kind) => check(kind, &value, expected),
        Err(fault) => Read { document: None, faults: vec![fault] },
    };
    let place = |fault: Fault| {
        let (line, column) = written.position(&fault.field).unzip();
        Fault { document: label.clone(), index: Some(index), line, column, ..fault }
    };
    Read { document, faults: faults.into_iter().map(place).collect() }
}

/// Which document something was meant to be, as far as it says so; it may be anything but right.
pub fn key(written: &Written) -> Option<Key> {
    let value = &written.value;
    let kind = Kind::ALL.into_iter().find(|kind| value["kind"] == kind.name())?;
    let namespace = value["metadata"]["namespace"].as_str().unwrap_or(kind.default_namespace());
    Some(Key::new(kind, namespace, value["metadata"]["name"].as_str()?))
}

fn fill_in(value: &mut Value, expected: Option<&Key>) {
    let Some(object) = value.as_object_mut() else { return };
    object.remove("status");
    if let Some(expected) = expected {
        object.entry("kind").or_insert_with(|| expected.kind.name().into());
        object.entry("apiVersion").or_insert_with(|| expected.kind.api_version().into());
    }
    let kind = Kind::ALL.into_iter().find(|kind| object.get("kind").is_some_and(|it| it == kind.name()));
    let default = kind.map_or(DEFAULT_NAMESPACE, Kind::default_namespace);
    let metadata = object.entry("metadata").or_insert_with(|| Value::Object(serde_json::Map::new()));
    if let Some(metadata) = metadata.as_object_mut() {
        let namespace = expected.map_or(default, |expected| &expected.namespace);
        metadata.entry("namespace").or_insert_with(|| namespace.into());
        if let Some(expected) = expected {
            metadata.entry("name").or_insert_with(|| expected.name.as_str().into());
        }
    }
}

/// `<Kind> <namespace>/<name>` as far as it can be read.
fn label(value: &Value) -> Option<String> {
    let kind = value["kind"].as_str()?;
    let namespace = value["metadata"]["namespace"].as_str().unwrap_or("?");
    let name = value["metadata"]["name"].as_str().unwrap_or("?");
    Some(format!("{kind} {namespace}/{name}"))
}

fn kind(value: &Value, expected: Option<&Key>) -> Result<Kind, Fault> {
    if !value.is_object() {
        return Err(Fault::new("", "must be an object with apiVersion, kind, metadata and spec"));
    }
    let kinds = || Kind::ALL.map(|kind| format!("{} ({})", kind.name(), kind.api_version())).join(", ");
    match value.get("kind") {
        None => Err(Fault::new("kind", format!("is required: one of {}", kinds()))),
        Some(written) => {
            let kind = Kind::ALL.into_iter().find(|kind| written == kind.name());
            match (kind, expected) {
                (Some(kind), Some(expected)) if kind != expected.kind => Err(Fault::new(
                    "kind",
                    format!("must be {:?} as in the path, is {written}", expected.kind.name()),
                )),
                (Some(kind), _) => Ok(kind),
                (None, _) => Err(Fault::new("kind", format!("must be one of {}, is {written}", kinds()))),
            }
        }
    }
}

fn check(kind: Kind, value: &Value, expected: Option<&Key>) -> Read {
    let (mut faults, mended) = schema::check(kind, value);
    match serde_json::from_value::<Document>(mended) {
        Ok(document) => {
            let meaning = check_meaning(&document, expected).into_iter();
            let meaning = meaning.chain(check_times(&document, clock::now()));
            let elsewhere: Vec<Fault> = meaning
                .filter(|fault| !faults.iter().any(|other| covers(&other.field, &fault.field)))
                .collect();
            faults.extend(elsewhere);
            Read { document: Some(document), faults }
        }
        Err(error) => {
            if faults.is_empty() {
                faults.push(Fault::new("", error.to_string()));
            }
            Read { document: None, faults }
        }
    }
}

/// What depends on when it is said.
fn check_times(document: &Document, now: SystemTime) -> Vec<Fault> {
    match document {
        Document::TrafficPolicy(policy) => {
            faults::check_ends(policy.spec.faults.as_deref().unwrap_or_default(), now)
        }
        _ => Vec::new(),
    }
}

fn check_meaning(document: &Document, expected: Option<&Key>) -> Vec<Fault> {
    let mut faults = Faults::default();
    let metadata = document.metadata();
    match document {
        Document::MeshConfig(config) => {
            metadata.check(&mut faults, metadata::dns_subdomain);
            config.spec.check(metadata, &mut faults);
        }
        Document::Service(service) => {
            metadata.check(&mut faults, metadata::service_name);
            service.spec.check(&mut faults);
        }
        Document::ExternalService(service) => {
            metadata.check(&mut faults, metadata::service_name);
            service.spec.check(&mut faults);
        }
        Document::HttpRoute(route) => {
            metadata.check(&mut faults, metadata::dns_subdomain);
            route::check(&route.spec, &mut faults);
        }
        Document::GrpcRoute(route) => {
            metadata.check(&mut faults, metadata::dns_subdomain);
            route::grpc::check(&route.spec, &mut faults);
        }
        Document::TrafficPolicy(policy) => {
            metadata.check(&mut faults, metadata::dns_subdomain);
            policy.spec.check(&mut faults);
        }
    }
    if let Some(expected) = expected {
        let at = super::Path::root().field("metadata");
        for (field, wanted, found) in [
            ("name", &expected.name, &metadata.name),
            ("namespace", &expected.namespace, &metadata.namespace),
        ] {
            if wanted != found {
                faults.add(&at.field(field), format!("must be {wanted:?} as in the path, is {found:?}"));
            }
        }
    }
    faults.into_vec()
}

#[cfg(test)]
mod tests;
