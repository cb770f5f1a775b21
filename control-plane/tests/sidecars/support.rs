//! A server in this process, and sidecars that speak to it over real TLS on loopback.

use std::{path::Path, sync::Arc, time::Duration, time::SystemTime};

use hyper_util::rt::TokioIo;
use pillion::{
    app::{Server, open_store},
    config::{ServerArgs, ServerConfig},
    error::Error,
    store::{Bucket, Change, Expect, Store},
    token::{JoinGrant, Tokens},
};
use pillion_api::wire::{
    Acknowledge, CertifyRequest, CertifyResponse, ControlMessage, Health, HeartbeatReply, Hello,
    SidecarMessage, Subscribe, Update, Welcome, WorkloadPort, control_message,
    control_plane_client::ControlPlaneClient, sidecar_message, update::Kind,
};
use pillion_certs::{Fingerprint, Identity, Issued, PrivateKey, RootPin, SpiffeId, bootstrap_client_config};
use tokio::{net::TcpStream, sync::mpsc, sync::oneshot, task::JoinHandle, time::timeout};
use tokio_rustls::{TlsConnector, rustls, rustls::pki_types::ServerName};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};

/// Everything here happens within milliseconds; a busy machine is forgiven much.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A running server.
pub(crate) struct TestServer {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) grpc: std::net::SocketAddr,
    pub(crate) http: String,
    shutdown: oneshot::Sender<()>,
    running: JoinHandle<Result<(), Error>>,
}

/// Settings for a test: free ports, short times.
pub(crate) fn settings(folder: &Path) -> ServerArgs {
    ServerArgs {
        data_dir: Some(folder.to_str().expect("a plain path").to_owned()),
        grpc_listen: Some("127.0.0.1:0".to_owned()),
        http_listen: Some("127.0.0.1:0".to_owned()),
        lease: Some("1s".to_owned()),
        heartbeat: Some("300ms".to_owned()),
        ..ServerArgs::default()
    }
}

impl TestServer {
    pub(crate) async fn start(folder: &Path) -> Self {
        Self::start_with(settings(folder)).await
    }

    pub(crate) async fn start_with(settings: ServerArgs) -> Self {
        let config = settings.check(None).expect("the settings are right");
        let store = open_store(&config.data_dir).await.expect("the store opens");
        Self::start_over(config, store).await
    }

    /// With another store than its own.
    pub(crate) async fn start_over(config: ServerConfig, store: Arc<dyn Store>) -> Self {
        let server = Server::bind(config, Arc::clone(&store)).await.expect("the server starts");
        let (grpc, http) = (server.grpc_address(), format!("http://{}", server.http_address()));
        let (shutdown, requested) = oneshot::channel::<()>();
        let running = tokio::spawn(server.run(async move { drop(requested.await) }));
        Self { store, grpc, http, shutdown, running }
    }

    /// As on SIGTERM.
    pub(crate) async fn stop(self) {
        drop(self.shutdown);
        let ended = timeout(Duration::from_secs(5), self.running).await;
        ended.expect("it ends within five seconds").expect("it does not panic").expect("it ends well");
    }

    /// As by a crash: nothing is told, nothing written any more.
    pub(crate) async fn crash(self) {
        self.running.abort();
        let _ = self.running.await;
    }

    pub(crate) async fn apply(&self, kind: &str, name: &str, spec: serde_json::Value) {
        let document = serde_json::json!({
            "kind": kind, "metadata": {"name": name, "namespace": "demo"}, "spec": spec,
        });
        let value = Some(serde_json::to_vec(&document).expect("it is JSON"));
        self.change(kind, name, value).await;
    }

    pub(crate) async fn delete(&self, kind: &str, name: &str) {
        self.change(kind, name, None).await;
    }

    async fn change(&self, kind: &str, name: &str, value: Option<Vec<u8>>) {
        let key = format!("{kind}/demo/{name}");
        let change = Change { bucket: Bucket::Documents, key, value, expect: Expect::Any };
        self.store.commit(vec![change]).await.expect("stored");
    }

    /// A service over the label `app=<name>`. It has no virtual address, so that a restart need not give it one.
    pub(crate) async fn apply_service(&self, name: &str) {
        let spec = serde_json::json!({
            "ports": [{"port": 80, "targetPort": 8080}], "selector": {"app": name}, "clusterIP": "None",
        });
        self.apply("Service", name, spec).await;
    }

    pub(crate) async fn join_token(&self, service_account: &str) -> String {
        let grant = JoinGrant { namespace: "demo".to_owned(), service_account: service_account.to_owned() };
        let created = Tokens::new(Arc::clone(&self.store))
            .create_join(grant, Duration::from_secs(60), &"00".repeat(32), SystemTime::now())
            .await;
        created.expect("a token").token
    }

    pub(crate) async fn json(&self, path: &str) -> serde_json::Value {
        let answer = reqwest::get(format!("{}{path}", self.http)).await.expect("an answer");
        let text = answer.text().await.expect("a body");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
    }

    /// The root of the mesh, from the first connection without knowing it.
    fn root_pin(&self, folder: &Path) -> RootPin {
        let pem = std::fs::read_to_string(folder.join("trust-anchors.pem")).expect("trust anchors");
        let domain = "mesh.local".parse().expect("a trust domain");
        RootPin::Bundle(pillion_certs::TrustBundle::from_pem(domain, &pem).expect("a bundle"))
    }

    /// Proves itself by a token, as a new workload does.
    pub(crate) async fn certify(&self, folder: &Path, token: &str) -> Result<Identity, Status> {
        let config = bootstrap_client_config(self.root_pin(folder), &[b"h2"]);
        let client = self.client(config).await.map_err(|error| Status::unavailable(error.to_string()))?;
        request_certificate(client, token).await
    }

    pub(crate) async fn client(
        &self,
        config: Arc<rustls::ClientConfig>,
    ) -> Result<ControlPlaneClient<Channel>, tonic::transport::Error> {
        let address = self.grpc;
        let connector = tower::service_fn(move |_| {
            let connector = TlsConnector::from(Arc::clone(&config));
            async move {
                let socket = TcpStream::connect(address).await?;
                let name = ServerName::from(address.ip());
                Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, socket).await?))
            }
        });
        // Small, so that a test that does not read is soon felt by the server.
        let channel = Endpoint::from_static("http://control-plane")
            .initial_stream_window_size(64 * 1024)
            .initial_connection_window_size(64 * 1024)
            .connect_with_connector(connector)
            .await?;
        Ok(ControlPlaneClient::new(channel))
    }

    pub(crate) async fn client_as(&self, identity: &Identity) -> ControlPlaneClient<Channel> {
        let control_plane = SpiffeId::control_plane(identity.spiffe_id().trust_domain());
        let config = identity.client_config(&control_plane, &[b"h2"]);
        self.client(config).await.expect("a connection")
    }

    /// A workload of `app=<app>` with its stream open and welcomed.
    pub(crate) async fn sidecar(&self, folder: &Path, app: &str, uid: &str) -> Sidecar {
        let token = self.join_token(app).await;
        let identity = self.certify(folder, &token).await.expect("a certificate");
        self.sidecar_as(&identity, hello(app, uid)).await
    }

    pub(crate) async fn sidecar_as(&self, identity: &Identity, hello: Hello) -> Sidecar {
        let mut sidecar = self.stream(identity).await;
        sidecar.say(sidecar_message::Message::Hello(hello)).await;
        sidecar.welcome().await;
        sidecar
    }

    /// A stream on which nothing is said yet.
    pub(crate) async fn stream(&self, identity: &Identity) -> Sidecar {
        let mut client = self.client_as(identity).await;
        let (say, said) = mpsc::channel(64);
        let heard = client.sync(ReceiverStream::new(said)).await.expect("a stream").into_inner();
        Sidecar { identity: identity.clone(), say, heard, answers_heartbeats: true }
    }
}

/// Asks for a certificate with a new key, and takes the answer apart as a sidecar does.
pub(crate) async fn request_certificate(
    mut client: ControlPlaneClient<Channel>,
    token: &str,
) -> Result<Identity, Status> {
    let key = PrivateKey::generate().expect("a key");
    let csr_der = key.csr_der().expect("a request");
    let CertifyResponse { chain_der, trust_anchors_der, .. } =
        client.certify(CertifyRequest { csr_der, join_token: token.to_owned() }).await?.into_inner();
    let (credential, bundle) =
        Issued { chain_der, trust_anchors_der }.into_material(key).expect("what was issued verifies");
    Ok(Identity::new(credential, bundle))
}

pub(crate) fn hello(app: &str, uid: &str) -> Hello {
    Hello {
        instance_uid: uid.to_owned(),
        workload: uid.to_owned(),
        labels: [("app".to_owned(), app.to_owned())].into(),
        ports: vec![WorkloadPort { port: 8080, name: "http".to_owned() }],
        inbound_address: "0.0.0.0:15006".to_owned(),
        version: "0.1.0".to_owned(),
        health: Some(Health { ready: true, ..Default::default() }),
        ..Default::default()
    }
}

/// A sidecar's end of a stream.
pub(crate) struct Sidecar {
    pub(crate) identity: Identity,
    say: mpsc::Sender<SidecarMessage>,
    heard: Streaming<ControlMessage>,
    /// As a live sidecar does; heartbeats are then not given to the test.
    pub(crate) answers_heartbeats: bool,
}

impl Sidecar {
    pub(crate) async fn say(&self, message: sidecar_message::Message) {
        self.say.send(SidecarMessage { message: Some(message) }).await.expect("the stream is open");
    }

    /// Says the same again and again, and reads nothing, until the stream is over.
    pub(crate) async fn pour(&self, message: sidecar_message::Message) {
        let message = SidecarMessage { message: Some(message) };
        while self.say.send(message.clone()).await.is_ok() {}
    }

    /// The next message; heartbeats meanwhile do not prolong the wait.
    pub(crate) async fn hear(&mut self) -> Result<control_message::Message, Status> {
        timeout(PATIENCE, self.next()).await.expect("something is said in time")
    }

    async fn next(&mut self) -> Result<control_message::Message, Status> {
        loop {
            let message = match self.heard.message().await? {
                Some(heard) => heard.message.expect("a message of this release"),
                None => return Err(Status::ok("the stream ended")),
            };
            match message {
                control_message::Message::Heartbeat(heartbeat) if self.answers_heartbeats => {
                    let sequence = heartbeat.sequence;
                    self.say(sidecar_message::Message::HeartbeatReply(HeartbeatReply { sequence })).await;
                }
                message => return Ok(message),
            }
        }
    }

    pub(crate) async fn welcome(&mut self) -> Welcome {
        match self.hear().await {
            Ok(control_message::Message::Welcome(welcome)) => welcome,
            other => panic!("expected a welcome, not {other:?}"),
        }
    }

    pub(crate) async fn update(&mut self) -> Update {
        match self.hear().await {
            Ok(control_message::Message::Update(update)) => update,
            other => panic!("expected an update, not {other:?}"),
        }
    }

    /// Waits for an update of some kind that satisfies the test; others are passed over.
    pub(crate) async fn update_where(&mut self, kind: Kind, fits: impl Fn(&Update) -> bool) -> Update {
        let found = async {
            loop {
                let update = self.update().await;
                if update.kind() == kind && fits(&update) {
                    return update;
                }
            }
        };
        timeout(PATIENCE, found).await.expect("the update comes in time")
    }

    pub(crate) async fn subscribe(&self, service: &str) {
        let service = service.to_owned();
        self.say(sidecar_message::Message::Subscribe(Subscribe { service, ..Subscribe::default() })).await;
    }

    pub(crate) async fn acknowledge(&self, update: &Update, refusal: &str) {
        let acknowledge = Acknowledge {
            service: update.service.clone(),
            kind: update.kind,
            version: update.version.clone(),
            refusal: refusal.to_owned(),
        };
        self.say(sidecar_message::Message::Acknowledge(acknowledge)).await;
    }

    /// How the stream ends.
    pub(crate) async fn end(&mut self) -> Status {
        loop {
            if let Err(status) = self.hear().await {
                return status;
            }
        }
    }
}

/// Asks again and again until the answer is as expected.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, check: impl Fn() -> F) {
    let holds = async {
        let mut again = tokio::time::interval(Duration::from_millis(20));
        loop {
            again.tick().await;
            if check().await {
                return;
            }
        }
    };
    timeout(PATIENCE, holds).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

/// The pin of a root, as a join token carries it.
pub(crate) fn pin_of(identity: &Identity) -> RootPin {
    let bundle = identity.bundle();
    let root = bundle.fingerprints().next().expect("a root");
    RootPin::Fingerprint(root.to_string().parse::<Fingerprint>().expect("a fingerprint"))
}
