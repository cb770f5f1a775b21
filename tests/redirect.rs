//! Redirection as the kernel does it: each test in network namespaces of its own, with each backend.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use pillion_proxy::net::original::{Kernel, OriginalDestination};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::support::PATIENCE;
use crate::support::mesh::pillion_proxy;

const BACKENDS: [&str; 2] = ["nft", "iptables"];
const SIDECAR_UID: u32 = 15000;
const EXIT_BAD_CONFIG: i32 = 78;
/// The namespace's own addresses, and those of the one next to it.
const HERE: [&str; 2] = ["10.99.0.1", "fd99::1"];
const THERE: [&str; 2] = ["10.99.0.2", "fd99::2"];
/// Somewhere behind it.
const BEYOND: [&str; 2] = ["203.0.113.9", "2001:db8:9::9"];

#[test]
fn udp_passes_by_and_is_counted() {
    for backend in BACKENDS {
        let (pod, next) = Namespace::pair();
        pod.redirect(&["--backend", backend, "--redirect-dns"]).works();
        let socket = |namespace: &Namespace, any| {
            namespace.inside(|| UdpSocket::bind(any)).expect("a free port of its own")
        };
        for (version, any) in ["0.0.0.0:0", "[::]:0"].into_iter().enumerate() {
            let ours = socket(&pod, any);
            // Nobody needs to be there. What is redirected, and what stays inside, does not pass by.
            for port in [123, 123, 53] {
                ours.send_to(b"packet", socket_address(THERE[version], port)).expect("there is a route");
            }
            ours.send_to(b"packet", socket_address(HERE[version], 123)).expect("it is our own");
            let theirs = socket(&next, any);
            theirs.send_to(b"packet", socket_address(HERE[version], 123)).expect("there is a route");
        }
        let said = pod.redirect(&["--check", "--redirect-dns"]).works();
        assert!(said.contains("UDP passed by: 4 packets sent, 2 received"), "{backend}: {said}");
    }
}

#[test]
fn rules_are_installed_checked_and_removed() {
    for backend in BACKENDS {
        let pod = Namespace::new();
        let redirect = |arguments: &[&str]| pod.redirect(&[&["--backend", backend], arguments].concat());
        assert!(redirect(&["--check"]).fails().contains("nothing is redirected"));
        redirect(&[]).works();
        let first = pod.rules();
        redirect(&[]).works();
        assert_eq!(pod.rules(), first, "{backend}: to do it again changes nothing");
        let said = redirect(&["--check"]).works();
        assert!(said.contains(backend), "{said}");
        // Whoever holds them is found.
        assert_eq!(pod.redirect(&["--check"]).works(), said);

        let wrong = redirect(&["--check", "--outbound-port", "1", "--inbound-port", "2"]).fails();
        for port in ["1", "2"] {
            let words =
                if backend == "nft" { format!("redirect to :{port}") } else { format!("--to-ports {port}`") };
            assert!(wrong.contains(&words), "{words} is not in {wrong}");
        }
        let alteration: &[&str] = match backend {
            "nft" => {
                &["nft", "insert", "rule", "inet", "pillion", "outbound", "meta", "skuid", "7", "return"]
            }
            _ => &[
                "iptables",
                "-t",
                "nat",
                "-I",
                "PILLION_OUTBOUND",
                "-m",
                "owner",
                "--uid-owner",
                "7",
                "-j",
                "RETURN",
            ],
        };
        pod.run(alteration, "").works();
        let altered = redirect(&["--check"]).fails();
        assert!(altered.contains('7') && altered.contains("not asked for"), "{altered}");
        if backend == "iptables" {
            pod.run(&["ip6tables", "-t", "nat", "-D", "OUTPUT", "-j", "PILLION_OUTBOUND"], "").works();
            let uncalled = redirect(&["--check"]).fails();
            assert!(uncalled.contains("IPv6: chain OUTPUT of table nat"), "{uncalled}");
        }
        redirect(&[]).works();
        redirect(&["--check"]).works();

        redirect(&["--remove"]).works();
        let left = pod.rules().to_lowercase();
        assert!(!left.contains("pillion"), "{backend}: {left}");
        redirect(&["--remove"]).works();
        assert!(redirect(&["--check"]).fails().contains("nothing is redirected"));
    }
}

#[test]
fn what_a_dry_run_prints_is_what_is_loaded() {
    let settings = [
        "--redirect-dns",
        "--proxy-uid=7",
        "--include-inbound-ports=80,8000-8999",
        "--exclude-outbound-ports=25",
        "--include-outbound-cidrs=10.0.0.0/8,192.168.1.1/32,::/0,2001:db8::/33",
        "--exclude-outbound-cidrs=0.0.0.0/0",
    ];
    for backend in BACKENDS {
        let pod = Namespace::new();
        let redirect = |arguments: &[&str]| {
            pod.redirect(&[&["--backend", backend], &settings as &[&str], arguments].concat())
        };
        let printed = redirect(&["--dry-run"]).works();
        assert!(!pod.rules().to_lowercase().contains("pillion"), "a dry run has loaded rules");
        match backend {
            "nft" => drop(pod.run(&["nft", "-f", "-"], &printed).works()),
            _ => {
                let (ipv4, ipv6) = printed.split_once("# ip6tables-restore").expect("both families");
                pod.run(&["iptables-restore", "--noflush"], ipv4).works();
                pod.run(&["ip6tables-restore", "--noflush"], &format!("#{ipv6}")).works();
            }
        }
        redirect(&["--check"]).works();
    }
}

#[test]
fn to_change_the_backend_removes_the_others_rules() {
    let pod = Namespace::new();
    assert!(pod.redirect(&["--check"]).fails().contains("nothing is redirected"));
    for (backend, other) in [("nft", "iptables"), ("iptables", "nft"), ("auto", "iptables")] {
        pod.redirect(&["--backend", backend]).works();
        pod.redirect(&["--check"]).works();
        assert!(pod.redirect(&["--check", "--backend", other]).fails().contains("nothing is redirected"));
    }
    assert!(pod.rules().contains("table inet pillion"), "auto prefers nft");
}

#[test]
fn where_nft_does_not_work_what_was_installed_is_what_is_checked() {
    let folder = tempfile::tempdir().expect("a folder");
    let nft = folder.path().join("nft");
    std::fs::write(&nft, "#!/bin/sh\necho no such kernel >&2\nexit 1\n").expect("written");
    std::fs::set_permissions(&nft, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    let path = format!("PATH={}:/usr/sbin:/usr/bin:/sbin:/bin", folder.path().display());
    let program = pillion_proxy().display().to_string();
    let pod = Namespace::new();
    let redirect =
        |arguments: &[&str]| pod.run(&[&["env", &path, &program, "redirect"], arguments].concat(), "");
    let nothing = redirect(&["--check"]).fails();
    assert!(nothing.contains("no such kernel"), "{nothing}");
    for said in [redirect(&[]).works(), redirect(&["--check"]).works()] {
        assert!(said.contains("redirected by iptables") && said.contains("no such kernel"), "{said}");
    }
    redirect(&["--check", "--backend", "iptables"]).works();
    // What else is not as asked is told together with it.
    let wrong = redirect(&["--check", "--outbound-port", "1"]).fails();
    assert!(wrong.contains("--to-ports 1`") && wrong.contains("no such kernel"), "{wrong}");
    assert!(redirect(&["--check", "--backend", "nft"]).fails().contains("no such kernel"));
}

#[test]
fn every_fault_of_the_settings_is_reported_at_once() {
    let run = |program: &mut Command| Ran(program.output().expect("the program is built"));
    let mut program = Command::new(pillion_proxy());
    program.args(["redirect", "--inbound-port", "0", "--exclude-outbound-cidrs", "10.0.0.1/8"]);
    let ran = run(program.env("PILLION_PROXY_UID", "root").env("PILLION_REDIRECT_BACKEND", "ebpf"));
    assert_eq!(ran.0.status.code(), Some(EXIT_BAD_CONFIG));
    let faults = ran.fails();
    for flag in ["--inbound-port", "--exclude-outbound-cidrs", "--proxy-uid", "--backend"] {
        assert!(faults.contains(flag), "{flag} is not in {faults}");
    }
    let mut program = Command::new(pillion_proxy());
    program.args(["redirect", "--dry-run"]).env("PILLION_REDIRECT_OUTBOUND_PORT", "777");
    assert!(run(&mut program).works().contains("redirect to :777"));
}

#[test]
fn what_is_opened_goes_to_the_sidecar() {
    for backend in BACKENDS {
        let (pod, next) = Namespace::pair();
        let excluded = ["--exclude-outbound-ports", "81", "--exclude-outbound-cidrs", "203.0.113.77/32"];
        pod.redirect(&[&["--backend", backend], &excluded as &[&str]].concat()).works();
        for (version, loopback) in ["127.0.0.1", "[::1]"].into_iter().enumerate() {
            let sidecar = pod.listen(&format!("{loopback}:15001"));
            let beyond = socket_address(BEYOND[version], 80);
            let _client = pod.connect(beyond).expect("the sidecar is there");
            assert_eq!(original(&sidecar), Some(beyond), "{backend}");
            // By the sidecar's own user: to where it says.
            let behind = next.listen(&socket_address(THERE[version], 80).to_string());
            pod.connect_as(SIDECAR_UID, behind.local_addr().expect("it is bound"));
            behind.accept().expect("the sidecar's own is left alone");
            let port = next.listen(&socket_address(THERE[version], 81).to_string());
            let _client = pod.connect(port.local_addr().expect("it is bound")).expect("its port is excluded");
            port.accept().expect("its port is excluded");
            // What stays inside, by whatever address.
            for own in [HERE[version], loopback.trim_matches(['[', ']'])] {
                let own = pod.listen(&socket_address(own, 8080).to_string());
                let _client = pod.connect(own.local_addr().expect("it is bound")).expect("it stays inside");
                assert_eq!(original(&own), None, "{backend}");
            }
        }
        let sidecar = pod.listen("127.0.0.1:15001");
        next.run(&["ip", "addr", "add", "203.0.113.77/32", "dev", "eth"], "").works();
        let behind = next.listen("203.0.113.77:80");
        let _client =
            pod.connect(behind.local_addr().expect("it is bound")).expect("its network is excluded");
        behind.accept().expect("its network is excluded");

        let included = ["--include-outbound-cidrs", "203.0.113.0/28", "--include-outbound-ports", "80,90-99"];
        pod.redirect(&[&["--backend", backend], &included as &[&str]].concat()).works();
        for (port, redirected) in [(80, true), (95, true), (100, false)] {
            let beyond = socket_address(BEYOND[0], port);
            let there = next.listen_beyond(beyond);
            let _client = pod.connect(beyond).expect("somebody is there");
            match redirected {
                true => assert_eq!(original(&sidecar), Some(beyond), "{backend}"),
                false => drop(there.accept().expect("it is not included")),
            }
        }
        let outside_of_it = socket_address("203.0.113.77", 80);
        let _client = pod.connect(outside_of_it).expect("it is not included");
        behind.accept().expect("it is not included");
    }
}

#[test]
fn what_arrives_goes_to_the_sidecar() {
    for backend in BACKENDS {
        let (pod, next) = Namespace::pair();
        pod.redirect(&["--backend", backend, "--exclude-inbound-ports", "22"]).works();
        for (version, any) in ["0.0.0.0", "[::]"].into_iter().enumerate() {
            let sidecar = pod.listen(&format!("{any}:15006"));
            let application = socket_address(HERE[version], 8080);
            let _client = next.connect(application).expect("the sidecar is there");
            assert_eq!(original(&sidecar), Some(application), "{backend}");
            // Another sidecar, which knows the port.
            let _client = next.connect(socket_address(HERE[version], 15006)).expect("it is listened on");
            assert_eq!(original(&sidecar), None, "{backend}");
            for port in [22, 15020] {
                let own = pod.listen(&socket_address(HERE[version], port).to_string());
                let _client =
                    next.connect(own.local_addr().expect("it is bound")).expect("it is listened on");
                assert_eq!(original(&own), None, "{backend}");
            }
            // Nobody outside speaks as this workload, not even by a detour.
            for port in [15001, 15053] {
                let refused = next.connect(socket_address(HERE[version], port));
                refused.expect_err("it is for this workload alone");
            }
        }
    }
}

#[test]
fn dns_goes_to_the_sidecar_where_that_is_asked_for() {
    for backend in BACKENDS {
        let (pod, _next) = Namespace::pair();
        pod.redirect(&["--backend", backend, "--redirect-dns"]).works();
        // 127.0.0.11 is Docker's.
        for (loopback, servers) in [("127.0.0.1", [THERE[0], "127.0.0.11"]), ("[::1]", [THERE[1], "::1"])] {
            let sidecar = pod.inside(|| UdpSocket::bind(format!("{loopback}:15053"))).expect("a free port");
            let over_tcp = pod.listen(&format!("{loopback}:15053"));
            sidecar.set_read_timeout(Some(PATIENCE)).expect("a socket");
            for server in servers {
                let server = socket_address(server, 53);
                let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let client = pod.inside(|| UdpSocket::bind(any)).expect("a free port");
                client.set_read_timeout(Some(PATIENCE)).expect("a socket");
                client.send_to(b"question", server).expect("there is a route");
                let mut buffer = [0; 16];
                let (length, from) = sidecar.recv_from(&mut buffer).expect("it is redirected");
                sidecar.send_to(&buffer[..length], from).expect("the client waits");
                let (_, answered_by) = client.recv_from(&mut buffer).expect("it is answered");
                assert_eq!(
                    answered_by, server,
                    "{backend}: the answer seems to come from where it was asked"
                );
                let _client = pod.connect(server).expect("it is redirected");
                assert_eq!(original(&over_tcp), Some(server), "{backend}");
            }
        }
    }
}

#[test]
fn stray_packets_are_not_answered() {
    for backend in BACKENDS {
        let (pod, next) = Namespace::pair();
        // Nobody listens on it, and nothing that it is sent is redirected.
        let port = "9";
        let raw = next.inside(|| {
            let (domain, tcp) = (socket2::Domain::IPV4, Some(socket2::Protocol::TCP));
            socket2::Socket::new(domain, socket2::Type::RAW, tcp)
        });
        let mut raw = raw.expect("raw sockets are for root");
        raw.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let here = socket_address(HERE[0], 0);
        // FIN alone is no packet of any connection; a kernel by itself answers with RST. What follows has its answer after.
        let mut answered = |first: u16| {
            for (source, flags) in [(first, FIN), (first + 1, SYN)] {
                raw.send_to(&segment(source, 9, flags), &here.into()).expect("it is sent");
            }
            let mut answers = Vec::new();
            while answers.last() != Some(&(first + 1)) {
                let mut packet = [0; 128];
                let length = raw.read(&mut packet).expect("a closed port answers a SYN");
                // Behind IP's header: to which port it goes.
                let tcp = &packet[usize::from(packet[0] & 15) * 4..length];
                answers.push(u16::from_be_bytes([tcp[2], tcp[3]]));
            }
            answers
        };
        assert_eq!(answered(40000), [40000, 40001], "without rules");
        pod.redirect(&["--backend", backend, "--exclude-inbound-ports", port]).works();
        assert_eq!(answered(40010), [40011], "{backend}: dropped");
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the program's answers are polled for")]
fn a_sidecar_that_is_bypassed_is_not_ready() {
    for backend in BACKENDS {
        let pod = Namespace::new();
        let started = pod.inside(|| {
            Command::new(pillion_proxy())
                .args(["--redirected", "--join-token", "none", "--workload", "w", "--health", "none"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
        });
        let _sidecar = Running(started.expect("the program is built"));
        let until = |words: &str| {
            let began = Instant::now();
            let mut answer = String::new();
            while !answer.contains(words) {
                assert!(began.elapsed() < PATIENCE, "{backend}: {words:?} is not in {answer:?}");
                answer = pod.get(socket_address("127.0.0.1", 15020), "/ready").unwrap_or_default();
                std::thread::sleep(Duration::from_millis(20));
            }
            answer
        };
        let bypassed = until("traffic is not redirected to this sidecar");
        assert!(bypassed.starts_with("HTTP/1.1 503"), "{bypassed}");
        for address in ["127.0.0.1:15002", "[::1]:15002", "pillion-proxy redirect"] {
            assert!(bypassed.contains(address), "{address} is not in {bypassed}");
        }
        let gauge = || pod.get(socket_address("127.0.0.1", 15020), "/metrics").expect("it is listened on");
        assert!(gauge().contains("\npillion_redirected 0"));
        // As a user whose connections are not left alone, it would call itself without end.
        pod.redirect(&["--backend", backend]).works();
        let looped = until("runs as user 0");
        assert!(looped.starts_with("HTTP/1.1 503") && looped.contains("--proxy-uid"), "{looped}");
        assert!(gauge().contains("\npillion_redirected 0"));
        pod.redirect(&["--backend", backend, "--proxy-uid", "0"]).works();
        let ready = until("\nready\n");
        assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
        assert!(gauge().contains("\npillion_redirected 1"));
    }
}

/// A program, ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;

/// A TCP segment from the neighbour to the pod.
fn segment(source: u16, destination: u16, flags: u8) -> Vec<u8> {
    let mut tcp = Vec::new();
    tcp.extend(source.to_be_bytes());
    tcp.extend(destination.to_be_bytes());
    tcp.extend([0, 0, 0, 1, 0, 0, 0, 0, 5 << 4, flags, 16, 0, 0, 0, 0, 0]);
    let addresses = [THERE[0], HERE[0]].map(|ip| ip.parse::<Ipv4Addr>().expect("IPv4").octets());
    // RFC 9293, 3.1: over a pseudo header of addresses, protocol and length.
    let pseudo = [addresses.concat(), vec![0, 6, 0, 20], tcp.clone()].concat();
    let mut sum: u32 = pseudo.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    tcp[16..18].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    tcp
}

fn socket_address(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().expect("an IP address"), port)
}

/// Accepts one connection; where it was going.
fn original(listener: &TcpListener) -> Option<SocketAddr> {
    let (stream, _) = listener.accept().expect("somebody connects");
    stream.set_nonblocking(true).expect("a socket");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    let _entered = runtime.enter();
    let stream = tokio::net::TcpStream::from_std(stream).expect("a socket");
    Kernel.of(&stream).expect("it is open")
}

/// What a program has said, and how it ended.
struct Ran(Output);

impl Ran {
    fn works(&self) -> String {
        assert!(self.0.status.success(), "{}: {}", self.0.status, String::from_utf8_lossy(&self.0.stderr));
        String::from_utf8_lossy(&self.0.stdout).trim().to_owned()
    }

    fn fails(&self) -> String {
        assert!(!self.0.status.success(), "it worked: {}", String::from_utf8_lossy(&self.0.stdout));
        String::from_utf8_lossy(&self.0.stderr).trim().to_owned()
    }
}

/// A network namespace, gone with the test.
struct Namespace(String);

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).output();
    }
}

impl Namespace {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        assert!(
            rustix::process::geteuid().is_root(),
            "network namespaces are for root: run this test as root"
        );
        let name =
            format!("pillion-redirect-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let made = Command::new("ip").args(["netns", "add", &name]).output();
        Ran(made.expect("`ip` is installed (Debian package iproute2)")).works();
        let namespace = Self(name);
        namespace.run(&["ip", "link", "set", "lo", "up"], "").works();
        namespace
    }

    /// Two that are joined; whatever one sends elsewhere goes to the other.
    fn pair() -> (Self, Self) {
        let (pod, next) = (Self::new(), Self::new());
        pod.run(&["ip", "link", "add", "eth", "type", "veth", "peer", "eth", "netns", &next.0], "").works();
        for (namespace, own, other) in [(&pod, HERE, THERE), (&next, THERE, HERE)] {
            for (own, bits) in own.iter().zip(["24", "64"]) {
                let address = format!("{own}/{bits}");
                namespace.run(&["ip", "addr", "add", &address, "dev", "eth", "nodad"], "").works();
            }
            namespace.run(&["ip", "link", "set", "eth", "up"], "").works();
            for gateway in other {
                let version = if gateway.contains(':') { "-6" } else { "-4" };
                namespace.run(&["ip", version, "route", "add", "default", "via", gateway], "").works();
            }
        }
        (pod, next)
    }

    /// Does `work` in here. A socket stays where it was made.
    fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let file = std::fs::File::open(Path::new("/run/netns").join(&self.0)).expect("it is there");
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("we are root");
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn run(&self, line: &[&str], input: &str) -> Ran {
        self.inside(|| {
            let mut child = Command::new(line[0])
                .args(&line[1..])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap_or_else(|error| panic!("{} (`make setup-tests` installs it): {error}", line[0]));
            let mut stdin = child.stdin.take().expect("it is piped");
            stdin.write_all(input.as_bytes()).expect("it reads");
            drop(stdin);
            Ran(child.wait_with_output().expect("it ends"))
        })
    }

    fn redirect(&self, arguments: &[&str]) -> Ran {
        let program = pillion_proxy();
        self.run(&[&[program.to_str().expect("a path in UTF-8"), "redirect"], arguments].concat(), "")
    }

    /// Everything that is loaded, without counts.
    fn rules(&self) -> String {
        let nft = self.run(&["nft", "--stateless", "list", "ruleset"], "").works();
        let saved = ["iptables-save", "ip6tables-save"].map(|program| self.run(&[program], "").works());
        let saved = saved.concat();
        let saved: Vec<&str> = saved.lines().filter(|line| !line.starts_with('#')).collect();
        nft + &saved.join("\n")
    }

    fn listen(&self, address: &str) -> TcpListener {
        let address: SocketAddr = address.parse().expect("an address");
        let bound = self.inside(|| {
            let domain = socket2::Domain::for_address(address);
            let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            if address.is_ipv6() {
                socket.set_only_v6(true)?;
            }
            // `accept` ends by it, too.
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.bind(&address.into())?;
            socket.listen(16)?;
            Ok::<_, std::io::Error>(socket.into())
        });
        bound.unwrap_or_else(|error| panic!("{address}: {error}"))
    }

    /// Listens on an address that this namespace may not have yet.
    fn listen_beyond(&self, address: SocketAddr) -> TcpListener {
        self.run(&["ip", "addr", "replace", &format!("{}/32", address.ip()), "dev", "eth"], "").works();
        self.listen(&address.to_string())
    }

    /// What is answered to a `GET`, whole; `None`: nobody answers.
    fn get(&self, address: SocketAddr, path: &str) -> Option<String> {
        let mut stream = self.connect(address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    fn connect(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        self.inside(|| TcpStream::connect_timeout(&address, PATIENCE))
    }

    /// Connects as a process of this user.
    fn connect_as(&self, uid: u32, address: SocketAddr) {
        let script = format!("exec 3<>/dev/tcp/{}/{}", address.ip(), address.port());
        let ran = self.inside(|| Command::new("bash").args(["-c", &script]).uid(uid).output());
        Ran(ran.expect("bash is installed")).works();
    }
}
