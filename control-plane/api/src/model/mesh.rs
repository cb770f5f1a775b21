//! What holds for the whole mesh.

use std::sync::Arc;

use super::{AccessLog, Faults, Refused, Tracing};
use crate::wire;

/// What holds for the whole mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshSettings {
    /// What becomes of destinations that the mesh does not know.
    pub outbound: OutboundMode,
    /// Who may call workloads.
    pub inbound: InboundMode,
    /// Of services' virtual addresses: the first address and the number of bits that they share.
    pub service_cidr: Option<(std::net::IpAddr, u8)>,
    /// What sidecars write of requests. `None`: nothing.
    pub access_log: Option<Arc<AccessLog>>,
    /// How requests are traced. `None`: they are not.
    pub tracing: Option<Arc<Tracing>>,
}

/// What becomes of destinations that the mesh does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutboundMode {
    /// Passed through as they are.
    AllowAny,
    /// Refused.
    RegistryOnly,
}

/// Who may call workloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InboundMode {
    /// Other sidecars by mutual TLS, and anybody else with what they speak.
    Permissive,
    /// Other sidecars by mutual TLS.
    Strict,
}

impl MeshSettings {
    /// Where nothing else is said: nobody is let in who has not proven who they are.
    pub const UNTOLD: Self = Self {
        outbound: OutboundMode::AllowAny,
        inbound: InboundMode::Strict,
        service_cidr: None,
        access_log: None,
        tracing: None,
    };

    /// Whether an address is one that only the mesh gives.
    pub fn is_virtual(&self, address: std::net::IpAddr) -> bool {
        use std::net::IpAddr::{V4, V6};
        let shares = |differ: u128, width: u32, bits: u8| {
            differ.checked_shr(width - u32::from(bits).min(width)).unwrap_or(0) == 0
        };
        match (self.service_cidr, address) {
            (Some((V4(first), bits)), V4(address)) => {
                shares((u32::from(first) ^ u32::from(address)).into(), 32, bits)
            }
            (Some((V6(first), bits)), V6(address)) => {
                shares(u128::from(first) ^ u128::from(address), 128, bits)
            }
            _ => false,
        }
    }
}

impl TryFrom<wire::MeshSettings> for MeshSettings {
    type Error = Refused;

    fn try_from(settings: wire::MeshSettings) -> Result<Self, Refused> {
        let mut faults = Faults::default();
        let outbound = match wire::mesh_settings::Outbound::try_from(settings.outbound) {
            Ok(wire::mesh_settings::Outbound::AllowAny) => OutboundMode::AllowAny,
            Ok(wire::mesh_settings::Outbound::RegistryOnly) => OutboundMode::RegistryOnly,
            Err(_) => {
                faults.say("outbound", format_args!("{} is not known to this version", settings.outbound));
                OutboundMode::AllowAny
            }
        };
        let inbound = match wire::mesh_settings::Inbound::try_from(settings.inbound) {
            Ok(wire::mesh_settings::Inbound::Permissive) => InboundMode::Permissive,
            Ok(wire::mesh_settings::Inbound::Strict) => InboundMode::Strict,
            Err(_) => {
                faults.say("inbound", format_args!("{} is not known to this version", settings.inbound));
                InboundMode::Strict
            }
        };
        let service_cidr = match settings.service_cidr.as_str() {
            "" => None,
            text => match cidr(text) {
                Some(cidr) => Some(cidr),
                None => {
                    faults.say("service_cidr", format_args!("{text:?} is not ADDRESS/BITS"));
                    None
                }
            },
        };
        let access_log = settings.access_log.map(|it| Arc::new(faults.access_log(it)));
        let tracing = settings.tracing.and_then(|it| faults.tracing(&it)).map(Arc::new);
        if faults.0.is_empty() {
            Ok(Self { outbound, inbound, service_cidr, access_log, tracing })
        } else {
            Err(Refused(faults.0))
        }
    }
}

/// Reads `ADDRESS/BITS`.
pub fn cidr(text: &str) -> Option<(std::net::IpAddr, u8)> {
    let (address, bits) = text.split_once('/')?;
    let address: std::net::IpAddr = address.parse().ok()?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    bits.parse().ok().filter(|bits| *bits <= width).map(|bits| (address, bits))
}
