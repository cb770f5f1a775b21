//! The certificate authority: a root or an intermediate that signs workloads' requests.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::RngCore;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

use crate::bundle::{TrustBundle, certificates_from_pem, certificates_to_pem};
use crate::credential::Credential;
use crate::csr;
use crate::error::Error;
use crate::key::PrivateKey;
use crate::leaf::system_time;
use crate::spiffe::{SpiffeId, TrustDomain};
use crate::validity::{BACKDATE, ROOT_LIFETIME};

/// Signs certificates for the workloads of one trust domain.
pub struct Authority {
    trust_domain: TrustDomain,
    /// The signing certificate first, the root last; a root alone is both.
    chain: Vec<CertificateDer<'static>>,
    /// The first end of any certificate in the chain: nothing that we sign outlives it.
    not_after: SystemTime,
    key: PrivateKey,
    issuer: Issuer<'static, PrivateKey>,
}

/// An authority's certificates and private key, as text to be kept.
pub struct AuthorityPem {
    /// The signing certificate first, the root last.
    pub chain: String,
    /// PKCS #8. Whoever has it can be anyone in the mesh.
    pub key: String,
}

impl fmt::Debug for AuthorityPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorityPem").field("chain", &self.chain).finish_non_exhaustive()
    }
}

impl Authority {
    /// A new root: ECDSA P-256, good for [`ROOT_LIFETIME`] from `now`.
    pub fn generate(trust_domain: TrustDomain, now: SystemTime) -> Result<Self, Error> {
        let key = PrivateKey::generate()?;
        let serial = random_serial();
        let mut params = CertificateParams::default();
        set_validity(&mut params, now - BACKDATE, now + ROOT_LIFETIME);
        // Two roots of one trust domain have different names, so that it shows which one issued a certificate.
        let distinction: String = serial[..4].iter().map(|byte| format!("{byte:02x}")).collect();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "pillion");
        params.distinguished_name.push(DnType::CommonName, format!("root {distinction} of {trust_domain}"));
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.subject_alt_names = vec![uri(trust_domain.uri())];
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate =
            params.self_signed(key.pair()).map_err(|e| Error::crypto("sign a root certificate", e))?;
        Authority::new(trust_domain, vec![certificate.der().clone()], key, now)
    }

    /// An existing root or intermediate with its key. The chain is the signing certificate first and the root last.
    ///
    /// Reports every fault: unreadable parts, another's key, a certificate that may not sign, one that has ended at
    /// `now`, a chain without its root, names of another trust domain.
    pub fn from_pem(
        trust_domain: TrustDomain,
        chain_pem: &str,
        key_pem: &str,
        now: SystemTime,
    ) -> Result<Self, Error> {
        match (certificates_from_pem("authority's chain", chain_pem), PrivateKey::from_pem(key_pem)) {
            (Ok(chain), Ok(key)) => Authority::new(trust_domain, chain, key, now),
            (chain, key) => Err(Error::all(chain.err().into_iter().chain(key.err()).collect())),
        }
    }

    fn new(
        trust_domain: TrustDomain,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKey,
        now: SystemTime,
    ) -> Result<Self, Error> {
        let not_after = check_chain(&trust_domain, &chain, &key, now)?;
        let issuer = Issuer::from_ca_cert_der(&chain[0], key.clone())
            .map_err(|e| Error::malformed("authority's certificate", e))?;
        Ok(Authority { trust_domain, chain, not_after, key, issuer })
    }

    /// The chain and the key, to be kept where only the control plane can read them.
    pub fn to_pem(&self) -> AuthorityPem {
        AuthorityPem { chain: certificates_to_pem(&self.chain), key: self.key.to_pem() }
    }

    /// For whose workloads it signs.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// When the first certificate of its chain ends; nothing that it signs outlives that.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// What the workloads need to believe what it signs: its root.
    pub fn trust_bundle(&self) -> TrustBundle {
        let root = self.chain.last().expect("a chain is never empty");
        TrustBundle::from_der(self.trust_domain.clone(), [root]).expect("checked when the authority was made")
    }

    /// Signs a request (PKCS #10, DER) for `id`, valid from shortly before `now` until `now + validity` or until the
    /// authority itself ends. Nothing but the public key is taken from the request, and only if it is signed by that
    /// key. Returns the chain in DER: the leaf, then intermediates; never the root.
    pub fn sign(
        &self,
        csr_der: &[u8],
        id: &SpiffeId,
        validity: Duration,
        now: SystemTime,
    ) -> Result<Vec<Vec<u8>>, Error> {
        let public_key = csr::public_key(csr_der)?;
        if *id.trust_domain() != self.trust_domain {
            return Err(Error::WrongTrustDomain {
                expected: self.trust_domain.to_string(),
                actual: id.trust_domain().to_string(),
            });
        }
        if now >= self.not_after {
            return Err(Error::AuthorityExpired { not_after: self.not_after });
        }
        let mut params = CertificateParams::default();
        set_validity(&mut params, now - BACKDATE, (now + validity).min(self.not_after));
        params.serial_number = Some(SerialNumber::from_slice(&random_serial()));
        // The name is in the URI alone; with an empty subject that extension is critical (RFC 5280 §4.1.2.6).
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![uri(id.to_string())];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let leaf = params
            .signed_by(&public_key, &self.issuer)
            .map_err(|e| Error::crypto("sign a certificate", e))?;
        let intermediates = &self.chain[..self.chain.len() - 1];
        Ok(std::iter::once(leaf.der()).chain(intermediates).map(|der| der.to_vec()).collect())
    }

    /// A credential with a new key, for a workload in this process.
    pub fn issue(&self, id: &SpiffeId, validity: Duration, now: SystemTime) -> Result<Credential, Error> {
        let key = PrivateKey::generate()?;
        Credential::new(self.sign(&key.csr_der()?, id, validity, now)?, key)
    }

    /// The control plane's own credential, with a new key.
    pub fn issue_control_plane(&self, validity: Duration, now: SystemTime) -> Result<Credential, Error> {
        let key = PrivateKey::generate()?;
        Credential::new(self.sign_control_plane(&key.csr_der()?, validity, now)?, key)
    }

    /// As [`sign`](Self::sign), for the control plane itself. The chain ends with the root, so that a workload that
    /// knows no more than the root's fingerprint (from its join token) can verify it.
    pub fn sign_control_plane(
        &self,
        csr_der: &[u8],
        validity: Duration,
        now: SystemTime,
    ) -> Result<Vec<Vec<u8>>, Error> {
        let id = SpiffeId::control_plane(&self.trust_domain);
        let mut chain = self.sign(csr_der, &id, validity, now)?;
        chain.extend(self.chain.last().map(|root| root.to_vec()));
        Ok(chain)
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("trust_domain", &self.trust_domain)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// Finds every fault of an authority's chain, or else when the chain ends.
fn check_chain(
    trust_domain: &TrustDomain,
    chain: &[CertificateDer<'_>],
    key: &PrivateKey,
    now: SystemTime,
) -> Result<SystemTime, Error> {
    let mut faults = Vec::new();
    let mut certificates = Vec::new();
    for (index, der) in chain.iter().enumerate() {
        match x509_parser::parse_x509_certificate(der) {
            Ok((_, certificate)) => certificates.push(certificate),
            Err(e) => faults
                .push(Error::malformed(format!("certificate {} of the authority's chain", index + 1), e)),
        }
    }
    if !faults.is_empty() {
        return Err(Error::all(faults));
    }
    let (Some(signing), Some(root)) = (certificates.first(), certificates.last()) else {
        return Err(Error::malformed("authority's chain", "no certificate in it"));
    };
    if signing.public_key().raw != key.pair().subject_public_key_info() {
        faults.push(Error::KeyMismatch);
    }
    for certificate in &certificates {
        check_authority(trust_domain, certificate, now, &mut faults);
    }
    for pair in certificates.windows(2) {
        if pair[0].verify_signature(Some(pair[1].public_key())).is_err() {
            let problem = format!("{} has not issued {}", pair[1].subject(), pair[0].subject());
            faults.push(Error::malformed("authority's chain", problem));
        }
    }
    if root.verify_signature(None).is_err() {
        let (subject, issuer) = (root.subject().to_string(), root.issuer().to_string());
        faults.push(Error::NoRoot { subject, issuer });
    }
    if !faults.is_empty() {
        return Err(Error::all(faults));
    }
    let ends = certificates.iter().map(|c| system_time(c.validity().not_after));
    Ok(ends.min().expect("at least one certificate"))
}

fn check_authority(
    trust_domain: &TrustDomain,
    certificate: &X509Certificate<'_>,
    now: SystemTime,
    faults: &mut Vec<Error>,
) {
    let subject = certificate.subject();
    if !certificate.is_ca() {
        let problem = format!("{subject} has no basic constraint CA:TRUE");
        faults.push(Error::NotAnAuthority { problem });
    }
    match certificate.key_usage() {
        Ok(Some(usage)) if !usage.value.key_cert_sign() => {
            let problem = format!("{subject} has no key usage keyCertSign");
            faults.push(Error::NotAnAuthority { problem });
        }
        // Without the extension every usage is allowed (RFC 5280 §4.2.1.3).
        Ok(_) => {}
        Err(e) => faults.push(Error::malformed(format!("key usage of {subject}"), e)),
    }
    let not_after = system_time(certificate.validity().not_after);
    if not_after <= now {
        faults.push(Error::AuthorityExpired { not_after });
    }
    let names = certificate.subject_alternative_name().ok().flatten();
    for name in names.iter().flat_map(|extension| &extension.value.general_names) {
        if let GeneralName::URI(uri) = name
            && let Some(actual) = uri.strip_prefix("spiffe://")
            && actual != trust_domain.as_str()
        {
            let (expected, actual) = (trust_domain.to_string(), actual.to_owned());
            faults.push(Error::WrongTrustDomain { expected, actual });
        }
    }
}

/// 127 random bits: positive and never the same twice (RFC 5280 §4.1.2.2).
fn random_serial() -> [u8; 16] {
    let mut serial = [0; 16];
    rand::rng().fill_bytes(&mut serial);
    // The highest bit would be the sign; the next one keeps the encoding minimal.
    serial[0] = serial[0] & 0x7f | 0x40;
    serial
}

fn uri(text: String) -> SanType {
    SanType::URI(text.try_into().expect("SPIFFE IDs are ASCII"))
}

/// In whole seconds, as certificates have it.
fn set_validity(params: &mut CertificateParams, not_before: SystemTime, not_after: SystemTime) {
    let seconds =
        |time: SystemTime| Duration::from_secs(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs());
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + seconds(not_before);
    params.not_after = epoch + seconds(not_after);
}
