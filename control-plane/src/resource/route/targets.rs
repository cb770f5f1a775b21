//! Which Services a route is for, and which get its requests.

use gateway_api::experimental::httproutes::{
    HttpRouteParentRefs as ParentRef, HttpRouteRulesBackendRefs as BackendRef,
    HttpRouteRulesFilters as Filter, HttpRouteRulesFiltersRequestMirrorBackendRef as MirrorRef,
};

use super::{
    super::{
        Kind,
        fault::{Faults, Path},
        metadata,
    },
    check_port,
    filters::{self, Place},
};

pub(super) fn check_parents(parents: &[ParentRef], at: &Path, faults: &mut Faults) {
    if parents.is_empty() {
        faults.add(at, "must name at least one Service");
    }
    faults.check_length(at, parents.len(), 32);
    for (index, parent) in parents.iter().enumerate() {
        let at = at.index(index);
        // The Gateway API's defaults are its own group and `Gateway`.
        let kind = parent.kind.as_deref().unwrap_or("Gateway");
        if kind != "Service" {
            faults.add(&at.field("kind"), format!("must be \"Service\", is {kind:?}: {}", why_not(kind)));
        }
        let group = parent.group.as_deref().unwrap_or("gateway.networking.k8s.io");
        if !group.is_empty() {
            let default = if parent.group.is_none() { ", the default" } else { "" };
            faults.add(
                &at.field("group"),
                format!("must be \"\", the group of Service, is {group:?}{default}"),
            );
        }
        if let Err(message) = metadata::service_name(&parent.name) {
            faults.add(&at.field("name"), message);
        }
        check_namespace(parent.namespace.as_deref(), &at, faults);
        check_port(parent.port, &at, faults);
        if let Some(Err(message)) = parent.section_name.as_deref().map(metadata::dns_subdomain) {
            faults.add(&at.field("sectionName"), message);
        }
        if parents[..index].contains(parent) {
            faults.add(&at, "is in the list already");
        }
    }
}

pub(super) fn check_backend(backend: &BackendRef, at: &Path, faults: &mut Faults) {
    check_service(backend.group.as_deref(), backend.kind.as_deref(), &backend.name, at, faults);
    check_namespace(backend.namespace.as_deref(), at, faults);
    check_backend_port(backend.port, at, faults);
    if let Some(weight) = backend.weight {
        faults.check_range(&at.field("weight"), weight.into(), 0, 1_000_000);
    }
    filters::check(&filters_of(backend), Place::Backend, &at.field("filters"), faults);
}

/// A backend's filters, which are the same as a rule's in everything but the name of their type.
pub(crate) fn filters_of(backend: &BackendRef) -> Vec<Filter> {
    let Some(filters) = &backend.filters else { return Vec::new() };
    let value = serde_json::to_value(filters).expect("it was made from such a value");
    serde_json::from_value(value).expect("both are the Gateway API's HTTPRouteFilter")
}

/// Who gets copies of a rule's requests.
pub(super) fn check_mirrored(backend: &MirrorRef, at: &Path, faults: &mut Faults) {
    check_service(backend.group.as_deref(), backend.kind.as_deref(), &backend.name, at, faults);
    check_namespace(backend.namespace.as_deref(), at, faults);
    check_backend_port(backend.port, at, faults);
}

fn check_service(group: Option<&str>, kind: Option<&str>, name: &str, at: &Path, faults: &mut Faults) {
    if let Some(group) = group.filter(|group| !group.is_empty()) {
        faults.add(&at.field("group"), format!("must be \"\", the group of Service, is {group:?}"));
    }
    if let Some(kind) = kind.filter(|kind| *kind != "Service") {
        faults.add(&at.field("kind"), format!("must be \"Service\", is {kind:?}: {}", why_not(kind)));
    }
    if let Err(message) = metadata::service_name(name) {
        faults.add(&at.field("name"), message);
    }
}

fn check_backend_port(port: Option<i32>, at: &Path, faults: &mut Faults) {
    if port.is_none() {
        faults.add(&at.field("port"), "is required: which port of the Service");
    }
    check_port(port, at, faults);
}

fn check_namespace(namespace: Option<&str>, at: &Path, faults: &mut Faults) {
    if let Some(Err(message)) = namespace.map(metadata::dns_label) {
        faults.add(&at.field("namespace"), message);
    }
}

/// Why a route can have nothing to do with a kind.
fn why_not(kind: &str) -> &'static str {
    if kind == Kind::ExternalService.name() {
        "an ExternalService cannot be routed yet; a TrafficPolicy can be for one"
    } else {
        "routes of a mesh belong to Services"
    }
}
