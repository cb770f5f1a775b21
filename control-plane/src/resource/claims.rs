//! What each document has for itself alone: a service its virtual address and its name on the wire, an external service
//! its host.
//!
//! As with Kubernetes' `clusterIP`, an address is given when a service is made and stays for as long as the service does.
//! Of two servers that write at once, one finds the [`Guard`] changed and looks again.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use super::{Document, Documents, Fault, Key, Kind, cidr::Cidr};
use crate::store::{Bucket, Change, Expect, Store, StoreError};

/// How often a change is tried that others come before. Each time somebody else gets done; even the least lucky of three
/// servers that write without a pause is turned away less than once in a million changes.
pub const ATTEMPTS: usize = 40;

/// What only one document may have.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Claim {
    Address(Ipv4Addr),
    Host(String),
    /// `<name>.<namespace>`: Services and ExternalServices are one kind on the wire.
    Name(String),
}

impl Claim {
    /// Of one document, each with its field.
    fn of(document: &Document) -> Vec<(&'static str, Self)> {
        let mut claims = Vec::new();
        if let Document::Service(_) | Document::ExternalService(_) = document {
            claims.push(("metadata.name", Self::Name(document.key().to_wire())));
        }
        if let Document::ExternalService(service) = document {
            claims.push(("spec.host", Self::Host(service.spec.host.clone())));
        }
        claims.extend(document.virtual_address().map(|address| ("spec.clusterIP", Self::Address(address))));
        claims
    }

    fn is_held_by(&self, holder: &Key) -> String {
        match self {
            Self::Address(address) => format!("{address} is the address of {holder} already"),
            Self::Host(host) => format!("{host:?} is the host of {holder} already"),
            Self::Name(_) => format!(
                "is the name of {holder} already: a Service and an ExternalService of one namespace cannot share a name"
            ),
        }
    }
}

/// Whether a document has anything for itself, or decides what others may have.
pub fn concern(kind: Kind) -> bool {
    matches!(kind, Kind::MeshConfig | Kind::Service | Kind::ExternalService)
}

/// Looks whether the documents of a request get what they want for themselves alone, and gives an address to each service
/// that says nothing of one: what it had before, else one that is free. `current` are the documents before the request.
/// The faults come with their document's place in the request.
pub fn settle(request: &mut [Document], current: &Documents) -> Vec<(usize, Fault)> {
    let cidr = cidr_of(request, current);
    let mut faults = Vec::new();
    for (index, document) in request.iter_mut().enumerate() {
        if let Some(before) = current.get(&document.key()) {
            faults.extend(keep(document, before).map(|fault| (index, fault)));
        }
    }
    let replaced: BTreeSet<Key> = request.iter().map(Document::key).collect();
    let mut holders: BTreeMap<Claim, Key> = BTreeMap::new();
    for (key, document) in current.iter().filter(|(key, _)| !replaced.contains(*key)) {
        holders.extend(Claim::of(document).into_iter().map(|(_, claim)| (claim, key.clone())));
    }
    for (index, document) in request.iter().enumerate() {
        let key = document.key();
        for (field, claim) in Claim::of(document) {
            if let Claim::Address(address) = claim
                && !cidr.may_give(address)
                && current.get(&key).is_none_or(|before| before.virtual_address() != Some(address))
            {
                let message =
                    format!("must be in {cidr}, and not end with .0 or .255, to be chosen; is {address}");
                faults.push((index, Fault::new(field, message)));
            }
            match holders.get(&claim) {
                Some(holder) if *holder != key => {
                    faults.push((index, Fault::new(field, claim.is_held_by(holder))))
                }
                _ => drop(holders.insert(claim, key.clone())),
            }
        }
        if key.kind == Kind::MeshConfig {
            faults.extend(stranded(current, cidr).map(|fault| (index, fault)));
        }
    }
    // Last, so that what others of the request have chosen is not given away.
    for (index, document) in request.iter_mut().enumerate() {
        let key = document.key();
        let Some(lacks @ None) = document.cluster_ip_mut() else { continue };
        let is_taken = |address| holders.contains_key(&Claim::Address(address));
        match cidr.choose(&key.to_wire(), is_taken) {
            Some(address) => {
                *lacks = Some(address.to_string());
                holders.insert(Claim::Address(address), key);
            }
            None => {
                let message = format!(
                    "no address is left: all {} of {cidr} are given; widen serviceCidr of the MeshConfig, delete services, or \
                     say \"None\"",
                    cidr.capacity()
                );
                faults.push((index, Fault::new("spec.clusterIP", message)));
            }
        }
    }
    faults
}

/// Why there may not be these documents any more: addresses are outside of what would hold then.
pub fn stranded_by_default(next: &Documents) -> Option<Fault> {
    stranded(next, next.mesh_config().service_cidr())
}

/// Out of which addresses are given once a request is done.
fn cidr_of(request: &[Document], current: &Documents) -> Cidr {
    let wanted = request.iter().find_map(|document| match document {
        Document::MeshConfig(config) => Some(config.spec.service_cidr()),
        _ => None,
    });
    wanted.unwrap_or_else(|| current.mesh_config().service_cidr())
}

/// A service keeps its address, whether that is said again or not.
fn keep(document: &mut Document, before: &Document) -> Option<Fault> {
    let had = before.cluster_ip()?;
    match document.cluster_ip_mut()? {
        Some(wanted) if wanted == had => None,
        Some(wanted) => {
            let message = format!(
                "must stay {had:?} for as long as there is this {}, is {wanted:?}; delete it first to choose another",
                before.kind()
            );
            *wanted = had.to_owned();
            Some(Fault::new("spec.clusterIP", message))
        }
        lacks => {
            *lacks = Some(had.to_owned());
            None
        }
    }
}

/// Addresses are never taken away from services, so a block must hold all that are given.
fn stranded(documents: &Documents, cidr: Cidr) -> Option<Fault> {
    let outside = documents.iter().filter_map(|(key, document)| Some((key, document.virtual_address()?)));
    let outside: Vec<_> = outside.filter(|(_, address)| !cidr.contains(*address)).collect();
    let (first, address) = outside.first()?;
    let message = format!(
        "{cidr} must hold the addresses that services have; {} are outside, the first is {address} of {first}. Choose a \
         block that holds them, or delete these services first",
        outside.len()
    );
    Some(Fault::new("spec.serviceCidr", message))
}

/// Changes with every change of what this module is about, so that one that rests on older documents fails.
#[derive(Debug, Clone, Copy)]
pub struct Guard(Option<u64>);

impl Guard {
    const KEY: &'static str = "guard";

    /// To be read before the documents that a change rests on.
    ///
    /// # Errors
    /// The store's.
    pub async fn read(store: &dyn Store) -> Result<Self, StoreError> {
        Ok(Self(store.get(Bucket::Claims, Self::KEY).await?.map(|entry| entry.revision)))
    }

    /// Makes a transaction fail where others came before.
    pub fn change(self) -> Change {
        Change {
            bucket: Bucket::Claims,
            key: Self::KEY.to_owned(),
            value: Some(Vec::new()),
            expect: self.0.map_or(Expect::Absent, Expect::Revision),
        }
    }

    /// Whether that is why a transaction failed.
    pub fn was_overtaken(error: &StoreError) -> bool {
        matches!(error, StoreError::Conflict { key, .. } if key == Self::KEY)
    }
}

/// Gives an address to every stored service about which nothing is said, as an earlier release left them. Gives how many
/// got one; who could get none is logged.
///
/// # Errors
/// The store's.
pub async fn complete(store: &dyn Store) -> Result<usize, StoreError> {
    let mut attempt = 1;
    loop {
        let guard = Guard::read(store).await?;
        let (documents, _) = Documents::load(store).await?;
        let lacking = documents.iter().map(|(_, document)| Document::clone(document));
        let mut lacking: Vec<Document> =
            lacking.filter_map(|mut it| it.cluster_ip_mut()?.is_none().then_some(it)).collect();
        for (index, fault) in settle(&mut lacking, &documents) {
            tracing::warn!(document = %lacking[index].key(), %fault, "a stored document cannot be as it is");
        }
        let given = lacking.iter().filter(|document| document.cluster_ip().is_some());
        let mut changes: Vec<Change> = given.map(replacement).collect();
        let count = changes.len();
        if count == 0 {
            return Ok(0);
        }
        changes.push(guard.change());
        match store.commit(changes).await {
            Err(StoreError::Conflict { .. }) if attempt < ATTEMPTS => attempt += 1,
            done => return done.map(|_| count),
        }
    }
}

fn replacement(document: &Document) -> Change {
    let version = document.metadata().resource_version.parse();
    Change {
        bucket: Bucket::Documents,
        key: document.key().to_stored(),
        value: Some(document.to_stored()),
        expect: version.map_or(Expect::Any, Expect::Revision),
    }
}

#[cfg(test)]
mod tests;
