//! Applying, replacing, deleting; all or nothing; optimistic concurrency.

use pillion::web::Outcome;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Server, outcomes, problem, route, service};

#[tokio::test]
async fn apply_creates_configures_and_leaves_unchanged() {
    let server = Server::start().await;
    let both = service("web") + &route("web", "web", "web");
    assert_eq!(server.apply(both.clone()).await, ["web created", "web created"]);
    assert_eq!(server.apply(both.clone()).await, ["web unchanged", "web unchanged"]);
    let changed = both.replace("selector: {app: web}", "selector: {app: other}");
    assert_eq!(server.apply(changed).await, ["web configured", "web unchanged"]);

    let document = server.get("/v1/namespaces/demo/services/web").await;
    assert_eq!(document["apiVersion"], "v1");
    assert_eq!(document["spec"]["selector"]["app"], "other");
    assert_eq!(document["metadata"]["generation"], 2);
    assert!(document["metadata"]["uid"].as_str().unwrap().len() == 36);
    assert!(document["metadata"]["creationTimestamp"].as_str().unwrap().ends_with('Z'));

    let list = server.get("/v1/namespaces/demo/httproutes").await;
    let parents = &list["items"][0]["status"]["parents"];
    assert_eq!(parents[0]["parentRef"]["name"], "web");
    assert_eq!(parents[0]["conditions"][0]["type"], "Accepted");
    assert_eq!(parents[0]["conditions"][0]["status"], "True");
    assert_eq!(parents[0]["conditions"][1]["observedGeneration"], 1);
    assert_eq!(server.get("/v1/services").await["items"].as_array().unwrap().len(), 1);
    assert_eq!(server.get("/v1/namespaces/other/services").await["items"], json!([]));

    let told: Vec<_> =
        server.changes.lock().unwrap().iter().map(|(key, it)| (key.to_string(), *it)).collect();
    let expected = [
        ("Service demo/web".to_owned(), Outcome::Created),
        ("HTTPRoute demo/web".to_owned(), Outcome::Created),
        ("Service demo/web".to_owned(), Outcome::Configured),
    ];
    assert_eq!(told, expected);
    server.stop().await;
}

#[tokio::test]
async fn what_is_shown_can_be_applied_again() {
    let server = Server::start().await;
    server.apply(service("web") + &route("web", "web", "web")).await;
    let shown = server.get("/v1/httproutes").await;
    let response = server.request(Method::POST, "/v1/apply").json(&shown).send().await.unwrap();
    assert_eq!(outcomes(&response.json().await.unwrap()), ["web unchanged"]);
}

#[tokio::test]
async fn one_fault_anywhere_applies_nothing_and_tells_all() {
    let server = Server::start().await;
    let text =
        service("good") + &service("bad").replace("port: 80", "port: 0") + &route("r", "good", "nowhere");
    let response = server.request(Method::POST, "/v1/apply").body(text).send().await.unwrap();
    let (status, reason, faults) = problem(response).await;
    assert_eq!((status, reason.as_str()), (422, "invalid"));
    assert_eq!(
        faults,
        [
            "Service demo/bad: spec.ports[0].port: must be between 1 and 65535, is 0",
            "HTTPRoute demo/r: spec.rules[0].backendRefs[0].name: there is no Service \"nowhere\" in namespace \"demo\"",
        ]
    );
    // A Service that is there but wrong is not missing as well.
    let text = service("bad").replace("port: 80", "port: 0") + &route("r", "bad", "bad");
    let response = server.request(Method::POST, "/v1/apply").body(text).send().await.unwrap();
    assert_eq!(problem(response).await.2.len(), 1);

    // Right by themselves, wrong together.
    let text = service("good") + &route("r", "gone", "nowhere");
    let response = server.request(Method::POST, "/v1/apply").body(text).send().await.unwrap();
    let body: Value = response.json().await.unwrap();
    let faults = body["faults"].as_array().unwrap();
    assert_eq!(faults.len(), 2);
    assert_eq!(faults[0]["field"], "spec.parentRefs[0].name");
    assert_eq!(faults[0]["message"], "there is no Service \"gone\" in namespace \"demo\"");
    assert_eq!(faults[0]["document"], "HTTPRoute demo/r");
    assert_eq!((&faults[0]["index"], &faults[0]["line"]), (&json!(1), &json!(14)));
    assert_eq!(faults[1]["field"], "spec.rules[0].backendRefs[0].name");
    assert_eq!(server.get("/v1/services").await["items"], json!([]), "nothing was half-applied");
}

#[tokio::test]
async fn what_a_document_names_is_looked_for_although_it_has_faults_itself() {
    let server = Server::start().await;
    server.apply(service("web")).await;
    let wrong = route("r", "gone", "web").replace("port: 80", "port: 81, weight: -1")
        + &route("r", "web", "nowhere").replace("name: nowhere", "nmae: nowhere");
    let response = server.request(Method::POST, "/v1/apply").body(wrong).send().await.unwrap();
    let (status, _, faults) = problem(response).await;
    assert_eq!(status, 422);
    let expected = [
        "HTTPRoute demo/r: spec.rules[0].backendRefs[0].weight: must be between 0 and 1000000, is -1",
        "HTTPRoute demo/r: spec.parentRefs[0].name: there is no Service \"gone\" in namespace \"demo\"",
        "HTTPRoute demo/r: spec.rules[0].backendRefs[0].port: Service demo/web has no port 81; it has 80",
        "HTTPRoute demo/r: spec.rules[0].backendRefs[0].name: is required",
        "HTTPRoute demo/r: spec.rules[0].backendRefs[0].nmae: is not a known field; did you mean \"name\"?",
        "HTTPRoute demo/r: metadata.name: is in the request twice: documents 1 and 2",
    ];
    let mut sorted = (faults.clone(), expected.map(str::to_owned).to_vec());
    sorted.0.sort();
    sorted.1.sort();
    assert_eq!(sorted.0, sorted.1, "{faults:#?}");

    // The same of one document by itself.
    let path = "/v1/namespaces/demo/trafficpolicies/p";
    let policy = json!({"spec": {"timeouts": {"request": "soon"}, "targetRefs": [{"group": "", "kind": "Service", "name": "gone"}]}});
    let (_, _, faults) = problem(server.request(Method::PUT, path).json(&policy).send().await.unwrap()).await;
    assert_eq!(faults.len(), 2, "{faults:#?}");
    assert!(
        faults.iter().any(|fault| fault.contains("spec.targetRefs[0].name: there is no Service")),
        "{faults:#?}"
    );
}

fn policy(name: &str, target: &str) -> String {
    format!(
        "---\napiVersion: pillion.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: {name}, namespace: demo}}\nspec:\n  \
         targetRefs:\n  - {{group: '', kind: Service, name: {target}}}\n"
    )
}

#[tokio::test]
async fn whoever_applies_what_has_no_effect_is_warned() {
    let server = Server::start().await;
    server.apply(service("web") + &policy("a", "web")).await;
    let warned = async |path: &str, text: String| -> Vec<Value> {
        let response = server.request(Method::POST, path).body(text).send().await.unwrap();
        let answer: Value = response.json().await.unwrap();
        answer["warnings"].as_array().unwrap_or_else(|| panic!("{answer}")).clone()
    };
    assert_eq!(warned("/v1/apply", policy("a", "web")).await, [Value::Null; 0]);
    for path in ["/v1/apply?dryRun=true", "/v1/apply"] {
        let warnings = warned(path, service("other") + &policy("b", "web")).await;
        assert_eq!(warnings.len(), 1, "{path}: {warnings:?}");
        let [document, field, index] = ["document", "field", "index"].map(|name| &warnings[0][name]);
        assert_eq!(
            (document, field, index),
            (&json!("TrafficPolicy demo/b"), &json!("spec.targetRefs[0]"), &json!(1))
        );
        let message = warnings[0]["message"].as_str().unwrap();
        assert!(
            message.starts_with("has no effect on Service demo/web: TrafficPolicy demo/a is for the same"),
            "{message}"
        );
    }
    // What holds of others by this change, too: the older one gets another service.
    let warnings = warned("/v1/apply", service("web2") + &policy("c", "web2")).await;
    assert_eq!(warnings, [Value::Null; 0]);
    let two = policy("a", "web") + "  - {group: '', kind: Service, name: web2}\n";
    let warnings = warned("/v1/apply?dryRun=true", two).await;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_eq!(
        (&warnings[0]["document"], &warnings[0]["index"]),
        (&json!("TrafficPolicy demo/c"), &Value::Null)
    );

    // Of one document by itself the answer is the document, so it is in a header; a dry run shows the status that it would have.
    let path = "/v1/namespaces/demo/trafficpolicies/d?dryRun=true";
    let one = json!({"spec": {"targetRefs": [{"group": "", "kind": "Service", "name": "web"}]}});
    let response = server.request(Method::PUT, path).json(&one).send().await.unwrap();
    let header = response.headers()["warning"].to_str().unwrap().to_owned();
    assert!(
        header.starts_with("299 pillion \"TrafficPolicy demo/d: spec.targetRefs[0]: has no effect on"),
        "{header}"
    );
    let shown: Value = response.json().await.unwrap();
    assert_eq!(shown["status"]["ancestors"][0]["conditions"][0]["reason"], "Conflicted");

    // What is left behind by force.
    server.apply(route("r", "web", "other")).await;
    let path = "/v1/namespaces/demo/services/other?force=true";
    let answer: Value = server.request(Method::DELETE, path).send().await.unwrap().json().await.unwrap();
    assert_eq!(answer["warnings"][0]["document"], "HTTPRoute demo/r", "{answer}");
}

#[tokio::test]
async fn a_dry_run_checks_and_changes_nothing() {
    let server = Server::start().await;
    let post = |text: String| server.request(Method::POST, "/v1/apply?dryRun=true").body(text).send();
    let answer: Value = post(service("web")).await.unwrap().json().await.unwrap();
    assert_eq!(outcomes(&answer), ["web created"]);
    assert_eq!(answer["dryRun"], true);
    assert_eq!(problem(post(route("r", "web", "web")).await.unwrap()).await.0, 422);
    assert_eq!(server.get("/v1/services").await["items"], json!([]));
    assert!(server.changes.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_dry_run_shows_what_would_be_stored_and_nothing_else_is_applied() {
    let server = Server::start().await;
    server.apply(service("web")).await;
    let post = async |query: &str, text: &str| {
        let request = server.request(Method::POST, &format!("/v1/apply?{query}"));
        request.body(text.to_owned()).send().await.unwrap()
    };
    let tried = async |text: &str| -> Value { post("dryRun=true", text).await.json().await.unwrap() };
    let diffs = |answer: &Value| -> Vec<Value> {
        answer["results"].as_array().unwrap().iter().map(|it| it["diff"].clone()).collect()
    };
    let seen = |answer: &Value| format!("seen={}", answer["seen"].as_str().unwrap());

    let to_81 = |text: String| text.replace("port: 80", "port: 81");
    let wanted = to_81(service("web") + &route("web", "web", "web")) + &service("new");
    let first = tried(&wanted).await;
    assert_eq!(outcomes(&first), ["web configured", "web created", "new created"]);
    let told = diffs(&first);
    let of_web: Vec<&str> =
        told[0].as_str().unwrap().lines().filter(|line| line.starts_with(['+', '-'])).collect();
    assert_eq!(of_web, ["-  - port: 80", "+  - port: 81"], "{told:#?}");
    let of_new = told[2].as_str().unwrap();
    assert!(of_new.contains("+  clusterIP: \"240.240."), "what the server adds is shown: {of_new}");
    assert!(!of_new.contains("uid") && !of_new.contains("generation"), "what it notes is not: {of_new}");
    assert_eq!(diffs(&tried(&service("web")).await), [""]);

    // Somebody else comes between, to either.
    let refused = async |seen: &str, said: &str| {
        let answer: Value = post(seen, &wanted).await.json().await.unwrap();
        assert_eq!(answer["type"], "urn:pillion:problem:conflict", "{answer}");
        assert!(answer["detail"].as_str().unwrap().contains(said), "{answer}");
        assert_eq!(server.get("/v1/httproutes").await["items"], json!([]), "nothing was half-applied");
    };
    server.apply(service("web").replace("app: web", "app: other")).await;
    refused(&seen(&first), "Service demo/web is at resourceVersion ").await;
    let second = tried(&wanted).await;
    server.apply(service("new")).await;
    refused(&seen(&second), "Service demo/new is at resourceVersion ").await;
    let third = tried(&wanted).await;
    let gone = server.request(Method::DELETE, "/v1/namespaces/demo/services/new").send().await.unwrap();
    assert_eq!(gone.status(), 200);
    refused(&seen(&third), "there is no HTTPRoute demo/web, Service demo/new, which").await;
    server.apply(service("new")).await;
    let others: Value = post(&seen(&tried(&wanted).await), &service("web")).await.json().await.unwrap();
    assert!(others["detail"].as_str().unwrap().contains("was of other documents"), "{others}");

    let applied: Value = post(&seen(&tried(&wanted).await), &wanted).await.json().await.unwrap();
    assert_eq!(outcomes(&applied), ["web configured", "web created", "new unchanged"]);
    assert_eq!(
        diffs(&applied),
        [Value::Null, Value::Null, Value::Null],
        "only a dry run shows what would be"
    );

    assert_eq!(applied["seen"], Value::Null);

    for wrong in ["", "1", "1-", "-1", "1-x", "1-2-3"] {
        let (status, _, faults) = problem(post(&format!("seen={wrong}"), &wanted).await).await;
        assert_eq!(status, 400, "{wrong:?}");
        assert_eq!(faults, ["seen: must be what a dry run has answered as `seen`"]);
    }
}

#[tokio::test]
async fn what_a_dry_run_has_seen_guards_deleting_too() {
    let server = Server::start().await;
    server.apply(service("web")).await;
    let path = "/v1/namespaces/demo/services/web";
    let delete = async |query: &str, tag: Option<&str>| {
        let request = server.request(Method::DELETE, &format!("{path}?{query}"));
        let request = tag.into_iter().fold(request, |request, tag| request.header("if-match", tag));
        request.send().await.unwrap()
    };
    let seen = async || -> String {
        let answer: Value = delete("dryRun=true", None).await.json().await.unwrap();
        format!("seen={}", answer["seen"].as_str().unwrap())
    };
    let first = seen().await;
    server.apply(service("web").replace("port: 80", "port: 81")).await;
    assert_eq!(problem(delete(&first, None).await).await.1, "conflict");
    let second = seen().await;
    let (status, _, faults) = problem(delete(&second, Some("*")).await).await;
    assert_eq!((status, faults.len()), (400, 1), "{faults:?}");
    assert_eq!(delete(&second, None).await.status(), 200);
    assert_eq!(problem(delete(&second, None).await).await.0, 404);
}

#[tokio::test]
async fn versions_guard_against_lost_updates() {
    let server = Server::start().await;
    let path = "/v1/namespaces/demo/services/web";
    let put =
        |port: u16| server.request(Method::PUT, path).json(&json!({"spec": {"ports": [{"port": port}]}}));

    let created = put(80).header("if-none-match", "*").send().await.unwrap();
    assert_eq!(created.status(), 201);
    let first = created.headers()["etag"].to_str().unwrap().to_owned();
    assert_eq!(problem(put(80).header("if-none-match", "*").send().await.unwrap()).await.1, "conflict");

    let replaced = put(81).header("if-match", &first).send().await.unwrap();
    assert_eq!(replaced.status(), 200);
    let second = replaced.headers()["etag"].to_str().unwrap().to_owned();
    assert_ne!(first, second);
    let (status, reason, _) = problem(put(82).header("if-match", &first).send().await.unwrap()).await;
    assert_eq!((status, reason.as_str()), (409, "conflict"));
    // Kubernetes' way of saying the same: the version in the document.
    let stale =
        json!({"metadata": {"resourceVersion": first.trim_matches('"')}, "spec": {"ports": [{"port": 82}]}});
    let response = server.request(Method::PUT, path).json(&stale).send().await.unwrap();
    assert_eq!(problem(response).await.0, 409);
    assert_eq!(server.get(path).await["spec"]["ports"][0]["port"], 81);

    let delete = |tag: &str| server.request(Method::DELETE, path).header("if-match", tag).send();
    assert_eq!(problem(delete(&first).await.unwrap()).await.0, 409);
    assert_eq!(delete(&second).await.unwrap().status(), 200);
    let (status, reason, _) = problem(server.anonymous(Method::GET, path).send().await.unwrap()).await;
    assert_eq!((status, reason.as_str()), (404, "not-found"));
}

#[tokio::test]
async fn of_concurrent_changes_to_one_version_one_wins() {
    let server = Server::start().await;
    server.apply(service("web")).await;
    let path = "/v1/namespaces/demo/services/web";
    let response = server.anonymous(Method::GET, path).send().await.unwrap();
    let tag = response.headers()["etag"].to_str().unwrap().to_owned();
    let attempts = (1..=8).map(|port| {
        let body = json!({"spec": {"ports": [{"port": port}]}});
        server.request(Method::PUT, path).header("if-match", &tag).json(&body).send()
    });
    let statuses: Vec<u16> = futures_util::future::join_all(attempts)
        .await
        .into_iter()
        .map(|it| it.unwrap().status().as_u16())
        .collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 409).count(), 7, "{statuses:?}");
}

#[tokio::test]
async fn a_service_in_use_is_deleted_only_by_force() {
    let server = Server::start().await;
    server.apply(service("web") + &service("v1") + &route("split", "web", "v1")).await;
    let path = "/v1/namespaces/demo/services/v1";
    let response = server.request(Method::DELETE, path).send().await.unwrap();
    assert_eq!(response.status(), 409);
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["type"], "urn:pillion:problem:in-use");
    assert!(body["detail"].as_str().unwrap().contains("named by HTTPRoute demo/split"), "{body}");

    let forced = server.request(Method::DELETE, &format!("{path}?force=true")).send().await.unwrap();
    assert_eq!(forced.status(), 200);
    let route = server.get("/v1/namespaces/demo/httproutes/split").await;
    let resolved = &route["status"]["parents"][0]["conditions"][1];
    assert_eq!((&resolved["status"], &resolved["reason"]), (&json!("False"), &json!("BackendNotFound")));
}

#[tokio::test]
async fn tokens_are_made_used_listed_and_revoked() {
    let server = Server::start().await;
    let body = json!({"kind": "api", "role": "operator", "namespace": "demo"});
    let created = server.request(Method::POST, "/v1/tokens").json(&body).send().await.unwrap();
    assert_eq!(created.status(), 201);
    let created: Value = created.json().await.unwrap();
    let token = created["token"].as_str().unwrap();

    let apply =
        |text: String| server.anonymous(Method::POST, "/v1/apply").bearer_auth(token).body(text).send();
    assert_eq!(apply(service("web")).await.unwrap().status(), 200);
    let elsewhere = service("web").replace("namespace: demo", "namespace: shop");
    assert_eq!(problem(apply(elsewhere).await.unwrap()).await.1, "token-lacks-namespace");
    // Nor does a fault beside it make the answer tell what is there.
    let probe = route("r", "web", "web").replace("namespace: demo", "namespace: shop") + "---\nkind: Pod\n";
    assert_eq!(problem(apply(probe).await.unwrap()).await.1, "token-lacks-namespace");
    let response = server.anonymous(Method::GET, "/v1/tokens").bearer_auth(token).send().await.unwrap();
    assert_eq!(problem(response).await.1, "token-lacks-role");

    let list: Value = server.request(Method::GET, "/v1/tokens").send().await.unwrap().json().await.unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
    assert!(!list.to_string().contains(token.rsplit('.').next().unwrap()), "no secret is listed");
    let id = created["id"].as_str().unwrap();
    let revoked = server.request(Method::DELETE, &format!("/v1/tokens/{id}")).send().await.unwrap();
    assert_eq!(revoked.status(), 200);
    assert_eq!(problem(apply(service("web")).await.unwrap()).await.1, "token-revoked");

    let join = json!({"kind": "join", "namespace": "demo", "serviceAccount": "web", "ttl": "10m"});
    let join: Value =
        server.request(Method::POST, "/v1/tokens").json(&join).send().await.unwrap().json().await.unwrap();
    assert!(join["token"].as_str().unwrap().ends_with(&"ab".repeat(32)));
    assert_eq!(join["expiresMs"].as_u64().unwrap() - join["createdMs"].as_u64().unwrap(), 600_000);
    let wrong = json!({"kind": "join", "namespace": "De mo", "role": "admin", "ttl": "soon"});
    let response = server.request(Method::POST, "/v1/tokens").json(&wrong).send().await.unwrap();
    let fields: Vec<String> =
        problem(response).await.2.iter().map(|it| it.split(':').next().unwrap().into()).collect();
    assert_eq!(fields, ["namespace", "ttl", "role", "serviceAccount"]);
    let reserved = json!({"kind": "join", "namespace": "pillion-system", "serviceAccount": "control-plane"});
    let response = server.request(Method::POST, "/v1/tokens").json(&reserved).send().await.unwrap();
    assert_eq!(problem(response).await.2, ["serviceAccount: is the control plane's own in this namespace"]);
}
