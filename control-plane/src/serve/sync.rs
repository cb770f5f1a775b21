//! One sidecar's stream, from its hello to its end.

mod heard;

use std::{
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use pillion_api::wire::{
    ControlMessage, MeshSettings, SidecarMessage, TrustAnchors, Welcome, sidecar_message::Message,
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
    history::EventKind,
    registry::{Refused, Registered, Registration},
    resource::Documents,
    tap::About,
    telemetry::{Counted, Share},
};

/// A stream begins with a hello, or ends.
const HELLO_DEADLINE: Duration = Duration::from_secs(10);
/// The last word to a sidecar that may not be reading.
const FAREWELL_DEADLINE: Duration = Duration::from_secs(1);

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
        // A newer stream of the same sidecar, with its next certificate, takes over in the ordinary course of things.
        Code::Unavailable | Code::Aborted => {
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
        // Before the first message: a sidecar goes on telling of live requests on its next stream.
        self.review_taps();
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
