//! Much of something, with a sidecar that stays small: gigabytes of bodies, and ten thousand connections.

use std::net::SocketAddr;
use std::time::Duration;

use pillion::demo::network::Place;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::apps::{HttpApp, Version};
use crate::support::eventually;
use crate::support::netns::{Workload, WorkloadSpec, World, connect, in_world, listen_on};

const MIB: u64 = 1024 * 1024;

/// A caller and a callee of the service `web`.
async fn pair(world: &World, web: Place) -> (Workload, Workload) {
    world.mesh.apply_service("web", "http").await;
    let callee = world.workload(web, WorkloadSpec::serving("web-1", "web", &[8080])).await;
    let caller = world.workload(world.place("client"), WorkloadSpec::caller("client")).await;
    world.until_registered(&[&caller, &callee]).await;
    caller.until_endpoints("web", 1).await;
    (caller, callee)
}

#[test]
fn a_gibibyte_each_way_takes_no_memory() {
    const LENGTH: u64 = 1024 * MIB;
    const MOST: u64 = 40 * MIB;
    in_world(async |world| {
        let web = world.place("web");
        let app = HttpApp::on(listen_on(&web, 8080), "web", Version::Http1);
        let (caller, callee) = pair(world, web).await;

        let download = ["-o", "/dev/null", "-w", "%{size_download}", &format!("http://web/bytes/{LENGTH}")]
            .map(String::from);
        // No Content-Length: what curl reads from a pipe goes out in chunks.
        let upload = format!("head -c {LENGTH} /dev/zero | curl -sS --upload-file - http://web/sum");
        let patience = Duration::from_secs(100);
        let download: Vec<&str> = ["-sS"].into_iter().chain(download.iter().map(String::as_str)).collect();
        let down = world.run_within(patience, &caller, "curl", &download).await;
        let up = world.run_within(patience, &caller, "sh", &["-c", &upload]).await;
        for (way, ran) in [("down", down), ("up", up)] {
            assert!(ran.succeeded && ran.output == LENGTH.to_string(), "{way}: {ran:?}");
        }
        assert_eq!(app.produced(), LENGTH);
        for sidecar in [&caller, &callee] {
            let peak = sidecar.peak_memory();
            println!("1 GiB down and up: {} had {:.1} MiB at most", sidecar.name, peak as f64 / MIB as f64);
            assert!(peak < MOST, "{}: {peak} bytes", sidecar.name);
        }
    });
}

/// Sends a request on a connection that stays open, and reads its whole answer.
async fn ask(stream: &mut TcpStream) {
    stream.write_all(b"GET /who HTTP/1.1\r\nhost: web\r\n\r\n").await.expect("the connection is open");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nweb") {
        let length = stream.read_buf(&mut answer).await.expect("the connection is open");
        assert!(length > 0, "it was closed after {:?}", String::from_utf8_lossy(&answer));
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&answer));
}

#[test]
fn ten_thousand_idle_connections_take_little_and_stay() {
    const CONNECTIONS: usize = 10_000;
    /// At a time; the service's own default limit is 1,024 requests.
    const ASKING: usize = 100;
    const MOST_EACH: u64 = 8 * 1024;
    in_world(async |world| {
        // Ours, and so the sidecar's, who inherits it.
        let limit = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: limit })
            .expect("up to that anybody may");
        let enough = limit.is_none_or(|limit| limit > CONNECTIONS as u64 + 1000);
        assert!(enough, "this test needs more than {limit:?} files: see `ulimit -Hn`");
        let web = world.place("web");
        let _app = HttpApp::on(listen_on(&web, 8080), "web", Version::Http1);
        let (caller, _callee) = pair(world, web).await;
        let to: SocketAddr = (world.virtual_address("web").await, 80).into();
        // What the first connections need, all later ones share.
        let mut open = connected(&caller, to, ASKING).await;
        let before = caller.resident_memory();
        while open.len() < CONNECTIONS {
            open.extend(connected(&caller, to, ASKING).await);
        }
        eventually("all are open", async || {
            let count = caller.count("pillion_connections_open", &[("direction", "outbound")]).await;
            (count >= CONNECTIONS as f64).then_some(())
        })
        .await;
        let each = (caller.resident_memory() - before) / (CONNECTIONS - ASKING) as u64;
        println!(
            "an idle connection takes {each} bytes; the sidecar has {:.1} MiB",
            caller.resident_memory() as f64 / MIB as f64
        );
        assert!(each < MOST_EACH, "{each} bytes");
        for stream in open.iter_mut().step_by(CONNECTIONS / 100) {
            ask(stream).await;
        }
        drop(open);
        eventually("all are closed", async || {
            let count = caller.count("pillion_connections_open", &[("direction", "outbound")]).await;
            (count == 0.0).then_some(())
        })
        .await;
    });
}

/// So many connections, each of which has had an answer.
async fn connected(caller: &Place, to: SocketAddr, count: usize) -> Vec<TcpStream> {
    let connections = (0..count).map(async |_| {
        let mut stream = connect(caller, to).await.expect("the sidecar accepts");
        ask(&mut stream).await;
        stream
    });
    futures_util::future::join_all(connections).await
}
