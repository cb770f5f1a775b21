//! All documents of a store, read again only when the store has changed.

use std::sync::Arc;

use tokio::sync::Mutex;

use super::Documents;
use crate::store::{Bucket, Store, StoreError};

/// A view of a store's documents that is never older than the store's latest revision when it is asked. While no document
/// changes it gives the same `Arc`, whatever else is written to the store.
pub struct DocumentCache {
    store: Arc<dyn Store>,
    /// The store's revision when these were read, or an earlier one.
    cached: Mutex<(u64, Arc<Documents>)>,
}

impl std::fmt::Debug for DocumentCache {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("DocumentCache").finish_non_exhaustive()
    }
}

impl DocumentCache {
    /// The documents of a store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        // No store begins at this revision, so the first question reads it.
        Self { store, cached: Mutex::new((u64::MAX, Arc::default())) }
    }

    /// The documents and a revision that they are not older than.
    ///
    /// # Errors
    /// The store's.
    pub async fn current(&self) -> Result<(u64, Arc<Documents>), StoreError> {
        let mut cached = self.cached.lock().await;
        let revision = *self.store.revisions(Bucket::Documents).borrow();
        if cached.0 != revision {
            let (documents, faults) = cached.1.updated(self.store.list(Bucket::Documents).await?);
            for fault in faults {
                tracing::error!(%fault, "a stored document is left out");
            }
            cached.0 = revision;
            if !documents.are_the_same(&cached.1) {
                cached.1 = Arc::new(documents);
            }
        }
        Ok((cached.0, Arc::clone(&cached.1)))
    }
}
