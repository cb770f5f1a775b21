//! Documents and workloads in, one wire configuration per service out. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use bytes::Bytes;
use pillion_api::wire;
use prost::Message;
use sha2::{Digest, Sha256};

use crate::resource::{
    Documents, Fault, Key, Resource, references,
    service::{ServicePort, ServiceSpec, TargetPort},
};

mod policies;
mod routes;

/// One encoded message, shared by all who are sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// A digest of `bytes`: first 16 hexadecimal digits of their SHA-256.
    pub version: String,
    /// A `wire::ServiceConfig` or `wire::EndpointList`.
    pub bytes: Bytes,
}

impl Encoded {
    fn new(message: &impl Message) -> Self {
        let bytes = Bytes::from(message.encode_to_vec());
        let version = Sha256::digest(&bytes)[..8].iter().fold(String::with_capacity(16), |mut text, byte| {
            write!(text, "{byte:02x}").expect("a String takes what is written");
            text
        });
        Self { version, bytes }
    }
}

/// What subscribers of one service are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompiledService {
    /// Ports, routes, policy.
    pub config: Encoded,
    /// Who serves it.
    pub endpoints: Encoded,
}

/// A registered workload, as the registry knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// What the sidecar said of itself.
    pub hello: wire::Hello,
    /// The identity of its certificate (`spiffe://…/ns/<namespace>/sa/<service account>`).
    pub spiffe_id: String,
    /// From the identity.
    pub namespace: String,
}

/// Every service by its name, `<name>.<namespace>`.
pub type Compiled = BTreeMap<String, CompiledService>;

/// Compiles everything. The faults are what could not be done as the documents say; the rest is compiled regardless.
pub fn compile(documents: &Documents, workloads: &[Workload]) -> (Compiled, Vec<Fault>) {
    let (policies, mut faults) = references::policies(documents);
    let mut by_namespace: BTreeMap<&str, Vec<&Workload>> = BTreeMap::new();
    for workload in workloads {
        by_namespace.entry(&workload.namespace).or_default().push(workload);
    }
    let mut routes = routes::by_parent(documents, &mut faults);

    let mut compiled = Compiled::new();
    for (key, service) in documents.services(None) {
        let name = key.to_wire();
        let candidates = by_namespace.get(key.namespace.as_str()).map(Vec::as_slice).unwrap_or_default();
        let mut serving: Vec<&Workload> =
            candidates.iter().copied().filter(|workload| serves(workload, service)).collect();
        serving.sort_by(|one, other| one.hello.instance_uid.cmp(&other.hello.instance_uid));

        let config = wire::ServiceConfig {
            service: name.clone(),
            ports: ports(key, service, &serving, &mut faults),
            routes: routes.remove(key).unwrap_or_default(),
            policy: policies.get(key).copied().map(policies::to_wire),
            virtual_address: String::new(),
        };
        let endpoints = wire::EndpointList {
            service: name.clone(),
            endpoints: serving.into_iter().map(endpoint).collect(),
        };
        compiled.insert(
            name,
            CompiledService { config: Encoded::new(&config), endpoints: Encoded::new(&endpoints) },
        );
    }
    (compiled, faults)
}

/// What others see as the source of a workload's requests: the service that selects it (alphabetically the first),
/// else the workload itself; `<name>.<namespace>`.
pub fn source_of(workload: &Workload, documents: &Documents) -> String {
    documents.services(Some(&workload.namespace)).find(|(_, service)| serves(workload, service)).map_or_else(
        || format!("{}.{}", workload.hello.workload, workload.namespace),
        |(key, _)| key.to_wire(),
    )
}

/// True where the service's selector picks the workload; both are of one namespace.
fn serves(workload: &Workload, service: &Resource<ServiceSpec>) -> bool {
    service.spec.selects(|label| workload.hello.labels.get(label).map(String::as_str))
}

fn endpoint(workload: &Workload) -> wire::Endpoint {
    let hello = &workload.hello;
    wire::Endpoint {
        uid: hello.instance_uid.clone(),
        workload: hello.workload.clone(),
        address: hello.inbound_address.clone(),
        spiffe_id: workload.spiffe_id.clone(),
        ready: hello.health.as_ref().is_some_and(|health| health.ready),
        zone: hello.zone.clone(),
        ports: hello.ports.clone(),
    }
}

fn ports(
    key: &Key,
    service: &Resource<ServiceSpec>,
    serving: &[&Workload],
    faults: &mut Vec<Fault>,
) -> Vec<wire::ServicePort> {
    let ports = service.spec.ports.iter().enumerate();
    ports
        .map(|(index, port)| wire::ServicePort {
            port: port.port.into(),
            target_port: target_port(key, index, port, serving, faults),
            protocol: protocol(port.app_protocol.as_deref()).into(),
            name: port.name.clone().unwrap_or_default(),
        })
        .collect()
}

/// The number that a port's target has. A name is what the workloads say it is; they should agree. Where none of them
/// says, it is the port's own number: nobody is reached by it, and with none at all sidecars would refuse the rest, too.
fn target_port(
    key: &Key,
    index: usize,
    port: &ServicePort,
    serving: &[&Workload],
    faults: &mut Vec<Fault>,
) -> u32 {
    let name = match &port.target_port {
        None => return port.port.into(),
        Some(TargetPort::Number(number)) => return (*number).into(),
        Some(TargetPort::Name(name)) => name,
    };
    let numbers: BTreeSet<u32> = serving
        .iter()
        .flat_map(|workload| &workload.hello.ports)
        .filter(|port| port.name == *name)
        .map(|port| port.port)
        .collect();
    let mut fault = |message| {
        let field = format!("spec.ports[{index}].targetPort");
        faults.push(Fault { document: Some(key.to_string()), ..Fault::new(field, message) });
    };
    if numbers.len() > 1 {
        fault(format!("workloads disagree on the number of port {name:?}: {numbers:?}; the first is used"));
    } else if numbers.is_empty() && !serving.is_empty() {
        fault(format!("none of its workloads has a port {name:?}; {} is used", port.port));
    }
    numbers.first().copied().unwrap_or_else(|| port.port.into())
}

fn protocol(app_protocol: Option<&str>) -> wire::Protocol {
    match app_protocol {
        Some("http" | "kubernetes.io/ws") => wire::Protocol::Http1,
        Some("kubernetes.io/h2c") => wire::Protocol::Http2,
        Some("grpc") => wire::Protocol::Grpc,
        // The application's own TLS passes through as bytes.
        Some("https" | "tcp") => wire::Protocol::Tcp,
        _ => wire::Protocol::Detect,
    }
}

#[cfg(test)]
mod tests;
