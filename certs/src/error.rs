//! What can be wrong with our own keys, certificates and requests. (What is wrong with a peer's is `fault`.)

use std::time::SystemTime;

/// A fault in material that we were given or asked to make.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Text or bytes that are not what they should be: a key, a certificate, a request.
    #[error("{what}: {problem}")]
    Malformed {
        /// What was being read, such as "certificate 2 of the chain".
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The request is not signed by the key that it contains, so the sender has not shown that it holds the key.
    #[error("the certificate signing request is not signed by its own key")]
    NoProofOfPossession,
    /// The key is of a kind that the mesh does not certify.
    #[error("unsupported key: {algorithm}; the mesh certifies ECDSA P-256 and P-384 keys")]
    UnsupportedKey {
        /// The object identifier or name of what was found.
        algorithm: String,
    },
    /// The certificate is for another key.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
    /// The certificate may not sign others.
    #[error("the authority's certificate cannot sign certificates: {problem}")]
    NotAnAuthority {
        /// Which of RFC 5280's conditions it misses.
        problem: String,
    },
    /// The authority's certificate, or one above it, has ended.
    #[error("the authority's certificate expired at {}", humantime::format_rfc3339_seconds(*not_after))]
    AuthorityExpired {
        /// When it ended.
        not_after: SystemTime,
    },
    /// The chain does not lead to a self-signed certificate, so there is nothing for others to trust.
    #[error("the authority's chain must end with its root: {subject} is issued by {issuer}")]
    NoRoot {
        /// The last certificate of the chain.
        subject: String,
        /// Who issued it.
        issuer: String,
    },
    /// A name of another trust domain where only our own may be.
    #[error("trust domain {actual} where {expected} was expected")]
    WrongTrustDomain {
        /// Ours.
        expected: String,
        /// Theirs.
        actual: String,
    },
    /// A renewed credential names somebody else.
    #[error("the new certificate is for {actual}, not for {expected}")]
    IdentityChanged {
        /// Whom the current credential names.
        expected: String,
        /// Whom the new one names.
        actual: String,
    },
    /// The issued certificate would not be accepted by anyone who has the bundle that came with it.
    #[error("the new certificate does not verify against the trust bundle that came with it: {problem}")]
    NotTrusted {
        /// Why it does not.
        problem: String,
    },
    /// A bundle without a root trusts nobody.
    #[error("the trust bundle is empty")]
    EmptyBundle,
    /// More than one fault; all of them.
    #[error("{}", join(.0))]
    Several(Vec<Error>),
    /// The cryptographic library refused, such as for want of randomness.
    #[error("cannot {action}: {problem}")]
    Crypto {
        /// What was attempted.
        action: &'static str,
        /// The library's words.
        problem: String,
    },
}

impl Error {
    /// One error from all the faults found, which must be at least one.
    pub(crate) fn all(mut faults: Vec<Error>) -> Error {
        if faults.len() == 1 { faults.remove(0) } else { Error::Several(faults) }
    }

    pub(crate) fn malformed(what: impl Into<String>, problem: impl ToString) -> Error {
        Error::Malformed { what: what.into(), problem: problem.to_string() }
    }

    pub(crate) fn crypto(action: &'static str, problem: impl ToString) -> Error {
        Error::Crypto { action, problem: problem.to_string() }
    }
}

fn join(faults: &[Error]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
