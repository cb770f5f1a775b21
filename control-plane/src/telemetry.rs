//! The control plane's own metrics: every name in one list, every handle made when its owner is set up.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

/// Everything that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    SidecarsConnected,
    Workloads,
    Subscriptions,
    UpdatesSent,
    UpdatesRefused,
    Questions,
    CompileDuration,
    CertificatesIssued,
    CertificatesRejected,
    HandshakeFailures,
    StoreRevision,
    EventListeners,
    Taps,
    TapEvents,
}

impl Name {
    const fn text(self) -> &'static str {
        match self {
            Self::SidecarsConnected => "pillion_server_sidecars_connected",
            Self::Workloads => "pillion_server_workloads",
            Self::Subscriptions => "pillion_server_subscriptions",
            Self::UpdatesSent => "pillion_server_updates_sent_total",
            Self::UpdatesRefused => "pillion_server_updates_refused_total",
            Self::Questions => "pillion_server_questions_total",
            Self::CompileDuration => "pillion_server_compile_seconds",
            Self::CertificatesIssued => "pillion_server_certificates_issued_total",
            Self::CertificatesRejected => "pillion_server_certificates_rejected_total",
            Self::HandshakeFailures => "pillion_server_handshake_failures_total",
            Self::StoreRevision => "pillion_server_store_revision",
            Self::EventListeners => "pillion_server_event_listeners",
            Self::Taps => "pillion_server_taps",
            Self::TapEvents => "pillion_server_tap_events_total",
        }
    }

    const fn help(self) -> &'static str {
        match self {
            Self::SidecarsConnected => "Sidecars with an open stream.",
            Self::Workloads => "Registered workloads, connected or with a running lease.",
            Self::Subscriptions => "Services that connected sidecars subscribe to, counted per sidecar.",
            Self::UpdatesSent => "Updates sent to sidecars.",
            Self::UpdatesRefused => "Updates that a sidecar refused.",
            Self::Questions => {
                "Questions of sidecars what a destination is, by answer: resolved, or unknown to the mesh."
            }
            Self::CompileDuration => "Time to compile what a change of documents or workloads touches.",
            Self::CertificatesIssued => "Certificates signed, by proof.",
            Self::CertificatesRejected => "Requests for a certificate that were rejected, by reason.",
            Self::HandshakeFailures => "TLS handshakes of sidecars that failed, by reason.",
            Self::StoreRevision => "The newest revision of the store's documents.",
            Self::EventListeners => "Open streams of mesh events.",
            Self::Taps => "Open streams of live requests.",
            Self::TapEvents => {
                "Live requests by what became of them: told, limited (beyond the rate), overflowed (sidecars could not pass \
                 them on), unread (the reader did not keep up)."
            }
        }
    }
}

const METADATA: Metadata<'static> = Metadata::new("pillion", Level::INFO, Some("pillion"));

/// Seconds; what a workload touches is expected within a fraction of a millisecond, everything within some.
const COMPILE_BOUNDS: [f64; 10] = [0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0];

/// The server's metrics. Not global: each server in a process has its own.
pub struct Telemetry {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    /// Sidecars with an open stream.
    pub sidecars_connected: Gauge,
    /// Registered workloads.
    pub workloads: Gauge,
    /// Subscriptions of connected sidecars.
    pub subscriptions: Gauge,
    /// Updates sent.
    pub updates_sent: Counter,
    /// Updates refused by a sidecar.
    pub updates_refused: Counter,
    /// Questions about destinations that the mesh knows.
    pub questions_resolved: Counter,
    /// Questions about destinations that it does not know.
    pub questions_unknown: Counter,
    /// The newest revision of documents.
    pub store_revision: Gauge,
    /// Open streams of mesh events.
    pub event_listeners: Gauge,
    /// Open streams of live requests.
    pub taps: Gauge,
    /// Live requests that went to their reader.
    pub tap_told: Counter,
    /// Those beyond the rate.
    pub tap_limited: Counter,
    /// Those that sidecars could not pass on.
    pub tap_overflowed: Counter,
    /// Those for which the reader was too slow.
    pub tap_unread: Counter,
    compile_duration: Histogram,
}

impl Telemetry {
    /// Registers everything.
    pub fn new() -> Self {
        let recorder = PrometheusBuilder::new()
            .set_buckets(&COMPILE_BOUNDS)
            .expect("the bounds are not empty")
            .build_recorder();
        let gauge = |name: Name| {
            recorder.describe_gauge(name.text().into(), None, name.help().into());
            recorder.register_gauge(&Key::from_name(name.text()), &METADATA)
        };
        let counter = |name: Name| {
            recorder.describe_counter(name.text().into(), None, name.help().into());
            recorder.register_counter(&Key::from_name(name.text()), &METADATA)
        };
        let answered = |answer: &'static str| {
            let key = Key::from_parts(Name::Questions.text(), vec![Label::new("answer", answer)]);
            recorder.register_counter(&key, &METADATA)
        };
        let tapped = |result: &'static str| {
            let key = Key::from_parts(Name::TapEvents.text(), vec![Label::new("result", result)]);
            recorder.register_counter(&key, &METADATA)
        };
        let labelled = [
            Name::Questions,
            Name::CertificatesIssued,
            Name::CertificatesRejected,
            Name::HandshakeFailures,
            Name::TapEvents,
        ];
        for name in labelled {
            recorder.describe_counter(name.text().into(), None, name.help().into());
        }
        let compile = Name::CompileDuration;
        recorder.describe_histogram(compile.text().into(), None, compile.help().into());
        Self {
            handle: recorder.handle(),
            sidecars_connected: gauge(Name::SidecarsConnected),
            workloads: gauge(Name::Workloads),
            subscriptions: gauge(Name::Subscriptions),
            updates_sent: counter(Name::UpdatesSent),
            updates_refused: counter(Name::UpdatesRefused),
            questions_resolved: answered("resolved"),
            questions_unknown: answered("unknown"),
            store_revision: gauge(Name::StoreRevision),
            event_listeners: gauge(Name::EventListeners),
            taps: gauge(Name::Taps),
            tap_told: tapped("told"),
            tap_limited: tapped("limited"),
            tap_overflowed: tapped("overflowed"),
            tap_unread: tapped("unread"),
            compile_duration: recorder.register_histogram(&Key::from_name(compile.text()), &METADATA),
            recorder,
        }
    }

    /// Counts one run of compile.
    pub fn compiled(&self, took: Duration) {
        self.compile_duration.record(took.as_secs_f64());
    }

    /// Counts a signed certificate; `proof` is `join-token` or `certificate`.
    pub fn certificate_issued(&self, proof: &'static str) {
        self.labelled(Name::CertificatesIssued, "proof", proof).increment(1);
    }

    /// Counts a rejected request for a certificate. `reason` must come from a closed set.
    pub fn certificate_rejected(&self, reason: &'static str) {
        self.labelled(Name::CertificatesRejected, "reason", reason).increment(1);
    }

    /// Counts a failed handshake. `reason` must come from a closed set.
    pub fn handshake_failed(&self, reason: &'static str) {
        self.labelled(Name::HandshakeFailures, "reason", reason).increment(1);
    }

    /// Prometheus' text exposition format.
    pub fn render(&self) -> String {
        self.handle.run_upkeep();
        self.handle.render()
    }

    fn labelled(&self, name: Name, label: &'static str, value: &'static str) -> Counter {
        let key = Key::from_parts(name.text(), vec![Label::new(label, value)]);
        self.recorder.register_counter(&key, &METADATA)
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new()
    }
}

/// Counts one on a gauge for as long as it lives.
pub struct Counted(Gauge);

impl Counted {
    /// Adds one.
    pub fn new(gauge: &Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// What its owner has of a gauge that several add to; given back at its end.
pub struct Share {
    gauge: Gauge,
    has: usize,
}

impl Share {
    /// None yet.
    pub fn of(gauge: &Gauge) -> Self {
        Self { gauge: gauge.clone(), has: 0 }
    }

    /// This much now.
    pub fn set(&mut self, now: usize) {
        self.gauge.increment(now as f64 - self.has as f64);
        self.has = now;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_rendered_with_their_labels() {
        let telemetry = Telemetry::new();
        telemetry.certificate_issued("join-token");
        telemetry.handshake_failed("expired");
        let connected = Counted::new(&telemetry.sidecars_connected);
        let text = telemetry.render();
        for line in [
            "pillion_server_certificates_issued_total{proof=\"join-token\"} 1",
            "pillion_server_handshake_failures_total{reason=\"expired\"} 1",
            "pillion_server_sidecars_connected 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        drop(connected);
        assert!(telemetry.render().contains("pillion_server_sidecars_connected 0"));
    }

    #[test]
    fn shares_add_up_and_are_given_back() {
        let telemetry = Telemetry::new();
        let (mut one, mut other) = (Share::of(&telemetry.subscriptions), Share::of(&telemetry.subscriptions));
        one.set(3);
        other.set(4);
        one.set(1);
        assert!(telemetry.render().contains("pillion_server_subscriptions 5\n"));
        drop(other);
        assert!(telemetry.render().contains("pillion_server_subscriptions 1\n"));
    }
}
