//! `ExternalService` (`pillion.dev/v1alpha1`): a service outside the mesh, which sidecars find by DNS.

use std::net::IpAddr;

use pillion_api::name::{HostMeaning, ServiceName, is_host};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    fault::{Faults, Path},
    service::{ServicePort, ServiceSpec, TargetPort},
};

/// A host outside the mesh and the ports that it is called on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalServiceSpec {
    /// Its DNS name, in lower case: neither an address, nor a wildcard, nor a name of the mesh. No other ExternalService
    /// may have it. Where it could also mean a Service (`payments`, `payments.shop`), that goes first.
    pub host: String,
    /// At least one.
    pub ports: Vec<ExternalPort>,
    /// The virtual address, which mesh DNS answers with. As a Service's: given by the server where absent.
    #[serde(default, rename = "clusterIP", skip_serializing_if = "Option::is_none")]
    pub cluster_ip: Option<String>,
}

/// One port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalPort {
    /// Needed where there are several ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What callers use.
    pub port: u16,
    /// What the host listens on. As `port` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_port: Option<u16>,
    /// What is spoken there; told from the first bytes where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
}

impl ExternalServiceSpec {
    pub(super) fn check(&self, faults: &mut Faults) {
        if let Err(message) = check_host(&self.host) {
            faults.add(&Path::root().field("spec").field("host"), message);
        }
        self.to_service().check(faults);
    }

    /// What it has in common with a Service that no workload serves.
    pub fn to_service(&self) -> ServiceSpec {
        let ports = self.ports.iter().map(|port| ServicePort {
            name: port.name.clone(),
            port: port.port,
            target_port: port.target_port.map(TargetPort::Number),
            protocol: None,
            app_protocol: port.app_protocol.clone(),
        });
        ServiceSpec {
            ports: ports.collect(),
            selector: std::collections::BTreeMap::new(),
            cluster_ip: self.cluster_ip.clone(),
        }
    }
}

fn check_host(host: &str) -> Result<(), String> {
    if host.contains('*') {
        return Err(format!("must be one name, not a wildcard, is {host:?}"));
    }
    let last = host.rsplit('.').next().unwrap_or_default();
    // RFC 3696 2: no top-level name is all digits, so that is an address or the attempt at one.
    if host.parse::<IpAddr>().is_ok() || (!last.is_empty() && last.bytes().all(|it| it.is_ascii_digit())) {
        return Err(format!("must be a DNS name, not an address, is {host:?}"));
    }
    if !is_host(host) {
        return Err(format!(
            "must be a DNS name: labels of 1 to 63 lower-case letters, digits or \"-\" with \".\" between them, at most 253 \
             characters, is {host:?}"
        ));
    }
    let certain =
        ServiceName::from_host(host, "x").is_some_and(|(_, meaning)| meaning == HostMeaning::Certain);
    match last {
        "localhost" => Err(format!("must be outside the workload that calls it, is {host:?}")),
        "mesh" => Err(format!("must be outside the mesh, whose names end with \".mesh\", is {host:?}")),
        _ if certain => Err(format!("must be outside the mesh, is {host:?}, the name of a Service")),
        _ => Ok(()),
    }
}
