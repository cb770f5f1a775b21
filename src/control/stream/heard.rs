//! What the control plane says on the stream, message by message, and what comes of it.

use std::sync::Arc;

use pillion_api::{
    model::MeshSettings,
    name::ServiceName,
    wire::{
        Acknowledge, ControlMessage, HeartbeatReply, Subscribe, TrustAnchors, Welcome, control_message,
        sidecar_message::Message, update::Kind,
    },
};
use pillion_certs::TrustBundle;
use tokio::time::Instant;

use super::State;
use crate::{
    control::{
        Mesh,
        certify::{note_clock, show_skew},
    },
    telemetry::names::Metric,
};

impl State {
    /// Takes in who we are; gives what there is to ask for in turn.
    pub(super) fn welcome(&mut self, welcome: Welcome) -> Result<Vec<Subscribe>, String> {
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
    pub(super) fn take(&mut self, message: ControlMessage) -> Vec<Message> {
        use control_message::Message::{
            Heartbeat, Resolved, StartTap, StopTap, TrustAnchors, Update, Welcome,
        };
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
            Some(StartTap(start)) => vec![Message::TapAnswer(self.stream.taps.start(start, Instant::now()))],
            Some(StopTap(stop)) => {
                self.stream.taps.stop(stop.id);
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
