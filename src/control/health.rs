//! Asks the application how it is, about once a second, and tells the control plane when that changes.

use std::{net::SocketAddr, time::Duration};

use pillion_api::wire::Health;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
};

use crate::config::HealthCheck;

/// Between checks.
const INTERVAL: Duration = Duration::from_secs(1);
/// For one check.
const TIMEOUT: Duration = Duration::from_secs(1);
/// So many in a row make an application unready; one success makes it ready.
const FAILURES: u32 = 2;

/// Checks for ever; every change is seen in `health`.
pub async fn check(how: HealthCheck, health: watch::Sender<Health>) {
    let mut failures = FAILURES - 1;
    loop {
        let next = match once(&how).await {
            Ok(()) => {
                failures = 0;
                Some(Health { ready: true, reason: String::new() })
            }
            Err(reason) => {
                failures = failures.saturating_add(1);
                (failures >= FAILURES).then_some(Health { ready: false, reason })
            }
        };
        health.send_if_modified(|current| match next {
            // A reason may change often; readiness is what others act on.
            Some(next) if next.ready != current.ready || current.reason.is_empty() && !next.ready => {
                tracing::info!(ready = next.ready, reason = next.reason, "the application's health");
                *current = next;
                true
            }
            _ => false,
        });
        if how == HealthCheck::None {
            return std::future::pending().await;
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Checks once.
///
/// # Errors
/// What is wrong, in words.
pub async fn once(how: &HealthCheck) -> Result<(), String> {
    tokio::time::timeout(TIMEOUT, answer(how))
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {TIMEOUT:?}")))
}

async fn answer(how: &HealthCheck) -> Result<(), String> {
    match how {
        HealthCheck::None => Ok(()),
        HealthCheck::Tcp(address) => connect(*address).await.map(drop),
        HealthCheck::Http { address, path } => {
            let mut stream = connect(*address).await?;
            let request = format!(
                "GET {path} HTTP/1.1\r\nhost: {address}\r\nuser-agent: pillion-health\r\nconnection: close\r\n\r\n"
            );
            stream.write_all(request.as_bytes()).await.map_err(|error| format!("{address}: {error}"))?;
            let mut head = [0; 12];
            stream.read_exact(&mut head).await.map_err(|error| format!("{address}: {error}"))?;
            let status = std::str::from_utf8(&head).ok().and_then(|line| line.strip_prefix("HTTP/1."));
            match status.and_then(|line| line.get(2..)).and_then(|code| code.parse::<u16>().ok()) {
                Some(200..=399) => Ok(()),
                Some(code) => Err(format!("{address}{path} answers {code}")),
                None => Err(format!("{address} does not speak HTTP/1")),
            }
        }
    }
}

async fn connect(address: SocketAddr) -> Result<tokio::net::TcpStream, String> {
    tokio::net::TcpStream::connect(address).await.map_err(|error| format!("{address}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        for (response, expected) in [
            ("HTTP/1.1 200 OK\r\n\r\n", Ok(())),
            ("HTTP/1.0 302 Found\r\n\r\n", Ok(())),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n", Err("answers 503")),
            ("SSH-2.0-OpenSSH_9\r\n", Err("does not speak HTTP/1")),
        ] {
            let how = HealthCheck::Http { address: answering(response).await, path: "/healthz".into() };
            match (once(&how).await, expected) {
                (Ok(()), Ok(())) => {}
                (Err(reason), Err(words)) => assert!(reason.contains(words), "{reason}"),
                (result, _) => panic!("{response}: {result:?}"),
            }
        }
    }

    #[tokio::test]
    async fn changes_are_told() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let how = HealthCheck::Tcp(listener.local_addr().expect("an address"));
        let (sender, mut health) = watch::channel(Health::default());
        let checking = tokio::spawn(check(how, sender));
        health.wait_for(|health| health.ready).await.expect("ready");
        drop(listener);
        let reason = health.wait_for(|health| !health.ready).await.expect("unready").reason.clone();
        assert!(reason.contains("refused"), "{reason}");
        checking.abort();
    }
}
