//! Where a request is meant to go, from the host that it names.

use ::http::uri::Authority;
use pillion_api::name::{HostMeaning, ServiceName};

/// What a host name means to this workload.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A service for certain.
    Service(ServiceName, u16),
    /// A service if the mesh knows it, else a host outside.
    Perhaps(ServiceName, u16),
    /// A host outside.
    Outside,
}

/// Reads a host as a workload of `namespace` means it. `default_port` where it names none.
pub(super) fn meaning(authority: &Authority, namespace: &str, default_port: u16) -> Meaning {
    let port = authority.port_u16().unwrap_or(default_port);
    let host = authority.host();
    // An IPv6 literal, or what every host calls itself.
    if host.starts_with('[') || is_this_host(host) {
        return Meaning::Outside;
    }
    match ServiceName::from_host(host, namespace) {
        Some((service, HostMeaning::Certain)) => Meaning::Service(service, port),
        Some((service, HostMeaning::Perhaps)) => Meaning::Perhaps(service, port),
        None => Meaning::Outside,
    }
}

/// Whether a host is what every host calls itself.
pub(super) fn is_this_host(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let service = |name: &str| name.parse::<ServiceName>().expect("a name");
        for (authority, expected) in [
            ("payments.shop.mesh", Meaning::Service(service("payments.shop"), 80)),
            ("payments.shop.mesh:8080", Meaning::Service(service("payments.shop"), 8080)),
            ("payments.shop.svc.cluster.local", Meaning::Service(service("payments.shop"), 80)),
            ("payments:8080", Meaning::Perhaps(service("payments.demo"), 8080)),
            ("example.com", Meaning::Perhaps(service("example.com"), 80)),
            ("localhost:9", Meaning::Outside),
            ("127.0.0.1:9", Meaning::Outside),
            ("[::1]:9", Meaning::Outside),
            ("www.example.com", Meaning::Outside),
        ] {
            let authority: Authority = authority.parse().expect("an authority");
            assert_eq!(meaning(&authority, "demo", 80), expected, "{authority}");
        }
    }
}
