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
