//! The names of the mesh, answered for as a name server; every other name as the host's name servers do.
//!
//! An application that looks up `payments.shop.mesh` gets the service's virtual address, connects to it, and is redirected
//! to this sidecar. [`meaning`] says whose a name is, [`forward`] asks the outside. Runs on the main thread.

mod forward;
mod meaning;
mod message;

use std::{
    cell::Cell,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdListener, UdpSocket as StdSocket},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use metrics::Counter;
use tokio::{
    net::{TcpStream, UdpSocket},
    time::{sleep, timeout},
};

use self::{
    forward::{Forwarder, Transport},
    meaning::{Claim, Heard, Verdict, claim, verdict},
    message::{Asked, Malformed},
};
use crate::{
    control::directory::{Directory, Question},
    net::{
        listen::{self, Open},
        nameservers::Sources,
    },
    telemetry::{names::Metric, prometheus::Registry},
};

/// How long the control plane may take to say what a name of the mesh is. Clients wait for 5 s, and then ask again.
const PATIENCE: Duration = Duration::from_secs(2);
/// The same for a name that may as well be one outside. Long enough for a sidecar that has just started…
const PATIENCE_PERHAPS: Duration = Duration::from_secs(1);
/// …and the same once the control plane has kept somebody waiting for that long, until it speaks again: as long as it takes to
/// find out what it said earlier. The application's other names must not suffer from its absence.
const PATIENCE_SILENT: Duration = Duration::from_millis(5);
/// Between tries to hear from a control plane that is silent.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);
/// Questions under way at a time by UDP; those beyond hear that they cannot be answered now.
const MAX_PENDING: usize = 512;
/// Connections at a time; those beyond wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 64;
/// How long a connection may be silent between questions (RFC 7766 6.2.3), and an answer take to be written.
const IDLE: Duration = Duration::from_secs(10);
/// The largest question by UDP.
const LARGEST_QUESTION: usize = 4096;
/// How long to leave a socket alone that the system says is broken.
const BROKEN_PAUSE: Duration = Duration::from_millis(50);
/// Ports tried before giving up on one that is free for UDP and TCP.
const PORT_TRIES: usize = 16;

/// Where questions arrive, bound.
#[derive(Debug)]
pub struct Sockets(Vec<Pair>);

#[derive(Debug)]
struct Pair {
    udp: StdSocket,
    tcp: StdListener,
}

impl Sockets {
    /// Binds an address for UDP and TCP. With IPv4's loopback address goes that of IPv6, where there is IPv6: questions to a
    /// name server of either family are redirected to the address of their own.
    ///
    /// # Errors
    /// The system's, and which of the two it is about.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let tries = if address.port() == 0 { PORT_TRIES } else { 1 };
        let mut last = None;
        for _ in 0..tries {
            match Self::bind_once(address) {
                Ok(sockets) => return Ok(sockets),
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("there was a try"))
    }

    fn bind_once(address: SocketAddr) -> io::Result<Self> {
        let first = Pair::bind(address)?;
        let beside = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), first.address()?.port());
        let mut pairs = vec![first];
        if address.ip() == Ipv4Addr::LOCALHOST {
            match Pair::bind(beside) {
                Ok(pair) => pairs.push(pair),
                // There is no IPv6 on this host.
                Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                    tracing::debug!(%error, %beside, "mesh DNS answers over IPv4 only");
                }
                Err(error) => return Err(io::Error::new(error.kind(), format!("{beside}: {error}"))),
            }
        }
        Ok(Self(pairs))
    }

    /// Where they are bound.
    ///
    /// # Errors
    /// The system's.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.first().expect("bound with one").address()
    }
}

impl Pair {
    fn bind(address: SocketAddr) -> io::Result<Self> {
        let tcp = listen::bind(address).map_err(|error| of("TCP", &error))?;
        let udp = StdSocket::bind(tcp.local_addr()?).map_err(|error| of("UDP", &error))?;
        udp.set_nonblocking(true)?;
        Ok(Self { udp, tcp })
    }

    fn address(&self) -> io::Result<SocketAddr> {
        self.udp.local_addr()
    }
}

fn of(protocol: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{protocol}: {error}"))
}

/// Answers questions.
#[derive(Debug)]
pub struct Dns {
    directory: Directory,
    forwarder: Forwarder,
    counts: Counts,
    pending: Open,
    /// The control plane has kept somebody waiting, and has not been heard since.
    silent: Cell<bool>,
}

/// By outcome.
#[derive(Debug)]
struct Counts {
    mesh: Counter,
    no_such_name: Counter,
    forwarded: Counter,
    failed: Counter,
    malformed: Counter,
    overload: Counter,
}

impl Dns {
    /// With whom to ask about the mesh, and where it is said who is asked about the rest.
    pub fn new(directory: Directory, sources: Sources, registry: &Registry) -> Rc<Self> {
        let outcome = |outcome: &str| registry.counter(Metric::DnsQueries, &[outcome]);
        Rc::new(Self {
            directory,
            forwarder: Forwarder::new(sources),
            counts: Counts {
                mesh: outcome("mesh"),
                no_such_name: outcome("no-such-name"),
                forwarded: outcome("forwarded"),
                failed: outcome("failed"),
                malformed: outcome("malformed"),
                overload: outcome("overload"),
            },
            pending: Open::default(),
            silent: Cell::new(false),
        })
    }

    /// Answers for ever, in tasks of this thread.
    ///
    /// # Errors
    /// The system's: then nothing is answered any more.
    pub async fn serve(self: Rc<Self>, sockets: Sockets) -> io::Result<()> {
        let open = Open::default();
        let pairs = sockets.0.into_iter().map(|pair| self.clone().serve_pair(pair, open.clone()));
        futures_util::future::try_join_all(pairs).await.map(drop)
    }

    async fn serve_pair(self: Rc<Self>, Pair { udp, tcp }: Pair, open: Open) -> io::Result<()> {
        let dns = self.clone();
        let connection = move |stream, peer, open| {
            let dns = dns.clone();
            async move {
                let _open = open;
                if let Err(error) = dns.connection(stream).await {
                    tracing::debug!(%error, %peer, "a connection with questions");
                }
            }
        };
        let by_tcp = listen::accept(tcp, open, MAX_CONNECTIONS, std::future::pending(), connection);
        let by_udp = self.datagrams(UdpSocket::from_std(udp)?);
        tokio::try_join!(by_tcp, by_udp)?;
        Ok(())
    }

    async fn datagrams(self: Rc<Self>, socket: UdpSocket) -> io::Result<()> {
        let socket = Rc::new(socket);
        let mut buffer = vec![0; LARGEST_QUESTION];
        loop {
            let (length, peer) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                Err(error) => {
                    tracing::warn!(%error, "cannot take questions; trying again shortly");
                    sleep(BROKEN_PAUSE).await;
                    continue;
                }
            };
            let bytes = buffer[..length].to_vec();
            let (dns, socket) = (self.clone(), socket.clone());
            let open = (self.pending.count() < MAX_PENDING).then(|| self.pending.enter());
            let answering = async move {
                let answer = match open {
                    Some(_) => dns.answer(&bytes, Transport::Udp).await,
                    None => dns.overloaded(&bytes),
                };
                if let Some(answer) = answer
                    && let Err(error) = socket.send_to(&answer, peer).await
                {
                    tracing::debug!(%error, %peer, "an answer could not be sent");
                }
            };
            crate::task::start(answering);
        }
    }

    /// Answers one question after the other.
    async fn connection(self: &Rc<Self>, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let Ok(question) = timeout(IDLE, forward::read(&mut stream)).await else { return Ok(()) };
            let question = match question {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                question => question?,
            };
            let Some(answer) = self.answer(&question, Transport::Tcp).await else { return Ok(()) };
            timeout(IDLE, forward::write(&mut stream, &answer)).await??;
        }
    }

    /// The answer to one message; `None`: it gets none.
    async fn answer(self: &Rc<Self>, bytes: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let asked = match Asked::read(bytes) {
            Ok(asked) => asked,
            Err(malformed) => return self.malformed(malformed),
        };
        if let Some(question) = &asked.question {
            let verdict = self.judge(question).await;
            tracing::debug!(name = question.name, record = %question.record_type, ?verdict, "looked up");
            let count = match verdict {
                Verdict::Forward => None,
                Verdict::Address(_) | Verdict::NoRecord => Some(&self.counts.mesh),
                Verdict::NoSuchName => Some(&self.counts.no_such_name),
                Verdict::Unavailable => Some(&self.counts.failed),
            };
            if let Some(count) = count {
                return match question.answer(bytes, verdict) {
                    Ok(answer) => {
                        count.increment(1);
                        Some(answer)
                    }
                    Err(malformed) => self.malformed(malformed),
                };
            }
        }
        match self.forwarder.forward(&asked, bytes, transport).await {
            Ok(answer) => {
                self.counts.forwarded.increment(1);
                Some(answer)
            }
            Err(error) => {
                let name = asked.question.as_ref().map(|question| question.name.as_str());
                tracing::debug!(error, name, "not answered outside");
                self.counts.failed.increment(1);
                asked.unavailable()
            }
        }
    }

    fn malformed(&self, malformed: Malformed) -> Option<Vec<u8>> {
        self.counts.malformed.increment(1);
        malformed.answer
    }

    fn overloaded(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.counts.overload.increment(1);
        Asked::read(bytes).ok().and_then(|asked| asked.unavailable())
    }

    async fn judge(self: &Rc<Self>, question: &message::Question) -> Verdict {
        let claim = claim(&question.name, question.record_type, &self.forwarder.search());
        let heard = match claim {
            Claim::Outside | Claim::Nobody => Heard::Unknown,
            Claim::Mesh => self.hear(&question.name, PATIENCE).await,
            Claim::Perhaps if self.silent.get() => self.hear(&question.name, PATIENCE_SILENT).await,
            Claim::Perhaps => {
                let heard = self.hear(&question.name, PATIENCE_PERHAPS).await;
                if heard == Heard::Silence && !self.silent.replace(true) {
                    crate::task::start(self.clone().until_heard(question.name.as_str().into()));
                }
                heard
            }
        };
        verdict(claim, heard, question.record_type)
    }

    /// What the control plane says about a name, or said a while ago.
    async fn hear(&self, name: &str, patience: Duration) -> Heard {
        let resolved = self.directory.resolve(Question::Host(name.into()));
        match timeout(patience, resolved).await {
            Ok(Ok(Some(answer))) => Heard::Service(answer.virtual_address),
            Ok(Ok(None)) => Heard::Unknown,
            Ok(Err(_)) | Err(_) => Heard::Silence,
        }
    }

    /// Waits until the control plane answers what it owes.
    async fn until_heard(self: Rc<Self>, name: Arc<str>) {
        while self.directory.resolve(Question::Host(name.clone())).await.is_err() {
            sleep(LISTEN_AGAIN).await;
        }
        self.silent.set(false);
    }
}
