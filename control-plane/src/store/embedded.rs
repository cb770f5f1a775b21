//! The default [`Store`]: one crash-safe file in the data directory.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition, TableError};
use tokio::{
    sync::{Mutex, Semaphore, watch},
    task,
};

use super::{Bucket, Change, Entry, Expect, Store, StoreError};

/// Key → (revision that wrote it, value).
type Table = TableDefinition<'static, &'static str, (u64, &'static [u8])>;

const REVISION: TableDefinition<'static, &'static str, u64> = TableDefinition::new("revision");
const REVISION_KEY: &str = "current";

/// Bytes of the file kept in memory. Reading is seldom, and goes over whole buckets; redb itself would take up to 1 GiB.
const CACHE: usize = 16 << 20;

/// Who reads at a time, each on a thread that waits for the disk; as one at most writes, threads are left for what needs no
/// disk.
const READERS: usize = 2;

/// The file's name in the data directory.
pub const FILE_NAME: &str = "pillion.redb";

/// Why the store's file could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data directory could not be made.
    #[error("cannot make the data directory {path}: {source}")]
    Directory {
        /// The data directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Another process has it.
    #[error(
        "{path} is in use by another process: is a pillion server already running with this data directory?"
    )]
    InUse {
        /// The store's file.
        path: PathBuf,
    },
    /// Not a store, damaged beyond repair, or unreadable.
    #[error("cannot open {path}: {source}")]
    Unusable {
        /// The store's file.
        path: PathBuf,
        /// What the database said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A [`Store`] in one file. Each commit is on disk when it returns; a crash at any moment leaves the file at the last
/// commit or the one under way, never between.
#[derive(Debug)]
pub struct EmbeddedStore {
    database: Arc<Database>,
    writing: Arc<Mutex<()>>,
    reading: Semaphore,
    revisions: Arc<Revisions>,
}

/// The newest revision of each bucket.
#[derive(Debug)]
struct Revisions {
    documents: watch::Sender<u64>,
    tokens: watch::Sender<u64>,
    workloads: watch::Sender<u64>,
    authority: watch::Sender<u64>,
    claims: watch::Sender<u64>,
}

impl Revisions {
    fn new(revision: u64) -> Self {
        let start = || watch::Sender::new(revision);
        Self { documents: start(), tokens: start(), workloads: start(), authority: start(), claims: start() }
    }

    fn of(&self, bucket: Bucket) -> &watch::Sender<u64> {
        match bucket {
            Bucket::Documents => &self.documents,
            Bucket::Tokens => &self.tokens,
            Bucket::Workloads => &self.workloads,
            Bucket::Authority => &self.authority,
            Bucket::Claims => &self.claims,
        }
    }

    fn newest(&self) -> u64 {
        let all = [&self.documents, &self.tokens, &self.workloads, &self.authority, &self.claims];
        all.into_iter().map(|revision| *revision.borrow()).max().unwrap_or_default()
    }
}

impl EmbeddedStore {
    /// Opens or makes `<data_dir>/pillion.redb`. Blocks for as long as the disk takes; a file left by a crash is
    /// repaired here.
    pub fn open(data_dir: &Path) -> Result<Self, OpenError> {
        make_private_directory(data_dir)
            .map_err(|source| OpenError::Directory { path: data_dir.to_owned(), source })?;
        let path = data_dir.join(FILE_NAME);
        let unusable = |source: Box<dyn std::error::Error + Send + Sync>| OpenError::Unusable {
            path: path.clone(),
            source,
        };
        make_private_file(&path).map_err(|source| unusable(source.into()))?;
        let database =
            Database::builder().set_cache_size(CACHE).create(&path).map_err(|error| match error {
                DatabaseError::DatabaseAlreadyOpen => OpenError::InUse { path: path.clone() },
                other => unusable(other.into()),
            })?;
        let revision = current_revision(&database).map_err(|error| unusable(error.into()))?;
        let revisions = Arc::new(Revisions::new(revision));
        Ok(Self {
            database: Arc::new(database),
            writing: Arc::default(),
            reading: Semaphore::new(READERS),
            revisions,
        })
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let _turn = self.reading.acquire().await.expect("it is never closed");
        self.blocking(work).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let database = Arc::clone(&self.database);
        match task::spawn_blocking(move || work(&database)).await {
            Ok(outcome) => outcome,
            Err(error) => Err(unavailable(error)),
        }
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn get(&self, bucket: Bucket, key: &str) -> Result<Option<Entry>, StoreError> {
        let key = key.to_owned();
        self.read(move |database| {
            let transaction = database.begin_read().map_err(unavailable)?;
            let table = match transaction.open_table(table(bucket)) {
                Ok(table) => table,
                Err(TableError::TableDoesNotExist(_)) => return Ok(None),
                Err(error) => return Err(unavailable(error)),
            };
            let found = table.get(key.as_str()).map_err(unavailable)?;
            Ok(found.map(|found| {
                let (revision, value) = found.value();
                Entry { key, value: value.to_vec(), revision }
            }))
        })
        .await
    }

    async fn list(&self, bucket: Bucket) -> Result<Vec<Entry>, StoreError> {
        self.read(move |database| {
            let transaction = database.begin_read().map_err(unavailable)?;
            let table = match transaction.open_table(table(bucket)) {
                Ok(table) => table,
                Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                Err(error) => return Err(unavailable(error)),
            };
            let mut entries = Vec::new();
            for item in table.iter().map_err(unavailable)? {
                let (key, found) = item.map_err(unavailable)?;
                let (revision, value) = found.value();
                entries.push(Entry { key: key.value().to_owned(), value: value.to_vec(), revision });
            }
            Ok(entries)
        })
        .await
    }

    async fn commit(&self, changes: Vec<Change>) -> Result<u64, StoreError> {
        if changes.is_empty() {
            return Ok(self.revisions.newest());
        }
        let revisions = Arc::clone(&self.revisions);
        // The database takes one at a time; whoever waits for that waits here, not on a thread.
        let turn = Arc::clone(&self.writing).lock_owned().await;
        self.blocking(move |database| {
            let _turn = turn;
            let revision = write(database, &changes)?;
            // Announced on the blocking thread: a caller that stops waiting must not leave watchers behind.
            for bucket in changes.iter().map(|change| change.bucket).collect::<BTreeSet<_>>() {
                revisions.of(bucket).send_if_modified(|current| {
                    let newer = revision > *current;
                    *current = revision.max(*current);
                    newer
                });
            }
            Ok(revision)
        })
        .await
    }

    fn revisions(&self, bucket: Bucket) -> watch::Receiver<u64> {
        self.revisions.of(bucket).subscribe()
    }
}

/// One write transaction. Dropping it without `commit` (any early return) undoes all of it.
fn write(database: &Database, changes: &[Change]) -> Result<u64, StoreError> {
    let transaction = database.begin_write().map_err(unavailable)?;
    let revision = {
        let mut revisions = transaction.open_table(REVISION).map_err(unavailable)?;
        let previous = revisions.get(REVISION_KEY).map_err(unavailable)?.map_or(0, |found| found.value());
        let revision = previous + 1;
        revisions.insert(REVISION_KEY, revision).map_err(unavailable)?;
        for change in changes {
            let mut table = transaction.open_table(table(change.bucket)).map_err(unavailable)?;
            let key = change.key.as_str();
            let found = table.get(key).map_err(unavailable)?.map(|found| found.value().0);
            let as_expected = match change.expect {
                Expect::Any => true,
                Expect::Absent => found.is_none(),
                Expect::Revision(expected) => found == Some(expected),
            };
            if !as_expected {
                return Err(StoreError::Conflict { key: change.key.clone(), expected: change.expect, found });
            }
            match &change.value {
                Some(value) => table.insert(key, (revision, value.as_slice())).map_err(unavailable)?,
                None => table.remove(key).map_err(unavailable)?,
            };
        }
        revision
    };
    // redb's default durability: on disk (fsync) when this returns.
    transaction.commit().map_err(unavailable)?;
    Ok(revision)
}

fn current_revision(database: &Database) -> Result<u64, redb::Error> {
    match database.begin_read()?.open_table(REVISION) {
        Ok(table) => Ok(table.get(REVISION_KEY)?.map_or(0, |found| found.value())),
        Err(TableError::TableDoesNotExist(_)) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

fn table(bucket: Bucket) -> Table {
    TableDefinition::new(match bucket {
        Bucket::Documents => "documents",
        Bucket::Tokens => "tokens",
        Bucket::Workloads => "workloads",
        Bucket::Authority => "authority",
        Bucket::Claims => "claims",
    })
}

fn unavailable(error: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Unavailable(Box::new(error))
}

/// The store holds the authority's private key: nobody else may look into its folder.
fn make_private_directory(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// The folder may have been there before us with any mode, so the file itself is closed to others too, before anything is
/// written to it; one that an earlier release left open is closed. An empty file is a new database.
fn make_private_file(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
