//! What this sidecar holds of each service it follows, by version; what it makes of updates.

use std::{collections::BTreeMap, sync::Arc};

use pillion_api::{
    digest,
    model::{self, Endpoint, Service},
    name::ServiceName,
    wire::{self, Acknowledge, Subscribe, Update, update::Kind},
};
use prost::Message;
use tokio::sync::watch;

use super::{directory::Snapshot, own::OwnPolicies};

/// Everything that is followed.
#[derive(Debug, Default)]
pub struct Holdings {
    services: BTreeMap<ServiceName, Held>,
    /// It is known to which services this workload belongs.
    told: bool,
}

#[derive(Debug)]
struct Held {
    seen: watch::Sender<Snapshot>,
    config: Option<Arc<Service>>,
    endpoints: Option<Arc<Vec<Endpoint>>>,
    /// This workload belongs to it.
    own: bool,
    /// Nobody calls it: its endpoints are of no use.
    config_only: bool,
    /// The last received, be they applied or refused: what the control plane need not send again.
    config_version: String,
    endpoints_version: String,
}

impl Holdings {
    /// How many services are followed.
    pub fn len(&self) -> usize {
        self.services.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// Follows a service, if it is not followed yet; then there is something to ask the control plane for.
    pub fn follow(&mut self, service: &ServiceName) -> (watch::Receiver<Snapshot>, Option<Subscribe>) {
        if let Some(held) = self.services.get_mut(service) {
            let more = std::mem::take(&mut held.config_only);
            return (held.seen.subscribe(), more.then(|| held.subscription(service)));
        }
        let (seen, receiver) = watch::channel(Snapshot::Pending);
        let held = self.services.entry(service.clone()).or_insert(Held::new(seen));
        (receiver, Some(held.subscription(service)))
    }

    /// This workload belongs to these services: their configuration is followed, too. Gives what there is to ask the
    /// control plane for.
    pub fn belong_to(&mut self, services: &[ServiceName]) -> Vec<Subscribe> {
        self.told = true;
        for (name, held) in &mut self.services {
            held.own = services.contains(name);
        }
        let mut ask = Vec::new();
        for service in
            services.iter().filter(|service| !self.services.contains_key(*service)).collect::<Vec<_>>()
        {
            let (seen, _) = watch::channel(Snapshot::Pending);
            let held = Held { own: true, config_only: true, ..Held::new(seen) };
            ask.push(held.subscription(service));
            self.services.insert(service.clone(), held);
        }
        ask
    }

    /// What is known of the services that this workload belongs to.
    pub fn own_policies(&self) -> OwnPolicies {
        let own = || self.services.values().filter(|held| held.own);
        let complete = self.told && own().all(|held| held.config.is_some());
        OwnPolicies::new(own().filter_map(|held| held.config.clone())).completed(complete)
    }

    /// Forgets what no worker follows any more, and says which.
    pub fn sweep(&mut self) -> Vec<ServiceName> {
        let unused = self.services.iter().filter(|(_, held)| held.seen.is_closed() && !held.own);
        let gone: Vec<_> = unused.map(|(name, _)| name.clone()).collect();
        for name in &gone {
            self.services.remove(name);
        }
        gone
    }

    /// Asks again for everything, saying what is here already.
    pub fn subscriptions(&self) -> impl Iterator<Item = Subscribe> {
        self.services.iter().map(|(service, held)| held.subscription(service))
    }

    /// A digest of everything, to be compared with the control plane's.
    pub fn digest(&self) -> String {
        digest::holdings(
            self.services
                .iter()
                .map(|(service, held)| (service.as_str(), &*held.config_version, &*held.endpoints_version)),
        )
    }

    /// Takes in an update, whole or not at all. `None`: it is for a service that is not followed any more.
    pub fn apply(&mut self, update: Update) -> Option<Acknowledge> {
        let held = self.services.get_mut(&update.service.parse::<ServiceName>().ok()?)?;
        let refusal = held.apply(&update).err().unwrap_or_default();
        let Update { service, kind, version, .. } = update;
        Some(Acknowledge { service, kind, version, refusal })
    }
}

impl Held {
    fn new(seen: watch::Sender<Snapshot>) -> Self {
        Self {
            seen,
            config: None,
            endpoints: None,
            own: false,
            config_only: false,
            config_version: String::new(),
            endpoints_version: String::new(),
        }
    }

    /// Asks for it, saying what is here already.
    fn subscription(&self, service: &ServiceName) -> Subscribe {
        Subscribe {
            service: service.to_string(),
            config_version: self.config_version.clone(),
            endpoints_version: self.endpoints_version.clone(),
            config_only: self.config_only,
        }
    }

    fn apply(&mut self, update: &Update) -> Result<(), String> {
        match Kind::try_from(update.kind) {
            Ok(Kind::Config) => {
                self.config_version.clone_from(&update.version);
                let config =
                    wire::ServiceConfig::decode(&*update.payload).map_err(|error| error.to_string())?;
                let service = Service::try_from(config).map_err(|refused| refused.to_string())?;
                self.config = Some(Arc::new(service));
            }
            Ok(Kind::Endpoints) => {
                self.endpoints_version.clone_from(&update.version);
                let list = wire::EndpointList::decode(&*update.payload).map_err(|error| error.to_string())?;
                let endpoints = model::endpoints(&list).map_err(|refused| refused.to_string())?;
                self.endpoints = Some(Arc::new(endpoints));
            }
            Ok(Kind::Absent) => {
                (self.config, self.endpoints) = (None, None);
                self.config_version.clear();
                self.endpoints_version.clear();
                self.seen.send_replace(Snapshot::Absent);
                return Ok(());
            }
            Ok(Kind::Unspecified) | Err(_) => {
                return Err(format!("kind {} is not known to this version", update.kind));
            }
        }
        if let (Some(config), Some(endpoints)) = (&self.config, &self.endpoints) {
            self.seen.send_replace(Snapshot::Present(config.clone(), endpoints.clone()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(kind: Kind, version: &str, payload: Vec<u8>) -> Update {
        Update { service: "a.n".into(), kind: kind.into(), version: version.into(), payload: payload.into() }
    }

    fn config() -> Vec<u8> {
        wire::ServiceConfig { service: "a.n".into(), ..Default::default() }.encode_to_vec()
    }

    fn config_with_port() -> Vec<u8> {
        let ports = vec![wire::ServicePort { port: 80, target_port: 8080, ..Default::default() }];
        wire::ServiceConfig { service: "a.n".into(), ports, ..Default::default() }.encode_to_vec()
    }

    #[test]
    fn a_service_is_known_when_both_parts_are() {
        let mut holdings = Holdings::default();
        let (seen, asked) = holdings.follow(&"a.n".parse().expect("a name"));
        assert!(asked.is_some());
        holdings.apply(update(Kind::Config, "1", config()));
        assert!(matches!(*seen.borrow(), Snapshot::Pending));
        holdings.apply(update(Kind::Endpoints, "2", Vec::new()));
        assert!(matches!(*seen.borrow(), Snapshot::Present(..)));
        assert_eq!(holdings.digest(), digest::holdings([("a.n", "1", "2")]));
        holdings.apply(update(Kind::Absent, "", Vec::new()));
        assert!(matches!(*seen.borrow(), Snapshot::Absent));
    }

    #[test]
    fn a_refused_update_changes_nothing_but_is_not_wanted_again() {
        let mut holdings = Holdings::default();
        let (seen, _) = holdings.follow(&"a.n".parse().expect("a name"));
        holdings.apply(update(Kind::Config, "1", config()));
        holdings.apply(update(Kind::Endpoints, "1", Vec::new()));
        for payload in [b"\xff\xff".to_vec(), wire::ServiceConfig::default().encode_to_vec()] {
            let answer = holdings.apply(update(Kind::Config, "2", payload)).expect("followed");
            assert!(!answer.refusal.is_empty());
            assert_eq!(answer.version, "2");
        }
        assert!(matches!(&*seen.borrow(), Snapshot::Present(config, _) if config.name.as_str() == "a.n"));
        assert_eq!(holdings.digest(), digest::holdings([("a.n", "2", "1")]));
        let unknown = Update { kind: 77, ..update(Kind::Config, "3", Vec::new()) };
        assert!(holdings.apply(unknown).expect("followed").refusal.contains("77"));
    }

    #[test]
    fn a_workloads_own_services_are_followed_by_configuration_until_somebody_calls_them() {
        let name: ServiceName = "a.n".parse().expect("a name");
        let mut holdings = Holdings::default();
        let asked = holdings.belong_to(std::slice::from_ref(&name));
        assert!(asked.len() == 1 && asked[0].config_only);
        assert!(holdings.belong_to(std::slice::from_ref(&name)).is_empty());
        assert!(holdings.own_policies().same(&OwnPolicies::default()));
        holdings.apply(update(Kind::Config, "1", config_with_port()));
        assert!(holdings.own_policies().serves(8080, &name) && holdings.own_policies().is_complete());
        assert_eq!(holdings.digest(), digest::holdings([("a.n", "1", "")]));
        assert!(holdings.sweep().is_empty());

        let (seen, asked) = holdings.follow(&name);
        let asked = asked.expect("its endpoints are wanted");
        assert_eq!((asked.config_only, &*asked.config_version), (false, "1"));
        assert!(matches!(*seen.borrow(), Snapshot::Pending));
        holdings.apply(update(Kind::Endpoints, "2", Vec::new()));
        assert!(matches!(*seen.borrow(), Snapshot::Present(..)));

        assert!(holdings.belong_to(&[]).is_empty());
        assert!(holdings.own_policies().ports().next().is_none() && holdings.sweep().is_empty());
        drop(seen);
        assert_eq!(holdings.sweep(), [name]);
    }

    #[test]
    fn what_nobody_follows_is_forgotten() {
        let mut holdings = Holdings::default();
        let (seen, _) = holdings.follow(&"a.n".parse().expect("a name"));
        assert!(holdings.sweep().is_empty());
        drop(seen);
        assert_eq!(holdings.sweep(), ["a.n".parse::<ServiceName>().expect("a name")]);
        assert!(holdings.is_empty() && holdings.apply(update(Kind::Config, "1", config())).is_none());
    }
}
