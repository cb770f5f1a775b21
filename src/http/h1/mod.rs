//! HTTP/1 (RFC 9112), on both sides. Heads are read by `httparse`; framing and the connection's state are our own, so that
//! names keep their case and order on any way through the mesh, and that an idle connection costs next to nothing.
//!
//! | file | what it knows |
//! |---|---|
//! | [`head`] | a message's head, read strictly: what two readers could take differently is refused |
//! | [`names`] | how the fields were written, for whoever writes them again |
//! | [`encode`] | a message's head, written |
//! | [`framing`] | where a body ends, reading |
//! | [`sending`] | where a body ends, writing |
//! | [`wire`] | one connection's bytes: read ahead, and waiting to be written |
//! | [`connection`] | what the server's task and the reader of a request's body share |
//! | [`server`], [`client`] | the order of things, on either side |

use crate::{error::Reason, net::io::Duplex};

mod body;
pub mod client;
mod connection;
mod encode;
mod framing;
mod head;
mod names;
mod sending;
pub mod server;
#[cfg(test)]
mod tests;
mod wire;

pub use body::Incoming;

/// The largest header or trailer section taken, bytes.
const MAX_HEAD: usize = 64 * 1024;
/// Header fields in one section.
const MAX_HEADERS: usize = 200;

/// Why bytes are no HTTP/1 message that can be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Malformed {
    reason: Reason,
    detail: &'static str,
}

impl Malformed {
    const fn new(detail: &'static str) -> Self {
        Self { reason: Reason::MalformedRequest, detail }
    }

    const fn too_large(detail: &'static str) -> Self {
        Self { reason: Reason::HeadersTooLarge, detail }
    }
}

/// Why nothing more can be read.
#[derive(Debug)]
enum Fault {
    /// The peer does not keep to the protocol.
    Malformed(Malformed),
    /// The connection ended, or failed, before the message did.
    Lost(std::io::Error),
}

impl From<Malformed> for Fault {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        Self::Lost(error)
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Malformed(malformed) => f.write_str(malformed.detail),
            Self::Lost(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Fault {}
