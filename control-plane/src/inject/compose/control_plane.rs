//! A control plane within a Compose file, which gives every service its identity and knows them all.

use super::{MARK, Member, added, condition, confined};
use crate::inject::{
    Node, Object, Options,
    node::{list, object},
    sidecar::USER,
    text,
};

/// The service that is the control plane.
pub(super) const SERVER: &str = "pillion";
/// The service that tells it of the others, makes their join tokens, and ends.
pub(super) const JOIN: &str = "pillion-join";
/// Where sidecars find it.
pub(super) const ADDRESS: &str = "pillion:15010";
/// The volume with one join token for each service, which only sidecars see.
pub(super) const TOKENS: &str = "pillion-tokens";
/// The volume with everything that the control plane knows.
const DATA: &str = "pillion-data";
/// As [`crate::resource::duration`] has at most. `docker-compose up` makes new ones.
const TOKEN_TTL: &str = "576h";

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
    let mut command: Vec<String> =
        ["join", "--token-file", "/data/admin.token", "--tokens-dir", "/tokens", "--ttl", TOKEN_TTL]
            .map(str::to_owned)
            .into();
    command.extend(identities);
    let mut join = Object::default();
    join.set("image", options.control_plane_image.as_str());
    join.set("command", list(command));
    // The API is on loopback.
    join.set("network_mode", format!("service:{SERVER}"));
    join.set("depends_on", object([(SERVER, condition("service_started"))]));
    join.set("environment", object([("PILLION_JOIN_DOCUMENTS", text::write(&documents).into())]));
    join.set("volumes", list([format!("{DATA}:/data:ro"), format!("{TOKENS}:/tokens")]));
    confined(&mut join, USER);
    added(&mut join);
    services.set(JOIN, join);

    let Some(document) = document.object_mut() else { return };
    let made = document.get("volumes").is_none();
    let volumes = document.or_set("volumes", Node::Object(Object::default()));
    if *volumes == Node::Null {
        *volumes = Node::Object(Object::default());
    }
    if let Some(volumes) = volumes.object_mut() {
        for volume in [DATA, TOKENS] {
            volumes.set(volume, Node::Null);
        }
    }
    document.set(MARK, object([("made", list(made.then_some("volumes")))]));
}

/// Takes it out; its services are marked and already gone.
pub(super) fn remove(document: &mut Node) {
    let Some(document) = document.object_mut() else { return };
    let Some(mark) = document.remove(MARK) else { return };
    if let Some(volumes) = document.get_mut("volumes").and_then(Node::object_mut) {
        for volume in [DATA, TOKENS] {
            volumes.remove(volume);
        }
    }
    let made =
        mark.get("made").is_some_and(|made| made.items().iter().any(|name| name.text() == Some("volumes")));
    if made && document.get("volumes").is_some_and(Node::is_empty) {
        document.remove("volumes");
    }
}
