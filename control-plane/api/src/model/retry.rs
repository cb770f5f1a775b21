//! When a request is sent again, or twice: retries, hedges, and the budgets that bound both.

use std::{ops::RangeInclusive, time::Duration};

use super::{Faults, milliseconds, or, some};
use crate::wire;

/// When a request that failed is sent again.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// After the first.
    pub attempts: u32,
    /// What a request that may have been processed is sent again for.
    pub on: Conditions,
    /// Before the first retry at most so long; doubles with each. Where in between is chance (full jitter).
    pub backoff: Duration,
    /// The most that it becomes.
    pub max_backoff: Duration,
    /// A `Retry-After` or gRPC pushback that is longer is not waited for: the answer goes to the caller.
    pub max_retry_after: Duration,
    /// Whether also methods are repeated that are not idempotent (RFC 9110 9.2.2), gRPC's among them.
    pub non_idempotent: bool,
    /// On all retries of the service.
    pub budget: Budget,
    /// A request whose body is larger is not sent again once more of it has been sent, bytes.
    pub max_body: usize,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 2,
            on: Conditions::named(&["gatewayError", "reset", "timeout", "unavailable"]),
            backoff: Duration::from_millis(25),
            max_backoff: Duration::from_millis(250),
            max_retry_after: Duration::from_secs(1),
            non_idempotent: false,
            budget: Budget::RETRY,
            max_body: 64 * 1024,
        }
    }
}

/// When a request is sent to a second endpoint although the first may still answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Hedge {
    /// After so long without an answer.
    pub after: Option<Duration>,
    /// After what so many percent of the service's answers have taken. With `after`, whichever is later.
    pub percentile: Option<u32>,
    /// Attempts beside the first.
    pub attempts: u32,
    /// Whether also methods are hedged that are not idempotent.
    pub non_idempotent: bool,
    /// On all hedges of the service.
    pub budget: Budget,
}

impl Default for Hedge {
    fn default() -> Self {
        Self { after: None, percentile: None, attempts: 1, non_idempotent: false, budget: Budget::HEDGE }
    }
}

/// How much may be sent beyond the requests themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Of the window's requests.
    pub percent: u32,
    /// So many are allowed however few requests there are.
    pub min_per_second: u32,
    /// Over which both are taken, whole seconds, 1 to [`Self::MAX_WINDOW`].
    pub window: u32,
}

impl Budget {
    /// The longest window, seconds.
    pub const MAX_WINDOW: u32 = 60;
    /// Of retries, where no policy says otherwise.
    pub const RETRY: Self = Self { percent: 20, min_per_second: 10, window: 10 };
    /// Of hedges.
    pub const HEDGE: Self = Self { percent: 10, min_per_second: 1, window: 10 };
}

/// How an attempt must have failed for another to follow, although the first may have been processed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Conditions {
    /// HTTP statuses.
    pub statuses: Vec<RangeInclusive<u16>>,
    /// The connection ended after the request was sent and before an answer began.
    pub reset: bool,
    /// The time for one attempt was over.
    pub timeout: bool,
    /// gRPC codes, as bits.
    pub grpc: u32,
}

/// What a condition may be called, and what each means.
const NAMES: [(&str, Part); 9] = [
    ("5xx", Part::Statuses(500, 599)),
    ("gatewayError", Part::Statuses(502, 504)),
    ("reset", Part::Reset),
    ("timeout", Part::Timeout),
    ("cancelled", Part::Grpc(1)),
    ("deadlineExceeded", Part::Grpc(4)),
    ("internal", Part::Grpc(13)),
    ("resourceExhausted", Part::Grpc(8)),
    ("unavailable", Part::Grpc(14)),
];

#[derive(Clone, Copy)]
enum Part {
    Statuses(u16, u16),
    Reset,
    Timeout,
    Grpc(u32),
}

impl Conditions {
    /// Every name that [`Self::add`] takes.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|(name, _)| *name)
    }

    /// Adds a condition by its name. Whether there is one of that name.
    pub fn add(&mut self, name: &str) -> bool {
        let Some((_, part)) = NAMES.iter().find(|(known, _)| *known == name) else { return false };
        match *part {
            Part::Statuses(first, last) => self.statuses.push(first..=last),
            Part::Reset => self.reset = true,
            Part::Timeout => self.timeout = true,
            Part::Grpc(code) => self.grpc |= 1 << code,
        }
        true
    }

    fn named(names: &[&str]) -> Self {
        let mut conditions = Self::default();
        for name in names {
            conditions.add(name);
        }
        conditions
    }
}

impl Faults {
    pub(super) fn retry(&mut self, retry: wire::RetryPolicy) -> Retry {
        let default = Retry::default();
        let mut on = match retry.on.is_empty() {
            true => default.on,
            false => Conditions::default(),
        };
        for (i, name) in retry.on.iter().enumerate() {
            if !on.add(name) {
                self.say(
                    &format!("policy.retry.on[{i}]"),
                    format_args!("{name:?} is no condition known here"),
                );
            }
        }
        for (i, code) in retry.codes.iter().enumerate() {
            match u16::try_from(*code) {
                Ok(code @ 400..=599) => on.statuses.push(code..=code),
                _ => self.say(&format!("policy.retry.codes[{i}]"), format_args!("{code} is no error")),
            }
        }
        Retry {
            attempts: or(retry.attempts, default.attempts),
            on,
            backoff: milliseconds(retry.backoff_base_ms).unwrap_or(default.backoff),
            max_backoff: milliseconds(retry.backoff_max_ms).unwrap_or(default.max_backoff),
            max_retry_after: retry
                .max_retry_after_ms
                .map_or(default.max_retry_after, |ms| Duration::from_millis(ms.into())),
            non_idempotent: retry.non_idempotent,
            budget: self.budget("policy.retry.budget", retry.budget, default.budget),
            max_body: retry.max_body_bytes.map_or(default.max_body, |bytes| bytes as usize),
        }
    }

    pub(super) fn hedge(&mut self, hedge: wire::HedgePolicy) -> Hedge {
        let default = Hedge::default();
        if hedge.after_ms == 0 && hedge.percentile == 0 {
            self.say("policy.hedge", "says neither after_ms nor percentile");
        }
        if hedge.percentile > 99 {
            self.say("policy.hedge.percentile", format_args!("{} is above 99", hedge.percentile));
        }
        Hedge {
            after: milliseconds(hedge.after_ms),
            percentile: some(hedge.percentile),
            attempts: or(hedge.attempts, default.attempts),
            non_idempotent: hedge.non_idempotent,
            budget: self.budget("policy.hedge.budget", hedge.budget, default.budget),
        }
    }

    fn budget(&mut self, field: &str, budget: Option<wire::Budget>, default: Budget) -> Budget {
        let budget = budget.unwrap_or_default();
        if budget.window_s > Budget::MAX_WINDOW {
            let most = Budget::MAX_WINDOW;
            self.say(&format!("{field}.window_s"), format_args!("{} is above {most}", budget.window_s));
        }
        Budget {
            percent: budget.percent.unwrap_or(default.percent),
            min_per_second: budget.min_per_second.unwrap_or(default.min_per_second),
            window: or(budget.window_s, default.window),
        }
    }
}
