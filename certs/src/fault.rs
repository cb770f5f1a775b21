//! Why a peer was refused: named faults that survive the way through rustls and `io::Error`.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::{AlertDescription, CertificateError, OtherError};
use rustls_pki_types::UnixTime;

use crate::leaf::LeafFault;
use crate::spiffe::{SpiffeId, TrustDomain};

/// What was wrong with the peer's proof of who it is.
///
/// What the peer claims (`actual`) is as it said; where the refusal came before the chain was verified
/// ([`WrongTrustDomain`](Self::WrongTrustDomain)), nobody vouches for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerFault {
    /// The peer has no certificate, so it does not belong to the mesh.
    #[error("the peer presented no certificate")]
    NoCertificate,
    /// None of the roots that we trust has issued it.
    #[error("the peer's certificate is not issued under a root that we trust")]
    UnknownIssuer,
    /// It belongs to another mesh.
    #[error("the peer is of trust domain {actual}, not of {expected}")]
    WrongTrustDomain {
        /// Ours.
        expected: TrustDomain,
        /// What the certificate says.
        actual: TrustDomain,
    },
    /// A workload of this mesh, but not the one that was meant.
    #[error("the peer is {actual}, not {expected}")]
    WrongIdentity {
        /// Whom we meant.
        expected: SpiffeId,
        /// Who it is.
        actual: SpiffeId,
    },
    /// A certificate of its chain has ended.
    #[error("the peer's certificate expired at {}", humantime::format_rfc3339_seconds(*not_after))]
    Expired {
        /// When it ended.
        not_after: SystemTime,
    },
    /// A certificate of its chain begins in the future, as far as our clock is right.
    #[error(
        "the peer's certificate is valid from {}, and here it is {}: check both clocks for skew",
        humantime::format_rfc3339_seconds(*not_before),
        humantime::format_rfc3339_seconds(*now)
    )]
    NotYetValid {
        /// When it begins.
        not_before: SystemTime,
        /// Our clock.
        now: SystemTime,
    },
    /// It does not name exactly one workload by a SPIFFE ID.
    #[error("the peer's certificate names no workload: {problem}")]
    NotSpiffe {
        /// What is there instead.
        problem: String,
    },
    /// It is not a certificate that may be used here, or the peer could not sign with its key.
    #[error("the peer's certificate is unusable: {problem}")]
    Malformed {
        /// What is wrong with it.
        problem: String,
    },
}

/// For rustls's own errors, which say less: what a reference can be handed out to.
static NO_CERTIFICATE: PeerFault = PeerFault::NoCertificate;

impl PeerFault {
    /// A name for labels; stable, of a closed set.
    pub fn reason(&self) -> &'static str {
        match self {
            PeerFault::NoCertificate => "no-certificate",
            PeerFault::UnknownIssuer => "unknown-issuer",
            PeerFault::WrongTrustDomain { .. } => "wrong-trust-domain",
            PeerFault::WrongIdentity { .. } => "wrong-identity",
            PeerFault::Expired { .. } => "expired",
            PeerFault::NotYetValid { .. } => "not-yet-valid",
            PeerFault::NotSpiffe { .. } => "not-spiffe",
            PeerFault::Malformed { .. } => "malformed",
        }
    }

    /// The fault behind a failed handshake, if it is one of the peer's certificate.
    pub fn from_io(error: &io::Error) -> Option<&PeerFault> {
        PeerFault::from_error(error)
    }

    /// The fault behind an error of rustls.
    pub fn from_rustls(error: &rustls::Error) -> Option<&PeerFault> {
        match error {
            rustls::Error::NoCertificatesPresented => Some(&NO_CERTIFICATE),
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(other)))
            | rustls::Error::Other(OtherError(other)) => other.downcast_ref(),
            _ => None,
        }
    }

    /// The fault behind any error that has one among its sources, such as a failed connect of an HTTP client.
    pub fn from_error<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e PeerFault> {
        sources(error).find_map(|error| {
            error.downcast_ref().or_else(|| error.downcast_ref().and_then(PeerFault::from_rustls))
        })
    }

    /// Whether it was the peer that did not accept *our* certificate. It does not say why; it knows, under one of
    /// these reasons. With TLS 1.3 a client learns of this only when it first reads.
    pub fn is_refusal_by_peer(error: &(dyn StdError + 'static)) -> bool {
        use AlertDescription::*;
        sources(error).any(|error| {
            matches!(
                error.downcast_ref(),
                Some(rustls::Error::AlertReceived(
                    BadCertificate
                        | UnsupportedCertificate
                        | CertificateRevoked
                        | CertificateExpired
                        | CertificateUnknown
                        | CertificateRequired
                        | UnknownCA
                        | AccessDenied
                        | DecryptError
                ))
            )
        })
    }

    pub(crate) fn malformed(problem: impl ToString) -> Self {
        PeerFault::Malformed { problem: problem.to_string() }
    }

    pub(crate) fn from_webpki(error: webpki::Error) -> Self {
        use webpki::Error::*;
        match error {
            CertExpired { not_after, .. } => PeerFault::Expired { not_after: system_time(not_after) },
            CertNotValidYet { not_before, time } => {
                PeerFault::NotYetValid { not_before: system_time(not_before), now: system_time(time) }
            }
            // The latter: an issuer of the right name and another key, such as a root that was made anew.
            UnknownIssuer | InvalidSignatureForPublicKey => PeerFault::UnknownIssuer,
            other => PeerFault::malformed(other),
        }
    }
}

impl From<LeafFault> for PeerFault {
    fn from(fault: LeafFault) -> Self {
        match fault {
            LeafFault::Malformed(problem) => PeerFault::Malformed { problem },
            LeafFault::NotSpiffe(problem) => PeerFault::NotSpiffe { problem },
        }
    }
}

impl From<PeerFault> for rustls::Error {
    fn from(fault: PeerFault) -> Self {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(fault))))
    }
}

/// An error and what caused it, outermost first.
fn sources<'e>(error: &'e (dyn StdError + 'static)) -> impl Iterator<Item = &'e (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error: &&'e (dyn StdError + 'static)| {
        // An `io::Error` passes over the error that it holds when asked for its source.
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        }
    })
}

fn system_time(time: UnixTime) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(time.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("connect failed")]
    struct Wrapped(#[source] io::Error);

    fn of_io(error: impl Into<Box<dyn StdError + Send + Sync>>) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }

    #[test]
    fn a_fault_is_found_however_it_is_wrapped() {
        let fault = PeerFault::NotSpiffe { problem: "a test".to_owned() };
        let tls = rustls::Error::from(fault.clone());
        for error in [of_io(tls.clone()), of_io(of_io(tls.clone())), of_io(Wrapped(of_io(tls)))] {
            assert_eq!(PeerFault::from_io(&error), Some(&fault), "{error:?}");
            assert!(!PeerFault::is_refusal_by_peer(&error));
        }
        let none = of_io(rustls::Error::NoCertificatesPresented);
        assert_eq!(PeerFault::from_io(&none), Some(&PeerFault::NoCertificate));
    }

    #[test]
    fn what_is_no_fault_of_the_peers_is_none() {
        let refused =
            of_io(Wrapped(of_io(rustls::Error::AlertReceived(AlertDescription::CertificateUnknown))));
        assert_eq!(PeerFault::from_io(&refused), None);
        assert!(PeerFault::is_refusal_by_peer(&refused));
        for error in [
            io::Error::from(io::ErrorKind::ConnectionReset),
            of_io("plain text"),
            of_io(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)),
        ] {
            assert_eq!(PeerFault::from_io(&error), None);
            assert!(!PeerFault::is_refusal_by_peer(&error));
        }
    }
}
