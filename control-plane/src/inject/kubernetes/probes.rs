//! The kubelet's probes of an application, which come from outside the mesh.
//!
//! - `httpGet` and `grpc`: the sidecar is told their exact paths, and takes those in plaintext.
//! - `tcpSocket`: a connection that is redirected to the sidecar succeeds whatever the application does. The sidecar is asked
//!   instead whether the application takes connections, and says so by HTTP.
//! - `exec` runs inside the application's container and needs nothing.

use crate::{
    inject::{
        node::{Node, Object, object},
        sidecar::{ADMIN_PORT, ServedPort},
    },
    resource::{Faults, Path},
};

const PROBES: [&str; 3] = ["startupProbe", "livenessProbe", "readinessProbe"];
/// Where a gRPC server answers health checks (gRPC Health Checking Protocol).
const GRPC_HEALTH: &str = "/grpc.health.v1.Health/Check";
/// On the admin port, followed by the port to try.
const ACCEPTS: &str = "/accepts/";

/// What was found in all containers of a pod.
#[derive(Debug, Default)]
pub(super) struct Probes {
    /// `PORT/PATH`.
    pub(super) exempt: Vec<String>,
    /// For the sidecar's own check: that of the first container that says when it is ready.
    pub(super) health: Option<String>,
    /// Ports of `tcpSocket` probes.
    pub(super) tried: Vec<u16>,
    /// What was replaced: `container.probe`, and what stood there as `tcpSocket`.
    pub(super) replaced: Object,
    pub(super) notes: Vec<String>,
}

impl Probes {
    /// Reads one container's probes and hooks, and replaces those that must be.
    pub(super) fn take(
        &mut self,
        container: &mut Node,
        ports: &[ServedPort],
        at: &Path,
        faults: &mut Faults,
    ) {
        let name = container.get("name").and_then(Node::text).unwrap_or_default().to_owned();
        for probe in PROBES {
            let Some(inside) = container.at_mut(&[probe]).and_then(Node::object_mut) else { continue };
            let at = at.field(probe);
            if let Some(get) = inside.get("httpGet") {
                let exempt = self.http_get(get, ports, &at.field("httpGet"), faults);
                let plain = get.get("httpHeaders").is_none();
                if let Some((port, path)) =
                    exempt.filter(|_| probe == "readinessProbe" && plain && self.health.is_none())
                {
                    self.health = Some(format!("http://127.0.0.1:{port}{path}"));
                }
            }
            if let Some(grpc) = inside.get("grpc")
                && let Some(port) = number(grpc.get("port"), ports, &at.field("grpc").field("port"), faults)
            {
                self.exempt(format!("{port}{GRPC_HEALTH}"));
            }
            if let Some(socket) = inside.get("tcpSocket").filter(|socket| socket.get("host").is_none())
                && let Some(port) =
                    number(socket.get("port"), ports, &at.field("tcpSocket").field("port"), faults)
            {
                if !self.tried.contains(&port) {
                    self.tried.push(port);
                }
                let original = inside.remove("tcpSocket").expect("it was just there");
                inside.set(
                    "httpGet",
                    object([
                        ("path", format!("{ACCEPTS}{port}").into()),
                        ("port", u64::from(ADMIN_PORT).into()),
                    ]),
                );
                self.replaced.set(format!("{name}.{probe}"), original);
            }
        }
        for hook in ["postStart", "preStop"] {
            let at = at.field("lifecycle").field(hook).field("httpGet");
            if let Some(get) = container.at(&["lifecycle", hook, "httpGet"]) {
                self.http_get(get, ports, &at, faults);
            }
        }
    }

    /// Exempts one; gives its port and its path with the query.
    fn http_get(
        &mut self,
        get: &Node,
        ports: &[ServedPort],
        at: &Path,
        faults: &mut Faults,
    ) -> Option<(u16, String)> {
        if get.get("host").is_some_and(|host| host.text().is_some_and(|host| !host.is_empty())) {
            // Asks somebody else, or the node.
            return None;
        }
        let port = number(get.get("port"), ports, &at.field("port"), faults)?;
        let written = get.get("path").and_then(Node::text).unwrap_or("/");
        let slash = if written.starts_with('/') { "" } else { "/" };
        let path = format!("{slash}{written}");
        if get.get("scheme").and_then(Node::text).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")) {
            self.notes.push(format!(
                "{}: is TLS of the application's own, which no path can be seen in: in a strict mesh it needs \
                 pillion.dev/plaintext-ports: \"{port}\"",
                at.as_str()
            ));
            return None;
        }
        let bare = path.split(['?', '#']).next().unwrap_or_default();
        if bare.contains(',') || !bare.bytes().all(|byte| byte.is_ascii_graphic()) {
            faults
                .add(&at.field("path"), "cannot be exempted: it has a comma, a space, or what is not ASCII");
            return None;
        }
        self.exempt(format!("{port}{bare}"));
        Some((port, path))
    }

    fn exempt(&mut self, probe: String) {
        if !self.exempt.contains(&probe) {
            self.exempt.push(probe);
        }
    }
}

/// Gives a container's replaced probes back. What somebody has changed since stays as it is.
pub(super) fn give_back(container: &mut Node, replaced: &mut Object) {
    let name = container.get("name").and_then(Node::text).unwrap_or_default().to_owned();
    for probe in PROBES {
        let Some(original) = replaced.remove(&format!("{name}.{probe}")) else { continue };
        let Some(inside) = container.at_mut(&[probe]).and_then(Node::object_mut) else { continue };
        let ours = inside
            .get("httpGet")
            .and_then(|get| get.get("path"))
            .and_then(Node::text)
            .is_some_and(|path| path.starts_with(ACCEPTS));
        if ours {
            inside.remove("httpGet");
            inside.set("tcpSocket", original);
        }
    }
}

/// A port by its number, or by the name that its container gives it.
fn number(port: Option<&Node>, ports: &[ServedPort], at: &Path, faults: &mut Faults) -> Option<u16> {
    let found = match port {
        Some(Node::Text(name)) => {
            let named = ports.iter().find(|served| served.name == *name).map(|served| served.port);
            named.or_else(|| name.parse().ok())
        }
        Some(node) => node.whole().and_then(|number| u16::try_from(number).ok()),
        None => None,
    }
    .filter(|port| *port != 0);
    if found.is_none() {
        faults.add(at, "must be a port's number, or the name of a port of the same container");
    }
    found
}
