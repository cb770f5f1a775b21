//! Kept connections, and what happens to requests that they turn out not to take.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::{block_on, content, timeline};
use crate::{
    error::{Reason, Refusal},
    http::{
        Body, NoInterim, Version,
        client::{Client, Connect, Failure},
    },
    net::io::Io,
};

/// Connections to scripted callees, in this order.
struct ToScripts {
    prepared: RefCell<VecDeque<DuplexStream>>,
    connected: Cell<usize>,
}

impl Connect for ToScripts {
    async fn connect(&self, _: Version) -> Result<Io, Refusal> {
        self.connected.set(self.connected.get() + 1);
        let prepared = self.prepared.borrow_mut().pop_front();
        prepared.map(|io| Io::Tunnel(Box::new(io))).ok_or_else(|| Reason::Connect.into())
    }
}

const IDLE: Duration = Duration::from_secs(4);

/// A client whose next connections lead to these peers.
fn client(connections: usize) -> (Client<ToScripts>, Vec<DuplexStream>) {
    let pipes = (0..connections).map(|_| tokio::io::duplex(1 << 16));
    let (peers, prepared): (Vec<_>, VecDeque<_>) = pipes.unzip();
    let connector = ToScripts { prepared: RefCell::new(prepared), connected: Cell::default() };
    (Client::new(connector, IDLE), peers)
}

/// Reads what has come, and answers it.
async fn answer(peer: &mut DuplexStream) {
    let mut buffer = [0; 4096];
    let length = peer.read(&mut buffer).await.expect("a request");
    assert!(length > 0, "the connection has ended");
    peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.expect("it is open");
}

async fn call(client: &Client<ToScripts>, method: Method, body: Body) -> Result<String, Failure> {
    let request = Request::builder().method(method).uri("/").header("host", "a").body(body).expect("valid");
    Ok(content(client.send(request, Version::Http1, &NoInterim, &timeline()).await?.into_body()).await)
}

#[test]
fn one_connection_carries_many_requests_until_it_has_been_idle_for_too_long() {
    block_on(async {
        let (client, mut peers) = client(2);
        for _ in 0..3 {
            let (called, ()) = tokio::join!(call(&client, Method::GET, Body::Empty), answer(&mut peers[0]));
            assert_eq!(called.expect("an answer"), "ok");
        }
        assert_eq!(client.connector().connected.get(), 1);
        assert!(client.is_connected(Version::Http1));
        tokio::time::advance(IDLE).await;
        client.sweep();
        assert!(!client.is_connected(Version::Http1));
    });
}

#[test]
fn a_connection_that_was_ended_while_it_was_idle_is_replaced() {
    block_on(async {
        let (client, mut peers) = client(2);
        let (first, ()) = tokio::join!(call(&client, Method::GET, Body::Empty), answer(&mut peers[0]));
        first.expect("an answer");
        drop(peers.remove(0));
        let body = Body::Full(Bytes::from_static(b"precious"));
        let (second, ()) = tokio::join!(call(&client, Method::POST, body), answer(&mut peers[0]));
        assert_eq!(second.expect("an answer"), "ok");
        assert_eq!(client.connector().connected.get(), 2);
    });
}

#[test]
fn a_request_that_ends_with_its_kept_connection_goes_once_more_where_that_is_harmless() {
    for (method, body, again) in [
        (Method::GET, Body::Empty, true),
        (Method::POST, Body::Empty, false),
        (Method::PUT, Body::Full(Bytes::from_static(b"x")), false),
    ] {
        block_on(async {
            let (client, mut peers) = client(2);
            let (first, ()) = tokio::join!(call(&client, Method::GET, Body::Empty), answer(&mut peers[0]));
            first.expect("an answer");
            let mut kept = peers.remove(0);
            let script = async {
                // It has taken the request, and nobody knows what came of it.
                kept.read_u8().await.expect("a request");
                drop(kept);
                if again {
                    answer(&mut peers[0]).await;
                }
            };
            let (second, ()) = tokio::join!(call(&client, method, body), script);
            match second {
                Ok(text) => assert!(again && text == "ok"),
                Err(failure) => {
                    assert!(!again && failure.unsent.is_none(), "{failure:?}");
                    assert_eq!(failure.refusal.reason, Reason::Reset);
                }
            }
        });
    }
}

/// Reads a request, and ends the connection.
async fn read_and_end(mut peer: DuplexStream) {
    peer.read_u8().await.expect("a request");
}

#[test]
fn what_ends_a_fresh_connection_too_is_not_sent_a_third_time() {
    block_on(async {
        let (client, mut peers) = client(3);
        let (first, ()) = tokio::join!(call(&client, Method::GET, Body::Empty), answer(&mut peers[0]));
        first.expect("an answer");
        let mut third = peers.pop().expect("three");
        let script = async {
            for peer in peers {
                read_and_end(peer).await;
            }
        };
        let (failed, ()) = tokio::join!(call(&client, Method::GET, Body::Empty), script);
        let failure = failed.expect_err("nobody answers");
        assert!(failure.refusal.reason == Reason::Reset && failure.unsent.is_none(), "{failure:?}");
        // That it is still there was asked; the connection is kept for what comes next.
        assert_eq!(client.connector().connected.get(), 3);
        let (next, ()) = tokio::join!(call(&client, Method::GET, Body::Empty), answer(&mut third));
        assert_eq!(next.expect("an answer"), "ok");
        assert_eq!(client.connector().connected.get(), 3);
    });
}

#[test]
fn one_that_is_gone_after_a_reset_is_told_as_gone() {
    block_on(async {
        let (client, mut peers) = client(1);
        let peer = peers.remove(0);
        let (failed, ()) = tokio::join!(call(&client, Method::GET, Body::Empty), read_and_end(peer));
        let failure = failed.expect_err("nobody answers");
        assert!(failure.refusal.reason == Reason::Connect && failure.unsent.is_some(), "{failure:?}");
    });
}

#[test]
fn what_has_been_answered_in_part_is_not_sent_again() {
    for part in ["HTTP/1.1 2", "HTTP/1.1 103 Early Hints\r\n\r\n"] {
        block_on(async {
            let (client, mut peers) = client(2);
            let (first, ()) = tokio::join!(call(&client, Method::GET, Body::Empty), answer(&mut peers[0]));
            first.expect("an answer");
            let mut kept = peers.remove(0);
            let script = async {
                kept.read_u8().await.expect("a request");
                kept.write_all(part.as_bytes()).await.expect("it is open");
                drop(kept);
            };
            let (failed, ()) = tokio::join!(call(&client, Method::GET, Body::Empty), script);
            assert_eq!(failed.expect_err("no whole answer").refusal.reason, Reason::Reset, "{part}");
            assert_eq!(client.connector().connected.get(), 1, "{part}");
        });
    }
}

#[test]
fn a_place_among_those_who_wait_for_a_connection_is_free_as_soon_as_there_is_one() {
    block_on(async {
        let (client, mut peers) = client(1);
        for waits in ["for a fresh one", "for a kept one"] {
            let place = Rc::new(());
            let left = Rc::downgrade(&place);
            let request = Request::builder().uri("/").header("host", "a").body(Body::Empty).expect("valid");
            let sent = async {
                let sent = client.send_waiting(request, Version::Http1, &NoInterim, &timeline(), place).await;
                content(sent.expect("an answer").into_body()).await
            };
            let script = async {
                let mut start = [0; 4];
                peers[0].read_exact(&mut start).await.expect("a request");
                assert!(left.upgrade().is_none(), "{waits}");
                answer(&mut peers[0]).await;
            };
            assert_eq!(tokio::join!(sent, script).0, "ok");
        }
    });
}
