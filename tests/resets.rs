//! What broke arrives as broken: a reset as a reset, half an answer as half an answer, and never as a clean end.

use std::io::ErrorKind;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::support::apps::App;
use crate::support::mesh::{Mesh, SidecarSpec};
use crate::support::pair::Pair;
use crate::support::{eventually, raw, soon};

/// Reads until the connection ends; gives what came, and how it ended.
async fn rest(stream: &mut TcpStream) -> (String, std::io::Result<()>) {
    let mut bytes = Vec::new();
    let ended = soon("the end of a connection", stream.read_to_end(&mut bytes)).await;
    (String::from_utf8_lossy(&bytes).into_owned(), ended.map(|_| ()))
}

fn assert_reset(ended: std::io::Result<()>, what: &str) {
    let error = ended.expect_err(what);
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{what}");
}

#[tokio::test]
async fn a_tcp_reset_comes_through_both_sidecars_either_way() {
    // "reset": the application resets the connection. Anything else: it waits, and tells of how the connection ended.
    let (told, mut tells) = tokio::sync::mpsc::channel(8);
    let app = App::start(move |mut stream| {
        let told = told.clone();
        async move {
            let mut word = [0; 5];
            if stream.read_exact(&mut word).await.is_err() {
                return;
            }
            let _ = stream.write_all(b"heard").await;
            if &word == b"reset" {
                let _ = stream.read_u8().await;
                stream.set_zero_linger().expect("a socket has that option");
                return;
            }
            let _ = told.send(rest(&mut stream).await).await;
        }
    })
    .await;
    let mesh = Mesh::start().await;
    mesh.apply_service("app", "tcp").await;
    let callee = mesh.sidecar(SidecarSpec::serving("app-1", "app", app.address)).await;
    let caller = mesh.sidecar(SidecarSpec::caller("client").listener("app.demo:80")).await;
    mesh.until_ready(&[&caller, &callee]).await;
    caller.until_endpoints("app", 1).await;
    let listener = caller.addresses.listeners["app.demo:80"];
    let talk = async |word: &[u8; 5]| {
        let mut stream = TcpStream::connect(listener).await.expect("the listener is there");
        stream.write_all(word).await.expect("the tunnel is open");
        let mut heard = [0; 5];
        soon("an answer", stream.read_exact(&mut heard)).await.expect("the application answers");
        stream
    };

    let mut stream = talk(b"reset").await;
    stream.write_all(b"!").await.expect("the tunnel is open");
    let (more, ended) = rest(&mut stream).await;
    assert_eq!(more, "");
    assert_reset(ended, "the application's reset");

    let stream = talk(b"waits").await;
    stream.set_zero_linger().expect("a socket has that option");
    drop(stream);
    let (_, ended) = soon("the application hears of it", tells.recv()).await.expect("it tells");
    assert_reset(ended, "the client's reset");

    // And a clean end stays one.
    let mut stream = talk(b"waits").await;
    stream.shutdown().await.expect("one direction can be closed");
    let (_, ended) = soon("the application hears of it", tells.recv()).await.expect("it tells");
    ended.expect("a clean end");
    let (_, ended) = rest(&mut stream).await;
    ended.expect("a clean end");

    eventually("bytes of connections that broke are counted, too", async || {
        let sent = [("direction", "outbound"), ("target", "app.demo"), ("flow", "sent")];
        (caller.metrics().await.sum("pillion_opaque_bytes_total", &sent) >= 16.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_tcp_reset_comes_through_after_a_half_close_and_after_the_last_words() {
    // Less than what the system keeps of a connection that is not read from: more may be lost with it.
    const LAST_WORDS: usize = 50_000;
    // "tells": it reads to the end, and tells of what comes after it. "fed up": it says much, and is gone, whatever comes.
    let (told, mut tells) = tokio::sync::mpsc::channel(8);
    let app = App::start(move |mut stream| {
        let told = told.clone();
        async move {
            let mut word = [0; 6];
            if stream.read_exact(&mut word).await.is_err() {
                return;
            }
            if &word == b"fed up" {
                let _ = stream.write_all(&[b'w'; LAST_WORDS]).await;
                // Late, and with something there that is unread: that makes it a reset.
                let _ = stream.read_exact(&mut [0; 4096]).await;
                let _ = stream.peek(&mut [0; 1]).await;
                return;
            }
            let _ = stream.write_all(b"heard").await;
            let end = rest(&mut stream).await.1;
            let _ = stream.write_all(b"ended").await;
            let reset = stream.ready(tokio::io::Interest::ERROR).await;
            let _ = told.send(end.and(reset.map(|ready| ready.is_error()))).await;
        }
    })
    .await;
    let mesh = Mesh::start().await;
    mesh.apply_service("app", "tcp").await;
    let callee = mesh.sidecar(SidecarSpec::serving("app-1", "app", app.address)).await;
    let caller = mesh.sidecar(SidecarSpec::caller("client").listener("app.demo:80")).await;
    mesh.until_ready(&[&caller, &callee]).await;
    caller.until_endpoints("app", 1).await;
    let listener = caller.addresses.listeners["app.demo:80"];
    let connect = async || TcpStream::connect(listener).await.expect("the listener is there");

    let mut stream = connect().await;
    stream.write_all(b"tells!").await.expect("the tunnel is open");
    stream.shutdown().await.expect("one direction can be closed");
    let mut heard = [0; 10];
    soon("an answer", stream.read_exact(&mut heard)).await.expect("the application answers");
    assert_eq!(&heard, b"heardended", "the application has seen the end");
    stream.set_zero_linger().expect("a socket has that option");
    drop(stream);
    let reset = soon("the application hears of it", tells.recv()).await.expect("it tells");
    assert!(reset.expect("a clean end, first"), "the client's reset");

    let (mut read, mut write) = connect().await.into_split();
    // More than is on its way at a time: a sidecar waits for the application to take it, and then hears that it never will.
    let sending = tokio::spawn(async move {
        let _ = write.write_all(b"fed up").await;
        while write.write_all(&[b'r'; 64 * 1024]).await.is_ok() {}
        write
    });
    let mut words = Vec::new();
    let ended = soon("the end of a connection", read.read_to_end(&mut words)).await;
    assert_eq!(words.len(), LAST_WORDS);
    assert_reset(ended.map(|_| ()), "the application's reset");
    soon("the end of what nobody takes", sending).await.expect("no panic");
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_cut_off_for_the_caller() {
    let answers = [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n100\r\n",
        // Until the connection ends: only a reset tells that it has not.
        "HTTP/1.1 200 OK\r\n\r\n",
    ];
    for answer in answers {
        for version in ["1.1", "1.0"] {
            let seen = Arc::new(Notify::new());
            let breaks = Arc::clone(&seen);
            let app = App::start(move |mut stream| {
                let seen = Arc::clone(&breaks);
                async move {
                    let mut head = [0; 4096];
                    let _ = stream.read(&mut head).await;
                    let _ = stream.write_all(format!("{answer}begin").as_bytes()).await;
                    seen.notified().await;
                    stream.set_zero_linger().expect("a socket has that option");
                }
            })
            .await;
            let pair = Pair::around(app.address, "http").await;
            let request = format!("GET / HTTP/{version}\r\nhost: app.demo.mesh\r\n\r\n");
            let mut stream = raw::begin(pair.caller.outbound(), &request).await;
            let mut begun = Vec::new();
            while !begun.ends_with(b"begin") && !begun.ends_with(b"begin\r\n") {
                let read = soon("the beginning of an answer", stream.read_buf(&mut begun)).await;
                assert!(read.expect("it begins well") > 0, "{answer}");
            }
            seen.notify_one();
            let (more, ended) = rest(&mut stream).await;
            assert_eq!(more, "", "{answer}");
            assert_reset(ended, answer);
        }
    }
}

#[tokio::test]
async fn an_early_answer_arrives_though_the_upload_goes_on() {
    const UPLOAD: usize = 64 << 20;
    // It has heard enough, and does not read to the end: its connection ends with a reset.
    let app = App::scripted(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 9\r\n\r\ntoo large").await;
    let pair = Pair::around(app.address, "http").await;
    let stream = TcpStream::connect(pair.caller.outbound()).await.expect("the sidecar listens");
    let (mut read, mut write) = stream.into_split();
    let uploading = tokio::spawn(async move {
        let head = format!("POST / HTTP/1.1\r\nhost: app.demo.mesh\r\ncontent-length: {UPLOAD}\r\n\r\n");
        let mut ended = write.write_all(head.as_bytes()).await;
        let piece = vec![b'u'; 64 * 1024];
        for _ in 0..UPLOAD / piece.len() {
            if ended.is_ok() {
                ended = write.write_all(&piece).await;
            }
        }
        (write, ended)
    });
    let mut answer = vec![0; 16 * 1024];
    let mut length = 0;
    soon("the early answer", async {
        while !answer[..length].ends_with(b"too large") {
            let more = read.read(&mut answer[length..]).await.expect("no reset before the answer");
            assert!(more > 0, "{}", String::from_utf8_lossy(&answer[..length]));
            length += more;
        }
    })
    .await;
    let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
    assert_eq!(raw::status(&answer), 413, "{answer}");
    // The rest is not taken in.
    soon("the end of the upload", uploading).await.expect("no panic").1.expect_err("nobody reads all of it");
}

#[tokio::test]
async fn who_asks_first_is_told_by_the_application_and_may_keep_the_upload() {
    let app = App::scripted(b"HTTP/1.1 417 Expectation Failed\r\ncontent-length: 2\r\n\r\nno").await;
    let pair = Pair::around(app.address, "http").await;
    let request =
        "POST / HTTP/1.1\r\nhost: app.demo.mesh\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n";
    let mut stream = raw::begin(pair.caller.outbound(), request).await;
    let (answer, ended) = rest(&mut stream).await;
    ended.expect("a clean end");
    assert_eq!((raw::status(&answer), raw::body(&answer)), (417, "no"), "no `100 Continue` before: {answer}");
}
