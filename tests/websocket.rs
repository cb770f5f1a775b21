//! WebSocket through two sidecars: the upgrade, frames both ways, and the close.

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::support::apps::App;
use crate::support::mesh::{Mesh, SidecarSpec};
use crate::support::pair::Pair;
use crate::support::{PATIENCE, soon};

async fn echo() -> App {
    App::start(serve).await
}

/// Sends every message of one connection back.
pub(crate) async fn serve(stream: TcpStream) {
    let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
    while let Some(Ok(message)) = socket.next().await {
        if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn echo_through_two_sidecars() {
    let mesh = Mesh::start().await;
    let app = echo().await;
    mesh.apply_service("chat", "kubernetes.io/ws").await;
    let callee = mesh.sidecar(SidecarSpec::serving("chat-1", "chat", app.address)).await;
    let caller = mesh.sidecar(SidecarSpec::caller("client")).await;
    mesh.until_ready(&[&caller, &callee]).await;
    caller.until_endpoints("chat", 1).await;

    soon("a WebSocket conversation", async {
        let stream = TcpStream::connect(caller.outbound()).await.expect("the sidecar listens");
        let (mut socket, response) = tokio_tungstenite::client_async("ws://chat.demo.mesh/", stream)
            .await
            .expect("the upgrade passes both sidecars");
        assert_eq!(response.status(), 101);
        let large = vec![0xA5; 300_000];
        for message in [Message::text("hello"), Message::binary(large), Message::text("")] {
            socket.send(message.clone()).await.expect("the connection is open");
            let echoed = socket.next().await.expect("an echo").expect("a valid frame");
            assert_eq!(echoed, message);
        }
        socket.close(None).await.expect("the connection is open");
        let last = socket.next().await.expect("the other side closes too").expect("a valid frame");
        assert!(last.is_close(), "{last:?}");
    })
    .await;
}

#[tokio::test]
async fn one_that_is_open_when_its_sidecar_drains_lives_until_time_is_up() {
    const DRAIN: Duration = Duration::from_secs(3);
    let app = echo().await;
    let mut pair = Pair::with(app.address, "kubernetes.io/ws", &[], &["--drain-timeout", "3s"]).await;
    let stream = TcpStream::connect(pair.caller.outbound()).await.expect("the sidecar listens");
    let opening = tokio_tungstenite::client_async("ws://app.demo.mesh/", stream);
    let (mut socket, _) = soon("an upgrade", opening).await.expect("the upgrade passes both sidecars");
    let mut echoed = async || {
        socket.send(Message::text("still there?")).await.is_ok()
            && matches!(socket.next().await, Some(Ok(message)) if message.is_text())
    };
    assert!(soon("an echo", echoed()).await);

    pair.callee.process.terminate();
    let told = Instant::now();
    soon("the end of the WebSocket", async {
        while echoed().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let lived = told.elapsed();
    assert!(lived > DRAIN.mul_f64(0.8), "it was cut {lived:?} after SIGTERM");
    let status = pair.callee.process.wait(PATIENCE).await.expect("the sidecar ends");
    assert!(status.success(), "it ended with {status}");
}
