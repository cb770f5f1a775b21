//! Mesh DNS: over its sockets with a mesh and a name server that the test plays, and in the real programs.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use pillion_proxy::control::directory::{Answer, Directory, Heard, Question, Wish};
use pillion_proxy::dns::{Dns, Sockets};
use pillion_proxy::net::nameservers::Sources;
use pillion_proxy::telemetry::prometheus::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::LocalSet;

use crate::support::mesh::{Mesh, SidecarSpec, pillion_proxy};
use crate::support::nameserver::{By, NameServer, answer};
use crate::support::{eventually, soon};

const HOSTS: &[(&str, u32, &[&str])] =
    &[("example.com", 60, &["10.0.0.1"]), ("outside.demo.svc.cluster.local", 60, &["10.0.0.2"])];

/// What the mesh knows: services by the names that mean them, with their virtual addresses.
const MESH: &[(&str, Option<&str>)] = &[
    ("payments.demo.mesh", Some("240.240.0.7")),
    ("payments.demo", Some("240.240.0.7")),
    ("payments", Some("240.240.0.7")),
    ("payments.demo.svc.cluster.local", Some("240.240.0.7")),
    ("api.partner.test", Some("240.240.0.8")),
    ("six.demo.mesh", Some("fd00::7")),
    ("bare.demo.mesh", None),
    ("example.com", None),
];

/// Mesh DNS on a thread's own tasks.
struct Served {
    address: SocketAddr,
    registry: Registry,
    /// Whether the control plane speaks.
    speaks: watch::Sender<bool>,
}

/// Runs a test with mesh DNS over the name servers that `sources` names.
async fn with_dns(sources: Sources, test: impl AsyncFnOnce(Rc<Served>)) {
    let serving = async {
        let sockets = Sockets::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("free ports");
        let address = sockets.address().expect("they are bound");
        let registry = Registry::new();
        let (directory, mut wishes) = Directory::new(Duration::from_secs(3));
        let (speaks, mut speaking) = watch::channel(true);
        tokio::task::spawn_local(async move {
            let known: HashMap<&str, Option<&str>> = MESH.iter().copied().collect();
            let mut waiting = Vec::new();
            loop {
                tokio::select! {
                    Some(wish) = wishes.recv() => {
                        let Wish::Resolve(ask) = wish else { panic!("nobody follows anything") };
                        waiting.push(ask);
                    }
                    Ok(()) = speaking.changed() => {}
                }
                if !*speaking.borrow() {
                    continue;
                }
                for ask in waiting.drain(..) {
                    let Question::Host(host) = &ask.question else { panic!("not a host") };
                    let answer = known.get(&**host).map(|address| Answer {
                        service: "payments.demo".parse().expect("a name"),
                        port: 0,
                        uid: None,
                        virtual_address: address.map(|text| text.parse().expect("an address")),
                    });
                    let _ = ask.reply.send(Ok(Heard { answer, at: tokio::time::Instant::now() }));
                }
            }
        });
        let dns = Dns::new(directory, sources, &registry);
        tokio::task::spawn_local(dns.serve(sockets));
        test(Rc::new(Served { address, registry, speaks })).await;
    };
    soon("the test ends", LocalSet::new().run_until(serving)).await;
}

impl Served {
    /// Sends a message by UDP, and gives what comes back.
    async fn exchange(&self, bytes: &[u8]) -> Vec<u8> {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        socket.connect(self.address).await.expect("it is there");
        socket.send(bytes).await.expect("it is there");
        let mut answer = vec![0; 65535];
        let length = soon("an answer", socket.recv(&mut answer)).await.expect("it is there");
        answer.truncate(length);
        answer
    }

    async fn ask(&self, name: &str, record_type: RecordType) -> Message {
        let asked = question(name, record_type);
        let answer = Message::from_vec(&self.exchange(&bytes(&asked)).await).expect("well-formed");
        assert_eq!((answer.id, answer.message_type), (asked.id, MessageType::Response), "{name}");
        assert_eq!(answer.queries, asked.queries, "{name}");
        answer
    }

    fn count(&self, outcome: &str) -> u64 {
        let series = format!("pillion_dns_queries_total{{outcome=\"{outcome}\"}} ");
        let text = self.registry.render();
        let value = text.lines().find_map(|line| line.strip_prefix(&series));
        value.map_or(0, |value| value.parse().expect("a number"))
    }
}

fn question(name: &str, record_type: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(format!("{name}.")).expect("a name"), record_type));
    message
}

fn bytes(message: &Message) -> Vec<u8> {
    message.to_vec().expect("it can be written")
}

fn addresses(message: &Message) -> Vec<String> {
    message.answers.iter().filter_map(|record| record.data.ip_addr()).map(|ip| ip.to_string()).collect()
}

#[tokio::test]
async fn mesh_names_have_virtual_addresses_and_others_what_they_have_outside() {
    use RecordType::{A, AAAA, MX, TXT};
    use ResponseCode::{NXDomain, NoError};
    let server = NameServer::with(HOSTS).await;
    let folder = tempfile::tempdir().expect("a folder");
    let sources = server.host(folder.path(), "search demo.svc.cluster.local", "");
    let table: &[(&str, RecordType, ResponseCode, &[&str])] = &[
        ("payments.demo.mesh", A, NoError, &["240.240.0.7"]),
        ("Payments.Demo.Mesh", A, NoError, &["240.240.0.7"]),
        ("payments.demo.mesh", AAAA, NoError, &[]),
        ("payments.demo.mesh", TXT, NoError, &[]),
        ("six.demo.mesh", AAAA, NoError, &["fd00::7"]),
        ("six.demo.mesh", A, NoError, &[]),
        ("bare.demo.mesh", A, NoError, &[]),
        ("payments", A, NoError, &["240.240.0.7"]),
        ("payments.demo", A, NoError, &["240.240.0.7"]),
        ("payments.demo.svc.cluster.local", A, NoError, &["240.240.0.7"]),
        ("api.partner.test", A, NoError, &["240.240.0.8"]),
        ("nobody.demo.mesh", A, NXDomain, &[]),
        ("nobody.demo.mesh", AAAA, NXDomain, &[]),
        ("payments.demo.mesh.demo.svc.cluster.local", A, NXDomain, &[]),
    ];
    with_dns(sources, async |dns| {
        for (name, record_type, code, expected) in table {
            let answer = dns.ask(name, *record_type).await;
            assert_eq!(answer.response_code, *code, "{name} {record_type}");
            assert_eq!(addresses(&answer), *expected, "{name} {record_type}");
            assert!(answer.answers.iter().all(|record| record.ttl == 5));
        }
        assert!(server.asked().is_empty(), "nobody outside hears of the mesh's names");
        assert_eq!((dns.count("mesh"), dns.count("no-such-name")), (11, 3));
        // What the mesh does not know, or has no address for; and what is not about addresses.
        for (name, record_type, code, expected) in [
            ("example.com", A, NoError, &["10.0.0.1"][..]),
            ("example.com", AAAA, NoError, &[]),
            ("api.partner.test", MX, NXDomain, &[]),
            ("outside.demo.svc.cluster.local", A, NoError, &["10.0.0.2"]),
            ("nobody", A, NXDomain, &[]),
        ] {
            let answer = dns.ask(name, record_type).await;
            assert_eq!(answer.response_code, code, "{name} {record_type}");
            assert_eq!(addresses(&answer), expected, "{name} {record_type}");
        }
        assert_eq!((server.asked().len(), dns.count("forwarded")), (5, 5));
    })
    .await;
}

#[tokio::test]
async fn what_is_passed_on_is_not_changed() {
    // Says again what it heard, as an answer.
    let server = NameServer::start(|asked| {
        let mut answer = asked.bytes.clone();
        answer[2] |= 0x80;
        vec![answer]
    })
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    let mut with_options = question("ExAmple.org", RecordType::Unknown(65400));
    let mut edns = Edns::new();
    edns.set_max_payload(4000).set_dnssec_ok(true);
    edns.options_mut().insert(EdnsOption::Unknown(65001, vec![1, 2, 3]));
    assert!(edns.option(EdnsCode::Unknown(65001)).is_some());
    with_options.set_edns(edns);
    with_options.metadata.checking_disabled = true;
    let mut chaos = question("version.bind", RecordType::TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    let mut notify = question("example.org", RecordType::SOA);
    notify.metadata.op_code = OpCode::Notify;
    with_dns(server.host(folder.path(), "", ""), async |dns| {
        for asked in [with_options, chaos, notify] {
            let sent = bytes(&asked);
            let answer = dns.exchange(&sent).await;
            let mut expected = sent.clone();
            expected[2] |= 0x80;
            assert_eq!(answer, expected);
            let heard = server.asked().pop().expect("it was asked").bytes;
            assert_eq!(heard[2..], sent[2..], "all but the ID");
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_too_large_for_udp_says_so_and_comes_by_tcp() {
    let server = NameServer::with(HOSTS).await;
    let folder = tempfile::tempdir().expect("a folder");
    with_dns(server.host(folder.path(), "", ""), async |dns| {
        let truncated = dns.ask("large.example.org", RecordType::A).await;
        assert!(truncated.truncation && truncated.answers.is_empty());
        let mut stream = TcpStream::connect(dns.address).await.expect("it listens");
        // Several on one connection, sent together.
        let names = ["large.example.org", "payments.demo.mesh", "example.com"];
        let mut all = Vec::new();
        for name in names {
            let asked = bytes(&question(name, RecordType::A));
            all.extend((asked.len() as u16).to_be_bytes());
            all.extend(asked);
        }
        stream.write_all(&all).await.expect("it reads");
        for (name, count) in names.into_iter().zip([200, 1, 1]) {
            let mut answer = vec![0; stream.read_u16().await.expect("an answer").into()];
            stream.read_exact(&mut answer).await.expect("a whole answer");
            let answer = Message::from_vec(&answer).expect("well-formed");
            assert_eq!(answer.answers.len(), count, "{name}");
        }
        let by: Vec<By> = server.asked().iter().map(|asked| asked.by).collect();
        assert_eq!(by, [By::Udp, By::Tcp, By::Tcp], "as it came");
    })
    .await;
}

#[tokio::test]
async fn the_next_server_answers_for_one_that_fails_or_is_silent() {
    let broken = |asked: &crate::support::nameserver::Asked| {
        let message = Message::from_vec(&asked.bytes).expect("well-formed");
        match message.queries[0].name().to_ascii().starts_with("silent") {
            true => Vec::new(),
            false => vec![answer(&message, ResponseCode::ServFail, Vec::new())],
        }
    };
    let good = |asked: &crate::support::nameserver::Asked| {
        let message = Message::from_vec(&asked.bytes).expect("well-formed");
        match message.queries[0].name().to_ascii().starts_with("both") {
            true => vec![answer(&message, ResponseCode::ServFail, Vec::new())],
            false => vec![answer(&message, ResponseCode::NXDomain, Vec::new())],
        }
    };
    let first = NameServer::start(broken).await;
    let port = first.address.port();
    // All of 127/8 is this host. The third is nobody.
    let second = NameServer::start_at(SocketAddr::from(([127, 0, 0, 2], port)), good).await;
    let folder = tempfile::tempdir().expect("a folder");
    let more = "nameserver 127.0.0.3\nnameserver 127.0.0.2\noptions timeout:1 attempts:1";
    let sources = first.host(folder.path(), more, "");
    with_dns(sources, async |dns| {
        for name in ["fails.test.example", "silent.test.example"] {
            let began = Instant::now();
            let answer = dns.ask(name, RecordType::TXT).await;
            assert_eq!(answer.response_code, ResponseCode::NXDomain, "{name}");
            assert!(began.elapsed() < Duration::from_secs(3), "{name}: {:?}", began.elapsed());
        }
        // Where all fail, their failure is the answer.
        let answer = dns.ask("both.test.example", RecordType::TXT).await;
        assert_eq!(answer.response_code, ResponseCode::ServFail);
        assert_eq!((first.asked().len(), second.asked().len()), (3, 3));
        assert_eq!(dns.count("forwarded"), 3);
    })
    .await;
}

#[tokio::test]
async fn answers_to_something_else_are_not_passed_back() {
    let server = NameServer::start(|asked| {
        let message = Message::from_vec(&asked.bytes).expect("well-formed");
        let good = answer(&message, ResponseCode::NXDomain, Vec::new());
        let mut other_id = answer(&message, ResponseCode::NoError, Vec::new());
        other_id[0] ^= 1;
        let mut other_name = answer(&message, ResponseCode::NoError, Vec::new());
        other_name[13] = b'x';
        vec![other_id, other_name, asked.bytes.clone(), vec![1, 2, 3], good]
    })
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    with_dns(server.host(folder.path(), "", ""), async |dns| {
        let answer = dns.ask("example.org", RecordType::A).await;
        assert_eq!(answer.response_code, ResponseCode::NXDomain);
    })
    .await;
}

#[tokio::test]
async fn a_control_plane_that_is_away_slows_nobody_who_looks_outside() {
    let server = NameServer::with(HOSTS).await;
    let folder = tempfile::tempdir().expect("a folder");
    with_dns(server.host(folder.path(), "", ""), async |dns| {
        dns.speaks.send_replace(false);
        let timed = async |name: &str| {
            let began = Instant::now();
            (dns.ask(name, RecordType::A).await.response_code, began.elapsed())
        };
        // The first time, it may just be starting.
        let (code, took) = timed("example.com").await;
        assert_eq!(code, ResponseCode::NoError);
        assert!(took < Duration::from_secs(2), "{took:?}");
        for _ in 0..5 {
            let (code, took) = timed("example.com").await;
            assert_eq!(code, ResponseCode::NoError);
            assert!(took < Duration::from_millis(900), "{took:?}");
        }
        // Only the mesh can tell, so that nobody says that there is no such name.
        let (code, took) = timed("payments.demo.mesh").await;
        assert_eq!(code, ResponseCode::ServFail);
        assert!(took < Duration::from_secs(4), "{took:?}");
        assert_eq!(dns.count("failed"), 1);

        dns.speaks.send_replace(true);
        eventually("names of the mesh are answered for again", async || {
            (addresses(&dns.ask("payments", RecordType::A).await) == ["240.240.0.7"]).then_some(())
        })
        .await;
        // It waits again, now that it is worth it.
        dns.speaks.send_replace(false);
        let late = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            dns.speaks.send_replace(true);
        };
        let (answer, ()) = tokio::join!(dns.ask("payments.demo", RecordType::A), late);
        assert_eq!(addresses(&answer), ["240.240.0.7"]);
    })
    .await;
}

#[tokio::test]
async fn malformed_messages_are_told_or_dropped_and_harm_nobody() {
    let server = NameServer::with(HOSTS).await;
    let folder = tempfile::tempdir().expect("a folder");
    with_dns(server.host(folder.path(), "", ""), async |dns| {
        let mut two = bytes(&question("example.com", RecordType::A));
        two[5] = 2;
        let mut garbage = bytes(&question("payments.demo.mesh", RecordType::A));
        garbage[11] = 1;
        garbage.extend([0xff; 9]);
        for (what, malformed) in [("two questions", two), ("a record that is none", garbage)] {
            let said = Message::from_vec(&dns.exchange(&malformed).await).expect("well-formed");
            assert_eq!(said.response_code, ResponseCode::FormErr, "{what}");
        }
        let mut an_answer = bytes(&question("example.com", RecordType::A));
        an_answer[2] |= 0x80;
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        socket.connect(dns.address).await.expect("it is there");
        for dropped in [&b""[..], &b"short"[..], &an_answer] {
            socket.send(dropped).await.expect("it is there");
        }
        let good = bytes(&question("payments.demo.mesh", RecordType::A));
        socket.send(&good).await.expect("it is there");
        let mut first = [0; 512];
        soon("an answer", socket.recv(&mut first)).await.expect("it is there");
        assert_eq!(first[..2], good[..2], "the first answer is to the only question");
        assert_eq!((dns.count("malformed"), server.asked().len()), (5, 0));
        // A connection with such a message is closed.
        let mut stream = TcpStream::connect(dns.address).await.expect("it listens");
        stream.write_all(&[0, 3, 1, 2, 3]).await.expect("it reads");
        assert_eq!(soon("the end", stream.read(&mut first)).await.expect("an orderly end"), 0);
    })
    .await;
}

#[tokio::test]
async fn nobody_is_asked_where_the_only_server_is_this_one() {
    let server = NameServer::with(HOSTS).await;
    let folder = tempfile::tempdir().expect("a folder");
    let own = Some(server.address);
    let sources = Sources { own, ..server.host(folder.path(), "", "") };
    with_dns(sources, async |dns| {
        let answer = dns.ask("example.com", RecordType::A).await;
        assert_eq!(answer.response_code, ResponseCode::ServFail);
        assert!(server.asked().is_empty());
        assert_eq!(addresses(&dns.ask("payments", RecordType::A).await), ["240.240.0.7"]);
    })
    .await;
}

#[tokio::test]
async fn questions_beyond_the_bound_hear_so_at_once() {
    let server = NameServer::start(|_| Vec::new()).await;
    let folder = tempfile::tempdir().expect("a folder");
    with_dns(server.host(folder.path(), "", ""), async |dns| {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("a free port"));
        socket.connect(dns.address).await.expect("it is there");
        let asked = bytes(&question("silent.example.org", RecordType::TXT));
        let mut buffer = [0; 512];
        // A few at a time, since datagrams that come faster than they are read are lost.
        for _ in 0..512 {
            socket.send(&asked).await.expect("it is there");
            tokio::task::yield_now().await;
        }
        eventually("one is refused", async || {
            socket.send(&asked).await.expect("it is there");
            let answer = tokio::time::timeout(Duration::from_millis(50), socket.recv(&mut buffer)).await;
            let answer = Message::from_vec(&buffer[..answer.ok()?.expect("it is there")]);
            (answer.expect("well-formed").response_code == ResponseCode::ServFail).then_some(())
        })
        .await;
        assert!(dns.count("overload") > 0);
        // Nothing else fails before the deadline.
        assert_eq!(dns.count("failed"), 0);
    })
    .await;
}

#[tokio::test]
async fn both_loopback_addresses_have_one_port() {
    let server = NameServer::with(HOSTS).await;
    let folder = tempfile::tempdir().expect("a folder");
    with_dns(server.host(folder.path(), "", ""), async |dns| {
        assert_eq!(dns.address.ip(), IpAddr::from([127, 0, 0, 1]));
        let error = Sockets::bind(dns.address).expect_err("it is taken").to_string();
        assert!(error.starts_with("TCP: "), "{error}");
        let beside = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), dns.address.port());
        // Where there is no IPv6, nobody can ask by it.
        let Ok(socket) = UdpSocket::bind("[::1]:0").await else { return };
        socket.connect(beside).await.expect("it is there");
        let asked = bytes(&question("payments", RecordType::A));
        socket.send(&asked).await.expect("it is there");
        let mut answer = [0; 512];
        let length = soon("an answer", socket.recv(&mut answer)).await.expect("it is there");
        let answer = Message::from_vec(&answer[..length]).expect("well-formed");
        assert_eq!(addresses(&answer), ["240.240.0.7"]);
    })
    .await;
}

/// The real programs: a sidecar that is asked by a client of its own, and knows the mesh from the control plane.
#[tokio::test]
async fn a_sidecar_answers_for_the_services_of_its_mesh() {
    let mut mesh = Mesh::start().await;
    mesh.apply_service("payments", "http").await;
    let sidecar = mesh.sidecar(SidecarSpec::caller("client").flags(&["--dns-listen", "127.0.0.1:0"])).await;
    let address = sidecar.addresses.dns.expect("it answers");
    let server = NameServerConfig::new(
        address.ip(),
        true,
        [ConnectionConfig::udp(), ConnectionConfig::tcp()]
            .map(|mut way| {
                way.port = address.port();
                way
            })
            .into(),
    );
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
    let mut client = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    client.options_mut().cache_size = 0;
    let client = client.build().expect("a valid configuration");
    let lookup = async |name: &str| client.lookup_ip(name).await;

    // It may ask before the sidecar has its certificate.
    let found = lookup("payments.demo.mesh.").await.expect("an address");
    let virtual_address: IpAddr = found.iter().next().expect("an address");
    assert!(matches!(virtual_address, IpAddr::V4(v4) if v4.octets()[..2] == [240, 240]), "{virtual_address}");
    for name in ["payments.", "payments.demo.", "payments.demo.svc.cluster.local.", "PAYMENTS.demo.mesh."] {
        let found: Vec<IpAddr> = lookup(name).await.expect(name).iter().collect();
        assert_eq!(found, [virtual_address], "{name}");
    }
    assert!(lookup("nobody.demo.mesh.").await.expect_err("unknown").is_nx_domain());
    mesh.apply_service("later", "http").await;
    eventually("a new service has an address, although it had none", async || {
        lookup("later.demo.mesh.").await.ok()
    })
    .await;
    // What was said once is known also without the control plane.
    mesh.server().kill().await;
    let found: Vec<IpAddr> = lookup("payments.demo.mesh.").await.expect("an address").iter().collect();
    assert_eq!(found, [virtual_address]);
    let metrics = sidecar.metrics().await;
    assert!(metrics.sum("pillion_dns_queries_total", &[("outcome", "mesh")]) >= 7.0);
    assert!(metrics.sum("pillion_dns_queries_total", &[("outcome", "no-such-name")]) >= 1.0);
}

#[tokio::test]
async fn an_address_that_is_taken_is_told_with_all_others() {
    let mesh = Mesh::start().await;
    let sockets = Sockets::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("free ports");
    let taken = sockets.address().expect("they are bound").to_string();
    let output = tokio::process::Command::new(pillion_proxy())
        .args(["--workload", "client", "--join-token", "x", "--inbound-listen", "127.0.0.1:0"])
        .args(["--control-plane", &mesh.control_plane.to_string(), "--outbound-listen", "127.0.0.1:0"])
        .args(["--admin-listen", &taken, "--dns-listen", &taken])
        .output();
    let output = soon("it ends", output).await.expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains(&format!("adminListen {taken}: ")), "{said}");
    assert!(said.contains(&format!("dnsListen {taken}: TCP: ")), "{said}");
}
