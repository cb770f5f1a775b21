//! What leads a request to its endpoint, beside the algorithm: what is hashed of it, and what its response must say for the
//! next one to be led likewise.

use ::http::{
    HeaderValue, Request,
    header::{HeaderMap, SET_COOKIE},
};
use pillion_api::{
    hash::{self, Key},
    model::HashOn,
    route::RequestHead,
};
use rand::Rng;

use super::services::Service;
use crate::{http::Body, middleware::Served};

/// What leads a request.
#[derive(Debug, Default)]
pub(super) struct Steering {
    /// For algorithms that hash.
    pub(super) key: Option<u64>,
    marks: Option<Box<Marks>>,
}

/// What the response is to say.
#[derive(Debug)]
struct Marks {
    cookie: String,
    name: String,
}

impl Steering {
    /// By the backend's policy. `source`: the calling workload.
    pub(super) fn of(backend: &Service, request: &Request<Body>, source: &str, rng: &mut impl Rng) -> Self {
        let policy = backend.balancer.policy();
        let Some(hashing) = policy.load_balancer.algorithm.hashing() else { return Self::default() };
        let head = RequestHead { method: request.method(), uri: request.uri(), headers: request.headers() };
        match hash::key(&hashing.on, head, source) {
            Key::Hash(key) => Self { key: Some(key), marks: None },
            Key::None => Self::default(),
            Key::Make(HashOn::Cookie { name, ttl: Some(ttl) }) => {
                let value = format!("{:016x}", rng.random::<u64>());
                let age =
                    if ttl.is_zero() { String::new() } else { format!("; Max-Age={}", ttl.as_secs().max(1)) };
                let cookie = format!("{name}={value}{age}; Path=/; HttpOnly");
                let marks = Box::new(Marks { cookie, name: name.clone() });
                Self { key: Some(hash::hash(value.as_bytes())), marks: Some(marks) }
            }
            Key::Make(_) => Self::default(),
        }
    }

    /// The key of a connection that is carried as bytes.
    pub(super) fn of_connection(service: &Service, source: &str) -> Option<u64> {
        let policy = service.balancer.policy();
        let hashing = policy.load_balancer.algorithm.hashing()?;
        hash::connection_key(&hashing.on, source)
    }

    /// Has the response say it.
    pub(super) fn mark<E>(self, mut served: Served<E>) -> Served<E> {
        if let (Some(marks), Ok(response)) = (self.marks, &mut served.result)
            && !sets(response.headers(), &marks.name)
            && let Ok(value) = HeaderValue::from_str(&marks.cookie)
        {
            response.headers_mut().append(SET_COOKIE, value);
        }
        served
    }
}

/// Whether an application sets a cookie itself.
fn sets(headers: &HeaderMap, name: &str) -> bool {
    headers.get_all(SET_COOKIE).iter().any(|value| {
        let rest = value.as_bytes().trim_ascii_start().strip_prefix(name.as_bytes());
        rest.is_some_and(|rest| rest.starts_with(b"="))
    })
}
