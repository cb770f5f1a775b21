//! What a sidecar says on its stream, message by message, and what comes of it.

use std::net::SocketAddr;

use pillion_api::{
    name::ServiceName,
    wire::{
        Acknowledge, Health, Resolve, SidecarMessage, Subscribe, Telemetry, resolve::Destination,
        sidecar_message::Message, update::Kind,
    },
};
use tokio::time::Instant;
use tonic::Status;
use tracing::{info, warn};

use super::Stream;
use crate::{
    clock::unix_ms,
    history::{EventKind, Reporter},
    publish::Refusal,
    serve::hello,
};

/// Ours have 16 characters.
const MAX_VERSION: usize = 64;

/// Bytes of a destination that is asked about. A DNS name has 253 at most.
const MAX_QUESTION: usize = 512;

impl Stream {
    pub(super) fn take(&mut self, message: SidecarMessage) -> Result<(), Status> {
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
}
