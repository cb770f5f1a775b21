//! Documents and workloads in, one wire configuration per service out. Pure.
//!
//! [`Assembly`] holds both and, when something changes, compiles the services that the change touches; [`compile`] is the
//! same from nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;
use pillion_api::{digest, wire};
use prost::Message;

pub use self::assembly::{Assembly, Changed, Member};
use crate::resource::{
    Documents, Fault, Key,
    service::{ServicePort, ServiceSpec, TargetPort},
};

mod assembly;
mod policies;
mod routes;
mod selectors;

/// A service's name, `<name>.<namespace>`; one text for all who speak of it.
pub type Name = Arc<str>;

/// One encoded message, shared by all who are sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// A digest of `bytes`, [`digest::version`].
    pub version: Arc<str>,
    /// A `wire::ServiceConfig` or `wire::EndpointList`.
    pub bytes: Bytes,
}

impl Encoded {
    /// Encodes a message and digests it.
    pub fn new(message: &impl Message) -> Self {
        let bytes = Bytes::from(message.encode_to_vec());
        Self { version: digest::version(&bytes).into(), bytes }
    }
}

/// What subscribers of one service are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompiledService {
    /// Ports, routes, policy.
    pub config: Encoded,
    /// Who serves it.
    pub endpoints: Encoded,
    /// By what applications find it.
    pub reach: Arc<Reach>,
}

/// By what applications find a service, beside its name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Its virtual address.
    pub address: Option<IpAddr>,
    /// Of an external service.
    pub host: Option<Arc<str>>,
    /// Its ports: what callers use, and what its workloads listen on.
    pub ports: Vec<(u32, u32)>,
}

/// Where a workload is found that has an address of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// That of its sidecar, with which it shares the network.
    pub ip: IpAddr,
    /// What it says that its application listens on.
    pub ports: Vec<u32>,
}

impl Location {
    /// `None`: several workloads have that address, as all of a host have its loopback one.
    fn of(workload: &Workload) -> Option<Self> {
        let address: SocketAddr = workload.hello.inbound_address.parse().ok()?;
        let ip = address.ip().to_canonical();
        let ports = workload.hello.ports.iter().map(|port| port.port).collect();
        (!ip.is_loopback() && !ip.is_unspecified()).then_some(Self { ip, ports })
    }
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

/// Every service by its name.
pub type Compiled = BTreeMap<Name, Arc<CompiledService>>;

/// Compiles everything. The faults are what could not be done as the documents say; the rest is compiled regardless.
pub fn compile(documents: &Documents, workloads: &[Workload]) -> (Compiled, Vec<Fault>) {
    let workloads = workloads.iter().map(|workload| Arc::new(workload.clone()));
    let assembly = Assembly::new(documents, workloads);
    let compiled = assembly.everything().services.into_iter();
    (compiled.filter_map(|(name, service)| Some((name, service?))).collect(), assembly.faults())
}

/// What others see as the source of a workload's requests: the first of the services that select it, else the workload
/// itself; `<name>.<namespace>`.
pub fn source_of(workload: &Workload, services: &[String]) -> String {
    let itself = || format!("{}.{}", workload.hello.workload, workload.namespace);
    services.first().cloned().unwrap_or_else(itself)
}

/// The services that select a workload, alphabetically.
pub fn services_of(workload: &Workload, documents: &Documents) -> Vec<String> {
    let services = documents.services(Some(&workload.namespace));
    services.filter(|(_, service)| serves(workload, &service.spec)).map(|(key, _)| key.to_wire()).collect()
}

/// True where the service's selector picks the workload; both are of one namespace.
fn serves(workload: &Workload, service: &ServiceSpec) -> bool {
    service.selects(|label| workload.hello.labels.get(label).map(String::as_str))
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
        weight: hello.weight,
    }
}

fn ports<'workloads>(
    key: &Key,
    service: &ServiceSpec,
    serving: impl Iterator<Item = &'workloads Workload> + Clone,
    faults: &mut Vec<Fault>,
) -> Vec<wire::ServicePort> {
    let ports = service.ports.iter().enumerate();
    ports
        .map(|(index, port)| wire::ServicePort {
            port: port.port.into(),
            target_port: target_port(key, index, port, serving.clone(), faults),
            protocol: protocol(port.app_protocol.as_deref()).into(),
            name: port.name.clone().unwrap_or_default(),
        })
        .collect()
}

/// The number that a port's target has. A name is what the workloads say it is; they should agree. Where none of them
/// says, it is the port's own number: nobody is reached by it, and with none at all sidecars would refuse the rest, too.
fn target_port<'workloads>(
    key: &Key,
    index: usize,
    port: &ServicePort,
    mut serving: impl Iterator<Item = &'workloads Workload> + Clone,
    faults: &mut Vec<Fault>,
) -> u32 {
    let name = match &port.target_port {
        None => return port.port.into(),
        Some(TargetPort::Number(number)) => return (*number).into(),
        Some(TargetPort::Name(name)) => name,
    };
    let numbers: BTreeSet<u32> = serving
        .clone()
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
    } else if numbers.is_empty() && serving.next().is_some() {
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
