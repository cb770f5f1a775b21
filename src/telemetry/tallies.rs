//! Histograms whose durations were counted in buckets already, as Prometheus has them. The exporter's own take one value after
//! the other, which for every request's every segment would cost more than all the counting.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    time::{Duration, Instant},
};

use pillion_api::latency;

use super::{
    exemplars::{Exemplar, Exemplars},
    names::Metric,
};

/// Bounds of the buckets shown: every fourth of the shared ones, so that counts fall exactly: 256 µs, 512 µs, … 33.6 s.
const BOUNDS: usize = 18;
/// Buckets shown: beyond all bounds is another one.
pub(super) const SHOWN: usize = BOUNDS + 1;

/// The same, in seconds.
pub(super) fn bounds() -> [f64; BOUNDS] {
    std::array::from_fn(|index| (1u64 << (index + 8)) as f64 / 1e6)
}

/// The place of a shared bucket among those shown; the last has no bound.
pub(super) fn place(bucket: usize) -> usize {
    // All of a bucket is below its own bound, and buckets end at powers of two.
    let bound = latency::bound_us(bucket).max(1 << 8);
    if bucket >= latency::BUCKETS - 1 {
        return BOUNDS;
    }
    (bound.next_power_of_two().ilog2() as usize - 8).min(BOUNDS)
}

/// Every such histogram.
#[derive(Debug, Default)]
pub(super) struct Tallies(BTreeMap<(&'static str, Box<str>), Tally>);

#[derive(Debug)]
struct Tally {
    counts: [u64; SHOWN],
    sum_us: u64,
    exemplars: Exemplars,
    changed: Instant,
}

impl Tally {
    fn new(now: Instant) -> Self {
        Self { counts: [0; SHOWN], sum_us: 0, exemplars: Exemplars::default(), changed: now }
    }
}

impl Tallies {
    /// Adds what was counted: buckets of [`latency`] with their counts, and all durations together.
    pub(super) fn add(
        &mut self,
        metric: Metric,
        values: &[&str],
        counts: impl IntoIterator<Item = (usize, u64)>,
        sum_us: u64,
        now: Instant,
    ) {
        let key = (metric.name(), labels(metric, values));
        let tally = self.0.entry(key).or_insert_with(|| Tally::new(now));
        for (bucket, count) in counts {
            tally.counts[place(bucket)] += count;
        }
        tally.sum_us += sum_us;
        tally.changed = now;
    }

    /// Keeps examples of what was counted; of a series that is not there, nothing.
    pub(super) fn exemplify(&mut self, metric: Metric, values: &[&str], exemplars: &[Exemplar]) {
        if let Some(tally) = self.0.get_mut(&(metric.name(), labels(metric, values))) {
            exemplars.iter().for_each(|exemplar| tally.exemplars.put(*exemplar));
        }
    }

    /// Whether there is such a series.
    pub(super) fn has(&self, metric: Metric, values: &[&str]) -> bool {
        self.0.contains_key(&(metric.name(), labels(metric, values)))
    }

    /// Forgets what nothing has changed for so long.
    pub(super) fn forget(&mut self, idle: Duration, now: Instant) {
        self.0.retain(|_, tally| now.saturating_duration_since(tally.changed) < idle);
    }

    /// In Prometheus' text format; with exemplars, which are OpenMetrics', if they are asked for.
    pub(super) fn render(&self, out: &mut String, exemplars: bool) {
        let mut last = "";
        for ((name, labels), tally) in &self.0 {
            if *name != last {
                let metric = Metric::ALL.iter().find(|metric| metric.name() == *name);
                let help = metric.map_or("", |metric| metric.help());
                let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} histogram");
                last = name;
            }
            let mut sum = 0;
            let bounds = bounds().map(|bound| bound.to_string());
            let bounds = bounds.iter().map(String::as_str).chain(["+Inf"]);
            for (place, (bound, count)) in bounds.zip(tally.counts).enumerate() {
                sum += count;
                let _ = write!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {sum}");
                if exemplars && let Some(exemplar) = tally.exemplars.at(place) {
                    exemplar.write(out);
                }
                out.push('\n');
            }
            let seconds = tally.sum_us as f64 / 1e6;
            let _ = writeln!(out, "{name}_sum{{{labels}}} {seconds}\n{name}_count{{{labels}}} {sum}\n");
        }
    }
}

fn labels(metric: Metric, values: &[&str]) -> Box<str> {
    debug_assert_eq!(metric.labels().len(), values.len(), "{}", metric.name());
    let mut text = String::new();
    for (name, value) in metric.labels().iter().zip(values) {
        let separator = if text.is_empty() { "" } else { "," };
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(text, "{separator}{name}=\"{value}\"");
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_duration_falls_below_its_bound_and_above_the_one_before(us in 0u64..(1 << 30)) {
            let place = place(latency::index(us));
            let bounds = bounds();
            let seconds = us as f64 / 1e6;
            prop_assert!(place == BOUNDS || seconds < bounds[place]);
            prop_assert!(place == 0 || seconds >= bounds[place - 1]);
        }
    }

    #[test]
    fn counts_add_up_and_what_is_idle_is_forgotten() {
        let mut tallies = Tallies::default();
        let now = Instant::now();
        let values = ["outbound", "a\"", "b", "b"];
        let bucket = latency::index(300);
        tallies.add(Metric::Duration, &values, [(bucket, 2), (latency::BUCKETS - 1, 1)], 600, now);
        tallies.add(Metric::Duration, &values, [(bucket, 1)], 300, now);
        let mut text = String::new();
        tallies.render(&mut text, false);
        let series = "direction=\"outbound\",source=\"a\\\"\",target=\"b\",backend=\"b\"";
        for line in [
            "# TYPE pillion_request_duration_seconds histogram".to_owned(),
            format!("pillion_request_duration_seconds_bucket{{{series},le=\"0.000256\"}} 0"),
            format!("pillion_request_duration_seconds_bucket{{{series},le=\"0.000512\"}} 3"),
            format!("pillion_request_duration_seconds_bucket{{{series},le=\"33.554432\"}} 3"),
            format!("pillion_request_duration_seconds_bucket{{{series},le=\"+Inf\"}} 4"),
            format!("pillion_request_duration_seconds_sum{{{series}}} 0.0009"),
            format!("pillion_request_duration_seconds_count{{{series}}} 4"),
        ] {
            assert!(text.lines().any(|it| it == line), "{line} in {text}");
        }
        tallies.forget(Duration::from_secs(1), now + Duration::from_secs(2));
        text.clear();
        tallies.render(&mut text, false);
        assert_eq!(text, "");
    }
}
