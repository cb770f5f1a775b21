//! Mutual TLS between sidecars: what is agreed on in the handshake, and the two sides of it.
//!
//! ALPN says what the connection carries, and that it is ours at all. The server name says which port of which
//! service the caller wants: `<port>.<service>.<namespace>.mesh`.

use pillion_api::name::ServiceName;

pub mod accept;
pub mod connect;
pub mod hello;
pub mod opening;

/// What a connection between sidecars carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Carries {
    /// HTTP/1, exact about upgrades.
    Http1,
    /// HTTP/2, many requests at a time.
    Http2,
    /// One application connection's bytes.
    Tcp,
}

impl Carries {
    /// All of them, as a server offers them.
    pub const ALPN: [&[u8]; 3] = [b"pillion/h2", b"pillion/h1", b"pillion/tcp"];

    /// The protocol's name in the handshake (RFC 7301).
    pub fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http2 => Self::ALPN[0],
            Self::Http1 => Self::ALPN[1],
            Self::Tcp => Self::ALPN[2],
        }
    }

    /// From the negotiated name.
    pub fn from_alpn(alpn: Option<&[u8]>) -> Option<Self> {
        [Self::Http2, Self::Http1, Self::Tcp].into_iter().find(|carries| Some(carries.alpn()) == alpn)
    }
}

/// The server name for a port of a service.
pub fn server_name(port: u16, service: &ServiceName) -> String {
    format!("{port}.{service}.mesh")
}

/// The port and the service in a server name. `None`: it is not one of ours.
pub fn called(server_name: &str) -> Option<(u16, ServiceName)> {
    let (port, service) = server_name.strip_suffix(".mesh")?.split_once('.')?;
    let service = service.parse().ok()?;
    port.parse().ok().filter(|port| *port != 0).map(|port| (port, service))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_ports() {
        let service: ServiceName = "payments.demo".parse().expect("a name");
        assert_eq!(called(&server_name(8080, &service)), Some((8080, service)));
        for wrong in
            ["", "payments.demo.mesh", "0.payments.demo.mesh", "80.payments.mesh", "80.payments.demo"]
        {
            assert_eq!(called(wrong), None, "{wrong}");
        }
    }
}
