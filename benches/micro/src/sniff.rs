//! Telling a protocol from the first bytes.

use pillion_proxy::net::sniff::{self, Detected};

use crate::Case;

const HTTP1: &[u8] = b"GET /api/v1/items?page=2 HTTP/1.1\r\nhost: backend.bench\r\naccept: */*\r\n\r\n";
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x12\x04\0\0\0\0\0";
const TLS: &[u8] = &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03];
const OPAQUE: &[u8] = b"*1\r\n$4\r\nPING\r\n";

/// One decision.
#[derive(Debug)]
pub struct Decide(&'static [u8]);

impl Decide {
    /// The start of one connection of each kind: `http1`, `http2`, `tls`, `opaque`.
    pub fn each() -> [(&'static str, Self); 4] {
        [("http1", Self(HTTP1)), ("http2", Self(HTTP2)), ("tls", Self(TLS)), ("opaque", Self(OPAQUE))]
    }
}

impl Case for Decide {
    type Output = Option<Detected>;

    fn run(&mut self) -> Option<Detected> {
        sniff::decide(std::hint::black_box(self.0))
    }
}
