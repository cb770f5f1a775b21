//! gRPC through two sidecars: a unary call, a server stream, and statuses in trailers.

use bytes::Bytes;
use http::uri::PathAndQuery;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio_stream::Stream;
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::support::apps::App;
use crate::support::mesh::{Mesh, Sidecar, SidecarSpec};
use crate::support::soon;

/// Asks for so many numbers, and for the status at the end.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Count {
    #[prost(uint32, tag = "1")]
    pub(crate) to: u32,
    #[prost(int32, tag = "2")]
    pub(crate) then_status: i32,
}

/// One number.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Number {
    #[prost(uint32, tag = "1")]
    pub(crate) value: u32,
}

const METHOD: &str = "/test.Counter/Count";

/// A server of one connection.
pub(crate) async fn serve(stream: tokio::net::TcpStream) {
    let service = service_fn(|request: http::Request<hyper::body::Incoming>| async {
        let mut grpc = tonic::server::Grpc::new(ProstCodec::<Number, Count>::default());
        let count =
            tower::service_fn(|request: Request<Count>| async move { Ok(numbers(request.into_inner())) });
        Ok::<_, std::convert::Infallible>(grpc.server_streaming(count, request).await)
    });
    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

type Numbers = std::pin::Pin<Box<dyn Stream<Item = Result<Number, Status>> + Send>>;

fn numbers(count: Count) -> Response<Numbers> {
    let numbers = (0..count.to).map(|value| Ok(Number { value }));
    let end = match Code::from(count.then_status) {
        Code::Ok => None,
        code => {
            let mut status = Status::new(code, "counted enough");
            status.metadata_mut().insert("x-last", "here".parse().expect("a valid value"));
            Some(Err(status))
        }
    };
    let all: Vec<_> = numbers.chain(end).collect();
    let mut response: Response<Numbers> = Response::new(Box::pin(tokio_stream::iter(all)));
    response.metadata_mut().insert("x-first", "here".parse().expect("a valid value"));
    response
}

async fn call(
    caller: &Sidecar,
    host: &str,
    count: Count,
) -> Result<Response<tonic::Streaming<Number>>, Status> {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", caller.outbound()))
        .expect("a valid address")
        .origin(format!("http://{host}").parse().expect("a valid origin"));
    call_over(endpoint.connect_lazy(), count).await
}

/// A client's call.
pub(crate) async fn call_over(
    channel: tonic::transport::Channel,
    count: Count,
) -> Result<Response<tonic::Streaming<Number>>, Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let codec = ProstCodec::<Count, Number>::default();
    client.server_streaming(Request::new(count), PathAndQuery::from_static(METHOD), codec).await
}

struct Pair {
    _mesh: Mesh,
    _app: App,
    caller: Sidecar,
    _callee: Sidecar,
}

async fn pair() -> Pair {
    let mesh = Mesh::start().await;
    let app = App::start(serve).await;
    mesh.apply_service("counter", "grpc").await;
    let callee = mesh.sidecar(SidecarSpec::serving("counter-1", "counter", app.address)).await;
    let caller = mesh.sidecar(SidecarSpec::caller("client")).await;
    mesh.until_ready(&[&caller, &callee]).await;
    caller.until_endpoints("counter", 1).await;
    Pair { _mesh: mesh, _app: app, caller, _callee: callee }
}

#[tokio::test]
async fn a_server_stream_and_its_metadata() {
    let pair = pair().await;
    soon("a stream of 1,000 messages", async {
        let count = Count { to: 1000, then_status: 0 };
        let response = call(&pair.caller, "counter.demo.mesh", count).await.expect("the call is answered");
        assert_eq!(response.metadata().get("x-first").map(|value| value.as_bytes()), Some(&b"here"[..]));
        let mut stream = response.into_inner();
        for expected in 0..1000 {
            let number = stream.message().await.expect("no error in between").expect("1,000 of them");
            assert_eq!(number.value, expected);
        }
        assert_eq!(stream.message().await.expect("status OK in the trailers"), None);
    })
    .await;
}

#[tokio::test]
async fn a_status_in_the_trailers_reaches_the_caller() {
    let pair = pair().await;
    soon("a stream that ends with a status", async {
        let count = Count { to: 3, then_status: Code::ResourceExhausted as i32 };
        let mut stream =
            call(&pair.caller, "counter.demo.mesh", count).await.expect("the call is answered").into_inner();
        for _ in 0..3 {
            stream.message().await.expect("no error in between").expect("three of them");
        }
        let status = stream.message().await.expect_err("then the status");
        assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, "counted enough"));
        let last = status.metadata().get("x-last").map(|value| Bytes::copy_from_slice(value.as_bytes()));
        assert_eq!(last.as_deref(), Some(&b"here"[..]));
    })
    .await;
}

#[tokio::test]
async fn a_refusal_is_a_grpc_status() {
    let pair = pair().await;
    soon("a refusal", async {
        let count = Count { to: 1, then_status: 0 };
        let status = call(&pair.caller, "nobody.demo.mesh", count).await.expect_err("nobody is there");
        assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
        let reason = status.metadata().get("pillion-error").map(|value| value.to_str().unwrap_or_default());
        assert!(reason.is_some_and(|reason| reason.starts_with("unknown-service")), "{status:?}");
    })
    .await;
}
