//! One pod: the redirection and the sidecar go before all of its own init containers.
//!
//! The sidecar is a native one (an init container that is restarted always): the kubelet starts it before everything that
//! comes after it, waits for its startup probe, ends it last, and does not wait for it when a Job is done.

use std::time::Duration;

use pillion_api::name::is_port_name;

use super::{
    parts::{PROXY, REDIRECT, TOKEN, proxy_container, redirect_container, token_volume},
    probes::{self, Probes},
};
use crate::{
    inject::{
        Node, Object, Options,
        node::list,
        sidecar::{SCRAPED, ServedPort, TAKEN_PORTS, TOKEN_FOLDER, USER, Workload, add_port},
        tuning::{INJECTED, Place, Tuning},
    },
    resource::{Faults, Path, label_key, label_value},
};

/// Where `pillion install` would put it.
const CONTROL_PLANE: &str = "pillion.pillion-system.svc:15010";
/// Kubernetes' own default.
const GRACE_PERIOD: u64 = 30;
/// Of a pod's grace period, what is left for the sidecar to end after its drain.
const END: u64 = 5;
/// What may be missing in a template and is made.
const MADE: [&[&str]; 4] =
    [&["metadata"], &["metadata", "annotations"], &["spec", "initContainers"], &["spec", "volumes"]];

/// Injects into a pod, or a pod template, that is not injected. Gives notes.
pub(super) fn inject(template: &mut Node, options: &Options, at: &Path, faults: &mut Faults) -> Vec<String> {
    if !has_shape(template, at, faults) {
        return Vec::new();
    }
    let at_annotations = at.field("metadata").field("annotations");
    let annotations = template.at(&["metadata", "annotations"]).and_then(Node::object);
    let named = annotations.into_iter().flat_map(|annotations| annotations.iter());
    let tuning = Tuning::read(
        named.map(|(name, value)| (name, value.text().map(str::to_owned))),
        Place::Kubernetes,
        &at_annotations,
        faults,
    );
    if tuning.disabled {
        return vec!["not injected: pillion.dev/inject is disabled".into()];
    }
    let spec = template.get("spec").expect("the caller has looked");
    if spec.get("hostNetwork") == Some(&Node::Bool(true)) {
        return vec![
            "not injected: with hostNetwork, redirecting its traffic would redirect the node's".into(),
        ];
    }
    if spec.at(&["os", "name"]).and_then(Node::text) == Some("windows") {
        return vec!["not injected: there is no sidecar for Windows".into()];
    }
    let at_spec = at.field("spec");
    check_users(spec, &at_spec, faults);

    let mut found = Found::default();
    found.containers(template, &at_spec, faults);
    let made: Vec<&[&str]> =
        MADE.into_iter().filter(|way| template.at(way).is_none_or(|node| *node == Node::Null)).collect();
    let labels = labels(template, &at.field("metadata").field("labels"), faults);
    let (drain_timeout, grace_period) = times(template.get("spec").expect("as above"), &tuning);
    if let Some(period) = grace_period {
        found.probes.notes.push(format!(
            "terminationGracePeriodSeconds is now {period}, so that pillion.dev/drain-timeout fits in it"
        ));
    }
    let workload = Workload {
        labels,
        ports: &found.ports,
        probes: found.probes.exempt.join(","),
        health: found.probes.health.clone(),
        control_plane: options.control_plane.as_deref().unwrap_or(CONTROL_PLANE),
        token_file: &format!("{TOKEN_FOLDER}/token"),
        drain_timeout: Some(drain_timeout),
    };
    let proxy = proxy_container(&workload, &tuning, options);
    let redirect = redirect_container(&tuning, options);

    let mut undo = Object::default();
    undo.set("version", env!("CARGO_PKG_VERSION"));
    undo.set("made", list(made.iter().map(|way| way.join("."))));
    if !Node::Object(found.probes.replaced.clone()).is_empty() {
        undo.set("tcpSocket", std::mem::take(&mut found.probes.replaced));
    }
    let spec = member(template, "spec");
    if let Some(period) = grace_period {
        let before = spec.get("terminationGracePeriodSeconds").cloned().unwrap_or(Node::Null);
        undo.set("terminationGracePeriodSeconds", before);
        spec.set("terminationGracePeriodSeconds", period);
    }
    for (name, items) in [("initContainers", vec![redirect, proxy]), ("volumes", vec![token_volume(&tuning)])]
    {
        let place = spec.or_set(name, Node::List(Vec::new()));
        if place.is_empty() {
            *place = Node::List(Vec::new());
        }
        // In front: what an application's own init containers do needs the network.
        place.list_mut().expect("checked to be a list").splice(0..0, items);
    }
    let metadata = member(template, "metadata");
    let annotations = metadata.or_set("annotations", Node::Null);
    if annotations.is_empty() {
        *annotations = Node::Object(Object::default());
    }
    let annotations = annotations.object_mut().expect("checked to be an object");
    if SCRAPED.iter().any(|(name, _)| annotations.get(name).is_some()) {
        // A pod has one such port; its application was there first.
        let note = "the annotations prometheus.io/… are its own: its sidecar's metrics are at the port pillion-admin";
        found.probes.notes.push(note.into());
    } else {
        SCRAPED.iter().for_each(|(name, value)| annotations.set(*name, *value));
        undo.set("scraped", true);
    }
    let undo = serde_json::to_string(&Node::Object(undo)).expect("texts for names make JSON");
    annotations.set(INJECTED, undo);
    found.probes.notes
}

/// Takes out what [`inject`] has put in.
pub(super) fn uninject(template: &mut Node, at: &Path, faults: &mut Faults) {
    let annotations = template.at_mut(&["metadata", "annotations"]).and_then(Node::object_mut);
    let Some(record) = annotations.and_then(|annotations| annotations.remove(INJECTED)) else { return };
    let at = at.field("metadata").field("annotations").field(INJECTED);
    let Some(undo) = record.text().and_then(|text| serde_json::from_str::<Node>(text).ok()) else {
        faults.add(&at, "is not what an injection left there; how the pod was before cannot be told");
        return;
    };
    if undo.get("scraped").is_some()
        && let Some(annotations) = template.at_mut(&["metadata", "annotations"]).and_then(Node::object_mut)
    {
        for (name, ours) in SCRAPED {
            // Somebody may have said otherwise meanwhile.
            if annotations.get(name).and_then(Node::text) == Some(ours) {
                annotations.remove(name);
            }
        }
    }
    if let Some(spec) = template.at_mut(&["spec"]).and_then(Node::object_mut) {
        for (name, ours) in [("initContainers", &[PROXY, REDIRECT][..]), ("volumes", &[TOKEN])] {
            if let Some(items) = spec.get_mut(name).and_then(Node::list_mut) {
                items.retain(|item| {
                    !item.get("name").and_then(Node::text).is_some_and(|name| ours.contains(&name))
                });
            }
        }
        match undo.get("terminationGracePeriodSeconds") {
            None => {}
            Some(Node::Null) => drop(spec.remove("terminationGracePeriodSeconds")),
            Some(period) => spec.set("terminationGracePeriodSeconds", period.clone()),
        }
        let mut replaced = undo.get("tcpSocket").and_then(Node::object).cloned().unwrap_or_default();
        for name in ["initContainers", "containers"] {
            for container in spec.get_mut(name).and_then(Node::list_mut).into_iter().flatten() {
                probes::give_back(container, &mut replaced);
            }
        }
    }
    let made: Vec<&str> =
        undo.get("made").map(Node::items).unwrap_or_default().iter().filter_map(Node::text).collect();
    for way in MADE.into_iter().rev() {
        let (name, around) = way.split_last().expect("no way is empty");
        let around = if around.is_empty() { Some(&mut *template) } else { template.at_mut(around) };
        let Some(around) = around.and_then(Node::object_mut) else { continue };
        // Somebody may have put something of their own there meanwhile.
        if made.contains(&way.join(".").as_str()) && around.get(name).is_some_and(Node::is_empty) {
            around.remove(name);
        }
    }
}

/// Whether lists are lists and objects objects, as far as they are touched.
fn has_shape(template: &Node, at: &Path, faults: &mut Faults) -> bool {
    let mut right = true;
    let mut check = |way: [&str; 2], list: bool| {
        let node = if way[1].is_empty() { template.get(way[0]) } else { template.at(&way) };
        let fits = match node {
            None | Some(Node::Null) => true,
            Some(Node::List(items)) => list && items.iter().all(|item| item.object().is_some()),
            Some(node) => !list && node.object().is_some(),
        };
        if !fits {
            let at = way.iter().filter(|step| !step.is_empty()).fold(at.clone(), |at, step| at.field(step));
            faults.add(&at, if list { "must be a list of objects" } else { "must be an object" });
            right = false;
        }
    };
    for way in [["metadata", ""], ["metadata", "annotations"], ["metadata", "labels"]] {
        check(way, false);
    }
    for way in [["spec", "containers"], ["spec", "initContainers"], ["spec", "volumes"]] {
        check(way, true);
    }
    right
}

/// What all containers of a pod tell.
#[derive(Debug, Default)]
struct Found {
    ports: Vec<ServedPort>,
    probes: Probes,
}

impl Found {
    fn containers(&mut self, template: &mut Node, at: &Path, faults: &mut Faults) {
        for kind in ["initContainers", "containers"] {
            let at = at.field(kind);
            let containers = template.at_mut(&["spec", kind]).and_then(Node::list_mut);
            for (index, container) in containers.into_iter().flatten().enumerate() {
                let at = at.index(index);
                let name = container.get("name").and_then(Node::text);
                if let Some(name) = name.filter(|name| [PROXY, REDIRECT].contains(name)) {
                    faults
                        .add(&at.field("name"), format!("{name:?} is the name of a container of pillion's"));
                }
                // An init container that ends serves nobody.
                if kind == "initContainers"
                    && container.get("restartPolicy").and_then(Node::text) != Some("Always")
                {
                    continue;
                }
                let own = served(container, &at.field("ports"), faults);
                self.probes.take(container, &own, &at, faults);
                for served in own {
                    // Two containers of a pod may give the same name to ports of theirs.
                    add_port(&mut self.ports, served, &mut self.probes.notes);
                }
            }
        }
        let volumes = template.at(&["spec", "volumes"]).map(Node::items).unwrap_or_default();
        for (index, volume) in volumes.iter().enumerate() {
            if volume.get("name").and_then(Node::text) == Some(TOKEN) {
                let at = at.field("volumes").index(index).field("name");
                faults.add(&at, format!("{TOKEN:?} is the name of a volume of pillion's"));
            }
        }
        // The sidecar tries only ports that it knows.
        for port in self.probes.tried.clone() {
            if !self.ports.iter().any(|known| known.port == port) {
                self.ports.push(ServedPort { port, name: String::new(), protocol: None });
            }
        }
    }
}

/// The TCP ports that a container declares.
fn served(container: &Node, at: &Path, faults: &mut Faults) -> Vec<ServedPort> {
    let mut ports = Vec::new();
    for (index, port) in container.get("ports").map(Node::items).unwrap_or_default().iter().enumerate() {
        if port.get("protocol").and_then(Node::text).is_some_and(|protocol| protocol != "TCP") {
            continue;
        }
        let (at_name, at) = (at.index(index).field("name"), at.index(index).field("containerPort"));
        let name = port.get("name").and_then(Node::text).unwrap_or_default();
        if !name.is_empty() && !is_port_name(name) {
            let form = "(RFC 6335: 1 to 15 lower-case letters, digits or \"-\", at least one letter)";
            faults.add(&at_name, format!("must be the name of a port {form}, is {name:?}"));
        }
        let number =
            port.get("containerPort").and_then(Node::whole).and_then(|number| u16::try_from(number).ok());
        match number {
            None | Some(0) => faults.add(&at, "must be a number from 1 to 65535"),
            Some(number) if TAKEN_PORTS.contains(&number) => {
                faults.add(&at, format!("{number} is a port of the sidecar's"));
            }
            Some(number) => {
                ports.push(ServedPort { port: number, name: name.to_owned(), protocol: None });
            }
        }
    }
    ports
}

/// Traffic of the sidecar's user is not redirected: an application that is this user would pass the mesh by.
fn check_users(spec: &Node, at: &Path, faults: &mut Faults) {
    let mut check = |holder: &Node, at: &Path| {
        if holder.at(&["securityContext", "runAsUser"]).and_then(Node::whole) == Some(USER) {
            let at = at.field("securityContext").field("runAsUser");
            faults.add(&at, format!("{USER} is the sidecar's user, whose traffic is not redirected"));
        }
    };
    check(spec, at);
    for kind in ["initContainers", "containers"] {
        for (index, container) in spec.get(kind).map(Node::items).unwrap_or_default().iter().enumerate() {
            check(container, &at.field(kind).index(index));
        }
    }
}

/// The template's labels as the sidecar takes them. Those that a controller adds to its pods are not among them.
fn labels(template: &Node, at: &Path, faults: &mut Faults) -> String {
    let labels = template.at(&["metadata", "labels"]).and_then(Node::object);
    let mut pairs = Vec::new();
    for (key, value) in labels.into_iter().flat_map(|labels| labels.iter()) {
        let at = at.field(key);
        let Some(value) = value.text() else {
            faults.add(&at, "must be a text");
            continue;
        };
        [label_key(key), label_value(value)]
            .into_iter()
            .filter_map(Result::err)
            .for_each(|it| faults.add(&at, it));
        pairs.push(format!("{key}={value}"));
    }
    pairs.join(",")
}

/// How long the sidecar drains, and the pod's grace period in seconds where it has to grow for that.
///
/// The kubelet ends the sidecar after the application, within one and the same grace period.
fn times(spec: &Node, tuning: &Tuning) -> (Duration, Option<u64>) {
    let period = spec.get("terminationGracePeriodSeconds").and_then(Node::whole).unwrap_or(GRACE_PERIOD);
    match tuning.drain_timeout {
        Some(timeout) => {
            let needed = timeout.as_secs() + u64::from(timeout.subsec_nanos() > 0) + END;
            (timeout, Some(needed).filter(|needed| *needed > period))
        }
        None => (Duration::from_secs(period.saturating_sub(END).clamp(1, GRACE_PERIOD)), None),
    }
}

fn member<'a>(template: &'a mut Node, name: &str) -> &'a mut Object {
    let place = template.object_mut().expect("a template is an object").or_set(name, Node::Null);
    if place.is_empty() {
        *place = Node::Object(Object::default());
    }
    place.object_mut().expect("checked to be an object")
}
