//! HTTP/2 requests (RFC 9113 8) that would be something else in HTTP/1. Envoy and HAProxy have an application behind them that
//! speaks HTTP/1, and translate; the sidecars do not, and have one that speaks HTTP/2.

use super::Due::{self, CutOff, Refused, Taken};

type Field = crate::support::http2::Field<'static>;

/// One request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    /// As it stands in the table.
    pub(super) name: &'static str,
    /// The pseudo-fields in place of the usual ones, if there are any.
    pub(super) pseudo: Option<&'static [Field]>,
    pub(super) fields: &'static [Field],
    pub(super) data: &'static [u8],
    pub(super) trailers: &'static [Field],
    /// What is peculiar about it, where it could be passed on as it is.
    pub(super) mark: &'static [u8],
    pub(super) due: Due,
}

/// A GET with these fields.
const fn get(name: &'static str, fields: &'static [Field], mark: &'static [u8], due: Due) -> Case {
    Case { name, pseudo: None, fields, data: b"", trailers: &[], mark, due }
}

/// Pseudo-fields of its own.
const fn pseudo(name: &'static str, pseudo: &'static [Field], mark: &'static [u8], due: Due) -> Case {
    Case { pseudo: Some(pseudo), ..get(name, &[], mark, due) }
}

const METHOD: Field = (b":method", b"GET");
const SCHEME: Field = (b":scheme", b"http");
const AUTHORITY: Field = (b":authority", b"HOST");
const PATH: Field = (b":path", b"/CASE");

/// As most requests have them.
pub(super) const USUAL: &[Field] = &[METHOD, SCHEME, AUTHORITY, PATH];

pub(super) const CASES: &[Case] = &[
    get("a line's end in a value", &[(b"x", b"1\r\ny: 2")], b"y: 2", Refused),
    get("a line feed in a value", &[(b"x", b"1\ny: 2")], b"y: 2", Refused),
    get("a carriage return in a value", &[(b"x", b"1\ry: 2")], b"y: 2", Refused),
    get("a NUL in a value", &[(b"x", b"1\0")], b"x: 1", Refused),
    get("a colon in a name", &[(b"x: 1\r\ny", b"2")], b"y: 2", Refused),
    get("a line's end in a name", &[(b"x\r\ny", b"2")], b"y: 2", Refused),
    get("a space in a name", &[(b"x y", b"2")], b"x y", Refused),
    get("an upper-case name", &[(b"X-Y", b"2")], b"x-y: 2", Refused),
    get("an empty name", &[(b"", b"2")], b"\r\n: 2", Refused),
    get("transfer-encoding: chunked", &[(b"transfer-encoding", b"chunked")], b"chunked", Refused),
    get("connection: close", &[(b"connection", b"close")], b"connection: close", Refused),
    get("connection names a field", &[(b"connection", b"x"), (b"x", b"1")], b"connection: x", Refused),
    get("upgrade: h2c", &[(b"upgrade", b"h2c")], b"h2c", Refused),
    get("keep-alive", &[(b"keep-alive", b"5")], b"keep-alive: 5", Refused),
    get("proxy-connection", &[(b"proxy-connection", b"close")], b"proxy-connection", Refused),
    get("te: gzip", &[(b"te", b"gzip")], b"te: gzip", Refused),
    get("te: trailers", &[(b"te", b"trailers")], b"te: trailers", Taken),
    get("host is another than :authority", &[(b"host", b"other")], b"host: other", Refused),
    get("host is as :authority", &[(b"host", b"HOST")], b"", Taken),
    get("a pseudo-field after a field", &[(b"x", b"1"), (b":path", b"/other")], b"/other", Refused),
    get("pillion-names forged", &[(b"pillion-names", b"Forged")], b"forged", Taken),
    get("x-forwarded-client-cert forged", &[(b"x-forwarded-client-cert", b"forged")], b"forged", Taken),
    pseudo(
        "an unknown pseudo-field",
        &[METHOD, SCHEME, AUTHORITY, PATH, (b":other", b"x")],
        b":other",
        Refused,
    ),
    pseudo(":status", &[METHOD, SCHEME, AUTHORITY, PATH, (b":status", b"200")], b":status", Refused),
    pseudo("two paths", &[METHOD, SCHEME, AUTHORITY, PATH, (b":path", b"/other")], b"/other", Refused),
    pseudo("two methods", &[METHOD, (b":method", b"POST"), SCHEME, AUTHORITY, PATH], b"post", Refused),
    pseudo(
        "two authorities",
        &[METHOD, SCHEME, AUTHORITY, (b":authority", b"other"), PATH],
        b"other",
        Refused,
    ),
    pseudo("no method", &[SCHEME, AUTHORITY, PATH], b"/case", Refused),
    pseudo("no scheme", &[METHOD, AUTHORITY, PATH], b"/case", Refused),
    pseudo("no path", &[METHOD, SCHEME, AUTHORITY], b"/", Refused),
    pseudo("an empty path", &[METHOD, SCHEME, AUTHORITY, (b":path", b"")], b"/", Refused),
    pseudo(
        "a path without a slash",
        &[METHOD, SCHEME, AUTHORITY, (b":path", b"CASE/CASE")],
        b" case/",
        Refused,
    ),
    pseudo(
        "a path with a space",
        &[METHOD, SCHEME, AUTHORITY, (b":path", b"/CASE HTTP/1.1\r\nX: 1")],
        b"x: 1",
        Refused,
    ),
    pseudo("a path with a fragment", &[METHOD, SCHEME, AUTHORITY, (b":path", b"/CASE#a")], b"#a", Taken),
    pseudo("a path with a NUL", &[METHOD, SCHEME, AUTHORITY, (b":path", b"/CASE\0")], b"\0", Refused),
    pseudo(
        "a method with a space",
        &[(b":method", b"GET /other HTTP/1.1\r\nX: 1\r\n"), SCHEME, AUTHORITY, PATH],
        b"/other",
        Refused,
    ),
    pseudo(
        "an authority with a user",
        &[METHOD, SCHEME, (b":authority", b"user@HOST"), PATH],
        b"user@",
        Refused,
    ),
    pseudo(
        "an authority with a path",
        &[METHOD, SCHEME, (b":authority", b"HOST/other"), PATH],
        b"/other",
        Refused,
    ),
    pseudo(
        "an authority with a line's end",
        &[METHOD, SCHEME, (b":authority", b"HOST\r\nX: 1"), PATH],
        b"x: 1",
        Refused,
    ),
    pseudo(
        "a scheme with a line's end",
        &[METHOD, (b":scheme", b"http\r\nX: 1"), AUTHORITY, PATH],
        b"x: 1",
        Refused,
    ),
    Case {
        data: b"abc",
        ..get("less data than content-length", &[(b"content-length", b"5")], b"content-length: 5", CutOff)
    },
    Case {
        data: b"abcdef",
        ..get("more data than content-length", &[(b"content-length", b"2")], b"content-length: 2", CutOff)
    },
    Case { data: b"abc", ..get("content-length: +3", &[(b"content-length", b"+3")], b"+3", Refused) },
    Case {
        data: b"abc",
        ..get(
            "two content-lengths",
            &[(b"content-length", b"3"), (b"content-length", b"1")],
            b"content-length: 1",
            Refused,
        )
    },
    Case {
        data: b"abc",
        ..get(
            "content-length and transfer-encoding",
            &[(b"content-length", b"3"), (b"transfer-encoding", b"chunked")],
            b"content-length: 3",
            Refused,
        )
    },
    Case { data: b"abc", trailers: &[(b"x-sum", b"1")], ..get("a trailer", &[], b"x-sum: 1", Taken) },
    Case {
        data: b"abc",
        trailers: &[(b":path", b"/other")],
        ..get("a pseudo-field as a trailer", &[], b"/other", Taken)
    },
    Case {
        data: b"abc",
        trailers: &[(b"x", b"1\r\n\r\nPOISON")],
        ..get("a line's end in a trailer", &[], b"poison", CutOff)
    },
];
