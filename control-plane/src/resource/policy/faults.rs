//! Faults that callers of the service are made to see, for a time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pillion_api::{model, wire};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    DAY, MILLISECOND, MINUTE, SECOND,
    matching::{Client, RequestMatch, check_matches, matches_to_wire},
    rate::check_names,
};
use crate::resource::{
    duration, fault,
    fault::{Faults, Path},
    metadata,
    percent::Percent,
};

/// Made by the caller's sidecar, as if the service did it. It ends by itself: nobody can forget one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// By which answers and metrics name it. Default: its place in the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Requests that it is for: those that any of these fits. Default: every request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matches: Option<Vec<RequestMatch>>,
    /// Only for requests of these. Default: of all callers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callers: Option<Vec<Caller>>,
    /// Requests that wait before they go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Delay>,
    /// Requests that are answered with an error, and reach nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<Abort>,
    /// When it ends (RFC 3339), at most a day after it is applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Instead of `until`: how long from when it is applied. The server then adds `until`, which stays as it is when the fault is
    /// applied again unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#for: Option<String>,
}

/// A service that calls, by the name that the mesh shows as the source of its requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Caller {
    /// Default: the policy's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// A service, or a workload that belongs to none. Default: all of the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

/// Requests that wait before they go on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Delay {
    /// How long.
    pub duration: String,
    /// Of the requests, 0.0001 to 100. Default: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<Percent>,
}

/// Requests that are answered with an error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Abort {
    /// 400 to 599. Default: 503.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u32>,
    /// To gRPC, 1 to 16. Default: what the status means there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<u32>,
    /// Of the requests, 0.0001 to 100. Default: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<Percent>,
}

impl Fault {
    fn check(&self, faults: &mut Faults, at: &Path) {
        check_matches(self.matches.as_ref(), faults, &at.field("matches"));
        let callers = self.callers.as_deref().unwrap_or_default();
        faults.check_length(&at.field("callers"), callers.len(), 32);
        for (index, caller) in callers.iter().enumerate() {
            caller.check(faults, &at.field("callers").index(index));
        }
        if let Some(delay) = &self.delay {
            let at = at.field("delay");
            duration::check(faults, &at.field("duration"), Some(&delay.duration), MILLISECOND, MINUTE);
            delay.percent.iter().for_each(|percent| percent.check(faults, &at.field("percent"), false));
        }
        if let Some(abort) = &self.abort {
            let at = at.field("abort");
            super::check_number(faults, &at.field("status"), abort.status, 400, 599);
            super::check_number(faults, &at.field("grpcStatus"), abort.grpc_status, 1, 16);
            abort.percent.iter().for_each(|percent| percent.check(faults, &at.field("percent"), false));
        }
        if self.delay.is_none() && self.abort.is_none() {
            faults.add(at, "must have delay, abort, or both");
        }
        match &self.until {
            None if self.r#for.is_none() => {
                faults.add(&at.field("until"), "is required, or for: when the fault ends");
            }
            Some(until) if self.until().is_none() => {
                let example = "must be a time such as \"2026-01-31T12:00:00Z\" (RFC 3339)";
                faults.add(&at.field("until"), format!("{example}, is {until:?}"));
            }
            _ => {}
        }
        duration::check(faults, &at.field("for"), self.r#for.as_ref(), SECOND, DAY);
    }

    /// When it ends.
    pub fn until(&self) -> Option<SystemTime> {
        humantime::parse_rfc3339(self.until.as_ref()?).ok()
    }

    fn until_ms(&self) -> i64 {
        let since = self.until().and_then(|until| until.duration_since(UNIX_EPOCH).ok());
        since.and_then(|since| i64::try_from(since.as_millis()).ok()).unwrap_or(0)
    }

    fn to_wire(&self, index: usize, namespace: &str) -> wire::InjectedFault {
        let callers = self.callers.iter().flatten().map(|caller| {
            let client = Client { namespace: caller.namespace.clone(), service_account: None };
            let client = client.to_wire(namespace);
            wire::Caller { service: caller.service.clone().unwrap_or_default(), namespace: client.namespace }
        });
        let per_million = |percent: Option<Percent>| percent.map_or(model::Percent::OF, Percent::per_million);
        wire::InjectedFault {
            name: self.name.clone().unwrap_or_else(|| index.to_string()),
            matches: matches_to_wire(self.matches.as_ref()),
            callers: callers.collect(),
            delay_ms: duration::wire_ms(self.delay.as_ref().map(|delay| &delay.duration)),
            delay_per_million: self.delay.as_ref().map_or(0, |delay| per_million(delay.percent)),
            abort_status: self.abort.as_ref().map_or(0, |abort| abort.status.unwrap_or(503)),
            abort_grpc_status: self.abort.as_ref().and_then(|abort| abort.grpc_status).unwrap_or(0),
            abort_per_million: self.abort.as_ref().map_or(0, |abort| per_million(abort.percent)),
            until_ms: self.until_ms(),
        }
    }
}

impl Caller {
    fn check(&self, faults: &mut Faults, at: &Path) {
        if self.namespace.is_none() && self.service.is_none() {
            faults.add(at, "must name a service, a namespace, or both");
        }
        for (field, name) in [("namespace", &self.namespace), ("service", &self.service)] {
            if let Some(Err(message)) = name.as_deref().map(metadata::dns_label) {
                faults.add(&at.field(field), message);
            }
        }
    }
}

pub(super) fn check(list: &[Fault], faults: &mut Faults, at: &Path) {
    faults.check_length(at, list.len(), 16);
    check_names(list.iter().map(|fault| fault.name.as_ref()), faults, at);
    for (index, fault) in list.iter().enumerate() {
        fault.check(faults, &at.index(index));
    }
}

/// Says which `until` is too far away. One that is over already does nothing.
pub fn check_ends(list: &[Fault], now: SystemTime) -> Vec<fault::Fault> {
    // Whoever adds a day to the present time should not be refused for the seconds until it is read.
    let latest = now + DAY + MINUTE;
    let late = list.iter().enumerate().filter(|(_, fault)| fault.until().is_some_and(|until| until > latest));
    let why = "must be at most 24h ahead: a fault is for a time";
    late.map(|(index, _)| fault::Fault::new(until_of(index), why)).collect()
}

fn until_of(index: usize) -> String {
    format!("spec.faults[{index}].until")
}

/// Adds to `for` when that is over: of a fault that was there before, `was` has it. Says where something else was sent.
pub fn settle(list: &mut [Fault], was: &[Fault], now: SystemTime) -> Vec<fault::Fault> {
    let mut faults = Vec::new();
    for (index, fault) in list.iter_mut().enumerate() {
        let Some(length) = fault.r#for.as_ref().and_then(|text| duration::parse(text).ok()) else { continue };
        let known = was.iter().find(|known| match fault.until {
            // As it is written again and again.
            None => Fault { until: None, ..(*known).clone() } == *fault,
            // As it was read, and perhaps changed in something else.
            Some(_) => known.r#for == fault.r#for && known.until == fault.until,
        });
        match known.and_then(|known| known.until.clone()) {
            Some(until) => fault.until = Some(until),
            None if fault.until.is_none() => {
                fault.until = Some(humantime::format_rfc3339_seconds(now + length).to_string());
            }
            None => {
                let why = "is what the server makes of for: leave one of them out";
                faults.push(fault::Fault::new(until_of(index), why));
            }
        }
    }
    faults
}

/// As sidecars are told: without those that are over.
pub fn to_wire(list: &[Fault], namespace: &str, now_ms: i64) -> Vec<wire::InjectedFault> {
    let active = list.iter().enumerate().map(|(index, fault)| fault.to_wire(index, namespace));
    active.filter(|fault| fault.until_ms > now_ms).collect()
}

/// How long a fault still goes on; `None`: it is over.
pub fn left(fault: &Fault, now: SystemTime) -> Option<Duration> {
    fault.until().and_then(|until| until.duration_since(now).ok()).filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SystemTime {
        humantime::parse_rfc3339(text).expect("a time")
    }

    #[test]
    fn a_duration_becomes_a_time_and_no_time_is_far_away() {
        let now = at("2026-01-31T12:00:00Z");
        let written = vec![
            Fault { r#for: Some("10m".into()), ..Fault::default() },
            Fault { until: Some("2026-02-01T12:00:00Z".into()), ..Fault::default() },
            Fault { until: Some("2026-02-01T12:30:00Z".into()), ..Fault::default() },
            Fault { until: Some("2025-01-01T00:00:00Z".into()), ..Fault::default() },
        ];
        let faults = check_ends(&written, now);
        assert_eq!(faults.len(), 1);
        assert_eq!(faults[0].field, "spec.faults[2].until");
        let mut list = written.clone();
        assert!(settle(&mut list, &[], now).is_empty());
        assert_eq!(list[0].until.as_deref(), Some("2026-01-31T12:10:00Z"));
        assert_eq!(list[1..], written[1..]);
        let lefts = list.iter().map(|fault| left(fault, now).map(|left| left.as_secs()));
        assert_eq!(lefts.collect::<Vec<_>>(), [Some(600), Some(86_400), Some(88_200), None]);
        let now_ms = i64::try_from(now.duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
        let names =
            |now_ms| to_wire(&list, "n", now_ms).into_iter().map(|fault| fault.name).collect::<Vec<_>>();
        assert_eq!(names(now_ms), ["0", "1", "2"]);
        assert_eq!(names(now_ms + 600_000), ["1", "2"]);
    }

    #[test]
    fn what_is_applied_again_ends_when_it_would_have() {
        let (began, later) = (at("2026-01-31T12:00:00Z"), at("2026-01-31T12:07:00Z"));
        let outage = Fault { abort: Some(Abort::default()), r#for: Some("10m".into()), ..Fault::default() };
        let mut was = vec![outage.clone()];
        assert!(settle(&mut was, &[], began).is_empty());
        let end = was[0].until.clone();
        let longer = Fault { r#for: Some("1h".into()), ..outage.clone() };
        let named = Fault { name: Some("outage".into()), ..outage.clone() };
        let read = Fault { name: Some("outage".into()), ..was[0].clone() };
        for (sent, expected) in [
            (&outage, end.as_deref()),
            (&was[0], end.as_deref()),
            // Read, and changed in something else.
            (&read, end.as_deref()),
            // Another one than before.
            (&longer, Some("2026-01-31T13:07:00Z")),
            (&named, Some("2026-01-31T12:17:00Z")),
        ] {
            // At another place in the list.
            let mut list = vec![Fault { name: Some("first".into()), ..Fault::default() }, sent.clone()];
            assert!(settle(&mut list, &was, later).is_empty());
            assert_eq!(list[1].until.as_deref(), expected, "{sent:?}");
        }
        let mut moved = [Fault { until: Some("2026-01-31T20:00:00Z".into()), ..outage.clone() }];
        let faults = settle(&mut moved, &was, later);
        assert_eq!(faults[0].field, "spec.faults[0].until");
        assert!(faults[0].message.contains("leave one of them out"), "{:?}", faults[0]);
        // It is over, and applying it once more does not begin it anew.
        let mut again = [outage];
        assert!(settle(&mut again, &was, later + DAY).is_empty());
        assert_eq!(left(&again[0], later + DAY), None);
    }

    #[test]
    fn a_share_may_be_small() {
        for (text, per_million, written) in [
            ("50", 500_000, "50"),
            ("0.1", 1000, "0.1"),
            ("0.0001", 1, "0.0001"),
            ("100.0", 1_000_000, "100"),
        ] {
            let percent: Percent = serde_json::from_str(text).expect("a number");
            assert_eq!(percent.per_million(), per_million);
            assert_eq!(serde_json::to_string(&percent).expect("a number"), written);
            let mut faults = Faults::default();
            percent.check(&mut faults, &Path::root(), false);
            assert!(faults.into_vec().is_empty());
        }
    }

    #[test]
    fn a_fault_needs_an_end_and_something_to_do() {
        let faults = |fault: Fault| {
            let mut faults = Faults::default();
            check(&[fault], &mut faults, &Path::root().field("faults"));
            faults.into_vec().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            faults(Fault::default()),
            [
                "faults[0]: must have delay, abort, or both",
                "faults[0].until: is required, or for: when the fault ends"
            ]
        );
        let abort = Some(Abort { status: Some(200), grpc_status: Some(17), percent: Some(Percent(0.0)) });
        let both = Fault { abort, until: Some("soon".into()), r#for: Some("2d".into()), ..Fault::default() };
        assert_eq!(faults(both).len(), 5);
        let good = Fault { abort: Some(Abort::default()), r#for: Some("1h".into()), ..Fault::default() };
        assert_eq!(faults(good), [""; 0]);
    }
}
