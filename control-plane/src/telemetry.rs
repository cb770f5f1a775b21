//! The control plane's own metrics: every name in one list, every handle made when its owner is set up.

use std::time::{Duration, SystemTime};

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use pillion_api::metric::{Kind, Usage};

pillion_api::metrics! {
    /// The metrics of a control plane.
    pub enum Metric;

    SidecarsConnected = "pillion_server_sidecars_connected", Gauge, [], "Sidecars with an open stream.";
    Workloads = "pillion_server_workloads", Gauge, [], "Registered workloads, connected or with a running lease.";
    Subscriptions = "pillion_server_subscriptions", Gauge, [], "Services that connected sidecars subscribe to, counted per sidecar.";
    UpdatesSent = "pillion_server_updates_sent_total", Counter, [], "Updates sent to sidecars.";
    UpdatesRefused = "pillion_server_updates_refused_total", Counter, [], "Updates that a sidecar refused.";
    Refusals = "pillion_server_refusals", Gauge, [], "Updates that sidecars refuse at this moment, and go on with what they had.";
    Acknowledged = "pillion_server_acknowledge_seconds", Histogram, [], "From an update's sending until the sidecar has said that it uses or refuses it; of each sidecar one at a time is measured.";
    Questions = "pillion_server_questions_total", Counter, ["answer"], "Questions of sidecars what a destination is, by answer: resolved, or unknown to the mesh.";
    CompileDuration = "pillion_server_compile_seconds", Histogram, [], "Time to compile what a change of documents or workloads touches.";
    CertificatesIssued = "pillion_server_certificates_issued_total", Counter, ["proof"], "Certificates signed, by proof.";
    CertificatesRejected = "pillion_server_certificates_rejected_total", Counter, ["reason"], "Requests for a certificate that were rejected, by reason.";
    AuthorityExpiry = "pillion_server_authority_expiry_timestamp_seconds", Gauge, [], "When the first certificate of the authority's chain ends, seconds since the Unix epoch.";
    HandshakeFailures = "pillion_server_handshake_failures_total", Counter, ["reason"], "TLS handshakes of sidecars that failed, by reason.";
    StoreRevision = "pillion_server_store_revision", Gauge, [], "The newest revision of the store's documents.";
    EventListeners = "pillion_server_event_listeners", Gauge, [], "Open streams of mesh events.";
    Taps = "pillion_server_taps", Gauge, [], "Open streams of live requests.";
    TapEvents = "pillion_server_tap_events_total", Counter, ["result"], "Live requests by what became of them: told, limited (beyond the rate), overflowed (sidecars could not pass them on), unread (the reader did not keep up).";
    BuildInfo = "pillion_server_build_info", Gauge, ["version"], "Always 1.";
    StartTime = "process_start_time_seconds", Gauge, [], "When this process started, seconds since the Unix epoch.";
    ResidentMemory = "process_resident_memory_bytes", Gauge, [], "Resident memory.";
    CpuSeconds = "process_cpu_seconds_total", Counter, [], "User and system time.";
}

const METADATA: Metadata<'static> = Metadata::new("pillion", Level::INFO, Some("pillion"));

/// Seconds; what a workload touches is expected within a fraction of a millisecond, everything within some.
const COMPILE_BOUNDS: [f64; 10] = [0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0];
/// Seconds; a sidecar that is well takes an update within milliseconds.
const ACKNOWLEDGE_BOUNDS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0, 30.0];

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
    /// Those that are refused now.
    pub refusals: Gauge,
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
    acknowledged: Histogram,
    resident_memory: Gauge,
}

impl Telemetry {
    /// Registers everything.
    pub fn new() -> Self {
        let recorder = PrometheusBuilder::new()
            .set_buckets(&COMPILE_BOUNDS)
            .and_then(|builder| {
                let name = Matcher::Full(Metric::Acknowledged.name().to_owned());
                builder.set_buckets_for_metric(name, &ACKNOWLEDGE_BOUNDS)
            })
            .expect("the bounds are not empty")
            .build_recorder();
        for metric in Metric::ALL {
            let (name, help) = (metric.name().into(), metric.help().into());
            match metric.kind() {
                Kind::Counter => recorder.describe_counter(name, None, help),
                Kind::Gauge => recorder.describe_gauge(name, None, help),
                Kind::Histogram => recorder.describe_histogram(name, None, help),
            }
        }
        let gauge = |metric: Metric| recorder.register_gauge(&key(metric, &[]), &METADATA);
        let counter = |metric: Metric, labels: &[&'static str]| {
            recorder.register_counter(&key(metric, labels), &METADATA)
        };
        let histogram = |metric: Metric| recorder.register_histogram(&key(metric, &[]), &METADATA);
        recorder.register_gauge(&key(Metric::BuildInfo, &[env!("CARGO_PKG_VERSION")]), &METADATA).set(1.0);
        gauge(Metric::StartTime).set(unix_seconds(SystemTime::now()));
        Self {
            handle: recorder.handle(),
            sidecars_connected: gauge(Metric::SidecarsConnected),
            workloads: gauge(Metric::Workloads),
            subscriptions: gauge(Metric::Subscriptions),
            updates_sent: counter(Metric::UpdatesSent, &[]),
            updates_refused: counter(Metric::UpdatesRefused, &[]),
            refusals: gauge(Metric::Refusals),
            questions_resolved: counter(Metric::Questions, &["resolved"]),
            questions_unknown: counter(Metric::Questions, &["unknown"]),
            store_revision: gauge(Metric::StoreRevision),
            event_listeners: gauge(Metric::EventListeners),
            taps: gauge(Metric::Taps),
            tap_told: counter(Metric::TapEvents, &["told"]),
            tap_limited: counter(Metric::TapEvents, &["limited"]),
            tap_overflowed: counter(Metric::TapEvents, &["overflowed"]),
            tap_unread: counter(Metric::TapEvents, &["unread"]),
            compile_duration: histogram(Metric::CompileDuration),
            acknowledged: histogram(Metric::Acknowledged),
            resident_memory: gauge(Metric::ResidentMemory),
            recorder,
        }
    }

    /// Counts one run of compile.
    pub fn compiled(&self, took: Duration) {
        self.compile_duration.record(took.as_secs_f64());
    }

    /// Counts an update that a sidecar has answered, `after` it was sent.
    pub fn acknowledged(&self, after: Duration) {
        self.acknowledged.record(after.as_secs_f64());
    }

    /// Sets when the first certificate of the authority's chain ends.
    pub fn authority_ends(&self, at: SystemTime) {
        let key = key(Metric::AuthorityExpiry, &[]);
        self.recorder.register_gauge(&key, &METADATA).set(unix_seconds(at));
    }

    /// Counts a signed certificate; `proof` is `join-token` or `certificate`.
    pub fn certificate_issued(&self, proof: &'static str) {
        self.counted(Metric::CertificatesIssued, proof);
    }

    /// Counts a rejected request for a certificate. `reason` must come from a closed set.
    pub fn certificate_rejected(&self, reason: &'static str) {
        self.counted(Metric::CertificatesRejected, reason);
    }

    /// Counts a failed handshake. `reason` must come from a closed set.
    pub fn handshake_failed(&self, reason: &'static str) {
        self.counted(Metric::HandshakeFailures, reason);
    }

    /// Prometheus' text exposition format.
    pub fn render(&self) -> String {
        let usage = Usage::of_this_process();
        if let Some(resident) = usage.resident {
            self.resident_memory.set(resident as f64);
        }
        self.handle.run_upkeep();
        let mut text = self.handle.render();
        if let Some(cpu) = usage.cpu {
            text += &Metric::CpuSeconds.declared().sample(cpu);
        }
        text
    }

    fn counted(&self, metric: Metric, label: &'static str) {
        self.recorder.register_counter(&key(metric, &[label]), &METADATA).increment(1);
    }
}

/// A series; values for the metric's labels in their order.
fn key(metric: Metric, values: &[&'static str]) -> Key {
    let labels = metric.labels().iter().zip(values).map(|(name, value)| Label::new(*name, *value));
    Key::from_parts(metric.name(), labels.collect::<Vec<_>>())
}

fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
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
    fn names_follow_the_rules() {
        pillion_api::metric::check(Metric::ALL.iter().map(|metric| metric.declared()));
    }

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
