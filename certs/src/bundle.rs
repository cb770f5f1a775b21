//! Trust bundles: the roots under which the names of one trust domain are believed.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, TrustAnchor};

use crate::error::Error;
use crate::leaf::system_time;
use crate::spiffe::TrustDomain;

/// The SHA-256 of a certificate's DER, shown as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of one certificate.
    pub fn of(certificate_der: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, certificate_der).as_ref());
        Fingerprint(bytes)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Fingerprint {
    fn from(bytes: [u8; 32]) -> Self {
        Fingerprint(bytes)
    }
}

impl FromStr for Fingerprint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::malformed("fingerprint", "expected 64 hexadecimal digits");
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| wrong())?;
        }
        Ok(Fingerprint(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// All roots of one trust domain. Several while a root is being replaced.
///
/// Equal when they trust the same: the order of the roots and repetitions do not count.
#[derive(Clone)]
pub struct TrustBundle {
    trust_domain: TrustDomain,
    /// Sorted by DER, each once.
    roots: Vec<CertificateDer<'static>>,
    /// The same roots as `webpki` wants them.
    anchors: Vec<TrustAnchor<'static>>,
}

impl TrustBundle {
    /// A bundle of DER certificates; reports every one that cannot be read.
    pub fn from_der<I>(trust_domain: TrustDomain, roots_der: I) -> Result<Self, Error>
    where
        I: IntoIterator<Item: AsRef<[u8]>>,
    {
        let mut roots: Vec<CertificateDer<'static>> = Vec::new();
        let mut faults = Vec::new();
        for (index, der) in roots_der.into_iter().enumerate() {
            let root = CertificateDer::from(der.as_ref().to_vec());
            match check_root(&root) {
                Ok(()) => roots.push(root),
                Err(problem) => faults.push(Error::malformed(format!("root {}", index + 1), problem)),
            }
        }
        if !faults.is_empty() {
            return Err(Error::all(faults));
        }
        if roots.is_empty() {
            return Err(Error::EmptyBundle);
        }
        roots.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
        roots.dedup();
        let anchors = roots
            .iter()
            .map(|root| webpki::anchor_from_trusted_cert(root).expect("checked above").to_owned())
            .collect();
        Ok(TrustBundle { trust_domain, roots, anchors })
    }

    /// A bundle of PEM certificates; reports every one that cannot be read.
    pub fn from_pem(trust_domain: TrustDomain, pem: &str) -> Result<Self, Error> {
        TrustBundle::from_der(trust_domain, certificates_from_pem("trust bundle", pem)?)
    }

    /// The roots in PEM, one after the other.
    pub fn to_pem(&self) -> String {
        certificates_to_pem(&self.roots)
    }

    /// Whose roots these are.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The roots, DER.
    pub fn roots_der(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.roots.iter().map(AsRef::as_ref)
    }

    /// The SHA-256 of each root.
    pub fn fingerprints(&self) -> impl ExactSizeIterator<Item = Fingerprint> {
        self.roots_der().map(Fingerprint::of)
    }

    /// When each root ends, in the same order.
    pub fn not_after(&self) -> impl Iterator<Item = SystemTime> {
        self.roots.iter().map(|root| {
            let (_, certificate) =
                x509_parser::parse_x509_certificate(root).expect("checked when it was made");
            system_time(certificate.validity().not_after)
        })
    }

    /// These roots and those of `other` (of the same trust domain), as is needed while a root is being replaced.
    pub fn merged(&self, other: &TrustBundle) -> Result<Self, Error> {
        if self.trust_domain != other.trust_domain {
            return Err(Error::WrongTrustDomain {
                expected: self.trust_domain.to_string(),
                actual: other.trust_domain.to_string(),
            });
        }
        TrustBundle::from_der(self.trust_domain.clone(), self.roots_der().chain(other.roots_der()))
    }

    pub(crate) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }
}

impl PartialEq for TrustBundle {
    fn eq(&self, other: &Self) -> bool {
        self.trust_domain == other.trust_domain && self.roots == other.roots
    }
}

impl Eq for TrustBundle {}

impl fmt::Debug for TrustBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustBundle")
            .field("trust_domain", &self.trust_domain)
            .field("fingerprints", &self.fingerprints().collect::<Vec<_>>())
            .finish()
    }
}

fn check_root(root: &CertificateDer<'_>) -> Result<(), String> {
    webpki::anchor_from_trusted_cert(root).map_err(|e| format!("not a certificate ({e})"))?;
    let (_, certificate) = x509_parser::parse_x509_certificate(root).map_err(|e| e.to_string())?;
    if !certificate.is_ca() {
        // A workload's certificate here would make that workload an authority.
        return Err(format!("{} is not a certificate authority", certificate.subject()));
    }
    Ok(())
}

/// All certificates of a PEM text; other sections are passed over.
pub(crate) fn certificates_from_pem(what: &str, pem: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let mut faults = Vec::new();
    let mut certificates = Vec::new();
    for (index, section) in CertificateDer::pem_slice_iter(pem.as_bytes()).enumerate() {
        match section {
            Ok(certificate) => certificates.push(certificate),
            Err(e) => faults.push(Error::malformed(format!("{what}, PEM section {}", index + 1), e)),
        }
    }
    if !faults.is_empty() {
        return Err(Error::all(faults));
    }
    if certificates.is_empty() {
        return Err(Error::malformed(what, "no PEM certificate in it"));
    }
    Ok(certificates)
}

/// Certificates in PEM, one after the other.
pub(crate) fn certificates_to_pem(certificates: &[CertificateDer<'_>]) -> String {
    let sections: Vec<_> =
        certificates.iter().map(|der| pem::Pem::new("CERTIFICATE", der.as_ref())).collect();
    pem::encode_many_config(&sections, pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF))
}
