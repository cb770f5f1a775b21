//! Each way in which a request is refused is a problem document with its own reason.

use std::time::{Duration, SystemTime};

use pillion::token::{JoinGrant, Role};
use reqwest::{Method, StatusCode, header};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Server, problem, service};

#[tokio::test]
async fn malformed_requests_are_told_what_is_wrong() {
    let server = Server::start().await;
    let post = |body: &str, kind: &str| {
        server.request(Method::POST, "/v1/apply").header("content-type", kind).body(body.to_owned()).send()
    };
    let cases = [
        ("a: [1\nb: 2\n", "application/yaml", 400, "malformed", "is not YAML"),
        ("{\"a\": 1,}", "application/json", 400, "malformed", "is not JSON: key must be a string"),
        ("", "application/yaml", 400, "malformed", "body: holds no document"),
        ("a: 1\na: 2\n", "text/yaml", 400, "malformed", "duplicate"),
        ("kind: Pod", "application/yaml", 422, "invalid", "kind: must be one of"),
        ("- 1", "application/yaml", 422, "invalid", "must be an object"),
    ];
    for (body, kind, status, reason, words) in cases {
        let (found, found_reason, faults) = problem(post(body, kind).await.unwrap()).await;
        assert_eq!((found, found_reason.as_str()), (status, reason), "{body:?}");
        assert!(faults[0].contains(words), "{body:?}: {faults:?}");
    }
    let (status, reason, _) = problem(post("<a/>", "application/xml").await.unwrap()).await;
    assert_eq!((status, reason.as_str()), (415, "unsupported-media-type"));
    let (status, reason, _) = problem(post(&" ".repeat(2 << 20), "application/yaml").await.unwrap()).await;
    assert_eq!((status, reason.as_str()), (413, "too-large"));
    let response = server
        .request(Method::POST, "/v1/apply")
        .body(vec![b'a', b':', b' ', 0xff, 0xfe])
        .send()
        .await
        .unwrap();
    assert_eq!(problem(response).await.2, ["body: is not UTF-8 from byte 3 on"]);
}

#[tokio::test]
async fn wrong_places_and_methods_are_problems_too() {
    let server = Server::start().await;
    let cases = [
        (Method::GET, "/v1/pods", 404, "not-found"),
        (Method::GET, "/v1/namespaces/demo/pods/x", 404, "not-found"),
        (Method::GET, "/v1/namespaces/demo/services/x", 404, "not-found"),
        (Method::GET, "/v1/namespaces/demo/services/x/y/z", 404, "not-found"),
        (Method::GET, "/v1/mesh/nowhere", 404, "not-found"),
        (Method::GET, "/v1/namespaces/De%20mo/services", 400, "malformed"),
        (Method::GET, "/v1/%ff", 400, "malformed"),
        (Method::GET, "/v1/services?wotch=true", 400, "malformed"),
        (Method::GET, "/v1/services?watch=maybe", 400, "malformed"),
        (Method::DELETE, "/v1/services", 405, "method-not-allowed"),
        (Method::GET, "/v1/apply", 405, "method-not-allowed"),
        (Method::POST, "/", 405, "method-not-allowed"),
        (Method::GET, "/missing.js", 404, "not-found"),
    ];
    for (method, path, status, reason) in cases {
        let response = server.request(method.clone(), path).send().await.unwrap();
        let (found, found_reason, _) = problem(response).await;
        assert_eq!((found, found_reason.as_str()), (status, reason), "{method} {path}");
    }
    let path = "/v1/namespaces/demo/services/web";
    let two = service("web") + &service("other");
    assert_eq!(problem(server.request(Method::PUT, path).body(two).send().await.unwrap()).await.0, 400);
    let other = service("other");
    let (status, _, faults) =
        problem(server.request(Method::PUT, path).body(other).send().await.unwrap()).await;
    assert_eq!(status, 422);
    assert_eq!(faults, ["Service demo/other: metadata.name: must be \"web\" as in the path, is \"other\""]);
    let bad_tag =
        server.request(Method::PUT, path).header("if-match", "5").body(service("web")).send().await.unwrap();
    assert_eq!(problem(bad_tag).await.2, ["if-match: must be * or a resourceVersion in quotes, is 5"]);
}

#[tokio::test]
async fn changes_need_a_token_and_each_bad_one_has_its_reason() {
    let server = Server::start().await;
    let now = SystemTime::now();
    let expired = server.tokens.create_api(
        Role::Admin,
        None,
        Some(Duration::from_secs(1)),
        now - Duration::from_secs(9),
    );
    let expired = expired.await.unwrap().token;
    let viewer = server.tokens.create_api(Role::Viewer, None, None, now).await.unwrap().token;
    let grant = JoinGrant { namespace: "demo".into(), service_account: "web".into() };
    let join =
        server.tokens.create_join(grant, Duration::from_secs(60), &"ab".repeat(32), now).await.unwrap().token;
    let mut unknown = server.admin.clone().into_bytes();
    unknown[13] = if unknown[13] == b'0' { b'1' } else { b'0' };
    let unknown = String::from_utf8(unknown).unwrap();
    let cases = [
        (None, 401, "token-missing"),
        (Some("Basic YTpi".to_owned()), 401, "token-malformed"),
        (Some("Bearer nonsense".to_owned()), 401, "token-malformed"),
        (Some(format!("Bearer {unknown}")), 401, "token-unknown"),
        (Some(format!("Bearer {expired}")), 401, "token-expired"),
        (Some(format!("Bearer {join}")), 401, "token-wrong-kind"),
        (Some(format!("Bearer {viewer}")), 403, "token-lacks-role"),
    ];
    for (authorization, status, reason) in cases {
        let name = "/v1/namespaces/demo/services/web";
        for (method, path) in [
            (Method::POST, "/v1/apply"),
            (Method::PUT, name),
            (Method::DELETE, name),
            (Method::POST, "/v1/tokens"),
        ] {
            let mut request = server.anonymous(method.clone(), path).body(service("web"));
            if let Some(authorization) = &authorization {
                request = request.header(header::AUTHORIZATION, authorization);
            }
            let response = request.send().await.unwrap();
            assert_eq!(response.headers().contains_key(header::WWW_AUTHENTICATE), status == 401);
            let (found, found_reason, _) = problem(response).await;
            assert_eq!((found, found_reason.as_str()), (status, reason), "{method} {path}");
        }
    }
    assert!(server.changes.lock().unwrap().is_empty());
}

#[tokio::test]
async fn beyond_loopback_reading_needs_a_viewer() {
    let server = Server::start_as(Some("192.0.2.1:443".parse().unwrap())).await;
    for path in ["/v1/services", "/v1/mesh", "/metrics", "/v1/namespaces/demo/services"] {
        let response = server.anonymous(Method::GET, path).send().await.unwrap();
        assert_eq!(problem(response).await.1, "token-missing", "{path}");
        assert_eq!(
            server.request(Method::GET, path).send().await.unwrap().status(),
            StatusCode::OK,
            "{path}"
        );
    }
}

#[tokio::test]
async fn beyond_loopback_without_tls_is_refused_at_start() {
    let address = "0.0.0.0:15080".parse().unwrap();
    let refused = pillion::web::listen::tls(address, None).err().unwrap().to_string();
    assert!(refused.contains("insists on TLS and a token"), "{refused}");
    assert!(pillion::web::listen::tls("127.0.0.1:0".parse().unwrap(), None).unwrap().is_none());
    let missing = std::path::Path::new("/nowhere/tls.pem");
    let refused = pillion::web::listen::tls(address, Some((missing, missing))).err().unwrap().to_string();
    assert!(refused.contains("cannot use the certificate /nowhere/tls.pem"), "{refused}");
}

#[tokio::test]
async fn a_foreign_host_name_is_not_answered() {
    let server = Server::start().await;
    let response =
        server.anonymous(Method::GET, "/v1/services").header("host", "evil.example").send().await.unwrap();
    let (status, reason, _) = problem(response).await;
    assert_eq!((status, reason.as_str()), (403, "host-not-allowed"));
    let local = format!("localhost:{}", server.address.port());
    let response = server.anonymous(Method::GET, "/v1/services").header("host", local).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(!response.headers().contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn pages_and_descriptions_are_served_with_their_guards() {
    let server = Server::start().await;
    for path in ["/", "/docs", "/openapi.json", "/metrics"] {
        let response = server.anonymous(Method::GET, path).send().await.unwrap();
        let headers = response.headers().clone();
        assert!(
            headers["content-security-policy"].to_str().unwrap().starts_with("default-src 'self'"),
            "{path}"
        );
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(headers["x-frame-options"], "DENY", "{path}");
    }
    let description = server.get("/openapi.json").await;
    for path in ["/v1/apply", "/v1/tokens", "/v1/namespaces/{namespace}/{kind}/{name}"] {
        assert!(description["paths"][path].is_object(), "{path}");
    }
    assert_eq!(
        description["components"]["schemas"]["HTTPRoute"]["properties"]["kind"]["enum"][0],
        "HTTPRoute"
    );
    let docs = server.anonymous(Method::GET, "/docs").send().await.unwrap().text().await.unwrap();
    assert!(docs.contains("<code>POST /v1/apply</code> · needs a token"), "{docs}");
    let metrics = server.anonymous(Method::GET, "/metrics").send().await.unwrap();
    assert_eq!(metrics.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    assert_eq!(metrics.text().await.unwrap(), "pillion_up 1\n");
}

#[tokio::test]
async fn an_address_of_the_dashboard_without_its_hash_is_not_found_and_says_where_it_is() {
    let server = Server::start().await;
    let browser = "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8";
    let asked = |accept: &'static str, path: &'static str| {
        server.anonymous(Method::GET, path).header("accept", accept).send()
    };
    let answer = asked(browser, "/services/demo/web?minutes=5&x=<b>").await.unwrap();
    assert_eq!(answer.status(), 404);
    assert_eq!(answer.headers()["content-type"], "text/html; charset=utf-8");
    let page = answer.text().await.unwrap();
    assert!(page.contains("href=\"/#/services/demo/web?minutes=5&amp;x="), "{page}");
    assert!(!page.contains("<b>"), "{page}");
    for (accept, path) in [("*/*", "/services/demo/web"), (browser, "/assets/no-such.js")] {
        let (status, reason, _) = problem(asked(accept, path).await.unwrap()).await;
        assert_eq!((status, reason.as_str()), (404, "not-found"), "{path}");
    }
}

#[tokio::test]
async fn a_broken_request_ends_its_connection_only() {
    let server = Server::start().await;
    let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GARBAGE\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(server.get("/v1/services").await["kind"], "List");
}
