//! The REST API as the command line calls it.

use std::{path::Path, time::Duration};

use reqwest::{Method, StatusCode, Url};
use serde_json::Value;
use tokio::time::timeout;

use super::{Connection, Failure};
use crate::{resource::Kind, token::ADMIN_TOKEN_FILE, web::Problem};

const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(30);
/// Of an answer that goes on for as long as somebody reads it.
const NO_END: Duration = Duration::from_secs(366 * 24 * 3600);

/// A server and the right to change it.
pub(super) struct Client {
    http: reqwest::Client,
    server: Url,
    token: Result<Option<String>, String>,
}

impl Client {
    /// Reads the token; that it is missing or unreadable is told when it is needed.
    pub(super) fn new(connection: &Connection, data_dir: Option<&Path>) -> Result<Self, Failure> {
        let wrong = |why: &str| Failure::Usage(format!("--server {}: {why}", connection.server));
        let server = Url::parse(&connection.server).map_err(|error| wrong(&format!("is no URL: {error}")))?;
        if !matches!(server.scheme(), "http" | "https") || server.host().is_none() {
            return Err(wrong("must be http://host:port or https://host:port"));
        }
        let loopback = is_loopback(&server);
        let token = match (&connection.token, &connection.token_file) {
            (Some(token), _) => Ok(Some(token.trim().to_owned())),
            (None, Some(file)) => read_token(file).map(Some),
            // This machine's own admin token is for this machine's server only.
            (None, None) => Ok(data_dir
                .filter(|_| loopback)
                .and_then(|data_dir| read_token(&data_dir.join(ADMIN_TOKEN_FILE)).ok())),
        };
        if server.scheme() == "http"
            && !loopback
            && (connection.token.is_some() || connection.token_file.is_some())
        {
            return Err(wrong("a token is not sent in clear text beyond loopback; use https"));
        }
        let mut builder = reqwest::Client::builder();
        if let Some(file) = &connection.ca_file {
            builder = builder.tls_certs_only(read_certificates(file)?);
        } else if server.scheme() == "http" {
            // The system may have no certificates at all, as in an image FROM scratch; here none is needed.
            builder = builder.tls_certs_only([]);
        }
        let http = builder
            .connect_timeout(CONNECT)
            .timeout(ANSWER)
            .no_proxy()
            .user_agent(concat!("pillion/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Failure::Local(format!("cannot make HTTP requests: {error}")))?;
        Ok(Self { http, server, token })
    }

    /// The token in use, which must not be told.
    pub(super) fn token(&self) -> Option<&str> {
        self.token.as_ref().ok()?.as_deref()
    }

    /// The path of a kind's documents, of one document where a name is given.
    pub(super) fn path(kind: Kind, namespace: Option<&str>, name: Option<&str>) -> Vec<String> {
        let mut path = vec!["v1".to_owned()];
        if let Some(namespace) = namespace {
            path.extend(["namespaces".to_owned(), namespace.to_owned()]);
        }
        path.push(kind.plural().to_owned());
        path.extend(name.map(str::to_owned));
        path
    }

    /// Reads.
    pub(super) async fn get(&self, path: &[String]) -> Result<Value, Failure> {
        self.request(Method::GET, path, &[], None).await
    }

    /// Reads with parameters.
    pub(super) async fn query(&self, path: &[String], parameters: &[(&str, &str)]) -> Result<Value, Failure> {
        self.request(Method::GET, path, parameters, None).await
    }

    /// Asks what changes nothing.
    pub(super) async fn ask(&self, path: &[String], question: &Value) -> Result<Value, Failure> {
        self.request(Method::POST, path, &[], Some(question)).await
    }

    /// Reads what may not be there.
    pub(super) async fn find(&self, path: &[String]) -> Result<Option<Value>, Failure> {
        match self.get(path).await {
            Ok(value) => Ok(Some(value)),
            Err(Failure::Refused(problem)) if problem.status == StatusCode::NOT_FOUND.as_u16() => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Changes.
    pub(super) async fn change(
        &self,
        method: Method,
        path: &[String],
        flags: &[(&str, bool)],
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        if let Err(message) = &self.token {
            return Err(Failure::Usage(message.clone()));
        }
        let set = flags.iter().filter(|(_, set)| *set);
        let parameters: Vec<(&str, &str)> = set.map(|(name, _)| (*name, "true")).collect();
        self.request(method, path, &parameters, body).await
    }

    /// Follows what has no end, for which one needs a right.
    pub(super) async fn follow(
        &self,
        path: &[String],
        parameters: &[(&str, &str)],
    ) -> Result<reqwest::Response, Failure> {
        if let Err(message) = &self.token {
            return Err(Failure::Usage(message.clone()));
        }
        let request = self.prepare(Method::GET, path, parameters).timeout(NO_END);
        let response = timeout(ANSWER, request.send()).await;
        let response = response
            .map_err(|_| self.silent(&format!("no answer within {} s", ANSWER.as_secs())))?
            .map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let bytes = timeout(ANSWER, response.bytes()).await;
        let bytes = bytes.map_err(|_| self.silent("the answer has no end"))?;
        Err(self.refusal(status, &bytes.map_err(|error| self.unreachable(&error))?))
    }

    async fn request(
        &self,
        method: Method,
        path: &[String],
        parameters: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let mut request = self.prepare(method, path, parameters);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        if status.is_success() {
            return serde_json::from_slice(&bytes)
                .map_err(|error| self.not_pillion(status, &error.to_string()));
        }
        Err(self.refusal(status, &bytes))
    }

    fn prepare(
        &self,
        method: Method,
        path: &[String],
        parameters: &[(&str, &str)],
    ) -> reqwest::RequestBuilder {
        let mut url = self.server.clone();
        // Names from the command line are escaped here: they can never become another path.
        url.path_segments_mut().expect("http URLs have paths").pop_if_empty().extend(path);
        for (name, value) in parameters {
            url.query_pairs_mut().append_pair(name, value);
        }
        let request = self.http.request(method, url);
        match &self.token {
            Ok(Some(token)) => request.bearer_auth(token),
            Ok(None) | Err(_) => request,
        }
    }

    fn refusal(&self, status: StatusCode, answer: &[u8]) -> Failure {
        match serde_json::from_slice::<Problem>(answer) {
            Ok(problem) => Failure::Refused(Box::new(problem)),
            Err(error) => self.not_pillion(status, &error.to_string()),
        }
    }

    /// It has answered, and does not any more.
    pub(super) fn silent(&self, cause: &str) -> Failure {
        Failure::Unreachable { server: self.server.to_string(), cause: cause.to_owned() }
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        Failure::Unreachable { server: self.server.to_string(), cause: innermost(error) }
    }

    fn not_pillion(&self, status: StatusCode, error: &str) -> Failure {
        let cause = format!("it answers {status} as no pillion server does ({error})");
        Failure::Unreachable { server: self.server.to_string(), cause }
    }
}

/// The innermost cause, which says what happened; the rest repeats the address.
pub(super) fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn read_certificates(file: &Path) -> Result<Vec<reqwest::Certificate>, Failure> {
    let wrong =
        |cause: &dyn std::fmt::Display| Failure::Usage(format!("--ca-file {}: {cause}", file.display()));
    let text = std::fs::read(file).map_err(|error| wrong(&error))?;
    let certificates = reqwest::Certificate::from_pem_bundle(&text).map_err(|error| wrong(&error))?;
    if certificates.is_empty() { Err(wrong(&"holds no PEM certificate")) } else { Ok(certificates) }
}

fn read_token(file: &Path) -> Result<String, String> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) => Err(format!("cannot read the token file {}: {error}", file.display())),
    }
}
