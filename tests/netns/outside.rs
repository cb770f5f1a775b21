//! What is not of the mesh: passed through as it is, refused where only the mesh may be called, or described by a document.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hickory_proto::op::{Message, ResponseCode};
use pillion::demo::network::Place;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::apps::{App, HttpApp, Version};
use crate::support::mesh::NAMESPACE;
use crate::support::nameserver::{NameServer, answer, records};
use crate::support::netns::{Workload, WorkloadSpec, World, connect, in_world, listen, listen_on};
use crate::support::{eventually, raw, soon};

/// A host that has nothing to do with the mesh, and its port.
const HOST: &str = "ledger.example.test";
const PORT: u16 = 8081;
/// A server of bytes.
const OPAQUE: u16 = 7007;

#[test]
fn what_the_mesh_does_not_know_is_passed_through_or_refused_by_name() {
    in_world(async |world| {
        let outside = world.place("outside");
        let _names = name_server(world, outside.v4.into()).await;
        let web =
            HttpApp::on(listen(&outside, (Ipv6Addr::UNSPECIFIED, PORT).into()), "outside", Version::Http1);
        let _peers = App::on(listen_on(&outside, OPAQUE), say_peer_and_echo);
        let client = world.workload(world.place("client"), WorkloadSpec::caller("client")).await;
        world.until_registered(&[&client]).await;

        // Unchanged, and the caller's address is the caller's.
        let opaque = (outside.v4, OPAQUE).into();
        let all_bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(peer_and_echo(&client, opaque, &all_bytes).await, Some((client.v4.into(), all_bytes)));
        // Text that begins like HTTP is nobody's business either.
        let not_quite = b"GET  / HTTP/9.9\r\nhost: a\r\nhost: b\r\n\r\n";
        assert_eq!(
            peer_and_echo(&client, opaque, not_quite).await,
            Some((client.v4.into(), not_quite.to_vec()))
        );
        // By name, and by both families.
        for host in
            [format!("{HOST}:{PORT}"), format!("{}:{PORT}", outside.v4), format!("[{}]:{PORT}", outside.v6)]
        {
            let shown = world.curl(&client, &[&format!("http://{host}/head")]).await;
            let own = ["x-pillion", "x-forwarded"].iter().find(|name| shown.contains(**name));
            assert!(shown.contains(&host) && own.is_none(), "{host}: {shown}");
        }
        assert_eq!(web.requests(), 3);

        // An address that is the mesh's to give, and that it has not given.
        let nobody = request(&client, (Ipv4Addr::new(240, 240, 200, 200), 80).into(), "nobody").await;
        assert_eq!(raw::refusal(&nobody), "unknown-service", "{nobody}");
        eventually_refused(&client, "unknown-service", 1.0).await;

        registry_only(world, &client, &outside, &web).await;
    });
}

/// From here on the client may call what documents describe, and nothing else.
async fn registry_only(world: &World, client: &Workload, outside: &Place, web: &HttpApp) {
    mesh_config(world, "outbound: registryOnly").await;
    eventually("a destination outside is refused by name", async || {
        let answer = request(client, (outside.v4, PORT).into(), HOST).await;
        (raw::refusal(&answer) == "outside-refused").then_some(())
    })
    .await;
    assert_eq!(peer_and_echo(client, (outside.v4, OPAQUE).into(), b"hello").await, None);
    eventually_refused(client, "outside-refused", 2.0).await;

    world
        .mesh
        .apply(&format!(
            "apiVersion: pillion.dev/v1alpha1\nkind: ExternalService\nmetadata: {{ name: ledger, namespace: {NAMESPACE} }}\n\
             spec:\n  host: {HOST}\n  ports: [{{ name: http, port: 80, targetPort: {PORT}, appProtocol: http }}]\n"
        ))
        .await;
    let before = web.requests();
    eventually("the host is a service now, at a virtual address, on another port", async || {
        let ran = world.run(client, "curl", &["-sS", &format!("http://{HOST}/who")]).await;
        (ran.output == "outside").then_some(())
    })
    .await;
    assert_eq!(web.requests() - before, 1);
    let labels = [("direction", "outbound"), ("target", "ledger.demo")];
    eventually("it counts like any service", async || {
        (client.count("pillion_requests_total", &labels).await >= 1.0).then_some(())
    })
    .await;
}

async fn eventually_refused(client: &Workload, reason: &str, times: f64) {
    eventually(&format!("{times} refusals: {reason}"), async || {
        (client.count("pillion_refusals_total", &[("reason", reason)]).await >= times).then_some(())
    })
    .await;
}

/// Applies a `MeshConfig`.
pub(super) async fn mesh_config(world: &World, settings: &str) {
    let document = format!(
        "apiVersion: pillion.dev/v1alpha1\nkind: MeshConfig\nmetadata: {{ name: mesh, namespace: pillion-system }}\nspec: {{ {settings} }}\n"
    );
    world.mesh.apply(&document).await;
}

/// A GET of `/who` sent by hand from a place.
pub(super) async fn request(from: &Place, to: SocketAddr, host: &str) -> String {
    let Ok(mut stream) = connect(from, to).await else { return String::new() };
    let _ = stream.write_all(raw::get(host, "/who").as_bytes()).await;
    let mut answer = Vec::new();
    // An end by reset is an end, too.
    let _ = soon("the end of an answer", stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Writes the caller's address on one line, then sends back whatever comes.
async fn say_peer_and_echo(mut stream: tokio::net::TcpStream) {
    let Ok(peer) = stream.peer_addr() else { return };
    let _ = stream.write_all(format!("{}\n", peer.ip()).as_bytes()).await;
    let (mut read, mut write) = stream.split();
    let _ = tokio::io::copy(&mut read, &mut write).await;
}

/// Who the server says the caller is, and what came back; `None` if it was not reached.
async fn peer_and_echo(from: &Place, to: SocketAddr, bytes: &[u8]) -> Option<(IpAddr, Vec<u8>)> {
    let mut stream = connect(from, to).await.ok()?;
    let mut received = Vec::new();
    // What goes wrong shows in what came back.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let _ = soon("an echo", stream.read_to_end(&mut received)).await;
    let line = received.iter().position(|byte| *byte == b'\n')?;
    let peer = std::str::from_utf8(&received[..line]).ok()?.parse().ok()?;
    Some((peer, received[line + 1..].to_vec()))
}

/// A name server where the places look for one, which knows [`HOST`] by one address.
async fn name_server(world: &World, address: IpAddr) -> NameServer {
    NameServer::start_at((world.hub(), 53).into(), move |asked| {
        let asked = Message::from_vec(&asked.bytes).expect("a well-formed question");
        let known = asked.queries[0].name().to_lowercase().to_ascii().trim_end_matches('.') == HOST;
        let code = if known { ResponseCode::NoError } else { ResponseCode::NXDomain };
        let addresses: &[IpAddr] = if known { &[address] } else { &[] };
        vec![answer(&asked, code, records(&asked.queries[0], 60, addresses))]
    })
    .await
}
