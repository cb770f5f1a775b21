//! Since when each condition of a document's status is what it is, as far as this server has seen.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use super::{Documents, Key};

/// A condition: of which document, of which of its parents or targets, of which type.
type Place = (Key, usize, &'static str);

/// Of all conditions that were ever shown, of documents that are there. Statuses are worked out when they are asked for, so a
/// change is seen when the document is shown next; of what was never shown before, nothing is known but that it is not older
/// than its document.
#[derive(Debug, Default)]
pub struct Transitions(Mutex<All>);

#[derive(Debug, Default)]
struct All {
    seen: BTreeMap<Place, Seen>,
    /// With so many it is worth looking for those of documents that are gone.
    worth_looking: usize,
}

/// Fewer are never looked through.
const FEW: usize = 64;

#[derive(Debug)]
struct Seen {
    /// Of the document: another one of that name begins anew.
    uid: String,
    holds: bool,
    since: String,
}

impl Transitions {
    /// Since when a condition holds, or does not, of a document made at `created`; times are RFC 3339.
    pub(super) fn since(&self, place: Place, uid: &str, holds: bool, created: &str, now: &str) -> String {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = all.seen.entry(place).or_insert_with(|| Seen {
            uid: uid.to_owned(),
            holds,
            since: created.to_owned(),
        });
        if seen.uid != uid {
            *seen = Seen { uid: uid.to_owned(), holds, since: created.to_owned() };
        } else if seen.holds != holds {
            (seen.holds, seen.since) = (holds, now.to_owned());
        }
        seen.since.clone()
    }

    /// Lets go of documents that are no longer there, whenever there could be twice as many as were left the last time: so what is
    /// kept has a bound, and who asks for one document does not wait for a look at all.
    pub(super) fn keep(&self, documents: &Documents) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.seen.len() >= all.worth_looking.max(FEW) {
            all.seen.retain(|(key, ..), _| documents.get(key).is_some());
            all.worth_looking = all.seen.len() * 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Kind;

    #[test]
    fn a_condition_keeps_its_time_until_it_turns() {
        let transitions = Transitions::default();
        let place = |index: usize, kind: &'static str| (Key::new(Kind::Service, "demo", "web"), index, kind);
        let since = |place, uid, holds, now| transitions.since(place, uid, holds, "made", now);
        assert_eq!(since(place(0, "Accepted"), "a", true, "1"), "made");
        assert_eq!(since(place(0, "Accepted"), "a", true, "2"), "made");
        assert_eq!(since(place(0, "Accepted"), "a", false, "3"), "3");
        assert_eq!(since(place(0, "Accepted"), "a", false, "4"), "3");
        assert_eq!(since(place(1, "Accepted"), "a", true, "5"), "made", "another parent's");
        assert_eq!(since(place(0, "Accepted"), "b", false, "6"), "made", "another document");
        let left = || transitions.0.lock().unwrap().seen.len();
        transitions.keep(&Documents::default());
        assert_eq!(left(), 2, "they are few");
        for index in 0..FEW {
            since(place(index, "Usable"), "b", true, "7");
        }
        transitions.keep(&Documents::default());
        assert_eq!(left(), 0, "of documents that are gone");
    }
}
