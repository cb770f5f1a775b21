//! Who may do what: bearer tokens, and which host names this server answers to.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime},
};

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use futures_util::{StreamExt, stream};
use tokio::time::{sleep, timeout};

use super::{WebState, problem::Problem};
use crate::{
    tap::TapEnded,
    token::{Role, TokenFault},
};

/// Between looks at the token of who reads a stream.
const REVIEW: Duration = Duration::from_secs(2);
/// For the store's answer to one.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reading is open on loopback, where only this machine's users come from; else it needs a viewer.
pub(super) async fn may_read(
    state: &WebState,
    headers: &HeaderMap,
    namespace: Option<&str>,
) -> Result<(), Problem> {
    if state.listens_on.ip().is_loopback() {
        return Ok(());
    }
    needs(state, headers, Role::Viewer, namespace).await
}

/// Changing always needs a token.
pub(super) async fn needs(
    state: &WebState,
    headers: &HeaderMap,
    role: Role,
    namespace: Option<&str>,
) -> Result<(), Problem> {
    let token = bearer(headers)?;
    state.tokens.authorize(token, role, namespace, SystemTime::now()).await?;
    Ok(())
}

/// The token of a request.
pub(super) fn bearer(headers: &HeaderMap) -> Result<&str, TokenFault> {
    let value = headers.get(header::AUTHORIZATION).ok_or(TokenFault::Missing)?;
    let text = value.to_str().map_err(|_| TokenFault::Malformed("the header is not text"))?;
    let (scheme, token) =
        text.split_once(' ').ok_or(TokenFault::Malformed("the header must be `Bearer <token>`"))?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(TokenFault::Malformed("the header must be `Bearer <token>`"));
    }
    Ok(token.trim())
}

/// For whole sub-routers that only read.
pub(super) async fn read_guard(State(state): State<WebState>, request: Request, next: Next) -> Response {
    let headers = request.headers().clone();
    match may_read(&state, &headers, None).await {
        Ok(()) => while_allowed(&state, headers, None, next.run(request).await),
        Err(problem) => problem.into_response(),
    }
}

/// An event stream that [`may_read`] has let begin goes on for as long as that holds, and says at last why it ends.
pub(super) fn while_allowed(
    state: &WebState,
    headers: HeaderMap,
    namespace: Option<String>,
    response: Response,
) -> Response {
    let streams =
        response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "text/event-stream");
    if !streams || state.listens_on.ip().is_loopback() {
        return response;
    }
    let (parts, body) = response.into_parts();
    let reader = Reader { state: state.clone(), headers, namespace };
    // Beside the events: a store that does not answer holds none up.
    let review = Box::pin(async move {
        loop {
            sleep(REVIEW).await;
            if let Some(reason) = reader.fault().await {
                break reason;
            }
        }
    });
    let start = Some((body.into_data_stream(), review));
    let pieces = stream::unfold(start, async |open| {
        let (mut events, mut review) = open?;
        tokio::select! {
            // An event, whole: none is ever cut.
            piece = events.next() => Some((piece?, Some((events, review)))),
            reason = &mut review => Some((Ok(ended(reason)), None)),
        }
    });
    Response::from_parts(parts, Body::from_stream(pieces))
}

/// Who reads a stream.
struct Reader {
    state: WebState,
    headers: HeaderMap,
    namespace: Option<String>,
}

impl Reader {
    /// Why they may not any more.
    async fn fault(&self) -> Option<String> {
        let asked = may_read(&self.state, &self.headers, self.namespace.as_deref());
        // A store that is away says nothing of the token.
        let problem = timeout(PATIENCE, asked).await.ok()?.err()?;
        (problem.status < 500).then_some(problem.detail)
    }
}

fn ended(reason: String) -> Bytes {
    let data = serde_json::to_string(&TapEnded { reason }).expect("there are string keys only");
    format!("event: ended\ndata: {data}\n\n").into()
}

/// On loopback a browser may be tricked into asking us under a foreign name that resolves to this machine (DNS
/// rebinding), and would let that page read the answer: so only our own names are answered to.
pub(super) async fn host_guard(State(state): State<WebState>, request: Request, next: Next) -> Response {
    if state.listens_on.ip().is_loopback() {
        let host = request.headers().get(header::HOST).and_then(|value| value.to_str().ok());
        // HTTP/2 has the name in the target instead.
        let host = request.uri().authority().map(|it| it.as_str()).or(host).unwrap_or_default();
        if !is_own_name(host, state.listens_on) {
            let title = "This server does not go by that name";
            let detail = format!(
                "the host is {host:?}; on loopback only localhost and loopback addresses are answered, so that no web page \
                 can reach this server under a name of its own"
            );
            return Problem::new(StatusCode::FORBIDDEN, "host-not-allowed", title, detail).into_response();
        }
    }
    next.run(request).await
}

fn is_own_name(host: &str, listens_on: SocketAddr) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return false;
    }
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback() || address == listens_on.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_are_own() {
        let listens_on = "127.0.0.2:15080".parse().unwrap();
        for own in ["localhost", "LOCALHOST:15080", "127.0.0.1:1", "127.0.0.2:15080", "[::1]:15080", "[::1]"]
        {
            assert!(is_own_name(own, listens_on), "{own}");
        }
        for other in [
            "",
            "evil.example",
            "evil.example:15080",
            "localhost.evil.example",
            "10.0.0.1:15080",
            "localhost:x",
        ] {
            assert!(!is_own_name(other, listens_on), "{other}");
        }
    }
}
