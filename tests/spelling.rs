//! However a path is spelled, what is decided by path holds, and the application gets the path that was decided on.

use http::Request;

use crate::limits::until_told;
use crate::support::apps::{HttpApp, Version};
use crate::support::pair::Pair;
use crate::support::{eventually, raw, soon};

const ROUTE: &str = "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: app, namespace: demo}, spec: \
                     {parentRefs: [{group: '', kind: Service, name: app}], rules: [{matches: [{path: {value: /old/}}], filters: \
                     [{type: RequestRedirect, requestRedirect: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}]}, \
                     {backendRefs: [{name: app, port: 80}]}]}}\n";

#[tokio::test]
async fn no_spelling_of_a_path_is_a_way_around_what_holds_for_it() {
    let app = HttpApp::start("app-1", Version::Http1).await;
    let lines = [
        "rateLimits: [{ matches: [{ path: { value: /admin } }], total: { requests: 1, per: 1h } }]",
        "faults: [{ matches: [{ path: { value: /broken } }], abort: { status: 418 }, for: 10m }]",
    ];
    let pair = Pair::with(app.address(), "http", &lines, &[]).await;
    until_told(&pair.callee).await;
    pair.mesh.apply(ROUTE).await;
    eventually("the route holds", async || (raw::status(&pair.get("/old").await) == 302).then_some(())).await;
    for path in ["/old/a", "/o%6cd/a", "/./x/../old/a", "/old\\a"] {
        let answer = pair.get(path).await;
        assert_eq!(raw::header(&answer, "location"), Some("http://app.demo.mesh/new/a"), "{path}: {answer}");
    }
    for (path, expected) in [
        ("/broken", 418),
        ("/%62roken/x", 418),
        ("/a/%2E%2e/broken", 418),
        // What an application may read otherwise is as it stands, but for limits.
        ("//broken", 200),
    ] {
        assert_eq!(raw::status(&pair.get(path).await), expected, "{path}");
    }

    let answer = pair.get("/x/../%68ead?q=/../%61").await;
    assert!(raw::body(&answer).starts_with("GET /head?q=/../%61 "), "{answer}");
    let answer = pair.get("/a%00").await;
    assert_eq!((raw::status(&answer), raw::refusal(&answer)), (400, "malformed-request"), "{answer}");

    assert_eq!(raw::status(&pair.get("/%61dmin").await), 200);
    for path in [
        "/admin",
        "/./admin",
        "/%61dmin/x",
        "/x/%2e%2e/admin",
        "/x\\..\\admin",
        "//admin",
        "/admin%2Fx",
        "/x%2f..%5Cadmin",
    ] {
        let answer = pair.get(path).await;
        assert_eq!((raw::status(&answer), raw::refusal(&answer)), (429, "rate-limited"), "{path}: {answer}");
    }

    // The callee's sidecar does not rely on the caller's.
    soon("answers to a member of the mesh", async {
        let (mut sender, connection) = h2::client::handshake(pair.member().await).await.expect("HTTP/2");
        let connection = tokio::spawn(connection);
        for (path, expected) in [("/./%61dmin", 429), ("/a%00", 400), ("/x/../who", 200)] {
            let request = Request::get(format!("http://app.demo.mesh{path}")).body(()).expect("a request");
            let (response, _) = sender.send_request(request, true).expect("it takes a request");
            assert_eq!(response.await.expect("an answer").status(), expected, "{path}");
        }
        connection.abort();
    })
    .await;
}
