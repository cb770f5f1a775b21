//! The Prometheus registry: handles from the enum of names, text for `/metrics`.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use metrics_util::MetricKindMask;
use pillion_api::wire::PolicyCount;

use super::{
    exemplars::Exemplar,
    losses::Losses,
    names::{Kind, Metric},
    openmetrics,
    tallies::{self, Tallies},
    told::Told,
};

/// A series that nothing has changed for so long is no longer shown: its workload or caller is gone.
pub(super) const IDLE_SERIES: Duration = Duration::from_secs(900);

/// The registry of one process. Its methods take locks: they are for the main thread, and for connections, never for
/// requests.
pub struct Registry {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    told: Told,
    /// What does not reach whoever is to have it.
    pub losses: Losses,
    /// Serialises rendering with the upkeep that it implies.
    rendering: Mutex<()>,
    tallies: Mutex<Tallies>,
    /// CPU time of this process, seconds. Not in the recorder, whose counts are whole.
    cpu: Mutex<Option<f64>>,
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl Registry {
    /// With every metric described and none counted.
    pub fn new() -> Self {
        let recorder = PrometheusBuilder::new()
            .set_buckets(&tallies::bounds())
            .expect("there are bounds")
            .idle_timeout(MetricKindMask::ALL, Some(IDLE_SERIES))
            .build_recorder();
        for metric in Metric::ALL {
            let (name, help) = (KeyName::from_const_str(metric.name()), metric.help().into());
            match metric.kind() {
                Kind::Counter => recorder.describe_counter(name, None, help),
                Kind::Gauge => recorder.describe_gauge(name, None, help),
                Kind::Histogram => recorder.describe_histogram(name, None, help),
            }
        }
        let handle = recorder.handle();
        Self {
            recorder,
            handle,
            told: Told::default(),
            losses: Losses::default(),
            rendering: Mutex::default(),
            tallies: Mutex::default(),
            cpu: Mutex::default(),
        }
    }

    /// A counter's series; values for the metric's labels in their order.
    pub fn counter(&self, metric: Metric, values: &[&str]) -> Counter {
        debug_assert_eq!(metric.kind(), Kind::Counter);
        if !Told::includes(metric) {
            return self.recorder.register_counter(&key(metric, values), &METADATA);
        }
        let (counter, new) = self.told.counter(metric, values);
        if new {
            // It is shown as zero from now on.
            let _ = self.recorder.register_counter(&key(metric, values), &METADATA);
        }
        counter
    }

    /// What policies have done since this was asked last, for the control plane.
    pub(super) fn take_told(&self) -> Vec<PolicyCount> {
        self.empty();
        self.told.take()
    }

    fn empty(&self) {
        self.told.empty(|metric, values, count| {
            self.recorder.register_counter(&key(metric, values), &METADATA).increment(count);
        });
    }

    /// Sets the CPU time that this process has taken so far, seconds.
    pub fn cpu(&self, seconds: f64) {
        *self.cpu.lock().unwrap_or_else(PoisonError::into_inner) = Some(seconds);
    }

    /// A gauge's series.
    pub fn gauge(&self, metric: Metric, values: &[&str]) -> Gauge {
        debug_assert_eq!(metric.kind(), Kind::Gauge);
        self.recorder.register_gauge(&key(metric, values), &METADATA)
    }

    /// A histogram's series.
    pub fn histogram(&self, metric: Metric, values: &[&str]) -> Histogram {
        debug_assert_eq!(metric.kind(), Kind::Histogram);
        self.recorder.register_histogram(&key(metric, values), &METADATA)
    }

    /// Adds to a histogram what was counted in buckets of [`pillion_api::latency`] already.
    pub fn tally(
        &self,
        metric: Metric,
        values: &[&str],
        counts: impl IntoIterator<Item = (usize, u64)>,
        sum_us: u64,
    ) {
        debug_assert_eq!(metric.kind(), Kind::Histogram);
        self.tallies().add(metric, values, counts, sum_us, Instant::now());
    }

    /// Keeps examples of what was added to a histogram just now.
    pub fn exemplify(&self, metric: Metric, values: &[&str], exemplars: &[Exemplar]) {
        self.tallies().exemplify(metric, values, exemplars);
    }

    /// Whether anything was added to it lately.
    pub fn has_tally(&self, metric: Metric, values: &[&str]) -> bool {
        self.tallies().has(metric, values)
    }

    fn tallies(&self) -> MutexGuard<'_, Tallies> {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The whole registry in Prometheus' text format 0.0.4.
    pub fn render(&self) -> String {
        self.text(false)
    }

    /// The same as OpenMetrics, which has exemplars.
    pub fn render_openmetrics(&self) -> String {
        openmetrics::from_text(&self.text(true))
    }

    fn text(&self, exemplars: bool) -> String {
        let _one_at_a_time = self.rendering.lock().unwrap_or_else(PoisonError::into_inner);
        self.empty();
        self.handle.run_upkeep();
        let mut text = self.handle.render();
        self.tallies().render(&mut text, exemplars);
        if let Some(cpu) = *self.cpu.lock().unwrap_or_else(PoisonError::into_inner) {
            text += &Metric::CpuSeconds.declared().sample(cpu);
        }
        text
    }

    /// Moves recorded durations into their buckets, so that they do not pile up between scrapes.
    pub fn upkeep(&self) {
        self.empty();
        self.handle.run_upkeep();
        self.tallies().forget(IDLE_SERIES, Instant::now());
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Registry")
    }
}

static METADATA: Metadata<'static> = Metadata::new("pillion", Level::INFO, None);

fn key(metric: Metric, values: &[&str]) -> Key {
    debug_assert_eq!(metric.labels().len(), values.len(), "{}", metric.name());
    let labels: Vec<Label> = metric
        .labels()
        .iter()
        .zip(values)
        .map(|(name, value)| Label::new(*name, (*value).to_owned()))
        .collect();
    Key::from_parts(metric.name(), labels)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use pillion_api::latency;

    use super::*;
    use crate::telemetry::trace::context::{SpanId, TraceId};

    #[test]
    fn text_has_help_type_and_exact_buckets() {
        let registry = Registry::new();
        registry.counter(Metric::Handshakes, &["client", "full"]).increment(2);
        let duration = registry.histogram(Metric::DetectionTime, &["outbound", "http1"]);
        duration.record(0.000_255);
        duration.record(0.000_300);
        registry.cpu(1.25);
        let text = registry.render();
        assert!(text.contains("# TYPE pillion_tls_handshakes_total counter"), "{text}");
        assert!(text.contains("# HELP pillion_tls_handshakes_total TLS handshakes"), "{text}");
        assert!(text.contains("pillion_tls_handshakes_total{side=\"client\",result=\"full\"} 2"), "{text}");
        assert!(text.contains("le=\"0.000256\"} 1"), "{text}");
        assert!(text.contains("le=\"0.000512\"} 2"), "{text}");
        assert!(text.contains("le=\"33.554432\"} 2"), "{text}");
        assert!(
            text.contains("# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total 1.25\n"),
            "{text}"
        );
    }

    #[test]
    fn exemplars_are_in_openmetrics_only_and_in_their_bucket() {
        let registry = Registry::new();
        registry.counter(Metric::Handshakes, &["client", "full"]).increment(2);
        registry.histogram(Metric::DetectionTime, &["outbound", "http1"]).record(0.1);
        registry.cpu(1.25);
        let values = ["outbound", "a.n", "b.n", "b.n"];
        let exemplar = Exemplar {
            trace: TraceId::new(0x4bf9).expect("not zero"),
            span: SpanId::new(7).expect("not zero"),
            took_us: 300,
            ended: SystemTime::UNIX_EPOCH,
        };
        // Of nothing that is counted there is no example.
        registry.exemplify(Metric::Duration, &values, &[exemplar]);
        assert!(!registry.render_openmetrics().contains("trace_id"));
        registry.tally(Metric::Duration, &values, [(latency::index(300), 2)], 600);
        registry.exemplify(Metric::Duration, &values, &[exemplar]);
        let text = registry.render_openmetrics();
        let with: Vec<_> = text.lines().filter(|line| line.contains("trace_id")).collect();
        let [line] = with[..] else { panic!("not one of {with:?}") };
        assert!(
            line.contains("le=\"0.000512\"} 2 # {trace_id=\"00000000000000000000000000004bf9\","),
            "{line}"
        );
        assert!(line.ends_with("span_id=\"0000000000000007\"} 0.0003 0.000"), "{line}");
        assert!(text.ends_with("\n# EOF\n") && !text.contains("\n\n"), "{text}");
        assert!(!registry.render().contains("trace_id"));
    }

    #[test]
    fn families_have_names_of_their_own() {
        let mut families: Vec<_> =
            Metric::ALL.iter().map(|it| it.name().strip_suffix("_total").unwrap_or(it.name())).collect();
        let all = families.len();
        families.sort_unstable();
        families.dedup();
        assert_eq!(families.len(), all);
        // They would be taken for a part of a family that is called like the rest.
        for suffix in ["_bucket", "_count", "_created", "_sum"] {
            assert!(!families.iter().any(|family| family.ends_with(suffix)), "{suffix}");
        }
    }
}
