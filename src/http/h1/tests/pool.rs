//! Kept connections, and what happens to requests that they turn out not to take.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
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
