//! Header rules of a proxy: hop-by-hop fields, our own private fields, and the host a request is for.

use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Uri,
    header::{
        AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
        CONTENT_TYPE, COOKIE, HOST, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
    },
    uri::{Authority, PathAndQuery, Scheme},
};
use pillion_api::hops::Report;
use pillion_certs::SpiffeId;

use super::deadline::TIMEOUT;
use crate::{
    error::{Reason, Refusal},
    telemetry::trace::context::TRACEPARENT,
};

/// Names the refusing proxy and its reason, on every answer that a proxy made itself.
pub const ERROR: HeaderName = HeaderName::from_static("pillion-error");
/// On an answer of a fallback: `<reason>; to=<service or response>`.
pub const FALLBACK: HeaderName = HeaderName::from_static("pillion-fallback");

/// On an error: how many attempts there were, if more than one.
pub const ATTEMPTS: HeaderName = HeaderName::from_static("pillion-attempts");

/// Which attempt of its request this is, on all but the first. The application sees it, and may pass it on with the requests that it
/// makes for this one: those are then not repeated at each hop anew.
pub const ATTEMPT: HeaderName = HeaderName::from_static("x-pillion-attempt");

/// In here and between sidecars: the message came as HTTP/1, must reach its receiver as such, and its fields were written
/// like this, in this order. No application ever sees it.
pub const NAMES: HeaderName = HeaderName::from_static("pillion-names");

/// Between sidecars: on a request, the forms in which its sender understands [`pillion_api::hops::Report`]; on a response, such
/// a report; in its trailers, how long the application was waited for after it had begun to answer. No application ever sees it.
pub const HOPS: HeaderName = HeaderName::from_static("pillion-hops");

/// Whose request it is, proven: told to the application by its own sidecar, in Envoy's words, and by nobody else.
/// <https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers#x-forwarded-client-cert>
pub const CLIENT_CERTIFICATE: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// Fields that start like this are ours alone: taken off whatever comes from an application.
const PRIVATE: &str = "pillion-";

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
/// What `Connection` may not take off, whatever a client writes there: it concerns both ends.
const END_TO_END: [HeaderName; 10] = [
    NAMES,
    HOST,
    AUTHORIZATION,
    COOKIE,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    CONTENT_ENCODING,
    TE,
    TRAILER,
    CACHE_CONTROL,
];
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
/// What `Connection` says besides naming fields: `close` is no field's name, the other goes anyway.
const CONNECTION_OPTIONS: [HeaderName; 2] = [HeaderName::from_static("close"), KEEP_ALIVE];
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

/// Takes off what concerns one connection only (RFC 9110 7.6.1), including every field that `Connection` names.
/// `TE: trailers` stays, as gRPC and HTTP/1 trailers need it end to end; an upgrade is kept only where `upgrade`
/// says that this hop will carry it on.
pub fn strip_hop_by_hop(headers: &mut HeaderMap, upgrade: bool) {
    // Most messages have few of these or none: one look at each name there is, not one for each that may be.
    let present = HopByHop::among(headers);
    if !present.any() {
        return;
    }
    let upgrade_to = if upgrade { headers.remove(UPGRADE) } else { None };
    if present.connection {
        let named: Vec<HeaderName> = list(headers, &CONNECTION)
            .filter_map(|name| name.parse().ok())
            .filter(|name| !END_TO_END.contains(name) && !CONNECTION_OPTIONS.contains(name))
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    if present.others {
        for name in [KEEP_ALIVE, PROXY_CONNECTION, TRANSFER_ENCODING, UPGRADE, HTTP2_SETTINGS] {
            headers.remove(name);
        }
    }
    if present.te {
        let trailers = list(headers, &TE).any(|coding| coding.eq_ignore_ascii_case("trailers"));
        headers.remove(TE);
        if trailers {
            headers.insert(TE, TRAILERS);
        }
    }
    if let Some(protocol) = upgrade_to {
        headers.insert(UPGRADE, protocol);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// Which hop-by-hop fields a message has.
#[derive(Default)]
struct HopByHop {
    connection: bool,
    te: bool,
    others: bool,
}

impl HopByHop {
    fn among(headers: &HeaderMap) -> Self {
        let mut present = Self::default();
        for name in headers.keys() {
            match name.as_str() {
                "connection" => present.connection = true,
                "te" => present.te = true,
                "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade" | "http2-settings" => {
                    present.others = true;
                }
                _ => {}
            }
        }
        present
    }

    fn any(&self) -> bool {
        self.connection || self.te || self.others
    }
}

/// The members of a field that is a list (RFC 9110 5.6.1).
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// The same rules as for final responses, for an interim one.
pub fn clean_interim(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers, false);
    strip_private(headers, true);
}

/// Whether a field must not be a trailer (RFC 9110 6.5.1): framing, routing, what must be known before the content, what
/// concerns one connection, and what is ours.
pub fn is_no_trailer(name: &HeaderName) -> bool {
    const NEVER: [HeaderName; 15] = [
        AUTHORIZATION,
        CONNECTION,
        CONTENT_ENCODING,
        CONTENT_LENGTH,
        CONTENT_RANGE,
        CONTENT_TYPE,
        HOST,
        SET_COOKIE,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        HTTP2_SETTINGS,
    ];
    NEVER.contains(name) || is_private(name)
}

/// Takes out what must not be a trailer.
pub fn clean_trailers(trailers: &mut HeaderMap) {
    let never: Vec<HeaderName> = trailers.keys().filter(|name| is_no_trailer(name)).cloned().collect();
    for name in never {
        trailers.remove(name);
    }
}

fn is_private(name: &HeaderName) -> bool {
    // With underscores it would be the same to CGI and WSGI, which make one of both.
    let name = name.as_str();
    name.starts_with(PRIVATE) || name == CLIENT_CERTIFICATE.as_str() || name == "x_forwarded_client_cert"
}

/// What stands in [`CLIENT_CERTIFICATE`]. Without `Hash`: certificates are renewed every few hours, identities stay.
pub fn client_certificate(own: &SpiffeId, peer: &SpiffeId) -> HeaderValue {
    HeaderValue::try_from(format!("By={own};URI={peer}")).expect("SPIFFE IDs are visible ASCII")
}

/// Takes off every private field: an application must not speak as a proxy. Of a message that is or was HTTP/1, as
/// `http1` says, the list of names stays: whoever read the message as HTTP/1 has made it.
pub fn strip_private(headers: &mut HeaderMap, http1: bool) {
    let is_private = |name: &&HeaderName| is_private(name) && !(http1 && **name == NAMES);
    if headers.keys().any(|name| is_private(&name)) {
        let private: Vec<HeaderName> = headers.keys().filter(is_private).cloned().collect();
        for name in private {
            headers.remove(name);
        }
    }
}

/// Of what a sidecar adds for a trace, a deadline or a try, bytes; a `traceparent` has 55.
const LONGEST_ADDED: usize = 64;

/// The fields of a request that were there before sidecars added theirs: a trace's beginning, a deadline, and what is private
/// between them. None of those stays off the count that a caller has sent more than once, or longer than sidecars write it.
pub fn of_caller(headers: &HeaderMap) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
    let mut spared = [(TRACEPARENT, false), (TIMEOUT, false), (ATTEMPT, false)];
    headers.iter().filter(move |(name, value)| {
        let known = spared.iter_mut().find(|(known, _)| known == name && value.len() <= LONGEST_ADDED);
        let again = known.is_none_or(|(_, seen)| std::mem::replace(seen, true));
        again && !is_private(name)
    })
}

/// The one form of a report that there is (yet).
const HOPS_FORM: HeaderValue = HeaderValue::from_static("1");

/// Asks the callee's sidecar where the request's time goes.
pub fn ask_hops(headers: &mut HeaderMap) {
    headers.insert(HOPS, HOPS_FORM);
}

/// Whether the caller's sidecar asks that, and understands the answer. Takes the field off.
pub fn takes_hops(headers: &mut HeaderMap) -> bool {
    // Forms that are yet to come may be named beside ours.
    headers
        .remove(HOPS)
        .is_some_and(|forms| forms.as_bytes().split(|byte| *byte == b',').any(|form| form == b"1"))
}

/// What the callee's sidecar says of it, if it says anything that is understood. Takes the field off.
pub fn take_report(headers: &mut HeaderMap) -> Option<Report> {
    headers.remove(HOPS).and_then(|report| Report::read(report.as_bytes()))
}

/// Whether the request asks to turn its connection into another protocol (WebSocket, for one). Not to HTTP/2, which
/// would be a tunnel past everything that is decided by request (RFC 9113 has withdrawn it).
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE)
        && !list(headers, &UPGRADE).any(|protocol| protocol.eq_ignore_ascii_case("h2c"))
        && list(headers, &CONNECTION).any(|option| option.eq_ignore_ascii_case("upgrade"))
}

/// Whether a message is gRPC's.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|content_type| content_type.as_bytes().starts_with(b"application/grpc"))
}

/// The host (and port) that a request is for: the target's authority where it has one, else `Host` (RFC 9112 3.2).
/// `None`: it names none.
///
/// # Errors
/// [`Reason::MalformedRequest`]: several hosts, or one that is none.
pub fn authority<B>(request: &Request<B>) -> Result<Option<Authority>, Refusal> {
    let malformed = |detail: &str| Refusal::new(Reason::MalformedRequest, detail);
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(malformed("more than one Host field"));
    }
    let authority = match (request.uri().authority(), host) {
        // RFC 9113 8.3.1. In HTTP/1, a proxy goes by the target, and Host is written anew (RFC 9112 3.2.2).
        (Some(authority), Some(host))
            if request.version() == http::Version::HTTP_2
                && !authority.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes()) =>
        {
            return Err(malformed("Host is not what :authority is"));
        }
        (Some(authority), _) => authority.clone(),
        (None, None) => return Ok(None),
        (None, Some(host)) if host.is_empty() => return Ok(None),
        (None, Some(host)) => {
            Authority::try_from(host.as_bytes()).map_err(|_| malformed("the Host field is no host"))?
        }
    };
    if authority.as_str().contains('@') || authority.host().is_empty() {
        return Err(malformed("the host has a user, or no name"));
    }
    let port = &authority.as_str()[authority.host().len()..];
    if port.len() > 1 && authority.port_u16().is_none() {
        return Err(malformed("the host's port is none"));
    }
    Ok(Some(authority))
}

/// Rewrites a request into HTTP/2's form: scheme and authority in the target.
pub fn to_http2<B>(request: &mut Request<B>, authority: Authority) {
    set_target(request, Some((Scheme::HTTP, authority)));
    // What is to be HTTP/1 again keeps it, for its place among the fields.
    if !request.headers().contains_key(NAMES) {
        request.headers_mut().remove(HOST);
    }
    *request.version_mut() = http::Version::HTTP_2;
}

/// Makes one `Cookie` field of what HTTP/2 may send as several (RFC 9113 8.2.3).
pub fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_some() {
        let all: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
        let joined = HeaderValue::from_bytes(&all.join(&b"; "[..])).expect("of values");
        headers.insert(COOKIE, joined);
    }
}

/// Rewrites a request into HTTP/1's origin form, with its authority in `Host`.
pub fn to_http1<B>(request: &mut Request<B>) {
    if let Some(authority) = request.uri().authority() {
        if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
            request.headers_mut().insert(HOST, host);
        }
        set_target(request, None);
    }
    *request.version_mut() = http::Version::HTTP_11;
}

fn set_target<B>(request: &mut Request<B>, base: Option<(Scheme, Authority)>) {
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    (parts.scheme, parts.authority) = base.unzip();
    let path = parts.path_and_query.get_or_insert_with(|| PathAndQuery::from_static("/"));
    // A target in absolute form may have a query only, or nothing.
    if path.as_str().is_empty() || path.as_str().starts_with('?') {
        let rooted = format!("/{}", path.as_str());
        *path = PathAndQuery::try_from(rooted).expect("a query after a slash");
    }
    *request.uri_mut() = Uri::from_parts(parts).expect("parts of a valid URI with a path fit together");
}

#[cfg(test)]
mod tests;
