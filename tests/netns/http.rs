//! HTTP clients that know nothing of the mesh: curl in two versions of HTTP, gRPC, WebSocket.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::Message;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::grpc::{self, Count};
use crate::support::apps::{App, HttpApp, Version};
use crate::support::mesh::service;
use crate::support::netns::{WorkloadSpec, connect, in_world, listen_on};
use crate::support::soon;
use crate::websocket;

/// What the clients send; nobody between them and the applications may read it.
const SECRET: &str = "only-for-the-application";

#[test]
fn every_client_reaches_its_service_by_mutual_tls() {
    in_world(async |world| {
        let places = ["client", "web", "modern", "counter", "chat"].map(|name| world.place(name));
        let [client, web, modern, counter, chat] = places;
        let web_app = HttpApp::on(listen_on(&web, 8080), "web", Version::Http1);
        let modern_app = HttpApp::on(listen_on(&modern, 8080), "modern", Version::Http2);
        let _counter_app = App::on(listen_on(&counter, 8080), grpc::serve);
        let _chat_app = App::on(listen_on(&chat, 8080), websocket::serve);
        let services = [
            ("web", "http"),
            ("modern", "kubernetes.io/h2c"),
            ("counter", "grpc"),
            ("chat", "kubernetes.io/ws"),
        ];
        world.mesh.apply(&services.map(|(name, protocol)| service(name, protocol)).join("---\n")).await;
        let web = world.workload(web, WorkloadSpec::serving("web-1", "web", &[8080])).await;
        let modern = world.workload(modern, WorkloadSpec::serving("modern-1", "modern", &[8080])).await;
        let counter = world.workload(counter, WorkloadSpec::serving("counter-1", "counter", &[8080])).await;
        let chat = world.workload(chat, WorkloadSpec::serving("chat-1", "chat", &[8080])).await;
        let client = world.workload(client, WorkloadSpec::caller("client")).await;
        world.until_registered(&[&web, &modern, &counter, &chat, &client]).await;
        for (name, _) in services {
            client.until_endpoints(name, 1).await;
        }
        let capture = world.capture(&client).await;

        // By every name that it has.
        let address = world.virtual_address("web").await;
        let hosts = [
            "web".into(),
            "web.demo".into(),
            "web.demo.mesh".into(),
            address.to_string(),
            format!("{}:8080", web.v4),
        ];
        for host in &hosts {
            let header = format!("x-secret: {SECRET}");
            let shown = world.curl(&client, &["--header", &header, &format!("http://{host}/head")]).await;
            assert!(shown.starts_with("GET /head HTTP/1.1\n"), "{host}: {shown}");
            assert!(shown.to_lowercase().contains(&format!("host: {host}\n")), "{host}: {shown}");
            assert!(shown.contains(SECRET), "{host}: {shown}");
        }
        assert_eq!(web_app.requests(), hosts.len() as u64);
        // The certificate's owner did it, for all of them.
        let labels = [("direction", "inbound"), ("source", "client.demo")];
        eventually_counted(&web, &labels, hosts.len()).await;

        let echo = ["--http2-prior-knowledge", "--data", SECRET, "--write-out", " by HTTP/%{http_version}"];
        let shown = world.curl(&client, &[&echo[..], &["http://modern/echo"]].concat()).await;
        assert_eq!(shown, format!("{SECRET} by HTTP/2"));
        assert_eq!(modern_app.requests(), 1);

        grpc_calls(&client, (world.virtual_address("counter").await, 80).into()).await;
        web_socket(&client, (world.virtual_address("chat").await, 80).into()).await;
        world.assert_mutual_tls(&capture, &client, &web, &[SECRET, "/test.Counter/Count"]).await;
    });
}

async fn grpc_calls(client: &crate::support::netns::Workload, to: SocketAddr) {
    soon("gRPC calls", async {
        let stream = connect(client, to).await.expect("the sidecar accepts for any service");
        let mut stream = Some(TokioIo::new(stream));
        let connector = tower::service_fn(move |_: Uri| {
            let stream = stream.take().ok_or_else(|| std::io::Error::other("one connection is enough"));
            async move { stream }
        });
        let endpoint = Endpoint::from_static("http://counter.demo.mesh");
        let channel: Channel = endpoint.connect_with_connector(connector).await.expect("HTTP/2 is spoken");
        // Unary: one message, and the status.
        for messages in [1, 1000] {
            let answer = grpc::call_over(channel.clone(), Count { to: messages, then_status: 0 }).await;
            let mut stream = answer.expect("the call is answered").into_inner();
            for expected in 0..messages {
                let number =
                    stream.message().await.expect("no error in between").expect("as many as asked for");
                assert_eq!(number.value, expected);
            }
            assert_eq!(stream.message().await.expect("status OK in the trailers"), None);
        }
        let refused = Count { to: 0, then_status: tonic::Code::DataLoss as i32 };
        let mut stream = grpc::call_over(channel, refused).await.expect("the call is answered").into_inner();
        assert_eq!(stream.message().await.expect_err("a status").code(), tonic::Code::DataLoss);
    })
    .await;
}

async fn web_socket(client: &crate::support::netns::Workload, to: SocketAddr) {
    soon("a WebSocket conversation", async {
        let stream = connect(client, to).await.expect("the sidecar accepts for any service");
        let (mut socket, response) = tokio_tungstenite::client_async("ws://chat.demo.mesh/", stream)
            .await
            .expect("the upgrade passes");
        assert_eq!(response.status(), 101);
        for message in [Message::text(SECRET), Message::binary(vec![0xA5; 300_000])] {
            socket.send(message.clone()).await.expect("the connection is open");
            assert_eq!(socket.next().await.expect("an echo").expect("a valid frame"), message);
        }
        socket.close(None).await.expect("the connection is open");
    })
    .await;
}

async fn eventually_counted(
    workload: &crate::support::netns::Workload,
    labels: &[(&str, &str)],
    requests: usize,
) {
    crate::support::eventually(&format!("{requests} requests with {labels:?}"), async || {
        (workload.count("pillion_requests_total", labels).await == requests as f64).then_some(())
    })
    .await;
}
