//! Keeps a client with the endpoint that it had first (GEP-1619): by a token that the client brings along, in a cookie or a
//! header. Nobody remembers sessions: the token says all, stands for an endpoint without naming it, and so outlives any sidecar.

use std::time::{Duration, SystemTime};

use ::http::{
    HeaderName, HeaderValue,
    header::{HeaderMap, SET_COOKIE},
};
use pillion_api::{
    hash,
    model::{Backend, SessionPersistence, SessionToken},
};

use super::attempt::Held;
use crate::middleware::Served;

/// Clocks of several callers may differ by this much; what was begun later is none of ours.
const SKEW_MS: u64 = 60_000;

/// What a session's token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    /// See [`Endpoint::token`](crate::balance::Endpoint::token).
    endpoint: u64,
    /// Which of a rule's backends it belongs to; see [`backend`].
    backend: u64,
    /// Milliseconds since the Unix epoch.
    begun: u64,
    /// When it was last told that.
    used: u64,
}

/// Stands for a backend of a rule.
pub(super) fn backend(backend: &Backend) -> u64 {
    hash::hash(backend.service.as_str().as_bytes()) ^ hash::mix(backend.port.into())
}

/// The time as tokens have it.
pub(super) fn now() -> u64 {
    milliseconds(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Token {
    /// The one that a request brings along, as long as it holds.
    pub(super) fn of(session: &SessionPersistence, headers: &HeaderMap, now: u64) -> Option<Self> {
        let text = match &session.token {
            SessionToken::Cookie { name, .. } => hash::cookie(headers, name),
            SessionToken::Header(name) => headers.get(name).map(HeaderValue::as_bytes),
        };
        Self::read(std::str::from_utf8(text?).ok()?).filter(|token| !token.is_over(session, now))
    }

    /// See [`Endpoint::token`](crate::balance::Endpoint::token).
    pub(super) fn endpoint(self) -> u64 {
        self.endpoint
    }

    /// Whether it was begun with this backend.
    pub(super) fn is_with(self, other: &Backend) -> bool {
        self.backend == backend(other)
    }

    fn read(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let mut next = || {
            let part = parts.next().filter(|part| part.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
            u64::from_str_radix(part, 16).ok()
        };
        let token = Self { endpoint: next()?, backend: next()?, begun: next()?, used: next()? };
        parts.next().is_none().then_some(token)
    }

    fn write(self) -> String {
        format!("{:016x}.{:016x}.{:x}.{:x}", self.endpoint, self.backend, self.begun, self.used)
    }

    fn is_over(self, session: &SessionPersistence, now: u64) -> bool {
        let passed = |since: u64, limit: Option<Duration>| {
            limit.is_some_and(|limit| now.saturating_sub(since) >= milliseconds(limit))
        };
        self.begun > now.saturating_add(SKEW_MS)
            || passed(self.begun, session.absolute_timeout)
            || passed(self.used, session.idle_timeout)
    }
}

/// What the response is to say after `had` led the request to `endpoint` of `backend`. `None`: nothing that the client does not
/// know already.
pub(super) fn answer(
    session: &SessionPersistence,
    had: Option<Token>,
    (endpoint, backend): (u64, u64),
    now: u64,
) -> Option<(HeaderName, HeaderValue)> {
    let kept = had.filter(|had| had.endpoint == endpoint && had.backend == backend);
    if let Some(kept) = kept {
        // That it is in use is told often enough for it to go on, and not with every response.
        let idle = session.idle_timeout?;
        if now.saturating_sub(kept.used) < milliseconds(idle) / 8 {
            return None;
        }
    }
    let begun = kept.map_or(now, |kept| kept.begun);
    let token = Token { endpoint, backend, begun, used: now }.write();
    let (name, text) = match &session.token {
        SessionToken::Header(name) => (name.clone(), token),
        SessionToken::Cookie { name, permanent } => {
            let left = session.absolute_timeout.filter(|_| *permanent);
            let left = left
                .map(|limit| milliseconds(limit).saturating_sub(now.saturating_sub(begun)).div_ceil(1000));
            let age = left.map(|seconds| format!("; Max-Age={seconds}")).unwrap_or_default();
            (SET_COOKIE, format!("{name}={token}{age}; Path=/; HttpOnly"))
        }
    };
    Some((name, HeaderValue::from_str(&text).ok()?))
}

/// Has the response say it.
pub(super) fn mark(
    session: &SessionPersistence,
    had: Option<Token>,
    backend: u64,
    mut served: Served<Held>,
) -> Served<Held> {
    if let (Ok(response), Some(held)) = (&mut served.result, &served.end)
        && let Some((name, value)) = answer(session, had, (held.endpoint().token(), backend), now())
    {
        response.headers_mut().append(name, value);
    }
    served
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1000;
    const START: u64 = 1_700_000_000_000;
    const HERE: (u64, u64) = (7, 9);

    fn by_cookie(permanent: bool, absolute: Option<u64>, idle: Option<u64>) -> SessionPersistence {
        SessionPersistence {
            token: SessionToken::Cookie { name: "sid".into(), permanent },
            absolute_timeout: absolute.map(Duration::from_secs),
            idle_timeout: idle.map(Duration::from_secs),
        }
    }

    fn token() -> Token {
        Token { endpoint: HERE.0, backend: HERE.1, begun: START, used: START }
    }

    fn brought(session: &SessionPersistence, text: &str, now: u64) -> Option<Token> {
        let mut headers = HeaderMap::new();
        headers.insert("cookie", format!("a=b; sid={text}").parse().expect("a value"));
        Token::of(session, &headers, now)
    }

    #[test]
    fn a_session_ends_by_its_age_or_disuse() {
        let used = Token { used: START + 50 * SECOND, ..token() };
        for (absolute, idle, at, holds) in [
            (None, None, 1_000_000, true),
            (Some(60), None, 59, true),
            (Some(60), None, 60, false),
            (None, Some(10), 59, true),
            (None, Some(10), 60, false),
            (Some(55), Some(10), 56, false),
        ] {
            let session = by_cookie(false, absolute, idle);
            let found = brought(&session, &used.write(), START + at * SECOND);
            assert_eq!(found.is_some(), holds, "{absolute:?} {idle:?} {at}");
        }
        let session = by_cookie(false, Some(60), None);
        assert!(brought(&session, &token().write(), START - 2 * SKEW_MS).is_none(), "begun in the future");
    }

    #[test]
    fn it_is_told_when_it_begins_moves_or_must_be_known_to_go_on() {
        let told = |session: &SessionPersistence, had, here, at: u64| {
            answer(session, had, here, START + at * SECOND)
                .map(|(name, value)| (name.as_str().to_owned(), value.to_str().expect("text").to_owned()))
        };
        let cookie = |text: &str| Some(("set-cookie".to_owned(), text.to_owned()));
        let plain = by_cookie(false, None, None);
        let begun = format!("{:x}", START);
        let first = format!("sid=0000000000000007.0000000000000009.{begun}.{begun}; Path=/; HttpOnly");
        assert_eq!(told(&plain, None, HERE, 0), cookie(&first));
        assert_eq!(told(&plain, Some(token()), HERE, 100), None);
        let moved = told(&plain, Some(token()), (8, 9), 100).expect("another endpoint").1;
        assert!(moved.starts_with("sid=0000000000000008.") && !moved.contains(&begun), "{moved}");
        let idle = by_cookie(false, None, Some(80));
        assert_eq!(told(&idle, Some(token()), HERE, 9), None);
        let gone_on = told(&idle, Some(token()), HERE, 10).expect("it is in use").1;
        assert!(gone_on.contains(&format!("{begun}.{:x}", START + 10 * SECOND)), "{gone_on}");
        // What is left of it.
        let permanent = by_cookie(true, Some(3600), Some(80));
        let left = told(&permanent, Some(token()), HERE, 600).expect("it is in use").1;
        assert!(left.contains("; Max-Age=3000;"), "{left}");
        let header = SessionPersistence {
            token: SessionToken::Header(HeaderName::from_static("x-session")),
            ..by_cookie(false, None, None)
        };
        let (name, text) = told(&header, None, HERE, 0).expect("a new one");
        assert_eq!((name.as_str(), Token::read(&text)), ("x-session", Some(token())));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(endpoint in any::<u64>(), backend in any::<u64>(), begun in any::<u64>(), used in any::<u64>()) {
            let token = Token { endpoint, backend, begun, used };
            prop_assert_eq!(Token::read(&token.write()), Some(token));
        }

        #[test]
        fn nothing_that_a_client_makes_up_does_harm(text in "[0-9a-fA-F.+ -]{0,90}", now in any::<u64>()) {
            let session = by_cookie(true, Some(60), Some(5));
            if let Some(token) = Token::read(&text) {
                let _ = (token.is_over(&session, now), answer(&session, Some(token), HERE, now));
            }
        }
    }
}
