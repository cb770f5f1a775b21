//! The figures as JSON, as a table, and against what they must reach.

use std::{fmt::Write as _, fs, path::Path};

use serde::Serialize;
use serde_json::{Value, json};

use crate::{Error, plot, settings::Settings, step::Step};

/// With this many sidecars …
const MEASURED_AT: usize = 1000;
/// … a change is known everywhere within this, 99 of 100 times …
const MOST_LATENCY_MS: f64 = 250.0;
/// … and the control plane is resident in this, MB.
const MOST_MEMORY_MB: f64 = 150.0;
/// CPU for a change grows with the subscribers to the power of this, at most: 1 is linear, and some is noise.
const MOST_EXPONENT: f64 = 1.15;
/// CPU for a change in a mesh with five times the services and sidecars, but as many subscribers of each: 1 is what it
/// should be, and some is noise, and caches that are too small.
const MOST_BY_SIZE: f64 = 1.5;
/// Updates sent beyond those needed: a sidecar whose digest was of the moment before asks once more.
const MOST_SURPLUS: f64 = 0.01;

/// Everything that was measured.
pub(crate) struct Report {
    settings: Value,
    /// In most steps.
    services: usize,
    steps: Vec<Step>,
}

/// Something that must hold.
#[derive(Debug, Clone, Serialize)]
struct Bar {
    what: String,
    found: f64,
    most: f64,
    reached: bool,
}

/// How CPU for one change depends on the number of subscribers that are told.
#[derive(Debug, Clone, Copy, Serialize, PartialEq)]
pub(crate) struct Growth {
    /// With no subscriber, milliseconds; least squares.
    pub(crate) base_ms: f64,
    /// For each subscriber, microseconds.
    pub(crate) per_subscriber_us: f64,
    /// Of a power law through the first and the last.
    pub(crate) exponent: f64,
}

impl Report {
    /// Nothing yet.
    pub(crate) fn new(settings: &Settings) -> Self {
        let described = json!({
            "services": settings.services,
            "subscriptionsPerSidecar": settings.subscriptions,
            "changesOfEachKind": settings.changes,
            "cores": std::thread::available_parallelism().map_or(0, usize::from),
        });
        Self { settings: described, services: settings.services, steps: Vec::new() }
    }

    /// One more step.
    pub(crate) fn add(&mut self, step: Step) {
        self.steps.push(step);
    }

    /// Whether everything was right and every bar reached.
    pub(crate) fn is_well(&self) -> bool {
        self.bars().iter().all(|bar| bar.reached)
    }

    /// Writes `scale.json` and the plots.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), Error> {
        fs::create_dir_all(folder)?;
        let growth = self.growth();
        let all =
            json!({ "settings": self.settings, "steps": self.steps, "growth": growth, "bars": self.bars() });
        fs::write(folder.join("scale.json"), serde_json::to_string_pretty(&all)? + "\n")?;
        for (name, picture) in plot::all(&self.alike().collect::<Vec<_>>(), growth) {
            fs::write(folder.join(name), picture)?;
        }
        Ok(())
    }

    /// For people.
    pub(crate) fn summary(&self) -> String {
        let mut text = String::from(
            "sidecars/services  steady s  change→last ms p50/p99: health   leave        join         document     CPU ms/change  \
             idle CPU  MB        wire B     restart s  peak MB\n",
        );
        for step in &self.steps {
            let (changes, restart) = (&step.changes, &step.restart);
            let pair =
                |latency: &crate::changes::Latency| format!("{:.0}/{:.0}", latency.p50_ms, latency.p99_ms);
            writeln!(
                text,
                "{:<18} {:<9.1} {:>38} {:>10} {:>12} {:>12} {:>12.2} {:>10.1}% {:>7.1} {:>6}+{:<4} {:>9.1} {:>9.1}",
                format!("{}/{}", step.sidecars, step.services),
                step.joined.steady_s,
                pair(&changes.health),
                pair(&changes.leave),
                pair(&changes.join),
                pair(&changes.document),
                changes.cost.cpu_ms,
                changes.cost.idle_percent,
                step.resident_mb,
                step.wire.update_bytes,
                step.wire.acknowledge_bytes,
                restart.steady_s,
                restart.peak_mb,
            )
            .expect("a String takes what is written");
        }
        if let Some(growth) = self.growth() {
            let Growth { base_ms, per_subscriber_us, exponent } = growth;
            writeln!(
                text,
                "CPU for a change: {base_ms:.2} ms and {per_subscriber_us:.0} µs for each subscriber; exponent {exponent:.2}"
            )
            .expect("a String takes what is written");
        }
        for Bar { what, found, most, reached } in self.bars() {
            let word = if reached { "reached" } else { "MISSED" };
            writeln!(text, "{word}: {what}: {found:.2}, at most {most}")
                .expect("a String takes what is written");
        }
        text
    }

    /// The steps that differ in sidecars alone.
    fn alike(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|step| step.services == self.services)
    }

    fn growth(&self) -> Option<Growth> {
        let points: Vec<(f64, f64)> = self
            .alike()
            .map(|step| (step.changes.cost.subscribers as f64, step.changes.cost.cpu_ms))
            .collect();
        growth(&points)
    }

    fn bars(&self) -> Vec<Bar> {
        let mut bars = Vec::new();
        let mut bar = |what: String, found: f64, most: f64| {
            bars.push(Bar { what, found, most, reached: found <= most });
        };
        for step in &self.steps {
            let Step { sidecars, services, updates, .. } = step;
            let sidecars = format!("{sidecars} sidecars, {services} services");
            let surplus = updates.sent as f64 / updates.needed.max(1) as f64 - 1.0;
            bar(format!("{sidecars}: share of updates sent beyond those needed"), surplus, MOST_SURPLUS);
            bar(format!("{sidecars}: share of needed updates not sent"), -surplus, 0.0);
            bar(format!("{sidecars}: updates refused"), updates.refused as f64, 0.0);
        }
        for step in self.alike().filter(|step| step.sidecars == MEASURED_AT) {
            let changes = &step.changes;
            for (kind, latency) in [
                ("health", &changes.health),
                ("leave", &changes.leave),
                ("join", &changes.join),
                ("document", &changes.document),
            ] {
                bar(
                    format!("{MEASURED_AT}: {kind} → last applied, p99, ms"),
                    latency.p99_ms,
                    MOST_LATENCY_MS,
                );
            }
            let most = step.resident_mb.max(step.joined.resident_mb);
            bar(format!("{MEASURED_AT}: resident, MB"), most, MOST_MEMORY_MB);
        }
        for step in self.steps.iter().filter(|step| step.services != self.services) {
            let cost = &step.changes.cost;
            let Some(smaller) = self.alike().find(|other| other.changes.cost.subscribers == cost.subscribers)
            else {
                continue;
            };
            let what = format!(
                "CPU for a change with {} sidecars and {} services, against {} and {}, as many subscribers each",
                step.sidecars, step.services, smaller.sidecars, smaller.services
            );
            bar(what, cost.cpu_ms / smaller.changes.cost.cpu_ms, MOST_BY_SIZE);
        }
        if self.alike().count() > 1 {
            // What cannot be told has not been reached.
            let exponent = self.growth().map_or(f64::NAN, |growth| growth.exponent);
            bar("exponent of CPU for a change over subscribers".to_owned(), exponent, MOST_EXPONENT);
        }
        bars
    }
}

/// Of two points at least, with subscribers and milliseconds above zero.
fn growth(points: &[(f64, f64)]) -> Option<Growth> {
    // Of the two largest, where what does not depend on subscribers matters least.
    let [.., before, last] = points else { return None };
    if last.0 <= before.0 || before.1 <= 0.0 || last.1 <= 0.0 {
        return None;
    }
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (mean_x, mean_y) = (mean(|point| point.0), mean(|point| point.1));
    let covariance: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    let variance: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    let slope = covariance / variance;
    Some(Growth {
        base_ms: mean_y - slope * mean_x,
        per_subscriber_us: slope * 1000.0,
        exponent: (last.1 / before.1).ln() / (last.0 / before.0).ln(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_straight_line_is_found_again() {
        let line = growth(&[(10.0, 2.0), (20.0, 3.0), (40.0, 5.0)]).expect("enough points");
        assert!(
            (line.base_ms - 1.0).abs() < 1e-9 && (line.per_subscriber_us - 100.0).abs() < 1e-9,
            "{line:?}"
        );
        let proportional = growth(&[(10.0, 1.0), (100.0, 10.0)]).expect("enough points");
        assert!((proportional.exponent - 1.0).abs() < 1e-9);
        let square = growth(&[(10.0, 1.0), (100.0, 100.0)]).expect("enough points");
        assert!((square.exponent - 2.0).abs() < 1e-9);
        assert_eq!(growth(&[(10.0, 1.0)]), None);
    }
}
