//! So many requests in a time, in all and of each client: GCRA, exact across connections and threads.
//!
//! Each bucket is one number, the theoretical arrival time of the next request (ITU-T I.371): it moves on by one interval
//! with each request that is let in, and may be ahead of the clock by what a burst allows. One atomic of the process, so
//! that neither connections nor threads have a share of their own.

mod bucket;
#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue};
use pillion_api::{
    gcra::{Pace, nanos},
    model::{Rate, RateLimit},
    route::{RequestHead, restricts_any},
};
use pillion_certs::SpiffeId;
use tokio::time::Instant;

use self::bucket::Bucket;
pub use self::bucket::Counts;
use crate::error::{More, Reason, Refusal};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The limits that hold for one client's connection.
#[derive(Debug)]
pub struct OfClient(Vec<Applied>);

#[derive(Debug)]
struct Applied {
    limit: Arc<RateLimit>,
    counts: Arc<Counts>,
    total: Option<Pace>,
    own: Option<(Rate, Pace)>,
    bucket: Arc<Bucket>,
}

impl OfClient {
    /// Finds a client's buckets.
    pub fn new<'a>(
        limits: impl IntoIterator<Item = &'a (Arc<RateLimit>, Arc<Counts>)>,
        identity: Option<&SpiffeId>,
        now: Instant,
    ) -> Self {
        let applied = limits.into_iter().map(|(limit, counts)| Applied {
            total: limit.total.map(Pace::of),
            own: limit.of_client(identity).map(|rate| (rate, Pace::of(rate))),
            bucket: counts.client(identity, nanos(now - counts.began)),
            limit: limit.clone(),
            counts: counts.clone(),
        });
        Self(applied.collect())
    }

    /// Lets a request in, if all limits do that are for it; one that any of them refuses counts for none. Gives what its response
    /// is to say, where a limit has that said.
    ///
    /// # Errors
    /// [`Reason::RateLimited`].
    pub fn enter(&self, head: RequestHead<'_>, now: Instant) -> Result<Option<Box<Fields>>, Refusal> {
        self.take(now, |limit| restricts_any(&limit.matches, head))
    }

    /// The same for a connection that carries bytes: only limits that are for every request know of it.
    ///
    /// # Errors
    /// [`Reason::RateLimited`].
    pub fn enter_opaque(&self, now: Instant) -> Result<(), Refusal> {
        self.take(now, |limit| limit.matches.is_empty()).map(drop)
    }

    fn take(
        &self,
        now: Instant,
        is_for: impl Fn(&RateLimit) -> bool,
    ) -> Result<Option<Box<Fields>>, Refusal> {
        let mut least: Option<(Left, &Applied)> = None;
        for (index, applied) in self.0.iter().enumerate() {
            if !is_for(&applied.limit) {
                continue;
            }
            match applied.take(now) {
                Ok(Some(left)) if least.as_ref().is_none_or(|(least, _)| left.requests < least.requests) => {
                    least = Some((left, applied));
                }
                Ok(_) => {}
                Err(refusal) => {
                    for earlier in self.0[..index].iter().filter(|earlier| is_for(&earlier.limit)) {
                        earlier.give_back();
                    }
                    return Err(refusal);
                }
            }
        }
        Ok(least.map(|(left, applied)| Box::new(applied.fields(&left))))
    }
}

/// How much a client has left of a rate.
#[derive(Debug, Clone, Copy)]
struct Left {
    requests: u64,
    /// Until it may have all again, or one more where it has none.
    after: Duration,
    rate: Rate,
    whose: &'static str,
}

/// The fields of draft-ietf-httpapi-ratelimit-headers.
#[derive(Debug)]
pub struct Fields {
    policy: HeaderValue,
    limit: HeaderValue,
}

impl Fields {
    /// Has a response say it, beside what the application says of its own limits.
    pub fn put(self, headers: &mut HeaderMap) {
        headers.append(RATE_LIMIT_POLICY, self.policy);
        headers.append(RATE_LIMIT, self.limit);
    }
}

impl Applied {
    /// Where its limit has that said, gives what is left.
    fn take(&self, now: Instant) -> Result<Option<Left>, Refusal> {
        let at = nanos(now.saturating_duration_since(self.counts.began));
        let took = |bucket: &Bucket, pace: Pace, rate: Rate, whose: &'static str| {
            let left = |requests: u64, after: u64| {
                let after = Duration::from_nanos(after);
                Left { requests, after, rate, whose }
            };
            bucket.take(pace, at).map(|ahead| left(pace.left(ahead), ahead)).map_err(|wait| left(0, wait))
        };
        let own = self.own.map(|(rate, pace)| took(&self.bucket, pace, rate, "client")).transpose();
        let taken = own.and_then(|own| {
            let (Some(rate), Some(pace)) = (self.limit.total, self.total) else { return Ok(own) };
            let total = took(&self.counts.total, pace, rate, "total").inspect_err(|_| {
                if let Some((_, pace)) = self.own {
                    self.bucket.give_back(pace);
                }
            })?;
            Ok(Some(own.filter(|own| own.requests < total.requests).unwrap_or(total)))
        });
        match taken {
            Ok(left) => {
                self.bucket.admitted.fetch_add(1, Ordering::Relaxed);
                Ok(left.filter(|_| self.limit.response_headers))
            }
            Err(left) => {
                self.bucket.limited.fetch_add(1, Ordering::Relaxed);
                Err(self.refusal(&left))
            }
        }
    }

    fn give_back(&self) {
        if let Some((_, pace)) = self.own {
            self.bucket.give_back(pace);
        }
        if let Some(pace) = self.total {
            self.counts.total.give_back(pace);
        }
        self.bucket.admitted.fetch_sub(1, Ordering::Relaxed);
    }

    fn refusal(&self, left: &Left) -> Refusal {
        let Left { rate, whose, after, .. } = *left;
        let detail = format_args!(
            "{} requests in {:?}, {} at once, {}, by limit {}",
            rate.requests,
            rate.per,
            rate.burst,
            if whose == "total" { "of all clients" } else { "of this client" },
            self.limit.name,
        );
        let Fields { policy, limit } = self.fields(left);
        Refusal::new(Reason::RateLimited, detail).with(More {
            retry_after: Some(after),
            fields: vec![(RATE_LIMIT_POLICY, policy), (RATE_LIMIT, limit)],
            status: None,
        })
    }

    fn fields(&self, left: &Left) -> Fields {
        let (Left { requests, after, rate, whose }, name) = (*left, &self.limit.name);
        let seconds = after.as_millis().div_ceil(1000).max(1);
        let field = |text: String| HeaderValue::try_from(text).expect("a limit's name is a label");
        Fields {
            policy: field(format!("\"{name}/{whose}\";q={};w={}", rate.requests, rate.per.as_secs().max(1))),
            limit: field(format!("\"{name}/{whose}\";r={requests};t={seconds}")),
        }
    }
}
