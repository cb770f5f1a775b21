//! Signs certificates: for a join token, or for the certificate that is to be renewed.

use std::time::{Duration, SystemTime};

use pillion_api::wire::{CertifyRequest, CertifyResponse};
use pillion_certs::spiffe::SpiffeId;
use tonic::Status;
use tracing::{error, info, warn};

use super::{Mesh, Peer};
use crate::{
    authority,
    clock::unix_ms,
    token::{TokenError, TokenFault},
};

/// A P-256 request is about 300 bytes.
const MAX_CSR: usize = 8 * 1024;
/// A token is about 150 characters.
const MAX_TOKEN: usize = 1024;

/// Who is to be named in the certificate, and what proved it.
struct Proven {
    id: SpiffeId,
    proof: &'static str,
}

pub(super) async fn certify(
    mesh: &Mesh,
    peer: &Peer,
    request: CertifyRequest,
) -> Result<CertifyResponse, Status> {
    if request.csr_der.len() > MAX_CSR {
        return Err(Status::invalid_argument(format!("csr_der is longer than {MAX_CSR} bytes")));
    }
    let Proven { id, proof } = prove(mesh, peer, &request.join_token).await?;
    // Whoever has that name is believed to be the control plane by every sidecar.
    if id.is_control_plane() {
        mesh.telemetry.certificate_rejected("reserved-identity");
        warn!(peer = %peer.address, identity = %id, proof, "a certificate of the control plane's own identity was asked for");
        return Err(Status::permission_denied(format!("{id} is the control plane's own identity")));
    }
    let now = SystemTime::now();
    let chain = mesh.authority.sign(&request.csr_der, &id, mesh.leaf_ttl, now).map_err(|fault| {
        mesh.telemetry.certificate_rejected("csr");
        warn!(peer = %peer.address, identity = %id, %fault, "a certificate request was rejected");
        Status::invalid_argument(format!("csr_der: {fault}"))
    })?;
    mesh.telemetry.certificate_issued(proof);
    let ttl = humantime::format_duration(Duration::from_secs(mesh.leaf_ttl.as_secs()));
    info!(peer = %peer.address, identity = %id, proof, %ttl, "certificate issued");
    Ok(CertifyResponse {
        chain_der: chain,
        trust_anchors_der: authority::anchors_der(&mesh.authority),
        server_time_ms: unix_ms(),
    })
}

async fn prove(mesh: &Mesh, peer: &Peer, join_token: &str) -> Result<Proven, Status> {
    if !join_token.is_empty() {
        return by_token(mesh, peer, join_token).await;
    }
    match &peer.proof {
        // Else whoever holds a connection open would renew a certificate that is long over.
        Some(proof) if proof.is_over(SystemTime::now()) => {
            mesh.telemetry.certificate_rejected("expired");
            warn!(peer = %peer.address, identity = %proof.id, "a certificate that is over was to be renewed");
            Err(Status::unauthenticated("the certificate of this connection has expired"))
        }
        Some(proof) => Ok(Proven { id: proof.id.clone(), proof: "certificate" }),
        None => {
            mesh.telemetry.certificate_rejected("no-proof");
            let message =
                "a certificate needs a proof: a join token, or the certificate that is to be renewed";
            Err(Status::unauthenticated(message))
        }
    }
}

async fn by_token(mesh: &Mesh, peer: &Peer, join_token: &str) -> Result<Proven, Status> {
    let rejected = |fault: &TokenFault| {
        mesh.telemetry.certificate_rejected(fault.reason());
        warn!(peer = %peer.address, reason = fault.reason(), "a join token was rejected: {fault}");
        Status::unauthenticated(fault.to_string())
    };
    if join_token.len() > MAX_TOKEN {
        return Err(rejected(&TokenFault::Malformed("it is too long")));
    }
    let grant = match mesh.tokens.verify_join(join_token, SystemTime::now()).await {
        Ok(grant) => grant,
        Err(TokenError::Fault(fault)) => return Err(rejected(&fault)),
        Err(TokenError::Store(error)) => {
            error!(%error, "a join token could not be checked");
            return Err(Status::unavailable("tokens cannot be checked now; try again"));
        }
    };
    let trust_domain = mesh.authority.trust_domain().clone();
    let id = SpiffeId::new(trust_domain, &grant.namespace, &grant.service_account)
        .map_err(|fault| Status::internal(format!("the token grants what is no identity: {fault}")))?;
    Ok(Proven { id, proof: "join-token" })
}
