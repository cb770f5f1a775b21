//! What sidecars refused and why, until they accept something newer, end the subscription or go away.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
};

use pillion_api::wire::update::Kind;

use super::lock;

/// One sidecar's refusal of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The service that was sent.
    pub service: String,
    /// `CONFIG` or `ENDPOINTS`.
    pub kind: Kind,
    /// What was refused.
    pub version: String,
    /// Who refused: the UID.
    pub uid: String,
    /// The sidecar's words.
    pub reason: String,
    /// Milliseconds since the Unix epoch.
    pub at_ms: i64,
}

/// Of one sidecar, by service and kind.
type OfSidecar = BTreeMap<(String, i32), Refusal>;

/// The standing refusals: per sidecar at most one for each kind of each of its subscriptions.
#[derive(Debug, Default)]
pub struct Refusals {
    by_sidecar: Mutex<BTreeMap<String, OfSidecar>>,
}

impl Refusals {
    /// Keeps a refusal in place of an older one; tells whether it is news.
    pub fn refused(&self, refusal: Refusal) -> bool {
        let key = (refusal.service.clone(), refusal.kind.into());
        let mut all = self.all();
        let of_sidecar = all.entry(refusal.uid.clone()).or_default();
        let known = of_sidecar.insert(key, refusal.clone());
        known.is_none_or(|known| known.version != refusal.version || known.reason != refusal.reason)
    }

    /// The sidecar accepted what it was sent.
    pub fn accepted(&self, uid: &str, service: &str, kind: Kind) {
        if let Some(of_sidecar) = self.all().get_mut(uid) {
            of_sidecar.remove(&(service.to_owned(), kind.into()));
        }
    }

    /// The sidecar needs this service no more.
    pub fn unsubscribed(&self, uid: &str, service: &str) {
        if let Some(of_sidecar) = self.all().get_mut(uid) {
            of_sidecar.retain(|(refused, _), _| refused != service);
        }
    }

    /// The sidecar's stream has ended.
    pub fn left(&self, uid: &str) {
        self.all().remove(uid);
    }

    /// Of one sidecar.
    pub fn of_sidecar(&self, uid: &str) -> Vec<Refusal> {
        self.all().get(uid).map(|of_sidecar| of_sidecar.values().cloned().collect()).unwrap_or_default()
    }

    /// All there are, by sidecar.
    pub fn list(&self) -> Vec<Refusal> {
        self.all().values().flat_map(BTreeMap::values).cloned().collect()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.all().values().map(BTreeMap::len).sum()
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, OfSidecar>> {
        lock(&self.by_sidecar)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(version: &str) -> Refusal {
        Refusal {
            service: "a.x".into(),
            kind: Kind::Config,
            version: version.into(),
            uid: "u".into(),
            reason: "unknown protocol".into(),
            at_ms: 0,
        }
    }

    #[test]
    fn a_refusal_stands_until_something_is_accepted() {
        let refusals = Refusals::default();
        assert!(refusals.refused(refusal("1")));
        assert!(!refusals.refused(refusal("1")), "the same again is no news");
        assert!(refusals.refused(refusal("2")));
        assert_eq!(refusals.of_sidecar("u"), [refusal("2")]);
        refusals.accepted("u", "a.x", Kind::Endpoints);
        assert_eq!(refusals.list().len(), 1);
        refusals.accepted("u", "a.x", Kind::Config);
        assert!(refusals.list().is_empty());
    }

    #[test]
    fn it_goes_with_the_subscription_and_with_the_sidecar() {
        let refusals = Refusals::default();
        refusals.refused(refusal("1"));
        refusals.unsubscribed("u", "a.x");
        assert!(refusals.list().is_empty());
        refusals.refused(refusal("1"));
        refusals.left("u");
        assert!(refusals.list().is_empty());
    }
}
