//! What a workload's certificate says: whom it names and when it is valid (X.509-SVID, version 1.0).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;
use x509_parser::time::ASN1Time;

use crate::spiffe::SpiffeId;

/// What we read from a certificate. Reading verifies nothing.
pub(crate) struct Leaf {
    pub(crate) id: SpiffeId,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

/// Why a certificate cannot be a workload's.
#[derive(Debug)]
pub(crate) enum LeafFault {
    /// Not a certificate.
    Malformed(String),
    /// A certificate, without the one name that it needs.
    NotSpiffe(String),
}

impl Leaf {
    pub(crate) fn read(der: &[u8]) -> Result<Leaf, LeafFault> {
        let malformed = |problem: String| LeafFault::Malformed(problem);
        let (rest, certificate) =
            x509_parser::parse_x509_certificate(der).map_err(|e| malformed(e.to_string()))?;
        if !rest.is_empty() {
            return Err(malformed(format!("{} bytes follow the certificate", rest.len())));
        }
        Ok(Leaf {
            id: spiffe_id(&certificate)?,
            not_before: system_time(certificate.validity().not_before),
            not_after: system_time(certificate.validity().not_after),
        })
    }
}

/// Exactly one URI among the alternative names, and that a SPIFFE ID (X.509-SVID §2 and §5.2).
fn spiffe_id(certificate: &X509Certificate<'_>) -> Result<SpiffeId, LeafFault> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|e| LeafFault::Malformed(format!("subject alternative names: {e}")))?;
    let names = names.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let uris: Vec<&str> = names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect();
    match uris[..] {
        [uri] => uri.parse().map_err(|e| LeafFault::NotSpiffe(format!("{uri:?}: {e}"))),
        [] => Err(LeafFault::NotSpiffe("no URI among its names".to_owned())),
        _ => Err(LeafFault::NotSpiffe(format!("{} URIs among its names", uris.len()))),
    }
}

/// A certificate's time; what lies before 1970 is 1970, which is long past in either case.
pub(crate) fn system_time(time: ASN1Time) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0))
}
