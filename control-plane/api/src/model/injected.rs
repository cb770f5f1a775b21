//! Faults that callers are made to see.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::StatusCode;

use super::{Faults, RouteMatch, milliseconds};
use crate::wire;

/// A fault that some requests to a service are made to see, until it is over.
#[derive(Debug, Clone)]
pub struct InjectedFault {
    /// For people and metrics.
    pub name: String,
    /// Requests that it is for; none: all.
    pub matches: Vec<RouteMatch>,
    /// Callers that it is for; none: all.
    pub callers: Vec<Caller>,
    /// What some wait for first.
    pub delay: Option<(Duration, Percent)>,
    /// What some are answered with.
    pub abort: Option<(Abort, Percent)>,
    /// When it is over.
    pub until: SystemTime,
}

impl InjectedFault {
    /// Whether it is for a caller: `<name>.<namespace>`, what others see as the source of its requests.
    pub fn is_for(&self, source: &str) -> bool {
        self.callers.is_empty() || self.callers.iter().any(|caller| caller.is(source))
    }
}

/// A share of all requests, 0 to 100 %, to a ten-thousandth of a percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u32);

impl Percent {
    /// How many it is of: chance is a number below.
    pub const OF: u32 = 1_000_000;
    /// 100 %.
    pub const ALL: Self = Self(Self::OF);

    /// So many of a million. `None`: that is more than all.
    pub fn per_million(number: u32) -> Option<Self> {
        (number <= Self::OF).then_some(Self(number))
    }

    /// Whether every request is one of them.
    pub fn is_all(self) -> bool {
        self.0 == Self::OF
    }

    /// From 0 to 100.
    pub fn percent(self) -> f64 {
        f64::from(self.0) / f64::from(Self::OF / 100)
    }

    /// Whether a request is one of them. `chance` is below [`Self::OF`], any as likely as the other.
    pub fn takes(self, chance: u32) -> bool {
        chance < self.0
    }
}

/// `0.1`
impl std::fmt::Display for Percent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.percent().fmt(f)
    }
}

/// A caller by what others see as the source of its requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Of this namespace.
    pub namespace: String,
    /// A service, or a workload that belongs to none; `None`: all of the namespace.
    pub service: Option<String>,
}

impl Caller {
    /// Whether it is this one: `<name>.<namespace>`.
    pub fn is(&self, source: &str) -> bool {
        source.split_once('.').is_some_and(|(name, namespace)| {
            namespace == self.namespace && self.service.as_ref().is_none_or(|service| service == name)
        })
    }
}

/// An answer that nobody gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abort {
    /// To HTTP.
    pub status: StatusCode,
    /// To gRPC.
    pub grpc: u8,
}

impl Faults {
    pub(super) fn injected(&mut self, field: &str, it: wire::InjectedFault) -> InjectedFault {
        let mut percent = |field: String, number: u32| {
            let percent = Percent::per_million(number);
            if percent.is_none() {
                self.say(&field, format_args!("{number} is above {}", Percent::OF));
            }
            percent.filter(|_| number > 0)
        };
        let delayed = percent(format!("{field}.delay_per_million"), it.delay_per_million);
        let aborted = percent(format!("{field}.abort_per_million"), it.abort_per_million);
        let status = u16::try_from(it.abort_status).ok().and_then(|it| StatusCode::from_u16(it).ok());
        if aborted.is_some() && status.is_none_or(|status| status.as_u16() < 400) {
            self.say(&format!("{field}.abort_status"), format_args!("{} is no error", it.abort_status));
        }
        let grpc = u8::try_from(it.abort_grpc_status).ok().filter(|code| (1..=16).contains(code));
        let abort =
            status.map(|status| Abort { status, grpc: grpc.unwrap_or_else(|| grpc_of(status)) }).zip(aborted);
        let callers = it.callers.into_iter().map(|caller| Caller {
            namespace: caller.namespace,
            service: (!caller.service.is_empty()).then_some(caller.service),
        });
        InjectedFault {
            matches: self.matches(field, &it.matches),
            callers: callers.collect(),
            delay: milliseconds(it.delay_ms).zip(delayed),
            abort,
            until: UNIX_EPOCH + Duration::from_millis(u64::try_from(it.until_ms).unwrap_or(0)),
            name: it.name,
        }
    }
}

/// What an HTTP status means to gRPC.
/// <https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md>
fn grpc_of(status: StatusCode) -> u8 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_are_told_by_their_name() {
        let all = Caller { namespace: "demo".into(), service: None };
        let web = Caller { service: Some("web".into()), ..all.clone() };
        assert!(all.is("web.demo") && all.is("api.demo") && !all.is("web.shop"));
        assert!(web.is("web.demo") && !web.is("api.demo"));
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        let mut faults = Faults::default();
        let wrong = wire::InjectedFault {
            abort_status: 200,
            abort_per_million: 500_000,
            delay_per_million: 1_000_001,
            ..Default::default()
        };
        faults.injected("f", wrong);
        assert_eq!(
            faults.0,
            ["f.delay_per_million: 1000001 is above 1000000", "f.abort_status: 200 is no error"]
        );
        let right = wire::InjectedFault { abort_status: 503, abort_per_million: 1000, ..Default::default() };
        let (abort, percent) = Faults::default().injected("f", right).abort.expect("it aborts");
        assert_eq!((abort.grpc, percent.to_string().as_str()), (14, "0.1"));
        for (number, text, taken) in
            [(0, "0", 0), (1, "0.0001", 1), (1000, "0.1", 1000), (Percent::OF, "100", Percent::OF)]
        {
            let percent = Percent::per_million(number).expect("a share");
            assert_eq!(percent.to_string(), text);
            assert!(!percent.takes(taken) && (taken == 0 || percent.takes(taken - 1)), "{text}");
        }
    }
}
