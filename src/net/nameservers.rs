//! Which name servers this host asks, and how: what `resolv.conf(5)` says, read again when it has changed.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::connect::leads_to;

/// Servers asked at most, and domains searched: as many as the C library takes (`MAXNS`, `MAXDNSRCH`).
const LIMITS: (usize, usize) = (3, 6);

/// Where a host says how names are looked up.
#[derive(Debug, Clone)]
pub struct Sources {
    /// Name servers and search domains.
    pub resolv_conf: PathBuf,
    /// Names that need no server.
    pub hosts: PathBuf,
    /// Where name servers are asked.
    pub port: u16,
    /// Where this sidecar answers itself: it asks others only, or it would hear what it tells the application.
    pub own: Option<SocketAddr>,
}

impl Default for Sources {
    /// Those of the system.
    fn default() -> Self {
        Self { resolv_conf: "/etc/resolv.conf".into(), hosts: "/etc/hosts".into(), port: 53, own: None }
    }
}

/// What `resolv.conf` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameServers {
    /// In the order in which they are to be asked. Empty where there is none but ourselves.
    pub servers: Vec<SocketAddr>,
    /// Domains to try a name in.
    pub search: Vec<String>,
    /// A name with fewer dots is tried in the search domains first.
    pub ndots: usize,
    /// How long one server may take…
    pub timeout: Duration,
    /// …and how often all of them are asked.
    pub attempts: usize,
}

impl NameServers {
    /// Reads the file. One that is not there, or names no server, means the server on this host, as in the C library; what
    /// is malformed in it is left out.
    pub fn read(sources: &Sources) -> Self {
        let text = fs::read(&sources.resolv_conf).unwrap_or_else(|error| {
            tracing::debug!(%error, file = %sources.resolv_conf.display(), "name servers");
            Vec::new()
        });
        let (mut config, faults) = resolv_conf::Config::parse_with_errors(&text);
        for fault in faults {
            tracing::debug!(%fault, file = %sources.resolv_conf.display(), "name servers");
        }
        config.nameservers.truncate(LIMITS.0);
        Self {
            servers: (config.get_nameservers_or_local().iter())
                .map(|server| SocketAddr::new(IpAddr::from(server), sources.port))
                .filter(|server| !sources.own.is_some_and(|own| leads_to(*server, own)))
                .collect(),
            search: config.get_last_search_or_domain().take(LIMITS.1).cloned().collect(),
            ndots: config.ndots as usize,
            timeout: Duration::from_secs(config.timeout.into()),
            attempts: config.attempts as usize,
        }
    }
}

/// What changes when a file does. A file that is not there has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp(Option<(SystemTime, u64)>);

impl Stamp {
    /// Of the file as it is now.
    pub fn of(path: &Path) -> Self {
        let stamp = |path: &Path| -> io::Result<_> {
            let metadata = fs::metadata(path)?;
            Ok((metadata.modified()?, metadata.len()))
        };
        Self(stamp(path).ok())
    }
}

/// The name servers, kept as long as the file stays as it is.
#[derive(Debug)]
pub struct Kept {
    sources: Sources,
    stamp: Stamp,
    known: NameServers,
}

impl Kept {
    /// As they are now.
    pub fn new(sources: Sources) -> Self {
        Self { stamp: Stamp::of(&sources.resolv_conf), known: NameServers::read(&sources), sources }
    }

    /// As they are now. Costs one system call while nothing changes.
    pub fn current(&mut self) -> &NameServers {
        let stamp = Stamp::of(&self.sources.resolv_conf);
        if stamp != self.stamp {
            // The stamp first: a file that changes while it is read is read again.
            self.stamp = stamp;
            self.known = NameServers::read(&self.sources);
        }
        &self.known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(folder: &tempfile::TempDir, text: &str) -> Sources {
        let resolv_conf = folder.path().join("resolv.conf");
        fs::write(&resolv_conf, text).expect("the folder is ours");
        Sources { resolv_conf, ..Sources::default() }
    }

    #[test]
    fn what_files_say() {
        let folder = tempfile::tempdir().expect("a folder");
        let text = "# ours\nnameserver 10.0.0.2\nnameserver fd00::2\nnameserver what\nsearch shop.svc.cluster.local corp\n\
                    options ndots:5 timeout:1 attempts:3 unheard-of\n";
        let read = NameServers::read(&sources(&folder, text));
        let servers: Vec<String> = read.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.0.0.2:53", "[fd00::2]:53"]);
        assert_eq!(read.search, ["shop.svc.cluster.local", "corp"]);
        assert_eq!((read.ndots, read.timeout, read.attempts), (5, Duration::from_secs(1), 3));
    }

    #[test]
    fn a_host_without_the_file_asks_itself() {
        let nowhere = Sources { resolv_conf: "/nonexistent/resolv.conf".into(), ..Sources::default() };
        let read = NameServers::read(&nowhere);
        assert!(read.servers.iter().all(|server| server.ip().is_loopback()) && !read.servers.is_empty());
        assert!(read.search.is_empty());
    }

    #[test]
    fn nobody_asks_himself() {
        let folder = tempfile::tempdir().expect("a folder");
        let own = Some(SocketAddr::from(([127, 0, 0, 1], 53)));
        let sources = Sources { own, ..sources(&folder, "nameserver 127.0.0.1\nnameserver 10.0.0.2\n") };
        let servers: Vec<_> = NameServers::read(&sources).servers;
        assert_eq!(servers, [SocketAddr::from(([10, 0, 0, 2], 53))]);
    }

    #[test]
    fn a_changed_file_is_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let sources = sources(&folder, "nameserver 10.0.0.2\n");
        let mut kept = Kept::new(sources.clone());
        assert_eq!(kept.current().servers[0].to_string(), "10.0.0.2:53");
        fs::write(&sources.resolv_conf, "nameserver 10.0.0.30\n").expect("the folder is ours");
        assert_eq!(kept.current().servers[0].to_string(), "10.0.0.30:53");
    }
}
