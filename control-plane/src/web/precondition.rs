//! What must be true of what is stored for a change to be made.

use std::{fmt, str::FromStr, sync::Arc};

use sha2::{Digest as _, Sha256};

use super::edit::EditError;
use crate::resource::{Document, Documents, Key};

/// What must be true for a change to be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Precondition {
    /// Nothing.
    #[default]
    None,
    /// There is such a document.
    Exists,
    /// There is none.
    Absent,
    /// It is at this `resourceVersion`.
    Version(u64),
    /// All documents of the request are as a dry run saw them.
    Seen(Seen),
}

impl Precondition {
    /// Of one document of a request, which may name the version that it is to replace itself.
    pub(super) fn check(
        self,
        key: &Key,
        sent: Option<u64>,
        existing: Option<&Arc<Document>>,
    ) -> Result<(), EditError> {
        let found = existing.and_then(|it| version(it));
        let is = || match found {
            Some(version) => format!("{key} is at resourceVersion {version}"),
            None => format!("there is no {key}"),
        };
        let expected = match self {
            Self::Version(version) => Some(version),
            Self::Exists if found.is_none() => return Err(EditError::Stale(is())),
            Self::Absent if found.is_some() => {
                return Err(EditError::Stale(format!("{}, and was to be new", is())));
            }
            Self::None | Self::Seen(_) | Self::Exists | Self::Absent => sent,
        };
        match expected {
            Some(expected) if found != Some(expected) => Err(EditError::Stale(format!(
                "{}, not at {expected} as expected; read it again and repeat the change",
                is()
            ))),
            _ => Ok(()),
        }
    }
}

/// The version that a document is at.
pub(super) fn version(document: &Document) -> Option<u64> {
    document.metadata().resource_version.parse().ok()
}

/// What a dry run saw of the documents that it was of: as short for thousands as for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Of the store, at most: whatever is newer has changed since.
    revision: u64,
    /// Of all names, each with its version.
    digest: u128,
}

/// Names that a refusal tells; more help nobody.
const NAMES: usize = 5;

impl Seen {
    /// Of these documents, in the order of the request.
    pub(super) fn of(keys: &[Key], documents: &Documents, revision: u64) -> Self {
        let mut hash = Sha256::new();
        for key in keys {
            let version = documents.get(key).and_then(|document| version(document)).unwrap_or_default();
            // No name holds a line's end.
            hash.update(format!("{}\n{version}\n", key.to_stored()));
        }
        let digest = *hash.finalize().first_chunk().expect("32 bytes");
        Self { revision, digest: u128::from_be_bytes(digest) }
    }

    /// That they still are as they were.
    ///
    /// # Errors
    /// Which are not.
    pub(super) fn check(self, keys: &[Key], documents: &Documents) -> Result<(), EditError> {
        if Self::of(keys, documents, self.revision) == self {
            return Ok(());
        }
        let found = keys.iter().map(|key| (key, documents.get(key).and_then(|document| version(document))));
        let newer = found.clone().filter_map(|(key, version)| {
            let version = version.filter(|version| *version > self.revision)?;
            Some(format!("{key} is at resourceVersion {version}"))
        });
        let newer = named(newer);
        if !newer.is_empty() {
            return stale(format!("{newer}, which the dry run has not seen; repeat it"));
        }
        let gone = named(found.filter(|(_, version)| version.is_none()).map(|(key, _)| key.to_string()));
        if !gone.is_empty() {
            return stale(format!("there is no {gone}, which the dry run may have seen; repeat it"));
        }
        stale("the dry run was of other documents; repeat it with these".to_owned())
    }
}

fn stale(detail: String) -> Result<(), EditError> {
    Err(EditError::Stale(detail))
}

fn named(names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names.collect();
    let first = names.iter().take(NAMES).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMES) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{:032x}", self.revision, self.digest)
    }
}

impl FromStr for Seen {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (revision, digest) = text.split_once('-').ok_or(())?;
        let digest = u128::from_str_radix(digest, 16).map_err(drop)?;
        Ok(Self { revision: revision.parse().map_err(drop)?, digest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Kind;

    #[test]
    fn what_was_seen_is_short_and_comes_back_as_it_was() {
        let keys: Vec<Key> =
            (0..10_000).map(|number| Key::new(Kind::Service, "demo", format!("s{number}"))).collect();
        let none = Documents::default();
        let seen = Seen::of(&keys, &none, u64::MAX - 1);
        let text = seen.to_string();
        assert!(text.len() < 60, "{text}");
        assert_eq!(text.parse(), Ok(seen));
        assert!(seen.check(&keys, &none).is_ok());
        let Err(EditError::Stale(others)) = seen.check(&keys[1..], &none) else { panic!("it was of others") };
        assert!(
            others.ends_with("Service demo/s5 and 9994 more, which the dry run may have seen; repeat it")
        );
        let [one, another] = [&keys[..1], &keys[1..2]].map(|keys| Seen::of(keys, &none, 0));
        assert_ne!(one, another);
    }
}
