//! A name server outside the mesh, as a test wants it to be.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{RData, Record, RecordType};
use pillion_proxy::net::nameservers::Sources;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::AbortHandle;

/// How a message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Udp,
    Tcp,
}

/// A message that was asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) bytes: Vec<u8>,
    pub(crate) by: By,
}

/// A running server, until dropped.
pub(crate) struct NameServer {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    tasks: [AbortHandle; 2],
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl NameServer {
    /// Sends what `answer` gives for a message: any number of messages over UDP, the first of them over TCP.
    pub(crate) async fn start(answer: impl Fn(&Asked) -> Vec<Vec<u8>> + Send + Sync + 'static) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), answer).await
    }

    /// The same at an address.
    pub(crate) async fn start_at(
        address: SocketAddr,
        answer: impl Fn(&Asked) -> Vec<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let (udp, tcp) = both(address).await;
        let address = tcp.local_addr().expect("it is bound");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let answer = Arc::new(answer);
        let (seen, answering) = (asked.clone(), answer.clone());
        let by_udp = tokio::spawn(async move {
            let mut buffer = vec![0; 65535];
            loop {
                let (length, peer) = udp.recv_from(&mut buffer).await.expect("the socket is well");
                let message = Asked { bytes: buffer[..length].to_vec(), by: By::Udp };
                seen.lock().expect("no panic").push(message.clone());
                for answer in answering(&message) {
                    udp.send_to(&answer, peer).await.expect("the socket is well");
                }
            }
        });
        let seen = asked.clone();
        let by_tcp = tokio::spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.expect("the socket is well");
                let (seen, answer) = (seen.clone(), answer.clone());
                tokio::spawn(async move {
                    while let Ok(length) = stream.read_u16().await {
                        let mut bytes = vec![0; length.into()];
                        stream.read_exact(&mut bytes).await.expect("a whole message");
                        let message = Asked { bytes, by: By::Tcp };
                        seen.lock().expect("no panic").push(message.clone());
                        let answers = answer(&message);
                        let Some(answer) = answers.first() else { continue };
                        let length = u16::try_from(answer.len()).expect("it fits");
                        let framed = [&length.to_be_bytes(), answer.as_slice()].concat();
                        let _ = stream.write_all(&framed).await;
                    }
                });
            }
        });
        Self { address, asked, tasks: [by_udp.abort_handle(), by_tcp.abort_handle()] }
    }

    /// A server that knows these hosts, each with its addresses and their TTL. Of names that begin with `silent` it says
    /// nothing, of `broken` that it fails, of `empty` that there are no records, and `large` are too large for UDP.
    pub(crate) async fn with(hosts: &'static [(&'static str, u32, &'static [&'static str])]) -> Self {
        Self::start(move |asked| respond(asked, hosts)).await
    }

    /// What it was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no panic").clone()
    }

    /// A host whose only name server this is. `more` are further lines of `resolv.conf`, `hosts` is the whole `/etc/hosts`.
    pub(crate) fn host(&self, folder: &Path, more: &str, hosts: &str) -> Sources {
        let sources = Sources {
            resolv_conf: folder.join("resolv.conf"),
            hosts: folder.join("hosts"),
            port: self.address.port(),
            own: None,
        };
        let text = format!("nameserver {}\n{more}\n", self.address.ip());
        std::fs::write(&sources.resolv_conf, text).expect("the folder is ours");
        std::fs::write(&sources.hosts, hosts).expect("the folder is ours");
        sources
    }
}

/// Sockets of both kinds at one port.
async fn both(address: SocketAddr) -> (UdpSocket, TcpListener) {
    for _ in 0..100 {
        let tcp = TcpListener::bind(address).await.expect("a free port");
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().expect("it is bound")).await {
            return (udp, tcp);
        }
    }
    panic!("no port is free for both");
}

/// The answer with some records to what was asked.
pub(crate) fn answer(asked: &Message, code: ResponseCode, records: Vec<Record>) -> Vec<u8> {
    let mut answer = Message::response(asked.id, asked.op_code);
    answer.metadata.response_code = code;
    answer.metadata.recursion_available = true;
    answer.metadata.recursion_desired = asked.recursion_desired;
    answer.add_queries(asked.queries.clone());
    answer.add_answers(records);
    answer.to_vec().expect("it can be written")
}

/// The records of a question's type among some addresses.
pub(crate) fn records(query: &Query, ttl: u32, addresses: &[IpAddr]) -> Vec<Record> {
    let wanted = |address: &&IpAddr| match query.query_type() {
        RecordType::A => address.is_ipv4(),
        RecordType::AAAA => address.is_ipv6(),
        _ => false,
    };
    let record = |address: &IpAddr| Record::from_rdata(query.name().clone(), ttl, RData::from(*address));
    addresses.iter().filter(wanted).map(record).collect()
}

fn respond(asked: &Asked, hosts: &[(&str, u32, &[&str])]) -> Vec<Vec<u8>> {
    let message = Message::from_vec(&asked.bytes).expect("a well-formed question");
    let query = &message.queries[0];
    let name = query.name().to_lowercase().to_ascii();
    let name = name.trim_end_matches('.');
    if name.starts_with("silent") {
        return Vec::new();
    }
    if name.starts_with("broken") {
        return vec![answer(&message, ResponseCode::ServFail, Vec::new())];
    }
    if name.starts_with("empty") {
        return vec![answer(&message, ResponseCode::NoError, Vec::new())];
    }
    if name.starts_with("large") && asked.by == By::Udp {
        let mut truncated = answer(&message, ResponseCode::NoError, Vec::new());
        truncated[2] |= 0x02;
        return vec![truncated];
    }
    if name.starts_with("large") {
        let addresses: Vec<IpAddr> = (0..200).map(|last| IpAddr::from([10, 1, 0, last])).collect();
        return vec![answer(&message, ResponseCode::NoError, records(query, 60, &addresses))];
    }
    let Some((_, ttl, texts)) = hosts.iter().find(|(host, ..)| *host == name) else {
        return vec![answer(&message, ResponseCode::NXDomain, Vec::new())];
    };
    let addresses: Vec<IpAddr> = texts.iter().map(|text| text.parse().expect("an address")).collect();
    vec![answer(&message, ResponseCode::NoError, records(query, *ttl, &addresses))]
}
