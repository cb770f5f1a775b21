//! Sockets: listening, connecting, copying, and telling a protocol from its first bytes.

pub mod connect;
pub mod copy;
pub mod listen;
pub mod read_ahead;
pub mod sniff;
