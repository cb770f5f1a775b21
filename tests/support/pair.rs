//! The smallest mesh that carries something: a caller's sidecar, and that of the one endpoint of `app.demo`.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::mesh::{Mesh, Sidecar, SidecarSpec, service, spiffe_id};
use super::{raw, soon};

/// Two sidecars that are connected and ready.
pub(crate) struct Pair {
    pub(crate) caller: Sidecar,
    pub(crate) callee: Sidecar,
    pub(crate) mesh: Mesh,
}

impl Pair {
    /// In front of an application that speaks `app_protocol`.
    pub(crate) async fn around(application: SocketAddr, app_protocol: &str) -> Self {
        Self::with(application, app_protocol, &[], &[]).await
    }

    /// The same, with a [`policy`] and with further flags for the callee's sidecar.
    pub(crate) async fn with(
        application: SocketAddr,
        app_protocol: &str,
        policy_lines: &[&str],
        callee_flags: &[&str],
    ) -> Self {
        let mesh = Mesh::start().await;
        mesh.apply(&(service("app", app_protocol) + &policy(policy_lines))).await;
        let callee = SidecarSpec::serving("app-1", "app", application).flags(callee_flags);
        let callee = mesh.sidecar(callee).await;
        let caller = mesh.sidecar(SidecarSpec::caller("client")).await;
        mesh.until_ready(&[&caller, &callee]).await;
        caller.until_endpoints("app", 1).await;
        Self { caller, callee, mesh }
    }

    /// A request written by hand, through the caller's sidecar; it should ask for `connection: close`.
    pub(crate) async fn exchange(&self, request: &str) -> String {
        raw::exchange(self.caller.outbound(), request).await
    }

    /// GETs a path of the application, over HTTP/1.
    pub(crate) async fn get(&self, path: &str) -> String {
        self.exchange(&raw::get("app.demo.mesh", path)).await
    }

    /// A connection to the callee's sidecar as that of another member of the mesh, to speak HTTP/2 on.
    pub(crate) async fn member(&self) -> TlsStream<TcpStream> {
        let config = self.mesh.identity("client").client_config(&spiffe_id("app"), &[b"pillion/h2"]);
        let mut config = rustls::ClientConfig::clone(&config);
        config.enable_sni = true;
        let stream = TcpStream::connect(self.callee.addresses.inbound).await.expect("it listens");
        let name = ServerName::try_from("8080.app.demo.mesh").expect("a valid name");
        let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
        soon("a handshake", connecting).await.expect("it is a member of the mesh")
    }

    /// Requests under way at both sidecars.
    pub(crate) async fn in_flight(&self) -> (f64, f64) {
        let (caller, callee) = (self.caller.metrics().await, self.callee.metrics().await);
        let of = |metrics: &pillion::demo::scrape::Samples, direction| {
            metrics.sum("pillion_requests_in_flight", &[("direction", direction)])
        };
        (of(&caller, "outbound"), of(&callee, "inbound"))
    }
}

/// A further document: a `TrafficPolicy` of `app` with these lines as its spec; nothing where there are none.
pub(crate) fn policy(lines: &[&str]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    format!(
        "---\napiVersion: pillion.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{ name: app, namespace: demo }}\nspec:\n  \
         targetRefs: [{{ group: \"\", kind: Service, name: app }}]\n  {}\n",
        lines.join("\n  ")
    )
}
