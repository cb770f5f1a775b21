//! `pillion demo-service`: one instance of a sample service. It knows nothing of the mesh but its sidecar's address, as any
//! application that honours `http_proxy`.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::sidecar::Addresses;

/// The hidden subcommand that runs [`run`].
pub const SUBCOMMAND: &str = "demo-service";

/// For an answer of another service.
const PATIENCE: Duration = Duration::from_secs(10);

/// One instance of a sample service.
#[derive(Clone, Debug, clap::Args)]
pub struct SampleArgs {
    /// Which service it is.
    #[arg(long, value_enum)]
    pub role: Role,
    /// What this instance calls itself, such as payments-3.
    #[arg(long)]
    pub name: String,
    /// The version that it says it is.
    #[arg(long, default_value = "v1")]
    pub app_version: String,
    /// Typical time to answer.
    #[arg(long, default_value = "2ms", value_parser = humantime::parse_duration)]
    pub latency: Duration,
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Written once it listens: {"address": "127.0.0.1:…"}.
    #[arg(long)]
    pub address_file: Option<PathBuf>,
    /// The addresses file of its sidecar, through which it calls other services; else it heeds `http_proxy`.
    #[arg(long)]
    pub sidecar: Option<PathBuf>,
    /// This instance has phases, beginning with the first request: failing, slow, well, and again.
    #[arg(long)]
    pub troubled: bool,
    /// While failing, this share of requests gets a 500.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub failing_percent: u8,
    /// While slow, answers take this many times as long.
    #[arg(long, default_value_t = 20)]
    pub slowdown: u32,
    /// How long it is failing.
    #[arg(long, default_value = "15s", value_parser = humantime::parse_duration)]
    pub failing_for: Duration,
    /// How long it is slow.
    #[arg(long, default_value = "7s", value_parser = humantime::parse_duration)]
    pub slow_for: Duration,
    /// How long it is well.
    #[arg(long, default_value = "15s", value_parser = humantime::parse_duration)]
    pub well_for: Duration,
}

/// The services of the sample shop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// The shop's pages: asks `catalog`, and `cart` at checkout.
    Web,
    /// What there is to buy.
    Catalog,
    /// Charges through `payments`; queues the payment when that fails, so that its own callers see no failure.
    Cart,
    /// Takes the money.
    Payments,
}

/// Where a sample service listens.
#[derive(Debug, Serialize, Deserialize)]
pub struct SampleAddress {
    /// On loopback.
    pub address: SocketAddr,
}

/// Serves until it is told to stop.
///
/// # Errors
/// Those of the system.
pub async fn run(args: SampleArgs) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind(args.listen).await?;
    let address = SampleAddress { address: listener.local_addr()? };
    if let Some(file) = &args.address_file {
        write_whole(file, &serde_json::to_vec(&address)?)?;
    }
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let state = Arc::new(Sample { args, upstream: OnceCell::new(), first_request: OnceCell::new() });
    let router = axum::Router::new().fallback(answer).with_state(state);
    axum::serve(listener, router)
        .with_graceful_shutdown(async move {
            let _ = terminate.recv().await;
        })
        .await
}

/// Written beside and renamed, so that nobody reads half of it.
pub(super) fn write_whole(file: &Path, contents: &[u8]) -> std::io::Result<()> {
    let beside = file.with_extension("tmp");
    std::fs::write(&beside, contents)?;
    std::fs::rename(beside, file)
}

struct Sample {
    args: SampleArgs,
    /// A client that sends everything through the sidecar; made when first needed, as the sidecar starts after us.
    upstream: OnceCell<reqwest::Client>,
    first_request: OnceCell<Instant>,
}

async fn answer(State(sample): State<Arc<Sample>>, request: Request) -> Response {
    if request.uri().path() == "/healthz" {
        return "ok\n".into_response();
    }
    let start = *sample.first_request.get_or_init(async || Instant::now()).await;
    let args = &sample.args;
    let phase = if args.troubled { phase(start.elapsed(), args) } else { Phase::Well };
    let slowdown = if phase == Phase::Slow { args.slowdown } else { 1 };
    tokio::time::sleep(args.latency.mul_f64(spread(rand::random())) * slowdown).await;
    if phase == Phase::Failing && rand::random_range(0..100) < args.failing_percent {
        let text = serde_json::json!({ "workload": args.name, "error": "the bank does not answer" });
        return (StatusCode::INTERNAL_SERVER_ERROR, Json(text)).into_response();
    }
    match sample.work(request.uri().path()).await {
        Ok(body) => Json(body).into_response(),
        Err(error) => (
            StatusCode::BAD_GATEWAY,
            Json(serde_json::json!({ "workload": args.name, "error": error.to_string() })),
        )
            .into_response(),
    }
}

impl Sample {
    async fn work(&self, path: &str) -> Result<serde_json::Value, CallError> {
        let SampleArgs { name, app_version, role, .. } = &self.args;
        Ok(match role {
            Role::Web => {
                let products = self.call("http://catalog.demo.mesh/products").await?;
                let cart = match path {
                    "/checkout" => Some(self.call("http://cart.demo.mesh/checkout").await?),
                    _ => None,
                };
                serde_json::json!({ "workload": name, "catalog": products, "cart": cart })
            }
            Role::Catalog => serde_json::json!({
                "workload": name,
                "products": [
                    { "name": "saddle", "price": 79 }, { "name": "luggage rack", "price": 45 },
                    { "name": "pannier", "price": 95 },
                ],
            }),
            Role::Cart => {
                let payment = self.call("http://payments.demo.mesh/charge").await;
                serde_json::json!({
                    "workload": name,
                    "payment": payment.unwrap_or_else(|error| {
                        serde_json::json!({ "queued": true, "because": error.to_string() })
                    }),
                })
            }
            Role::Payments => {
                serde_json::json!({ "workload": name, "version": app_version, "charged": 79 })
            }
        })
    }

    async fn call(&self, url: &str) -> Result<serde_json::Value, CallError> {
        let client = self.upstream.get_or_try_init(|| self.client()).await?;
        let response = client.get(url).send().await?;
        let status = response.status();
        let text = response.text().await?;
        match status.is_success() {
            true => serde_json::from_str(&text).map_err(|error| CallError::Answer(error.to_string())),
            false => Err(CallError::Answer(format!("{url} answers {status}: {text}"))),
        }
    }

    async fn client(&self) -> Result<reqwest::Client, CallError> {
        let Some(file) = self.args.sidecar.as_deref() else {
            return Ok(reqwest::Client::builder().timeout(PATIENCE).build()?);
        };
        let text = std::fs::read(file).map_err(|error| CallError::NoSidecar(error.to_string()))?;
        let addresses: Addresses =
            serde_json::from_slice(&text).map_err(|error| CallError::NoSidecar(error.to_string()))?;
        Ok(client_through(addresses.outbound)?)
    }
}

/// A client that sends all its requests to a sidecar, as one that finds the sidecar's address in `http_proxy` does.
pub fn client_through(sidecar: SocketAddr) -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .proxy(reqwest::Proxy::http(format!("http://{sidecar}"))?)
        .timeout(PATIENCE)
        .build()
}

/// A client that knows nothing of a sidecar, and one host without asking for its address.
pub(super) fn client_to(host: &str, address: IpAddr) -> reqwest::Result<reqwest::Client> {
    let builder = reqwest::Client::builder().no_proxy().resolve(host, (address, 0).into());
    builder.timeout(PATIENCE).build()
}

#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("no sidecar: {0}")]
    NoSidecar(String),
    #[error("{0}")]
    Request(#[from] reqwest::Error),
    #[error("{0}")]
    Answer(String),
}

/// How an instance with phases is at the moment. Slow and failing are apart, so that one sees who deals with which: the
/// balancer with the slow, the circuit breaker with the failing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Failing,
    Slow,
    Well,
}

fn phase(since_first_request: Duration, args: &SampleArgs) -> Phase {
    let round = args.failing_for + args.slow_for + args.well_for;
    let at = since_first_request.as_millis() % round.as_millis().max(1);
    if at < args.failing_for.as_millis() {
        Phase::Failing
    } else if at < (args.failing_for + args.slow_for).as_millis() {
        Phase::Slow
    } else {
        Phase::Well
    }
}

/// Turns a uniformly random number of [0, 1) into a factor with a mean of about 1 and a tail, as real latencies have;
/// never more than 4.
fn spread(uniform: f64) -> f64 {
    (0.5 - 0.5 * (1.0 - uniform).ln()).min(4.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_follow_each_other_and_begin_badly() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: SampleArgs,
        }
        let line = "x --role payments --name payments-3 --address-file a --failing-for 15s --slow-for 5s --well-for 10s";
        let args = <Line as clap::Parser>::parse_from(line.split(' ')).args;
        let phases = [0, 14, 15, 19, 20, 29, 30, 45].map(|s| phase(Duration::from_secs(s), &args));
        use Phase::{Failing, Slow, Well};
        assert_eq!(phases, [Failing, Failing, Slow, Slow, Well, Well, Failing, Slow]);
    }

    #[test]
    fn latencies_have_a_tail_and_a_bound() {
        assert_eq!(spread(0.0), 0.5);
        assert!(spread(0.99) > 2.0);
        assert_eq!(spread(1.0), 4.0);
        let mean = (0..1000).map(|n| spread(f64::from(n) / 1000.0)).sum::<f64>() / 1000.0;
        assert!((0.95..1.05).contains(&mean), "{mean}");
    }
}
