//! SPIFFE names: trust domains and workload identities, parsed strictly (SPIFFE-ID specification, version 1.0).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Longest trust domain name, in bytes (SPIFFE-ID §2.1).
const MAX_TRUST_DOMAIN: usize = 255;
/// Longest SPIFFE ID, in bytes (SPIFFE-ID §2.4).
const MAX_ID: usize = 2048;
const SCHEME: &str = "spiffe://";
/// Where the control plane lives: its namespace and service account.
pub const CONTROL_PLANE: (&str, &str) = ("pillion-system", "control-plane");

/// The part of a SPIFFE ID that says under which roots it was issued, such as `pillion.local`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The trust domain's own SPIFFE ID, which its root certificates carry.
    pub fn uri(&self) -> String {
        format!("{SCHEME}{self}")
    }
}

impl FromStr for TrustDomain {
    type Err = ParseSpiffeError;

    fn from_str(text: &str) -> Result<Self, ParseSpiffeError> {
        if text.is_empty() {
            return Err(ParseSpiffeError::Empty { part: Part::TrustDomain });
        }
        if text.len() > MAX_TRUST_DOMAIN {
            return Err(ParseSpiffeError::TooLong { part: Part::TrustDomain, limit: MAX_TRUST_DOMAIN });
        }
        check_characters(text, Part::TrustDomain, |c| {
            c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | '_')
        })?;
        Ok(TrustDomain(text.into()))
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A workload's identity: `spiffe://<trust-domain>/ns/<namespace>/sa/<service-account>`.
///
/// Cheap to clone; compared and ordered by its text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    trust_domain: TrustDomain,
    namespace: Arc<str>,
    service_account: Arc<str>,
}

impl SpiffeId {
    /// The identity of one service account.
    pub fn new(
        trust_domain: TrustDomain,
        namespace: &str,
        service_account: &str,
    ) -> Result<Self, ParseSpiffeError> {
        check_segment(namespace, Part::Namespace)?;
        check_segment(service_account, Part::ServiceAccount)?;
        Ok(SpiffeId { trust_domain, namespace: namespace.into(), service_account: service_account.into() })
    }

    /// The identity that the control plane itself has in this trust domain.
    pub fn control_plane(trust_domain: &TrustDomain) -> Self {
        let (namespace, service_account) = CONTROL_PLANE;
        SpiffeId {
            trust_domain: trust_domain.clone(),
            namespace: namespace.into(),
            service_account: service_account.into(),
        }
    }

    /// Whether it is the control plane's own identity, which no workload may ever have: whoever shows it is believed to
    /// be the control plane.
    pub fn is_control_plane(&self) -> bool {
        (&*self.namespace, &*self.service_account) == CONTROL_PLANE
    }

    /// Under whose roots the identity is issued.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The namespace of the workload.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The service account of the workload.
    pub fn service_account(&self) -> &str {
        &self.service_account
    }
}

impl FromStr for SpiffeId {
    type Err = ParseSpiffeError;

    fn from_str(text: &str) -> Result<Self, ParseSpiffeError> {
        if text.len() > MAX_ID {
            return Err(ParseSpiffeError::TooLong { part: Part::Id, limit: MAX_ID });
        }
        let rest = text.strip_prefix(SCHEME).ok_or(ParseSpiffeError::Scheme)?;
        let (trust_domain, path) = rest.split_once('/').unwrap_or((rest, ""));
        let trust_domain = trust_domain.parse()?;
        let segments: Vec<&str> = path.split('/').collect();
        let ["ns", namespace, "sa", service_account] = segments[..] else {
            return Err(ParseSpiffeError::Path);
        };
        SpiffeId::new(trust_domain, namespace, service_account)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A part of a SPIFFE ID, for errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The whole.
    Id,
    /// What follows `spiffe://`.
    TrustDomain,
    /// What follows `/ns/`.
    Namespace,
    /// What follows `/sa/`.
    ServiceAccount,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Id => "SPIFFE ID",
            Part::TrustDomain => "trust domain",
            Part::Namespace => "namespace",
            Part::ServiceAccount => "service account",
        })
    }
}

/// Why a text is not one of our SPIFFE IDs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseSpiffeError {
    /// Another scheme, or none.
    #[error("it does not start with \"spiffe://\"")]
    Scheme,
    /// Another path than the mesh uses.
    #[error("its path is not \"/ns/<namespace>/sa/<service-account>\"")]
    Path,
    /// A part is missing.
    #[error("the {part} is empty")]
    Empty {
        /// Which.
        part: Part,
    },
    /// A part is too long.
    #[error("the {part} is longer than {limit} bytes")]
    TooLong {
        /// Which.
        part: Part,
        /// How long it may be, in bytes.
        limit: usize,
    },
    /// A character that the specification does not allow there (percent-encoding included).
    #[error("the {part} contains {character:?}")]
    Character {
        /// Which.
        part: Part,
        /// The first such character.
        character: char,
    },
    /// `.` or `..`, which would make two spellings of one name.
    #[error("the {part} is a relative path segment")]
    Relative {
        /// Which.
        part: Part,
    },
}

fn check_segment(text: &str, part: Part) -> Result<(), ParseSpiffeError> {
    // What Kubernetes allows for a subdomain name, its longest kind of name.
    const LIMIT: usize = 253;
    if text.is_empty() {
        return Err(ParseSpiffeError::Empty { part });
    }
    if text.len() > LIMIT {
        return Err(ParseSpiffeError::TooLong { part, limit: LIMIT });
    }
    if matches!(text, "." | "..") {
        return Err(ParseSpiffeError::Relative { part });
    }
    check_characters(text, part, |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
}

fn check_characters(text: &str, part: Part, allowed: impl Fn(char) -> bool) -> Result<(), ParseSpiffeError> {
    match text.chars().find(|c| !allowed(*c)) {
        Some(character) => Err(ParseSpiffeError::Character { part, character }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_fault_is_named() {
        use ParseSpiffeError::*;
        let long = "a".repeat(300);
        for (text, expected) in [
            ("https://a/ns/b/sa/c", Scheme),
            ("SPIFFE://a/ns/b/sa/c", Scheme),
            ("", Scheme),
            ("spiffe:///ns/b/sa/c", Empty { part: Part::TrustDomain }),
            ("spiffe://a", Path),
            ("spiffe://a/", Path),
            ("spiffe://a/ns/b/sa/c/", Path),
            ("spiffe://a/ns/b/sa/c/d", Path),
            ("spiffe://a/sa/c/ns/b", Path),
            ("spiffe://a/ns//sa/c", Empty { part: Part::Namespace }),
            ("spiffe://a/ns/b/sa/", Empty { part: Part::ServiceAccount }),
            ("spiffe://A/ns/b/sa/c", Character { part: Part::TrustDomain, character: 'A' }),
            ("spiffe://a:1/ns/b/sa/c", Character { part: Part::TrustDomain, character: ':' }),
            ("spiffe://u@a/ns/b/sa/c", Character { part: Part::TrustDomain, character: '@' }),
            ("spiffe://a/ns/b/sa/c?x", Character { part: Part::ServiceAccount, character: '?' }),
            ("spiffe://a/ns/b%2f/sa/c", Character { part: Part::Namespace, character: '%' }),
            ("spiffe://a/ns/../sa/c", Relative { part: Part::Namespace }),
            (
                &format!("spiffe://{long}/ns/b/sa/c"),
                TooLong { part: Part::TrustDomain, limit: MAX_TRUST_DOMAIN },
            ),
            (&format!("spiffe://a/ns/{long}/sa/c"), TooLong { part: Part::Namespace, limit: 253 }),
            (&format!("spiffe://a/{}", "x".repeat(MAX_ID)), TooLong { part: Part::Id, limit: MAX_ID }),
        ] {
            assert_eq!(text.parse::<SpiffeId>(), Err(expected), "{text}");
        }
    }

    #[test]
    fn the_control_plane_has_a_name_of_its_own() {
        let trust_domain: TrustDomain = "mesh.example".parse().unwrap();
        let id = SpiffeId::control_plane(&trust_domain);
        assert_eq!(id.to_string(), "spiffe://mesh.example/ns/pillion-system/sa/control-plane");
        assert_eq!(id.to_string().parse(), Ok(id.clone()));
        assert!(id.is_control_plane());
        for (namespace, account) in [("pillion-system", "web"), ("demo", "control-plane")] {
            assert!(!SpiffeId::new(trust_domain.clone(), namespace, account).unwrap().is_control_plane());
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_can_be_read(
            domain in "[a-z0-9._-]{1,40}",
            namespace in "[a-z0-9][a-zA-Z0-9._-]{0,40}",
            account in "[a-z0-9][a-zA-Z0-9._-]{0,40}",
        ) {
            let id = SpiffeId::new(domain.parse().unwrap(), &namespace, &account).unwrap();
            let text = id.to_string();
            prop_assert_eq!(text.parse::<SpiffeId>(), Ok(id.clone()));
            prop_assert_eq!(id.namespace(), namespace);
            prop_assert_eq!(id.service_account(), account);
        }

        #[test]
        fn what_can_be_read_has_one_spelling(text in "spiffe://[a-zA-Z./%-]{0,6}/ns/\\PC{0,6}/sa/\\PC{0,6}") {
            if let Ok(id) = text.parse::<SpiffeId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }

        #[test]
        fn no_text_is_too_strange(text in "\\PC*") {
            let _ = text.parse::<SpiffeId>();
            let _ = text.parse::<TrustDomain>();
        }
    }
}
