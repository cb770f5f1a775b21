//! Compose files. Each service `web` becomes a pod of containers that share one network namespace:
//!
//! - `web-pillion-net` holds the namespace: it takes over the networks, the names and the published ports, redirects the
//!   traffic, and stays. Sidecar and application can be restarted without losing either.
//! - `web-pillion` is the sidecar.
//! - `web-pillion-ready` ends as soon as the sidecar is ready, which the application waits for: from its first connection on,
//!   nothing passes the mesh by.
//! - `web` is the application as it was, in that namespace.

mod control_plane;
mod member;
mod networks;
mod ports;

use super::{
    Node, Object, Options, Report,
    node::{list, object},
};
use crate::resource::{Faults, Path, dns_label};
use member::Member;

/// Ours, in a service: what there was before, or whose helper it is. Compose leaves names that begin with `x-` alone.
const MARK: &str = "x-pillion";
/// In a mark: the members of the service as they were before.
const BEFORE: &str = "before";
/// In a mark: the service is ours as a whole.
const ADDED: &str = "added";

/// Told by what Compose's specification asks for.
pub(super) fn is_compose(document: &Node) -> bool {
    document.get("services").is_some()
        && document.get("kind").is_none()
        && document.get("apiVersion").is_none()
}

/// Gives every service a sidecar. Gives the `Service` documents of those that serve something.
pub(super) fn inject(document: &mut Node, options: &Options, report: &mut Report) -> Vec<Node> {
    let mut faults = Faults::default();
    let at = Path::root().field("services");
    let Some(services) = document.get("services").and_then(Node::object).cloned() else {
        faults.add(&at, "must be an object");
        report.faults("", faults);
        return Vec::new();
    };
    if options.with_control_plane == options.join_token_file.is_some() {
        faults.add(&Path::root(), "needs either a control plane of its own or the file of a join token");
    }
    if !options.with_control_plane && options.control_plane.is_none() {
        faults.add(&Path::root(), "needs the control plane's address");
    }
    if document.get("include").is_some() {
        report.note("include", "services of the files that it names are not injected");
    }
    let mut members = Vec::new();
    for (name, service) in services.iter() {
        let at = at.field(name);
        let Some(service) = service.object() else {
            faults.add(&at, "must be an object");
            continue;
        };
        match Member::read(name, service, &at, &mut faults) {
            Ok(member) => {
                member.notes.iter().for_each(|note| report.note(name, note));
                members.push(member);
            }
            Err(why) => report.note(name, format_args!("not injected: {why}")),
        }
    }
    check_names(&services, &members, &at, &mut faults);
    if options.with_control_plane {
        control_plane::check_names(document, &services, &members, &mut faults);
    }

    let mut injected = Object::default();
    if options.with_control_plane && !members.is_empty() {
        control_plane::add(document, &mut injected, &members, options);
    }
    for (name, service) in services {
        match members.iter().find(|member| member.name == name) {
            None => injected.set(name.clone(), rejoined(service, &members)),
            Some(member) => member.write(service, &members, options, &mut injected),
        }
    }
    let documents = members.iter().filter_map(|member| member.document(options)).collect();
    document.object_mut().expect("it has services").set("services", injected);
    report.faults("", faults);
    documents
}

/// Takes out what [`inject`] has put in.
pub(super) fn uninject(document: &mut Node, report: &mut Report) {
    let mut faults = Faults::default();
    let at = Path::root().field("services");
    let services = document.at_mut(&["services"]).and_then(Node::object_mut).map(std::mem::take);
    let mut before = Object::default();
    for (name, mut service) in services.into_iter().flatten() {
        let mark = service.object_mut().and_then(|service| service.remove(MARK));
        if let Some(mark) = mark {
            if mark.get(ADDED).is_some() {
                continue;
            }
            match (service.object_mut(), mark.get(BEFORE).and_then(Node::object)) {
                (Some(service), Some(was)) => member::give_back(service, was.clone()),
                _ => faults.add(
                    &at.field(&name).field(MARK),
                    "is not what an injection left there; how the service was before cannot be told",
                ),
            }
        }
        before.set(name, service);
    }
    if let Some(services) = document.at_mut(&["services"]) {
        // What was no object stays as it is; injecting says so.
        if services.object().is_some() {
            *services = Node::Object(before);
        }
    }
    control_plane::remove(document);
    report.faults("", faults);
}

/// A service that is left out, but shares the network namespace of one that is not.
fn rejoined(mut service: Node, members: &[Member]) -> Node {
    if let Some(service) = service.object_mut() {
        member::rejoin(service, members);
    }
    service
}

/// Names that injected services take must be free, and no two services be the same to the mesh.
fn check_names(services: &Object, members: &[Member], at: &Path, faults: &mut Faults) {
    for (index, member) in members.iter().enumerate() {
        for helper in member.helpers() {
            if services.get(&helper).is_some() {
                faults.add(
                    &at.field(&helper),
                    format!("is a name that the sidecar of {:?} takes", member.name),
                );
            }
        }
        if let Err(message) = dns_label(&member.workload) {
            faults
                .add(&at.field(&member.name), format!("cannot be a service of the mesh: the name {message}"));
        }
        if let Some(same) = members[..index].iter().find(|other| other.workload == member.workload) {
            let message = format!("is {:?} to the mesh, as {:?} is", member.workload, same.name);
            faults.add(&at.field(&member.name), message);
        }
    }
}

/// Says of a service that it is ours.
fn added(service: &mut Object) {
    service.set(MARK, object([(ADDED, true.into())]));
}

/// `depends_on` in its long form.
fn depends_on(node: Option<&Node>) -> Object {
    match node {
        Some(Node::Object(conditions)) => conditions.clone(),
        Some(Node::List(names)) => names
            .iter()
            .filter_map(|name| Some((name.text()?.to_owned(), condition("service_started"))))
            .collect(),
        _ => Object::default(),
    }
}

fn condition(name: &str) -> Node {
    object([("condition", name.into())])
}

/// What all our containers have in common: nothing to write to, and no rights but those given.
fn confined(service: &mut Object, user: u64) {
    service.set("user", format!("{user}:{user}"));
    service.set("read_only", true);
    service.set("cap_drop", list(["ALL"]));
    service.set("security_opt", list(["no-new-privileges:true"]));
}
