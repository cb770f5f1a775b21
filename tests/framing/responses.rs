//! HTTP/1 responses: an application that is broken, or taken over, must not speak for another.

use super::Due::{self, CutOff, Refused, Taken};

/// One response.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    /// As it stands in the table.
    pub(super) name: &'static str,
    pub(super) method: &'static str,
    /// What the application says; `POISON` must never arrive.
    pub(super) answer: &'static [u8],
    /// Whether it then ends the connection.
    pub(super) closes: bool,
    /// What is peculiar about it, where it could be passed on as it is.
    pub(super) mark: &'static [u8],
    pub(super) due: Due,
}

const fn open(name: &'static str, answer: &'static [u8], mark: &'static [u8], due: Due) -> Case {
    Case { name, method: "GET", answer, closes: false, mark, due }
}

const fn ended(name: &'static str, answer: &'static [u8], mark: &'static [u8], due: Due) -> Case {
    Case { closes: true, ..open(name, answer, mark, due) }
}

const fn to_head(name: &'static str, answer: &'static [u8], mark: &'static [u8], due: Due) -> Case {
    Case { method: "HEAD", ..open(name, answer, mark, due) }
}

pub(super) const CASES: &[Case] = &[
    open("Content-Length and Transfer-Encoding", b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nPOISON", b"content-length: 6", Refused),
    open("two different Content-Lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 8\r\n\r\nokPOISON", b"content-length: 8", Refused),
    open("Content-Length: 2, 8", b"HTTP/1.1 200 OK\r\nContent-Length: 2, 8\r\n\r\nokPOISON", b"2, 8", Refused),
    open("Content-Length: +2", b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", b"+2", Refused),
    open("Content-Length: -1", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nPOISON", b"-1", Refused),
    open("Content-Length beyond 64 bits", b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551618\r\n\r\nok", b"18446744073709551618", Refused),
    ended("Transfer-Encoding: gzip", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok", b"gzip", Refused),
    ended("Transfer-Encoding: xchunked", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\nok", b"xchunked", Refused),
    open("Transfer-Encoding: chunked, in two fields", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"chunked\r\ntransfer-encoding: chunked", Refused),
    ended("Transfer-Encoding in HTTP/1.0", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"chunked", Refused),
    open("a folded line", b"HTTP/1.1 200 OK\r\nX: 1\r\n 2\r\nContent-Length: 2\r\n\r\nok", b"1\r\n 2", Refused),
    open("space before a colon", b"HTTP/1.1 200 OK\r\nX : 1\r\nContent-Length: 2\r\n\r\nok", b"x : 1", Refused),
    open("space before the colon of Content-Length", b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok", b"content-length :", Refused),
    open("a field without a name", b"HTTP/1.1 200 OK\r\n: 1\r\nContent-Length: 2\r\n\r\nok", b"\r\n: 1", Refused),
    open("a field without a colon", b"HTTP/1.1 200 OK\r\nX\r\nContent-Length: 2\r\n\r\nok", b"\r\nx\r\n", Refused),
    open("a NUL in a value", b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nok", b"a\0b", Refused),
    open("a bare carriage return in a value", b"HTTP/1.1 200 OK\r\nX: 1\rSet-Cookie: POISON\r\nContent-Length: 2\r\n\r\nok", b"1\rset", Refused),
    open("a bare line feed after a field", b"HTTP/1.1 200 OK\r\nX: 1\nContent-Length: 2\r\n\r\nok", b"1\ncontent", Refused),
    open("bare line feeds only", b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", b"ok\ncontent", Refused),
    open("HTTP/2.0", b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"http/2.0", Refused),
    open("HTTP/1.2", b"HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\nok", b"http/1.2", Refused),
    open("no status", b"HTTP/1.1 OK\r\nContent-Length: 2\r\n\r\nok", b"1.1 ok", Refused),
    open("a status of two digits", b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok", b" 20 ", Refused),
    open("a status of four digits", b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok", b"2000", Refused),
    open("no answer at all, but bytes", b"220 mail.example.com ESMTP\r\n\r\n", b"esmtp", Refused),
    open("101 that nobody asked for", b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\nPOISON", b"101 switching", Refused),
    open("204 with a body", b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON", b"204 no content", Taken),
    open("304 with a body", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\nPOISON", b"304 not modified", Taken),
    to_head("a body for HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON", b"content-length: 6", Taken),
    open("a second response", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON", b"content-length: 2", Taken),
    open("an interim response with a length", b"HTTP/1.1 103 Early Hints\r\nContent-Length: 6\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"content-length: 6", Taken),
    open("two equal Content-Lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", b"content-length: 2\r\ncontent-length: 2", Taken),
    ended("an end amid the head", b"HTTP/1.1 200 OK\r\nContent-Le", b"200 ok", Refused),
    ended("an end amid the body", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nok", b"content-length: 10", CutOff),
    ended("an end amid the chunks", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", b"chunked", CutOff),
    ended("an end before the last chunk's empty line", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n", b"chunked", CutOff),
    open("chunk size 0x2", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0x2\r\nno\r\n0\r\n\r\n", b"0x2", CutOff),
    open("a bare line feed after a chunk size", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n2\nno\r\n0\r\n\r\n", b"2\nno", CutOff),
    open("more data than a chunk's size", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokok\r\n0\r\n\r\n", b"okok", CutOff),
    open("Content-Length as a trailer", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nContent-Length: 9\r\n\r\n", b"content-length: 9", Taken),
];
