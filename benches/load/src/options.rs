//! The command line.

use std::{io, net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};
use rustls_pki_types::{InvalidDnsNameError, ServerName};

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

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Requests one after the other on each connection: as fast as answers come, or at a constant rate.
    Steady(Steady),
    /// Many connections at once, then quiet.
    Burst(Burst),
    /// TLS 1.3 handshakes with a client certificate, each on a new connection; begins with a line on standard input.
    Handshakes(Handshakes),
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

#[derive(Debug, Args)]
#[group(id = "kind", required = true, args = ["full", "resume"])]
pub(crate) struct Handshakes {
    /// At a time.
    #[arg(long)]
    pub(crate) connections: usize,
    #[arg(long)]
    pub(crate) seconds: f64,
    /// Every handshake proves both sides' certificates.
    #[arg(long)]
    pub(crate) full: bool,
    /// Every handshake resumes a session of the one before it.
    #[arg(long)]
    pub(crate) resume: bool,
    /// Roots that the server's chain must end at, PEM. The names in its certificate are not looked at.
    #[arg(long)]
    pub(crate) ca: PathBuf,
    /// The client's chain, PEM.
    #[arg(long)]
    pub(crate) cert: PathBuf,
    /// The client's private key, PEM.
    #[arg(long)]
    pub(crate) key: PathBuf,
    /// The application protocol; one that ends in `h2` is spoken to until the server's SETTINGS have come, any other
    /// is HTTP/1 and has one request.
    #[arg(long)]
    pub(crate) alpn: String,
    /// The server name to ask for.
    #[arg(long, value_parser = server_name)]
    pub(crate) sni: ServerName<'static>,
}

fn server_name(text: &str) -> Result<ServerName<'static>, InvalidDnsNameError> {
    text.to_owned().try_into()
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
