//! `pillion-proxy ready`: asks the sidecar on this host whether it takes connections. For images that have nothing else to ask with.

use std::{net::SocketAddr, time::Duration};

use clap::Args;
use pillion_api::model::Probe;
use tokio::time::{Instant, sleep};

use crate::{config::check, control::health::probe};

/// For one answer.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Between tries.
const AGAIN: Duration = Duration::from_millis(50);

/// How long to ask.
#[derive(Debug, Args)]
pub(super) struct Ready {
    /// Ask again for as long, if it is not ready at once
    #[arg(long, value_name = "DURATION", value_parser = wait)]
    wait: Option<Duration>,
}

/// Asks the sidecar whose operators' port is at `admin`, or where it usually is.
///
/// # Errors
/// Why it is not ready, as it said last.
pub(super) fn run(ready: &Ready, admin: Option<&str>) -> Result<(), String> {
    let mut address: SocketAddr = admin
        .unwrap_or("127.0.0.1:15020")
        .parse()
        .map_err(|error| format!("adminListen: {}: {error}", admin.unwrap_or_default()))?;
    match address {
        SocketAddr::V4(address) if !address.ip().is_unspecified() => {}
        SocketAddr::V6(address) if !address.ip().is_unspecified() => {}
        SocketAddr::V4(_) => address.set_ip(std::net::Ipv4Addr::LOCALHOST.into()),
        SocketAddr::V6(_) => address.set_ip(std::net::Ipv6Addr::LOCALHOST.into()),
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    runtime.block_on(ask(address, ready.wait.unwrap_or_default()))
}

async fn ask(address: SocketAddr, wait: Duration) -> Result<(), String> {
    let deadline = Instant::now() + wait;
    let how = Probe::Http { path: "/ready".into(), host: None, expected: Vec::new() };
    loop {
        match probe::ask(address, &how, TIMEOUT).await {
            Ok(()) => return Ok(()),
            Err(reason) if Instant::now() >= deadline => return Err(format!("not ready: {reason}")),
            Err(_) => sleep(AGAIN).await,
        }
    }
}

fn wait(text: &str) -> Result<Duration, String> {
    check::duration(text).ok_or_else(|| "is no duration such as 500ms, 10s or 1m30s".into())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Answers with these status codes, one connection each, the last again and again.
    async fn answering(codes: &'static [u16]) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            for code in codes.iter().chain(std::iter::repeat(codes.last().expect("one code"))) {
                let Ok((mut stream, _)) = listener.accept().await else { return };
                let mut request = [0; 256];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(format!("HTTP/1.1 {code} x\r\n\r\n").as_bytes()).await;
            }
        });
        address
    }

    #[tokio::test]
    async fn says_what_the_sidecar_says() {
        assert_eq!(ask(answering(&[200]).await, Duration::ZERO).await, Ok(()));
        let reason = ask(answering(&[503]).await, Duration::ZERO).await.expect_err("it is not ready");
        assert!(reason.contains("503"), "{reason}");
    }

    #[tokio::test]
    async fn asks_again_for_as_long_as_it_may() {
        assert_eq!(ask(answering(&[503, 503, 200]).await, Duration::from_secs(10)).await, Ok(()));
        assert!(ask(answering(&[503]).await, Duration::from_millis(120)).await.is_err());
    }
}
