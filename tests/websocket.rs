//! WebSocket through two sidecars: the upgrade, frames both ways, and the close.

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::support::apps::App;
use crate::support::mesh::{Mesh, SidecarSpec};
use crate::support::soon;

#[tokio::test]
async fn echo_through_two_sidecars() {
    let mesh = Mesh::start().await;
    let app = App::start(|stream| async move {
        let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
        while let Some(Ok(message)) = socket.next().await {
            if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                return;
            }
        }
    })
    .await;
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
