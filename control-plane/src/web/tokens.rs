//! The handlers for tokens.

use std::time::{Duration, SystemTime};

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use pillion_certs::spiffe::CONTROL_PLANE;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    WebState, access,
    input::{Body, Segments},
    problem::Problem,
};
use crate::{
    resource::{Fault, dns_label, dns_subdomain, duration},
    token::{Created, DEFAULT_JOIN_TTL, JoinGrant, Role, TokenInfo},
};

/// Which token is wanted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct TokenRequest {
    /// `join` for a workload, `api` for this API.
    kind: String,
    /// join: the namespace of the workload's identity. api: the only namespace it is for; absent: all.
    #[serde(default)]
    namespace: Option<String>,
    /// join: the service account of the workload's identity.
    #[serde(default)]
    service_account: Option<String>,
    /// api: what its bearer may do: viewer, operator or admin.
    #[serde(default)]
    role: Option<String>,
    /// How long it works, such as "1h"; a join token: one hour where absent, an API token: until it is revoked.
    #[serde(default)]
    ttl: Option<String>,
}

/// A request that makes sense.
enum Wanted {
    Join(JoinGrant, Duration),
    Api(Role, Option<String>, Option<Duration>),
}

impl TokenRequest {
    fn check(self) -> Result<Wanted, Vec<Fault>> {
        let mut faults = Vec::new();
        if let Some(Err(message)) = self.namespace.as_deref().map(dns_label) {
            faults.push(Fault::new("namespace", message));
        }
        let ttl = self.ttl.as_deref().and_then(|text| match duration::parse(text) {
            Ok(ttl) if ttl.is_zero() => {
                faults.push(Fault::new("ttl", "must be longer than nothing"));
                None
            }
            Ok(ttl) => Some(ttl),
            Err(message) => {
                faults.push(Fault::new("ttl", message));
                None
            }
        });
        let unexpected = |given: bool, field: &str, faults: &mut Vec<Fault>| {
            if given {
                faults.push(Fault::new(field, format!("does not belong to a token of kind {:?}", self.kind)));
            }
        };
        let wanted = match self.kind.as_str() {
            "join" => {
                unexpected(self.role.is_some(), "role", &mut faults);
                for (field, value) in
                    [("namespace", &self.namespace), ("serviceAccount", &self.service_account)]
                {
                    if value.is_none() {
                        faults.push(Fault::new(field, "is required for a join token"));
                    }
                }
                if let Some(Err(message)) = self.service_account.as_deref().map(dns_subdomain) {
                    faults.push(Fault::new("serviceAccount", message));
                }
                let names = (self.namespace.as_deref(), self.service_account.as_deref());
                if names == (Some(CONTROL_PLANE.0), Some(CONTROL_PLANE.1)) {
                    faults.push(Fault::new("serviceAccount", "is the control plane's own in this namespace"));
                }
                let grant = JoinGrant {
                    namespace: self.namespace.unwrap_or_default(),
                    service_account: self.service_account.unwrap_or_default(),
                };
                Wanted::Join(grant, ttl.unwrap_or(DEFAULT_JOIN_TTL))
            }
            "api" => {
                unexpected(self.service_account.is_some(), "serviceAccount", &mut faults);
                let role = [Role::Viewer, Role::Operator, Role::Admin]
                    .into_iter()
                    .find(|role| self.role.as_deref() == Some(role.name()));
                if role.is_none() {
                    let is = self.role.map_or("absent".to_owned(), |role| format!("{role:?}"));
                    faults.push(Fault::new("role", format!("must be viewer, operator or admin, is {is}")));
                }
                Wanted::Api(role.unwrap_or(Role::Viewer), self.namespace, ttl)
            }
            other => {
                faults.push(Fault::new("kind", format!("must be \"join\" or \"api\", is {other:?}")));
                return Err(faults);
            }
        };
        if faults.is_empty() { Ok(wanted) } else { Err(faults) }
    }
}

/// Makes a token. This answer is the only one that ever shows it.
#[utoipa::path(post, path = "/v1/tokens", tag = "tokens", request_body = TokenRequest, security(("token" = [])),
    responses((status = 201, body = Created), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn create(
    State(state): State<WebState>,
    headers: HeaderMap,
    body: Result<Body, Problem>,
) -> Result<(StatusCode, Json<Created>), Problem> {
    // Who may not make tokens learns nothing more than that.
    let anywhere = access::needs(&state, &headers, Role::Admin, None).await;
    if let Err(problem) = &anywhere
        && !problem.kind.ends_with("token-lacks-namespace")
    {
        return Err(problem.clone());
    }
    let Body(mut written) = body?;
    let (Some(written), true) = (written.pop(), written.is_empty()) else {
        return Err(Problem::bad_request("body", "must be one object"));
    };
    let request: TokenRequest = serde_json::from_value(written.value)
        .map_err(|error| Problem::invalid(vec![Fault::new("", error.to_string())]))?;
    let wanted = request.check().map_err(Problem::invalid)?;
    if anywhere.is_err() {
        let namespace = match &wanted {
            Wanted::Join(grant, _) => Some(grant.namespace.as_str()),
            Wanted::Api(_, namespace, _) => namespace.as_deref(),
        };
        access::needs(&state, &headers, Role::Admin, namespace).await?;
    }
    let now = SystemTime::now();
    let created = match wanted {
        Wanted::Join(grant, ttl) => {
            state.tokens.create_join(grant, ttl, &(state.root_fingerprint)(), now).await?
        }
        Wanted::Api(role, namespace, ttl) => state.tokens.create_api(role, namespace, ttl, now).await?,
    };
    tracing::info!(id = created.info.id, purpose = ?created.info.purpose, "token made");
    Ok((StatusCode::CREATED, Json(created)))
}

/// All tokens, without their secrets.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct TokenList {
    /// By age.
    pub items: Vec<TokenInfo>,
}

/// Lists tokens. Their secrets are nowhere kept.
#[utoipa::path(get, path = "/v1/tokens", tag = "tokens", security(("token" = [])),
    responses((status = 200, body = TokenList), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(state): State<WebState>,
    headers: HeaderMap,
) -> Result<Json<TokenList>, Problem> {
    access::needs(&state, &headers, Role::Admin, None).await?;
    Ok(Json(TokenList { items: state.tokens.list().await? }))
}

/// Ends a token at once.
#[utoipa::path(delete, path = "/v1/tokens/{id}", tag = "tokens", params(("id" = String, Path)), security(("token" = [])),
    responses((status = 200, body = TokenInfo), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn revoke(
    State(state): State<WebState>,
    Segments(id): Segments<String>,
    headers: HeaderMap,
) -> Result<Json<TokenInfo>, Problem> {
    access::needs(&state, &headers, Role::Admin, None).await?;
    let revoked = state.tokens.revoke(&id, SystemTime::now()).await?;
    tracing::info!(id, "token revoked");
    revoked.map(Json).ok_or_else(|| Problem::not_found(format!("there is no token {id}")))
}
