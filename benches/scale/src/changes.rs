//! One thing changes at a time; the clock runs until the last sidecar that follows it has applied it.

use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::{Error, fleet::Fleet, server::Server};

/// From a change to the last one that applied it, milliseconds.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Latency {
    pub(crate) changes: usize,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
}

impl Latency {
    fn of(mut taken: Vec<Duration>) -> Self {
        taken.sort_unstable();
        let ms = |share: f64| {
            let rank = ((taken.len() as f64 * share).ceil() as usize).clamp(1, taken.len());
            taken[rank - 1].as_secs_f64() * 1000.0
        };
        Self { changes: taken.len(), p50_ms: ms(0.5), p99_ms: ms(0.99), max_ms: ms(1.0) }
    }
}

/// What the control plane spent on changes, beyond what it spends in as much time without any.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Cost {
    /// Median over the rounds, milliseconds of CPU for each change.
    pub(crate) cpu_ms: f64,
    /// Each round's.
    pub(crate) rounds_ms: Vec<f64>,
    /// Of the changed service.
    pub(crate) subscribers: usize,
    /// CPU while nothing changed, percent of one core: heartbeats and reports.
    pub(crate) idle_percent: f64,
}

/// The kinds of changes that reach sidecars.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Changes {
    /// An instance becomes ready or unready.
    pub(crate) health: Latency,
    /// An instance says goodbye.
    pub(crate) leave: Latency,
    /// An instance starts: with connecting and the TLS handshake.
    pub(crate) join: Latency,
    /// A document is replaced over the API.
    pub(crate) document: Latency,
    pub(crate) cost: Cost,
}

/// Rounds of changes, each beside as long a time without any.
const ROUNDS: usize = 6;
/// The least that a round without changes takes: several rounds of reports.
const LEAST_QUIET: Duration = Duration::from_secs(2);

/// Makes changes and counts what they take.
pub(crate) async fn measure(server: &Server, fleet: &mut Fleet, changes: usize) -> Result<Changes, Error> {
    let (health, cost) = health(server, fleet, changes).await?;
    let (mut leave, mut join, mut document) = (Vec::new(), Vec::new(), Vec::new());
    for change in 0..changes {
        let service = pick(fleet, change);
        let instance = fleet.mesh.servers_of(service).last().ok_or("the service has no instance")?;

        let started = Instant::now();
        fleet.sidecars[instance].deregister();
        fleet.left[instance] = true;
        fleet.know(service, None).await?;
        leave.push(started.elapsed());

        let started = Instant::now();
        fleet.sidecars[instance].start_again(&server.address());
        fleet.left[instance] = false;
        fleet.know(service, Some(instance)).await?;
        join.push(started.elapsed());
        fleet.sidecars[instance].follow().await?;

        let timeout_ms = fleet.timeouts_ms[service] + 1;
        let started = Instant::now();
        fleet.timeouts_ms[service] = timeout_ms;
        let (replaced, known) =
            tokio::join!(server.set_timeout(service, timeout_ms), fleet.know(service, None));
        replaced.and(known)?;
        document.push(started.elapsed());
    }
    let (leave, join, document) = (Latency::of(leave), Latency::of(join), Latency::of(document));
    Ok(Changes { health, leave, join, document, cost })
}

async fn health(server: &Server, fleet: &Fleet, changes: usize) -> Result<(Latency, Cost), Error> {
    let (mut taken, mut rounds_ms, mut idle) = (Vec::new(), Vec::new(), Vec::new());
    let each = changes.div_ceil(ROUNDS);
    for round in 0..ROUNDS {
        let (started, cpu) = (Instant::now(), server.cpu()?);
        for change in round * each..(round + 1) * each {
            taken.push(flap(fleet, pick(fleet, change)).await?);
        }
        let (busy, busy_cpu) = (started.elapsed(), server.cpu()?.saturating_sub(cpu));

        let (started, cpu) = (Instant::now(), server.cpu()?);
        sleep(busy.max(LEAST_QUIET)).await;
        let quiet = (server.cpu()? - cpu).as_secs_f64() / started.elapsed().as_secs_f64();
        idle.push(quiet);
        rounds_ms.push((busy_cpu.as_secs_f64() - quiet * busy.as_secs_f64()) * 1000.0 / each as f64);
    }
    let cost = Cost {
        cpu_ms: median(&rounds_ms),
        rounds_ms,
        subscribers: fleet.callers(0).len(),
        idle_percent: median(&idle) * 100.0,
    };
    Ok((Latency::of(taken), cost))
}

/// An instance's application becomes ready, or unready.
pub(crate) async fn flap(fleet: &Fleet, service: usize) -> Result<Duration, Error> {
    let instance = fleet.mesh.servers_of(service).next().ok_or("the service has no instance")?;
    let instance = &fleet.sidecars[instance];
    let started = Instant::now();
    instance.set_ready(!instance.is_ready());
    fleet.know(service, None).await?;
    Ok(started.elapsed())
}

/// Services in an order that is not that of their names.
pub(crate) fn pick(fleet: &Fleet, change: usize) -> usize {
    change * 37 % fleet.mesh.served()
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let latency = Latency::of((1..=100).rev().map(Duration::from_millis).collect());
        assert_eq!((latency.p50_ms, latency.p99_ms, latency.max_ms), (50.0, 99.0, 100.0));
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
