//! The ways in that need no privileges: an application that has its sidecar in `http_proxy`, or just connects to it.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::apps::{HttpApp, Version};
use crate::support::mesh::{Mesh, Sidecar, SidecarSpec};
use crate::support::{eventually, raw, soon};

/// A caller and `catalog.demo`, an HTTP/1 application that names itself.
struct Shop {
    _mesh: Mesh,
    app: HttpApp,
    caller: Sidecar,
    _callee: Sidecar,
}

async fn shop() -> Shop {
    let mesh = Mesh::start().await;
    let app = HttpApp::start("catalog-1", Version::Http1).await;
    mesh.apply_service("catalog", "http").await;
    let callee = mesh.sidecar(SidecarSpec::serving("catalog-1", "catalog", app.address())).await;
    let caller = mesh.sidecar(SidecarSpec::caller("client")).await;
    mesh.until_ready(&[&caller, &callee]).await;
    caller.until_endpoints("catalog", 1).await;
    Shop { _mesh: mesh, app, caller, _callee: callee }
}

#[tokio::test]
async fn curl_with_the_sidecar_as_its_proxy() {
    let shop = shop().await;
    let output = tokio::process::Command::new("curl")
        .args(["--silent", "--show-error", "--fail-with-body", "--max-time", "10", "--proxy"])
        .arg(format!("http://{}", shop.caller.outbound()))
        .arg("http://catalog.demo.mesh/who")
        .output()
        .await
        .expect("curl is installed");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "catalog-1", "{errors}");
    assert_eq!(shop.app.requests(), 1);
}

#[tokio::test]
async fn the_absolute_form_names_the_service_and_the_application_sees_its_own_form() {
    let shop = shop().await;
    let request = "GET http://catalog.demo.mesh/head?q=1 HTTP/1.1\r\nhost: something.else\r\n\
                   proxy-connection: keep-alive\r\nconnection: close, x-private\r\nx-private: 1\r\nx-public: 2\r\n\r\n";
    let answer = raw::exchange(shop.caller.outbound(), request).await;
    assert_eq!(raw::status(&answer), 200, "{answer}");
    let seen = raw::body(&answer);
    assert!(seen.contains("GET /head?q=1 HTTP/1.1"), "the origin form: {seen}");
    assert!(seen.contains("host: catalog.demo.mesh\n"), "the authority wins (RFC 9112, 3.2.2): {seen}");
    assert!(seen.contains("x-public: 2\n"), "{seen}");
    assert!(!seen.contains("x-private"), "what `connection` names is for this hop only: {seen}");
    assert!(!seen.contains("proxy-connection"), "{seen}");
}

#[tokio::test]
async fn the_host_header_is_enough_and_inside_the_namespace_the_bare_name() {
    let shop = shop().await;
    for host in ["catalog.demo.mesh", "catalog.demo.mesh:80", "CATALOG.Demo.Mesh", "catalog.demo", "catalog"]
    {
        let request = format!("GET /who HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        let answer = raw::exchange(shop.caller.outbound(), &request).await;
        assert_eq!((raw::status(&answer), raw::body(&answer)), (200, "catalog-1"), "{host}: {answer}");
    }
}

#[tokio::test]
async fn connect_makes_a_tunnel_to_the_service() {
    let shop = shop().await;
    soon("a request through a tunnel", async {
        let mut stream = TcpStream::connect(shop.caller.outbound()).await.expect("the sidecar listens");
        let connect = b"CONNECT catalog.demo.mesh:80 HTTP/1.1\r\nhost: catalog.demo.mesh:80\r\n\r\n";
        stream.write_all(connect).await.expect("the sidecar reads");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("a whole head"));
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        assert_eq!(raw::status(&head), 200, "{head}");
        let request = b"GET /who HTTP/1.1\r\nhost: catalog\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.expect("the tunnel is open");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer of text");
        assert_eq!((raw::status(&answer), raw::body(&answer).contains("catalog-1")), (200, true), "{answer}");
    })
    .await;
}

#[tokio::test]
async fn refusals_name_their_reason_and_are_counted() {
    let shop = shop().await;
    let cases = [
        ("GET / HTTP/1.1\r\nhost: nobody.demo.mesh\r\nconnection: close\r\n\r\n", 404, "unknown-service"),
        ("GET / HTTP/1.1\r\nhost: catalog.demo.mesh:81\r\nconnection: close\r\n\r\n", 404, "unknown-port"),
        ("GET / HTTP/1.0\r\n\r\n", 400, "no-target"),
    ];
    for (request, status, reason) in cases {
        let answer = raw::exchange(shop.caller.outbound(), request).await;
        assert_eq!(raw::status(&answer), status, "{answer}");
        let error = raw::header(&answer, "pillion-error").unwrap_or_else(|| panic!("no reason: {answer}"));
        assert!(error.starts_with(reason), "{error}");
        assert!(error.contains("hop=outbound") && error.contains("workload=client"), "{error}");
        eventually(&format!("{reason} is counted"), async || {
            let metrics = shop.caller.metrics().await;
            (metrics.sum("pillion_refusals_total", &[("reason", reason)]) >= 1.0).then_some(())
        })
        .await;
    }
    assert_eq!(shop.app.requests(), 0);
}
