//! Whoever collects log lines may stop doing so: nobody who is served notices.

use std::path::Path;
use std::process::Stdio;

use pillion::demo::sidecar::Addresses;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};

use crate::support::mesh::{pillion, pillion_proxy};
use crate::support::{eventually, raw};

/// A pipe that takes nothing any more, as nobody reads from it. It does once the other end is dropped, by an error.
pub(crate) fn full_pipe() -> (Stdio, pipe::Receiver) {
    let (sender, receiver) = pipe::pipe().expect("a pipe");
    while sender.try_write(&[b'.'; 4096]).is_ok() {}
    while sender.try_write(b".").is_ok() {}
    (sender.into_blocking_fd().expect("a descriptor").into(), receiver)
}

fn start(program: &Path, folder: &Path, arguments: &[&str]) -> (Child, pipe::Receiver) {
    let (log, reader) = full_pipe();
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    (command.kill_on_drop(true).spawn().expect("the program starts"), reader)
}

pub(crate) async fn written<T: serde::de::DeserializeOwned>(file: &Path) -> T {
    eventually("a file that says where a program listens", async || {
        serde_json::from_slice(&std::fs::read(file).ok()?).ok()
    })
    .await
}

#[tokio::test]
async fn a_control_plane_answers_though_nobody_takes_its_log_lines() {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct File {
        http_address: std::net::SocketAddr,
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let listen = ["--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"];
    let arguments = [&["server", "--data-dir", "data", "--log-level", "trace"][..], &listen].concat();
    let (_server, _reader) = start(&pillion(), folder.path(), &arguments);
    let file: File = written(&folder.path().join("data/server.json")).await;
    let answer = raw::exchange(file.http_address, &raw::get("localhost", "/metrics")).await;
    assert_eq!(raw::status(&answer), 200, "{answer}");
}

#[tokio::test]
async fn a_sidecar_serves_though_nobody_takes_its_log_lines() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let arguments = [
        &["--control-plane", "127.0.0.1:1", "--workload", "app-1", "--join-token", "secret"][..],
        &["--log-level", "trace", "--log-format", "json", "--addresses-file", "addresses.json"],
        &[
            "--inbound-listen",
            "127.0.0.1:0",
            "--outbound-listen",
            "127.0.0.1:0",
            "--admin-listen",
            "127.0.0.1:0",
        ],
        &["--discovery-timeout", "100ms"],
    ]
    .concat();
    let (_sidecar, _reader) = start(&pillion_proxy(), folder.path(), &arguments);
    let addresses: Addresses = written(&folder.path().join("addresses.json")).await;
    for _ in 0..3 {
        let answer = raw::exchange(addresses.admin, &raw::get("localhost", "/live")).await;
        assert_eq!(raw::status(&answer), 200, "{answer}");
        // Each is refused, with a line that says so.
        let answer = raw::exchange(addresses.outbound, &raw::get("payments.demo.mesh", "/")).await;
        assert!(!raw::refusal(&answer).is_empty(), "{answer}");
    }
}
