//! What sidecars learn of destinations and of the whole mesh, over their streams.

use pillion_api::{
    model::{InboundMode, MeshSettings, OutboundMode, Service},
    wire::{
        Resolve, Resolved, ServiceConfig, Welcome, control_message, resolve::Destination, sidecar_message,
        update::Kind,
    },
};
use prost::Message as _;
use serde_json::json;
use tokio::time::timeout;
use tonic::Code;

use crate::support::{PATIENCE, Sidecar, TestServer, eventually, hello, settings};

async fn ask(sidecar: &mut Sidecar, destination: Destination) -> Resolved {
    let question = Resolve { destination: Some(destination) };
    sidecar.say(sidecar_message::Message::Resolve(question.clone())).await;
    match sidecar.hear().await {
        Ok(control_message::Message::Resolved(resolved)) => {
            assert_eq!(resolved.question, Some(question));
            resolved
        }
        other => panic!("expected an answer, not {other:?}"),
    }
}

fn host(name: &str) -> Destination {
    Destination::Host(name.to_owned())
}

fn address(address: &str) -> Destination {
    Destination::Address(address.to_owned())
}

/// Asks until the answer is of this service: what is written to the store is compiled a moment later.
async fn ask_until(sidecar: &mut Sidecar, destination: Destination, service: &str) -> Resolved {
    let answered = async {
        loop {
            let resolved = ask(sidecar, destination.clone()).await;
            if resolved.service == service {
                return resolved;
            }
        }
    };
    timeout(PATIENCE, answered).await.expect("the answer comes in time")
}

#[tokio::test]
async fn questions_about_services_workloads_and_hosts_are_answered() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = TestServer::start(folder.path()).await;
    let payments = json!({
        "ports": [{"port": 80, "targetPort": 8080}], "selector": {"app": "payments"}, "clusterIP": "240.240.0.7",
    });
    server.apply("Service", "payments", payments).await;
    let api = json!({"host": "api.example.com", "ports": [{"port": 443}], "clusterIP": "240.240.0.8"});
    server.apply("ExternalService", "api", api).await;
    let token = server.join_token("payments").await;
    let identity = server.certify(folder.path(), &token).await.expect("a certificate");
    let there = pillion_api::wire::Hello {
        inbound_address: "10.1.0.7:15006".to_owned(),
        ..hello("payments", "payments-1")
    };
    let _payments = server.sidecar_as(&identity, there).await;
    let mut web = server.sidecar(folder.path(), "web", "web-1").await;

    let found = ask_until(&mut web, address("240.240.0.7:80"), "payments.demo").await;
    assert_eq!((found.port, found.uid.as_str()), (80, ""));
    let found = ask_until(&mut web, address("10.1.0.7:8080"), "payments.demo").await;
    assert_eq!((found.port, found.uid.as_str()), (80, "payments-1"));
    let found = ask(&mut web, host("payments")).await;
    assert_eq!((found.service.as_str(), found.virtual_address.as_str()), ("payments.demo", "240.240.0.7"));
    let found = ask_until(&mut web, host("api.example.com"), "api.demo").await;
    assert_eq!((found.virtual_address.as_str(), found.port), ("240.240.0.8", 0));
    for unknown in
        [address("10.1.0.7:9"), address("127.0.0.1:8080"), host("payments.shop"), host("example.com")]
    {
        assert_eq!(ask(&mut web, unknown.clone()).await.service, "", "{unknown:?}");
    }

    // What answers lead to says the same of itself.
    web.subscribe("api.demo").await;
    let config = web.update_where(Kind::Config, |_| true).await;
    let config = ServiceConfig::decode(config.payload).expect("a configuration");
    let service = Service::try_from(config).expect("one that sidecars take");
    assert_eq!(service.external.as_deref(), Some("api.example.com"));
    assert_eq!(service.virtual_address, Some("240.240.0.8".parse().expect("an address")));

    let metrics = reqwest::get(format!("{}/metrics", server.http)).await.expect("an answer");
    let metrics = metrics.text().await.expect("a body");
    let count = |answer: &str| -> u64 {
        let line = format!("pillion_server_questions_total{{answer=\"{answer}\"}} ");
        metrics
            .lines()
            .find_map(|it| it.strip_prefix(&line))
            .expect("it is counted")
            .parse()
            .expect("a number")
    };
    assert!(count("resolved") >= 4 && count("unknown") >= 4, "{metrics}");
    server.stop().await;
}

#[tokio::test]
async fn what_holds_for_the_mesh_comes_with_the_welcome_and_whenever_it_changes() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = TestServer::start(folder.path()).await;
    let token = server.join_token("web").await;
    let identity = server.certify(folder.path(), &token).await.expect("a certificate");
    let mut web = server.stream(&identity).await;
    web.say(sidecar_message::Message::Hello(hello("web", "web-1"))).await;
    let told =
        |welcome: Welcome| MeshSettings::try_from(welcome.settings.expect("settings")).expect("understood");
    let first = told(web.welcome().await);
    assert_eq!((first.outbound, first.inbound), (OutboundMode::AllowAny, InboundMode::Permissive));
    assert!(first.is_virtual("240.240.3.4".parse().expect("an address")));

    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let admin = std::fs::read_to_string(folder.path().join("admin.token")).expect("the first token");
    let url = format!("{}/v1/namespaces/pillion-system/meshconfigs/mesh", server.http);
    let body =
        json!({"spec": {"outbound": "registryOnly", "inbound": "strict", "serviceCidr": "10.7.0.0/16"}});
    let put = client.put(&url).bearer_auth(admin.trim()).json(&body).send().await.expect("an answer");
    assert_eq!(put.status(), 201);
    let second = told(web.welcome().await);
    assert_eq!((second.outbound, second.inbound), (OutboundMode::RegistryOnly, InboundMode::Strict));
    assert!(!second.is_virtual("240.240.3.4".parse().expect("an address")));
    // As before, without the document.
    let gone = client.delete(&url).bearer_auth(admin.trim()).send().await.expect("an answer");
    assert_eq!(gone.status(), 200);
    assert_eq!(told(web.welcome().await), first);
    server.stop().await;
}

#[tokio::test]
async fn a_question_beyond_all_bounds_ends_the_stream() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = TestServer::start(folder.path()).await;
    let cases = [
        (host(&"a".repeat(513)), "Resolve.host must have at most 512 bytes, has 513"),
        (address("payments:80"), "Resolve.address: invalid socket address syntax: payments:80"),
    ];
    for (question, words) in cases {
        let mut web = server.sidecar(folder.path(), "web", "web-1").await;
        web.say(sidecar_message::Message::Resolve(Resolve { destination: Some(question) })).await;
        let status = web.end().await;
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, words));
    }
    server.stop().await;
}

#[tokio::test]
async fn a_sidecar_that_asks_and_does_not_read_is_given_up_and_others_are_answered() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = TestServer::start(folder.path()).await;
    let greedy = server.sidecar(folder.path(), "web", "web-1").await;
    let mut other = server.sidecar(folder.path(), "web", "web-2").await;
    let question = Resolve { destination: Some(host(&"a".repeat(500))) };
    let mut answered = 0;
    tokio::select! {
        () = greedy.pour(sidecar_message::Message::Resolve(question)) => {}
        () = async {
            loop {
                ask(&mut other, host("web")).await;
                answered += 1;
            }
        } => unreachable!("it goes on for ever"),
        () = eventually("the greedy one is given up", async || {
            server.json("/v1/mesh/control-plane").await["connected"] == 1
        }) => {}
    }
    assert!(answered > 0);
    assert_eq!(ask(&mut other, host("web")).await.service, "", "it is still answered");
    server.stop().await;
}

#[tokio::test]
async fn services_of_an_earlier_release_get_an_address_at_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = TestServer::start(folder.path()).await;
    let old = json!({"ports": [{"port": 80}], "selector": {"app": "payments"}});
    server.apply("Service", "payments", old).await;
    server.stop().await;

    let server = TestServer::start_with(settings(folder.path())).await;
    let mut web = server.sidecar(folder.path(), "web", "web-1").await;
    let found = ask(&mut web, host("payments.demo.mesh")).await;
    assert!(found.virtual_address.starts_with("240.240."), "{found:?}");
    let port = format!("{}:80", found.virtual_address);
    assert_eq!(ask(&mut web, address(&port)).await.service, "payments.demo");
    server.stop().await;
}
