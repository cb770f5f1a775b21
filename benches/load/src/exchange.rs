//! One request and its response over HTTP/1.1, checked to the last byte.

use std::{
    fmt,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// How long anything may take: far beyond what any pair needs, and short of hanging for ever.
const PATIENCE: Duration = Duration::from_secs(10);
/// A response's head is far smaller than this; bigger is wrong.
const HEAD: usize = 16 << 10;

/// Why a response is not the one expected.
#[derive(Debug)]
pub(crate) enum Wrong {
    Io(&'static str, io::ErrorKind),
    Head(&'static str),
    Status(u16),
    Length {
        expected: usize,
        declared: usize,
    },
    Body,
    /// More bytes than the response has.
    Excess,
    /// Anything that is not HTTP/2's SETTINGS.
    Settings,
    Tls(String),
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(what, kind) => write!(f, "{what}: {kind}"),
            Self::Head(what) => write!(f, "response head: {what}"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::Length { expected, declared } => write!(f, "{declared} bytes instead of {expected}"),
            Self::Body => f.write_str("another body than expected"),
            Self::Excess => f.write_str("bytes after the response"),
            Self::Settings => f.write_str("no SETTINGS first"),
            Self::Tls(what) => write!(f, "TLS: {what}"),
        }
    }
}

/// A connection and room for what it says.
#[derive(Debug)]
pub(crate) struct Connection<S = TcpStream> {
    stream: S,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(target: SocketAddr) -> Result<Self, Wrong> {
        Ok(Self::over(Self::connect(target)?))
    }

    /// A socket that waits for nothing for ever.
    pub(crate) fn connect(target: SocketAddr) -> Result<TcpStream, Wrong> {
        let io = |error: io::Error| Wrong::Io("connect", error.kind());
        let stream = TcpStream::connect_timeout(&target, PATIENCE).map_err(io)?;
        stream.set_nodelay(true).map_err(io)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(io)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(io)?;
        Ok(stream)
    }
}

impl<S: Read + Write> Connection<S> {
    pub(crate) fn over(stream: S) -> Self {
        Self { stream, buffer: vec![0; 64 << 10] }
    }

    pub(crate) fn into_inner(self) -> S {
        self.stream
    }

    pub(crate) fn exchange(&mut self, request: &[u8], expected: &[u8]) -> Result<(), Wrong> {
        self.send(request)?;
        self.receive(expected)
    }

    pub(crate) fn send(&mut self, request: &[u8]) -> Result<(), Wrong> {
        self.stream.write_all(request).map_err(|error| wrong("write", &error))
    }

    /// Waits for an HTTP/2 server's first word, which is SETTINGS on stream 0 (RFC 9113, 3.4).
    pub(crate) fn settings(&mut self) -> Result<(), Wrong> {
        let mut filled = 0;
        while filled < 9 {
            filled += self.read(filled)?;
        }
        match self.buffer[..9] {
            [_, _, _, 4, _, 0, 0, 0, 0] => Ok(()),
            _ => Err(Wrong::Settings),
        }
    }

    pub(crate) fn receive(&mut self, expected: &[u8]) -> Result<(), Wrong> {
        let mut filled = 0;
        let head = loop {
            filled += self.read(filled)?;
            match head_end(&self.buffer[..filled]) {
                Some(end) => break end,
                None if filled > HEAD => return Err(Wrong::Head("too long")),
                None => {}
            }
        };
        check_head(&self.buffer[..head], expected.len())?;
        let mut rest = expected;
        let mut from = head;
        loop {
            let body = &self.buffer[from..filled];
            if body.len() > rest.len() {
                return Err(Wrong::Excess);
            }
            let (now, later) = rest.split_at(body.len());
            if body != now {
                return Err(Wrong::Body);
            }
            if later.is_empty() {
                return Ok(());
            }
            rest = later;
            from = 0;
            filled = self.read(0)?;
        }
    }

    fn read(&mut self, at: usize) -> Result<usize, Wrong> {
        match self.stream.read(&mut self.buffer[at..]) {
            Ok(0) => Err(Wrong::Io("read", io::ErrorKind::UnexpectedEof)),
            Ok(count) => Ok(count),
            Err(error) => Err(wrong("read", &error)),
        }
    }
}

/// TLS faults come as I/O errors.
fn wrong(doing: &'static str, error: &io::Error) -> Wrong {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    tls.map_or_else(|| Wrong::Io(doing, error.kind()), |fault| Wrong::Tls(fault.to_string()))
}

fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

fn check_head(head: &[u8], expected: usize) -> Result<(), Wrong> {
    let head = std::str::from_utf8(head).map_err(|_| Wrong::Head("not text"))?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")).and_then(|rest| rest.get(..3));
    match status.and_then(|status| status.parse().ok()) {
        Some(200) => {}
        Some(status) => return Err(Wrong::Status(status)),
        None => return Err(Wrong::Head("no status line")),
    }
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .ok_or(Wrong::Head("no content-length"))?;
    let declared = length.1.trim().parse().map_err(|_| Wrong::Head("no number in content-length"))?;
    if declared == expected { Ok(()) } else { Err(Wrong::Length { expected, declared }) }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// What an exchange makes of a server that says this, in these pieces.
    fn against(pieces: &'static [&'static str]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut request = [0; 1];
            stream.read_exact(&mut request).expect("a request");
            stream.set_nodelay(true).expect("a socket");
            for piece in pieces {
                stream.write_all(piece.as_bytes()).expect("it is read");
            }
            // Without this the kernel may answer our unread request with a reset.
            stream.shutdown(std::net::Shutdown::Write).expect("a socket");
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let result = Connection::open(address).expect("it listens").exchange(b"G", b"hello");
        server.join().expect("the server is well");
        result.map_or_else(|wrong| wrong.to_string(), |()| "right".into())
    }

    #[test]
    fn the_right_response_is_right() {
        assert_eq!(against(&["HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"]), "right");
        assert_eq!(against(&["HTTP/1.1 200 OK\r\nContent-Length:5\r\n", "\r\nhel", "lo"]), "right");
    }

    #[test]
    fn all_others_are_wrong() {
        let table: [(&'static [&'static str], &str); 8] = [
            (&["HTTP/1.1 503 No\r\ncontent-length: 5\r\n\r\nhello"], "status 503"),
            (&["HTTP/1.1 200 OK\r\n\r\nhello"], "response head: no content-length"),
            (&["HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nhell"], "4 bytes instead of 5"),
            (&["HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\njello"], "another body than expected"),
            (&["HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello!"], "bytes after the response"),
            (&["HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhell"], "read: unexpected end of file"),
            (&["SSH-2.0\r\n\r\n"], "response head: no status line"),
            (&[], "read: unexpected end of file"),
        ];
        for (pieces, expected) in table {
            assert_eq!(against(pieces), expected, "{pieces:?}");
        }
    }
}
