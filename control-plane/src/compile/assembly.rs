//! What is compiled now, and what it was compiled from, so that a change costs what it touches: a workload's change the
//! services that it belongs to, however many others there are.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use pillion_api::wire;

use super::{
    CompiledService, Encoded, Location, Name, Reach, Workload, endpoint, policies, ports, routes,
    selectors::Selectors,
};
use crate::resource::{Documents, Fault, Key, references, service::ServiceSpec};

/// A workload's UID, and what it is now; `None`: it is gone.
pub type Member = (String, Option<Arc<Workload>>);

/// What a change made different.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changed {
    /// Services that are not what they were; `None`: there is no such service any more.
    pub services: Vec<(Name, Option<Arc<CompiledService>>)>,
    /// Workloads that serve others than before, by UID: all that they serve now, the first being the source of their
    /// requests. Empty: none, or the workload is gone.
    pub memberships: Vec<(String, Arc<[Name]>)>,
    /// Workloads that are found elsewhere than before, by UID. `None`: nowhere, or the workload is gone.
    pub locations: Vec<(String, Option<Location>)>,
    /// What holds for the whole mesh. `None`: what held before.
    pub settings: Option<wire::MeshSettings>,
}

/// Documents and workloads, and what they come to.
#[derive(Debug, Default)]
pub struct Assembly {
    services: BTreeMap<Name, Assembled>,
    selectors: Selectors,
    members: BTreeMap<String, Placed>,
    settings: wire::MeshSettings,
    /// Faults that were to end before are not compiled.
    now_ms: i64,
    /// Of documents among themselves.
    faults: Vec<Fault>,
    /// Of those services that have any, together with their workloads.
    faults_of: BTreeMap<Name, Vec<Fault>>,
}

/// One service.
#[derive(Debug)]
struct Assembled {
    key: Key,
    spec: ServiceSpec,
    /// What it is sent as, but for the ports.
    config: wire::ServiceConfig,
    serving: BTreeMap<String, Arc<Workload>>,
    /// `None` only before it is compiled for the first time.
    compiled: Option<Arc<CompiledService>>,
}

/// One workload.
#[derive(Debug)]
struct Placed {
    workload: Arc<Workload>,
    services: Arc<[Name]>,
}

/// Of one workload: whom it serves, and where it is found.
type Place = (Arc<[Name]>, Option<Location>);

impl Assembly {
    /// Compiles everything, as if no injected fault were over yet.
    pub fn new(documents: &Documents, workloads: impl IntoIterator<Item = Arc<Workload>>) -> Self {
        Self::at(i64::MIN, documents, workloads)
    }

    /// Compiles everything as it is at a time.
    pub fn at(
        now_ms: i64,
        documents: &Documents,
        workloads: impl IntoIterator<Item = Arc<Workload>>,
    ) -> Self {
        let mut assembly = Self { now_ms, ..Self::default() };
        let (policies, faults) = references::policies(documents);
        assembly.faults = faults;
        let mut routes = routes::by_parent(documents, &mut assembly.faults);
        assembly.settings = documents.mesh_config().to_wire();
        let services = documents.services(None).map(|(key, service)| (key, service.spec.clone(), None));
        let external = documents.external_services(None).map(|(key, service)| {
            let host = service.spec.host.clone();
            (key, service.spec.to_service(), Some(wire::External { host }))
        });
        for (key, spec, external) in services.chain(external) {
            let name = Name::from(key.to_wire());
            assembly.selectors.add(&key.namespace, &name, &spec);
            let config = wire::ServiceConfig {
                service: name.to_string(),
                ports: Vec::new(),
                routes: routes.remove(key).unwrap_or_default(),
                policy: policies.get(key).map(|policy| policies::to_wire(*policy, now_ms)),
                virtual_address: spec.virtual_address().map(|it| it.to_string()).unwrap_or_default(),
                external,
            };
            let assembled =
                Assembled { key: key.clone(), spec, config, serving: BTreeMap::new(), compiled: None };
            assembly.services.insert(name, assembled);
        }
        for workload in workloads {
            assembly.place(workload);
        }
        let names: Vec<Name> = assembly.services.keys().cloned().collect();
        for name in names {
            assembly.compile(&name);
        }
        assembly
    }

    /// Takes in changes of workloads, and compiles what they touch.
    pub fn change(&mut self, members: impl IntoIterator<Item = Member>) -> Changed {
        let (mut touched, mut changed) = (BTreeSet::new(), Changed::default());
        for (uid, workload) in members {
            let (before, was) = self.displace(&uid);
            let (after, is) = workload.map_or_else(Place::default, |workload| self.place(workload));
            touched.extend(before.iter().chain(after.iter()).cloned());
            if was != is {
                changed.locations.push((uid.clone(), is));
            }
            if before != after {
                changed.memberships.push((uid, after));
            }
        }
        for name in touched {
            if let Some(service) = self.compile(&name) {
                changed.services.push((name, Some(service)));
            }
        }
        changed
    }

    /// It is later now; what that changes is seen by the next [`replace`](Self::replace).
    pub fn set_time(&mut self, now_ms: i64) {
        self.now_ms = now_ms;
    }

    /// Takes in other documents along with changes of workloads, and compiles everything with them.
    pub fn replace(&mut self, documents: &Documents, members: impl IntoIterator<Item = Member>) -> Changed {
        let workloads =
            self.members.iter().map(|(uid, placed)| (uid.clone(), Some(Arc::clone(&placed.workload))));
        let workloads: BTreeMap<String, Option<Arc<Workload>>> = workloads.chain(members).collect();
        let mut after = Self::at(self.now_ms, documents, workloads.into_values().flatten());
        let mut changed = Changed::default();
        for name in self.services.keys().filter(|name| !after.services.contains_key(*name)) {
            changed.services.push((name.clone(), None));
        }
        for (name, service) in &mut after.services {
            match self.services.get(name) {
                // Kept, so that there is only one of it.
                Some(before) if before.compiled == service.compiled => {
                    service.compiled.clone_from(&before.compiled);
                }
                _ => changed.services.push((name.clone(), service.compiled.clone())),
            }
        }
        for (uid, placed) in &after.members {
            let before = self.members.get(uid);
            if before.is_none_or(|before| before.services != placed.services) {
                changed.memberships.push((uid.clone(), Arc::clone(&placed.services)));
            }
            let is = Location::of(&placed.workload);
            if before.and_then(|before| Location::of(&before.workload)) != is {
                changed.locations.push((uid.clone(), is));
            }
        }
        for uid in self.members.keys().filter(|uid| !after.members.contains_key(*uid)) {
            changed.memberships.push((uid.clone(), Arc::default()));
            changed.locations.push((uid.clone(), None));
        }
        changed.settings = (self.settings != after.settings).then(|| after.settings.clone());
        *self = after;
        changed
    }

    /// Everything, as a change from nothing.
    pub fn everything(&self) -> Changed {
        let services = self.services.iter();
        let serving = self.members.iter().filter(|(_, placed)| !placed.services.is_empty());
        Changed {
            services: services.map(|(name, service)| (name.clone(), service.compiled.clone())).collect(),
            memberships: serving.map(|(uid, placed)| (uid.clone(), Arc::clone(&placed.services))).collect(),
            locations: self
                .members
                .iter()
                .map(|(uid, placed)| (uid.clone(), Location::of(&placed.workload)))
                .collect(),
            settings: Some(self.settings.clone()),
        }
    }

    /// What could not be done as the documents say.
    pub fn faults(&self) -> Vec<Fault> {
        self.faults.iter().chain(self.faults_of.values().flatten()).cloned().collect()
    }

    /// How many workloads there are.
    pub fn workloads(&self) -> usize {
        self.members.len()
    }

    /// Puts a workload into the services that it belongs to; they are yet to be compiled.
    fn place(&mut self, workload: Arc<Workload>) -> Place {
        let location = Location::of(&workload);
        let services: Arc<[Name]> = self.selectors.services_of(&workload).into();
        let uid = &workload.hello.instance_uid;
        for name in services.iter() {
            if let Some(service) = self.services.get_mut(name) {
                service.serving.insert(uid.clone(), Arc::clone(&workload));
            }
        }
        self.members.insert(uid.clone(), Placed { services: Arc::clone(&services), workload });
        (services, location)
    }

    /// Takes a workload out of its services, which are yet to be compiled.
    fn displace(&mut self, uid: &str) -> Place {
        let Some(Placed { workload, services }) = self.members.remove(uid) else { return Place::default() };
        for name in services.iter() {
            if let Some(service) = self.services.get_mut(name) {
                service.serving.remove(uid);
            }
        }
        (services, Location::of(&workload))
    }

    /// Compiles one service; gives it where it is not what it was.
    fn compile(&mut self, name: &Name) -> Option<Arc<CompiledService>> {
        let service = self.services.get_mut(name)?;
        let mut faults = Vec::new();
        let compiled = service.compile(&mut faults);
        if faults.is_empty() {
            self.faults_of.remove(name);
        } else {
            self.faults_of.insert(name.clone(), faults);
        }
        if service.compiled.as_deref() == Some(&compiled) {
            return None;
        }
        service.compiled.insert(Arc::new(compiled)).clone().into()
    }
}

impl Assembled {
    fn compile(&mut self, faults: &mut Vec<Fault>) -> CompiledService {
        let serving = self.serving.values().map(Arc::as_ref);
        let ports = ports(&self.key, &self.spec, serving.clone(), faults);
        let endpoints = wire::EndpointList {
            service: self.config.service.clone(),
            endpoints: serving.map(endpoint).collect(),
        };
        // Workloads come and go; what a service is seldom depends on them.
        let (config, reach) = match &self.compiled {
            Some(compiled) if ports == self.config.ports => {
                (compiled.config.clone(), Arc::clone(&compiled.reach))
            }
            _ => {
                self.config.ports = ports;
                (Encoded::new(&self.config), Arc::new(self.reach()))
            }
        };
        CompiledService { config, endpoints: Encoded::new(&endpoints), reach }
    }

    fn reach(&self) -> Reach {
        Reach {
            address: self.spec.virtual_address().map(Into::into),
            host: self.config.external.as_ref().map(|external| external.host.as_str().into()),
            ports: self.config.ports.iter().map(|port| (port.port, port.target_port)).collect(),
        }
    }
}
