//! What of a request is hashed to choose an endpoint, and the hash itself: every sidecar must come to the same.

use std::borrow::Cow;

use http::{HeaderMap, header::COOKIE};

use crate::{
    model::HashOn,
    route::{RequestHead, parameter},
};

/// What a request is known by to a balancer that hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key<'a> {
    /// A hash of what it has.
    Hash(u64),
    /// It has not got this cookie, which is to be made for it.
    Make(&'a HashOn),
    /// It has nothing of all.
    None,
}

/// The key of an HTTP request: of the first that it has.
pub fn key<'a>(on: &'a [HashOn], head: RequestHead<'_>, source: &str) -> Key<'a> {
    for one in on {
        let found = match one {
            HashOn::Header(name) => head.headers.get(name).map(|value| hash(value.as_bytes())),
            HashOn::Cookie { name, ttl } => match cookie(head.headers, name) {
                None if ttl.is_some() => return Key::Make(one),
                found => found.map(hash),
            },
            HashOn::QueryParameter(name) => parameter(head.uri.query().unwrap_or_default(), name)
                .map(|value: Cow<'_, str>| hash(value.as_bytes())),
            HashOn::Source => Some(hash(source.as_bytes())),
        };
        if let Some(found) = found {
            return Key::Hash(found);
        }
    }
    Key::None
}

/// The key of a connection of which nothing is known but who opened it.
pub fn connection_key(on: &[HashOn], source: &str) -> Option<u64> {
    on.contains(&HashOn::Source).then(|| hash(source.as_bytes()))
}

/// The value of a request's cookie (RFC 6265 5.4), without quotes around it.
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let mut pairs =
        headers.get_all(COOKIE).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    pairs.find_map(|pair| {
        let value =
            pair.trim_ascii_start().strip_prefix(name.as_bytes())?.strip_prefix(b"=")?.trim_ascii_end();
        Some(value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value))
    })
}

/// FNV-1a with the finish of MurmurHash3: short texts come out evenly spread in every bit. It is part of the protocol: sidecars
/// of different releases must send the same key to the same endpoint.
pub fn hash(bytes: &[u8]) -> u64 {
    mix(bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)))
}

/// Another hash of a hash.
pub fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// A hash as a number in 0..1.
pub fn fraction(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderName, Method, Request};

    use super::*;

    fn key_of<'a>(on: &'a [HashOn], uri: &str, headers: &[(&str, &str)]) -> Key<'a> {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        let head = RequestHead { method: &Method::GET, uri: &parts.uri, headers: &parts.headers };
        key(on, head, "web-1")
    }

    #[test]
    fn the_first_that_a_request_has_decides() {
        let on = [
            HashOn::Header(HeaderName::from_static("x-user")),
            HashOn::Cookie { name: "sid".into(), ttl: None },
            HashOn::QueryParameter("user".into()),
        ];
        let of = |text: &str| Key::Hash(hash(text.as_bytes()));
        for (uri, headers, expected) in [
            ("/", &[("x-user", "a"), ("cookie", "sid=b")][..], of("a")),
            ("/?user=c", &[("cookie", "x=1; sid=b ;y=2")], of("b")),
            ("/", &[("cookie", "x=1"), ("cookie", "sid=\"b\"")], of("b")),
            ("/?user=c%20d&user=e", &[("cookie", "asid=1; sid2=2")], of("c d")),
            ("/?other=1", &[], Key::None),
        ] {
            assert_eq!(key_of(&on, uri, headers), expected, "{uri} {headers:?}");
        }
        let source = [&on[..], &[HashOn::Source]].concat();
        assert_eq!(key_of(&source, "/", &[]), of("web-1"));
        assert_eq!(
            (connection_key(&source, "web-1"), connection_key(&on, "web-1")),
            (Some(hash(b"web-1")), None)
        );
    }

    #[test]
    fn a_cookie_of_ours_is_made_where_it_is_absent() {
        let ours = [HashOn::Cookie { name: "sid".into(), ttl: Some(Duration::ZERO) }];
        assert_eq!(key_of(&ours, "/", &[]), Key::Make(&ours[0]));
        assert_eq!(key_of(&ours, "/", &[("cookie", "sid=b")]), Key::Hash(hash(b"b")));
    }

    #[test]
    fn hashes_stay_what_they_are_and_are_even() {
        assert_eq!(hash(b"payments-1"), 0x37e2_1b11_194e_e991);
        let mut counts = [0; 16];
        for number in 0..16_000 {
            counts[(hash(format!("u{number}").as_bytes()) >> 60) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
        assert!((0.49..0.51).contains(&fraction(u64::MAX / 2)) && fraction(u64::MAX) < 1.0);
    }
}
