//! Faults that callers of the service are made to see, for a time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pillion_api::wire;
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
    /// Instead of `until`: how long from when it is applied. The server turns it into `until`.
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
    /// Of the requests, 1 to 100. Default: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u32>,
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
    /// Of the requests, 1 to 100. Default: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u32>,
}

impl Fault {
    fn check(&self, faults: &mut Faults, at: &Path) {
        check_matches(self.matches.as_ref(), faults, &at.field("matches"));
        let callers = self.callers.as_deref().unwrap_or_default();
        faults.check_length(&at.field("callers"), callers.len(), 32);
        for (index, caller) in callers.iter().enumerate() {
            caller.check(faults, &at.field("callers").index(index));
        }
        let percent = |faults: &mut Faults, at: &Path, percent: Option<u32>| {
            super::check_number(faults, &at.field("percent"), percent, 1, 100);
        };
        if let Some(delay) = &self.delay {
            let at = at.field("delay");
            duration::check(faults, &at.field("duration"), Some(&delay.duration), MILLISECOND, MINUTE);
            percent(faults, &at, delay.percent);
        }
        if let Some(abort) = &self.abort {
            let at = at.field("abort");
            super::check_number(faults, &at.field("status"), abort.status, 400, 599);
            super::check_number(faults, &at.field("grpcStatus"), abort.grpc_status, 1, 16);
            percent(faults, &at, abort.percent);
        }
        if self.delay.is_none() && self.abort.is_none() {
            faults.add(at, "must have delay, abort, or both");
        }
        match (&self.until, &self.r#for) {
            (None, None) => faults.add(&at.field("until"), "is required, or for: when the fault ends"),
            (Some(_), Some(_)) => faults.add(&at.field("for"), "does not go together with until"),
            (Some(until), None) if self.until().is_none() => {
                let example = "must be a time such as \"2026-01-31T12:00:00Z\" (RFC 3339)";
                faults.add(&at.field("until"), format!("{example}, is {until:?}"));
            }
            (Some(_), None) => {}
            (None, Some(_)) => {
                duration::check(faults, &at.field("for"), self.r#for.as_ref(), SECOND, DAY);
            }
        }
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
        let percent = |percent: Option<u32>| percent.unwrap_or(100);
        wire::InjectedFault {
            name: self.name.clone().unwrap_or_else(|| index.to_string()),
            matches: matches_to_wire(self.matches.as_ref()),
            callers: callers.collect(),
            delay_ms: duration::wire_ms(self.delay.as_ref().map(|delay| &delay.duration)),
            delay_percent: self.delay.as_ref().map_or(0, |delay| percent(delay.percent)),
            abort_status: self.abort.as_ref().map_or(0, |abort| abort.status.unwrap_or(503)),
            abort_grpc_status: self.abort.as_ref().and_then(|abort| abort.grpc_status).unwrap_or(0),
            abort_percent: self.abort.as_ref().map_or(0, |abort| percent(abort.percent)),
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

/// Turns `for` into `until`, and says which `until` is too far away. One that is over already does nothing.
pub fn settle(list: &mut [Fault], now: SystemTime) -> Vec<fault::Fault> {
    let mut faults = Vec::new();
    for (index, fault) in list.iter_mut().enumerate() {
        if let Some(length) = fault.r#for.take().and_then(|text| duration::parse(&text).ok()) {
            fault.until = Some(humantime::format_rfc3339_seconds(now + length).to_string());
        }
        // Whoever adds a day to the present time should not be refused for the seconds until it is read.
        let latest = now + DAY + MINUTE;
        if fault.until().is_some_and(|until| until > latest) {
            let at = format!("spec.faults[{index}].until");
            faults.push(fault::Fault::new(at, "must be at most 24h ahead: a fault is for a time"));
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
        let mut list = vec![
            Fault { r#for: Some("10m".into()), ..Fault::default() },
            Fault { until: Some("2026-02-01T12:00:00Z".into()), ..Fault::default() },
            Fault { until: Some("2026-02-01T12:30:00Z".into()), ..Fault::default() },
            Fault { until: Some("2025-01-01T00:00:00Z".into()), ..Fault::default() },
        ];
        let faults = settle(&mut list, now);
        assert_eq!(faults.len(), 1);
        assert_eq!(faults[0].field, "spec.faults[2].until");
        assert_eq!((list[0].until.as_deref(), &list[0].r#for), (Some("2026-01-31T12:10:00Z"), &None));
        let lefts = list.iter().map(|fault| left(fault, now).map(|left| left.as_secs()));
        assert_eq!(lefts.collect::<Vec<_>>(), [Some(600), Some(86_400), Some(88_200), None]);
        let now_ms = i64::try_from(now.duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
        let names =
            |now_ms| to_wire(&list, "n", now_ms).into_iter().map(|fault| fault.name).collect::<Vec<_>>();
        assert_eq!(names(now_ms), ["0", "1", "2"]);
        assert_eq!(names(now_ms + 600_000), ["1", "2"]);
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
        let abort = Some(Abort { status: Some(200), grpc_status: Some(17), percent: Some(0) });
        let both = Fault { abort, until: Some("soon".into()), r#for: Some("2d".into()), ..Fault::default() };
        assert_eq!(faults(both).len(), 4);
        let good = Fault { abort: Some(Abort::default()), r#for: Some("1h".into()), ..Fault::default() };
        assert_eq!(faults(good), [""; 0]);
    }
}
