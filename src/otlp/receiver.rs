//! The connection to whoever takes spans, and one batch sent over it. It goes past the mesh: it is not counted as a request, not
//! traced, and never leads back into this sidecar.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::{BufMut, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TE, USER_AGENT},
};
use http_body_util::{BodyExt, Limited};
use pillion_api::model::{Receiver, TraceCompression, TraceProtocol, Tracing};
use tokio::{
    sync::OnceCell,
    time::{Instant, timeout},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, pki_types::ServerName},
};

use super::answer::{self, Answer};
use crate::{
    error::{Reason, Refusal},
    http::{
        Body, NoInterim, Version,
        client::{Client, Connect},
        headers,
    },
    net::{
        connect::{self, leads_to},
        io::Io,
        read_ahead::ReadAhead,
        resolve::Resolver,
    },
    telemetry::hops::Timeline,
};

/// For resolving, TCP and TLS.
const CONNECT: Duration = Duration::from_secs(5);
/// For one try of a batch, connecting included.
const TRY: Duration = Duration::from_secs(10);
/// A connection without a batch for so long is closed.
const IDLE: Duration = Duration::from_secs(60);
/// Of an answer, bytes.
const LONGEST_ANSWER: usize = 64 * 1024;
/// <https://opentelemetry.io/docs/specs/otlp/#otlpgrpc>
const METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// <https://github.com/grpc/grpc/blob/master/doc/compression.md>
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const AGENT: &str = concat!("pillion-proxy/", env!("CARGO_PKG_VERSION"));

/// Sends batches to one receiver.
pub(super) struct Sender {
    tracing: Tracing,
    headers_file: Option<PathBuf>,
    client: Client<ToReceiver>,
}

impl Sender {
    /// Nothing is connected until the first batch.
    pub(super) fn new(
        tracing: Tracing,
        headers_file: Option<PathBuf>,
        resolver: Resolver,
        own: Arc<[SocketAddr]>,
    ) -> Self {
        let to = ToReceiver {
            receiver: tracing.endpoint.clone(),
            protocol: tracing.protocol,
            resolver,
            own,
            tls: OnceCell::new(),
        };
        Self { tracing, headers_file, client: Client::new(to, IDLE) }
    }

    /// Closes what has been idle for too long. To be called now and then.
    pub(super) fn sweep(&self) {
        self.client.sweep();
    }

    /// Sends a batch once.
    pub(super) async fn send(&self, batch: Bytes) -> Answer {
        match timeout(TRY, Box::pin(self.sent(batch))).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(why)) => answer::none(why),
            Err(_) => answer::none(format_args!("no answer within {TRY:?}")),
        }
    }

    async fn sent(&self, batch: Bytes) -> Result<Answer, String> {
        let (request, version) = self.request(batch).await?;
        let timeline = Timeline::new(Instant::now());
        let sent = self.client.send(request, version, &NoInterim, &timeline).await;
        let response = sent.map_err(|failure| failure.refusal.to_string())?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, LONGEST_ANSWER).collect().await.map_err(|error| error.to_string())?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        let body = body.to_bytes();
        Ok(match self.tracing.protocol {
            TraceProtocol::Grpc => answer::of_grpc(head.status, &head.headers, &trailers, &body),
            TraceProtocol::HttpProtobuf => {
                answer::of_http(head.status, &head.headers, body, SystemTime::now())
            }
        })
    }

    async fn request(&self, batch: Bytes) -> Result<(Request<Body>, Version), String> {
        let Tracing { endpoint, protocol, compression, .. } = &self.tracing;
        let scheme = if endpoint.tls { "https" } else { "http" };
        let (path, kind) = match protocol {
            TraceProtocol::Grpc => (METHOD.to_owned(), "application/grpc"),
            TraceProtocol::HttpProtobuf => (endpoint.traces_path(), "application/x-protobuf"),
        };
        let uri = format!("{scheme}://{}{path}", endpoint.authority());
        let request = Request::builder().method(Method::POST).uri(uri);
        let mut request = request.body(Body::Empty).map_err(|error| error.to_string())?;
        if let Some(file) = &self.headers_file {
            *request.headers_mut() = further(file).await?;
        }
        let fields = request.headers_mut();
        fields.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        fields.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        let is_packed = *compression != TraceCompression::None;
        if is_packed {
            let field = match protocol {
                TraceProtocol::Grpc => GRPC_ENCODING,
                TraceProtocol::HttpProtobuf => CONTENT_ENCODING,
            };
            fields.insert(field, HeaderValue::from_static(compression.as_str()));
        }
        Ok(match protocol {
            TraceProtocol::Grpc => {
                fields.insert(TE, HeaderValue::from_static("trailers"));
                *request.version_mut() = http::Version::HTTP_2;
                *request.body_mut() = Body::Full(framed(&batch, is_packed));
                (request, Version::Http2)
            }
            TraceProtocol::HttpProtobuf => {
                fields.insert(CONTENT_LENGTH, batch.len().into());
                headers::to_http1(&mut request);
                *request.body_mut() = Body::Full(batch);
                (request, Version::Http1)
            }
        })
    }
}

/// As one message of gRPC's, compressed or not.
fn framed(message: &Bytes, is_packed: bool) -> Bytes {
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(is_packed.into());
    framed.put_u32(u32::try_from(message.len()).expect("a batch has its bound"));
    framed.put_slice(message);
    framed.freeze()
}

/// What the receiver is to be sent besides, such as a key: read each time, so that it can be replaced.
async fn further(file: &Path) -> Result<HeaderMap, String> {
    let path = file.to_owned();
    let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(path)).await;
    let text =
        read.map_err(|error| error.to_string()).and_then(|read| read.map_err(|error| error.to_string()));
    text.and_then(|text| parse(&text)).map_err(|error| format!("{}: {error}", file.display()))
}

/// `name: value`, one a line; empty ones, and those that begin with `#`, are left out. No value is ever in an error.
fn parse(text: &str) -> Result<HeaderMap, String> {
    let mut fields = HeaderMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = || format!("line {}: is not NAME: VALUE", number + 1);
        let (name, value) = line.split_once(':').ok_or_else(wrong)?;
        let name: HeaderName = name.trim().parse().map_err(|_| wrong())?;
        let mut value: HeaderValue = value.trim().parse().map_err(|_| wrong())?;
        value.set_sensitive(true);
        fields.append(name, value);
    }
    Ok(fields)
}

/// Connects to the receiver.
#[derive(Debug)]
struct ToReceiver {
    receiver: Receiver,
    protocol: TraceProtocol,
    resolver: Resolver,
    own: Arc<[SocketAddr]>,
    /// Made with the first connection that needs it.
    tls: OnceCell<Arc<ClientConfig>>,
}

impl Connect for ToReceiver {
    async fn connect(&self, _: Version) -> Result<Io, Refusal> {
        let Receiver { host, port, tls, .. } = &self.receiver;
        let others = |address| match self.own.iter().any(|own| leads_to(address, *own)) {
            true => Err(Refusal::new(Reason::Connect, format_args!("{address} is this sidecar itself"))),
            false => Ok(()),
        };
        let tcp = connect::host(&self.resolver, (host, *port), CONNECT, others).await?;
        if !tls {
            return Ok(Io::Tcp(tcp));
        }
        let fault = |what: &dyn std::fmt::Display| {
            Refusal::new(Reason::TlsHandshake, format_args!("{}: {what}", self.receiver))
        };
        let config =
            self.tls.get_or_try_init(|| config(self.protocol)).await.map_err(|error| fault(&error))?;
        let name = ServerName::try_from(host.clone()).map_err(|error| fault(&error))?;
        let handshake = TlsConnector::from(config.clone()).connect(name, ReadAhead::new(tcp));
        match timeout(CONNECT, handshake).await {
            Ok(Ok(io)) => Ok(Io::Connected(Box::new(io))),
            Ok(Err(error)) => Err(fault(&error)),
            Err(_) => Err(fault(&format_args!("no handshake within {CONNECT:?}"))),
        }
    }
}

/// Believes whom this host believes, or the authorities in the file that `SSL_CERT_FILE` names, as OpenSSL has it.
async fn config(protocol: TraceProtocol) -> Result<Arc<ClientConfig>, String> {
    let loading = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs);
    let loaded = loading.await.map_err(|error| error.to_string())?;
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(loaded.certs);
    if added == 0 {
        let why = loaded.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
        return Err(format!(
            "this host has no certificate authorities (SSL_CERT_FILE may name a file of them){why}"
        ));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    let alpn: &[u8] = match protocol {
        TraceProtocol::Grpc => b"h2",
        TraceProtocol::HttpProtobuf => b"http/1.1",
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn further_fields_are_read_and_errors_keep_their_secrets() {
        let fields =
            parse("# of ours\n\nauthorization: Basic c2VjcmV0\r\nx-scope-orgid:  demo \n").expect("valid");
        assert_eq!(fields.len(), 2);
        assert_eq!(
            (&fields["authorization"], &fields["x-scope-orgid"]),
            (&"Basic c2VjcmV0".parse().expect("a value"), &"demo".parse().expect("a value"))
        );
        for (wrong, line) in [("secret", 1), ("\nx y: secret", 2), ("a: b\nx: secret\u{7f}", 2)] {
            assert_eq!(parse(wrong), Err(format!("line {line}: is not NAME: VALUE")));
        }
    }
}
