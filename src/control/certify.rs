//! This workload's certificate: the first by its join token, the next by the one before. Keys are made here and
//! never leave.

use std::{str::FromStr, time::SystemTime};

use pillion_api::wire::{CertifyRequest, CertifyResponse};
use pillion_certs::{
    Fingerprint, Identity, PrivateKey, SpiffeId, bootstrap_client_config, rotate::Issued, tls::RootPin,
};

use super::channel::{ALPN, Client, connect};
use crate::{
    config::JoinToken,
    telemetry::{names::Metric, prometheus::Registry},
};

/// Gets the first certificate.
///
/// # Errors
/// For people.
pub async fn join(address: &str, token: &JoinToken, registry: &Registry) -> Result<Identity, String> {
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
    let mut client = connect(address, bootstrap_client_config(RootPin::Fingerprint(pin), &[ALPN])).await?;
    let key = PrivateKey::generate().map_err(|error| error.to_string())?;
    let csr = key.csr_der().map_err(|error| error.to_string())?;
    let issued = certify(&mut client, csr, token, registry).await?;
    let (credential, bundle) = issued.into_material(key).map_err(|error| error.to_string())?;
    Ok(Identity::new(credential, bundle))
}

/// Gets the next certificate for a key's signing request.
///
/// # Errors
/// For people.
pub async fn renew(
    address: String,
    identity: Identity,
    csr: Vec<u8>,
    registry: std::sync::Arc<Registry>,
) -> Result<Issued, String> {
    let control_plane = SpiffeId::control_plane(identity.spiffe_id().trust_domain());
    let mut client = connect(&address, identity.client_config(&control_plane, &[ALPN])).await?;
    certify(&mut client, csr, String::new(), &registry).await
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
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let skew = (server_time_ms - now.as_millis() as i64) as f64 / 1000.0;
    registry.gauge(Metric::ClockSkew, &[]).set(skew);
    if skew.abs() > 30.0 {
        tracing::warn!(skew_seconds = skew, "this host's clock differs from the control plane's");
    }
}
