//! So many requests in a time, in all and of each client: GCRA, exact across connections and threads.
//!
//! Each bucket is one number, the theoretical arrival time of the next request (ITU-T I.371): it moves on by one interval
//! with each request that is let in, and may be ahead of the clock by what a burst allows. One atomic of the process, so
//! that neither connections nor threads have a share of their own.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{HeaderName, HeaderValue};
use pillion_api::{
    model::{Rate, RateLimit},
    route::{RequestHead, restricts_any},
};
use pillion_certs::SpiffeId;
use tokio::time::Instant;

use crate::error::{More, Reason, Refusal};

/// Clients that one limit tells apart; all further ones share a bucket.
const MAX_CLIENTS: usize = 1024;
/// Whose bucket that is.
const OTHER: &str = "other";
/// Everybody who has not proven who it is.
const OUTSIDE: &str = "outside";

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// A rate as GCRA knows it, nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pace {
    /// Between two requests.
    interval: u64,
    /// How far ahead of the clock the arrival of a request may be.
    tolerance: u64,
}

impl Pace {
    fn of(rate: Rate) -> Self {
        let interval = nanos(rate.per) / u64::from(rate.requests.max(1));
        Self { interval, tolerance: interval.saturating_mul(u64::from(rate.burst.max(1)) - 1) }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// What one client, or all together, have had.
#[derive(Debug, Default)]
struct Bucket {
    /// Of the next request, nanoseconds since the counts began.
    arrival: AtomicU64,
    admitted: AtomicU64,
    limited: AtomicU64,
}

impl Bucket {
    /// Lets one request in, or says how long to wait.
    fn take(&self, pace: Pace, now: u64) -> Result<(), u64> {
        let mut arrival = self.arrival.load(Ordering::Relaxed);
        loop {
            let next = arrival.max(now);
            let ahead = next - now;
            if ahead > pace.tolerance {
                return Err(ahead - pace.tolerance);
            }
            let moved = next.saturating_add(pace.interval);
            match self.arrival.compare_exchange_weak(arrival, moved, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(other) => arrival = other,
            }
        }
    }

    /// A request that was let in here was not let in elsewhere.
    fn give_back(&self, pace: Pace) {
        self.arrival.fetch_sub(pace.interval, Ordering::Relaxed);
    }

    /// Whether it has nothing to remember.
    fn is_full(&self, now: u64) -> bool {
        self.arrival.load(Ordering::Relaxed) <= now
    }
}

/// What one limit of one port has let in: shared by all threads, and outlives changes of the limit.
#[derive(Debug)]
pub struct Counts {
    began: Instant,
    total: Bucket,
    clients: Mutex<HashMap<Arc<str>, Arc<Bucket>>>,
}

impl Counts {
    /// Nothing yet.
    pub fn new(now: Instant) -> Self {
        Self { began: now, total: Bucket::default(), clients: Mutex::default() }
    }

    /// A client's bucket; that of all others, where there are too many.
    fn client(&self, identity: Option<&SpiffeId>, now: u64) -> Arc<Bucket> {
        let name: Arc<str> = match identity {
            Some(identity) => [identity.service_account(), ".", identity.namespace()].concat().into(),
            None => OUTSIDE.into(),
        };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = clients.get(&name) {
            return bucket.clone();
        }
        if clients.len() >= MAX_CLIENTS {
            // Whoever has no connection, and could have a whole burst again, is as good as never seen.
            clients.retain(|_, bucket| Arc::strong_count(bucket) > 1 || !bucket.is_full(now));
        }
        let name = if clients.len() < MAX_CLIENTS { name } else { OTHER.into() };
        clients.entry(name).or_default().clone()
    }

    /// Requests let in and refused since this was asked last, by client.
    pub fn take(&self) -> Vec<(Arc<str>, u64, u64)> {
        let clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = clients.iter().map(|(name, bucket)| {
            let (admitted, limited) = (&bucket.admitted, &bucket.limited);
            (name.clone(), admitted.swap(0, Ordering::Relaxed), limited.swap(0, Ordering::Relaxed))
        });
        taken.filter(|(_, admitted, limited)| admitted + limited > 0).collect()
    }
}

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

    /// Lets a request in, if all limits do that are for it; one that any of them refuses counts for none.
    ///
    /// # Errors
    /// [`Reason::RateLimited`].
    pub fn enter(&self, head: RequestHead<'_>, now: Instant) -> Result<(), Refusal> {
        self.take(now, |limit| restricts_any(&limit.matches, head))
    }

    /// The same for a connection that carries bytes: only limits that are for every request know of it.
    ///
    /// # Errors
    /// [`Reason::RateLimited`].
    pub fn enter_opaque(&self, now: Instant) -> Result<(), Refusal> {
        self.take(now, |limit| limit.matches.is_empty())
    }

    fn take(&self, now: Instant, is_for: impl Fn(&RateLimit) -> bool) -> Result<(), Refusal> {
        for (index, applied) in self.0.iter().enumerate() {
            if !is_for(&applied.limit) {
                continue;
            }
            if let Err(refusal) = applied.take(now) {
                for earlier in self.0[..index].iter().filter(|earlier| is_for(&earlier.limit)) {
                    earlier.give_back();
                }
                return Err(refusal);
            }
        }
        Ok(())
    }
}

impl Applied {
    fn take(&self, now: Instant) -> Result<(), Refusal> {
        let at = nanos(now.saturating_duration_since(self.counts.began));
        let own = self
            .own
            .map_or(Ok(()), |(rate, pace)| self.bucket.take(pace, at).map_err(|wait| (wait, rate, "client")));
        let taken = own.and_then(|()| {
            let Some(pace) = self.total else { return Ok(()) };
            self.counts.total.take(pace, at).map_err(|wait| {
                if let Some((_, pace)) = self.own {
                    self.bucket.give_back(pace);
                }
                (wait, self.limit.total.expect("it has a pace"), "total")
            })
        });
        match taken {
            Ok(()) => {
                self.bucket.admitted.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Err((wait, rate, whose)) => {
                self.bucket.limited.fetch_add(1, Ordering::Relaxed);
                Err(self.refusal(Duration::from_nanos(wait), rate, whose))
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

    /// With the fields of draft-ietf-httpapi-ratelimit-headers.
    fn refusal(&self, wait: Duration, rate: Rate, whose: &str) -> Refusal {
        let (name, requests) = (&self.limit.name, rate.requests);
        let seconds = wait.as_millis().div_ceil(1000).max(1);
        let field = |text: String| HeaderValue::try_from(text).expect("a limit's name is a label");
        let detail = format_args!(
            "{requests} requests in {:?} {}, by limit {name}",
            rate.per,
            if whose == "total" { "of all clients" } else { "of this client" },
        );
        Refusal::new(Reason::RateLimited, detail).with(More {
            retry_after: Some(wait),
            fields: vec![
                (
                    RATE_LIMIT_POLICY,
                    field(format!("\"{name}/{whose}\";q={requests};w={}", rate.per.as_secs().max(1))),
                ),
                (RATE_LIMIT, field(format!("\"{name}/{whose}\";r=0;t={seconds}"))),
            ],
            status: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use http::{HeaderMap, Method, Uri};
    use pillion_api::{model::Service, wire};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn id(account: &str) -> SpiffeId {
        format!("spiffe://t/ns/n/sa/{account}").parse().expect("an identity")
    }

    fn limits(limits: Vec<wire::RateLimit>, now: Instant) -> Vec<(Arc<RateLimit>, Arc<Counts>)> {
        let policy = Some(wire::TrafficPolicy { rate_limits: limits, ..Default::default() });
        let config = wire::ServiceConfig { service: "a.n".into(), policy, ..Default::default() };
        let service = Service::try_from(config).expect("a valid configuration");
        let limits = service.policy.rate_limits.into_iter();
        limits.map(|limit| (Arc::new(limit), Arc::new(Counts::new(now)))).collect()
    }

    fn rate(requests: u32, per_ms: u32, burst: u32) -> Option<wire::Rate> {
        Some(wire::Rate { requests, per_ms, burst })
    }

    fn enter(client: &OfClient, path: &str, now: Instant) -> Result<(), Refusal> {
        let (uri, headers): (Uri, _) = (path.parse().expect("a path"), HeaderMap::new());
        client.enter(RequestHead { method: &Method::GET, uri: &uri, headers: &headers }, now)
    }

    /// Offers three times the rate from several connections at uneven times, from idle, for 60 s.
    #[tokio::test(start_paused = true)]
    async fn over_a_minute_the_rate_is_exact_whatever_it_is() {
        for (requests, per_ms) in [(1, 1000), (2, 1000), (10, 1000), (333, 1000), (5000, 1000), (600, 60_000)]
        {
            let now = Instant::now();
            let total = wire::RateLimit { total: rate(requests, per_ms, 0), ..Default::default() };
            let limits = limits(vec![total], now);
            let connections: Vec<_> =
                ["a", "b", "c"].map(|it| OfClient::new(&limits, Some(&id(it)), now)).into();
            let wanted = u64::from(requests) * 60_000 / u64::from(per_ms);
            let mut admitted = 0;
            for offered in 0..3 * wanted {
                // Between 0.5 and 1.5 times as far apart as on average.
                let jitter = (offered * 7919 % 1000) as f64 / 1000.0 - 0.5;
                let at = 60.0 * (offered as f64 + jitter.max(0.0)) / (3 * wanted) as f64;
                let connection = &connections[offered as usize % 3];
                admitted += u64::from(enter(connection, "/", now + Duration::from_secs_f64(at)).is_ok());
            }
            assert!(
                admitted.abs_diff(wanted) <= (wanted / 100).max(1),
                "{admitted} of {wanted} at {requests} in {per_ms} ms"
            );
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(48))]

        /// Whatever the rate and whenever requests come, as long as there are enough of them: within 1 % over a minute, or one.
        #[test]
        fn over_a_minute_the_rate_is_exact_however_requests_come(
            requests in 1u32..200, times in 2u32..6, seed in proptest::num::u64::ANY,
        ) {
            use rand::{Rng, SeedableRng, rngs::SmallRng};
            let policy = wire::TrafficPolicy {
                rate_limits: vec![wire::RateLimit { total: rate(requests, 0, 0), ..Default::default() }],
                ..Default::default()
            };
            let config = wire::ServiceConfig { service: "a.n".into(), policy: Some(policy), ..Default::default() };
            let service = Service::try_from(config).expect("a valid configuration");
            let pace = Pace::of(service.policy.rate_limits[0].total.expect("a rate"));
            let (bucket, mut rng) = (Bucket::default(), SmallRng::seed_from_u64(seed));
            let (mut now, mut admitted) = (0, 0_u64);
            loop {
                now += rng.random_range(0..2 * pace.interval / u64::from(times));
                if now >= 60_000_000_000 {
                    break;
                }
                admitted += u64::from(bucket.take(pace, now).is_ok());
            }
            let wanted = u64::from(requests) * 60;
            proptest::prop_assert!(admitted.abs_diff(wanted) <= (wanted / 100).max(1), "{admitted} of {wanted}");
        }
    }

    #[test]
    fn threads_together_get_no_more_than_one_alone() {
        let now = Instant::now();
        let limit = wire::RateLimit { total: rate(1000, 3_600_000, 1000), ..Default::default() };
        let limits = limits(vec![limit], now);
        let admitted = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let connection = OfClient::new(&limits, None, now);
                    for _ in 0..1000 {
                        if enter(&connection, "/", now).is_ok() {
                            admitted.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(admitted.into_inner(), 1000);
    }

    #[tokio::test(start_paused = true)]
    async fn each_client_has_its_own_and_some_another() {
        let now = Instant::now();
        let client =
            |account: &str| Some(wire::Client { namespace: "n".into(), service_account: account.into() });
        let limit = wire::RateLimit {
            name: "all".into(),
            per_client: rate(2, 0, 2),
            overrides: vec![wire::ClientRate { client: client("batch"), rate: rate(1, 0, 1) }],
            ..Default::default()
        };
        let limits = limits(vec![limit], now);
        for (account, allowed) in [(Some("web"), 2), (Some("api"), 2), (Some("batch"), 1), (None, 2)] {
            let identity = account.map(id);
            // Another connection of the same client has no more.
            let connections = [(); 2].map(|()| OfClient::new(&limits, identity.as_ref(), now));
            let admitted = (0..10).filter(|i| enter(&connections[i % 2], "/", now).is_ok()).count();
            assert_eq!(admitted, allowed, "{account:?}");
        }
        let mut counted = limits[0].1.take();
        counted.sort();
        let counted: Vec<_> =
            counted.iter().map(|(name, admitted, limited)| (&**name, *admitted, *limited)).collect();
        assert_eq!(counted, [("api.n", 2, 8), ("batch.n", 1, 9), ("outside", 2, 8), ("web.n", 2, 8)]);
        assert!(limits[0].1.take().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_one_limit_refuses_counts_for_none() {
        let now = Instant::now();
        let path =
            wire::StringMatch { r#type: wire::string_match::Type::PathPrefix.into(), value: "/x".into() };
        let matches = vec![wire::RouteMatch { path: Some(path), ..Default::default() }];
        let limits = limits(
            vec![
                wire::RateLimit { total: rate(10, 0, 10), per_client: rate(10, 0, 10), ..Default::default() },
                wire::RateLimit { name: "x".into(), matches, total: rate(1, 0, 1), ..Default::default() },
            ],
            now,
        );
        let client = OfClient::new(&limits, Some(&id("web")), now);
        assert!(enter(&client, "/x/y", now).is_ok());
        for _ in 0..5 {
            let refusal = enter(&client, "/x", now).expect_err("one in a second");
            assert_eq!(refusal.reason, Reason::RateLimited);
            let more = refusal.more.expect("it says when");
            assert_eq!(more.retry_after, Some(SECOND));
            assert_eq!(more.fields[0].1, "\"x/total\";q=1;w=1");
            assert_eq!(more.fields[1].1, "\"x/total\";r=0;t=1");
        }
        let rest = (0..20).filter(|_| enter(&client, "/", now).is_ok()).count();
        assert_eq!(rest, 9, "those that were refused have left their places");
        assert!(enter(&client, "/x", now + SECOND).is_ok());
        assert!(client.enter_opaque(now).is_ok() || client.enter_opaque(now + SECOND).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn clients_are_bounded_and_the_idle_forgotten() {
        let now = Instant::now();
        let limits = limits(vec![wire::RateLimit { per_client: rate(1, 0, 1), ..Default::default() }], now);
        let client = |i: usize, now: Instant| OfClient::new(&limits, Some(&id(&format!("c{i}"))), now);
        let held: Vec<_> = (0..MAX_CLIENTS).map(|i| client(i, now)).collect();
        let (one, other) = (client(MAX_CLIENTS, now), client(MAX_CLIENTS + 1, now));
        assert!(enter(&one, "/", now).is_ok());
        assert!(enter(&other, "/", now).is_err(), "strangers share one");
        drop(held);
        let later = now + 2 * SECOND;
        let fresh = client(MAX_CLIENTS + 2, later);
        assert!(enter(&fresh, "/", later).is_ok() && enter(&one, "/", later).is_ok());
    }
}
