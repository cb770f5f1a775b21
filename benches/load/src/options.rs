//! The command line.

use std::{io, net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};

/// Sends `GET` requests over HTTP/1.1 and prints what came of them as JSON.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// Where to connect.
    #[arg(long)]
    pub(crate) target: SocketAddr,
    /// The request's path.
    #[arg(long, default_value = "/")]
    pub(crate) path: String,
    /// The `host` header.
    #[arg(long)]
    pub(crate) host: String,
    /// A file with the body that every response must have.
    #[arg(long)]
    pub(crate) expect: PathBuf,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum Command {
    /// Requests one after the other on each connection: as fast as answers come, or at a constant rate.
    Steady(Steady),
    /// Many connections at once, then quiet.
    Burst(Burst),
}

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Steady {
    #[arg(long)]
    pub(crate) connections: usize,
    #[arg(long)]
    pub(crate) seconds: f64,
    /// Requests per second of all connections together, sent when planned however slow the answers are, with
    /// latency counted from the planned time. Without it: the next request follows the answer.
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// A new connection for each request.
    #[arg(long)]
    pub(crate) reconnect: bool,
}

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Burst {
    #[arg(long)]
    pub(crate) connections: usize,
    /// One request after the other, each on its own connection, or this often one on every connection at the same time.
    #[arg(long)]
    pub(crate) rounds: Option<usize>,
    /// Keeps the connections open until standard input ends.
    #[arg(long)]
    pub(crate) hold: bool,
}

impl Options {
    /// The body that every response must have.
    pub(crate) fn expected(&self) -> io::Result<Vec<u8>> {
        std::fs::read(&self.expect)
    }

    /// The request, ready to be sent.
    pub(crate) fn request(&self, reconnect: bool) -> Vec<u8> {
        let close = if reconnect { "connection: close\r\n" } else { "" };
        let Self { path, host, .. } = self;
        format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: pillion-load\r\n{close}\r\n").into_bytes()
    }
}
