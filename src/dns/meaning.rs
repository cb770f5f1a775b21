//! What becomes of a question: the mesh's, the outside's, or nobody's. Decisions without sockets.

use std::net::IpAddr;

use hickory_proto::rr::RecordType;
use pillion_api::name::{HostMeaning, ServiceName, is_host};

/// Of which the mesh has every name.
const MESH: &str = ".mesh";

/// Whose a question is, as far as its words tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// The mesh's: nobody else has such names.
    Mesh,
    /// The mesh's if it knows the name, else the outside's: `payments` and `example.com` look like each other, Kubernetes
    /// has names that the mesh does not, and any host may be an `ExternalService`.
    Perhaps,
    /// The outside's.
    Outside,
    /// Nobody's.
    Nobody,
}

/// What the mesh says about a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// A service, with its virtual address if it has one.
    Service(Option<IpAddr>),
    /// It has no such service.
    Unknown,
    /// Nothing in time.
    Silence,
}

/// What is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// This address.
    Address(IpAddr),
    /// There is the name, but not such a record. Never said to be no name: clients that ask for IPv6 first would give up.
    NoRecord,
    /// There is no such name.
    NoSuchName,
    /// It cannot be said now (SERVFAIL): clients try again, where they would believe that there is no such name.
    Unavailable,
    /// What a name server outside says.
    Forward,
}

/// Whose a question is. `name` is in lower case with no dot at its end; `search` are the domains that clients on this host
/// append to names that may not be whole.
pub(super) fn claim(name: &str, asked: RecordType, search: &[String]) -> Claim {
    if name == &MESH[1..] || name.ends_with(MESH) {
        // Names that no service can have need not be asked for.
        return if is_host(name) { Claim::Mesh } else { Claim::Nobody };
    }
    // Clients that follow `ndots` try `payments.shop.mesh.<search domain>` first. Nobody outside knows it, so that asking would
    // only take time, unless it answers every name there is, which would lead the client astray.
    let whole = search.iter().find_map(|domain| {
        let domain = domain.trim_matches('.').to_ascii_lowercase();
        name.strip_suffix(&domain)?.strip_suffix('.').filter(|_| !domain.is_empty())
    });
    let of_mesh = |whole: &str| {
        whole.ends_with(MESH)
            && matches!(ServiceName::from_host(whole, "any"), Some((_, HostMeaning::Certain)))
    };
    if whole.is_some_and(of_mesh) {
        return Claim::Nobody;
    }
    match asked {
        // HTTPS and SVCB carry addresses, too, past the virtual one (RFC 9460 7.3).
        RecordType::A | RecordType::AAAA | RecordType::ANY | RecordType::HTTPS | RecordType::SVCB
            if is_host(name) =>
        {
            Claim::Perhaps
        }
        // The mail servers of an external service are not the mesh's matter.
        _ => Claim::Outside,
    }
}

/// What is answered to a question that may be the mesh's.
pub(super) fn verdict(claim: Claim, heard: Heard, asked: RecordType) -> Verdict {
    match (claim, heard) {
        (Claim::Nobody, _) | (Claim::Mesh, Heard::Unknown) => Verdict::NoSuchName,
        (Claim::Mesh, Heard::Silence) => Verdict::Unavailable,
        (Claim::Mesh | Claim::Perhaps, Heard::Service(Some(address))) => {
            match (asked, address) {
                // "Any" of its records, of which it has one (RFC 8482 4.1).
                (RecordType::A | RecordType::ANY, IpAddr::V4(_))
                | (RecordType::AAAA | RecordType::ANY, IpAddr::V6(_)) => Verdict::Address(address),
                _ => Verdict::NoRecord,
            }
        }
        (Claim::Mesh, Heard::Service(None)) => Verdict::NoRecord,
        // A service without a virtual address is reached by the addresses that it has outside the mesh.
        (Claim::Perhaps, Heard::Service(None) | Heard::Unknown | Heard::Silence) | (Claim::Outside, _) => {
            Verdict::Forward
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn whose_names_are() {
        use Claim::{Mesh, Nobody, Outside, Perhaps};
        use RecordType::{A, AAAA, HTTPS, MX, TXT};
        let search = ["Shop.svc.cluster.local".to_owned(), "corp.example.".to_owned(), String::new()];
        let table = [
            ("payments.shop.mesh", A, Mesh),
            ("payments.shop.mesh", TXT, Mesh),
            ("mesh", A, Mesh),
            ("a.b.c.mesh", A, Mesh),
            ("_http._tcp.payments.shop.mesh", RecordType::SRV, Nobody),
            ("smesh", A, Perhaps),
            ("payments", A, Perhaps),
            ("payments.shop", AAAA, Perhaps),
            ("payments.shop.svc.cluster.local", A, Perhaps),
            ("example.com", HTTPS, Perhaps),
            ("example.com", MX, Outside),
            ("a_b.example.com", A, Outside),
            ("", A, Outside),
            // What clients ask on their way to `payments.shop.mesh`…
            ("payments.shop.mesh.shop.svc.cluster.local", A, Nobody),
            ("payments.shop.mesh.corp.example", AAAA, Nobody),
            // …to `payments`, where Kubernetes' name is the mesh's…
            ("payments.shop.svc.cluster.local.corp.example", A, Perhaps),
            ("payments.corp.example", A, Perhaps),
            // …and names that only look alike.
            ("mesh.shop.svc.cluster.local", A, Perhaps),
            ("pod-0.mesh.shop.svc.cluster.local", A, Perhaps),
            ("_http._tcp.mesh.shop.svc.cluster.local", A, Outside),
            ("payments.shop.mesh.example.org", A, Perhaps),
            ("payments.shop.meshcorp.example", A, Perhaps),
        ];
        for (name, asked, expected) in table {
            assert_eq!(claim(name, asked, &search), expected, "{name} {asked}");
        }
    }

    #[test]
    fn what_is_answered() {
        use Claim::{Mesh, Nobody, Outside, Perhaps};
        use Heard::{Service, Silence, Unknown};
        use RecordType::{A, AAAA, ANY, HTTPS};
        use Verdict::{Address, Forward, NoRecord, NoSuchName, Unavailable};
        let (v4, v6): (IpAddr, IpAddr) = (Ipv4Addr::new(240, 240, 0, 1).into(), Ipv6Addr::LOCALHOST.into());
        let table = [
            (Mesh, Service(Some(v4)), A, Address(v4)),
            (Mesh, Service(Some(v4)), AAAA, NoRecord),
            (Mesh, Service(Some(v4)), ANY, Address(v4)),
            (Mesh, Service(Some(v6)), AAAA, Address(v6)),
            (Mesh, Service(Some(v6)), A, NoRecord),
            (Mesh, Service(Some(v4)), HTTPS, NoRecord),
            (Mesh, Service(None), A, NoRecord),
            (Mesh, Unknown, A, NoSuchName),
            (Mesh, Silence, A, Unavailable),
            (Perhaps, Service(Some(v4)), A, Address(v4)),
            (Perhaps, Service(Some(v4)), AAAA, NoRecord),
            (Perhaps, Service(None), A, Forward),
            (Perhaps, Unknown, A, Forward),
            (Perhaps, Silence, A, Forward),
            (Outside, Unknown, A, Forward),
            (Nobody, Unknown, A, NoSuchName),
        ];
        for (claim, heard, asked, expected) in table {
            assert_eq!(verdict(claim, heard, asked), expected, "{claim:?} {heard:?} {asked}");
        }
    }
}
