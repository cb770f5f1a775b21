//! A credential: a certificate chain with the private key that belongs to it.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::sign::CertifiedKey;
use rustls::{Error as TlsError, InconsistentKeys};
use rustls_pki_types::CertificateDer;

use crate::bundle::{certificates_from_pem, certificates_to_pem};
use crate::error::Error;
use crate::key::PrivateKey;
use crate::leaf::{Leaf, LeafFault};
use crate::spiffe::SpiffeId;

/// Proof of one workload's identity, for as long as it is valid. Cheap to clone; never prints its key.
#[derive(Clone, Debug)]
pub struct Credential {
    id: SpiffeId,
    not_before: SystemTime,
    not_after: SystemTime,
    key: PrivateKey,
    /// The chain, and the key in the form that rustls signs with.
    certified: Arc<CertifiedKey>,
}

impl Credential {
    /// A chain (DER, leaf first) with its key. Refuses a chain that cannot be read, a leaf that does not name a
    /// workload, and another's key; whether anybody trusts the chain is for `verify`.
    pub fn new<I>(chain_der: I, key: PrivateKey) -> Result<Self, Error>
    where
        I: IntoIterator<Item: Into<Vec<u8>>>,
    {
        let chain: Vec<CertificateDer<'static>> =
            chain_der.into_iter().map(|der| CertificateDer::from(der.into())).collect();
        let mut faults: Vec<Error> = chain
            .iter()
            .enumerate()
            .skip(1)
            .filter_map(|(index, der)| {
                let problem = x509_parser::parse_x509_certificate(der).err()?;
                Some(Error::malformed(format!("certificate {} of the chain", index + 1), problem))
            })
            .collect();
        let leaf = chain
            .first()
            .map(|der| Leaf::read(der))
            .unwrap_or_else(|| Err(LeafFault::Malformed("the chain is empty".to_owned())));
        let leaf = match leaf {
            Ok(leaf) if faults.is_empty() => leaf,
            Ok(_) => return Err(Error::all(faults)),
            Err(LeafFault::Malformed(problem) | LeafFault::NotSpiffe(problem)) => {
                faults.insert(0, Error::malformed("certificate 1 of the chain", problem));
                return Err(Error::all(faults));
            }
        };
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let certified = CertifiedKey::from_der(chain, key.pkcs8(), &provider).map_err(|e| match e {
            TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch) => Error::KeyMismatch,
            other => Error::malformed("credential", other),
        })?;
        let Leaf { id, not_before, not_after } = leaf;
        Ok(Credential { id, not_before, not_after, key, certified: Arc::new(certified) })
    }

    /// Reads back what [`chain_pem`](Self::chain_pem) and [`PrivateKey::to_pem`] wrote.
    pub fn from_pem(chain_pem: &str, key_pem: &str) -> Result<Self, Error> {
        match (certificates_from_pem("certificate chain", chain_pem), PrivateKey::from_pem(key_pem)) {
            (Ok(chain), Ok(key)) => Credential::new(chain.iter().map(|der| der.to_vec()), key),
            (chain, key) => Err(Error::all(chain.err().into_iter().chain(key.err()).collect())),
        }
    }

    /// Whom it names.
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.id
    }

    /// When it begins.
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// When it ends.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// The chain, leaf first.
    pub fn chain_der(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.certified.cert.iter().map(AsRef::as_ref)
    }

    /// The chain in PEM, leaf first.
    pub fn chain_pem(&self) -> String {
        certificates_to_pem(&self.certified.cert)
    }

    /// The private key.
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    pub(crate) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }

    pub(crate) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }
}
