//! A control plane within a Compose file, which gives every service its identity and knows them all.

use super::{MARK, Member, added, condition, confined};
use crate::{
    inject::{
        Node, Object, Options,
        node::{list, object},
        sidecar::USER,
        text,
    },
    resource::{Faults, Path},
};

/// The service that is the control plane.
pub(super) const SERVER: &str = "pillion";
/// The service that tells it of the others, makes their join tokens, and ends.
pub(super) const JOIN: &str = "pillion-join";
/// Where sidecars find it.
pub(super) const ADDRESS: &str = "pillion:15010";
/// The volume with everything that the control plane knows.
const DATA: &str = "pillion-data";
/// As [`crate::resource::duration`] has at most. `docker-compose up` makes new ones.
const TOKEN_TTL: &str = "576h";
/// In the mark: the volumes that are ours.
const VOLUMES: &str = "volumes";

/// Those that the file gets. Each join token is in one of its own: who has it can become that service.
fn volumes(members: &[Member]) -> Vec<String> {
    std::iter::once(DATA.to_owned()).chain(members.iter().map(Member::token_volume)).collect()
}

/// Names that it takes must be free.
pub(super) fn check_names(document: &Node, services: &Object, members: &[Member], faults: &mut Faults) {
    let takes = "is a name that the control plane takes";
    for name in [SERVER, JOIN].into_iter().filter(|name| services.get(name).is_some()) {
        faults.add(&Path::root().field("services").field(name), takes);
    }
    for name in volumes(members).iter().filter(|name| document.at(&["volumes", name.as_str()]).is_some()) {
        faults.add(&Path::root().field("volumes").field(name), takes);
    }
}

/// Puts it in.
pub(super) fn add(document: &mut Node, services: &mut Object, members: &[Member], options: &Options) {
    let mut networks: Vec<&str> = Vec::new();
    for network in members.iter().flat_map(|member| &member.networks) {
        if !networks.contains(&network.as_str()) {
            networks.push(network);
        }
    }
    let mut server = Object::default();
    server.set("image", options.control_plane_image.as_str());
    server.set("command", list(["server", "--data-dir", "/data", "--grpc-listen", "0.0.0.0:15010"]));
    server.set("networks", list(networks));
    server.set("volumes", list([format!("{DATA}:/data")]));
    confined(&mut server, USER);
    server.set("restart", "unless-stopped");
    added(&mut server);
    services.set(SERVER, server);

    let documents: Vec<Node> = members.iter().filter_map(|member| member.document(options)).collect();
    let identities = members.iter().map(|member| format!("{}/{}", options.namespace, member.workload));
    let mut command: Vec<String> = [
        "join",
        "--token-file",
        "/data/admin.token",
        "--tokens-dir",
        "/tokens",
        "--ttl",
        TOKEN_TTL,
        "--owner",
    ]
    .map(str::to_owned)
    .into();
    command.push(USER.to_string());
    command.extend(identities);
    let mut join = Object::default();
    join.set("image", options.control_plane_image.as_str());
    join.set("command", list(command));
    // The API is on loopback.
    join.set("network_mode", format!("service:{SERVER}"));
    join.set("depends_on", object([(SERVER, condition("service_started"))]));
    join.set("environment", object([("PILLION_JOIN_DOCUMENTS", text::write(&documents).into())]));
    let tokens =
        members.iter().map(|member| format!("{}:/tokens/{}", member.token_volume(), member.workload));
    join.set("volumes", list(std::iter::once(format!("{DATA}:/data:ro")).chain(tokens)));
    // A new volume is root's. To read the admin token, which is another's, and to give away what it writes, are all that it may.
    confined(&mut join, 0);
    join.set("cap_add", list(["CHOWN", "DAC_OVERRIDE"]));
    added(&mut join);
    services.set(JOIN, join);

    let Some(document) = document.object_mut() else { return };
    let made = document.get("volumes").is_none();
    let place = document.or_set("volumes", Node::Object(Object::default()));
    if *place == Node::Null {
        *place = Node::Object(Object::default());
    }
    let ours = volumes(members);
    if let Some(place) = place.object_mut() {
        for volume in &ours {
            place.set(volume.as_str(), Node::Null);
        }
    }
    document.set(MARK, object([("made", list(made.then_some("volumes"))), (VOLUMES, list(ours))]));
}

/// Takes it out; its services are marked and already gone.
pub(super) fn remove(document: &mut Node) {
    let Some(document) = document.object_mut() else { return };
    let Some(mark) = document.remove(MARK) else { return };
    if let Some(volumes) = document.get_mut("volumes").and_then(Node::object_mut) {
        for volume in mark.get(VOLUMES).map(Node::items).unwrap_or_default().iter().filter_map(Node::text) {
            volumes.remove(volume);
        }
    }
    let made =
        mark.get("made").is_some_and(|made| made.items().iter().any(|name| name.text() == Some("volumes")));
    if made && document.get("volumes").is_some_and(Node::is_empty) {
        document.remove("volumes");
    }
}
