//! The sockets that a sidecar listens on, and what their addresses are.

use std::net::{SocketAddr, TcpListener as StdListener};

use crate::{config::Config, dns::Sockets, net::listen, outbound::Target};

/// The sockets of one sidecar, bound.
pub(super) struct Listeners {
    /// Where it is redirected to, in both IP versions, the one of the settings first.
    pub(super) inbound: Vec<StdListener>,
    /// Likewise.
    pub(super) outbound: Vec<StdListener>,
    pub(super) admin: StdListener,
    pub(super) dns: Option<Sockets>,
    pub(super) services: Vec<(StdListener, Target)>,
}

/// Binds every listener; reports every one that cannot be.
pub(super) fn bind(config: &Config) -> Result<Listeners, String> {
    let mut faults = Vec::new();
    let redirected = |address| match config.redirected {
        true => listen::bind_both(address),
        false => listen::bind(address).map(|listener| vec![listener]),
    };
    let inbound = config.inbound_listen;
    let inbound = noted(&mut faults, "inboundListen", inbound, redirected(inbound));
    let outbound = config.outbound_listen;
    let outbound = noted(&mut faults, "outboundListen", outbound, redirected(outbound));
    let admin = noted(&mut faults, "adminListen", config.admin_listen, listen::bind(config.admin_listen));
    let mut services = Vec::new();
    for listener in &config.listeners {
        let target = Target::new(listener.service.clone(), listener.port);
        let socket = noted(&mut faults, "listeners", listener.listen, listen::bind(listener.listen));
        services.extend(socket.map(|socket| (socket, target)));
    }
    let dns = config
        .dns_listen
        .and_then(|address| noted(&mut faults, "dnsListen", address, Sockets::bind(address)));
    match (inbound, outbound, admin) {
        (Some(inbound), Some(outbound), Some(admin)) if faults.is_empty() => {
            Ok(Listeners { inbound, outbound, admin, dns, services })
        }
        _ => Err(faults.join("\n")),
    }
}

fn noted<T>(
    faults: &mut Vec<String>,
    what: &str,
    address: SocketAddr,
    bound: std::io::Result<T>,
) -> Option<T> {
    bound.map_err(|error| faults.push(format!("{what} {address}: {error}"))).ok()
}

/// The addresses listened on, for programs that let the system choose the ports.
#[derive(Debug, serde::Serialize)]
pub(super) struct Addresses {
    pub(super) inbound: SocketAddr,
    pub(super) outbound: SocketAddr,
    pub(super) admin: SocketAddr,
    /// Of inbound and outbound, the other IP version.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    twins: Vec<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dns: Option<SocketAddr>,
    /// By `service:port`.
    listeners: std::collections::BTreeMap<String, SocketAddr>,
}

impl Addresses {
    pub(super) fn of(listeners: &Listeners) -> std::io::Result<Self> {
        let mut services = std::collections::BTreeMap::new();
        for (socket, target) in &listeners.services {
            services.insert(format!("{}:{}", target.service, target.port), socket.local_addr()?);
        }
        let of = |sockets: &[StdListener]| -> std::io::Result<Vec<SocketAddr>> {
            sockets.iter().map(StdListener::local_addr).collect()
        };
        let (mut inbound, mut outbound) = (of(&listeners.inbound)?, of(&listeners.outbound)?);
        Ok(Self {
            inbound: inbound.remove(0),
            outbound: outbound.remove(0),
            twins: [inbound, outbound].concat(),
            admin: listeners.admin.local_addr()?,
            dns: listeners.dns.as_ref().map(Sockets::address).transpose()?,
            listeners: services,
        })
    }

    pub(super) fn all(&self) -> Vec<SocketAddr> {
        [self.inbound, self.outbound, self.admin]
            .into_iter()
            .chain(self.twins.iter().copied())
            .chain(self.dns)
            .chain(self.listeners.values().copied())
            .collect()
    }

    /// Whole or not at all: whoever waits for the file must not read half of it.
    pub(super) fn write(&self, path: &std::path::Path) -> std::io::Result<()> {
        let json = serde_json::to_vec_pretty(self)?;
        let draft = path.with_extension("draft");
        std::fs::write(&draft, json)?;
        std::fs::rename(draft, path)
    }
}
