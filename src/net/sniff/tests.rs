//! First bytes of either side, as they may come.

use proptest::prelude::*;
use tokio::io::AsyncWriteExt;

use super::*;

const PATIENCE: Patience = Patience { silent: Some(Duration::from_secs(5)), partial: Duration::from_secs(5) };

#[test]
fn first_bytes() {
    let table: &[(&[u8], Option<Detected>)] = &[
        (b"", None),
        (b"GET", None),
        (b"GET /", None),
        (b"GET / HTTP/1.1\r\n", Some(Detected::Http1)),
        (b"\r\nGET / HTTP/1.1\r\n", Some(Detected::Http1)),
        (b"GET\t/ HTTP/1.1\r\n", Some(Detected::Http1)),
        (b"G_3T / HTTP/1.1\r\n", Some(Detected::Http1)),
        (b"get /key\r\n", Some(Detected::Opaque)),
        (b"GET http://x/ HTTP/1.1\r\n", Some(Detected::Http1)),
        (b"CONNECT a:1 HTTP/1.1\r\n", Some(Detected::Http1)),
        (b"OPTIONS * HTTP/1.1\r\n", Some(Detected::Http1)),
        (b"M-SEARCH * HTTP/1.1\r\n", Some(Detected::Http1)),
        (b"PRI * HT", None),
        (PREFACE, Some(Detected::Http2)),
        (b"PRI * HTTP/3.0\r\n\r\nSM\r\n\r\n", Some(Detected::Http2)),
        (b"PRIVATE /x HTTP/1.1\r\n", Some(Detected::Http1)),
        (b"\x16", None),
        (b"\x16\x03\x01", Some(Detected::Tls)),
        (b"\x00\x00", Some(Detected::Opaque)),
        (b"*1\r\n$4\r\nPING\r\n", Some(Detected::Opaque)),
        (b"PING\r\n", Some(Detected::Opaque)),
        (b"EHLO example.com\r\n", Some(Detected::Opaque)),
        (b"SET key value\r\n", Some(Detected::Opaque)),
        (b"\r\n", None),
        (&[b'\n'; 40], Some(Detected::Opaque)),
    ];
    for (bytes, expected) in table {
        assert_eq!(decide(bytes), *expected, "{:?}", String::from_utf8_lossy(bytes));
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_read_is_read_again() {
    let (mut peer, io) = tokio::io::duplex(64);
    peer.write_all(b"GET /x HTTP/1.1\r\n").await.expect("room");
    drop(peer);
    let (detected, mut io) = sniff(io, PATIENCE).await.expect("readable");
    assert_eq!(detected, Detected::Http1);
    let mut all = String::new();
    io.read_to_string(&mut all).await.expect("readable");
    assert_eq!(all, "GET /x HTTP/1.1\r\n");
}

#[tokio::test(start_paused = true)]
async fn silence_is_undecided_and_an_end_is_nothing() {
    let (peer, io) = tokio::io::duplex(64);
    let (detected, _io) = sniff(io, PATIENCE).await.expect("no error");
    assert_eq!(detected, Detected::Undecided);
    drop(peer);
    let (peer, io) = tokio::io::duplex(64);
    drop(peer);
    assert_eq!(sniff(io, PATIENCE).await.expect("no error").0, Detected::Nothing);
}

#[tokio::test(start_paused = true)]
async fn a_truncated_preface_is_http2() {
    let (mut peer, io) = tokio::io::duplex(64);
    peer.write_all(b"PRI * HTTP/2.0\r\n").await.expect("room");
    drop(peer);
    assert_eq!(sniff(io, PATIENCE).await.expect("no error").0, Detected::Http2);
}

#[tokio::test(start_paused = true)]
async fn early_connections_may_speak_late() {
    let (mut peer, io) = tokio::io::duplex(64);
    let late = async {
        tokio::time::sleep(Duration::from_secs(3600)).await;
        peer.write_all(b"GE").await.expect("room");
        peer
    };
    let patience = Patience { silent: None, ..PATIENCE };
    let began = tokio::time::Instant::now();
    let (sniffed, _peer) = tokio::join!(sniff(io, patience), late);
    assert_eq!(sniffed.expect("no error").0, Detected::Undecided);
    assert_eq!(began.elapsed(), Duration::from_secs(3605), "a beginning must go on in time");
}

const EARLY: Duration = Duration::from_millis(10);

#[tokio::test(start_paused = true)]
async fn the_server_speaks_first_without_delay() {
    let (_client, io) = tokio::io::duplex(64);
    let (mut server, upstream) = tokio::io::duplex(64);
    let began = tokio::time::Instant::now();
    server.write_all(b"220 ready\r\n").await.expect("room");
    let open = async { Ok::<_, ()>(upstream) };
    let Spoken::Server(_, mut upstream) = either(io, PATIENCE, EARLY, open).await.expect("no error") else {
        panic!("the server spoke")
    };
    assert_eq!(began.elapsed(), EARLY);
    let mut greeting = [0; 11];
    upstream.read_exact(&mut greeting).await.expect("what was read is read again");
    assert_eq!(&greeting, b"220 ready\r\n");
}

#[tokio::test(start_paused = true)]
async fn a_server_of_http2_leaves_the_first_word_to_the_client() {
    for settings in [&b"\0\0\0\x04\0\0\0\0\0"[..], b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64"] {
        let (mut client, io) = tokio::io::duplex(64);
        let (mut server, upstream) = tokio::io::duplex(64);
        server.write_all(settings).await.expect("room");
        let late = async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            client.write_all(PREFACE).await.expect("room");
        };
        let patience = Patience { silent: None, ..PATIENCE };
        let open = async { Ok::<_, ()>(upstream) };
        let (spoken, ()) = tokio::join!(either(io, patience, EARLY, open), late);
        assert!(matches!(spoken, Ok(Spoken::Client(Detected::Http2, ..))));
    }
    assert!(!is_settings(b"220 ready\r\n") && !is_settings(b"\x4a\0\0\0\x0a8.0.36"), "SMTP, MySQL");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_speaks_at_once_costs_no_connection() {
    let (mut client, io) = tokio::io::duplex(64);
    client.write_all(b"GET / HTTP/1.1\r\n").await.expect("room");
    let open = async { panic!("opened") as Result<tokio::io::DuplexStream, ()> };
    let spoken = either(io, PATIENCE, EARLY, open).await.expect("no error");
    assert!(matches!(spoken, Spoken::Client(Detected::Http1, _, None)));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_speaks_later_decides_and_finds_the_server_open() {
    let (mut client, io) = tokio::io::duplex(64);
    let (_server, upstream) = tokio::io::duplex(64);
    let late = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        client.write_all(b"\x00\x01").await.expect("room");
    };
    let open = async { Ok::<_, ()>(upstream) };
    let (spoken, ()) = tokio::join!(either(io, PATIENCE, EARLY, open), late);
    let Spoken::Client(Detected::Opaque, io, Some(_)) = spoken.expect("no error") else {
        panic!("the client spoke")
    };
    assert_eq!(&io.prefix()[..], b"\x00\x01");
}

#[tokio::test(start_paused = true)]
async fn where_nobody_answers_the_client_may_yet_speak_but_not_wait_for_ever() {
    let (client, io) = tokio::io::duplex(64);
    let refused = || async { Err::<tokio::io::DuplexStream, _>("closed") };
    let patience = Patience { silent: None, ..PATIENCE };
    for (early, waited) in [(EARLY, EARLY + PATIENCE.partial), (Duration::ZERO, Duration::ZERO)] {
        let began = Instant::now();
        let (_client, io) = tokio::io::duplex(64);
        let spoken = either(io, patience, early, refused()).await.expect("no error");
        assert!(matches!(spoken, Spoken::Nobody(_, "closed")));
        assert!(began.elapsed() <= waited + Duration::from_millis(1), "{:?}", began.elapsed());
    }
    drop((client, io));
    let (_client, io) = tokio::io::duplex(64);
    let (server, upstream) = tokio::io::duplex(64);
    drop(server);
    let ended = either(io, PATIENCE, EARLY, async { Ok::<_, ()>(upstream) }).await.expect("no error");
    assert!(matches!(ended, Spoken::Server(..)), "a server that hangs up has decided");
}

proptest! {
    #[test]
    fn more_bytes_never_change_a_decision(bytes in "(\r\n)?(GET|PRI|ok|\\*1)?[ \t/*\r\nA-Z.0-9]{0,40}".prop_map(String::into_bytes)) {
        let mut decided = None;
        for end in 1..=bytes.len() {
            let now = decide(&bytes[..end]);
            if decided.is_some() { prop_assert_eq!(now, decided); }
            decided = now;
        }
    }
}
