//! Kubernetes manifests: which documents have pods, and where.

mod parts;
mod pod;
mod probes;

use super::{Node, Options, Report, tuning::INJECTED};
use crate::resource::{Faults, Path};

/// Kinds with pods: API group, kind, and the way to the pod template.
const WORKLOADS: [(&str, &str, &[&str]); 7] = [
    ("", "Pod", &[]),
    ("apps", "Deployment", &["spec", "template"]),
    ("apps", "StatefulSet", &["spec", "template"]),
    ("apps", "DaemonSet", &["spec", "template"]),
    ("apps", "ReplicaSet", &["spec", "template"]),
    ("batch", "Job", &["spec", "template"]),
    ("batch", "CronJob", &["spec", "jobTemplate", "spec", "template"]),
];

/// Gives every pod of a document a sidecar.
pub(super) fn inject(document: &mut Node, options: &Options, report: &mut Report) {
    for_each(document, &Path::root(), &mut |document, way, at| {
        let name = name(document);
        let mut faults = Faults::default();
        if !way.is_empty() {
            check_own_annotations(document, at, &mut faults);
        }
        let at = way.iter().fold(at.clone(), |at, step| at.field(step));
        match document.at_mut(way) {
            Some(template) if template.get("spec").is_some_and(|spec| spec.object().is_some()) => {
                for note in pod::inject(template, options, &at, &mut faults) {
                    report.note(&name, note);
                }
            }
            _ => faults.add(&at.field("spec"), "is missing: it says what the pod is made of"),
        }
        report.faults(&name, faults);
    });
}

/// Takes the sidecars out of a document's pods.
pub(super) fn uninject(document: &mut Node, report: &mut Report) {
    for_each(document, &Path::root(), &mut |document, way, at| {
        let name = name(document);
        let mut faults = Faults::default();
        let at = way.iter().fold(at.clone(), |at, step| at.field(step));
        if let Some(template) = document.at_mut(way) {
            pod::uninject(template, &at, &mut faults);
        }
        report.faults(&name, faults);
    });
}

/// Every workload of a document, in lists too, with the way to its pod template.
fn for_each(document: &mut Node, at: &Path, each: &mut dyn FnMut(&mut Node, &[&str], &Path)) {
    let kind = document.get("kind").and_then(Node::text).unwrap_or_default().to_owned();
    if kind == "List" {
        let items = document.at_mut(&["items"]).and_then(Node::list_mut);
        for (index, item) in items.into_iter().flatten().enumerate() {
            for_each(item, &at.field("items").index(index), each);
        }
        return;
    }
    let version = document.get("apiVersion").and_then(Node::text).unwrap_or_default();
    let group = version.rsplit_once('/').map_or("", |(group, _)| group);
    if let Some((_, _, way)) = WORKLOADS.iter().find(|known| (known.0, known.1) == (group, kind.as_str())) {
        each(document, way, at);
    }
}

/// As people know it: `Deployment shop/web`.
fn name(document: &Node) -> String {
    let text = |way: &[&str]| document.at(way).and_then(Node::text);
    let kind = text(&["kind"]).unwrap_or_default();
    let name =
        text(&["metadata", "name"]).or(text(&["metadata", "generateName"])).unwrap_or("(without a name)");
    match text(&["metadata", "namespace"]) {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    }
}

/// Annotations of a Deployment are not those of its pods: ours would do nothing there.
fn check_own_annotations(document: &Node, at: &Path, faults: &mut Faults) {
    let at = at.field("metadata").field("annotations");
    let annotations = document.at(&["metadata", "annotations"]).and_then(Node::object);
    for (name, _) in annotations.into_iter().flat_map(|annotations| annotations.iter()) {
        if name.starts_with("pillion.dev/") && name != INJECTED {
            faults.add(&at.field(name), "does nothing here: it belongs to the pod template's annotations");
        }
    }
}
