//! HTTP/1 by hyper's codec, on both sides.

pub mod client;
mod guard;
pub mod server;

/// The largest header section taken, and the read buffer's limit, bytes.
const MAX_HEAD: usize = 64 * 1024;
/// Header fields in one section.
const MAX_HEADERS: usize = 200;
