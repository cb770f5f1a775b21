//! How long a rule's requests may take, when they are sent again, and how long a client stays with one endpoint.

use std::time::Duration;

use gateway_api::experimental::httproutes::{
    HttpRouteRulesRetry as Retry, HttpRouteRulesSessionPersistence as Session,
    HttpRouteRulesSessionPersistenceCookieConfigLifetimeType as Lifetime,
    HttpRouteRulesSessionPersistenceType as SessionType, HttpRouteRulesTimeouts as Timeouts,
};
use pillion_api::model::is_cookie_name;

use super::super::{
    duration,
    fault::{Faults, Path},
};

/// The longest that any time here may be.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// The longest session: what fits the wire.
const LONGEST_SESSION: Duration = Duration::from_secs(24 * 24 * 3600);

pub(super) fn check_timeouts(timeouts: &Timeouts, at: &Path, faults: &mut Faults) {
    let request = at.field("request");
    let request = duration::check(faults, &request, timeouts.request.as_ref(), Duration::ZERO, DAY);
    let at = at.field("backendRequest");
    let backend = duration::check(faults, &at, timeouts.backend_request.as_ref(), Duration::ZERO, DAY);
    // Zero: no limit.
    if let (Some(request), Some(backend)) = (request, backend)
        && !request.is_zero()
        && backend > request
    {
        faults.add(&at, "must not be longer than request");
    }
}

/// A rule's `retry` (GEP-1731).
pub(super) fn check_retry(retry: &Retry, at: &Path, faults: &mut Faults) {
    let codes = retry.codes.as_deref().unwrap_or_default();
    faults.check_length(&at.field("codes"), codes.len(), 200);
    for (index, code) in codes.iter().enumerate() {
        faults.check_range(&at.field("codes").index(index), *code, 400, 599);
    }
    if let Some(attempts) = retry.attempts {
        faults.check_range(&at.field("attempts"), attempts, 0, 100);
    }
    duration::check(faults, &at.field("backoff"), retry.backoff.as_ref(), Duration::ZERO, DAY);
}

/// A rule's `sessionPersistence` (GEP-1619).
pub(super) fn check_session(session: &Session, at: &Path, faults: &mut Faults) {
    let header = matches!(session.r#type, Some(SessionType::Header));
    if let Some(name) = &session.session_name {
        let at = at.field("sessionName");
        if name.len() > 128 {
            faults.add(&at, format!("must have at most 128 characters, has {}", name.len()));
        }
        if header && http::HeaderName::from_bytes(name.as_bytes()).is_err() {
            faults.add(&at, format!("is not a header name (RFC 9110): {name:?}"));
        } else if !header && !is_cookie_name(name) {
            faults.add(&at, format!("is not a cookie's name (RFC 6265): {name:?}"));
        } else if header && name.to_ascii_lowercase().starts_with("pillion-") {
            faults.add(&at, format!("{name:?} is a header of the mesh's own"));
        }
    }
    let mut time = |field: &str, text: Option<&String>| {
        duration::check(faults, &at.field(field), text, Duration::from_millis(1), LONGEST_SESSION);
    };
    time("absoluteTimeout", session.absolute_timeout.as_ref());
    time("idleTimeout", session.idle_timeout.as_ref());
    let Some(cookie) = &session.cookie_config else { return };
    if header {
        faults.add(&at.field("cookieConfig"), "does not belong to a session by header");
    }
    if matches!(cookie.lifetime_type, Some(Lifetime::Permanent)) && session.absolute_timeout.is_none() {
        faults.add(
            &at.field("absoluteTimeout"),
            "is required where cookieConfig.lifetimeType is \"Permanent\"",
        );
    }
}
