//! Where a received body ends: by its length, by its last chunk, or with the connection (RFC 9112 6 and 7).

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use memchr::memchr;

use super::{Malformed, head};

/// Digits of a chunk's size that are taken: more than any body has bytes.
const MAX_SIZE_DIGITS: usize = 15;
/// Bytes of one chunk's extensions that are read over.
const MAX_EXTENSIONS: usize = 1024;

/// What is left of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decoder {
    /// Nothing.
    Done,
    /// So many bytes; never 0.
    Length(u64),
    /// Chunks.
    Chunked(Chunked),
    /// Whatever comes before the connection ends.
    UntilClose,
}

/// Where in a chunked body we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Chunked {
    /// At a chunk's first line.
    Size,
    /// In its data, of which so much is left; never 0.
    Data(u64),
    /// After its data.
    DataEnd,
    /// In the trailer section, of which so many bytes have been looked at.
    Trailers(usize),
}

/// What the bytes at hand amount to.
#[derive(Debug)]
pub(super) enum Step {
    /// A piece of the body, never empty.
    Data(Bytes),
    /// Trailers, with which the body has ended.
    Trailers(HeaderMap),
    /// The body has ended.
    End,
    /// More bytes are needed.
    More,
}

impl Decoder {
    pub(super) fn of_length(length: u64) -> Self {
        if length == 0 { Self::Done } else { Self::Length(length) }
    }

    pub(super) fn chunked() -> Self {
        Self::Chunked(Chunked::Size)
    }

    pub(super) fn is_done(&self) -> bool {
        *self == Self::Done
    }

    /// What is still to come, bytes, where that is known.
    pub(super) fn left(&self) -> Option<u64> {
        match self {
            Self::Done => Some(0),
            Self::Length(left) => Some(*left),
            Self::Chunked(_) | Self::UntilClose => None,
        }
    }

    /// The connection has ended: whether the body has, too.
    pub(super) fn end_of_connection(&mut self) -> bool {
        if *self == Self::UntilClose {
            *self = Self::Done;
        }
        self.is_done()
    }

    /// Takes off `buffer` what belongs to the body, as far as it has come.
    pub(super) fn step(&mut self, buffer: &mut BytesMut) -> Result<Step, Malformed> {
        match self {
            Self::Done => Ok(Step::End),
            _ if buffer.is_empty() => Ok(Step::More),
            Self::Length(left) => {
                let data = take(buffer, *left);
                *left -= data.len() as u64;
                if *left == 0 {
                    *self = Self::Done;
                }
                Ok(Step::Data(data))
            }
            Self::UntilClose => Ok(Step::Data(take(buffer, u64::MAX))),
            Self::Chunked(_) => self.chunked_step(buffer),
        }
    }

    fn chunked_step(&mut self, buffer: &mut BytesMut) -> Result<Step, Malformed> {
        while let Self::Chunked(at) = self {
            *at = match at {
                Chunked::Size => match chunk_size(buffer)? {
                    None => return Ok(Step::More),
                    Some(0) => Chunked::Trailers(0),
                    Some(size) => Chunked::Data(size),
                },
                Chunked::Data(left) => {
                    if buffer.is_empty() {
                        return Ok(Step::More);
                    }
                    let data = take(buffer, *left);
                    *left -= data.len() as u64;
                    if *left == 0 {
                        // Known with the last data rather than one poll later: it saves whoever sends it on a write.
                        if buffer.starts_with(b"\r\n0\r\n\r\n") {
                            buffer.advance(7);
                            *self = Self::Done;
                        } else {
                            *self = Self::Chunked(Chunked::DataEnd);
                        }
                    }
                    return Ok(Step::Data(data));
                }
                Chunked::DataEnd => {
                    let end = b"\r\n";
                    if !end.starts_with(&buffer[..buffer.len().min(2)]) {
                        return Err(Malformed::new("a chunk's data is not followed by a line's end"));
                    }
                    if buffer.len() < 2 {
                        return Ok(Step::More);
                    }
                    buffer.advance(2);
                    Chunked::Size
                }
                Chunked::Trailers(seen) => {
                    let Some(end) = head::end(buffer, *seen)? else {
                        *seen = buffer.len();
                        return Ok(Step::More);
                    };
                    *self = Self::Done;
                    let section = buffer.split_to(end).freeze();
                    if end == 2 {
                        return Ok(Step::End);
                    }
                    return Ok(Step::Trailers(head::trailers(&section)?));
                }
            };
        }
        Ok(Step::End)
    }
}

/// At most `most` bytes, without copying them. What is taken whole leaves no buffer behind; the rest stays.
fn take(buffer: &mut BytesMut, most: u64) -> Bytes {
    let length = usize::try_from(most).unwrap_or(usize::MAX).min(buffer.len());
    buffer.split_to(length).freeze()
}

/// Reads a chunk's first line: its size, and over its extensions. `None`: it has not come whole.
fn chunk_size(buffer: &mut BytesMut) -> Result<Option<u64>, Malformed> {
    let digits = buffer.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    if digits > MAX_SIZE_DIGITS {
        return Err(Malformed::new("a chunk's size has too many digits"));
    }
    let rest = &buffer[digits..];
    match rest.first() {
        None => return Ok(None),
        Some(_) if digits == 0 => return Err(Malformed::new("a chunk's size is no number")),
        Some(b'\r' | b';') => {}
        Some(_) => {
            return Err(Malformed::new("a chunk's size is followed by neither `;` nor its line's end"));
        }
    }
    let end = memchr(b'\n', rest);
    let extensions = &rest[..end.unwrap_or(rest.len())];
    // The carriage return at the line's end counts as none of them.
    let (extensions, is_line) = match extensions.split_last() {
        Some((b'\r', extensions)) => (extensions, true),
        _ => (extensions, false),
    };
    if extensions.len() > MAX_EXTENSIONS {
        return Err(Malformed::new("a chunk's extensions are too long"));
    }
    if extensions.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        return Err(Malformed::new("a chunk's extensions have a control character"));
    }
    let Some(end) = end else { return Ok(None) };
    if !is_line {
        return Err(Malformed::new("a chunk's first line ends with a bare line feed"));
    }
    let text = std::str::from_utf8(&buffer[..digits]).expect("digits are ASCII");
    let size = u64::from_str_radix(text, 16).expect("so few digits fit");
    buffer.advance(digits + end + 1);
    Ok(Some(size))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Decoded = Result<Option<(Vec<u8>, HeaderMap, Vec<u8>)>, Malformed>;

    /// Data, trailers and what is left over of bytes that come in these pieces. `Err`: malformed; `None`: not ended.
    fn decode(mut decoder: Decoder, pieces: &[&[u8]]) -> Decoded {
        let (mut buffer, mut data, mut trailers) = (BytesMut::new(), Vec::new(), HeaderMap::new());
        for piece in pieces {
            buffer.extend_from_slice(piece);
            loop {
                match decoder.step(&mut buffer)? {
                    Step::Data(more) => data.extend_from_slice(&more),
                    Step::Trailers(all) => trailers = all,
                    Step::End | Step::More => break,
                }
            }
        }
        Ok(decoder.is_done().then(|| (data, trailers, buffer.to_vec())))
    }

    fn chunked(bytes: &[u8]) -> Decoded {
        decode(Decoder::chunked(), &[bytes])
    }

    #[test]
    fn chunks_that_are_taken() {
        for (bytes, data, left) in [
            (&b"0\r\n\r\n"[..], &b""[..], &b""[..]),
            (b"5\r\nhello\r\n0\r\n\r\nGET", b"hello", b"GET"),
            (b"5;a=b;c=\"d e\"\r\nhello\r\n6\r\n world\r\n000\r\n\r\n", b"hello world", b""),
            (b"a\r\n0123456789\r\nA\r\n0123456789\r\n0;x\r\n\r\n", b"01234567890123456789", b""),
        ] {
            let (found, trailers, over) = chunked(bytes).expect("well-formed").expect("whole");
            assert_eq!(
                (&*found, &*over, trailers.len()),
                (data, left, 0),
                "{}",
                String::from_utf8_lossy(bytes)
            );
        }
        let (_, trailers, over) =
            chunked(b"1\r\nx\r\n0\r\nA: 1\r\nb: 2\r\n\r\nrest").expect("well-formed").expect("whole");
        assert_eq!((trailers.len(), &trailers["a"], &*over), (2, &http::HeaderValue::from(1), &b"rest"[..]));
    }

    #[test]
    fn chunks_that_are_refused() {
        let extension = [b"1;".to_vec(), vec![b'x'; MAX_EXTENSIONS], b"\r\n".to_vec()].concat();
        let trailer = [b"0\r\nx: ".to_vec(), vec![b'x'; super::super::MAX_HEAD]].concat();
        for bytes in [
            &b"\r\n"[..],
            b"g\r\n",
            b"-1\r\n",
            b"+1\r\nx\r\n",
            b"0x1\r\nx\r\n",
            b" 1\r\nx\r\n",
            b"1 \r\nx\r\n",
            b"1\nx\r\n",
            b"1\rx\r\n",
            b"1\r\nxy",
            b"1\r\nx\n0\r\n\r\n",
            b"1\r\nx\rx",
            b"1;a\nb\r\nx\r\n",
            b"1;a\rb\r\nx\r\n",
            b"1;a\0\r\nx\r\n",
            b"10000000000000000\r\n",
            b"0000000000000001\r\nx",
            b"0\r\nx: 1\n\r\n",
            b"0\r\n\n",
            b"0\r\nx : 1\r\n\r\n",
            b"0\r\n x: 1\r\n\r\n",
            b"0\r\nx: 1\r\n y\r\n\r\n",
            b"0\r\nx: \0\r\n\r\n",
            &extension,
            &trailer,
        ] {
            assert!(chunked(bytes).is_err(), "{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(40)]));
        }
    }

    #[test]
    fn lengths_and_ends() {
        let (data, _, over) = decode(Decoder::of_length(3), &[b"abcd"]).expect("well-formed").expect("whole");
        assert_eq!((&*data, &*over), (&b"abc"[..], &b"d"[..]));
        let mut short = Decoder::of_length(3);
        assert!(!short.end_of_connection());
        let mut open = Decoder::UntilClose;
        assert!(open.end_of_connection() && open.is_done());
        assert!(!Decoder::chunked().end_of_connection());
        assert!(Decoder::of_length(0).is_done());
    }

    proptest! {
        #[test]
        fn any_split_reads_the_same(
            chunks in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 1..20), "(;[a-z]{1,4})?"), 0..5),
            trailer in any::<bool>(),
            spoil in proptest::option::of((0_usize..100, any::<u8>())),
            cuts in proptest::collection::vec(0_usize..200, 0..6),
        ) {
            let mut bytes = Vec::new();
            for (data, extension) in &chunks {
                bytes.extend_from_slice(format!("{:x}{extension}\r\n", data.len()).as_bytes());
                bytes.extend_from_slice(data);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(if trailer { b"0\r\nx: y\r\n\r\nnext" } else { b"0\r\n\r\nnext" });
            if let Some((at, byte)) = spoil {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            let whole = chunked(&bytes);
            prop_assert_eq!(decode(Decoder::chunked(), &pieces), whole.clone());
            if spoil.is_none() {
                let (data, _, over) = whole.expect("well-formed").expect("whole");
                let expected: Vec<u8> = chunks.iter().flat_map(|(data, _)| data.clone()).collect();
                prop_assert_eq!((data, over), (expected, b"next".to_vec()));
            }
        }
    }
}
