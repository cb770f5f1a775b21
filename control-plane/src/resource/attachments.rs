//! Which ports of which Services each route is for: what `parentRefs` come to.

use std::collections::{BTreeMap, BTreeSet};

use gateway_api::experimental::httproutes::HttpRouteParentRefs as ParentRef;

use super::{Documents, Key, Kind, Resource, route, service::ServiceSpec};

/// What became of each `parentRef`, by its route and its index.
pub type Attachments = BTreeMap<(Key, usize), Result<Attached, Unattached>>;

/// What a route is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Of which Service.
    pub service: Key,
    /// Its ports; `None`: all that it has or will have.
    pub ports: Option<BTreeSet<u16>>,
    /// Those that it names and is not for, and why.
    pub lost: Option<String>,
    /// The route's namespace, where the Service is of another one: then the route is for callers from there.
    pub consumer_namespace: Option<String>,
}

/// Why a route is not for what it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unattached {
    /// `NoMatchingParent` is the Gateway API's; it has no word of its own for routes that exclude each other, and leaves room for
    /// further reasons, so that is `Conflicted`, as of policies.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// A `GRPCRoute` and its ports.
type Taken = (Key, Option<BTreeSet<u16>>);

/// Works it out for all routes.
///
/// One kind of route is for a port (GEP-1294, "Route types"): where a `GRPCRoute` is, an `HTTPRoute` is not. Producers' routes
/// and those of each namespace of consumers are apart.
pub fn attachments(documents: &Documents) -> Attachments {
    let mut attachments = Attachments::new();
    // By Service and namespace of consumers.
    let mut taken: BTreeMap<(Key, Option<String>), Vec<Taken>> = BTreeMap::new();
    for (key, document) in documents.routes() {
        let spec = route::of(document).expect("it is a route");
        for (index, parent) in spec.parent_refs.iter().flatten().enumerate() {
            let mut attached = attach(key, parent, documents);
            if let Ok(it) = &mut attached {
                let scope = (it.service.clone(), it.consumer_namespace.clone());
                match key.kind {
                    Kind::GrpcRoute => taken.entry(scope).or_default().push((key.clone(), it.ports.clone())),
                    _ => {
                        if let Some(others) = taken.get(&scope)
                            && let Err(unattached) = leave(it, others, documents)
                        {
                            attached = Err(unattached);
                        }
                    }
                }
            }
            attachments.insert((key.clone(), index), attached);
        }
    }
    attachments
}

/// The Service that a route's parent is.
pub fn parent(route: &Key, parent: &ParentRef) -> Key {
    let namespace = parent.namespace.as_deref().unwrap_or(&route.namespace);
    Key::new(Kind::Service, namespace, parent.name.as_str())
}

fn attach(route: &Key, reference: &ParentRef, documents: &Documents) -> Result<Attached, Unattached> {
    let service = parent(route, reference);
    let none = |message| Unattached { reason: "NoMatchingParent", message };
    let found = documents
        .service(&service.namespace, &service.name)
        .ok_or_else(|| none(format!("there is no {service}")))?;
    let ports = port(reference, &service, found).map_err(none)?;
    let elsewhere = service.namespace != route.namespace;
    let consumer_namespace = elsewhere.then(|| route.namespace.clone());
    Ok(Attached { service, ports, lost: None, consumer_namespace })
}

/// The one port that a parent names; `None`: every port.
fn port(
    parent: &ParentRef,
    service: &Key,
    found: &Resource<ServiceSpec>,
) -> Result<Option<BTreeSet<u16>>, String> {
    let number = parent.port.map(|port| u16::try_from(port).unwrap_or_default());
    let Some(section) = &parent.section_name else {
        return match number {
            Some(number) if found.spec.port(number.into()).is_none() => {
                Err(format!("{service} has no port {number}"))
            }
            number => Ok(number.map(|number| [number].into())),
        };
    };
    let named = found.spec.ports.iter().find(|port| port.name.as_ref() == Some(section));
    match named.map(|port| port.port) {
        Some(port) if number.is_none_or(|number| number == port) => Ok(Some([port].into())),
        Some(_) => Err(format!("port and sectionName are two ports of {service}")),
        None => Err(format!("{service} has no port named {section:?}")),
    }
}

/// Leaves to an `HTTPRoute` the ports that no `GRPCRoute` has.
fn leave(attached: &mut Attached, others: &[Taken], documents: &Documents) -> Result<(), Unattached> {
    let Attached { service, ports, lost, .. } = attached;
    let all = || {
        let found = documents.service(&service.namespace, &service.name);
        found.iter().flat_map(|found| &found.spec.ports).map(|port| port.port).collect::<BTreeSet<u16>>()
    };
    let mut left = ports.clone().unwrap_or_else(all);
    let mut gone = Vec::new();
    for (other, taken) in others {
        left.retain(|port| {
            let keeps = taken.as_ref().is_some_and(|taken| !taken.contains(port));
            if !keeps {
                gone.push((*port, other));
            }
            keeps
        });
    }
    let Some((_, holder)) = gone.last() else { return Ok(()) };
    if left.is_empty() {
        return Err(Unattached {
            reason: "Conflicted",
            message: format!(
                "{holder} is for the same port of {service}, and a GRPCRoute goes before an HTTPRoute"
            ),
        });
    }
    let each =
        gone.iter().map(|(port, other)| format!("not for port {port} of {service}, which {other} has"));
    let each: Vec<String> = each.collect();
    *lost = Some(format!("{}: a GRPCRoute goes before an HTTPRoute", each.join(", ")));
    *ports = Some(left);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{admit, text};

    fn route(kind: &str, name: &str, namespace: &str, parent: &str) -> String {
        format!(
            "---\n{{apiVersion: gateway.networking.k8s.io/v1, kind: {kind}, metadata: {{name: {name}, namespace: \
             {namespace}}}, spec: {{parentRefs: [{{group: '', kind: Service, name: web, {parent}}}], rules: [{{}}]}}}}\n"
        )
    }

    fn of(routes: &[String]) -> BTreeMap<String, String> {
        let mut text = "{apiVersion: v1, kind: Service, metadata: {name: web, namespace: demo}, spec: {ports: [{name: a, \
                        port: 80}, {name: b, port: 81}]}}\n"
            .to_owned();
        text.extend(routes.iter().map(String::as_str));
        let mut documents = Documents::default();
        for (index, written) in text::read(&text, text::Format::Yaml).unwrap().iter().enumerate() {
            documents.insert(admit::admit(index, written, None).unwrap());
        }
        let told = attachments(&documents).into_iter().map(|((key, _), it)| {
            let told = match it {
                Err(unattached) => unattached.reason.to_owned(),
                Ok(it) => {
                    let lost = it.lost.map(|lost| format!(", {lost}")).unwrap_or_default();
                    format!("{:?} {:?}{lost}", it.ports.unwrap_or_default(), it.consumer_namespace)
                }
            };
            (key.name, told)
        });
        told.collect()
    }

    #[test]
    fn a_parent_is_a_port_of_a_service_that_there_is() {
        let told = of(&[
            route("HTTPRoute", "all", "demo", ""),
            route("HTTPRoute", "one", "demo", "port: 81"),
            route("HTTPRoute", "named", "demo", "sectionName: b"),
            route("HTTPRoute", "none", "demo", "port: 82"),
            route("HTTPRoute", "two", "demo", "port: 80, sectionName: b"),
            route("HTTPRoute", "gone", "other", ""),
            route("HTTPRoute", "consumer", "other", "namespace: demo"),
        ]);
        let expected = [
            ("all", "{} None"),
            ("consumer", "{} Some(\"other\")"),
            ("gone", "NoMatchingParent"),
            ("named", "{81} None"),
            ("none", "NoMatchingParent"),
            ("one", "{81} None"),
            ("two", "NoMatchingParent"),
        ];
        assert_eq!(told.iter().map(|(name, it)| (name.as_str(), it.as_str())).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_port_has_routes_of_one_kind_and_grpc_goes_first() {
        let told = of(&[
            route("HTTPRoute", "all", "demo", ""),
            route("HTTPRoute", "taken", "demo", "port: 80"),
            route("HTTPRoute", "consumer", "other", "namespace: demo"),
            route("GRPCRoute", "grpc", "demo", "port: 80"),
        ]);
        let expected = [
            (
                "all",
                "{81} None, not for port 80 of Service demo/web, which GRPCRoute demo/grpc has: a GRPCRoute goes before an \
                 HTTPRoute",
            ),
            ("consumer", "{} Some(\"other\")"),
            ("grpc", "{80} None"),
            ("taken", "Conflicted"),
        ];
        assert_eq!(told.iter().map(|(name, it)| (name.as_str(), it.as_str())).collect::<Vec<_>>(), expected);
    }
}
