//! What a route's rule says of sending a request again, and of keeping a client with one endpoint.

use std::time::Duration;

use http::HeaderName;

use super::{Faults, is_cookie_name, milliseconds};
use crate::wire::{self, session_persistence::Type};

/// A rule's `retry`; what it leaves open is the policy's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteRetry {
    /// HTTP statuses after which a request is sent again. Empty: as the policy says.
    pub codes: Vec<u16>,
    /// Tries after the first.
    pub attempts: Option<u32>,
    /// The least that is waited before another try.
    pub backoff: Option<Duration>,
}

/// A rule's `sessionPersistence`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionPersistence {
    /// What carries the session.
    pub token: SessionToken,
    /// It ends that long after it began.
    pub absolute_timeout: Option<Duration>,
    /// It ends when it has not been used for so long.
    pub idle_timeout: Option<Duration>,
}

/// What carries a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionToken {
    /// A cookie.
    Cookie {
        /// A token of RFC 6265.
        name: String,
        /// It says how long it lasts, which is the absolute timeout; else it ends with the client's own session.
        permanent: bool,
    },
    /// A header, which the client sends as it was answered.
    Header(HeaderName),
}

impl Faults {
    pub(super) fn route_retry(&mut self, field: &str, retry: &wire::Retry) -> RouteRetry {
        let mut codes = Vec::with_capacity(retry.codes.len());
        for (i, code) in retry.codes.iter().enumerate() {
            match u16::try_from(*code) {
                Ok(code) if (400..600).contains(&code) => codes.push(code),
                _ => {
                    self.say(&format!("{field}.codes[{i}]"), format_args!("{code} is no status of an error"))
                }
            }
        }
        RouteRetry { codes, attempts: retry.attempts, backoff: milliseconds(retry.backoff_ms) }
    }

    pub(super) fn session(
        &mut self,
        field: &str,
        session: &wire::SessionPersistence,
    ) -> Option<SessionPersistence> {
        let name = format!("{field}.name");
        let token = match Type::try_from(session.r#type) {
            Ok(Type::Cookie) if is_cookie_name(&session.name) => {
                SessionToken::Cookie { name: session.name.clone(), permanent: session.permanent }
            }
            Ok(Type::Cookie) => {
                self.say(&name, "is no name of a cookie");
                return None;
            }
            Ok(Type::Header) => SessionToken::Header(self.parse(&name, &session.name)?),
            Err(_) => {
                let kind = session.r#type;
                self.say(&format!("{field}.type"), format_args!("{kind} is not known to this version"));
                return None;
            }
        };
        let absolute_timeout = milliseconds(session.absolute_timeout_ms);
        if session.permanent && absolute_timeout.is_none() {
            self.say(&format!("{field}.absolute_timeout_ms"), "is required for a permanent cookie");
        }
        Some(SessionPersistence {
            token,
            absolute_timeout,
            idle_timeout: milliseconds(session.idle_timeout_ms),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Service;

    fn rule(rule: wire::RouteRule) -> Result<super::super::RouteRule, super::super::Refused> {
        let config = wire::ServiceConfig { service: "s.n".into(), routes: vec![rule], ..Default::default() };
        Service::try_from(config).map(|mut service| service.routes.remove(0))
    }

    #[test]
    fn a_session_is_by_cookie_or_header() {
        let session = |r#type: Type, name: &str, permanent| wire::SessionPersistence {
            r#type: r#type.into(),
            name: name.into(),
            absolute_timeout_ms: 5,
            idle_timeout_ms: 0,
            permanent,
        };
        let with = |session| rule(wire::RouteRule { session: Some(session), ..Default::default() });
        let cookie = with(session(Type::Cookie, "a", true)).expect("a rule").session.expect("a session");
        assert_eq!(cookie.token, SessionToken::Cookie { name: "a".into(), permanent: true });
        assert_eq!((cookie.absolute_timeout, cookie.idle_timeout), (Some(Duration::from_millis(5)), None));
        let header = with(session(Type::Header, "X-Session", false)).expect("a rule").session;
        assert_eq!(
            header.map(|it| it.token),
            Some(SessionToken::Header(HeaderName::from_static("x-session")))
        );
        for wrong in [session(Type::Cookie, "a b", false), session(Type::Header, "", false)] {
            with(wrong).expect_err("no name");
        }
        let no_end = wire::SessionPersistence { absolute_timeout_ms: 0, ..session(Type::Cookie, "a", true) };
        with(no_end).expect_err("permanent, but for how long?");
    }

    #[test]
    fn retries_are_after_statuses_of_errors() {
        let with = |retry| rule(wire::RouteRule { retry: Some(retry), ..Default::default() });
        let retry = wire::Retry { codes: vec![500, 429], attempts: Some(0), backoff_ms: 7 };
        let expected =
            RouteRetry { codes: vec![500, 429], attempts: Some(0), backoff: Some(Duration::from_millis(7)) };
        assert_eq!(with(retry).expect("a rule").retry, Some(expected));
        with(wire::Retry { codes: vec![200], ..Default::default() }).expect_err("no error");
    }
}
