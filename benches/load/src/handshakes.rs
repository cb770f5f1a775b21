//! TLS handshakes and nothing else, one after the other on each of several connections at a time: all full, or all
//! resumed, which is checked of each.

use std::{
    io::{self, BufRead, Read},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{Arc, Barrier},
    thread,
    time::{Duration, Instant},
};

use rustls::{ClientConfig, ClientConnection, HandshakeKind, StreamOwned};
use rustls_pki_types::ServerName;

use crate::{
    exchange::{Connection, Wrong},
    options::{Handshakes, Options},
    report::Report,
    tls::{self, Credentials},
};

/// What an HTTP/2 client says first (RFC 9113, 3.4): the preface, and SETTINGS that change nothing.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// Makes the handshakes once it is told to by a line on standard input: before that it says `primed`, when it has the
/// sessions to resume, so that whoever measures can leave out the handshakes which those came from.
///
/// # Errors
/// For people: credentials that cannot be used.
pub(crate) fn run(options: &Options, expected: &[u8], handshakes: &Handshakes) -> Result<Report, String> {
    let credentials = Credentials::read(&handshakes.ca, &handshakes.cert, &handshakes.key)?;
    let request = options.request(false);
    let clients = (0..handshakes.connections)
        .map(|_| {
            let config = credentials.config(&handshakes.alpn, handshakes.resume);
            let config = config.map_err(|error| error.to_string())?;
            let (sni, resume) = (handshakes.sni.clone(), handshakes.resume);
            Ok(Client { target: options.target, config, sni, request: &request, expected, resume })
        })
        .collect::<Result<Vec<_>, String>>()?;
    // All clients and this thread: once when all are primed, once when they may begin.
    let turns = Barrier::new(clients.len() + 1);
    let length = Duration::from_secs_f64(handshakes.seconds);
    let mut report = Report::default();
    thread::scope(|scope| {
        let turns = &turns;
        let workers: Vec<_> =
            clients.into_iter().map(|client| scope.spawn(move || client.run(turns, length))).collect();
        turns.wait();
        primed();
        turns.wait();
        let start = Instant::now();
        for worker in workers {
            report.merge(worker.join().expect("a client does not panic"));
        }
        report.seconds = start.elapsed().as_secs_f64();
    });
    Ok(report)
}

#[expect(clippy::print_stdout, reason = "it is how whoever started this learns of it")]
fn primed() {
    println!("primed");
    let _ = io::stdin().lock().read_line(&mut String::new());
}

struct Client<'a> {
    target: SocketAddr,
    config: Arc<ClientConfig>,
    sni: ServerName<'static>,
    /// For HTTP/1.
    request: &'a [u8],
    expected: &'a [u8],
    resume: bool,
}

impl Client<'_> {
    fn run(&self, turns: &Barrier, length: Duration) -> Report {
        let mut report = Report::default();
        let primed = if self.resume { self.handshake(HandshakeKind::Full).map(drop) } else { Ok(()) };
        turns.wait();
        turns.wait();
        if let Err(wrong) = primed {
            report.wrong(&wrong);
            return report;
        }
        let end = Instant::now() + length;
        let expected = if self.resume { HandshakeKind::Resumed } else { HandshakeKind::Full };
        loop {
            let start = Instant::now();
            if start >= end {
                return report;
            }
            match self.handshake(expected) {
                Ok(agreed) => {
                    report.right(start.elapsed());
                    report.agreed(agreed);
                }
                Err(wrong) => {
                    report.wrong(&wrong);
                    // Against a server that refuses at once this would only spin.
                    return report;
                }
            }
        }
    }

    /// Connects, does the handshake, waits for the first word of the application protocol, by when any tickets have
    /// come, and ends the connection in good order. Tells what was agreed on.
    fn handshake(&self, expected: HandshakeKind) -> Result<String, Wrong> {
        let session = ClientConnection::new(self.config.clone(), self.sni.clone())
            .map_err(|_| Wrong::Tls("the handshake could not begin".into()))?;
        let stream = StreamOwned::new(session, Connection::connect(self.target)?);
        let mut connection = Connection::over(stream);
        if self.config.alpn_protocols[0].ends_with(b"h2") {
            connection.send(PREFACE)?;
            connection.settings()?;
        } else {
            connection.exchange(self.request, self.expected)?;
        }
        let mut stream = connection.into_inner();
        let session = &stream.conn;
        if session.handshake_kind() != Some(expected) {
            let kind = tls::kind(session.handshake_kind());
            return Err(Wrong::Tls(format!("the handshake was {kind}, not {}", tls::kind(Some(expected)))));
        }
        if session.alpn_protocol() != self.config.alpn_protocols.first().map(Vec::as_slice) {
            return Err(Wrong::Tls("another application protocol".into()));
        }
        let group = session.negotiated_key_exchange_group().expect("the handshake is complete").name();
        let suite = session.negotiated_cipher_suite().expect("the handshake is complete").suite();
        let agreed = format!("{group:?}, {suite:?}");
        end(&mut stream)?;
        Ok(agreed)
    }
}

/// Takes leave, and waits until the peer has: its work for this connection is done then.
fn end(stream: &mut Tls) -> Result<(), Wrong> {
    let io = |error: io::Error| Wrong::Io("close", error.kind());
    stream.conn.send_close_notify();
    stream.conn.write_tls(&mut stream.sock).map_err(io)?;
    stream.sock.shutdown(Shutdown::Write).map_err(io)?;
    let mut rest = [0; 4096];
    while stream.sock.read(&mut rest).map_err(io)? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write, net::TcpListener};

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::{RootCertStore, ServerConfig, ServerConnection, server::WebPkiClientVerifier};
    use rustls_pki_types::PrivateKeyDer;

    use super::*;

    /// Serves connections, each until its client leaves, and gives one client to it.
    fn with_client<T>(tickets: usize, resume: bool, ask: impl FnOnce(&Client<'_>) -> T) -> T {
        let (server, credentials) = both_sides(tickets);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let target = listener.local_addr().expect("an address");
        thread::spawn(move || {
            for stream in listener.incoming() {
                let session = ServerConnection::new(server.clone()).expect("a configuration");
                let mut tls = StreamOwned::new(session, stream.expect("a connection"));
                let mut preface = [0; PREFACE.len()];
                if tls.read_exact(&mut preface).is_ok() && preface == *PREFACE {
                    tls.write_all(b"\0\0\0\x04\0\0\0\0\0").expect("the client is there");
                    let _ = tls.read(&mut [0]);
                }
            }
        });
        let config = credentials.config("h2", resume).expect("a key that fits");
        let sni = "80.some.bench.mesh".try_into().expect("a name");
        ask(&Client { target, config, sni, request: b"", expected: b"", resume })
    }

    /// Under one root, with names that are not the server's: those are not looked at.
    fn both_sides(tickets: usize) -> (Arc<ServerConfig>, Credentials) {
        let mut root = CertificateParams::default();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = CertifiedIssuer::self_signed(root, KeyPair::generate().expect("a key")).expect("a root");
        let key = KeyPair::generate().expect("a key");
        let leaf = CertificateParams::new(["workload".to_owned()]).expect("a name");
        let leaf = leaf.signed_by(&key, &root).expect("a certificate");

        let folder = tempfile::tempdir().expect("a folder");
        let files = ["ca", "cert", "key"].map(|name| folder.path().join(name));
        for (file, text) in files.iter().zip([root.pem(), leaf.pem(), key.serialize_pem()]) {
            fs::write(file, text).expect("room");
        }
        let credentials = Credentials::read(&files[0], &files[1], &files[2]).expect("what was just written");

        let mut roots = RootCertStore::empty();
        roots.add(root.der().clone()).expect("a root");
        let clients = WebPkiClientVerifier::builder(Arc::new(roots)).build().expect("a root");
        let private = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let mut config = ServerConfig::builder()
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![leaf.der().clone()], private)
            .expect("a key that fits");
        config.alpn_protocols = vec!["h2".into()];
        config.send_tls13_tickets = tickets;
        (Arc::new(config), credentials)
    }

    #[test]
    fn full_ones_stay_full() {
        with_client(2, false, |client| {
            for _ in 0..2 {
                let agreed = client.handshake(HandshakeKind::Full).expect("a handshake");
                assert_eq!(agreed, "X25519MLKEM768, TLS13_AES_128_GCM_SHA256");
            }
        });
    }

    #[test]
    fn sessions_are_resumed_one_after_the_other() {
        with_client(1, true, |client| {
            client.handshake(HandshakeKind::Full).expect("the first is full");
            for _ in 0..3 {
                client.handshake(HandshakeKind::Resumed).expect("the others are not");
            }
        });
    }

    #[test]
    fn another_kind_is_wrong() {
        let wrong = with_client(0, true, |client| {
            client.handshake(HandshakeKind::Full).expect("the first is full");
            client.handshake(HandshakeKind::Resumed).expect_err("there was no ticket")
        });
        assert_eq!(wrong.to_string(), "TLS: the handshake was full, not resumed");
    }
}
