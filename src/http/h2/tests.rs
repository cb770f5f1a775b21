//! Connections whose peers do not play fair, with the clock paused.

use std::rc::Rc;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    task::LocalSet,
    time::Instant,
};

use super::{STALL_TIMEOUT, server};
use crate::{
    drain,
    error::{Hop, Reason},
    http::{Body, InterimSink, body::BodyError, refusal::Voice, serve::Handler},
    net::{io::Io, sniff::Prefixed},
};

/// Answers with more than any window takes.
struct Generous(Voice);

type Answer = UnsyncBoxBody<Bytes, BodyError>;

impl Handler for Generous {
    type Body = Answer;

    async fn handle(&self, _: Request<Body>, _: &dyn InterimSink) -> Response<Answer> {
        let pieces = std::iter::repeat_with(|| Ok(Frame::data(Bytes::from_static(&[7; 16 * 1024]))));
        Response::new(BodyExt::boxed_unsync(StreamBody::new(futures_util::stream::iter(pieces))))
    }

    fn voice(&self) -> &Voice {
        &self.0
    }

    fn malformed(&self, reason: Reason) {
        panic!("{reason:?}");
    }
}

/// Serves what comes over the other end of a connection in memory; gives how that ended.
async fn serving<T>(peer: impl AsyncFnOnce(DuplexStream) -> T) -> (T, Result<(), h2::Error>) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (_trigger, drain) = drain::channel();
    let handler = Rc::new(Generous(Voice { hop: Hop::Inbound, workload: "web-1".into() }));
    let io = Prefixed::fresh(Io::Tunnel(Box::new(far)));
    let both = async { tokio::join!(peer(near), server::serve(io, handler, drain)) };
    LocalSet::new().run_until(both).await
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_reader_takes_nothing_is_reset_and_the_others_go_on() {
    let (stalled, ended) = serving(async |io| {
        let mut builder = h2::client::Builder::new();
        // Room for both streams.
        builder.initial_connection_window_size(1 << 20);
        let (sender, connection) = builder.handshake::<_, Bytes>(io).await.expect("it speaks HTTP/2");
        let driven = tokio::task::spawn_local(connection);
        let began = Instant::now();
        let request = || Request::get("http://a/").body(()).expect("a valid request");
        let mut ready = sender.ready().await.expect("it is open");
        let (stalled, _) = ready.send_request(request(), true).expect("it is open");
        let mut stalled = stalled.await.expect("an answer").into_body();
        // The other one takes a little now and then, which is enough.
        let (read, _) = ready.send_request(request(), true).expect("it is open");
        let mut read = read.await.expect("an answer").into_body();
        let mut taken = 0;
        while began.elapsed() < 2 * STALL_TIMEOUT {
            tokio::time::sleep(STALL_TIMEOUT / 4).await;
            for _ in 0..4 {
                let data = read.data().await.expect("it has no end").expect("it is not reset");
                read.flow_control().release_capacity(data.len()).expect("it was received");
                taken += data.len();
            }
        }
        assert!(taken > 0);
        // What had come before it is still there.
        let error = loop {
            match stalled.data().await.expect("it has no clean end") {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        drop((ready, read, stalled));
        driven.await.expect("no panic").ok();
        error
    })
    .await;
    assert_eq!(stalled.reason(), Some(h2::Reason::CANCEL), "{stalled}");
    ended.expect("nothing is wrong with the connection");
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_pings_is_ended_by_name() {
    let (said, ended) = serving(async |mut io| {
        let mut flood = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        (0..10_000).for_each(|_| flood.extend(b"\0\0\x08\x06\0\0\0\0\0pingpong"));
        let (mut read, mut write) = tokio::io::split(&mut io);
        let mut said = Vec::new();
        let (_, _) = tokio::join!(write.write_all(&flood), read.read_to_end(&mut said));
        said
    })
    .await;
    assert_eq!(ended.expect_err("it is ended").reason(), Some(h2::Reason::ENHANCE_YOUR_CALM));
    // GOAWAY, with its code: 11 (RFC 9113 7).
    let goaway = said.windows(9).rposition(|frame| frame[3..] == [7, 0, 0, 0, 0, 0]).expect("GOAWAY");
    assert_eq!(said[goaway + 13..][..4], [0, 0, 0, 11]);
}
