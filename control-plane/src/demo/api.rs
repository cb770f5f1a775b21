//! The control plane as seen by a person with an HTTP client: its REST API and any process's `/metrics`.

use std::net::IpAddr;
use std::time::Duration;

use serde::Deserialize;

use super::scrape::Samples;

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Nobody there, or not in time.
    #[error("{url}: {source}")]
    Unreachable {
        /// What was asked.
        url: String,
        /// What went wrong.
        source: reqwest::Error,
    },
    /// An answer other than 2xx.
    #[error("{url} answers {status}: {body}")]
    Refused {
        /// What was asked.
        url: String,
        /// Of the answer.
        status: u16,
        /// A problem document, in all likelihood.
        body: String,
    },
    /// An answer that is not what it should be.
    #[error("{url}: {what}")]
    Malformed {
        /// What was asked.
        url: String,
        /// What is wrong with the answer.
        what: String,
    },
}

/// A client of one control plane.
#[derive(Clone)]
pub struct Api {
    base: String,
    token: String,
    http: reqwest::Client,
}

impl Api {
    /// `base` as in `http://127.0.0.1:15080`; `token` a bearer token that may change things.
    #[must_use]
    pub fn new(base: &str, token: &str) -> Self {
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(10))
            // What a person's shell has in `http_proxy` is not meant for loopback.
            .no_proxy()
            .build()
            .expect("nothing in these settings can fail");
        Self { base: base.trim_end_matches('/').into(), token: token.trim().into(), http }
    }

    /// The address it talks to.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// A join token for one workload identity, good for ten minutes.
    pub async fn join_token(&self, namespace: &str, service_account: &str) -> Result<String, ApiError> {
        self.join_token_for(namespace, service_account, Duration::from_secs(600)).await
    }

    /// The same, good for whole seconds.
    pub async fn join_token_for(
        &self,
        namespace: &str,
        service_account: &str,
        ttl: Duration,
    ) -> Result<String, ApiError> {
        #[derive(Deserialize)]
        struct Created {
            token: String,
        }
        let wanted = serde_json::json!({
            "kind": "join", "namespace": namespace, "serviceAccount": service_account, "ttl": format!("{}s", ttl.as_secs()),
        });
        let request = self.http.post(self.url("/v1/tokens")).bearer_auth(&self.token).json(&wanted);
        let created: Created = self.json(request).await?;
        Ok(created.token)
    }

    /// Applies YAML documents, all or none.
    pub async fn apply(&self, yaml: &str) -> Result<(), ApiError> {
        let request = self
            .http
            .post(self.url("/v1/apply"))
            .bearer_auth(&self.token)
            .header("content-type", "application/yaml")
            .body(yaml.to_owned());
        self.send(request).await.map(drop)
    }

    /// One document, as the server keeps it; `kind` in its plural, such as `services`.
    pub async fn document(
        &self,
        namespace: &str,
        kind: &str,
        name: &str,
    ) -> Result<serde_json::Value, ApiError> {
        self.json(self.http.get(self.url(&format!("/v1/namespaces/{namespace}/{kind}/{name}")))).await
    }

    /// The virtual address of a service.
    pub async fn virtual_address(&self, namespace: &str, service: &str) -> Result<IpAddr, ApiError> {
        let document = self.document(namespace, "services", service).await?;
        let address = document["spec"]["clusterIP"].as_str().and_then(|text| text.parse().ok());
        address.ok_or_else(|| ApiError::Malformed {
            url: self.url(&format!("/v1/namespaces/{namespace}/services/{service}")),
            what: "no address in spec.clusterIP".into(),
        })
    }

    /// The whole mesh as it is now.
    pub async fn mesh(&self) -> Result<MeshView, ApiError> {
        self.json(self.http.get(self.url("/v1/mesh"))).await
    }

    /// Every workload that is registered.
    pub async fn workloads(&self) -> Result<Vec<WorkloadView>, ApiError> {
        self.json(self.http.get(self.url("/v1/mesh/workloads"))).await
    }

    /// What a process says of itself at `http://<address>/metrics`.
    pub async fn metrics(&self, address: &str) -> Result<Samples, ApiError> {
        let url = format!("http://{address}/metrics");
        let text = self.send(self.http.get(&url)).await?;
        Samples::parse(&text).map_err(|faults| ApiError::Malformed { url, what: faults.join("; ") })
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    async fn json<T: serde::de::DeserializeOwned>(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<T, ApiError> {
        let (url, text) = self.exchange(request).await?;
        serde_json::from_str(&text).map_err(|error| ApiError::Malformed { url, what: error.to_string() })
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<String, ApiError> {
        Ok(self.exchange(request).await?.1)
    }

    async fn exchange(&self, request: reqwest::RequestBuilder) -> Result<(String, String), ApiError> {
        let (client, request) = request.build_split();
        let request = request.expect("our own addresses and headers are well formed");
        let url = request.url().to_string();
        let unreachable = |source| ApiError::Unreachable { url: url.clone(), source };
        let response = client.execute(request).await.map_err(unreachable)?;
        let status = response.status();
        let body = response.text().await.map_err(unreachable)?;
        if status.is_success() {
            Ok((url, body))
        } else {
            Err(ApiError::Refused { url, status: status.as_u16(), body })
        }
    }
}

/// `GET /v1/mesh`, as far as the demo reads it.
#[derive(Clone, Debug, Deserialize)]
pub struct MeshView {
    /// Who calls whom.
    pub edges: Vec<EdgeView>,
    /// What callers are made to see.
    pub faults: Vec<FaultView>,
    /// What happened, the latest last or first; `id` grows.
    pub events: Vec<EventView>,
}

/// One caller and what it calls.
#[derive(Clone, Debug, Deserialize)]
pub struct EdgeView {
    /// The caller's service, or a lone workload.
    pub from: String,
    /// The service called.
    pub to: String,
    /// Who served, where a route says who.
    pub backend: Option<String>,
    /// Carried by mutual TLS; `None`: nothing was sent.
    pub mtls: Option<bool>,
    /// What was sent beyond the requests themselves.
    pub repeats: Option<RepeatsView>,
}

/// Retries and hedges.
#[derive(Clone, Debug, Deserialize)]
pub struct RepeatsView {
    /// Requests sent to a second endpoint as well.
    #[serde(default)]
    pub hedges: u64,
}

/// A fault that callers are made to see.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FaultView {
    /// Its name.
    pub name: String,
    /// When it ends, milliseconds since the Unix epoch.
    pub until_ms: i64,
    /// How many of 100 are answered with an error.
    pub abort_percent: f64,
}

/// One thing that happened.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventView {
    /// Grows.
    pub id: u64,
    /// Such as `breaker-opened`.
    pub kind: String,
    /// In plain words.
    pub text: String,
}

/// `GET /v1/mesh/workloads`, as far as the demo reads it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadView {
    /// Such as `payments-3`.
    pub workload: String,
    /// The identity of its certificate.
    pub spiffe_id: String,
    /// Its sidecar has its stream.
    pub connected: bool,
    /// Its application is healthy.
    pub ready: bool,
    /// Why it is not, if it is not.
    #[serde(default)]
    pub reason: String,
    /// How often its sidecar renewed its certificate.
    pub certificates_renewed: u64,
}
