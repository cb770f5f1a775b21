//! One question to the application, and what its answer means.

use std::{net::SocketAddr, time::Duration};

use pillion_api::model::Probe;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::{Code, codegen::http::uri::PathAndQuery, transport::Endpoint};
use tonic_prost::ProstCodec;

/// Asks once.
///
/// # Errors
/// What is wrong, in words.
pub async fn ask(address: SocketAddr, probe: &Probe, timeout: Duration) -> Result<(), String> {
    let asking = async {
        match probe {
            Probe::Tcp => connect(address).await.map(drop),
            Probe::Http { path, host, expected } => http(address, path, host.as_deref(), expected).await,
            // The largest of the three by far, and the rarest.
            Probe::Grpc { service } => Box::pin(grpc(address, service)).await,
        }
    };
    let answer = tokio::time::timeout(timeout, asking).await;
    answer.unwrap_or_else(|_| Err(format!("{address}: no answer within {timeout:?}")))
}

async fn connect(address: SocketAddr) -> Result<TcpStream, String> {
    TcpStream::connect(address).await.map_err(|error| format!("{address}: {error}"))
}

async fn http(address: SocketAddr, path: &str, host: Option<&str>, expected: &[u16]) -> Result<(), String> {
    let mut stream = connect(address).await?;
    let own = address.to_string();
    let host = host.unwrap_or(&own);
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: pillion-health\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.map_err(|error| format!("{address}: {error}"))?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.map_err(|error| format!("{address}: {error}"))?;
    let status = std::str::from_utf8(&head).ok().and_then(|line| line.strip_prefix("HTTP/1."));
    match status.and_then(|line| line.get(2..)).and_then(|code| code.parse::<u16>().ok()) {
        Some(200..=399) if expected.is_empty() => Ok(()),
        Some(code) if expected.contains(&code) => Ok(()),
        Some(code) => Err(format!("{address}{path} answers {code}")),
        None => Err(format!("{address} does not speak HTTP/1")),
    }
}

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// <https://github.com/grpc/grpc/blob/master/doc/health-checking.md>
async fn grpc(address: SocketAddr, service: &str) -> Result<(), String> {
    const CHECK: PathAndQuery = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let wrong = |what: &dyn std::fmt::Display| format!("{address}: {what}");
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| wrong(&error))?;
    let channel = endpoint.connect().await.map_err(|error| match std::error::Error::source(&error) {
        Some(source) => wrong(&source),
        None => wrong(&error),
    })?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| wrong(&error))?;
    let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let request = tonic::Request::new(HealthCheckRequest { service: service.to_owned() });
    let answer: Result<tonic::Response<HealthCheckResponse>, _> = client.unary(request, CHECK, codec).await;
    let of = if service.is_empty() { String::new() } else { format!(" {service}") };
    match answer {
        Ok(answer) => match answer.into_inner().status {
            1 => Ok(()),
            2 => Err(format!("{address}{of} says NOT_SERVING")),
            other => Err(format!("{address}{of} says that its health is {other}")),
        },
        Err(status) if status.code() == Code::NotFound => Err(format!("{address} knows no service{of}")),
        Err(status) if status.code() == Code::Unimplemented => {
            Err(format!("{address} does not implement grpc.health.v1"))
        }
        Err(status) => Err(format!("{address}: {:?}: {}", status.code(), status.message())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    async fn answering(response: &'static str) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 256];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(response.as_bytes()).await;
            }
        });
        address
    }

    #[tokio::test]
    async fn answers_are_judged() {
        for (response, expected, verdict) in [
            ("HTTP/1.1 200 OK\r\n\r\n", vec![], Ok(())),
            ("HTTP/1.0 302 Found\r\n\r\n", vec![], Ok(())),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n", vec![], Err("answers 503")),
            ("HTTP/1.1 200 OK\r\n\r\n", vec![204, 503], Err("answers 200")),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n", vec![204, 503], Ok(())),
            ("SSH-2.0-OpenSSH_9\r\n", vec![], Err("does not speak HTTP/1")),
        ] {
            let probe = Probe::Http { path: "/healthz".into(), host: Some("app".into()), expected };
            match (ask(answering(response).await, &probe, PATIENCE).await, verdict) {
                (Ok(()), Ok(())) => {}
                (Err(reason), Err(words)) => assert!(reason.contains(words), "{reason}"),
                (result, _) => panic!("{response}: {result:?}"),
            }
        }
    }

    #[tokio::test]
    async fn silence_is_a_failure_in_time() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        for probe in [
            Probe::Http { path: "/".into(), host: None, expected: Vec::new() },
            Probe::Grpc { service: String::new() },
        ] {
            let reason = ask(address, &probe, Duration::from_millis(50)).await.expect_err("it says nothing");
            assert!(reason.ends_with("no answer within 50ms"), "{reason}");
        }
    }
}
