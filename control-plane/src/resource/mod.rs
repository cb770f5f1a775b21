//! The documents that people write: what they may say, and what is wrong where they say something else.
//!
//! Read in this order: [`text`] (YAML or JSON into values, with lines), [`admit`] (values into typed [`Document`]s, with
//! every fault), [`references`] and [`attachments`] (what documents say of each other), [`claims`] (what each has for itself), [`standing`] and
//! [`status`] (what the server says of them).

use std::{
    collections::BTreeMap,
    fmt,
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use gateway_api::experimental::{grpcroutes::GrpcRouteSpec, httproutes::HttpRouteSpec};
use serde::{Deserialize, Serialize};

pub mod access_log;
pub mod admit;
pub mod attachments;
pub mod cache;
pub mod cidr;
pub mod claims;
pub mod difference;
pub mod duration;
pub mod external;
mod fault;
pub mod hint;
mod idle;
pub mod mesh_config;
mod metadata;
pub mod percent;
pub mod policy;
pub mod references;
pub mod route;
pub mod schema;
pub mod service;
pub mod standing;
pub mod status;
pub mod tap;
pub mod text;
pub mod tracing;
pub mod transitions;

pub use fault::{Fault, Faults, Path};
pub use metadata::{DEFAULT_NAMESPACE, Metadata, dns_label, dns_subdomain, service_name};
pub(crate) use metadata::{label_key, label_value};

use crate::store::{Bucket, Entry, Store, StoreError};

/// The kinds of documents there are. Their order is that in which they refer to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Our own `MeshConfig`, out of which services get their addresses.
    MeshConfig,
    /// Kubernetes' `v1` Service.
    Service,
    /// Our own `ExternalService`.
    ExternalService,
    /// The Gateway API's `HTTPRoute`.
    HttpRoute,
    /// The Gateway API's `GRPCRoute`.
    GrpcRoute,
    /// Our own `TrafficPolicy`.
    TrafficPolicy,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::MeshConfig,
        Self::Service,
        Self::ExternalService,
        Self::HttpRoute,
        Self::GrpcRoute,
        Self::TrafficPolicy,
    ];

    /// As in a document's `kind`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MeshConfig => "MeshConfig",
            Self::Service => "Service",
            Self::ExternalService => "ExternalService",
            Self::HttpRoute => "HTTPRoute",
            Self::GrpcRoute => "GRPCRoute",
            Self::TrafficPolicy => "TrafficPolicy",
        }
    }

    /// As in a document's `apiVersion`.
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::Service => "v1",
            Self::HttpRoute | Self::GrpcRoute => "gateway.networking.k8s.io/v1",
            Self::MeshConfig | Self::ExternalService | Self::TrafficPolicy => "pillion.dev/v1alpha1",
        }
    }

    /// As in the REST path.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::MeshConfig => "meshconfigs",
            Self::Service => "services",
            Self::ExternalService => "externalservices",
            Self::HttpRoute => "httproutes",
            Self::GrpcRoute => "grpcroutes",
            Self::TrafficPolicy => "trafficpolicies",
        }
    }

    /// The API group of its `apiVersion`, as references name it; empty: Kubernetes' core group.
    pub fn group(self) -> &'static str {
        self.api_version().split_once('/').map_or("", |(group, _)| group)
    }

    /// The namespace of a document that names none.
    pub const fn default_namespace(self) -> &'static str {
        match self {
            Self::MeshConfig => mesh_config::NAMESPACE,
            _ => DEFAULT_NAMESPACE,
        }
    }

    /// The kind that people mean by a word: its name, singular or plural, in any case, or its short name.
    pub fn from_word(word: &str) -> Option<Self> {
        let word = word.to_ascii_lowercase();
        Self::ALL.into_iter().find(|kind| {
            let short = match kind {
                Self::MeshConfig => "mesh",
                Self::Service => "svc",
                Self::ExternalService => "external",
                Self::HttpRoute => "route",
                Self::GrpcRoute => "grpc",
                Self::TrafficPolicy => "policy",
            };
            word == kind.plural() || word == kind.name().to_ascii_lowercase() || word == short
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Which document.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Key {
    /// A document by its names.
    pub fn new(kind: Kind, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }

    /// Its key in [`Bucket::Documents`].
    pub fn to_stored(&self) -> String {
        format!("{}/{}/{}", self.kind, self.namespace, self.name)
    }

    /// `<name>.<namespace>`, what the wire calls a service.
    pub fn to_wire(&self) -> String {
        format!("{}.{}", self.name, self.namespace)
    }
}

/// For people: `HTTPRoute demo/payments`.
impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// A document's two parts that people write.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resource<Spec> {
    /// Names, labels, and what the server notes.
    pub metadata: Metadata,
    /// What is wanted.
    pub spec: Spec,
}

/// A document that was admitted: complete, typed, and right by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
#[expect(clippy::large_enum_variant, reason = "each is behind an `Arc` of its own")]
pub enum Document {
    /// See [`mesh_config`].
    MeshConfig(Resource<mesh_config::MeshConfigSpec>),
    /// See [`service`].
    Service(Resource<service::ServiceSpec>),
    /// See [`external`].
    ExternalService(Resource<external::ExternalServiceSpec>),
    /// See [`route`].
    #[serde(rename = "HTTPRoute")]
    HttpRoute(Resource<HttpRouteSpec>),
    /// See [`route::grpc`].
    #[serde(rename = "GRPCRoute")]
    GrpcRoute(Resource<GrpcRouteSpec>),
    /// See [`policy`].
    TrafficPolicy(Resource<policy::TrafficPolicySpec>),
}

impl Document {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::MeshConfig(_) => Kind::MeshConfig,
            Self::Service(_) => Kind::Service,
            Self::ExternalService(_) => Kind::ExternalService,
            Self::HttpRoute(_) => Kind::HttpRoute,
            Self::GrpcRoute(_) => Kind::GrpcRoute,
            Self::TrafficPolicy(_) => Kind::TrafficPolicy,
        }
    }

    /// Which it is.
    pub fn key(&self) -> Key {
        let metadata = self.metadata();
        Key::new(self.kind(), metadata.namespace.clone(), metadata.name.clone())
    }

    /// Names, labels, and what the server notes.
    pub fn metadata(&self) -> &Metadata {
        match self {
            Self::MeshConfig(resource) => &resource.metadata,
            Self::Service(resource) => &resource.metadata,
            Self::ExternalService(resource) => &resource.metadata,
            Self::HttpRoute(resource) => &resource.metadata,
            Self::GrpcRoute(resource) => &resource.metadata,
            Self::TrafficPolicy(resource) => &resource.metadata,
        }
    }

    /// The same, to change.
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        match self {
            Self::MeshConfig(resource) => &mut resource.metadata,
            Self::Service(resource) => &mut resource.metadata,
            Self::ExternalService(resource) => &mut resource.metadata,
            Self::HttpRoute(resource) => &mut resource.metadata,
            Self::GrpcRoute(resource) => &mut resource.metadata,
            Self::TrafficPolicy(resource) => &mut resource.metadata,
        }
    }

    /// True where `other` wants the same, whatever else is noted about either.
    pub fn same_spec(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::MeshConfig(one), Self::MeshConfig(other)) => one.spec == other.spec,
            (Self::Service(one), Self::Service(other)) => one.spec == other.spec,
            (Self::ExternalService(one), Self::ExternalService(other)) => one.spec == other.spec,
            (Self::HttpRoute(one), Self::HttpRoute(other)) => one.spec == other.spec,
            (Self::GrpcRoute(one), Self::GrpcRoute(other)) => one.spec == other.spec,
            (Self::TrafficPolicy(one), Self::TrafficPolicy(other)) => one.spec == other.spec,
            _ => false,
        }
    }

    /// The virtual address of a service that has one.
    pub fn virtual_address(&self) -> Option<Ipv4Addr> {
        self.cluster_ip()?.parse().ok()
    }

    /// What a service's `clusterIP` says; `None`: nothing, or the document is of no kind that has one.
    pub fn cluster_ip(&self) -> Option<&str> {
        match self {
            Self::Service(service) => service.spec.cluster_ip.as_deref(),
            Self::ExternalService(service) => service.spec.cluster_ip.as_deref(),
            _ => None,
        }
    }

    /// The same, to change; `None`: it is of no kind that has one.
    pub fn cluster_ip_mut(&mut self) -> Option<&mut Option<String>> {
        match self {
            Self::Service(service) => Some(&mut service.spec.cluster_ip),
            Self::ExternalService(service) => Some(&mut service.spec.cluster_ip),
            _ => None,
        }
    }

    /// As it is stored. The store's own revision is its version, which is not stored within.
    pub fn to_stored(&self) -> Vec<u8> {
        let mut document = self.clone();
        document.metadata_mut().resource_version.clear();
        document.to_value().to_string().into_bytes()
    }

    /// As it is sent.
    pub fn to_value(&self) -> serde_json::Value {
        let mut value = serde_json::to_value(self).expect("documents have string keys only");
        let object = value.as_object_mut().expect("a struct is an object");
        object.insert("apiVersion".into(), self.kind().api_version().into());
        value
    }
}

/// All documents at one moment.
#[derive(Clone, Debug, Default)]
pub struct Documents {
    by_key: BTreeMap<Key, Arc<Document>>,
}

impl Documents {
    /// Reads all documents of a store.
    ///
    /// # Errors
    /// The store's. A stored document that this release cannot read is a fault in the second part of the result, and
    /// is left out.
    pub async fn load(store: &dyn Store) -> Result<(Self, Vec<Fault>), StoreError> {
        Ok(Self::default().updated(store.list(Bucket::Documents).await?))
    }

    /// The documents of these entries; those that have not changed since `self` are taken from there.
    pub fn updated(&self, entries: Vec<Entry>) -> (Self, Vec<Fault>) {
        let known: BTreeMap<String, &Arc<Document>> =
            self.by_key.iter().map(|(key, document)| (key.to_stored(), document)).collect();
        let mut faults = Vec::new();
        let mut documents = Self::default();
        for entry in entries {
            let version = entry.revision.to_string();
            if let Some(document) = known.get(&entry.key)
                && document.metadata().resource_version == version
            {
                documents.by_key.insert(document.key(), Arc::clone(document));
                continue;
            }
            match serde_json::from_slice::<Document>(&entry.value) {
                Ok(mut document) => {
                    document.metadata_mut().resource_version = version;
                    documents.insert(document);
                }
                Err(error) => faults.push(Fault {
                    document: Some(entry.key),
                    ..Fault::new("", format!("the stored document cannot be read: {error}"))
                }),
            }
        }
        (documents, faults)
    }

    /// Whether these are the very documents of `other`, as [`updated`](Self::updated) hands them on.
    pub fn are_the_same(&self, other: &Self) -> bool {
        self.len() == other.len()
            && self.by_key.values().zip(other.by_key.values()).all(|(one, other)| Arc::ptr_eq(one, other))
    }

    /// Adds a document, in the place of an earlier one of the same key.
    pub fn insert(&mut self, document: Document) {
        self.by_key.insert(document.key(), Arc::new(document));
    }

    /// Takes a document out.
    pub fn remove(&mut self, key: &Key) -> Option<Arc<Document>> {
        self.by_key.remove(key)
    }

    /// One document.
    pub fn get(&self, key: &Key) -> Option<&Arc<Document>> {
        self.by_key.get(key)
    }

    /// Every document, by kind, namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Arc<Document>)> {
        self.by_key.iter()
    }

    /// Documents of one kind, of one namespace or of all.
    pub fn list(&self, kind: Kind, namespace: Option<&str>) -> impl Iterator<Item = (&Key, &Arc<Document>)> {
        let first = Key::new(kind, namespace.unwrap_or_default(), "");
        self.by_key.range(first..).take_while(move |(key, _)| {
            key.kind == kind && namespace.is_none_or(|namespace| key.namespace == namespace)
        })
    }

    /// One service.
    pub fn service(&self, namespace: &str, name: &str) -> Option<&Resource<service::ServiceSpec>> {
        match self.get(&Key::new(Kind::Service, namespace, name)).map(Arc::as_ref) {
            Some(Document::Service(service)) => Some(service),
            _ => None,
        }
    }

    /// Services of one namespace or of all.
    pub fn services(
        &self,
        namespace: Option<&str>,
    ) -> impl Iterator<Item = (&Key, &Resource<service::ServiceSpec>)> {
        self.list(Kind::Service, namespace).filter_map(|(key, document)| match &**document {
            Document::Service(service) => Some((key, service)),
            _ => None,
        })
    }

    /// External services of one namespace or of all.
    pub fn external_services(
        &self,
        namespace: Option<&str>,
    ) -> impl Iterator<Item = (&Key, &Resource<external::ExternalServiceSpec>)> {
        self.list(Kind::ExternalService, namespace).filter_map(|(key, document)| match &**document {
            Document::ExternalService(service) => Some((key, service)),
            _ => None,
        })
    }

    /// What holds for the whole mesh; all defaults where nothing is said.
    pub fn mesh_config(&self) -> mesh_config::MeshConfigSpec {
        let key = Key::new(Kind::MeshConfig, mesh_config::NAMESPACE, mesh_config::NAME);
        match self.get(&key).map(Arc::as_ref) {
            Some(Document::MeshConfig(config)) => config.spec.clone(),
            _ => mesh_config::MeshConfigSpec::default(),
        }
    }

    /// Routes of either kind: first every `GRPCRoute`, which stand before the others where both are for one port.
    pub fn routes(&self) -> impl Iterator<Item = (&Key, &Document)> {
        let list = |kind| self.list(kind, None).map(|(key, document)| (key, &**document));
        list(Kind::GrpcRoute).chain(list(Kind::HttpRoute))
    }

    /// How long until the next injected fault is over; `None`: there is none under way.
    pub fn fault_ends(&self, now: SystemTime) -> Option<Duration> {
        let faults = self.policies(None).flat_map(|(_, policy)| policy.spec.faults.iter().flatten());
        faults.filter_map(|fault| policy::faults::left(fault, now)).min()
    }

    /// Traffic policies of one namespace or of all.
    pub fn policies(
        &self,
        namespace: Option<&str>,
    ) -> impl Iterator<Item = (&Key, &Resource<policy::TrafficPolicySpec>)> {
        self.list(Kind::TrafficPolicy, namespace).filter_map(|(key, document)| match &**document {
            Document::TrafficPolicy(policy) => Some((key, policy)),
            _ => None,
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}
