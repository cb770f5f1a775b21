//! Recompiles when documents or workloads change, and publishes the result.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};
use tracing::{debug, warn};

use super::{LastCompile, Publisher};
use crate::{
    compile::{self, Compiled, Workload},
    registry::Registry,
    resource::{Documents, Fault},
    store::{Bucket, Store, StoreError},
    telemetry::Telemetry,
};

/// A compile waits for this long without another change …
const QUIET: Duration = Duration::from_millis(20);
/// … but a change waits no longer than this.
const PATIENCE: Duration = Duration::from_millis(200);
/// Between tries to read a store that fails.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// Keeps a [`Publisher`] up to date.
pub struct Compiler {
    store: Arc<dyn Store>,
    registry: Arc<Registry>,
    telemetry: Arc<Telemetry>,
    documents: ArcSwap<Documents>,
    /// The store's newest revision that `documents` has seen.
    revision: AtomicU64,
}

impl Compiler {
    /// Reads the store and compiles for the first time.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn start(
        store: Arc<dyn Store>,
        registry: Arc<Registry>,
        telemetry: Arc<Telemetry>,
    ) -> Result<(Arc<Self>, Arc<Publisher>), StoreError> {
        let compiler =
            Self { store, registry, telemetry, documents: ArcSwap::default(), revision: AtomicU64::new(0) };
        let faults = compiler.read().await?;
        let (compiled, last) = compiler.compile(faults).await;
        Ok((Arc::new(compiler), Arc::new(Publisher::new(compiled, last))))
    }

    /// The documents of the newest compile.
    pub fn documents(&self) -> Arc<Documents> {
        self.documents.load_full()
    }

    /// Compiles whenever something changed, for ever.
    pub async fn run(&self, publisher: &Publisher) {
        let (mut revisions, mut workloads) = (self.store.revisions(), self.registry.changes());
        // What changed between the first compile and now is seen by the first round.
        revisions.mark_changed();
        loop {
            either_changed(&mut revisions, &mut workloads).await;
            settle(&mut revisions, &mut workloads).await;
            let faults = loop {
                match self.read().await {
                    Ok(faults) => break faults,
                    Err(error) => {
                        warn!(%error, "documents could not be read; trying again");
                        tokio::time::sleep(STORE_RETRY).await;
                    }
                }
            };
            let (compiled, last) = self.compile(faults).await;
            for fault in last.faults.iter().filter(|fault| !publisher.last().faults.contains(fault)) {
                warn!(fault, "a document could not be compiled as written");
            }
            let took = last.took;
            let changed = publisher.publish(compiled, last);
            debug!(changed, ?took, "compiled");
        }
    }

    /// Reads documents anew if the store has changed; gives what could not be read.
    async fn read(&self) -> Result<Vec<Fault>, StoreError> {
        let revision = *self.store.revisions().borrow();
        let entries = self.store.list(Bucket::Documents).await?;
        let (documents, faults) = self.documents.load().updated(entries);
        self.documents.store(Arc::new(documents));
        self.revision.store(revision, Ordering::Relaxed);
        self.telemetry.store_revision.set(revision as f64);
        Ok(faults)
    }

    async fn compile(&self, mut faults: Vec<Fault>) -> (Compiled, LastCompile) {
        let (documents, workloads) = (self.documents(), self.registry.workloads());
        self.telemetry.workloads.set(workloads.len() as f64);
        let started = Instant::now();
        let (compiled, mut compile_faults) = compile_aside(documents, workloads).await;
        let took = started.elapsed();
        self.telemetry.compiled(took);
        faults.append(&mut compile_faults);
        let faults = faults.iter().map(ToString::to_string).collect();
        (compiled, LastCompile { took, faults, revision: self.revision.load(Ordering::Relaxed) })
    }
}

/// On a thread where it holds up no stream.
async fn compile_aside(documents: Arc<Documents>, workloads: Vec<Workload>) -> (Compiled, Vec<Fault>) {
    let work = tokio::task::spawn_blocking(move || compile::compile(&documents, &workloads));
    work.await.expect("compile does not panic, and the runtime outlives it")
}

async fn either_changed(revisions: &mut watch::Receiver<u64>, workloads: &mut watch::Receiver<u64>) {
    tokio::select! {
        changed = revisions.changed() => changed.expect("the store outlives the compiler"),
        changed = workloads.changed() => changed.expect("the registry outlives the compiler"),
    }
}

/// Waits until nothing has changed for [`QUIET`], at most [`PATIENCE`].
async fn settle(revisions: &mut watch::Receiver<u64>, workloads: &mut watch::Receiver<u64>) {
    let patience = Instant::now() + PATIENCE;
    loop {
        let quiet = Instant::now() + QUIET;
        if quiet >= patience {
            return sleep_until(patience).await;
        }
        if timeout_at(quiet, either_changed(revisions, workloads)).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_single_change_waits_a_little_and_a_storm_not_for_ever() {
        let (revision, workloads) = (watch::Sender::new(0), watch::Sender::new(0));
        let (mut revisions, mut members) = (revision.subscribe(), workloads.subscribe());
        let started = Instant::now();
        settle(&mut revisions, &mut members).await;
        assert_eq!(started.elapsed(), QUIET);

        let storm = async {
            loop {
                workloads.send_modify(|count| *count += 1);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let started = Instant::now();
        tokio::select! {
            () = settle(&mut revisions, &mut members) => {}
            () = storm => unreachable!("a storm has no end"),
        }
        assert!(started.elapsed() <= PATIENCE, "{:?}", started.elapsed());
        assert!(started.elapsed() >= PATIENCE - QUIET);
    }
}
