//! Who may call a workload: other sidecars always; callers without one by the mesh's mode; and what a sidecar says that is
//! not redirected to.

use std::net::Ipv6Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::outside::{mesh_config, request};
use crate::support::apps::{App, HttpApp, Version};
use crate::support::netns::{Workload, WorkloadSpec, World, connect, in_world, listen, listen_on};
use crate::support::{eventually, raw, soon};

/// Where an application speaks TLS of its own.
const TLS: u16 = 8443;

#[test]
fn callers_without_a_sidecar_are_taken_or_refused_by_the_mesh_s_mode() {
    in_world(async |world| {
        let web = world.place("web");
        // Both families, as most servers do.
        let app = HttpApp::on(listen(&web, (Ipv6Addr::UNSPECIFIED, 8080).into()), "web", Version::Http1);
        let plain = HttpApp::on(listen_on(&web, 8090), "plain", Version::Http1);
        let _tls = App::on(listen_on(&web, TLS), own_tls(world));
        world.mesh.apply_service("web", "http").await;
        let spec = WorkloadSpec::serving("web-1", "web", &[8080, 8090, TLS]);
        let flags = ["--probes", "8080/healthz", "--plaintext-ports", "8090"];
        let web = world.workload(web, spec.flags(&flags)).await;
        let client = world.workload(world.place("client"), WorkloadSpec::caller("client")).await;
        world.until_registered(&[&web, &client]).await;
        client.until_endpoints("web", 1).await;
        let stranger = world.place("stranger");
        let port = |port| (web.v4, port).into();

        // On a machine whose disk is busy the control plane may take longer to answer than a connection waits.
        eventually("the client is told what the address is", async || {
            (raw::status(&request(&client, port(8080), "web").await) == 200).then_some(())
        })
        .await;
        let before = app.requests();

        // Permissive: whatever is spoken, on one and the same port.
        assert_eq!(raw::status(&request(&stranger, port(8080), "web").await), 200);
        assert_eq!(raw::status(&request(&stranger, (web.v6, 8080).into(), "web").await), 200);
        let answer = request(&client, port(8080), "web").await;
        assert_eq!(raw::status(&answer), 200, "{answer}");
        assert_eq!(raw::status(&request(&client, (web.v6, 8080).into(), "web").await), 200);
        assert_eq!(app.requests(), before + 4);
        // The application's own TLS is not the sidecar's to open.
        let secure = ["--insecure", &format!("https://{}:{TLS}/", web.v4)];
        assert_eq!(world.curl(&stranger, &secure).await, "encrypted");
        assert_eq!(world.curl(&client, &secure).await, "encrypted");
        let by = |source| [("direction", "inbound"), ("source", source)];
        eventually("requests are counted by who sent them", async || {
            (web.count("pillion_requests_total", &by("client.demo")).await >= 1.0).then_some(())
        })
        .await;

        // Strict: no one without a certificate, but for probes, and where the workload's owner says so.
        mesh_config(world, "inbound: strict").await;
        eventually("plaintext is refused", async || {
            let answer = request(&stranger, port(8080), "web").await;
            (raw::refusal(&answer) == "plaintext-refused").then_some(())
        })
        .await;
        let reached = app.requests();
        assert_eq!(
            raw::refusal(&request(&stranger, (web.v6, 8080).into(), "web").await),
            "plaintext-refused"
        );
        assert!(!world.run(&stranger, "curl", &secure).await.succeeded);
        assert_eq!(app.requests(), reached);
        assert_eq!(raw::status(&request(&client, port(8080), "web").await), 200);
        for (path, taken) in [("/healthz", true), ("/healthz/", false), ("/who", false)] {
            let mut stream = connect(&stranger, port(8080)).await.expect("the sidecar listens");
            stream.write_all(raw::get("web", path).as_bytes()).await.expect("the sidecar reads");
            let mut answer = String::new();
            let _ = soon("an answer", stream.read_to_string(&mut answer)).await;
            assert_eq!(raw::status(&answer) == 200, taken, "{path}: {answer}");
        }
        assert_eq!(raw::status(&request(&stranger, port(8090), "web").await), 200);
        assert_eq!(plain.requests(), 1);
        let refused = [("direction", "inbound"), ("reason", "plaintext-refused")];
        assert!(web.count("pillion_refusals_total", &refused).await >= 3.0);

        mesh_config(world, "inbound: permissive").await;
        eventually("plaintext is taken again", async || {
            (raw::status(&request(&stranger, port(8080), "web").await) == 200).then_some(())
        })
        .await;
    });
}

/// A server that has TLS of its own, and one answer for everything.
fn own_tls(world: &World) -> impl Fn(TcpStream) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + 'static {
    let credential = world.mesh.credential("web");
    let chain = credential.chain_der().map(|der| der.to_vec().into()).collect();
    let key = PrivateKeyDer::from_pem_slice(credential.key().to_pem().as_bytes()).expect("a key of our own");
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key);
    let acceptor = TlsAcceptor::from(Arc::new(config.expect("a certificate and its key")));
    move |stream| {
        let acceptor = acceptor.clone();
        Box::pin(async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => return,
                }
            }
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\nencrypted")
                .await;
            let _ = stream.shutdown().await;
        })
    }
}

#[test]
fn a_sidecar_that_nothing_is_redirected_to_is_unready_and_says_why() {
    in_world(async |world| {
        let web = world.place("web");
        let _app = HttpApp::on(listen_on(&web, 8080), "web", Version::Http1);
        let mut web = world.sidecar(web, WorkloadSpec::serving("web-1", "web", &[8080])).await;
        bypassed(world, &mut web).await;

        world.redirect(&web).await;
        eventually("it is ready", async || (raw::status(&web.ready().await) == 200).then_some(())).await;
        world.until_registered(&[&web]).await;

        world.must(&web, "nft", &["delete", "table", "inet", "pillion"]).await;
        bypassed(world, &mut web).await;
        world.redirect(&web).await;
        eventually("it is ready again", async || (raw::status(&web.ready().await) == 200).then_some(()))
            .await;
        world.until_registered(&[&web]).await;
    });
}

/// Waits until a workload is told to be bypassed, to whoever asks it, and to the control plane. While all is well, it looks
/// every 30 seconds.
async fn bypassed(world: &World, web: &mut Workload) {
    let admin = web.admin();
    let says_why = async || {
        TcpStream::connect(admin).await.ok()?;
        let answer = raw::exchange(admin, &raw::get("sidecar", "/ready")).await;
        let says_why =
            raw::status(&answer) == 503 && raw::body(&answer).contains("run `pillion-proxy redirect`");
        says_why.then_some(())
    };
    let unready = web.process.until("be unready and say why", Duration::from_secs(40), says_why).await;
    unready.unwrap_or_else(|error| panic!("{error}"));
    eventually("the control plane knows", async || {
        let known = world.mesh.api.workloads().await.ok()?;
        known.iter().any(|it| it.workload == web.name && it.connected && !it.ready).then_some(())
    })
    .await;
}
