//! `MeshConfig` (`pillion.dev/v1alpha1`): what holds for the whole mesh.

use pillion_api::wire;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    access_log::AccessLog,
    cidr::Cidr,
    fault::{Faults, Path},
    metadata::Metadata,
    tap::Tap,
    tracing::Tracing,
};

/// The one name that it may have.
pub const NAME: &str = "mesh";

/// The one namespace that it may be in: that of the mesh's own workloads.
pub const NAMESPACE: &str = "pillion-system";

/// What is absent has the default, as all has where there is no such document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MeshConfigSpec {
    /// What becomes of destinations that the mesh does not know: `allowAny` passes them through as they are,
    /// `registryOnly` refuses them. Default: allowAny.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outbound: Option<Outbound>,
    /// Who may call workloads: `permissive` takes mutual TLS from sidecars and what anybody else speaks, `strict` mutual
    /// TLS only. Default: permissive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inbound: Option<Inbound>,
    /// Out of which services get their addresses, an IPv4 block of /8 to /24. It may change as long as it holds every
    /// address that is given. Default: 240.240.0.0/16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_cidr: Option<String>,
    /// Has sidecars write a line for each request and connection that has ended, or for a share of them; `{}` is all that did not
    /// end well, and 1 percent of the rest. Default: none is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_log: Option<AccessLog>,
    /// Live requests: whether they are shown, and what of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tap: Option<Tap>,
    /// Has sidecars record the ways of requests, or of a share of them, and send that to a receiver of traces. Default: nothing is
    /// recorded, and what requests say of traces is left as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracing: Option<Tracing>,
}

/// What becomes of destinations that the mesh does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Outbound {
    /// They are passed through as they are.
    #[default]
    AllowAny,
    /// They are refused.
    RegistryOnly,
}

/// Who may call workloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Inbound {
    /// Sidecars by mutual TLS, anybody else with what they speak.
    #[default]
    Permissive,
    /// Sidecars by mutual TLS.
    Strict,
}

impl MeshConfigSpec {
    pub(super) fn check(&self, metadata: &Metadata, faults: &mut Faults) {
        let at = Path::root().field("metadata");
        for (field, wanted, found) in
            [("name", NAME, &metadata.name), ("namespace", NAMESPACE, &metadata.namespace)]
        {
            if wanted != found {
                faults.add(
                    &at.field(field),
                    format!(
                        "must be {wanted:?}, is {found:?}: a mesh has one MeshConfig, {NAMESPACE}/{NAME}"
                    ),
                );
            }
        }
        if let Some(Err(message)) = self.service_cidr.as_deref().map(str::parse::<Cidr>) {
            faults.add(&Path::root().field("spec").field("serviceCidr"), message);
        }
        if let Some(log) = &self.access_log {
            log.check(faults, &Path::root().field("spec").field("accessLog"));
        }
        if let Some(tap) = &self.tap {
            tap.check(&Path::root().field("spec").field("tap"), faults);
        }
        if let Some(tracing) = &self.tracing {
            tracing.check(faults, &Path::root().field("spec").field("tracing"));
        }
    }

    /// Out of which services get their addresses.
    pub fn service_cidr(&self) -> Cidr {
        self.service_cidr.as_deref().and_then(|text| text.parse().ok()).unwrap_or(Cidr::DEFAULT)
    }

    /// What is in force, with every default filled in.
    pub fn in_force(&self) -> Self {
        Self {
            outbound: Some(self.outbound.unwrap_or_default()),
            inbound: Some(self.inbound.unwrap_or_default()),
            service_cidr: Some(self.service_cidr().to_string()),
            access_log: self.access_log.as_ref().map(AccessLog::in_force),
            tap: Some(self.tap().in_force()),
            tracing: self.tracing.as_ref().map(Tracing::in_force),
        }
    }

    /// What is shown of live requests. Sidecars are told with each tap.
    pub fn tap(&self) -> Tap {
        self.tap.clone().unwrap_or_default()
    }

    /// The rest, as sidecars are told.
    pub fn to_wire(&self) -> wire::MeshSettings {
        use wire::mesh_settings as settings;
        let outbound = match self.outbound.unwrap_or_default() {
            Outbound::AllowAny => settings::Outbound::AllowAny,
            Outbound::RegistryOnly => settings::Outbound::RegistryOnly,
        };
        let inbound = match self.inbound.unwrap_or_default() {
            Inbound::Permissive => settings::Inbound::Permissive,
            Inbound::Strict => settings::Inbound::Strict,
        };
        wire::MeshSettings {
            outbound: outbound.into(),
            inbound: inbound.into(),
            service_cidr: self.service_cidr().to_string(),
            access_log: self.access_log.as_ref().map(AccessLog::to_wire),
            tracing: self.tracing.as_ref().map(Tracing::to_wire),
        }
    }
}
