//! Recompiles when documents or workloads change, and publishes the result.

use std::{
    collections::BTreeSet,
    future::pending,
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout_at},
};
use tracing::{debug, warn};

use super::{LastCompile, Publisher, lock};
use crate::{
    clock::{self, unix_ms},
    compile::{Assembly, Changed},
    registry::Registry,
    resource::{Documents, cache::DocumentCache},
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
    cache: Arc<DocumentCache>,
    registry: Arc<Registry>,
    telemetry: Arc<Telemetry>,
    /// Those of the newest compile.
    documents: ArcSwap<Documents>,
    /// Locked only while compiling, which nobody does but [`run`](Self::run).
    assembly: Arc<Mutex<Assembly>>,
}

impl Compiler {
    /// Reads the store and compiles for the first time.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn start(
        store: Arc<dyn Store>,
        cache: Arc<DocumentCache>,
        registry: Arc<Registry>,
        telemetry: Arc<Telemetry>,
    ) -> Result<(Arc<Self>, Arc<Publisher>), StoreError> {
        let (revision, documents) = cache.current().await?;
        let (assembly, documents) = (Arc::default(), ArcSwap::new(documents));
        let compiler = Self { store, cache, registry, telemetry, documents, assembly };
        let workloads = compiler.registry.take_changes();
        let documents = compiler.documents();
        let (everything, last) = compiler
            .compile(revision, move |assembly| {
                let workloads = workloads.into_iter().filter_map(|(_, workload)| workload);
                *assembly = Assembly::at(unix_ms(), &documents, workloads);
                assembly.everything()
            })
            .await;
        Ok((Arc::new(compiler), Arc::new(Publisher::new(everything, last))))
    }

    /// The documents of the newest compile.
    pub fn documents(&self) -> Arc<Documents> {
        self.documents.load_full()
    }

    /// Compiles what documents and workloads touch whenever they change, for ever. A store that is slow, or fails, holds up
    /// documents, and not what is to be told of workloads.
    pub async fn run(&self, publisher: &Publisher) {
        let (mut revisions, mut workloads) =
            (self.store.revisions(Bucket::Documents), self.registry.changes());
        // What changed between the first compile and now is seen by the first round.
        revisions.mark_changed();
        loop {
            let over = tokio::select! {
                () = either_changed(&mut revisions, &mut workloads) => false,
                () = self.fault_over() => true,
            };
            settle(&mut revisions, &mut workloads).await;
            // It may be they who have changed.
            workloads.mark_changed();
            let mut reading = pin!(self.read());
            let (revision, documents) = loop {
                tokio::select! {
                    biased;
                    current = &mut reading => break current,
                    changed = workloads.changed() => changed.expect("the registry outlives the compiler"),
                }
                // Not `settle`: what happens to documents meanwhile is for the next round.
                sleep(QUIET).await;
                workloads.mark_unchanged();
                let members = self.registry.take_changes();
                if !members.is_empty() {
                    let known = publisher.last().revision;
                    let (changed, last) = self.compile(known, move |assembly| assembly.change(members)).await;
                    announce(publisher, changed, last);
                }
            };
            self.telemetry.store_revision.set(revision as f64);
            workloads.mark_unchanged();
            let members = self.registry.take_changes();
            let replaced = over || !Arc::ptr_eq(&documents, &self.documents.load());
            if members.is_empty() && !replaced {
                publisher.seen(revision);
                continue;
            }
            let (changed, last) = if replaced {
                self.documents.store(Arc::clone(&documents));
                let replace = move |assembly: &mut Assembly| {
                    assembly.set_time(unix_ms());
                    assembly.replace(&documents, members)
                };
                self.compile(revision, replace).await
            } else {
                self.compile(revision, move |assembly| assembly.change(members)).await
            };
            announce(publisher, changed, last);
        }
    }

    /// The documents as they are now, as soon as the store gives them.
    async fn read(&self) -> (u64, Arc<Documents>) {
        loop {
            match self.cache.current().await {
                Ok(current) => return current,
                Err(error) => {
                    warn!(%error, "documents could not be read; trying again");
                    sleep(STORE_RETRY).await;
                }
            }
        }
    }

    /// Returns when the next injected fault is over; never, where there is none.
    async fn fault_over(&self) {
        match self.documents.load().fault_ends(clock::now()) {
            Some(left) => sleep(left).await,
            None => pending().await,
        }
    }

    /// On a thread where it holds up no stream.
    async fn compile(
        &self,
        revision: u64,
        work: impl FnOnce(&mut Assembly) -> Changed + Send + 'static,
    ) -> (Changed, LastCompile) {
        let assembly = Arc::clone(&self.assembly);
        let work = tokio::task::spawn_blocking(move || {
            let mut assembly = lock(&assembly);
            let started = Instant::now();
            let changed = work(&mut assembly);
            let faults = assembly.faults().iter().map(ToString::to_string).collect();
            (changed, LastCompile { took: started.elapsed(), faults, revision }, assembly.workloads())
        });
        let (changed, last, workloads) =
            work.await.expect("compiling does not panic, and the runtime outlives it");
        self.telemetry.workloads.set(workloads as f64);
        self.telemetry.compiled(last.took);
        (changed, last)
    }
}

fn announce(publisher: &Publisher, changed: Changed, last: LastCompile) {
    let known = publisher.last().faults;
    if known != last.faults {
        let known: BTreeSet<&String> = known.iter().collect();
        for fault in last.faults.iter().filter(|fault| !known.contains(fault)) {
            warn!(fault, "a document could not be compiled as written");
        }
    }
    let took = last.took;
    let services = publisher.publish(changed, last);
    debug!(services, ?took, "compiled");
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
