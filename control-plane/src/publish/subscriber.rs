//! One sidecar's subscriptions: what it has been sent, and what differs from what is compiled now.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use pillion_api::{
    digest,
    wire::{Resolve, Resolved, Update, update::Kind},
};

use super::{Mailbox, Publisher, lock};
use crate::compile::{CompiledService, Encoded, Name};

/// Per sidecar: what an application really calls is far less.
pub const MAX_SUBSCRIPTIONS: usize = 4096;

/// What the sidecar has of one service, as far as has been sent on this stream or it said itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Held {
    config: Arc<str>,
    endpoints: Arc<str>,
    /// It knows that there is no such service.
    absent: bool,
    /// It does not want the endpoints.
    config_only: bool,
}

/// One sidecar's side of the publisher.
pub struct Subscriber {
    publisher: Arc<Publisher>,
    id: u64,
    uid: String,
    mailbox: Arc<Mailbox>,
    held: BTreeMap<Name, Held>,
}

/// There are [`MAX_SUBSCRIPTIONS`] already.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sidecar has {MAX_SUBSCRIPTIONS} already")]
pub struct TooMany;

impl Subscriber {
    pub(super) fn new(publisher: Arc<Publisher>, id: u64, uid: String) -> Self {
        Self { publisher, id, uid, mailbox: Arc::default(), held: BTreeMap::new() }
    }

    /// Asks for a service, of which the sidecar has these versions (empty: none). Asking again compares anew.
    ///
    /// # Errors
    /// [`TooMany`]; those there are stay.
    pub fn subscribe(
        &mut self,
        service: &str,
        config_version: &str,
        endpoints_version: &str,
    ) -> Result<(), TooMany> {
        let (config, endpoints) = (config_version.into(), endpoints_version.into());
        self.hold(service, Held { config, endpoints, ..Held::default() })
    }

    /// The same for a service's configuration alone.
    ///
    /// # Errors
    /// [`TooMany`]; those there are stay.
    pub fn subscribe_to_config(&mut self, service: &str, config_version: &str) -> Result<(), TooMany> {
        self.hold(service, Held { config: config_version.into(), config_only: true, ..Held::default() })
    }

    fn hold(&mut self, service: &str, held: Held) -> Result<(), TooMany> {
        let name = match self.held.get_key_value(service) {
            Some((name, _)) => Name::clone(name),
            None if self.held.len() >= MAX_SUBSCRIPTIONS => return Err(TooMany),
            None => self.enter(service),
        };
        self.mailbox.mark(&name);
        self.held.insert(name, held);
        Ok(())
    }

    /// Ends a subscription; tells whether there was one.
    pub fn unsubscribe(&mut self, service: &str) -> bool {
        if self.held.remove(service).is_none() {
            return false;
        }
        lock(&self.mailbox.dirty).remove(service);
        self.leave(service);
        true
    }

    /// Whether the sidecar subscribes to a service.
    pub fn subscribes(&self, service: &str) -> bool {
        self.held.contains_key(service)
    }

    /// Whether it does in order to call it, endpoints and all.
    pub fn follows(&self, service: &str) -> bool {
        self.held.get(service).is_some_and(|held| !held.config_only)
    }

    /// How many services the sidecar subscribes to.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether the sidecar subscribes to nothing.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Whether [`next_update`](Self::next_update) may have something.
    pub fn is_dirty(&self) -> bool {
        !lock(&self.mailbox.dirty).is_empty()
    }

    /// Returns when some service may have changed, or the services that the sidecar's workload belongs to.
    pub async fn changed(&self) {
        while !self.is_dirty() && !self.mailbox.moved.load(Ordering::Acquire) {
            self.mailbox.wake.notified().await;
        }
    }

    /// Whether the workload may belong to other services than when this was asked last.
    pub fn has_moved(&self) -> bool {
        self.mailbox.moved.swap(false, Ordering::AcqRel)
    }

    pub(super) fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    /// Compares every subscription again, so that a missed wake-up heals by the next heartbeat.
    pub fn recheck(&self) {
        lock(&self.mailbox.dirty).extend(self.held.keys().cloned());
    }

    /// The next thing to send, which then counts as sent. One at a time: what is not taken is not queued.
    pub fn next_update(&mut self) -> Option<Update> {
        loop {
            // Taken out before the comparison: a change in between puts it back.
            let service = lock(&self.mailbox.dirty).pop_first()?;
            let Some(held) = self.held.get_mut(&service) else { continue };
            let compiled = self.publisher.service(&service);
            if let Some(update) = difference(held, &service, compiled.as_deref()) {
                self.mailbox.mark(&service);
                return Some(update);
            }
        }
    }

    /// What a destination is now; see [`Publisher::resolve`].
    pub fn resolve(&self, question: Resolve, namespace: &str) -> Resolved {
        self.publisher.resolve(question, namespace)
    }

    /// A digest over what this sidecar has been sent.
    pub fn digest(&self) -> String {
        digest::holdings(
            self.held
                .iter()
                .map(|(service, held)| (service.as_ref(), held.config.as_ref(), held.endpoints.as_ref())),
        )
    }

    /// Will be woken when the service changes.
    fn enter(&self, service: &str) -> Name {
        let mut state = self.publisher.state();
        let name = state.name(service);
        let others = state.subscribers.entry(Name::clone(&name)).or_default();
        others.insert(self.id, Arc::clone(&self.mailbox));
        match state.subscriptions.get_mut(&self.uid) {
            Some(count) => *count += 1,
            None => drop(state.subscriptions.insert(self.uid.clone(), 1)),
        }
        name
    }

    fn leave(&self, service: &str) {
        let mut state = self.publisher.state();
        if let Some(others) = state.subscribers.get_mut(service) {
            others.remove(&self.id);
            if others.is_empty() {
                state.subscribers.remove(service);
            }
        }
        if let Some(count) = state.subscriptions.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                state.subscriptions.remove(&self.uid);
            }
        }
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.held.keys().for_each(|service| self.leave(service));
        let mut state = self.publisher.state();
        // A newer stream of the same workload has its own.
        if state.mailboxes.get(&self.uid).is_some_and(|known| Arc::ptr_eq(known, &self.mailbox)) {
            state.mailboxes.remove(&self.uid);
        }
    }
}

/// One step from what is held to what is compiled; `None` when they are the same.
fn difference(held: &mut Held, service: &str, compiled: Option<&CompiledService>) -> Option<Update> {
    let Some(compiled) = compiled else {
        if held.absent {
            return None;
        }
        *held = Held { absent: true, config_only: held.config_only, ..Held::default() };
        return Some(Update { service: service.to_owned(), kind: Kind::Absent.into(), ..Update::default() });
    };
    held.absent = false;
    if held.config != compiled.config.version {
        held.config.clone_from(&compiled.config.version);
        return Some(update(service, Kind::Config, &compiled.config));
    }
    if !held.config_only && held.endpoints != compiled.endpoints.version {
        held.endpoints.clone_from(&compiled.endpoints.version);
        return Some(update(service, Kind::Endpoints, &compiled.endpoints));
    }
    None
}

fn update(service: &str, kind: Kind, encoded: &Encoded) -> Update {
    Update {
        service: service.to_owned(),
        kind: kind.into(),
        version: encoded.version.to_string(),
        payload: encoded.bytes.clone(),
    }
}

#[cfg(test)]
mod tests {
    use pillion_api::wire;
    use prost::Message;

    use super::*;
    use crate::{compile::Changed, publish::LastCompile};

    /// Services as they are after a change, by name and port; port 0: there is none any more.
    fn changed(services: &[(&str, u32)]) -> Changed {
        let service = |(name, port): &(&str, u32)| {
            let ports = vec![wire::ServicePort { port: *port, ..wire::ServicePort::default() }];
            let config =
                wire::ServiceConfig { service: (*name).to_owned(), ports, ..wire::ServiceConfig::default() };
            let endpoints =
                wire::EndpointList { service: (*name).to_owned(), ..wire::EndpointList::default() };
            let compiled = CompiledService {
                config: Encoded::new(&config),
                endpoints: Encoded::new(&endpoints),
                reach: Arc::default(),
            };
            (Name::from(*name), (*port > 0).then(|| Arc::new(compiled)))
        };
        Changed { services: services.iter().map(service).collect(), ..Changed::default() }
    }

    fn publisher(services: &[(&str, u32)]) -> Arc<Publisher> {
        Arc::new(Publisher::new(changed(services), LastCompile::default()))
    }

    fn subscribe(subscriber: &mut Subscriber, service: &str) {
        subscriber.subscribe(service, "", "").expect("room");
    }

    fn sent(subscriber: &mut Subscriber) -> Vec<(String, Kind)> {
        std::iter::from_fn(|| subscriber.next_update())
            .map(|update| (update.service.clone(), update.kind()))
            .collect()
    }

    #[test]
    fn an_unknown_service_is_absent_at_once_and_sent_when_it_comes() {
        let publisher = publisher(&[]);
        let mut subscriber = publisher.subscriber("u");
        subscribe(&mut subscriber, "a.x");
        assert_eq!(sent(&mut subscriber), [("a.x".to_owned(), Kind::Absent)]);
        publisher.publish(changed(&[("a.x", 1)]), LastCompile::default());
        assert_eq!(
            sent(&mut subscriber),
            [("a.x".to_owned(), Kind::Config), ("a.x".to_owned(), Kind::Endpoints)]
        );
        publisher.publish(changed(&[("a.x", 0)]), LastCompile::default());
        assert_eq!(sent(&mut subscriber), [("a.x".to_owned(), Kind::Absent)]);
    }

    #[test]
    fn a_slow_sidecar_gets_only_the_newest_version() {
        let publisher = publisher(&[("a.x", 1001)]);
        let mut subscriber = publisher.subscriber("u");
        subscribe(&mut subscriber, "a.x");
        sent(&mut subscriber);
        for port in 1..=1000 {
            assert_eq!(publisher.publish(changed(&[("a.x", port)]), LastCompile::default()), 1);
        }
        let update = subscriber.next_update().expect("the newest");
        let config = wire::ServiceConfig::decode(update.payload).expect("a configuration");
        assert_eq!(config.ports[0].port, 1000);
        assert_eq!(sent(&mut subscriber), []);
    }

    #[test]
    fn whoever_wants_no_endpoints_is_sent_none_until_it_does() {
        let publisher = publisher(&[("a.x", 1)]);
        let mut subscriber = publisher.subscriber("u");
        subscriber.subscribe_to_config("a.x", "").expect("room");
        assert_eq!(sent(&mut subscriber), [("a.x".to_owned(), Kind::Config)]);
        let version = publisher.service("a.x").expect("it is there").config.version.to_string();
        assert_eq!(subscriber.digest(), digest::holdings([("a.x", &*version, "")]));
        publisher.publish(changed(&[("a.x", 0)]), LastCompile::default());
        publisher.publish(changed(&[("a.x", 2)]), LastCompile::default());
        assert_eq!(sent(&mut subscriber), [("a.x".to_owned(), Kind::Config)]);
        let version = publisher.service("a.x").expect("it is there").config.version.to_string();
        subscriber.subscribe("a.x", &version, "").expect("room");
        assert_eq!(sent(&mut subscriber), [("a.x".to_owned(), Kind::Endpoints)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_workload_hears_that_it_belongs_to_other_services() {
        let publisher = publisher(&[]);
        let subscriber = publisher.subscriber("u");
        let moves = |uid: &str| Changed {
            memberships: vec![(uid.to_owned(), ["a.x".into()].into())],
            ..Changed::default()
        };
        publisher.publish(moves("other"), LastCompile::default());
        assert!(!subscriber.has_moved());
        publisher.publish(moves("u"), LastCompile::default());
        subscriber.changed().await;
        assert!(subscriber.has_moved() && !subscriber.has_moved());
        // An older stream that ends late does not take the newer one's place.
        let newer = publisher.subscriber("u");
        drop(subscriber);
        publisher.publish(moves("u"), LastCompile::default());
        assert!(newer.has_moved());
        drop(newer);
        assert!(publisher.state().mailboxes.is_empty());
    }

    #[test]
    fn only_a_changed_service_wakes_and_only_its_subscribers() {
        let publisher = publisher(&[("a.x", 1), ("b.x", 1)]);
        let (mut one, mut other) = (publisher.subscriber("u"), publisher.subscriber("u"));
        subscribe(&mut one, "a.x");
        subscribe(&mut other, "b.x");
        sent(&mut one);
        sent(&mut other);
        assert_eq!(publisher.publish(changed(&[("a.x", 2)]), LastCompile::default()), 1);
        assert!(one.is_dirty());
        assert!(!other.is_dirty());
    }

    #[test]
    fn what_a_sidecar_has_already_is_not_sent_again() {
        let publisher = publisher(&[("a.x", 1)]);
        let now = publisher.service("a.x").expect("it is there");
        let mut subscriber = publisher.subscriber("u");
        let versions = (&*now.config.version, &*now.endpoints.version);
        subscriber.subscribe("a.x", versions.0, versions.1).expect("room");
        assert_eq!(sent(&mut subscriber), []);
        assert_eq!(subscriber.digest(), digest::holdings([("a.x", versions.0, versions.1)]));
    }

    #[test]
    fn resynchronising_sends_what_the_sidecar_says_it_lacks() {
        let publisher = publisher(&[("a.x", 1)]);
        let mut subscriber = publisher.subscriber("u");
        subscribe(&mut subscriber, "a.x");
        sent(&mut subscriber);
        subscribe(&mut subscriber, "a.x");
        assert_eq!(sent(&mut subscriber).len(), 2);
        assert_eq!(subscriber.len(), 1);
    }

    #[test]
    fn an_ended_subscription_is_forgotten_everywhere() {
        let publisher = publisher(&[("a.x", 1)]);
        let mut subscriber = publisher.subscriber("u");
        subscribe(&mut subscriber, "a.x");
        assert!(subscriber.unsubscribe("a.x"));
        assert!(!subscriber.unsubscribe("a.x"));
        assert_eq!(sent(&mut subscriber), []);
        subscribe(&mut subscriber, "a.x");
        drop(subscriber);
        assert!(publisher.state().subscribers.is_empty());
        assert_eq!(publisher.subscriptions_of("u"), 0);
    }

    #[test]
    fn subscriptions_are_bounded() {
        let publisher = publisher(&[]);
        let mut subscriber = publisher.subscriber("u");
        for index in 0..MAX_SUBSCRIPTIONS {
            subscribe(&mut subscriber, &format!("s{index}.x"));
        }
        assert_eq!(subscriber.subscribe("one-more.x", "", ""), Err(TooMany));
    }
}
