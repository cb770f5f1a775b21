//! Messages that must not be passed on (RFC 9112; what is known as request smuggling).

use std::rc::Rc;

use proptest::prelude::*;

use super::{Mirror, block_on, serve};
use crate::error::Reason;

/// Heads that are refused before anybody hears of the request.
const HEADS: &[(&str, &str)] = &[
    (
        "both kinds of framing",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "the same the other way round",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    ),
    ("different lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx"),
    ("a list of lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\nx"),
    ("a signed length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx"),
    ("a negative length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\nx"),
    ("a hexadecimal length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\nx"),
    ("a length with an exponent", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1e1\r\n\r\nx"),
    (
        "a length that overflows",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\nx",
    ),
    ("no length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nx"),
    ("a length of letters", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: one\r\n\r\nx"),
    ("another coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n"),
    ("one more coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    ("chunked twice", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    (
        "chunked in two fields",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    ("identity", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n"),
    (
        "chunked and identity",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    ),
    (
        "a coding with a parameter",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
    ),
    ("a quoted coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"),
    (
        "a coding that only begins so",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "a vertical tab before the coding",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    ),
    ("no coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n"),
    ("a coding in HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("a folded line", "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n"),
    ("a folded coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
    ("a line folded with a tab", "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n\t2\r\n\r\n"),
    ("space before the first field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    ("space before a colon", "GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n"),
    ("space before a length's colon", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 1\r\n\r\nx"),
    ("a tab before a colon", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n"),
    ("a field without a colon", "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n"),
    ("a field without a name", "GET / HTTP/1.1\r\nHost: a\r\n: 1\r\n\r\n"),
    ("a name that is no token", "GET / HTTP/1.1\r\nHost: a\r\nX(: 1\r\n\r\n"),
    ("a NUL in a name", "GET / HTTP/1.1\r\nHost: a\r\nX\0: 1\r\n\r\n"),
    ("a NUL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n"),
    ("a control character in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n"),
    ("DEL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n"),
    ("a bare carriage return in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: 1\rY: 2\r\n\r\n"),
    ("a bare line feed after the first line", "GET / HTTP/1.1\nHost: a\r\n\r\n"),
    ("a bare line feed after a field", "GET / HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n"),
    ("a bare line feed at the end", "GET / HTTP/1.1\r\nHost: a\r\n\n"),
    ("bare line feeds only", "GET / HTTP/1.1\nHost: a\n\n"),
    ("a bare line feed before the request", "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("a bare carriage return in the first line", "GET /\r HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
    ("the same host twice", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
    ("no version", "GET /\r\nHost: a\r\n\r\n"),
    ("version 2.0", "GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
    ("version 1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
    ("version 0.9", "GET / HTTP/0.9\r\nHost: a\r\n\r\n"),
    ("another protocol", "GET / ICY/1.1\r\nHost: a\r\n\r\n"),
    ("a version in lower case", "GET / http/1.1\r\nHost: a\r\n\r\n"),
    ("a leading zero in the version", "GET / HTTP/01.1\r\nHost: a\r\n\r\n"),
    ("two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("a tab between the words", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("something after the version", "GET / HTTP/1.1 x\r\nHost: a\r\n\r\n"),
    ("a space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("a fragment", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("a NUL in the target", "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("a target that is a host", "GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("an asterisk for GET", "GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("CONNECT to a path", "CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("CONNECT to a URI", "CONNECT http://a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("a method that is no token", "G(T / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("no method", " / HTTP/1.1\r\nHost: a\r\n\r\n"),
];

/// Bodies that turn out to be none after their head was taken.
const BODIES: &[(&str, &str)] = &[
    ("a size that is none", "x\r\n"),
    ("no size", "\r\nabc"),
    ("a signed size", "+3\r\nabc\r\n0\r\n\r\n"),
    ("a negative size", "-3\r\nabc\r\n0\r\n\r\n"),
    ("a size in C's way", "0x3\r\nabc\r\n0\r\n\r\n"),
    ("space before a size", " 3\r\nabc\r\n0\r\n\r\n"),
    ("space after a size", "3 \r\nabc\r\n0\r\n\r\n"),
    ("a size of too many digits", "00000000000000003\r\nabc\r\n0\r\n\r\n"),
    ("a size that overflows", "ffffffffffffffff1\r\nabc\r\n0\r\n\r\n"),
    ("a bare line feed after a size", "3\nabc\r\n0\r\n\r\n"),
    ("a bare carriage return after a size", "3\rabc\r\n0\r\n\r\n"),
    ("a bare line feed in an extension", "3;a\nb\r\nabc\r\n0\r\n\r\n"),
    ("no line's end after the data", "3\r\nabc0\r\n\r\n"),
    ("a bare line feed after the data", "3\r\nabc\n0\r\n\r\n"),
    ("more data than the size says", "3\r\nabcd\r\n0\r\n\r\n"),
    ("a bare line feed in the trailers", "0\r\nx: 1\n\r\n"),
    ("a folded trailer", "0\r\nx: 1\r\n 2\r\n\r\n"),
    ("space before a trailer's colon", "0\r\nx : 1\r\n\r\n"),
    ("a trailer that is none", "0\r\nx\r\n\r\n"),
];

fn assert_refused(what: &str, request: &[u8], reason: Reason, requests: usize) {
    let handler = Rc::new(Mirror::new());
    // What follows would be answered, had the connection gone on.
    let bytes = [request, b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
    let (answer, ended) = block_on(serve(&handler, &[&bytes]));
    let status = format!("HTTP/1.1 {} ", reason.status().as_str());
    assert!(answer.starts_with(&status), "{what}: {answer}");
    assert!(answer.contains(&format!("\r\npillion-error: {}; ", reason.as_str())), "{what}: {answer}");
    assert!(answer.contains("\r\nconnection: close\r\n"), "{what}: {answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{what}: one answer, then the end: {answer}");
    assert_eq!(ended.expect_err("refused").reason, reason, "{what}");
    assert_eq!(*handler.malformed.borrow(), [reason], "{what}: counted");
    assert_eq!(handler.seen.borrow().len(), requests, "{what}: {:?}", handler.seen.borrow());
}

#[test]
fn heads() {
    for (what, request) in HEADS {
        assert_refused(what, request.as_bytes(), Reason::MalformedRequest, 0);
    }
}

#[test]
fn bodies() {
    for (what, body) in BODIES {
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        assert_refused(what, request.as_bytes(), Reason::MalformedRequest, 1);
    }
}

#[test]
fn what_is_too_large() {
    let long = "a".repeat(70_000);
    let many = "X: 1\r\n".repeat(300);
    let large = Reason::HeadersTooLarge;
    assert_refused("a field", format!("GET / HTTP/1.1\r\nX: {long}\r\n\r\n").as_bytes(), large, 0);
    assert_refused("a name", format!("GET / HTTP/1.1\r\n{long}: 1\r\n\r\n").as_bytes(), large, 0);
    assert_refused("many fields", format!("GET / HTTP/1.1\r\n{many}\r\n").as_bytes(), large, 0);
    assert_refused("a target", format!("GET /{long} HTTP/1.1\r\n\r\n").as_bytes(), Reason::UriTooLong, 0);
    let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    let malformed = Reason::MalformedRequest;
    assert_refused(
        "extensions",
        format!("{chunked}1;{}\r\nx\r\n", "a".repeat(1025)).as_bytes(),
        malformed,
        1,
    );
    assert_refused("trailers", format!("{chunked}0\r\nX: {long}\r\n\r\n").as_bytes(), large, 1);
    assert_refused("many trailers", format!("{chunked}0\r\n{many}\r\n").as_bytes(), large, 1);
}

#[test]
fn noise_is_refused_before_its_end() {
    block_on(async {
        let (mut peer, io) = tokio::io::duplex(1024);
        let handler = Rc::new(Mirror::new());
        let (_trigger, drain) = crate::drain::channel();
        let mut answer = Vec::new();
        let noise = async {
            // The peer goes on holding the connection: what it has said is enough.
            tokio::io::AsyncWriteExt::write_all(&mut peer, b"\x01\x02\x03").await.expect("room");
            tokio::io::AsyncReadExt::read_to_end(&mut peer, &mut answer).await.expect("it is closed");
        };
        let (_, ended) = tokio::join!(noise, super::super::server::serve(io, handler, drain));
        ended.expect_err("refused");
        assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&answer));
    });
}

proptest! {
    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0_usize..300) {
        let (first, second) = bytes.split_at(cut.min(bytes.len()));
        block_on(serve(&Rc::new(Mirror::new()), &[first, second])).1.ok();
        let spoiled = [b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", &bytes[..]].concat();
        block_on(serve(&Rc::new(Mirror::new()), &[&spoiled])).1.ok();
    }
}
