//! The one stream to the control plane: tells who we are and how we do, hears of services, and comes back whenever
//! it is lost. Workers go on with what they have meanwhile.
//!
//! It lasts no longer than the certificate that it was opened with. So once there is the next certificate another stream is opened
//! with it, while this one goes on; nothing is lost or said twice, and nobody is told of a loss.

mod heard;

use std::{
    cell::RefCell,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use pillion_api::wire::{
    Deregister, Health, Hello, SidecarMessage, TapEvents, Unsubscribe, sidecar_message::Message,
};
use pillion_certs::{Identity, RenewalStatus};
use rand::Rng;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, timeout},
};

use super::{
    Mesh,
    addresses::Addresses,
    directory::Wish,
    holdings::Holdings,
    opening::{Beside, OPENING, Opened, Opening, QUEUE, done, refusal, told_first},
    own::OwnPolicies,
};
use crate::{
    drain::{Drain, Phase},
    net::resolve::Resolver,
    telemetry::{
        gather::Gathered, names::Metric, prometheus::Registry, report::CertificateStatus, tap::Taps,
    },
};

/// Between tellings of what was measured.
const TELEMETRY: Duration = Duration::from_secs(1);
/// A stream that is being opened may take so long yet where the one before has ended.
const SOON: Duration = Duration::from_secs(2);
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
    /// Live requests that somebody watches.
    pub taps: Taps,
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
            let opening = state.opening().run();
            let ended = match state.meanwhile(opening).await {
                Ok(opened) => {
                    state.connects("ok");
                    let ended = state.session(opened).await;
                    state.stream.known.addresses.lost(Instant::now());
                    state.stream.taps.clear();
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
            let jittered = jittered(wait);
            let why = ended.err().unwrap_or_else(|| "the stream was closed".into());
            tracing::warn!(why, retry_in = ?jittered, "no stream to the control plane; going on with what is known");
            state.meanwhile(tokio::time::sleep(jittered)).await;
            wait = (wait * 2).min(BACKOFF.1);
        }
    }
}

/// From nothing to twice, so that a thousand sidecars do not come back at the same moment.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(rand::rng().random_range(0.0..2.0))
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

    fn opening(&self) -> Opening {
        let Stream { address, resolver, identity, hello, health, drain, .. } = &self.stream;
        Opening {
            address: address.clone(),
            resolver: resolver.clone(),
            identity: identity.clone(),
            hello: hello.clone(),
            health: health.clone(),
            drain: drain.clone(),
        }
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

    /// From a stream's opening to the end of the last that took its place.
    async fn session(&mut self, opened: Opened) -> Result<(), String> {
        let mut stream = opened;
        let mut silence = self.begin(&stream).await?;
        tracing::info!(address = self.stream.address, "connected to the control plane");
        let mut tick = tokio::time::interval(TELEMETRY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut leaving = self.stream.drain.clone();
        let (mut refuses, mut deregistered) = (false, false);
        // The stream that is to take this one's place; when one may be opened; and the one whose place was taken.
        let mut next: Beside<Result<Opened, String>> = None;
        let mut next_from = Instant::now();
        let mut former: Beside<()> = None;
        loop {
            let send = |message| send(&stream.out, message);
            tokio::select! {
                message = stream.incoming.message() => {
                    let message = match message.map_err(|status| refusal(&status)) {
                        Ok(Some(message)) => message,
                        // The control plane may end it as soon as the next has begun.
                        ended => match next.take() {
                            Some(opening) => {
                                let Ok(Ok(opened)) = timeout(SOON, self.meanwhile(opening)).await else {
                                    self.connects("failed");
                                    return ended.map(drop);
                                };
                                stream = opened;
                                silence = self.begin(&stream).await?;
                                self.connects("replaced");
                                continue;
                            }
                            None => return ended.map(drop),
                        },
                    };
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
                    send(Message::Health(self.health()))?;
                }
                // Between two streams the later one's hello might come after a goodbye: until that is there, no requests are wanted.
                () = leaving.reached(Phase::Leaving), if !deregistered && (next.is_none() || !refuses) => {
                    let message = if next.is_none() {
                        deregistered = true;
                        Message::Deregister(Deregister {})
                    } else {
                        refuses = true;
                        Message::Health(self.health())
                    };
                    send(message)?;
                }
                told = self.stream.taps.told() => self.tell(told, &stream.out),
                opened = done(&mut next) => {
                    next = None;
                    match opened {
                        Ok(opened) => {
                            silence = self.begin(&opened).await?;
                            former = Some(Box::pin(std::mem::replace(&mut stream, opened).finish()));
                            self.connects("replaced");
                            tracing::debug!("a stream with the new certificate has taken the former one's place");
                        }
                        Err(why) => {
                            self.connects("failed");
                            let retry_in = jittered(BACKOFF.1);
                            next_from = Instant::now() + retry_in;
                            tracing::debug!(why, ?retry_in, "no stream with the new certificate yet");
                        }
                    }
                }
                () = done(&mut former) => former = None,
                _ = tick.tick() => {
                    self.stale();
                    self.stream.taps.expire(Instant::now());
                    self.tell(self.stream.taps.left_out(), &stream.out);
                    self.stream.registry.gauge(Metric::ControlPlaneConnected, &[]).set(1);
                    if self.heard.elapsed() > silence {
                        return Err(format!("nothing heard for {silence:?}"));
                    }
                    for service in self.stream.known.holdings.sweep() {
                        send(Message::Unsubscribe(Unsubscribe { service: service.to_string() }))?;
                    }
                    send(Message::Telemetry(self.telemetry()))?;
                    // Renewals are spread over a tenth of a certificate's life already. One that lasts no longer is of no use.
                    let renewed = self.stream.identity.not_after() > stream.not_after;
                    let running = self.stream.drain.phase() == Phase::Running;
                    if renewed && running && next.is_none() && Instant::now() >= next_from {
                        next = Some(Box::pin(self.opening().run()));
                    }
                }
            }
        }
    }

    /// Takes in a stream's welcome and asks for everything that is followed; gives after which silence it counts as lost.
    async fn begin(&mut self, opened: &Opened) -> Result<Duration, String> {
        self.heard = Instant::now();
        let silence = Duration::from_millis(opened.welcome.heartbeat_interval_ms.max(100).into()) * 3;
        self.welcome(opened.welcome.clone())?;
        // Services that are new to us are among these.
        for subscribe in self.stream.known.holdings.subscriptions() {
            // More than a queue of them is normal here, so this waits for room.
            let subscribe = SidecarMessage { message: Some(Message::Subscribe(subscribe)) };
            let sent = timeout(OPENING, opened.out.send(subscribe)).await;
            sent.map_err(|_| "the control plane does not take our messages")?
                .map_err(|error| error.to_string())?;
        }
        for resolve in self.stream.known.addresses.connected(Instant::now()) {
            send(&opened.out, Message::Resolve(resolve))?;
        }
        // It may have changed since the hello, and have been told on the former stream only.
        let health = self.health();
        if opened.health.as_ref() != Some(&health) {
            send(&opened.out, Message::Health(health))?;
        }
        Ok(silence)
    }

    /// The application's, as it is to be told now.
    fn health(&mut self) -> Health {
        self.stream.health.mark_unchanged();
        told_first(&self.stream.health, &self.stream.drain)
    }

    /// Passes on live requests, if that leaves enough room for what matters more.
    fn tell(&self, told: Vec<TapEvents>, out: &mpsc::Sender<SidecarMessage>) {
        for events in told {
            let message = SidecarMessage { message: Some(Message::TapEvents(events.clone())) };
            let taken = out.capacity() > QUEUE / 2 && out.try_send(message).is_ok();
            self.stream.taps.passed_on(&events, taken);
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
}

fn send(out: &mpsc::Sender<SidecarMessage>, message: Message) -> Result<(), String> {
    out.try_send(SidecarMessage { message: Some(message) })
        .map_err(|_| "the control plane does not take our messages".to_owned())
}
