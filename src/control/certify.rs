//! This workload's certificate: the first by its join token, the next by the one before. Keys are made here and
//! never leave.

use std::{str::FromStr, sync::Arc, time::SystemTime};

use pillion_api::wire::{CertifyRequest, CertifyResponse};
use pillion_certs::{
    Fingerprint, Identity, PrivateKey, SpiffeId, bootstrap_client_config, rotate::Issued, tls::RootPin,
};

use super::channel::{ALPN, Client, connect};
use crate::{
    config::JoinToken,
    net::resolve::Resolver,
    telemetry::{names::Metric, prometheus::Registry},
};

/// Gets the first certificate.
///
/// # Errors
/// For people.
pub async fn join(
    address: &str,
    resolver: &Resolver,
    token: &JoinToken,
    registry: &Registry,
) -> Result<Identity, String> {
    let key = PrivateKey::generate().map_err(|error| error.to_string())?;
    let csr = key.csr_der().map_err(|error| error.to_string())?;
    let issued = by_token(address, resolver, csr, token, registry).await?;
    let (credential, bundle) = issued.into_material(key).map_err(|error| error.to_string())?;
    Ok(Identity::new(credential, bundle))
}

/// How the next certificates are got.
#[derive(Debug, Clone)]
pub struct Renewal {
    /// The control plane's `host:port`.
    pub address: String,
    /// How its name is looked up.
    pub resolver: Resolver,
    /// With the certificate that proves us.
    pub identity: Identity,
    /// Proves us where that has expired: after a long sleep, or a long absence of the control plane.
    pub join_token: JoinToken,
    /// Where clocks are compared.
    pub registry: Arc<Registry>,
}

impl Renewal {
    /// Gets the next certificate for a key's signing request.
    ///
    /// # Errors
    /// For people.
    pub async fn issue(self, csr: Vec<u8>) -> Result<Issued, String> {
        if self.identity.not_after() <= SystemTime::now() {
            let issued = by_token(&self.address, &self.resolver, csr, &self.join_token, &self.registry).await;
            return issued.map_err(|error| {
                format!("the certificate has expired, and the join token does not help: {error}")
            });
        }
        let control_plane = SpiffeId::control_plane(self.identity.spiffe_id().trust_domain());
        let config = self.identity.client_config(&control_plane, &[ALPN]);
        let mut client = connect(&self.address, &self.resolver, config).await?;
        certify(&mut client, csr, String::new(), &self.registry).await
    }
}

async fn by_token(
    address: &str,
    resolver: &Resolver,
    csr: Vec<u8>,
    token: &JoinToken,
    registry: &Registry,
) -> Result<Issued, String> {
    let token = match token {
        JoinToken::Text(text) => text.clone(),
        JoinToken::File(path) => std::fs::read_to_string(path)
            .map_err(|error| format!("join token file {}: {error}", path.display()))?
            .trim()
            .to_owned(),
    };
    let fingerprint = token.rsplit('.').next().unwrap_or_default();
    let pin = Fingerprint::from_str(fingerprint)
        .map_err(|_| "the join token is malformed: it does not end with the control plane's fingerprint")?;
    let config = bootstrap_client_config(RootPin::Fingerprint(pin), &[ALPN]);
    let mut client = connect(address, resolver, config).await?;
    certify(&mut client, csr, token, registry).await
}

async fn certify(
    client: &mut Client,
    csr_der: Vec<u8>,
    join_token: String,
    registry: &Registry,
) -> Result<Issued, String> {
    let answer = client.certify(CertifyRequest { csr_der, join_token }).await;
    let CertifyResponse { chain_der, trust_anchors_der, server_time_ms } =
        answer.map_err(|status| format!("the control plane refuses: {}", status.message()))?.into_inner();
    note_clock(server_time_ms, registry);
    Ok(Issued { chain_der, trust_anchors_der })
}

/// Compares the control plane's clock with ours. Certificates fail where they differ much, with words that seldom
/// say so.
pub(super) fn note_clock(server_time_ms: i64, registry: &Registry) {
    let skew = show_skew(server_time_ms, registry);
    if skew.abs() > 30.0 {
        tracing::warn!(skew_seconds = skew, "this host's clock differs from the control plane's");
    }
}

/// Shows the difference of the clocks, and gives it in seconds.
pub(super) fn show_skew(server_time_ms: i64, registry: &Registry) -> f64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let skew = (server_time_ms - now.as_millis() as i64) as f64 / 1000.0;
    registry.gauge(Metric::ClockSkew, &[]).set(skew);
    skew
}
