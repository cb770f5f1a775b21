//! Kubernetes' `v1` Service, the part of it that a mesh needs.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use pillion_api::name::is_port_name;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    fault::{Faults, Path},
    metadata,
};

/// The ports that a service answers on and the workloads that serve it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSpec {
    /// At least one.
    pub ports: Vec<ServicePort>,
    /// Workloads of the same namespace that have all of these labels serve it. Empty: none do, and it only carries
    /// routes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub selector: BTreeMap<String, String>,
    /// The virtual address: what mesh DNS answers with, and applications connect to. Given by the server out of
    /// `MeshConfig.serviceCidr` where absent, or one of these that is free, or `None` for a service without one. It stays
    /// for as long as the service does.
    #[serde(default, rename = "clusterIP", skip_serializing_if = "Option::is_none")]
    pub cluster_ip: Option<String>,
}

/// The `clusterIP` of a service that has no virtual address, which Kubernetes calls headless.
pub const NO_ADDRESS: &str = "None";

/// One port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// Needed where there are several ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What callers use.
    pub port: u16,
    /// What the application listens on: a number, or the name that workloads give their port. As `port` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_port: Option<TargetPort>,
    /// Only TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// What is spoken there; told from the first bytes where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
}

/// A port of the application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum TargetPort {
    /// By number.
    Number(u16),
    /// By the name that the workload gives it.
    Name(String),
}

/// The values of `appProtocol` that mean something here.
pub const APP_PROTOCOLS: [&str; 6] =
    ["http", "https", "grpc", "tcp", "kubernetes.io/h2c", "kubernetes.io/ws"];

impl ServiceSpec {
    pub(super) fn check(&self, faults: &mut Faults) {
        let at = Path::root().field("spec");
        if self.ports.is_empty() {
            faults.add(&at.field("ports"), "must have at least one port");
        }
        faults.check_length(&at.field("ports"), self.ports.len(), 100);
        let mut names = BTreeSet::new();
        let mut numbers = BTreeSet::new();
        for (index, port) in self.ports.iter().enumerate() {
            let at = at.field("ports").index(index);
            port.check(faults, &at);
            match &port.name {
                None if self.ports.len() > 1 => {
                    faults.add(&at.field("name"), "is required where a service has several ports");
                }
                Some(name) if !names.insert(name) => {
                    faults.add(&at.field("name"), format!("{name:?} is the name of another port already"));
                }
                _ => {}
            }
            if !numbers.insert(port.port) {
                faults.add(&at.field("port"), format!("{} is in the list already", port.port));
            }
        }
        for (key, value) in &self.selector {
            metadata::check_label(faults, &at.field("selector").field(key), key, value);
        }
        if let Some(address) = self.cluster_ip.as_deref().filter(|it| *it != NO_ADDRESS)
            && address.parse::<Ipv4Addr>().is_err()
        {
            faults.add(
                &at.field("clusterIP"),
                format!(
                    "must be an IPv4 address, or {NO_ADDRESS:?} for a service without one, is {address:?}"
                ),
            );
        }
    }

    /// Its virtual address, if it has one.
    pub fn virtual_address(&self) -> Option<Ipv4Addr> {
        self.cluster_ip.as_deref()?.parse().ok()
    }

    /// The port that a number names.
    pub fn port(&self, number: u32) -> Option<&ServicePort> {
        self.ports.iter().find(|port| u32::from(port.port) == number)
    }

    /// True for a workload that has all labels of the selector; an empty selector selects nothing.
    pub fn selects<'labels>(&self, label: impl Fn(&str) -> Option<&'labels str>) -> bool {
        !self.selector.is_empty() && self.selector.iter().all(|(key, value)| label(key) == Some(value))
    }
}

impl ServicePort {
    fn check(&self, faults: &mut Faults, at: &Path) {
        if let Some(Err(message)) = self.name.as_deref().map(metadata::dns_label) {
            faults.add(&at.field("name"), message);
        }
        faults.check_range(&at.field("port"), self.port.into(), 1, 65535);
        match &self.target_port {
            Some(TargetPort::Number(number)) => {
                faults.check_range(&at.field("targetPort"), (*number).into(), 1, 65535);
            }
            Some(TargetPort::Name(name)) => {
                if let Err(message) = port_name(name) {
                    faults.add(&at.field("targetPort"), message);
                }
            }
            None => {}
        }
        if let Some(protocol) = self.protocol.as_deref().filter(|protocol| *protocol != "TCP") {
            faults.add(&at.field("protocol"), format!("only TCP is supported, is {protocol:?}"));
        }
        if let Some(protocol) = self.app_protocol.as_deref().filter(|it| !APP_PROTOCOLS.contains(it)) {
            let known = APP_PROTOCOLS.join(", ");
            faults.add(&at.field("appProtocol"), format!("must be one of {known}, is {protocol:?}"));
        }
    }
}

/// What a text must be that names a workload's port.
fn port_name(name: &str) -> Result<(), String> {
    if !is_port_name(name) {
        return Err(format!(
            "must be a port number, or the name of a workload's port (RFC 6335: 1 to 15 lower-case letters, digits or \"-\", at \
             least one letter), is {name:?}"
        ));
    }
    Ok(())
}
