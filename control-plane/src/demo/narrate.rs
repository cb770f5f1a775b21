//! Tells what happens in the mesh while the demo runs.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::watch;

use super::check::TROUBLED;
use super::console::Console;
use super::mesh::Mesh;
use super::scrape::Samples;
use super::traffic::Tally;

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often it sums up, in looks.
const SUM_UP_EVERY: u32 = 15;

/// Tells until `stop` turns true.
pub(super) async fn narrate(
    mesh: &mut Mesh,
    tally: &Tally,
    console: &Console,
    mut stop: watch::Receiver<bool>,
) {
    let mut last_event = mesh.api.mesh().await.map_or(0, |view| newest(&view.events));
    let mut told = BTreeSet::new();
    let mut before = Figures::default();
    for look in 1_u32.. {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        for casualty in mesh.casualties() {
            let text = format!("{} ended: {}", casualty.0, casualty.1);
            if told.insert(casualty) {
                console.event(&text);
            }
        }
        // Without a control plane the mesh goes on; there is just nothing to tell from it.
        if let Ok(mut view) = mesh.api.mesh().await {
            view.events.sort_by_key(|event| event.id);
            for event in view.events.iter().filter(|event| event.id > last_event) {
                console.event(&event.text);
            }
            last_event = last_event.max(newest(&view.events));
        }
        if look.is_multiple_of(SUM_UP_EVERY) {
            let caller = mesh.workload("cart-1").addresses.admin.to_string();
            if let Ok(samples) = mesh.api.metrics(&caller).await {
                let now = Figures::read(&samples, tally);
                console.event(&now.since(&before).to_string());
                before = now;
            }
        }
    }
}

fn newest(events: &[super::api::EventView]) -> u64 {
    events.iter().map(|event| event.id).max().unwrap_or(0)
}

/// Counts since the start, or of a while.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Figures {
    answered: u64,
    failed: u64,
    payments: u64,
    canary: u64,
    troubled: u64,
}

impl Figures {
    fn read(caller: &Samples, tally: &Tally) -> Self {
        let chosen = |label: &str, value: &str| {
            let labels = [("direction", "outbound"), ("target", "payments.demo"), (label, value)];
            caller.sum("pillion_requests_total", &labels) as u64
        };
        Self {
            answered: tally.answered(),
            failed: tally.failed(),
            payments: chosen("direction", "outbound"),
            canary: chosen("backend", "payments-v2.demo"),
            troubled: chosen("workload", TROUBLED),
        }
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            answered: self.answered - before.answered,
            failed: self.failed - before.failed,
            payments: self.payments.saturating_sub(before.payments),
            canary: self.canary.saturating_sub(before.canary),
            troubled: self.troubled.saturating_sub(before.troubled),
        }
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let percent = |part: u64| 100.0 * part as f64 / self.payments.max(1) as f64;
        write!(
            f,
            "{} requests answered, {} failed; of payments' requests {:.0} % went to version 2, {:.0} % to {TROUBLED}",
            self.answered,
            self.failed,
            percent(self.canary),
            percent(self.troubled),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_up_the_last_while_only() {
        let before = Figures { answered: 100, failed: 1, payments: 75, canary: 7, troubled: 20 };
        let now = Figures { answered: 700, failed: 1, payments: 525, canary: 52, troubled: 29 };
        assert_eq!(
            now.since(&before).to_string(),
            "600 requests answered, 0 failed; of payments' requests 10 % went to version 2, 2 % to payments-3"
        );
    }
}
