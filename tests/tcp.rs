//! Opaque TCP through two sidecars, by an explicit listener.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::apps::{App, refusing};
use crate::support::mesh::{Mesh, Sidecar, SidecarSpec};
use crate::support::{eventually, soon};

/// A caller with a listener that leads to `store.demo`, port 6379.
struct Pair {
    _mesh: Mesh,
    caller: Sidecar,
    _callee: Sidecar,
    store: SocketAddr,
}

const TARGET: &str = "store.demo:6379";

async fn pair(app: &App) -> Pair {
    let mesh = Mesh::start().await;
    mesh.apply(
        "apiVersion: v1\nkind: Service\nmetadata: { name: store, namespace: demo }\nspec:\n  selector: { app: store }\n  \
         ports: [{ name: redis, port: 6379, targetPort: 8080, appProtocol: tcp }]\n",
    )
    .await;
    let callee = mesh.sidecar(SidecarSpec::serving("store-1", "store", app.address)).await;
    let caller = mesh.sidecar(SidecarSpec::caller("client").listener(TARGET)).await;
    mesh.until_ready(&[&caller, &callee]).await;
    caller.until_endpoints("store", 1).await;
    let store = caller.addresses.listeners[TARGET];
    Pair { _mesh: mesh, caller, _callee: callee, store }
}

#[tokio::test]
async fn every_byte_comes_back_and_each_direction_ends_by_itself() {
    let app = App::tcp_echo().await;
    let pair = pair(&app).await;
    soon("an echo of 8 MiB", async {
        let stream = TcpStream::connect(pair.store).await.expect("the listener is there");
        let (mut read, mut write) = stream.into_split();
        let sent: Vec<u8> = (0..8_usize << 20).map(|index| (index % 251) as u8).collect();
        let expected = sent.clone();
        let writer = tokio::spawn(async move {
            write.write_all(&sent).await.expect("the tunnel takes everything");
            // The echo goes on until it sees our end, and we go on reading after it.
            write.shutdown().await.expect("one direction can be closed");
            write
        });
        let mut received = Vec::new();
        read.read_to_end(&mut received).await.expect("the tunnel gives everything");
        assert!(received == expected, "{} bytes of {} came back", received.len(), expected.len());
        drop(writer.await.expect("the writer does not panic"));
    })
    .await;
    eventually("the connection is counted", async || {
        let labels = [("direction", "outbound"), ("target", "store.demo")];
        let counted = pair.caller.metrics().await.sum("pillion_opaque_connections_total", &labels);
        (counted >= 1.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_server_may_speak_first() {
    let app = App::start(|mut stream| async move {
        let _ = stream.write_all(b"220 welcome\r\n").await;
        let mut word = [0; 4];
        if stream.read_exact(&mut word).await.is_ok() {
            let _ = stream.write_all(b"221 bye\r\n").await;
        }
    })
    .await;
    let pair = pair(&app).await;
    soon("a conversation that the server begins", async {
        let mut stream = TcpStream::connect(pair.store).await.expect("the listener is there");
        let mut greeting = [0; 13];
        stream.read_exact(&mut greeting).await.expect("the greeting arrives unasked");
        assert_eq!(&greeting, b"220 welcome\r\n");
        stream.write_all(b"QUIT").await.expect("the tunnel is open");
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.expect("text");
        assert_eq!(rest, "221 bye\r\n");
    })
    .await;
}

/// What comes back of a few bytes sent to a listener whose service echoes.
async fn echoed(listener: SocketAddr) -> Vec<u8> {
    soon("the end of a connection", async {
        let mut stream = TcpStream::connect(listener).await.expect("the listener is there");
        let mut received = Vec::new();
        // Both may fail when the other side is gone, which is for the test to see.
        let _ = stream.write_all(b"hello").await;
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut received).await;
        received
    })
    .await
}

const UNREACHABLE: (&str, &str) = ("reason", "application-unreachable");

#[tokio::test]
async fn a_connection_that_one_application_does_not_accept_goes_to_another() {
    let mesh = Mesh::start().await;
    let alive = App::tcp_echo().await;
    let (_held, dead) = refusing();
    mesh.apply_service("app", "tcp").await;
    let first = mesh.sidecar(SidecarSpec::serving("app-1", "app", alive.address)).await;
    let second = mesh.sidecar(SidecarSpec::serving("app-2", "app", dead)).await;
    let caller = mesh.sidecar(SidecarSpec::caller("client").listener("app.demo:80")).await;
    mesh.until_ready(&[&caller, &first, &second]).await;
    caller.until_endpoints("app", 2).await;
    for number in 0..20 {
        let received = echoed(caller.addresses.listeners["app.demo:80"]).await;
        assert_eq!(received, b"hello", "connection {number}");
    }
    eventually("what was tried in vain is counted", async || {
        (second.metrics().await.sum("pillion_refusals_total", &[UNREACHABLE]) >= 1.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_no_application_accepts_is_counted_with_the_reason() {
    let mesh = Mesh::start().await;
    let (_held, dead) = refusing();
    mesh.apply_service("app", "tcp").await;
    let callee = mesh.sidecar(SidecarSpec::serving("app-1", "app", dead)).await;
    let caller = mesh.sidecar(SidecarSpec::caller("client").listener("app.demo:80")).await;
    mesh.until_ready(&[&caller, &callee]).await;
    caller.until_endpoints("app", 1).await;
    assert_eq!(echoed(caller.addresses.listeners["app.demo:80"]).await, b"");
    eventually("both sidecars count it", async || {
        for sidecar in [&caller, &callee] {
            if sidecar.metrics().await.sum("pillion_refusals_total", &[UNREACHABLE]) < 1.0 {
                return None;
            }
        }
        Some(())
    })
    .await;
}
