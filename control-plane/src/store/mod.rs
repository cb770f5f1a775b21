//! Where documents and the server's own state are kept: a small transactional key-value store.
//!
//! [`Store`] is the seam behind which one embedded file, etcd or Kubernetes' API can stand.

pub mod embedded;

use async_trait::async_trait;
use tokio::sync::watch;

/// What is kept apart from what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bucket {
    /// What people apply: `<Kind>/<namespace>/<name>`, as canonical JSON.
    Documents,
    /// Digests of join and API tokens.
    Tokens,
    /// Registered workloads by instance UID, so that a restart does not empty the mesh.
    Workloads,
    /// The certificate authority's keys and certificates.
    Authority,
    /// What changes with everything that a document has for itself alone: see `resource::claims`.
    Claims,
}

/// One stored value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Unique in its bucket.
    pub key: String,
    /// Opaque to the store.
    pub value: Vec<u8>,
    /// The store's revision that wrote it; a document's `resourceVersion`.
    pub revision: u64,
}

/// What must be true of a key for a change to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Whatever is there.
    Any,
    /// Nothing is there.
    Absent,
    /// This revision is there.
    Revision(u64),
}

/// One change of a transaction.
#[derive(Clone, Debug)]
pub struct Change {
    /// Where.
    pub bucket: Bucket,
    /// Which.
    pub key: String,
    /// The new value; `None` deletes.
    pub value: Option<Vec<u8>>,
    /// The condition; when one fails, none of the transaction's changes is made.
    pub expect: Expect,
}

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A change's `expect` did not hold.
    #[error("{key} is at revision {found:?}, not as expected ({expected:?})")]
    Conflict {
        /// The first key whose condition failed.
        key: String,
        /// What the change asked for.
        expected: Expect,
        /// What is there; `None`: nothing.
        found: Option<u64>,
    },
    /// Disk or network.
    #[error("the store failed: {0}")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A transactional key-value store with one global, growing revision.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// One value.
    async fn get(&self, bucket: Bucket, key: &str) -> Result<Option<Entry>, StoreError>;
    /// Everything in a bucket, by key.
    async fn list(&self, bucket: Bucket) -> Result<Vec<Entry>, StoreError>;
    /// All changes or none; on disk when it returns. Gives the new revision.
    async fn commit(&self, changes: Vec<Change>) -> Result<u64, StoreError>;
    /// Sees every new revision that changed something in a bucket (the latest, not each). What is written elsewhere wakes
    /// nobody. At first it is the newest of all: from then on nothing is older.
    fn revisions(&self, bucket: Bucket) -> watch::Receiver<u64>;
}
