//! Passes questions on to the host's name servers, and their answers back, byte for byte but for the ID.

use std::{
    cell::RefCell,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::pin,
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use rand::Rng;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::{Instant, sleep_until},
};

use super::message::Asked;
use crate::net::nameservers::{Kept, NameServers, Sources};

/// For all servers together: shorter than the 5 s that the C library waits for us, which then hears of the failure.
pub(super) const DEADLINE: Duration = Duration::from_millis(4500);
/// The largest message there is.
const LARGEST: usize = u16::MAX as usize;

/// How a question came, and goes on: an answer that does not fit into a datagram says so, and is asked for again by TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// Asks the host's name servers.
#[derive(Debug)]
pub(super) struct Forwarder {
    servers: RefCell<Kept>,
    /// Where datagrams arrive, one at a time.
    scratch: RefCell<Box<[u8]>>,
}

impl Forwarder {
    pub(super) fn new(sources: Sources) -> Self {
        Self {
            servers: RefCell::new(Kept::new(sources)),
            scratch: RefCell::new(vec![0; LARGEST].into_boxed_slice()),
        }
    }

    /// Domains that this host's clients append to names.
    pub(super) fn search(&self) -> Vec<String> {
        self.servers.borrow_mut().current().search.clone()
    }

    /// The answer of the first server that has one. A server that is silent for its time, or fails, leaves the question to the next
    /// one; while that is asked, the silent one may still answer. If all fail, their failure is the answer.
    pub(super) async fn forward(
        &self,
        asked: &Asked,
        bytes: &[u8],
        transport: Transport,
    ) -> Result<Vec<u8>, String> {
        let (order, step) = plan(self.servers.borrow_mut().current());
        let mut order = order.into_iter();
        let ask = |server| self.ask(server, asked, bytes, transport);
        let mut tries: FuturesUnordered<_> = order.next().map(ask).into_iter().collect();
        if tries.is_empty() {
            return Err("there is no name server but this sidecar".into());
        }
        let deadline = Instant::now() + DEADLINE;
        let mut next = Instant::now() + step;
        let mut failed: Result<Vec<u8>, String> =
            Err(format!("no name server has answered within {DEADLINE:?}"));
        loop {
            let turn = next.min(deadline);
            let mut waited = pin!(sleep_until(turn));
            tokio::select! {
                biased;
                Some(tried) = tries.next(), if !tries.is_empty() => match tried {
                    Ok(answer) if answers(&answer) => return Ok(with_id(answer, bytes)),
                    Ok(answer) => {
                        failed = Ok(with_id(answer, bytes));
                        next = Instant::now();
                    }
                    Err(error) => {
                        failed = failed.or(Err(error));
                        next = Instant::now();
                    }
                },
                () = &mut waited => {
                    if turn == deadline {
                        return failed;
                    }
                    match order.next() {
                        Some(server) => {
                            tries.push(ask(server));
                            next = Instant::now() + step;
                        }
                        None if tries.is_empty() => return failed,
                        None => next = deadline,
                    }
                }
            }
        }
    }

    async fn ask(
        &self,
        server: SocketAddr,
        asked: &Asked,
        bytes: &[u8],
        transport: Transport,
    ) -> Result<Vec<u8>, String> {
        // Nobody else can guess it, nor the port, which the system chooses at random: others cannot answer (RFC 5452 9).
        let sent = with_id(bytes.to_vec(), &rand::rng().random::<[u8; 2]>());
        let answer = match transport {
            Transport::Udp => self.by_udp(server, asked, &sent).await,
            Transport::Tcp => by_tcp(server, asked, &sent).await,
        };
        answer.map_err(|error| format!("name server {server}: {error}"))
    }

    async fn by_udp(&self, server: SocketAddr, asked: &Asked, sent: &[u8]) -> io::Result<Vec<u8>> {
        let any: IpAddr = match server {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).await?;
        // From here on the system takes datagrams of this server only, and tells when it is not there.
        socket.connect(server).await?;
        socket.send(sent).await?;
        loop {
            socket.readable().await?;
            let mut scratch = self.scratch.borrow_mut();
            match socket.try_recv(&mut scratch) {
                Ok(length) if asked.is_answered_by(sent, &scratch[..length]) => {
                    return Ok(scratch[..length].to_vec());
                }
                Ok(_) => tracing::debug!(%server, "a datagram that answers nothing"),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

async fn by_tcp(server: SocketAddr, asked: &Asked, sent: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    write(&mut stream, sent).await?;
    let answer = read(&mut stream).await?;
    match asked.is_answered_by(sent, &answer) {
        true => Ok(answer),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "an answer to something else")),
    }
}

/// Reads one message from a stream (RFC 1035 4.2.2).
pub(super) async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// Writes one message to a stream, at once, since some read no more than what comes together.
pub(super) async fn write(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "larger than a message can be"))?;
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await
}

/// Whom to ask in turn, and how long to wait for one before the next is asked, too.
fn plan(known: &NameServers) -> (Vec<SocketAddr>, Duration) {
    let order = known.servers.repeat(known.attempts.max(1));
    let share = DEADLINE / u32::try_from(order.len().max(1)).unwrap_or(u32::MAX);
    (order, known.timeout.min(share))
}

/// Whether another server need not be asked: as the C library has it, those that fail or do not want to leave it to others.
fn answers(message: &[u8]) -> bool {
    const SERVFAIL: u8 = 2;
    const NOTIMP: u8 = 4;
    const REFUSED: u8 = 5;
    !matches!(message.get(3).map(|flags| flags & 0xf), None | Some(SERVFAIL | NOTIMP | REFUSED))
}

fn with_id(mut message: Vec<u8>, from: &[u8]) -> Vec<u8> {
    if let (Some(id), Some(from)) = (message.get_mut(..2), from.get(..2)) {
        id.copy_from_slice(from);
    }
    message
}
