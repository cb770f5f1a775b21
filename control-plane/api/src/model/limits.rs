//! What a workload's own sidecar holds for its services: rates, concurrency, sizes.

use std::time::Duration;

use http::HeaderName;
use pillion_certs::SpiffeId;

use super::{Faults, RouteMatch, milliseconds, or, some};
use crate::wire;
pub use crate::wire::Priority;

/// Callers by the name that their certificates have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Of this namespace.
    pub namespace: String,
    /// `None`: all of it.
    pub service_account: Option<String>,
}

impl Client {
    /// Whether it is this one. Nobody is one who has not proven who it is.
    pub fn is(&self, identity: Option<&SpiffeId>) -> bool {
        identity.is_some_and(|identity| {
            identity.namespace() == self.namespace
                && self.service_account.as_ref().is_none_or(|account| identity.service_account() == account)
        })
    }
}

/// How many requests a workload takes in a time.
#[derive(Debug, Clone)]
pub struct RateLimit {
    /// For people and metrics.
    pub name: String,
    /// Requests that it is for; none: all, also connections that carry bytes.
    pub matches: Vec<RouteMatch>,
    /// Of all clients together.
    pub total: Option<Rate>,
    /// Of each client.
    pub per_client: Option<Rate>,
    /// Instead of it; the first that is a client's holds.
    pub overrides: Vec<(Client, Rate)>,
    /// Whether responses to requests that pass say what is left, too.
    pub response_headers: bool,
}

impl RateLimit {
    /// What holds for one client by itself.
    pub fn of_client(&self, identity: Option<&SpiffeId>) -> Option<Rate> {
        let named = self.overrides.iter().find(|(client, _)| client.is(identity));
        named.map(|(_, rate)| *rate).or(self.per_client)
    }
}

/// So many requests in a time, evenly, with a few at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// At least 1.
    pub requests: u32,
    /// In this time.
    pub per: Duration,
    /// At least 1.
    pub burst: u32,
}

/// How many requests a workload works on at a time.
#[derive(Debug, Clone, PartialEq)]
pub struct Concurrency {
    /// `None`: `limit` holds.
    pub adaptive: Option<Adaptive>,
    /// At first, or always.
    pub limit: u32,
    /// Requests that wait for others to end, at most.
    pub max_queue: u32,
    /// Each for so long.
    pub queue_timeout: Duration,
    /// Of requests, that says a priority.
    pub priority_header: Option<HeaderName>,
    /// Whatever they say; the first that is a client's holds.
    pub clients: Vec<(Client, Priority)>,
}

impl Concurrency {
    /// What a client's requests have, whatever they say; `None`: what they say.
    pub fn of_client(&self, identity: Option<&SpiffeId>) -> Option<Priority> {
        self.clients.iter().find(|(client, _)| client.is(identity)).map(|(_, priority)| *priority)
    }
}

/// How a limit follows what latencies say.
#[derive(Debug, Clone, PartialEq)]
pub struct Adaptive {
    /// The highest limit.
    pub max_limit: u32,
    /// Between changes of the limit.
    pub window: Duration,
    /// Between measurements of the best latency.
    pub min_rtt_interval: Duration,
    /// Requests that a measurement takes.
    pub min_rtt_requests: u32,
    /// How much slower than the best latency requests may be, as a share.
    pub buffer: f64,
}

impl Default for Concurrency {
    fn default() -> Self {
        Self {
            adaptive: Some(Adaptive::default()),
            limit: 20,
            max_queue: 50,
            queue_timeout: Duration::from_millis(100),
            priority_header: None,
            clients: Vec::new(),
        }
    }
}

impl Default for Adaptive {
    fn default() -> Self {
        Self {
            max_limit: 1000,
            window: Duration::from_millis(100),
            min_rtt_interval: Duration::from_secs(60),
            min_rtt_requests: 50,
            buffer: 0.25,
        }
    }
}

/// How large a request may be, and how many connections there may be. `None`: no limit but the sidecar's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestLimits {
    /// Of a header section, by the measure of HTTP/2 (RFC 9113 6.5.2).
    pub max_header_bytes: Option<u32>,
    /// Fields of a header section.
    pub max_headers: Option<u32>,
    /// Of a body.
    pub max_body_bytes: Option<u64>,
    /// Open at a time, of all.
    pub max_connections: Option<u32>,
    /// Open at a time, of each client.
    pub max_connections_per_client: Option<u32>,
    /// Requests at a time on one connection.
    pub max_streams_per_connection: Option<u32>,
}

impl Faults {
    pub(super) fn clients<T>(
        &mut self,
        field: &str,
        list: impl IntoIterator<Item = (Option<wire::Client>, T)>,
    ) -> Vec<(Client, T)> {
        let mut clients = Vec::new();
        for (i, (client, what)) in list.into_iter().enumerate() {
            let client = client.unwrap_or_default();
            if client.namespace.is_empty() {
                // It would be nobody's, or everybody's: nobody can tell what was meant.
                self.say(&format!("{field}[{i}].client.namespace"), "is empty");
            }
            let account = client.service_account;
            let service_account = (!account.is_empty()).then_some(account);
            clients.push((Client { namespace: client.namespace, service_account }, what));
        }
        clients
    }

    pub(super) fn matches(&mut self, field: &str, matches: &[wire::RouteMatch]) -> Vec<RouteMatch> {
        let each = matches.iter().enumerate();
        each.map(|(i, one)| self.route_match(&format!("{field}.matches[{i}]"), one)).collect()
    }

    pub(super) fn rate_limit(&mut self, field: &str, limit: wire::RateLimit) -> RateLimit {
        let overrides = limit.overrides.into_iter().enumerate();
        let overrides: Vec<_> = overrides
            .filter_map(|(i, it)| {
                let rate = self.rate(&format!("{field}.overrides[{i}].rate"), it.rate.unwrap_or_default());
                Some((it.client, rate?))
            })
            .collect();
        RateLimit {
            matches: self.matches(field, &limit.matches),
            total: limit.total.and_then(|rate| self.rate(&format!("{field}.total"), rate)),
            per_client: limit.per_client.and_then(|rate| self.rate(&format!("{field}.per_client"), rate)),
            overrides: self.clients(&format!("{field}.overrides"), overrides),
            name: limit.name,
            response_headers: limit.response_headers,
        }
    }

    fn rate(&mut self, field: &str, rate: wire::Rate) -> Option<Rate> {
        if rate.requests == 0 {
            self.say(&format!("{field}.requests"), "is 0");
            return None;
        }
        let per = milliseconds(rate.per_ms).unwrap_or(Duration::from_secs(1));
        if u128::from(rate.requests) > per.as_nanos() {
            self.say(&format!("{field}.requests"), format_args!("{} in {per:?} is no limit", rate.requests));
            return None;
        }
        let half_a_second = u128::from(rate.requests) * 500 / per.as_millis().max(1);
        // With a burst of 1, whoever comes a little late has lost that little for good. Where requests are seldom that matters less
        // than that two at once are twice what was asked for.
        let least = if u128::from(rate.requests) * 1000 < per.as_millis() { 1 } else { 2 };
        let burst = or(rate.burst, u32::try_from(half_a_second).unwrap_or(u32::MAX).max(least));
        Some(Rate { requests: rate.requests, per, burst })
    }

    pub(super) fn concurrency(&mut self, field: &str, it: wire::Concurrency) -> Concurrency {
        let default = Concurrency::default();
        let adaptive = Adaptive::default();
        let clients = it.clients.iter().map(|client| (client.client.clone(), client.priority()));
        let clients: Vec<_> = clients.collect();
        Concurrency {
            limit: or(it.limit, default.limit),
            adaptive: (!it.fixed).then(|| Adaptive {
                max_limit: or(it.max_limit, adaptive.max_limit),
                window: milliseconds(it.window_ms).unwrap_or(adaptive.window),
                min_rtt_interval: milliseconds(it.min_rtt_interval_ms).unwrap_or(adaptive.min_rtt_interval),
                min_rtt_requests: or(it.min_rtt_requests, adaptive.min_rtt_requests),
                buffer: match it.buffer_percent {
                    0 => adaptive.buffer,
                    percent => f64::from(percent) / 100.0,
                },
            }),
            max_queue: it.max_queue.unwrap_or(default.max_queue),
            queue_timeout: milliseconds(it.queue_timeout_ms).unwrap_or(default.queue_timeout),
            priority_header: match it.priority_header.as_str() {
                "" => None,
                name => self.parse(&format!("{field}.priority_header"), name),
            },
            clients: self.clients(&format!("{field}.clients"), clients),
        }
    }
}

pub(super) fn request_limits(it: wire::RequestLimits) -> RequestLimits {
    RequestLimits {
        max_header_bytes: some(it.max_header_bytes),
        max_headers: some(it.max_headers),
        max_body_bytes: it.max_body_bytes,
        max_connections: some(it.max_connections),
        max_connections_per_client: some(it.max_connections_per_client),
        max_streams_per_connection: some(it.max_streams_per_connection),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_told_by_namespace_and_account() {
        let id = |text: &str| text.parse::<SpiffeId>().expect("an identity");
        let web = id("spiffe://t/ns/demo/sa/web");
        let client = |account: Option<&str>| Client {
            namespace: "demo".into(),
            service_account: account.map(Into::into),
        };
        assert!(client(None).is(Some(&web)) && client(Some("web")).is(Some(&web)));
        assert!(!client(Some("api")).is(Some(&web)) && !client(None).is(None));
        assert!(!client(None).is(Some(&id("spiffe://t/ns/other/sa/web"))));
    }

    #[test]
    fn a_burst_is_half_a_seconds_worth() {
        let rate = |requests, per_ms, burst| {
            let rate = Faults::default().rate("", wire::Rate { requests, per_ms, burst });
            rate.expect("a rate").burst
        };
        assert_eq!([100, 2, 1].map(|requests| rate(requests, 0, 0)), [50, 2, 2]);
        assert_eq!([rate(600, 60_000, 0), rate(59, 60_000, 0), rate(1, 0, 9)], [5, 1, 9]);
        assert_eq!(Faults::default().rate("", wire::Rate::default()), None);
    }
}
