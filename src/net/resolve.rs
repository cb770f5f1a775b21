//! Host names to addresses, by the system's configuration and without its C library: that would have to be of the same
//! version on every host that a static program runs on.
//!
//! `/etc/hosts` first, then the name servers of `/etc/resolv.conf` with its search domains; both are read again when they
//! change. Answers are kept as long as they say, within [`KEPT`]; that a name has no address, within [`KEPT_NEGATIVE`].

use std::{
    cell::RefCell,
    fmt, fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use hickory_resolver::{
    Hosts, TokioResolver,
    config::{
        ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
    },
    lookup_ip::LookupIp,
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::{Query, ResponseCode},
        rr::{Name, RecordType},
    },
};
use tokio::time::timeout;

use super::nameservers::{NameServers, Sources, Stamp};
use crate::error::{Reason, Refusal};

/// How long addresses are good for at least and at most, whatever their name server says: a name must not be asked for
/// with every connection, nor a server that has moved be missed for hours.
pub const KEPT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// The same for a name that has no address.
pub const KEPT_NEGATIVE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// For one look-up, with all servers and search domains: less than those wait who then connect, so that they hear that it was
/// the name.
pub const DEADLINE: Duration = Duration::from_millis(4500);
/// For one server, or fewer where `resolv.conf` says so: within the deadline, there must be time for others.
const PER_SERVER: Duration = Duration::from_millis(1500);
/// Answers kept at a time.
const MAX_KEPT: u64 = 256;

/// Looks up host names. Cheap to clone; a thread has its own, with its own memory of answers.
#[derive(Clone)]
pub struct Resolver(Rc<Shared>);

struct Shared {
    sources: Sources,
    /// Made when first needed: many sidecars never look up a name.
    loaded: RefCell<Option<Loaded>>,
}

struct Loaded {
    stamps: [Stamp; 2],
    hosts: Arc<Hosts>,
    resolver: TokioResolver,
    /// Who is asked, for people.
    servers: Arc<str>,
}

/// What a host name resolves to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// In the order in which they should be tried; never empty. The families take turns, IPv6 first where this host can
    /// send to it, and after all of IPv4 where it cannot.
    pub addresses: Vec<IpAddr>,
    /// How long this may be used.
    pub valid_for: Duration,
}

impl Resolver {
    /// By the system's configuration.
    pub fn system() -> Self {
        Self::from_sources(Sources::default())
    }

    /// By other files.
    pub fn from_sources(sources: Sources) -> Self {
        Self(Rc::new(Shared { sources, loaded: RefCell::default() }))
    }

    /// The addresses of a host: a name, or an address as text. Addresses and `localhost` are answered without asking.
    ///
    /// # Errors
    /// [`Reason::NoAddress`] with the name, what was asked of whom, and the answer.
    pub async fn lookup(&self, host: &str) -> Result<Resolved, Refusal> {
        if let Some(addresses) = at_once(host) {
            return Ok(Resolved { addresses, valid_for: KEPT.1 });
        }
        let refuse = |what: &dyn fmt::Display, servers: &str| {
            Refusal::new(Reason::NoAddress, format_args!("{host}: {what} (A and AAAA asked of {servers})"))
        };
        let name = Name::from_str_relaxed(host)
            .map_err(|error| Refusal::new(Reason::NoAddress, format_args!("{host:?} is no name: {error}")))?;
        let (known, resolver, servers) = self.loaded(&name).map_err(|error| refuse(&error, "nobody"))?;
        if !known.is_empty() {
            return Ok(Resolved { addresses: sorted(known), valid_for: KEPT.1 });
        }
        let found = match timeout(DEADLINE, resolver.lookup_ip(name)).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return Err(refuse(&Answer(&error), &servers)),
            Err(_) => return Err(refuse(&format_args!("no answer within {DEADLINE:?}"), &servers)),
        };
        let resolved = resolved(&found, Instant::now());
        if resolved.addresses.is_empty() {
            return Err(refuse(&"has no address", &servers));
        }
        Ok(resolved)
    }

    /// What the hosts file has of a name, and the resolver for the files as they are now, and whom it asks.
    fn loaded(&self, name: &Name) -> Result<(Vec<IpAddr>, TokioResolver, Arc<str>), NetError> {
        let sources = &self.0.sources;
        let stamps = [Stamp::of(&sources.resolv_conf), Stamp::of(&sources.hosts)];
        let mut loaded = self.0.loaded.borrow_mut();
        let current = match loaded.take() {
            Some(loaded) if loaded.stamps == stamps => loaded,
            // What was kept came from other servers, perhaps with other answers.
            _ => Loaded::read(sources, stamps)?,
        };
        let current = loaded.insert(current);
        Ok((current.in_hosts(name), current.resolver.clone(), current.servers.clone()))
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Resolver").field(&self.0.sources).finish()
    }
}

impl Loaded {
    fn read(sources: &Sources, stamps: [Stamp; 2]) -> Result<Self, NetError> {
        let known = NameServers::read(sources);
        let mut builder = TokioResolver::builder_with_config(config(&known), TokioRuntimeProvider::default());
        *builder.options_mut() = options(&known);
        let mut resolver = builder.build()?;
        let mut hosts = Hosts::default();
        let read = fs::File::open(&sources.hosts).and_then(|file| hosts.read_hosts_conf(file));
        if let Err(error) = read {
            tracing::debug!(%error, file = %sources.hosts.display(), "names that need no server");
        }
        let hosts = Arc::new(hosts);
        // For names with a search domain; those that are whole are not asked for at all.
        resolver.set_hosts(hosts.clone());
        let servers: Vec<String> = known.servers.iter().map(|server| server.ip().to_string()).collect();
        Ok(Self { stamps, hosts, resolver, servers: servers.join(", ").into() })
    }

    /// As with the C library, whose hosts file has one family of a name has no need of the other: no server is asked for it.
    fn in_hosts(&self, name: &Name) -> Vec<IpAddr> {
        let found = [RecordType::AAAA, RecordType::A]
            .map(|kind| self.hosts.lookup_static_host(&Query::query(name.clone(), kind)));
        let records = found.iter().flatten().flat_map(|found| found.answers());
        records.filter_map(|record| record.data.ip_addr()).collect()
    }
}

fn config(known: &NameServers) -> ResolverConfig {
    let server = |server: &std::net::SocketAddr| {
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
            connection.port = server.port();
            connection
        });
        NameServerConfig::new(server.ip(), true, connections.into())
    };
    let search = known.search.iter().filter_map(|domain| Name::from_str_relaxed(domain).ok()).collect();
    ResolverConfig::from_parts(None, search, known.servers.iter().map(server).collect())
}

fn options(known: &NameServers) -> ResolverOpts {
    let mut options = ResolverOpts::default();
    options.ndots = known.ndots;
    options.timeout = known.timeout.min(PER_SERVER);
    // The first try is not counted.
    options.attempts = known.attempts.clamp(1, 2) - 1;
    options.ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
    options.cache_size = MAX_KEPT;
    // Read by us, since from here it would be the system's only.
    options.use_hosts_file = ResolveHosts::Never;
    (options.positive_min_ttl, options.positive_max_ttl) = (Some(KEPT.0), Some(KEPT.1));
    (options.negative_min_ttl, options.negative_max_ttl) = (Some(KEPT_NEGATIVE.0), Some(KEPT_NEGATIVE.1));
    options.preserve_intermediates = false;
    options.try_tcp_on_error = true;
    options
}

/// What needs no name server: addresses, also in the old ways to write them, and names of this host (RFC 6761 6.3).
fn at_once(host: &str) -> Option<Vec<IpAddr>> {
    if let Ok(address) = host.parse() {
        return Some(vec![address]);
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let last = name.rsplit('.').next().unwrap_or_default();
    if last.eq_ignore_ascii_case("localhost") {
        return Some(vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()]);
    }
    old_address(name).map(|address| vec![address.into()])
}

/// Addresses as `inet_aton(3)` takes them, and with it every program that uses the C library: `127.1`, `0x7f.0.0.1`.
fn old_address(text: &str) -> Option<Ipv4Addr> {
    let number = |part: &str| match part.strip_prefix("0x").or_else(|| part.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None if !part.bytes().all(|byte| byte.is_ascii_digit()) => None,
        None if part.len() > 1 && part.starts_with('0') => u32::from_str_radix(part, 8).ok(),
        None => part.parse().ok(),
    };
    let parts: Vec<u32> = text.split('.').map(number).collect::<Option<_>>()?;
    let (last, first) = parts.split_last()?;
    // The last part stands for all bytes that are left.
    let left = 32 - 8 * u32::try_from(first.len()).ok().filter(|first| *first < 4)?;
    if first.iter().any(|part| *part > 255) || u64::from(*last) >> left != 0 {
        return None;
    }
    let front = first.iter().zip([24, 16, 8]).map(|(part, shift)| part << shift).sum::<u32>();
    Some((front | last).into())
}

fn resolved(found: &LookupIp, now: Instant) -> Resolved {
    let valid_for = found.valid_until().saturating_duration_since(now).clamp(KEPT.0, KEPT.1);
    Resolved { addresses: sorted(found.iter()), valid_for }
}

fn sorted(addresses: impl IntoIterator<Item = IpAddr>) -> Vec<IpAddr> {
    let (v6, v4): (Vec<IpAddr>, Vec<IpAddr>) = addresses.into_iter().partition(IpAddr::is_ipv6);
    let v6_first = v6.first().is_some_and(|address| reachable(*address));
    in_turn(v6, v4, v6_first)
}

/// One of each family at a time, so that a family that leads nowhere costs one try and not many (RFC 8305 4).
fn in_turn(v6: Vec<IpAddr>, v4: Vec<IpAddr>, v6_first: bool) -> Vec<IpAddr> {
    if !v6_first {
        return [v4, v6].concat();
    }
    let (mut v6, mut v4) = (v6.into_iter(), v4.into_iter());
    let turns = std::iter::from_fn(|| match [v6.next(), v4.next()] {
        [None, None] => None,
        turn => Some(turn),
    });
    turns.flatten().flatten().collect()
}

/// Whether this host has a route and an address of its own for it. Nothing is sent.
fn reachable(address: IpAddr) -> bool {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    UdpSocket::bind((any, 0)).and_then(|socket| socket.connect((address, 53))).is_ok()
}

/// What came of a look-up, for people.
struct Answer<'a>(&'a NetError);

impl fmt::Display for Answer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = |code: &ResponseCode| format!("{code:?}").to_ascii_uppercase();
        match self.0 {
            NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
                ResponseCode::NoError => f.write_str("has no address"),
                other => write!(f, "{}", code(&other)),
            },
            NetError::Dns(DnsError::ResponseCode(other)) => write!(f, "{}", code(other)),
            NetError::Timeout => f.write_str("no answer in time"),
            other => write!(f, "{other}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_no_server() {
        let table = [
            ("10.0.0.1", Some("10.0.0.1")),
            ("fd00::1", Some("fd00::1")),
            ("localhost", Some("::1")),
            ("A.LocalHost.", Some("::1")),
            ("127.1", Some("127.0.0.1")),
            ("0x7f.1", Some("127.0.0.1")),
            ("2130706433", Some("127.0.0.1")),
            ("017700000001", Some("127.0.0.1")),
            ("127.0.0.010", Some("127.0.0.8")),
            ("10.256", Some("10.0.1.0")),
            ("256.1", None),
            ("1.2.3.256", None),
            ("1.2.3.4.5", None),
            ("4294967296", None),
            ("+1", None),
            ("0x", None),
            ("08", None),
            ("", None),
            ("1..2", None),
            ("notlocalhost", None),
            ("example.com", None),
        ];
        for (host, expected) in table {
            let found = at_once(host).map(|found| found[0].to_string());
            assert_eq!(found.as_deref(), expected, "{host}");
        }
    }

    #[test]
    fn families_take_turns() {
        let addresses = |texts: &[&str]| -> Vec<IpAddr> {
            texts.iter().map(|text| text.parse().expect("an address")).collect()
        };
        let (v6, v4) = (addresses(&["fd00::1", "fd00::2", "fd00::3"]), addresses(&["10.0.0.1"]));
        let turns = in_turn(v6.clone(), v4.clone(), true);
        assert_eq!(turns, addresses(&["fd00::1", "10.0.0.1", "fd00::2", "fd00::3"]));
        assert_eq!(in_turn(v6, v4, false), addresses(&["10.0.0.1", "fd00::1", "fd00::2", "fd00::3"]));
    }
}
