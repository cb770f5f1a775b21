//! Rates, with time as an argument.

use std::sync::atomic::AtomicUsize;

use http::{Method, Uri};
use pillion_api::{model::Service, wire};

use super::{bucket::MAX_CLIENTS, *};

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

fn enter(client: &OfClient, path: &str, now: Instant) -> Result<Option<Box<Fields>>, Refusal> {
    let (uri, headers): (Uri, _) = (path.parse().expect("a path"), HeaderMap::new());
    client.enter(RequestHead { method: &Method::GET, uri: &uri, headers: &headers }, now)
}

/// Offers three times the rate from several connections at uneven times, from idle, for 60 s.
#[tokio::test(start_paused = true)]
async fn over_a_minute_the_rate_is_exact_whatever_it_is() {
    for (requests, per_ms) in [(1, 1000), (2, 1000), (10, 1000), (333, 1000), (5000, 1000), (600, 60_000)] {
        let now = Instant::now();
        let total = wire::RateLimit { total: rate(requests, per_ms, 0), ..Default::default() };
        let limits = limits(vec![total], now);
        let connections: Vec<_> = ["a", "b", "c"].map(|it| OfClient::new(&limits, Some(&id(it)), now)).into();
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
    let path = wire::StringMatch { r#type: wire::string_match::Type::PathPrefix.into(), value: "/x".into() };
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
async fn what_is_left_is_told_where_that_is_asked_for() {
    let now = Instant::now();
    let limit = |name: &str, total, per_client, response_headers| wire::RateLimit {
        name: name.into(),
        total,
        per_client,
        response_headers,
        ..Default::default()
    };
    let silent = limits(vec![limit("a", rate(9, 0, 9), None, false)], now);
    let client = OfClient::new(&silent, None, now);
    assert!(enter(&client, "/", now).expect("it passes").is_none());

    let both = vec![
        limit("a", rate(10, 1000, 10), rate(5, 1000, 5), true),
        limit("b", rate(10, 1000, 10), None, false),
        limit("c", rate(100, 60_000, 6), None, true),
    ];
    let limits = limits(both, now);
    let (one, other) = (OfClient::new(&limits, Some(&id("one")), now), OfClient::new(&limits, None, now));
    // What is left of the strictest, by the one who asks.
    for (client, expected) in
        [(&one, "\"a/client\";r=4;t=1"), (&one, "\"a/client\";r=3;t=1"), (&other, "\"c/total\";r=3;t=2")]
    {
        let fields = enter(client, "/", now).expect("it passes").expect("it is told");
        assert_eq!(fields.limit, expected);
        let mut headers = HeaderMap::new();
        headers.insert(RATE_LIMIT, HeaderValue::from_static("\"own\";r=1"));
        fields.put(&mut headers);
        assert_eq!(headers.get_all(RATE_LIMIT).iter().count(), 2);
    }
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
