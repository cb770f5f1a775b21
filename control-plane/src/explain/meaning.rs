//! What a request's host and port mean, by the same look-up that answers sidecars.

use std::net::{IpAddr, SocketAddr};

use pillion_api::{
    model::{self, MeshSettings, OutboundMode},
    name::{HostMeaning, ServiceName},
    wire::{Resolve, Resolved, resolve::Destination},
};

use super::{Sources, Unexplained, decode, request::Asked, source};
use crate::resource::hint;

/// A service of the mesh that is meant.
pub(super) struct Meant {
    /// As sidecars read it.
    pub service: model::Service,
    /// The one that is called.
    pub port: model::Port,
    /// The workload that the caller names by its address.
    pub uid: Option<String>,
    /// In plain words.
    pub text: String,
}

/// Finds out.
///
/// # Errors
/// There is no such service or port.
pub(super) fn of(
    sources: Sources<'_>,
    asked: &Asked,
    namespace: &str,
    settings: &MeshSettings,
) -> Result<Meant, Unexplained> {
    let Asked { host, port, .. } = asked;
    let publisher = sources.publisher;
    // As browsers and libraries have it for http.
    let assumed = port.unwrap_or(80);
    let address = host.parse::<IpAddr>().ok();
    let destination = match address {
        Some(ip) => Destination::Address(SocketAddr::new(ip, assumed).to_string()),
        None => Destination::Host(host.clone()),
    };
    let Resolved { service: name, port: found, uid, .. } =
        publisher.resolve(Resolve { destination: Some(destination) }, namespace);
    if name.is_empty() {
        let hint = hint::did_you_mean(host, source::names(sources));
        return Err(Unexplained::Absent(unknown(host, address, namespace, settings) + &hint));
    }
    let gone = || Unexplained::Absent(format!("{name} is gone just now"));
    let compiled = publisher.service(&name).ok_or_else(gone)?;
    let (service, _) = decode(&compiled).ok_or_else(|| {
        Unexplained::Absent(format!("sidecars of this release cannot use the configuration of {name}"))
    })?;
    let port = match (address.is_some() && found != 0, port, service.ports.as_slice()) {
        (true, ..) => u16::try_from(found).unwrap_or_default(),
        // Who asks without a port means the only one.
        (false, None, [only]) => only.port,
        (false, ..) => assumed,
    };
    let Some(found) = service.port(port).cloned() else {
        let ports: Vec<String> = service.ports.iter().map(|port| port.port.to_string()).collect();
        return Err(Unexplained::Absent(format!(
            "{name} has no port {port}; it has {} (a sidecar would refuse with 404, unknown-port)",
            ports.join(", ")
        )));
    };
    let uid = Some(uid).filter(|uid| !uid.is_empty());
    let text = text(asked, address, namespace, &service, uid.as_deref(), found.port);
    Ok(Meant { service, port: found, uid, text })
}

fn text(
    asked: &Asked,
    address: Option<IpAddr>,
    namespace: &str,
    service: &model::Service,
    uid: Option<&str>,
    port: u16,
) -> String {
    let Asked { host, port: named, .. } = asked;
    let name = &service.name;
    let meaning = match (address, uid, &service.external) {
        (Some(_), Some(uid), _) => {
            format!("{host} is the address of the workload {uid}, which serves {name}")
        }
        (Some(_), None, _) => format!("{host} is the virtual address of {name}"),
        (None, _, Some(external)) if external == host => {
            format!("{host} is the host of the ExternalService {name}")
        }
        _ if !host.contains('.') => {
            format!("{host} is {name}: a bare name is of the caller's namespace, {namespace}")
        }
        _ if *host == *name.as_str() => format!("{name} is a service of the mesh"),
        _ => format!("{host} is {name}"),
    };
    match named {
        Some(_) => meaning,
        None => format!("{meaning}; port {port}, since none is named"),
    }
}

fn unknown(host: &str, address: Option<IpAddr>, namespace: &str, settings: &MeshSettings) -> String {
    let meaning = ServiceName::from_host(host, namespace);
    let knows = match &meaning {
        Some((name, _)) if address.is_none() && host != name.as_str() => {
            format!("the mesh knows no {host} ({name})")
        }
        _ => format!("the mesh knows no {host}"),
    };
    let of_mesh = address.is_some_and(|address| settings.is_virtual(address))
        || (address.is_none() && matches!(meaning, Some((_, HostMeaning::Certain))));
    let then = match settings.outbound {
        _ if of_mesh => "a sidecar would refuse with 404, unknown-service",
        OutboundMode::RegistryOnly => {
            "a sidecar would refuse with 403, outside-refused (MeshConfig outbound: registryOnly)"
        }
        OutboundMode::AllowAny => {
            "a sidecar would take it for a host outside, and pass the request through without encryption and policies \
             (MeshConfig outbound: allowAny)"
        }
    };
    format!("{knows}; {then}")
}
