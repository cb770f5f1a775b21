//! What leads to a service: addresses and hosts, kept beside what is compiled, so that a question needs no search.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::Hash,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use pillion_api::{
    name::ServiceName,
    wire::{Resolve, Resolved, resolve::Destination},
};

use super::Memberships;
use crate::compile::{Compiled, Location, Name, Reach};

/// What is known of addresses and hosts. Names and ports are looked up in what is compiled.
#[derive(Debug, Default)]
pub(super) struct Destinations {
    virtual_addresses: Shared<IpAddr>,
    hosts: Shared<Arc<str>>,
    /// The workloads at an address, by UID, with what their applications listen on.
    workloads: HashMap<IpAddr, BTreeMap<String, Vec<u32>>>,
    /// Where each workload is.
    located: HashMap<String, IpAddr>,
}

/// What one service should have for itself. Should stored documents of several have it nevertheless, the first by name
/// has it.
#[derive(Debug)]
struct Shared<T>(HashMap<T, BTreeSet<Name>>);

impl Destinations {
    /// A service leads elsewhere than before.
    pub(super) fn service(&mut self, name: &Name, before: Option<&Reach>, after: Option<&Reach>) {
        if before == after {
            return;
        }
        if let Some(before) = before {
            self.virtual_addresses.remove(before.address.as_ref(), name);
            self.hosts.remove(before.host.as_ref(), name);
        }
        if let Some(after) = after {
            self.virtual_addresses.add(after.address.as_ref(), name);
            self.hosts.add(after.host.as_ref(), name);
        }
    }

    /// A workload is elsewhere than before; `None`: nowhere.
    pub(super) fn workload(&mut self, uid: String, location: Option<Location>) {
        if let Some(ip) = self.located.remove(&uid)
            && let Some(there) = self.workloads.get_mut(&ip)
        {
            there.remove(&uid);
            if there.is_empty() {
                self.workloads.remove(&ip);
            }
        }
        if let Some(Location { ip, ports }) = location {
            self.workloads.entry(ip).or_default().insert(uid.clone(), ports);
            self.located.insert(uid, ip);
        }
    }

    /// Answers a sidecar of a namespace. What cannot be understood is unknown.
    pub(super) fn resolve(
        &self,
        question: Resolve,
        namespace: &str,
        compiled: &Compiled,
        memberships: &Memberships,
    ) -> Resolved {
        let answer = match &question.destination {
            Some(Destination::Address(address)) => {
                address.parse().ok().and_then(|address| self.address(address, compiled, memberships))
            }
            Some(Destination::Host(host)) => self.host(host, namespace, compiled),
            None => None,
        };
        Resolved { question: Some(question), ..answer.unwrap_or_default() }
    }

    fn address(
        &self,
        address: SocketAddr,
        compiled: &Compiled,
        memberships: &Memberships,
    ) -> Option<Resolved> {
        let (ip, port) = (address.ip().to_canonical(), u32::from(address.port()));
        if let Some(name) = self.virtual_addresses.first(&ip) {
            return Some(Resolved { service: name.to_string(), port, ..Resolved::default() });
        }
        // A service of the workload that leads to this port of it.
        let service_of = |uid: &String| {
            memberships.get(uid)?.iter().find_map(|name| {
                let ports = &compiled.get(name)?.reach.ports;
                let (own, _) = ports.iter().find(|(_, target)| *target == port)?;
                Some(Resolved {
                    service: name.to_string(),
                    port: *own,
                    uid: uid.clone(),
                    ..Resolved::default()
                })
            })
        };
        let fit: Vec<(Resolved, &Vec<u32>)> = self
            .workloads
            .get(&ip)?
            .iter()
            .filter_map(|(uid, ports)| Some((service_of(uid)?, ports)))
            .collect();
        // Where several share an address, only one of them can listen on the port; if they do not say which, then nobody
        // knows whom the caller means.
        let certain = |(_, ports): &&(Resolved, &Vec<u32>)| fit.len() == 1 || ports.contains(&port);
        let mut certain = fit.iter().filter(certain);
        let (first, _) = certain.next()?;
        let same = |(other, _): &(Resolved, _)| (&other.service, other.port) == (&first.service, first.port);
        match certain.clone().next() {
            None => Some(first.clone()),
            // One that restarts is listed twice until the old one is known to be gone: either way the service is meant.
            Some(_) if certain.all(same) => Some(Resolved { uid: String::new(), ..first.clone() }),
            // One of them claims an address that is not its own. Whoever is called proves who it is; to call neither would
            // mean to take the address for one outside, and let anybody choose that for others.
            Some(_) => Some(first.clone()),
        }
    }

    fn host(&self, host: &str, namespace: &str, compiled: &Compiled) -> Option<Resolved> {
        let of_mesh = ServiceName::from_host(host, namespace);
        let of_mesh = of_mesh.and_then(|(name, _)| compiled.get_key_value(name.as_str()));
        let outside = || compiled.get_key_value(self.hosts.first(host)?);
        let (name, service) = of_mesh.or_else(outside)?;
        let virtual_address = service.reach.address.map(|address| address.to_string());
        Some(Resolved {
            service: name.to_string(),
            virtual_address: virtual_address.unwrap_or_default(),
            ..Resolved::default()
        })
    }
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: Hash + Eq + Clone> Shared<T> {
    fn add(&mut self, key: Option<&T>, name: &Name) {
        if let Some(key) = key {
            self.0.entry(key.clone()).or_default().insert(Name::clone(name));
        }
    }

    fn remove(&mut self, key: Option<&T>, name: &Name) {
        if let Some(key) = key
            && let Some(names) = self.0.get_mut(key)
        {
            names.remove(name);
            if names.is_empty() {
                self.0.remove(key);
            }
        }
    }

    fn first<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&Name>
    where
        T: std::borrow::Borrow<Q>,
    {
        self.0.get(key)?.first()
    }
}

#[cfg(test)]
mod tests;
