//! The one stream to the control plane: tells who we are and how we do, hears of services, and comes back whenever
//! it is lost. Workers go on with what they have meanwhile.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use pillion_api::{
    model::MeshSettings,
    name::ServiceName,
    wire::{
        Acknowledge, ControlMessage, Deregister, Health, HeartbeatReply, Hello, SidecarMessage, Subscribe,
        TrustAnchors, Unsubscribe, Welcome, control_message, sidecar_message::Message, update::Kind,
    },
};
use pillion_certs::{Identity, RenewalStatus, SpiffeId, TrustBundle};
use rand::Rng;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{
    Mesh,
    addresses::Addresses,
    certify::{note_clock, show_skew},
    channel::{self, ALPN, Client},
    directory::Wish,
    holdings::Holdings,
    own::OwnPolicies,
};
use crate::{
    drain::{Drain, Phase},
    net::resolve::Resolver,
    telemetry::{gather::Gathered, names::Metric, prometheus::Registry, report::CertificateStatus},
};

/// Messages that may wait to be sent: more than all subscriptions together, which are sent anew after a loss. A
/// control plane that takes none for so long is not there.
const QUEUE: usize = 8192;
/// For the answers that open a stream.
const OPENING: Duration = Duration::from_secs(5);
/// Between tellings of what was measured.
const TELEMETRY: Duration = Duration::from_secs(1);
/// The first wait before connecting again, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// A stream that lasted so long was a good one: the next wait is short again.
const GOOD: Duration = Duration::from_secs(5);

/// Everything that the stream needs.
#[derive(Debug)]
pub struct Stream {
    /// The control plane's `host:port`.
    pub address: String,
    /// How its name is looked up.
    pub resolver: Resolver,
    /// Who we are.
    pub identity: Identity,
    /// How we introduce ourselves; health is filled in.
    pub hello: Hello,
    /// Where it counts.
    pub registry: Arc<Registry>,
    /// The application's.
    pub health: watch::Receiver<Health>,
    /// When it begins, we deregister.
    pub drain: Drain,
    /// Workers' wishes.
    pub wishes: mpsc::Receiver<Wish>,
    /// What was measured and not told yet.
    pub gathered: Rc<RefCell<Gathered>>,
    /// Our certificate's renewals.
    pub renewals: watch::Receiver<RenewalStatus>,
    /// Where workers see who we are.
    pub mesh: watch::Sender<Option<Mesh>>,
    /// Where workers see what holds for their own ports.
    pub policies: watch::Sender<OwnPolicies>,
    /// What workers have wished for already.
    pub known: Known,
}

/// What is known of services and destinations, and what workers wait for.
#[derive(Debug)]
pub struct Known {
    holdings: Holdings,
    addresses: Addresses,
}

impl Known {
    /// Nothing yet.
    pub fn new(now: Instant) -> Self {
        Self { holdings: Holdings::default(), addresses: Addresses::new(now) }
    }

    /// Gives what there is to ask the control plane; what is asked while it is not there, is when it is.
    pub fn grant(&mut self, wish: Wish, now: Instant) -> Option<Message> {
        match wish {
            Wish::Follow(wish) => {
                let (seen, subscribe) = self.holdings.follow(&wish.service);
                // A worker that no longer waits asks again when it needs to.
                let _ = wish.reply.send(seen);
                subscribe.map(Message::Subscribe)
            }
            Wish::Resolve(ask) => self.addresses.ask(ask, now).map(Message::Resolve),
        }
    }
}

struct State {
    stream: Stream,
    heard: Instant,
}

impl Stream {
    /// Runs for ever.
    pub async fn run(self) {
        let mut state = State { stream: self, heard: Instant::now() };
        let mut wait = BACKOFF.0;
        loop {
            let began = Instant::now();
            let ended = match state.connect().await {
                Ok(client) => {
                    state.connects("ok");
                    let ended = state.session(client).await;
                    state.stream.known.addresses.lost(Instant::now());
                    state.stream.registry.gauge(Metric::ControlPlaneConnected, &[]).set(0);
                    ended
                }
                Err(error) => {
                    state.connects("failed");
                    Err(error)
                }
            };
            if began.elapsed() > GOOD {
                wait = BACKOFF.0;
            }
            // From nothing to twice, so that a thousand sidecars do not come back at the same moment.
            let jittered = wait.mul_f64(rand::rng().random_range(0.0..2.0));
            let why = ended.err().unwrap_or_else(|| "the stream was closed".into());
            tracing::warn!(why, retry_in = ?jittered, "no stream to the control plane; going on with what is known");
            state.meanwhile(tokio::time::sleep(jittered)).await;
            wait = (wait * 2).min(BACKOFF.1);
        }
    }
}

impl State {
    fn connects(&self, result: &str) {
        self.stream.registry.counter(Metric::ControlPlaneConnects, &[result]).increment(1);
    }

    /// Waits for something without leaving workers' wishes unanswered.
    async fn meanwhile<F: Future>(&mut self, waited: F) -> F::Output {
        let mut waited = std::pin::pin!(waited);
        let mut tick = tokio::time::interval(TELEMETRY);
        loop {
            tokio::select! {
                done = &mut waited => return done,
                Some(wish) = self.stream.wishes.recv() => drop(self.grant(wish)),
                _ = tick.tick() => {
                    self.stale();
                    self.stream.registry.gauge(Metric::ControlPlaneConnected, &[]).set(0);
                }
            }
        }
    }

    async fn connect(&mut self) -> Result<Client, String> {
        let control_plane = SpiffeId::control_plane(self.stream.identity.spiffe_id().trust_domain());
        let config = self.stream.identity.client_config(&control_plane, &[ALPN]);
        let (address, resolver) = (self.stream.address.clone(), self.stream.resolver.clone());
        self.meanwhile(async move { channel::connect(&address, &resolver, config).await }).await
    }

    fn grant(&mut self, wish: Wish) -> Option<Message> {
        self.stream.known.grant(wish, Instant::now())
    }

    /// Shows what holds at this moment.
    fn stale(&self) {
        self.stream.registry.gauge(Metric::Subscriptions, &[]).set(self.stream.known.holdings.len() as f64);
        let stale = self.heard.elapsed().as_secs_f64();
        self.stream.registry.gauge(Metric::ControlPlaneStale, &[]).set(stale);
    }

    /// One stream, from its opening to its end.
    async fn session(&mut self, mut client: Client) -> Result<(), String> {
        let (out, queue) = mpsc::channel(QUEUE);
        let send = |message: Message| {
            out.try_send(SidecarMessage { message: Some(message) })
                .map_err(|_| "the control plane does not take our messages".to_owned())
        };
        let mut health = self.stream.health.borrow_and_update().clone();
        if self.stream.drain.phase() > Phase::Running {
            health = Health { ready: false, reason: "shutting down".into(), ..health };
        }
        send(Message::Hello(Hello { health: Some(health), ..self.stream.hello.clone() }))?;
        let opening = async {
            let mut incoming = client.sync(ReceiverStream::new(queue)).await?.into_inner();
            let first = incoming.message().await?;
            Ok::<_, tonic::Status>((incoming, first))
        };
        let opened = self.meanwhile(tokio::time::timeout(OPENING, opening)).await;
        let (mut incoming, first) = opened
            .map_err(|_| format!("the stream was not opened within {OPENING:?}"))?
            .map_err(|status| refusal(&status))?;
        let Some(control_message::Message::Welcome(welcome)) = first.and_then(|first| first.message) else {
            return Err("the control plane did not begin with a welcome".into());
        };
        self.heard = Instant::now();
        let silence = Duration::from_millis(welcome.heartbeat_interval_ms.max(100).into()) * 3;
        self.welcome(welcome)?;
        // Services that are new to us are among these.
        for subscribe in self.stream.known.holdings.subscriptions() {
            // More than a queue of them is normal here, so this waits for room.
            let subscribe = SidecarMessage { message: Some(Message::Subscribe(subscribe)) };
            let sent = tokio::time::timeout(OPENING, out.send(subscribe)).await;
            sent.map_err(|_| "the control plane does not take our messages")?
                .map_err(|error| error.to_string())?;
        }
        for resolve in self.stream.known.addresses.connected(Instant::now()) {
            send(Message::Resolve(resolve))?;
        }
        tracing::info!(address = self.stream.address, "connected to the control plane");
        let mut tick = tokio::time::interval(TELEMETRY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut leaving = self.stream.drain.clone();
        let mut deregistered = false;
        loop {
            tokio::select! {
                message = next(&mut incoming) => {
                    let Some(message) = message? else { return Ok(()) };
                    self.heard = Instant::now();
                    for answer in self.take(message) {
                        send(answer)?;
                    }
                }
                Some(wish) = self.stream.wishes.recv() => {
                    if let Some(question) = self.grant(wish) {
                        send(question)?;
                    }
                }
                Ok(()) = self.stream.health.changed() => {
                    send(Message::Health(self.stream.health.borrow_and_update().clone()))?;
                }
                () = leaving.reached(Phase::Leaving), if !deregistered => {
                    deregistered = true;
                    send(Message::Deregister(Deregister {}))?;
                }
                _ = tick.tick() => {
                    self.stale();
                    self.stream.registry.gauge(Metric::ControlPlaneConnected, &[]).set(1);
                    if self.heard.elapsed() > silence {
                        return Err(format!("nothing heard for {silence:?}"));
                    }
                    for service in self.stream.known.holdings.sweep() {
                        send(Message::Unsubscribe(Unsubscribe { service: service.to_string() }))?;
                    }
                    send(Message::Telemetry(self.telemetry()))?;
                }
            }
        }
    }

    fn telemetry(&self) -> pillion_api::wire::Telemetry {
        let since_epoch = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let (not_before, not_after) = self.stream.identity.validity();
        let certificate = CertificateStatus {
            not_before: since_epoch(not_before).as_secs() as i64,
            not_after: since_epoch(not_after).as_secs() as i64,
            renewed: self.stream.renewals.borrow().renewed,
        };
        let clock = since_epoch(SystemTime::now());
        self.stream.gathered.borrow_mut().take(certificate, clock.as_millis() as i64)
    }

    /// Takes in who we are; gives what there is to ask for in turn.
    fn welcome(&mut self, welcome: Welcome) -> Result<Vec<Subscribe>, String> {
        note_clock(welcome.server_time_ms, &self.stream.registry);
        if let Some(anchors) = welcome.trust_anchors {
            self.trust(anchors)?;
        }
        let services: Result<Vec<ServiceName>, _> =
            welcome.services.iter().map(|service| service.parse()).collect();
        let services = services.map_err(|error| format!("a service of ours: {error}"))?;
        let source: Arc<str> = welcome.source.into();
        let settings = welcome.settings.map_or(Ok(MeshSettings::UNTOLD), MeshSettings::try_from);
        let settings = settings.map_err(|refused| format!("the mesh's settings: {refused}"))?;
        self.stream.mesh.send_if_modified(|mesh| {
            let changed = mesh.as_ref().is_none_or(|mesh| mesh.source != source || mesh.settings != settings);
            if changed {
                *mesh = Some(Mesh { identity: self.stream.identity.clone(), source, settings });
            }
            changed
        });
        let subscribe = self.stream.known.holdings.belong_to(&services);
        self.show_policies();
        Ok(subscribe)
    }

    fn show_policies(&self) {
        let own = self.stream.known.holdings.own_policies();
        self.stream.policies.send_if_modified(|known| {
            let changed = !known.same(&own);
            *known = own;
            changed
        });
    }

    fn trust(&self, anchors: TrustAnchors) -> Result<(), String> {
        let trust_domain = self.stream.identity.spiffe_id().trust_domain().clone();
        let bundle = TrustBundle::from_der(trust_domain, &anchors.der)
            .map_err(|error| format!("the control plane's trust anchors: {error}"))?;
        self.stream.identity.replace_bundle(bundle);
        Ok(())
    }

    /// Takes in a message; gives what there is to answer.
    fn take(&mut self, message: ControlMessage) -> Vec<Message> {
        use control_message::Message::{Heartbeat, Resolved, TrustAnchors, Update, Welcome};
        match message.message {
            Some(Update(update)) => {
                let answer = self.stream.known.holdings.apply(update);
                self.show_policies();
                answer.map(|answer| self.acknowledge(answer)).into_iter().collect()
            }
            Some(Heartbeat(heartbeat)) => {
                show_skew(heartbeat.server_time_ms, &self.stream.registry);
                let reply = Message::HeartbeatReply(HeartbeatReply { sequence: heartbeat.sequence });
                let mut answers = vec![reply];
                if heartbeat.digest != self.stream.known.holdings.digest() {
                    // An update may just be under way; asking again costs little, missing one costs much.
                    answers.extend(self.stream.known.holdings.subscriptions().map(Message::Subscribe));
                }
                answers
            }
            Some(Resolved(resolved)) => {
                if let Err(error) = self.stream.known.addresses.answered(resolved, Instant::now()) {
                    tracing::error!(error, "an answer about a destination was refused");
                }
                Vec::new()
            }
            Some(TrustAnchors(anchors)) => {
                if let Err(error) = self.trust(anchors) {
                    tracing::error!(error, "trust anchors refused");
                }
                Vec::new()
            }
            Some(Welcome(welcome)) => {
                let subscribe = self.welcome(welcome).unwrap_or_else(|error| {
                    tracing::error!(error, "welcome refused");
                    Vec::new()
                });
                subscribe.into_iter().map(Message::Subscribe).collect()
            }
            // From a later version.
            None => Vec::new(),
        }
    }

    fn acknowledge(&self, answer: Acknowledge) -> Message {
        let kind = match Kind::try_from(answer.kind) {
            Ok(Kind::Config) => "config",
            Ok(Kind::Endpoints) => "endpoints",
            Ok(Kind::Absent) => "absent",
            Ok(Kind::Unspecified) | Err(_) => "unknown",
        };
        let result = if answer.refusal.is_empty() { "applied" } else { "refused" };
        self.stream.registry.counter(Metric::ControlPlaneUpdates, &[kind, result]).increment(1);
        if answer.refusal.is_empty() {
            tracing::debug!(service = answer.service, kind, version = answer.version, "update applied");
        } else {
            tracing::error!(service = answer.service, kind, refusal = answer.refusal, "update refused");
        }
        Message::Acknowledge(answer)
    }
}

async fn next(incoming: &mut Streaming<ControlMessage>) -> Result<Option<ControlMessage>, String> {
    incoming.message().await.map_err(|status| refusal(&status))
}

fn refusal(status: &tonic::Status) -> String {
    format!("the control plane says {:?}: {}", status.code(), status.message())
}
