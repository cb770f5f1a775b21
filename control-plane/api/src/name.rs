//! Names of services, and the host names that mean them.

use std::{fmt, str::FromStr, sync::Arc};

/// `<name>.<namespace>`: what the mesh calls a service. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceName {
    text: Arc<str>,
    dot: usize,
}

/// Why a text is no service name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not <name>.<namespace> of two DNS labels (RFC 1123)")]
pub struct InvalidServiceName(pub String);

impl ServiceName {
    /// From its parts, each a DNS label.
    pub fn new(name: &str, namespace: &str) -> Result<Self, InvalidServiceName> {
        let invalid = || InvalidServiceName(format!("{name}.{namespace}"));
        if !is_label(name) || !is_label(namespace) {
            return Err(invalid());
        }
        Ok(Self { text: format!("{name}.{namespace}").into(), dot: name.len() })
    }

    /// The service that a host name means to a workload in `own_namespace`, if it is a mesh name at all:
    /// `payments` (in one's own namespace), `payments.demo`, `payments.demo.mesh`, and Kubernetes'
    /// `payments.demo.svc` and `payments.demo.svc.<cluster domain>`. Host names are case-insensitive; one trailing dot is allowed.
    ///
    /// A name of one or two labels is ambiguous with names outside the mesh; [`HostMeaning`] keeps them apart.
    pub fn from_host(host: &str, own_namespace: &str) -> Option<(Self, HostMeaning)> {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let labels: Vec<&str> = host.split('.').collect();
        let (name, namespace, meaning) = match labels.as_slice() {
            [name] => (*name, own_namespace, HostMeaning::Perhaps),
            [name, namespace] => (*name, *namespace, HostMeaning::Perhaps),
            [name, namespace, "mesh"] | [name, namespace, "svc", ..] => {
                (*name, *namespace, HostMeaning::Certain)
            }
            _ => return None,
        };
        Some((Self::new(name, namespace).ok()?, meaning))
    }

    /// The first label.
    pub fn name(&self) -> &str {
        &self.text[..self.dot]
    }

    /// The second label.
    pub fn namespace(&self) -> &str {
        &self.text[self.dot + 1..]
    }

    /// `<name>.<namespace>`.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// How sure a host name is to mean a service of the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostMeaning {
    /// Only the mesh has such names: an unknown one is an error.
    Certain,
    /// `localhost` and `example.com` look the same: when the mesh does not know it, it is a name outside.
    Perhaps,
}

impl FromStr for ServiceName {
    type Err = InvalidServiceName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('.') {
            Some((name, namespace)) => Self::new(name, namespace),
            None => Err(InvalidServiceName(text.to_owned())),
        }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether a text is a DNS name: up to 253 characters of labels, with no dot at its end (RFC 1123 2.1).
pub fn is_host(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

/// Whether a text is a DNS label (RFC 1123): 1 to 63 of `a-z`, `0-9` and `-`, not `-` at an end.
pub fn is_label(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    matches!(text.len(), 1..=63)
        && text.bytes().all(allowed)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Whether a text is a port's name (RFC 6335 5.1, in lower case as Kubernetes has it): 1 to 15 of `a-z`, `0-9` and `-`, with a
/// letter among them, and no `-` at an end or beside another.
pub fn is_port_name(text: &str) -> bool {
    text.len() <= 15
        && is_label(text)
        && !text.contains("--")
        && text.bytes().any(|byte| byte.is_ascii_lowercase())
}

/// Whether a text is a label's key as Kubernetes has them: a word like a value that is not empty, after a DNS name and `/` or
/// by itself.
pub fn is_label_key(text: &str) -> bool {
    let (prefix, word) = text.split_once('/').map_or((None, text), |(prefix, word)| (Some(prefix), word));
    prefix.is_none_or(is_host) && !word.is_empty() && is_label_value(word)
}

/// Whether a text is a label's value as Kubernetes has them: empty, or up to 63 of `A-Z`, `a-z`, `0-9`, `-`, `_` and `.`, with a
/// letter or digit at both ends.
pub fn is_label_value(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let bytes = text.as_bytes();
    bytes.len() <= 63 && edge(bytes.first()) && edge(bytes.last()) && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_ports() {
        for good in ["http", "a", "8080-x", "h2", "abcdefghijklmno"] {
            assert!(is_port_name(good), "{good}");
        }
        for bad in ["", "8080", "HTTP", "a_b", "-a", "a-", "a--b", "abcdefghijklmnop", "é"] {
            assert!(!is_port_name(bad), "{bad}");
        }
    }

    #[test]
    fn labels() {
        let longest = "x".repeat(63);
        for good in ["app", "app.kubernetes.io/name", "A_b.c-d", &longest] {
            assert!(is_label_key(good), "{good}");
        }
        let too_long = "x".repeat(64);
        for bad in ["", "/name", "Example.com/x", "a/b/c", "-a", "app/", "a b", "a=b", &too_long] {
            assert!(!is_label_key(bad), "{bad}");
        }
        for good in ["", "v1", "A_b.c-d", &longest] {
            assert!(is_label_value(good), "{good}");
        }
        for bad in ["-x", "x.", "a b", "a/b", "a,b", "é", &too_long] {
            assert!(!is_label_value(bad), "{bad}");
        }
    }

    #[test]
    fn hosts_that_mean_a_service() {
        use HostMeaning::{Certain, Perhaps};
        let table = [
            ("payments", Some(("payments.demo", Perhaps))),
            ("Payments.Demo", Some(("payments.demo", Perhaps))),
            ("payments.shop.mesh", Some(("payments.shop", Certain))),
            ("payments.shop.mesh.", Some(("payments.shop", Certain))),
            ("payments.shop.svc", Some(("payments.shop", Certain))),
            ("payments.shop.svc.cluster.local", Some(("payments.shop", Certain))),
            ("www.example.com", None),
            ("a_b", None),
            ("", None),
            ("-a.b", None),
            ("10.0.0.1", None),
        ];
        for (host, expected) in table {
            let found = ServiceName::from_host(host, "demo");
            let found = found.as_ref().map(|(name, meaning)| (name.as_str(), *meaning));
            assert_eq!(found, expected, "{host}");
        }
    }

    #[test]
    fn parts_and_text() {
        let name: ServiceName = "payments.demo".parse().expect("a name");
        assert_eq!((name.name(), name.namespace(), name.as_str()), ("payments", "demo", "payments.demo"));
        for wrong in ["payments", "payments.", ".demo", "a.b.c", "A.b", "a b.c"] {
            assert!(wrong.parse::<ServiceName>().is_err(), "{wrong}");
        }
    }
}
