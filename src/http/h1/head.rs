//! Reads the head of a message, strictly (RFC 9112): whatever two readers could take differently is refused, because the
//! application behind us may be the other one.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRANSFER_ENCODING, UPGRADE},
};
use memchr::{memchr, memchr_iter};

use super::{MAX_HEAD, MAX_HEADERS, Malformed, framing::Decoder, names::Lists};
use crate::{
    error::Reason,
    http::headers::{self, NAMES},
};

/// What a head says of its message and its connection.
#[derive(Debug)]
pub(super) struct Facts {
    /// How the body ends.
    pub(super) decoder: Decoder,
    /// Whether the connection may carry another message after this one.
    pub(super) keep_alive: bool,
    /// The caller waits for `100 Continue`.
    pub(super) expects_continue: bool,
    /// The caller takes trailers.
    pub(super) takes_trailers: bool,
    /// The connection may become another protocol's with the answer.
    pub(super) upgrade: bool,
}

/// Where the head ends in these bytes, if it does; of `bytes`, `seen` have been looked at before.
///
/// # Errors
/// A line that ends without a carriage return, or a head that is too large.
pub(super) fn end(bytes: &[u8], seen: usize) -> Result<Option<usize>, Malformed> {
    for at in memchr_iter(b'\n', &bytes[seen..]).map(|at| seen + at) {
        if at == 0 || bytes[at - 1] != b'\r' {
            return Err(Malformed::new("a line ends with a bare line feed"));
        }
        if at == 1 || bytes[..at - 1].ends_with(b"\r\n") {
            return if at < MAX_HEAD { Ok(Some(at + 1)) } else { Err(TOO_LARGE) };
        }
    }
    if bytes.len() >= MAX_HEAD { Err(TOO_LARGE) } else { Ok(None) }
}

const TOO_LARGE: Malformed = Malformed::too_large("the section is too large");

/// Whether the beginning of a head can still become one: noise is refused without waiting for its end.
pub(super) fn check_request_beginning(bytes: &[u8]) -> Result<(), Malformed> {
    if bytes.len() >= MAX_HEAD && memchr(b'\n', &bytes[..MAX_HEAD]).is_none() {
        return Err(Malformed { reason: Reason::UriTooLong, detail: "the request line is too long" });
    }
    let mut fields = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut []);
    request.parse_with_uninit_headers(bytes, &mut fields).map(|_| ()).map_err(malformed)
}

/// The same of a response.
pub(super) fn check_response_beginning(bytes: &[u8]) -> Result<(), Malformed> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    config
        .parse_response_with_uninit_headers(&mut response, bytes, &mut fields)
        .map(|_| ())
        .map_err(malformed)
}

/// Reads a whole request's head.
pub(super) fn request(head: &Bytes, lists: &mut Lists) -> Result<(Request<()>, Facts), Malformed> {
    let mut parsed = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut raw = httparse::Request::new(&mut []);
    match raw.parse_with_uninit_headers(head, &mut parsed) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        Ok(_) => return Err(Malformed::new("the head is none")),
        Err(error) => return Err(malformed(error)),
    }
    let complete = "httparse has read all of it";
    let method = Method::from_bytes(raw.method.expect(complete).as_bytes())
        .map_err(|_| Malformed::new("the method is no token"))?;
    let target = target(head, raw.path.expect(complete), &method)?;
    let is_http10 = raw.version.expect(complete) == 0;
    let Fields { headers, length, coding, hosts, options, expects_continue, takes_trailers, upgrade } =
        Fields::read(head, raw.headers, lists)?;
    if hosts > 1 {
        return Err(Malformed::new("more than one Host field"));
    }
    let decoder = match (coding, length) {
        (Coding::None, None) => Decoder::Done,
        (Coding::None, Some(length)) => Decoder::of_length(length),
        (Coding::Chunked, None) if !is_http10 => Decoder::chunked(),
        (Coding::Chunked, None) => return Err(Malformed::new("Transfer-Encoding in HTTP/1.0")),
        (_, Some(_)) => return Err(Malformed::new("both Content-Length and Transfer-Encoding")),
        (Coding::Other, None) => return Err(Malformed::new("Transfer-Encoding is not just `chunked`")),
    };
    let facts = Facts {
        decoder,
        keep_alive: options.keep_alive(is_http10),
        expects_continue: expects_continue && !is_http10,
        takes_trailers,
        upgrade: method == Method::CONNECT || upgrade && !is_http10,
    };
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = target;
    *request.version_mut() = if is_http10 { Version::HTTP_10 } else { Version::HTTP_11 };
    *request.headers_mut() = headers;
    Ok((request, facts))
}

/// Reads a whole response's head. `to_head`: it answers a HEAD request.
pub(super) fn response(
    head: &Bytes,
    to_head: bool,
    lists: &mut Lists,
) -> Result<(Response<()>, Facts), Malformed> {
    let mut parsed = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut raw = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    match config.parse_response_with_uninit_headers(&mut raw, head, &mut parsed) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        Ok(_) => return Err(Malformed::new("the head is none")),
        Err(error) => return Err(malformed(error)),
    }
    let complete = "httparse has read all of it";
    let status = StatusCode::from_u16(raw.code.expect(complete))
        .map_err(|_| Malformed::new("the status is no status"))?;
    let is_http10 = raw.version.expect(complete) == 0;
    let Fields { headers, length, coding, options, takes_trailers, .. } =
        Fields::read(head, raw.headers, lists)?;
    if !matches!(coding, Coding::None) && (is_http10 || length.is_some()) {
        return Err(Malformed::new("Transfer-Encoding with Content-Length, or in HTTP/1.0"));
    }
    // RFC 9112 6.3, in its order.
    let bodiless = to_head
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let decoder = match (coding, length) {
        _ if bodiless => Decoder::Done,
        (Coding::Chunked, _) => Decoder::chunked(),
        (Coding::Other, _) => return Err(Malformed::new("Transfer-Encoding is not just `chunked`")),
        (Coding::None, Some(length)) => Decoder::of_length(length),
        (Coding::None, None) => Decoder::UntilClose,
    };
    let facts = Facts {
        keep_alive: options.keep_alive(is_http10) && !matches!(decoder, Decoder::UntilClose),
        decoder,
        expects_continue: false,
        takes_trailers,
        upgrade: status == StatusCode::SWITCHING_PROTOCOLS,
    };
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.version_mut() = if is_http10 { Version::HTTP_10 } else { Version::HTTP_11 };
    *response.headers_mut() = headers;
    Ok((response, facts))
}

/// Reads a trailer section, its empty line included.
pub(super) fn trailers(section: &Bytes) -> Result<HeaderMap, Malformed> {
    let mut parsed = [httparse::EMPTY_HEADER; MAX_HEADERS];
    match httparse::parse_headers(section, &mut parsed) {
        Ok(httparse::Status::Complete((length, fields))) if length == section.len() => {
            let mut trailers = HeaderMap::with_capacity(fields.len());
            for field in fields {
                let (name, value) = name_and_value(section, field)?;
                if !headers::is_no_trailer(&name) {
                    trailers.append(name, value);
                }
            }
            Ok(trailers)
        }
        Ok(_) => Err(Malformed::new("the trailer section is none")),
        Err(error) => Err(malformed(error)),
    }
}

/// The request's target, in one of the four forms (RFC 9112 3.2).
fn target(head: &Bytes, text: &str, method: &Method) -> Result<Uri, Malformed> {
    let wrong = Malformed::new("the request's target is none");
    // http would cut a fragment off in silence; targets have none.
    if text.contains('#') {
        return Err(wrong);
    }
    let target = Uri::from_maybe_shared(head.slice_ref(text.as_bytes())).map_err(|_| wrong)?;
    let fits = match method {
        &Method::CONNECT => target.scheme().is_none() && target.authority().is_some(),
        _ if text == "*" => method == Method::OPTIONS,
        _ => target.scheme().is_some() || text.starts_with('/'),
    };
    if fits { Ok(target) } else { Err(wrong) }
}

/// A head's fields, with what they say of the connection.
struct Fields {
    headers: HeaderMap,
    length: Option<u64>,
    coding: Coding,
    hosts: usize,
    options: Options,
    expects_continue: bool,
    takes_trailers: bool,
    upgrade: bool,
}

enum Coding {
    None,
    Chunked,
    Other,
}

/// `Connection`'s, as far as they matter here.
#[derive(Default)]
struct Options {
    close: bool,
    keep_alive: bool,
}

impl Options {
    fn keep_alive(&self, is_http10: bool) -> bool {
        !self.close && (!is_http10 || self.keep_alive)
    }
}

impl Fields {
    fn read(head: &Bytes, parsed: &[httparse::Header<'_>], lists: &mut Lists) -> Result<Self, Malformed> {
        let mut fields = Self {
            // Some are added on the way: the list of names, and the host.
            headers: HeaderMap::with_capacity(parsed.len() + 2),
            length: None,
            coding: Coding::None,
            hosts: 0,
            options: Options::default(),
            expects_continue: false,
            takes_trailers: false,
            upgrade: false,
        };
        for field in parsed {
            let (name, value) = name_and_value(head, field)?;
            if name == CONTENT_LENGTH {
                let length = content_length(field.value)?;
                match fields.length.replace(length) {
                    None => {}
                    // The same once more says nothing new (RFC 9110 8.6).
                    Some(same) if same == length => continue,
                    Some(_) => return Err(Malformed::new("different Content-Lengths")),
                }
            } else if name == TRANSFER_ENCODING {
                let chunked = field.value.eq_ignore_ascii_case(b"chunked");
                let first = matches!(fields.coding, Coding::None);
                fields.coding = if chunked && first { Coding::Chunked } else { Coding::Other };
            } else if name == CONNECTION {
                for option in field.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    fields.options.close |= option.eq_ignore_ascii_case(b"close");
                    fields.options.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            } else if name == HOST {
                fields.hosts += 1;
            } else if name == EXPECT {
                fields.expects_continue |= field.value.eq_ignore_ascii_case(b"100-continue");
            } else if name == TE {
                let mut codings = field.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
                fields.takes_trailers |= codings.any(|coding| coding.eq_ignore_ascii_case(b"trailers"));
            } else if name == UPGRADE {
                fields.upgrade = true;
            }
            fields.headers.append(name, value);
        }
        // Whatever the peer itself says under that name is no list of ours.
        fields.headers.insert(NAMES, lists.of(parsed.iter().map(|field| field.name)));
        Ok(fields)
    }
}

fn name_and_value(
    section: &Bytes,
    field: &httparse::Header<'_>,
) -> Result<(HeaderName, HeaderValue), Malformed> {
    let name = HeaderName::from_bytes(field.name.as_bytes())
        .map_err(|_| Malformed::new("a field's name is none"))?;
    let value = HeaderValue::from_maybe_shared(section.slice_ref(field.value))
        .map_err(|_| Malformed::new("a field's value is none"))?;
    Ok((name, value))
}

/// Digits only, and not too many: no sign, no list.
fn content_length(value: &[u8]) -> Result<u64, Malformed> {
    let wrong = Malformed::new("Content-Length is no number");
    if value.is_empty() {
        return Err(wrong);
    }
    value.iter().try_fold(0_u64, |length, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0')).ok_or(wrong)?;
        length.checked_mul(10).and_then(|length| length.checked_add(digit)).ok_or(wrong)
    })
}

fn malformed(error: httparse::Error) -> Malformed {
    Malformed::new(match error {
        httparse::Error::TooManyHeaders => return Malformed::too_large("too many fields"),
        httparse::Error::HeaderName => "a field's name is none",
        httparse::Error::HeaderValue => "a field's value is none",
        httparse::Error::NewLine => "a line does not end as lines do",
        httparse::Error::Status => "the status is no status",
        httparse::Error::Token => "the first line is none",
        httparse::Error::Version => "the version is not HTTP/1",
    })
}
