//! One sidecar's stream, from its hello to its end.

use std::{
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use pillion_api::{
    name::ServiceName,
    wire::{
        Acknowledge, ControlMessage, Health, MeshSettings, Resolve, SidecarMessage, Subscribe, Telemetry,
        TrustAnchors, Welcome, resolve::Destination, sidecar_message::Message, update::Kind,
    },
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};
use tonic::{Code, Status, Streaming};
use tracing::{debug, info, warn};

use super::{Mesh, Proof, hello, lag::Lag, session::Session, tapping::Tapping};
use crate::{
    authority,
    clock::unix_ms,
    compile::{self, Name, Workload},
    history::{EventKind, Reporter},
    publish::Refusal,
    registry::{Refused, Registered, Registration},
    resource::Documents,
    tap::About,
    telemetry::{Counted, Share},
};

/// A stream begins with a hello, or ends.
const HELLO_DEADLINE: Duration = Duration::from_secs(10);
/// The last word to a sidecar that may not be reading.
const FAREWELL_DEADLINE: Duration = Duration::from_secs(1);

/// Ours have 16 characters.
const MAX_VERSION: usize = 64;

/// Bytes of a destination that is asked about. A DNS name has 253 at most.
const MAX_QUESTION: usize = 512;

type Outbox = mpsc::Sender<Result<ControlMessage, Status>>;

/// Runs the stream; the sidecar is told why it ends, unless it went first.
pub(super) async fn run(
    mesh: Arc<Mesh>,
    address: SocketAddr,
    proof: Proof,
    mut inbound: Streaming<SidecarMessage>,
    outbox: Outbox,
) {
    let identity = proof.id.clone();
    let ended = match greet(&mesh, address, proof, &mut inbound).await {
        Ok(mut stream) => {
            let _connected = Counted::new(&mesh.telemetry.sidecars_connected);
            let ended = stream.run(&mut inbound, &outbox).await;
            stream.close();
            ended
        }
        Err(status) => Err(status),
    };
    let Err(status) = ended else {
        debug!(peer = %address, %identity, "a sidecar's stream ended");
        return;
    };
    match status.code() {
        Code::Unavailable => {
            debug!(peer = %address, %identity, "closed a sidecar's stream: {}", status.message())
        }
        _ => warn!(peer = %address, %identity, "closed a sidecar's stream: {}", status.message()),
    }
    // When it cannot be delivered in time the connection's end says enough.
    let _ = timeout(FAREWELL_DEADLINE, outbox.send(Err(status))).await;
}

/// Takes the hello and registers the workload.
async fn greet(
    mesh: &Arc<Mesh>,
    address: SocketAddr,
    proof: Proof,
    inbound: &mut Streaming<SidecarMessage>,
) -> Result<Stream, Status> {
    let first = timeout(HELLO_DEADLINE, inbound.message()).await.map_err(|_| {
        Status::deadline_exceeded(format!("no Hello within {} s", HELLO_DEADLINE.as_secs()))
    })??;
    let Some(Message::Hello(hello)) = first.and_then(|first| first.message) else {
        return Err(Status::invalid_argument("the first message of a stream must be Hello"));
    };
    let hello =
        hello::check(hello, address.ip()).map_err(|faults| Status::invalid_argument(faults.join("; ")))?;
    let identity = &proof.id;
    if proof.is_over(SystemTime::now()) {
        return Err(over());
    }
    let workload = Arc::new(Workload {
        hello,
        spiffe_id: identity.to_string(),
        namespace: identity.namespace().to_owned(),
    });
    let documents = mesh.compiler.documents();
    let services = compile::services_of(&workload, &documents);
    let source = compile::source_of(&workload, &services);
    let settings = mesh.publisher.settings();
    let welcome = welcome(mesh, &workload, &source, &services, settings.borrow().clone());
    let (registration, registered) =
        mesh.registry.connect(Arc::clone(&workload)).map_err(|refused| match refused {
            Refused::Taken { .. } => Status::permission_denied(refused.to_string()),
            Refused::Full(_) | Refused::TooMany { .. } => Status::resource_exhausted(refused.to_string()),
        })?;
    let name = &workload.hello.workload;
    info!(workload = name, uid = registration.uid(), %identity, peer = %address, ?registered, "sidecar connected");
    if registered == Registered::Joined {
        let text = format!("{name} joined as {identity}");
        let (service, name) = (Some(source.clone()), Some(name.clone()));
        mesh.history.happened(EventKind::WorkloadJoined, service, name, text, unix_ms());
    }
    let subscriber = mesh.publisher.subscriber(registration.uid());
    let session = Session::new(subscriber, identity.namespace(), welcome, mesh.heartbeat, Instant::now());
    Ok(Stream {
        mesh: Arc::clone(mesh),
        proof,
        ready: workload.hello.health.as_ref().is_some_and(|health| health.ready),
        workload,
        documents,
        services,
        source,
        settings,
        registration,
        deregistered: false,
        session,
        tapping: Tapping::new(&mesh.taps, mesh.heartbeat),
        subscriptions: Share::of(&mesh.telemetry.subscriptions),
        lag: Lag::default(),
    })
}

struct Stream {
    mesh: Arc<Mesh>,
    /// With which the stream was opened.
    proof: Proof,
    /// What it said of itself at first.
    workload: Arc<Workload>,
    /// Its application's health, as it was told last.
    ready: bool,
    /// Those that `services` were found in.
    documents: Arc<Documents>,
    /// The services that it belongs to, as it was told.
    services: Vec<String>,
    /// What others see as the source of its requests, as it was told.
    source: String,
    /// What holds for the whole mesh.
    settings: watch::Receiver<MeshSettings>,
    registration: Registration,
    deregistered: bool,
    session: Session,
    /// Live requests.
    tapping: Tapping,
    /// Of the metric.
    subscriptions: Share,
    /// How long the sidecar takes to answer updates.
    lag: Lag,
}

impl Stream {
    /// `Ok`: the sidecar ended it.
    async fn run(&mut self, inbound: &mut Streaming<SidecarMessage>, outbox: &Outbox) -> Result<(), Status> {
        // Made once, as they would have to find their places in a queue anew for every message.
        let mut shutdown = self.mesh.shutdown.clone();
        let (mut shutdown, mut closed) = (pin!(shutdown.requested()), pin!(outbox.closed()));
        let period = self.mesh.heartbeat;
        let mut ticks = interval_at(Instant::now() + period, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if self.session.subscriber.has_moved() {
                self.refresh_services();
            }
            let ready = self.session.is_ready() || self.tapping.is_ready();
            let room = self.session.has_room();
            tokio::select! {
                // A sidecar that asks and does not read is not read either, and in the end found silent.
                received = inbound.message(), if room => match received {
                    Ok(Some(message)) => self.take(message)?,
                    Ok(None) => return Ok(()),
                    // Its connection is gone: there is nobody to tell.
                    Err(_) => return Ok(()),
                },
                // A place in the outbox first, then the newest there is to say.
                place = outbox.reserve(), if ready => {
                    let Ok(place) = place else { return Ok(()) };
                    let tapping = || self.tapping.next_message().map(|it| ControlMessage { message: Some(it) });
                    if let Some(message) = self.session.next_message(unix_ms()).or_else(tapping) {
                        self.count(&message);
                        place.send(Ok(message));
                    }
                },
                () = self.session.subscriber.changed(), if !ready => {}
                () = self.tapping.changed() => self.review_taps(),
                Ok(()) = self.settings.changed() => self.welcome_again(),
                () = &mut closed => return Ok(()),
                now = ticks.tick() => self.tick(now)?,
                () = &mut shutdown => {
                    return Err(Status::unavailable("the control plane is shutting down; reconnect"));
                }
            }
        }
    }

    fn tick(&mut self, now: Instant) -> Result<(), Status> {
        if let Some(silent) = self.session.silent_for(now) {
            let silent = humantime::format_duration(Duration::from_secs(silent.as_secs()));
            return Err(Status::deadline_exceeded(format!("no heartbeat was answered for {silent}")));
        }
        if !self.deregistered && self.registration.superseded() {
            return Err(Status::aborted("a newer stream of this workload has taken over"));
        }
        if self.proof.is_over(SystemTime::now()) {
            return Err(over());
        }
        self.refresh_services();
        self.session.tick();
        self.tapping.renew();
        Ok(())
    }

    /// A Service that selects the workload may come, change or go after the workload did.
    fn refresh_services(&mut self) {
        let documents = self.mesh.compiler.documents();
        if Arc::ptr_eq(&documents, &self.documents) {
            return;
        }
        let services = compile::services_of(&self.workload, &documents);
        self.documents = documents;
        if services != self.services {
            self.source = compile::source_of(&self.workload, &services);
            self.services = services;
            self.welcome_again();
            self.review_taps();
        }
    }

    /// Other taps concern the sidecar when they, its services, or what it calls have changed.
    fn review_taps(&mut self) {
        let Workload { hello, namespace, .. } = &*self.workload;
        let about = About { namespace, workload: &hello.workload };
        let serves = |service: &str| self.services.iter().any(|own| own == service);
        let follows = |service: &str| self.session.subscriber.follows(service);
        self.tapping.review((about, &hello.version), serves, follows, Instant::now());
    }

    /// Something that it was told first is not so any more.
    fn welcome_again(&mut self) {
        let settings = self.settings.borrow_and_update().clone();
        let welcome = welcome(&self.mesh, &self.workload, &self.source, &self.services, settings);
        self.session.welcome(welcome);
    }

    fn count(&mut self, message: &ControlMessage) {
        use pillion_api::wire::control_message::Message::{Resolved, Update};
        let telemetry = &self.mesh.telemetry;
        match &message.message {
            Some(Update(update)) => {
                telemetry.updates_sent.increment(1);
                self.lag.sent(update, Instant::now());
                self.registration.waits(self.lag.waits());
            }
            Some(Resolved(answer)) if answer.service.is_empty() => telemetry.questions_unknown.increment(1),
            Some(Resolved(_)) => telemetry.questions_resolved.increment(1),
            _ => {}
        }
    }

    fn take(&mut self, message: SidecarMessage) -> Result<(), Status> {
        match message.message {
            Some(Message::Hello(_)) => {
                return Err(Status::invalid_argument("Hello comes once, at the start of a stream"));
            }
            Some(Message::Subscribe(subscribe)) => self.subscribe(subscribe)?,
            Some(Message::Unsubscribe(unsubscribe)) => {
                self.session.subscriber.unsubscribe(&unsubscribe.service);
                self.lag.unsubscribed(&unsubscribe.service);
                self.registration.waits(self.lag.waits());
                self.subscriptions.set(self.session.subscriber.len());
                self.review_taps();
                self.mesh.publisher.refusals.unsubscribed(self.registration.uid(), &unsubscribe.service);
            }
            Some(Message::Acknowledge(acknowledge)) => self.acknowledged(acknowledge),
            Some(Message::Health(health)) => self.health(health),
            Some(Message::Telemetry(telemetry)) => self.measured(&telemetry),
            Some(Message::HeartbeatReply(reply)) => self.session.replied(reply.sequence, Instant::now()),
            Some(Message::Deregister(_)) => self.deregister(),
            Some(Message::Resolve(question)) => self.asked(question)?,
            Some(Message::TapEvents(events)) => self.tapping.told(events, Instant::now()),
            Some(Message::TapAnswer(answer)) => self.tapping.answered(answer),
            // Something that only newer sidecars say.
            None => {}
        }
        Ok(())
    }

    fn subscribe(&mut self, subscribe: Subscribe) -> Result<(), Status> {
        let Subscribe { service, config_version, endpoints_version, config_only } = subscribe;
        // All three are kept for as long as the subscription: none may have any length it likes.
        if let Err(fault) = service.parse::<ServiceName>() {
            return Err(Status::invalid_argument(format!(
                "Subscribe.service: {}",
                hello::words(&fault.to_string())
            )));
        }
        // One that we never gave is as good as none.
        let version = |text: &str| if text.len() <= MAX_VERSION { text.to_owned() } else { String::new() };
        let (config, endpoints) = (version(&config_version), version(&endpoints_version));
        let subscriber = &mut self.session.subscriber;
        let subscribed = if config_only {
            subscriber.subscribe_to_config(&service, &config)
        } else {
            subscriber.subscribe(&service, &config, &endpoints)
        };
        if let Err(fault) = subscribed {
            let workload = &self.workload.hello.workload;
            warn!(workload, service, "a subscription was not taken: {fault}");
        }
        self.subscriptions.set(self.session.subscriber.len());
        self.review_taps();
        Ok(())
    }

    fn asked(&mut self, question: Resolve) -> Result<(), Status> {
        let (field, text) = match &question.destination {
            Some(Destination::Address(address)) => ("address", address),
            Some(Destination::Host(host)) => ("host", host),
            // Something that only newer sidecars ask.
            None => return Ok(()),
        };
        // It is kept until it is answered, and sent back then.
        if text.len() > MAX_QUESTION {
            return Err(Status::invalid_argument(format!(
                "Resolve.{field} must have at most {MAX_QUESTION} bytes, has {}",
                text.len()
            )));
        }
        if field == "address"
            && let Err(fault) = text.parse::<SocketAddr>()
        {
            return Err(Status::invalid_argument(format!(
                "Resolve.address: {fault}: {}",
                hello::words(text)
            )));
        }
        self.session.ask(question);
        Ok(())
    }

    fn acknowledged(&mut self, acknowledge: Acknowledge) {
        let (kind, uid) = (acknowledge.kind(), self.registration.uid());
        let Acknowledge { service, version, refusal, .. } = acknowledge;
        if let Some(took) = self.lag.answered(&service, kind, &version, Instant::now()) {
            self.mesh.telemetry.acknowledged(took);
            self.registration.waits(false);
        }
        if kind == Kind::Unspecified || !self.session.subscriber.subscribes(&service) {
            return;
        }
        let refusals = &self.mesh.publisher.refusals;
        if refusal.is_empty() {
            return refusals.accepted(uid, &service, kind);
        }
        self.mesh.telemetry.updates_refused.increment(1);
        let (reason, workload) = (hello::words(&refusal), &self.workload.hello.workload);
        let refusal = Refusal {
            service: service.clone(),
            kind,
            version: hello::words(&version),
            uid: uid.to_owned(),
            reason: reason.clone(),
            at_ms: unix_ms(),
        };
        if refusals.refused(refusal) {
            warn!(workload, service, kind = kind.as_str_name(), reason, "a sidecar refused an update");
            let text = format!("{workload} refused the configuration of {service}: {reason}");
            self.happened(EventKind::ConfigurationRefused, Some(service), text);
        }
    }

    fn health(&mut self, health: Health) {
        let health = hello::health(health);
        if !self.registration.report(health.clone()) {
            return;
        }
        let was_ready = std::mem::replace(&mut self.ready, health.ready);
        let workload = &self.workload.hello.workload;
        let (kind, text) = match (was_ready, health.ready) {
            (false, true) => (EventKind::WorkloadHealthy, format!("{workload} is ready")),
            (true, false) => {
                (EventKind::WorkloadUnhealthy, format!("{workload} is not ready: {}", health.reason))
            }
            // The same with another reason.
            _ => return,
        };
        info!(workload, "{text}");
        self.happened(kind, self.service(), text);
    }

    fn measured(&self, telemetry: &Telemetry) {
        let services = self.services();
        let reporter = Reporter {
            uid: self.registration.uid(),
            workload: &self.workload.hello.workload,
            source: &self.source,
            services: &services,
            registered: !self.deregistered,
        };
        let registry = &self.mesh.registry;
        let name = |uid: &str| registry.member(uid).map(|member| member.name().to_owned());
        self.mesh.history.record(reporter, telemetry, unix_ms(), name);
    }

    fn deregister(&mut self) {
        self.deregistered = true;
        if self.registration.deregister() {
            self.mesh.history.workload_left(self.registration.uid());
            let text = format!("{} said goodbye", self.workload.hello.workload);
            info!(workload = self.workload.hello.workload, "{text}");
            self.happened(EventKind::WorkloadLeft, self.service(), text);
        }
    }

    /// The services it serves, as compiled last.
    fn services(&self) -> Arc<[Name]> {
        self.mesh.publisher.services_of(self.registration.uid())
    }

    /// By which the page shows what happened to it.
    fn service(&self) -> Option<String> {
        self.services().first().map(ToString::to_string)
    }

    fn happened(&self, kind: EventKind, service: Option<String>, text: String) {
        let workload = Some(self.workload.hello.workload.clone());
        self.mesh.history.happened(kind, service, workload, text, unix_ms());
    }

    /// Forgets what belongs to the stream, unless a newer one of the same workload has it now. What the sidecar
    /// reported of itself stays for as long as it is registered.
    fn close(&self) {
        if self.deregistered || !self.registration.superseded() {
            self.mesh.publisher.refusals.left(self.registration.uid());
        }
    }
}

/// What a sidecar is told first, and again whenever that has changed.
fn welcome(
    mesh: &Mesh,
    workload: &Workload,
    source: &str,
    services: &[String],
    settings: MeshSettings,
) -> Welcome {
    Welcome {
        server_time_ms: unix_ms(),
        lease_ms: millis(mesh.lease),
        heartbeat_interval_ms: millis(mesh.heartbeat),
        trust_anchors: Some(TrustAnchors { der: authority::anchors_der(&mesh.authority) }),
        source: source.to_owned(),
        spiffe_id: workload.spiffe_id.clone(),
        settings: Some(settings),
        services: services.to_vec(),
    }
}

/// Its sidecar has a newer certificate by now, or should not be here any more.
fn over() -> Status {
    Status::unavailable(
        "the certificate that this stream was opened with has expired; reconnect with the current one",
    )
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
