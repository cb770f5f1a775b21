//! HTTP/1 requests (RFC 9112, RFC 9110), and the tricks of the literature on request smuggling.

use super::{
    Due::{self, CutOff, Refused, Taken},
    upstream::replaced,
};

/// One request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    /// As it stands in the table.
    pub(super) name: &'static str,
    request: Request,
    /// What is peculiar about it, where it could be passed on as it is.
    pub(super) mark: &'static [u8],
    pub(super) due: Due,
}

/// Its bytes. `/CASE` and `HOST` stand for the case's own path and the host.
#[derive(Clone, Copy, Debug)]
enum Request {
    /// All of it.
    Raw(&'static [u8]),
    /// A POST from its second field on.
    Post(&'static [u8]),
    /// A GET from its second field on.
    Get(&'static [u8]),
    /// A chunked body.
    Chunks(&'static [u8]),
}
use Request::{Chunks, Get, Post, Raw};

impl Case {
    /// The bytes of it, for this path and host.
    pub(super) fn bytes(&self, path: &str, host: &str) -> Vec<u8> {
        let (start, rest): (&[u8], _) = match self.request {
            Raw(bytes) => (b"", bytes),
            Post(rest) => (b"POST /CASE HTTP/1.1\r\nHost: HOST\r\n", rest),
            Get(rest) => (b"GET /CASE HTTP/1.1\r\nHost: HOST\r\n", rest),
            Chunks(rest) => {
                (b"POST /CASE HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n", rest)
            }
        };
        replaced(&replaced(&[start, rest].concat(), b"/CASE", path.as_bytes()), b"HOST", host.as_bytes())
    }
}

const fn case(name: &'static str, request: Request, mark: &'static [u8], due: Due) -> Case {
    Case { name, request, mark, due }
}

pub(super) const CASES: &[Case] = &[
    // Two ways to say where the body ends.
    case("Content-Length and Transfer-Encoding", Post(b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG"), b"content-length: 6", Refused),
    case("Transfer-Encoding and Content-Length", Post(b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"), b"content-length: 5", Refused),
    case("Content-Length: 0 and Transfer-Encoding", Post(b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), b"content-length: 0", Refused),
    case("Content-Length and an unknown coding", Post(b"Content-Length: 1\r\nTransfer-Encoding: xchunked\r\n\r\nx"), b"xchunked", Refused),
    // Content-Length.
    case("two different Content-Lengths", Post(b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx"), b"content-length: 2", Refused),
    case("two equal Content-Lengths", Post(b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx"), b"content-length: 1\r\ncontent-length: 1", Taken),
    case("Content-Length: 1 and 01", Post(b"Content-Length: 1\r\nContent-Length: 01\r\n\r\nx"), b"content-length: 01", Taken),
    case("Content-Length: 1, 1", Post(b"Content-Length: 1, 1\r\n\r\nx"), b"1, 1", Refused),
    case("Content-Length: 1, 2", Post(b"Content-Length: 1, 2\r\n\r\nxx"), b"1, 2", Refused),
    case("Content-Length: +1", Post(b"Content-Length: +1\r\n\r\nx"), b"+1", Refused),
    case("Content-Length: -1", Post(b"Content-Length: -1\r\n\r\nx"), b"-1", Refused),
    case("Content-Length: 0x1", Post(b"Content-Length: 0x1\r\n\r\nx"), b"0x1", Refused),
    case("Content-Length: 1 1", Post(b"Content-Length: 1 1\r\n\r\nx"), b"1 1", Refused),
    case("Content-Length: 1e0", Post(b"Content-Length: 1e0\r\n\r\nx"), b"1e0", Refused),
    case("Content-Length: 1.0", Post(b"Content-Length: 1.0\r\n\r\nx"), b"1.0\r\n\r\n", Refused),
    case("Content-Length: \"1\"", Post(b"Content-Length: \"1\"\r\n\r\nx"), b"\"1\"", Refused),
    case("Content-Length beyond 64 bits", Post(b"Content-Length: 18446744073709551617\r\n\r\nx"), b"18446744073709551617", Refused),
    case("Content-Length without a value", Post(b"Content-Length:\r\n\r\nx"), b"content-length:", Refused),
    case("Content-Length with a vertical tab", Post(b"Content-Length: \x0b1\r\n\r\nx"), b"\x0b", Refused),
    case("Content-Length in a folded line", Post(b"Content-Length:\r\n 1\r\n\r\nx"), b"content-length:\r\n", Refused),
    case("space before the colon of Content-Length", Post(b"Content-Length : 1\r\n\r\nx"), b"content-length :", Refused),
    case("Content_Length", Post(b"Content_Length: 1\r\nContent-Length: 1\r\n\r\nx"), b"content_length", Taken),
    // Transfer-Encoding.
    case("Transfer-Encoding: xchunked", Post(b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"), b"xchunked", Refused),
    case("Transfer-Encoding: CHUNKED", Post(b"Transfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n"), b"encoding: CHUNKED", Taken),
    case("Transfer-Encoding: a tab, chunked", Post(b"Transfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n"), b"encoding:\tchunked", Taken),
    case("Transfer-Encoding: a vertical tab, chunked", Post(b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"), b"\x0b", Refused),
    case("Transfer-Encoding: chunked, identity", Post(b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"), b"chunked, identity", Refused),
    case("Transfer-Encoding: identity, chunked", Post(b"Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n"), b"identity, chunked", Refused),
    case("Transfer-Encoding: chunked, chunked", Post(b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"), b"chunked, chunked", Refused),
    case("Transfer-Encoding: chunked, in two fields", Post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), b"chunked\r\ntransfer-encoding: chunked", Refused),
    case("Transfer-Encoding: chunked, then identity in a second field", Post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"), b"identity", Refused),
    case("Transfer-Encoding: identity", Post(b"Transfer-Encoding: identity\r\n\r\n"), b"identity", Refused),
    case("Transfer-Encoding: gzip", Post(b"Transfer-Encoding: gzip\r\n\r\n"), b"gzip", Refused),
    case("Transfer-Encoding: gzip, chunked", Post(b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), b"gzip, chunked", Refused),
    case("Transfer-Encoding: chunked;q=1", Post(b"Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n"), b"chunked;q=1", Refused),
    case("Transfer-Encoding: \"chunked\"", Post(b"Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"), b"\"chunked\"", Refused),
    case("Transfer-Encoding: , chunked", Post(b"Transfer-Encoding: , chunked\r\n\r\n0\r\n\r\n"), b", chunked", Refused),
    case("Transfer-Encoding: chunk", Post(b"Transfer-Encoding: chunk\r\n\r\n0\r\n\r\n"), b"encoding: chunk\r\n", Refused),
    case("Transfer-Encoding without a value", Post(b"Transfer-Encoding:\r\n\r\n0\r\n\r\n"), b"transfer-encoding:\r\n", Refused),
    case("Transfer-Encoding in a folded line", Post(b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"), b"encoding:\r\n", Refused),
    case("space before the colon of Transfer-Encoding", Post(b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"), b"encoding :", Refused),
    case("Transfer-Encoding after a bare line feed in a value", Post(b"X: 1\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), b"1\ntransfer", Refused),
    case("Transfer-Encoding in HTTP/1.0", Raw(b"POST /CASE HTTP/1.0\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), b"chunked", Refused),
    // Chunks.
    case("chunk size +3", Chunks(b"+3\r\nabc\r\n0\r\n\r\n"), b"+3", CutOff),
    case("chunk size -3", Chunks(b"-3\r\nabc\r\n0\r\n\r\n"), b"-3", CutOff),
    case("chunk size 0x3", Chunks(b"0x3\r\nabc\r\n0\r\n\r\n"), b"0x3", CutOff),
    case("chunk size 3_", Chunks(b"3_\r\nabc\r\n0\r\n\r\n"), b"3_", CutOff),
    case("no chunk size", Chunks(b"\r\nabc\r\n0\r\n\r\n"), b"\r\n\r\n\r\nabc", CutOff),
    case("chunk size beyond 64 bits", Chunks(b"10000000000000003\r\nabc\r\n0\r\n\r\n"), b"10000000000000003", CutOff),
    case("chunk size of 32 digits", Chunks(b"00000000000000000000000000000003\r\nabc\r\n0\r\n\r\n"), b"0000000000000003", CutOff),
    case("space before a chunk size", Chunks(b" 3\r\nabc\r\n0\r\n\r\n"), b" 3\r\n", CutOff),
    case("space after a chunk size", Chunks(b"3 \r\nabc\r\n0\r\n\r\n"), b"3 \r\n", CutOff),
    case("a tab after a chunk size", Chunks(b"3\t\r\nabc\r\n0\r\n\r\n"), b"3\t\r\n", CutOff),
    case("a chunk extension", Chunks(b"3;a=b\r\nabc\r\n0\r\n\r\n"), b";a=b", Taken),
    case("a bare line feed in a chunk extension", Chunks(b"3;a\nb\r\nabc\r\n0\r\n\r\n"), b";a\n", CutOff),
    case("a bare carriage return in a chunk extension", Chunks(b"3;a\rb\r\nabc\r\n0\r\n\r\n"), b";a\r", CutOff),
    case("a NUL in a chunk extension", Chunks(b"3;a\0\r\nabc\r\n0\r\n\r\n"), b";a\0", CutOff),
    case("a bare line feed after a chunk size", Chunks(b"3\nabc\r\n0\r\n\r\n"), b"3\nabc", CutOff),
    case("a bare carriage return after a chunk size", Chunks(b"3\rabc\r\n0\r\n\r\n"), b"3\rabc", CutOff),
    case("nothing after a chunk's data", Chunks(b"3\r\nabc0\r\n\r\n"), b"abc0", CutOff),
    case("a bare line feed after a chunk's data", Chunks(b"3\r\nabc\n0\r\n\r\n"), b"abc\n0", CutOff),
    case("two bytes that are no line's end after a chunk's data", Chunks(b"3\r\nabcXX0\r\n\r\n"), b"abcXX", CutOff),
    case("more data than a chunk's size", Chunks(b"3\r\nabcd\r\n0\r\n\r\n"), b"abcd", CutOff),
    case("a bare line feed after the last chunk", Chunks(b"3\r\nabc\r\n0\n\n"), b"0\n\n", CutOff),
    case("a trailer", Chunks(b"3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n"), b"x-sum: 1", Taken),
    case("Content-Length as a trailer", Chunks(b"3\r\nabc\r\n0\r\nContent-Length: 9\r\n\r\n"), b"content-length: 9", Taken),
    case("Transfer-Encoding as a trailer", Chunks(b"3\r\nabc\r\n0\r\nTransfer-Encoding: x\r\n\r\n"), b"transfer-encoding: x", Taken),
    case("Host as a trailer", Chunks(b"3\r\nabc\r\n0\r\nHost: other\r\n\r\n"), b"host: other", Taken),
    case("x-forwarded-client-cert as a trailer", Chunks(b"3\r\nabc\r\n0\r\nX-Forwarded-Client-Cert: forged\r\n\r\n"), b"forged", Taken),
    case("a folded trailer", Chunks(b"3\r\nabc\r\n0\r\nX: 1\r\n 2\r\n\r\n"), b"1\r\n 2", CutOff),
    case("a trailer without a colon", Chunks(b"3\r\nabc\r\n0\r\nX\r\n\r\n"), b"0\r\nx\r\n", CutOff),
    // Lines and fields.
    case("a bare line feed after the request line", Raw(b"GET /CASE HTTP/1.1\nHost: HOST\r\n\r\n"), b"1.1\nhost", Refused),
    case("a bare line feed after a field", Get(b"X: 1\nY: 2\r\n\r\n"), b"1\ny: 2", Refused),
    case("a bare line feed at the head's end", Get(b"X: 1\r\n\n"), b"1\r\n\n", Refused),
    case("bare line feeds only", Raw(b"GET /CASE HTTP/1.1\nHost: HOST\n\n"), b"1.1\nhost", Refused),
    case("a bare carriage return in a value", Get(b"X: 1\rY: 2\r\n\r\n"), b"1\ry: 2", Refused),
    case("a bare carriage return in the request line", Raw(b"GET /CASE\r HTTP/1.1\r\nHost: HOST\r\n\r\n"), b"\r http", Refused),
    case("a carriage return twice", Get(b"X: 1\r\r\nY: 2\r\n\r\n"), b"1\r\r\n", Refused),
    case("a NUL in a value", Get(b"X: a\0b\r\n\r\n"), b"a\0b", Refused),
    case("a control character in a value", Get(b"X: a\x01b\r\n\r\n"), b"a\x01b", Refused),
    case("bytes above 127 in a value", Get(b"X: \xe2\x82\xac\r\n\r\n"), b"\xe2\x82\xac", Taken),
    case("a folded line", Get(b"X: 1\r\n 2\r\n\r\n"), b"1\r\n 2", Refused),
    case("a line folded with a tab", Get(b"X: 1\r\n\t2\r\n\r\n"), b"1\r\n\t2", Refused),
    case("a folded line before the first field", Raw(b"GET /CASE HTTP/1.1\r\n X: 1\r\nHost: HOST\r\n\r\n"), b"1.1\r\n x", Refused),
    case("space before a colon", Get(b"X : 1\r\n\r\n"), b"x : 1", Refused),
    case("a tab before a colon", Get(b"X\t: 1\r\n\r\n"), b"x\t: 1", Refused),
    case("a field without a name", Get(b": 1\r\n\r\n"), b"\r\n: 1", Refused),
    case("a field without a colon", Get(b"X\r\n\r\n"), b"\r\nx\r\n", Refused),
    case("a NUL in a name", Get(b"X\0Y: 1\r\n\r\n"), b"x\0y", Refused),
    case("a name that is no token", Get(b"X(Y): 1\r\n\r\n"), b"x(y)", Refused),
    case("bytes above 127 in a name", Get(b"X\xff: 1\r\n\r\n"), b"x\xff", Refused),
    case("a space in a name", Get(b"X Y: 1\r\n\r\n"), b"x y: 1", Refused),
    // Which servers ignore (RFC 9112 2.2), so that it must not pass for bytes.
    case("an empty line first", Raw(b"\r\nGET /CASE HTTP/1.1\r\nHost: HOST\r\n\r\n"), b"\r\nget", Taken),
    case("a space first", Raw(b" GET /CASE HTTP/1.1\r\nHost: HOST\r\n\r\n"), b" get", Refused),
    // The request line.
    case("no version", Raw(b"GET /CASE\r\nHost: HOST\r\n\r\n"), b"/case\r\n", Refused),
    case("HTTP/1.2", Raw(b"GET /CASE HTTP/1.2\r\nHost: HOST\r\n\r\n"), b"http/1.2", Refused),
    case("HTTP/2.0", Raw(b"GET /CASE HTTP/2.0\r\nHost: HOST\r\n\r\n"), b"http/2.0", Refused),
    case("HTTP/0.9", Raw(b"GET /CASE HTTP/0.9\r\nHost: HOST\r\n\r\n"), b"http/0.9", Refused),
    case("HTTP/1.10", Raw(b"GET /CASE HTTP/1.10\r\nHost: HOST\r\n\r\n"), b"http/1.10", Refused),
    case("HTTP /1.1", Raw(b"GET /CASE HTTP /1.1\r\nHost: HOST\r\n\r\n"), b"http /1.1", Refused),
    case("http/1.1", Raw(b"GET /CASE http/1.1\r\nHost: HOST\r\n\r\n"), b" http/1.1 ", Refused),
    case("another protocol", Raw(b"GET /CASE RTSP/1.0\r\nHost: HOST\r\n\r\n"), b"rtsp", Refused),
    case("something after the version", Raw(b"GET /CASE HTTP/1.1 x\r\nHost: HOST\r\n\r\n"), b"1.1 x", Refused),
    case("two spaces before the target", Raw(b"GET  /CASE HTTP/1.1\r\nHost: HOST\r\n\r\n"), b"get  /", Refused),
    case("a tab before the target", Raw(b"GET\t/CASE HTTP/1.1\r\nHost: HOST\r\n\r\n"), b"get\t/", Refused),
    case("a space in the target", Raw(b"GET /CASE b HTTP/1.1\r\nHost: HOST\r\n\r\n"), b" b http", Refused),
    case("a control character in the target", Raw(b"GET /CASE\x01 HTTP/1.1\r\nHost: HOST\r\n\r\n"), b"\x01", Refused),
    case("a NUL in the target", Raw(b"GET /CASE\0 HTTP/1.1\r\nHost: HOST\r\n\r\n"), b"\0", Refused),
    case("a fragment in the target", Raw(b"GET /CASE#a HTTP/1.1\r\nHost: HOST\r\n\r\n"), b"#a", Refused),
    case("a method with a parenthesis", Raw(b"GE(T /CASE HTTP/1.1\r\nHost: HOST\r\n\r\n"), b"ge(t", Refused),
    case("a method with a NUL", Raw(b"GE\0T /CASE HTTP/1.1\r\nHost: HOST\r\n\r\n"), b"ge\0t", Refused),
    case("a method with a colon", Raw(b"GET: /CASE HTTP/1.1\r\nHost: HOST\r\n\r\n"), b"get: /", Refused),
    case("a target without a slash", Raw(b"GET CASE/CASE HTTP/1.1\r\nHost: HOST\r\n\r\n"), b"get case", Refused),
    case("CONNECT with a path", Raw(b"CONNECT /CASE HTTP/1.1\r\nHost: HOST\r\n\r\n"), b"connect", Refused),
    // Hosts.
    case("two hosts", Raw(b"GET /CASE HTTP/1.1\r\nHost: HOST\r\nHost: other\r\n\r\n"), b"host: other", Refused),
    case("the same host twice", Raw(b"GET /CASE HTTP/1.1\r\nHost: HOST\r\nHost: HOST\r\n\r\n"), b"", Refused),
    case("no host", Raw(b"GET /CASE HTTP/1.1\r\nX: 1\r\n\r\n"), b"", Refused),
    case("an empty host", Raw(b"GET /CASE HTTP/1.1\r\nHost:\r\n\r\n"), b"", Refused),
    case("a host with a path", Raw(b"GET /CASE HTTP/1.1\r\nHost: HOST/x\r\n\r\n"), b"/x\r\n", Refused),
    case("a host with a user", Raw(b"GET /CASE HTTP/1.1\r\nHost: user@HOST\r\n\r\n"), b"user@", Refused),
    case("a host with a space", Raw(b"GET /CASE HTTP/1.1\r\nHost: HOST other\r\n\r\n"), b" other", Refused),
    case("two hosts in one field", Raw(b"GET /CASE HTTP/1.1\r\nHost: HOST, other\r\n\r\n"), b", other", Refused),
    case("a host with a port that is none", Raw(b"GET /CASE HTTP/1.1\r\nHost: HOST:x\r\n\r\n"), b":x\r\n", Refused),
    case("the absolute form, and another host", Raw(b"GET http://HOST/CASE HTTP/1.1\r\nHost: other\r\n\r\n"), b"host: other", Taken),
    case("the absolute form with a user", Raw(b"GET http://user@HOST/CASE HTTP/1.1\r\nHost: HOST\r\n\r\n"), b"user@", Refused),
    case("the absolute form without a host", Raw(b"GET http:///CASE HTTP/1.1\r\nHost: HOST\r\n\r\n"), b"http:///", Refused),
    // Connections.
    case("Connection takes off Content-Length", Post(b"Connection: Content-Length\r\nContent-Length: 1\r\n\r\nx"), b"connection: content-length", Taken),
    case("Connection takes off Host", Get(b"Connection: Host\r\n\r\n"), b"connection: host", Taken),
    case("Upgrade: h2c", Get(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"), b"h2c", Taken),
    case("Upgrade with a body", Post(b"Connection: Upgrade\r\nUpgrade: chat\r\nContent-Length: 1\r\n\r\nx"), b"upgrade: chat", Taken),
    case("Upgrade in HTTP/1.0", Raw(b"GET /CASE HTTP/1.0\r\nHost: HOST\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n"), b"upgrade: chat", Taken),
    case("an unknown expectation", Post(b"Expect: 200-ok\r\nContent-Length: 1\r\n\r\nx"), b"expect: 200-ok", Taken),
    case("a GET with a body", Get(b"Content-Length: 1\r\n\r\nx"), b"content-length: 1", Taken),
    case("x-forwarded-client-cert forged", Get(b"X-Forwarded-Client-Cert: forged\r\n\r\n"), b"forged", Taken),
];
