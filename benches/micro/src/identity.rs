//! Who a peer is: its certificate's chain, and the SPIFFE ID in it.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use pillion_certs::{Authority, SpiffeId, verify::ServerVerifier};
use rustls::{
    client::danger::ServerCertVerifier,
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use crate::Case;

const ID: &str = "spiffe://bench.local/ns/bench/sa/backend";

/// The verification of a server's certificate, as in every full handshake.
#[derive(Debug)]
pub struct Verify {
    verifier: ServerVerifier,
    chain: Vec<CertificateDer<'static>>,
    name: ServerName<'static>,
    now: UnixTime,
}

impl Verify {
    /// A leaf under the trust domain's only root.
    pub fn new() -> Self {
        let now = SystemTime::now();
        let id: SpiffeId = ID.parse().expect("a valid SPIFFE ID");
        let authority = Authority::generate(id.trust_domain().clone(), now).expect("a fresh authority");
        let leaf = authority.issue(&id, Duration::from_secs(3600), now).expect("a fresh certificate");
        let chain = leaf.chain_der().map(|der| CertificateDer::from(der.to_vec())).collect();
        let bundle = Arc::new(ArcSwap::from_pointee(authority.trust_bundle()));
        Self {
            verifier: ServerVerifier::expecting(id, bundle),
            chain,
            name: ServerName::try_from("workload.invalid").expect("a valid name"),
            now: UnixTime::now(),
        }
    }
}

impl Default for Verify {
    fn default() -> Self {
        Self::new()
    }
}

impl Case for Verify {
    type Output = ();

    fn run(&mut self) {
        let (leaf, rest) = self.chain.split_first().expect("a chain begins with the leaf");
        self.verifier
            .verify_server_cert(leaf, rest, &self.name, &[], self.now)
            .expect("the authority's own certificate");
    }
}

/// Reading a SPIFFE ID alone.
#[derive(Debug)]
pub struct Parse;

impl Case for Parse {
    type Output = SpiffeId;

    fn run(&mut self) -> SpiffeId {
        std::hint::black_box(ID).parse().expect("a valid SPIFFE ID")
    }
}
