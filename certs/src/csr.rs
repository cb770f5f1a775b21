//! Certificate signing requests (PKCS #10, RFC 2986), read for nothing but their key. (`key` makes them.)

use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PublicKeyData, SubjectPublicKeyInfo};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use crate::error::Error;

/// The public key of a request whose sender has shown to hold the private one.
pub(crate) fn public_key(csr_der: &[u8]) -> Result<SubjectPublicKeyInfo, Error> {
    let malformed = |problem: String| Error::malformed("certificate signing request", problem);
    let (rest, csr) = X509CertificationRequest::from_der(csr_der).map_err(|e| malformed(e.to_string()))?;
    if !rest.is_empty() {
        return Err(malformed(format!("{} bytes follow it", rest.len())));
    }
    let subject_key = &csr.certification_request_info.subject_pki;
    let unsupported = || Error::UnsupportedKey { algorithm: subject_key.algorithm.algorithm.to_id_string() };
    let key = SubjectPublicKeyInfo::from_der(subject_key.raw).map_err(|_| unsupported())?;
    if ![&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384].contains(&key.algorithm()) {
        return Err(unsupported());
    }
    csr.verify_signature().map_err(|_| Error::NoProofOfPossession)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};

    fn request(pair: &KeyPair) -> Vec<u8> {
        CertificateParams::default().serialize_request(pair).unwrap().der().to_vec()
    }

    #[test]
    fn only_the_holder_of_the_key_gets_through() {
        let pair = KeyPair::generate().unwrap();
        let der = request(&pair);
        assert_eq!(public_key(&der).unwrap().der_bytes(), pair.der_bytes());

        // Another's public key in an otherwise valid request: as long as ours, so it fits in its place.
        let other = KeyPair::generate().unwrap();
        let at = der.windows(pair.der_bytes().len()).position(|w| w == pair.der_bytes()).unwrap();
        let mut stolen = der.clone();
        stolen[at..at + other.der_bytes().len()].copy_from_slice(other.der_bytes());
        assert!(matches!(public_key(&stolen), Err(Error::NoProofOfPossession)));
    }

    #[test]
    fn bad_requests_are_told_apart() {
        let der = request(&KeyPair::generate().unwrap());
        let mut longer = der.clone();
        longer.push(0);
        assert!(matches!(public_key(&longer), Err(Error::Malformed { .. })));
        for end in 0..der.len() {
            assert!(matches!(public_key(&der[..end]), Err(Error::Malformed { .. })), "{end}");
        }
        let other = request(&KeyPair::generate_for(&PKCS_ED25519).unwrap());
        assert!(matches!(public_key(&other), Err(Error::UnsupportedKey { .. })));
    }
}
