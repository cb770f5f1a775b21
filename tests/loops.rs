//! A sidecar does not call itself, by whatever name it is asked to.

use crate::support::mesh::{Mesh, SidecarSpec};
use crate::support::{eventually, raw};

#[tokio::test]
async fn a_request_to_the_sidecars_own_address_is_refused_and_goes_round_not_once() {
    let mesh = Mesh::start().await;
    // Should it loop, then not for long.
    let caller = mesh.sidecar(SidecarSpec::caller("client").flags(&["--max-connections", "100"])).await;
    mesh.until_ready(&[&caller]).await;
    let port = caller.outbound().port();
    let hosts = ["127.0.0.1", "0.0.0.0", "localhost", "[::ffff:127.0.0.1]"];
    for host in hosts {
        for request in [
            format!("GET http://{host}:{port}/ HTTP/1.1\r\nhost: {host}:{port}\r\nconnection: close\r\n\r\n"),
            raw::get(&format!("{host}:{port}"), "/"),
            format!("CONNECT {host}:{port} HTTP/1.1\r\nhost: {host}:{port}\r\nconnection: close\r\n\r\n"),
        ] {
            let answer =
                raw::exchange_until(caller.outbound(), request.as_bytes(), |seen| seen.contains("\r\n\r\n"));
            let answer = answer.await;
            assert!(raw::status(&answer) >= 400 && !raw::refusal(&answer).is_empty(), "{request}{answer}");
        }
    }
    let requests = (3 * hosts.len()) as f64;
    let counted = eventually("the requests are counted", async || {
        let counted = caller.metrics().await.sum("pillion_requests_total", &[("direction", "outbound")]);
        (counted >= requests).then_some(counted)
    })
    .await;
    assert_eq!(counted, requests, "each came in once");
}
