//! Private keys: made here, never printed, never sent.

use std::fmt;
use std::sync::Arc;

use rcgen::{
    CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm,
    SigningKey,
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::error::Error;

/// An ECDSA P-256 private key, or an existing one of another kind that an operator brought for an authority.
#[derive(Clone)]
pub struct PrivateKey(Arc<KeyPair>);

impl PrivateKey {
    /// A new ECDSA P-256 key.
    pub fn generate() -> Result<Self, Error> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .map(|pair| PrivateKey(Arc::new(pair)))
            .map_err(|e| Error::crypto("generate a key", e))
    }

    /// Reads a key in PEM: PKCS #8, or SEC1 for elliptic curves.
    pub fn from_pem(pem: &str) -> Result<Self, Error> {
        // The library's message says what it expected, never what it found: nothing of the key gets out.
        KeyPair::from_pem(pem)
            .map(|pair| PrivateKey(Arc::new(pair)))
            .map_err(|e| Error::malformed("private key", e))
    }

    /// The key in PEM, PKCS #8. The caller answers for where it goes.
    pub fn to_pem(&self) -> String {
        self.0.serialize_pem()
    }

    /// A certificate signing request (PKCS #10, DER) that carries the public key and proves possession of this one.
    pub fn csr_der(&self) -> Result<Vec<u8>, Error> {
        // It names nobody: the name comes from what the sender proves, not from what it says.
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&*self.0);
        let request = request.map_err(|e| Error::crypto("sign a certificate signing request", e))?;
        Ok(request.der().to_vec())
    }

    pub(crate) fn pkcs8(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.0.serialize_der()).into()
    }

    pub(crate) fn pair(&self) -> &KeyPair {
        &self.0
    }
}

impl PublicKeyData for PrivateKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.0.algorithm()
    }
}

impl SigningKey for PrivateKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign(message)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_pem_and_never_shows_itself() {
        let key = PrivateKey::generate().unwrap();
        let again = PrivateKey::from_pem(&key.to_pem()).unwrap();
        assert_eq!(again.pkcs8(), key.pkcs8());
        assert_eq!(format!("{key:?}"), "PrivateKey(..)");
        assert!(
            PrivateKey::from_pem("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----").is_err()
        );
    }
}
