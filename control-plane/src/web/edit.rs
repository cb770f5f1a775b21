//! Changes of documents: all of a request or nothing, in one transaction of the store.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use rand::Rng as _;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use utoipa::ToSchema;

use super::precondition::{Precondition, version};
use crate::{
    clock,
    resource::{
        Document, Documents, Fault, Key, Kind, admit,
        cache::DocumentCache,
        claims::{self, Guard},
        policy, references,
        standing::{self, FromSidecars},
    },
    store::{Bucket, Change, Expect, Store, StoreError},
};

/// What became of one document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It is new.
    Created,
    /// It was there and is different now.
    Configured,
    /// It was there just so.
    Unchanged,
    /// It is gone.
    Deleted,
}

/// One document of a change that was made.
#[derive(Clone, Debug)]
pub(super) struct Edited {
    /// What became of it.
    pub(super) outcome: Outcome,
    /// As it is now, or as it was last.
    pub(super) document: Document,
}

/// A change that was made, or would have been.
#[derive(Debug)]
pub(super) struct Edits {
    /// In the order of the request.
    pub(super) edited: Vec<Edited>,
    /// Of the store, when it was read: what was there is not older.
    pub(super) revision: u64,
    /// All documents as they were.
    pub(super) before: Arc<Documents>,
    /// And as they are now, or would be.
    pub(super) after: Documents,
}

impl Edits {
    /// What whoever makes the change should know.
    pub(super) fn warnings(&self, sidecars: FromSidecars) -> Vec<Fault> {
        let changed: Vec<Key> = self.edited.iter().map(|edit| edit.document.key()).collect();
        standing::warnings(&self.before, &self.after, &changed, sidecars, clock::now())
    }
}

/// Why nothing was changed.
#[derive(Debug)]
pub enum EditError {
    /// What is wanted is wrong.
    Invalid(Vec<Fault>),
    /// There is no such document to delete.
    Missing(Key),
    /// Somebody else changed it meanwhile, or a precondition does not hold.
    Stale(String),
    /// Other documents name it.
    InUse {
        /// What was to be deleted.
        key: Key,
        /// The others.
        users: Vec<Key>,
    },
    /// The store failed.
    Store(StoreError),
}

impl From<StoreError> for EditError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict { .. } => Self::Stale(error.to_string()),
            other => Self::Store(other),
        }
    }
}

/// Makes changes, one request after the other: what a request checks stays true until it is committed.
pub(super) struct Editor {
    store: Arc<dyn Store>,
    cache: Arc<DocumentCache>,
    one_at_a_time: Mutex<()>,
}

impl Editor {
    /// For the documents of a store.
    pub(super) fn new(store: Arc<dyn Store>, cache: Arc<DocumentCache>) -> Self {
        Self { store, cache, one_at_a_time: Mutex::new(()) }
    }

    /// Brings documents to what is wanted. With `dry_run` everything is checked and nothing changed.
    ///
    /// # Errors
    /// Why nothing was changed; of faults all.
    pub(super) async fn apply(
        &self,
        wanted: Vec<Document>,
        precondition: Precondition,
        dry_run: bool,
        now: SystemTime,
    ) -> Result<Edits, EditError> {
        let _turn = self.one_at_a_time.lock().await;
        // Another server may take what this one was about to give.
        for _ in 1..claims::ATTEMPTS {
            match self.try_apply(wanted.clone(), precondition, dry_run, now).await {
                Err(EditError::Store(error)) if Guard::was_overtaken(&error) => {}
                done => return done,
            }
        }
        self.try_apply(wanted, precondition, dry_run, now).await
    }

    async fn try_apply(
        &self,
        mut wanted: Vec<Document>,
        precondition: Precondition,
        dry_run: bool,
        now: SystemTime,
    ) -> Result<Edits, EditError> {
        let guard = Guard::read(self.store.as_ref()).await?;
        let (revision, before) = self.cache.current().await?;
        let current = &*before;
        if let Precondition::Seen(seen) = precondition {
            let keys: Vec<Key> = wanted.iter().map(Document::key).collect();
            seen.check(&keys, current)?;
        }
        let unsettled = settle(&mut wanted, current, now);
        let mut next = current.clone();
        let mut edits = Vec::with_capacity(wanted.len());
        let mut changes = Vec::new();
        for mut document in wanted {
            let key = document.key();
            let existing = current.get(&key);
            precondition.check(&key, version(&document), existing)?;
            let outcome = merge(&mut document, existing.map(Arc::as_ref), now);
            next.insert(document.clone());
            if outcome != Outcome::Unchanged {
                changes.push(Change {
                    bucket: Bucket::Documents,
                    key: key.to_stored(),
                    value: Some(document.to_stored()),
                    expect: existing.and_then(|it| version(it)).map_or(Expect::Absent, Expect::Revision),
                });
            }
            edits.push(Edited { outcome, document });
        }
        check_together(&edits, &next, unsettled)?;
        if !dry_run && !changes.is_empty() {
            if edits.iter().any(|it| it.outcome != Outcome::Unchanged && claims::concern(it.document.kind()))
            {
                changes.push(guard.change());
            }
            let committed = self.store.commit(changes).await.map_err(overtaken_or)?.to_string();
            for edit in edits.iter_mut().filter(|edit| edit.outcome != Outcome::Unchanged) {
                edit.document.metadata_mut().resource_version.clone_from(&committed);
            }
        }
        Ok(Edits { edited: edits, revision, before, after: next })
    }

    /// What is wrong with documents beside others, for a request of which some have faults: so that all of it is told at once.
    /// The numbers are places in the request.
    pub(super) async fn faults_beside_others(
        &self,
        read: &[(usize, &admit::Read)],
    ) -> Result<Vec<Fault>, StoreError> {
        let (_, current) = self.cache.current().await?;
        let documents: Vec<(usize, &Document, &[Fault])> = read
            .iter()
            .filter_map(|(index, read)| Some((*index, read.document.as_ref()?, &*read.faults)))
            .collect();
        let right: Vec<(usize, &Document)> = documents
            .iter()
            .filter_map(|(index, document, faults)| faults.is_empty().then_some((*index, *document)))
            .collect();
        // Nothing can be said of what these will be.
        let faulty = documents.iter().filter(|(.., faults)| !faults.is_empty());
        let unknown: Vec<Key> = faulty.map(|(_, document, _)| document.key()).collect();
        let mut next = Documents::clone(&current);
        right.iter().for_each(|(_, document)| next.insert((*document).clone()));
        let place = |index: usize, document: &Document, fault: Fault| Fault {
            document: Some(document.key().to_string()),
            index: Some(index),
            ..fault
        };
        let missing = documents.iter().flat_map(|(index, document, faults)| {
            let missing = references::missing_but(document, &next, &unknown, faults).into_iter();
            missing.map(move |fault| place(*index, document, fault))
        });
        let mut settled: Vec<Document> = right.iter().map(|(_, document)| (*document).clone()).collect();
        // Nor can be said which addresses there will be, where that is what has faults.
        let block_unknown = unknown.iter().any(|key| key.kind == Kind::MeshConfig);
        let unsettled = settle(&mut settled, &current, clock::now()).into_iter();
        let unsettled = unsettled.filter(|(_, fault)| !block_unknown || fault.field != "spec.clusterIP");
        let unsettled = unsettled.map(|(at, fault)| {
            let (index, document) = right[at];
            place(index, document, fault)
        });
        Ok(unsettled.chain(missing).collect())
    }

    /// Deletes documents. Those that others name (which are not deleted with them) only with `force`.
    ///
    /// # Errors
    /// Why nothing was deleted.
    pub(super) async fn delete(
        &self,
        keys: &[Key],
        precondition: Precondition,
        force: bool,
        dry_run: bool,
    ) -> Result<Edits, EditError> {
        let _turn = self.one_at_a_time.lock().await;
        let guard = Guard::read(self.store.as_ref()).await?;
        let (revision, before) = self.cache.current().await?;
        let mut next = Documents::clone(&before);
        let mut edits = Vec::with_capacity(keys.len());
        let mut changes = Vec::new();
        for key in keys {
            let Some(existing) = next.remove(key) else { return Err(EditError::Missing(key.clone())) };
            precondition.check(key, None, Some(&existing))?;
            changes.push(Change {
                bucket: Bucket::Documents,
                key: key.to_stored(),
                value: None,
                expect: version(&existing).map_or(Expect::Any, Expect::Revision),
            });
            edits.push(Edited { outcome: Outcome::Deleted, document: Document::clone(&existing) });
        }
        if let Precondition::Seen(seen) = precondition {
            seen.check(keys, &before)?;
        }
        if let Some(config) = keys.iter().find(|key| key.kind == Kind::MeshConfig) {
            if let Some(fault) = claims::stranded_by_default(&next) {
                let message = format!("without this document {}", fault.message);
                let fault = Fault { message, document: Some(config.to_string()), ..fault };
                return Err(EditError::Invalid(vec![fault]));
            }
            changes.push(guard.change());
        }
        for key in keys.iter().filter(|_| !force) {
            let users: Vec<Key> = references::users(key, &next).into_iter().cloned().collect();
            if !users.is_empty() {
                return Err(EditError::InUse { key: key.clone(), users });
            }
        }
        if !dry_run && !changes.is_empty() {
            self.store.commit(changes).await?;
        }
        Ok(Edits { edited: edits, revision, before, after: next })
    }
}

/// Adds what only the server can know: addresses, and when faults are over.
fn settle(wanted: &mut [Document], current: &Documents, now: SystemTime) -> Vec<(usize, Fault)> {
    let mut unsettled = claims::settle(wanted, current);
    for (index, document) in wanted.iter_mut().enumerate() {
        let key = document.key();
        let Document::TrafficPolicy(wanted) = document else { continue };
        let was = match current.get(&key).map(Arc::as_ref) {
            Some(Document::TrafficPolicy(was)) => was.spec.faults.as_deref(),
            _ => None,
        };
        let list = wanted.spec.faults.as_deref_mut().unwrap_or_default();
        let faults = policy::faults::settle(list, was.unwrap_or_default(), now);
        unsettled.extend(faults.into_iter().map(|fault| (index, fault)));
    }
    unsettled
}

/// What is wanted twice in one request.
pub(super) fn duplicates(wanted: &[(usize, &admit::Read)]) -> Vec<Fault> {
    let mut seen: BTreeMap<Key, usize> = BTreeMap::new();
    let mut faults = Vec::new();
    let named = wanted.iter().filter_map(|(index, read)| Some((*index, read.document.as_ref()?.key())));
    for (index, key) in named {
        let document = Some(key.to_string());
        if let Some(first) = seen.insert(key, index) {
            let message = format!("is in the request twice: documents {} and {}", first + 1, index + 1);
            faults.push(Fault { document, index: Some(index), ..Fault::new("metadata.name", message) });
        }
    }
    faults
}

/// Every document of the change must name only what is there when it is made, and have what is its own.
fn check_together(
    edits: &[Edited],
    next: &Documents,
    unsettled: Vec<(usize, Fault)>,
) -> Result<(), EditError> {
    let mut faults = Vec::new();
    let mut add = |index: usize, document: &Document, fault: Fault| {
        faults.push(Fault { document: Some(document.key().to_string()), index: Some(index), ..fault });
    };
    for (index, fault) in unsettled {
        add(index, &edits[index].document, fault);
    }
    for (index, edit) in edits.iter().enumerate() {
        let missing = references::missing(&edit.document, next);
        missing.into_iter().for_each(|fault| add(index, &edit.document, fault));
    }
    if faults.is_empty() { Ok(()) } else { Err(EditError::Invalid(faults)) }
}

/// That another server came before is no conflict of anybody's making: it is tried again.
fn overtaken_or(error: StoreError) -> EditError {
    if Guard::was_overtaken(&error) { EditError::Store(error) } else { error.into() }
}

/// Fills in what only the server writes, and says what the change is.
fn merge(document: &mut Document, existing: Option<&Document>, now: SystemTime) -> Outcome {
    let Some(existing) = existing else {
        let metadata = document.metadata_mut();
        metadata.uid = random_uuid();
        metadata.creation_timestamp = humantime::format_rfc3339_seconds(now).to_string();
        metadata.generation = 1;
        metadata.resource_version.clear();
        return Outcome::Created;
    };
    let same_spec = document.same_spec(existing);
    let was = existing.metadata();
    let metadata = document.metadata_mut();
    metadata.uid.clone_from(&was.uid);
    metadata.creation_timestamp.clone_from(&was.creation_timestamp);
    metadata.resource_version.clone_from(&was.resource_version);
    metadata.generation = was.generation + u64::from(!same_spec);
    if metadata == was && same_spec { Outcome::Unchanged } else { Outcome::Configured }
}

/// RFC 9562, version 4.
fn random_uuid() -> String {
    let random: u128 = rand::rng().random();
    let marked = (random & !(0xf << 76) & !(0b11 << 62)) | (4 << 76) | (0b10 << 62);
    let text = format!("{marked:032x}");
    [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_is_a_random_uuid() {
        let (one, other) = (random_uuid(), random_uuid());
        assert_ne!(one, other);
        assert_eq!(one.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        assert_eq!(&one[14..15], "4");
        assert!(matches!(&one[19..20], "8" | "9" | "a" | "b"));
    }
}
