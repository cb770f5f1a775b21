//! Is it the application, the network or the mesh? One sentence from where requests' time went; dashboard and `pillion stat --hops` tell the same.

use pillion_api::hops::{SEGMENTS, Segment};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::history::{Spent, SpentSums};

/// With fewer requests nothing is said.
const FEW: u64 = 10;
/// A workload is compared with others from so many requests on: a balancer gives a slow one few.
const FEW_OF_ONE: u64 = 5;
/// A workload stands out whose requests take so many times as long as those of the others…
const TIMES_AS_LONG: f64 = 2.0;
/// …and so much longer, milliseconds: what nobody feels is no reason to look there.
const MUCH_LONGER_MS: f64 = 5.0;
/// A segment stands out that has so much of the whole.
const MOST: f64 = 0.5;
/// So much of the requests counts as all: some reach nobody, for one.
pub(super) const NEARLY_ALL: f64 = 0.9;
/// Less of it is not worth a word.
const PART: f64 = 0.1;
/// With a reason of its own, less is enough.
const MUCH: f64 = 0.3;
/// A sidecar that could not run in so much of the time is short of CPU.
pub(super) const SHORT_OF_CPU: f64 = 0.2;

/// What stands out of where requests' time went.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct VerdictView {
    /// In plain words.
    pub text: String,
    /// The segment that it is about; null: none stands out, or there were too few requests.
    pub segment: Option<String>,
    /// The workload that it is about, where it is much slower than the others; else null.
    pub workload: Option<String>,
    /// Whether the sidecar that it is about is short of CPU.
    pub short_of_cpu: bool,
}

/// Some requests, and the mean time of each segment, milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Means {
    pub(super) requests: u64,
    ms: [f64; SEGMENTS],
}

impl Means {
    pub(super) fn of(&self, segment: Segment) -> f64 {
        self.ms[segment as usize]
    }

    pub(super) fn whole(&self) -> f64 {
        self.ms.iter().sum()
    }

    /// What takes the most time, if any was measured.
    pub(super) fn largest(&self) -> Option<Segment> {
        let largest = Segment::ALL.into_iter().max_by(|a, b| self.of(*a).total_cmp(&self.of(*b)));
        largest.filter(|segment| self.of(*segment) > 0.0)
    }

    /// Until the answer began.
    pub(super) fn until_answered(&self) -> f64 {
        self.whole() - self.of(Segment::Body) - self.of(Segment::Caller)
    }

    /// What the workload that served, and the way to it, have to do with.
    fn beyond(&self) -> f64 {
        OF_ONE.iter().map(|segment| self.of(*segment)).sum()
    }
}

impl From<&Spent> for Means {
    fn from(spent: &Spent) -> Self {
        Self { requests: spent.requests(), ms: Segment::ALL.map(|segment| spent.mean_ms(segment)) }
    }
}

impl From<&SpentSums> for Means {
    fn from(sums: &SpentSums) -> Self {
        Self { requests: sums.requests().into(), ms: Segment::ALL.map(|segment| sums.mean_ms(segment)) }
    }
}

/// Segments that may be longer for one workload than for others. What the caller takes, or tries before, is not its doing. Nor is
/// how long an answer goes on: of a few long streams one workload has one more than another.
const OF_ONE: [Segment; 5] =
    [Segment::Client, Segment::Network, Segment::Server, Segment::Application, Segment::Upstream];

/// A workload that served some of the requests, as their callers see it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Served {
    pub(super) workload: String,
    pub(super) means: Means,
    /// Most of its requests fail, 4xx included: how quickly is no measure for the others.
    pub(super) failing: bool,
    /// Whether its sidecar is.
    pub(super) short_of_cpu: bool,
}

/// Between whom.
#[derive(Debug, Clone, Default)]
pub(super) struct Between {
    /// The caller; `None`: there are several.
    pub(super) from: Option<String>,
    pub(super) to: String,
    /// Of the callers' workloads those whose sidecars are short of CPU…
    pub(super) starved_callers: Vec<String>,
    /// …and how many callers' workloads there are, where there is one of those.
    pub(super) calling: usize,
    /// What the service itself calls.
    pub(super) onward: Vec<Onward>,
}

/// Calls of another service by the one that was asked. Whether its application waits for them is not known: they may be several at a
/// time, or for nobody.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Onward {
    pub(super) to: String,
    /// Until they were answered, for each request that it was asked, milliseconds.
    pub(super) ms: f64,
}

/// What stands out: a workload that is much slower than the others, else the segment that takes most of the time.
pub(super) fn verdict(all: &Means, served: &[Served], between: &Between) -> VerdictView {
    if all.requests < FEW {
        let text = format!("too few requests to tell: {}", all.requests);
        return VerdictView { text, ..VerdictView::default() };
    }
    of_one(served, between).unwrap_or_else(|| of_all(all, served, between))
}

/// The workload that stands out most.
fn of_one(served: &[Served], between: &Between) -> Option<VerdictView> {
    let asked: Vec<&Served> = served.iter().filter(|one| one.means.requests >= FEW_OF_ONE).collect();
    // What all of them do is nobody's failing: where most are asked for what is not there, it is the answer.
    let all_fail = asked.iter().all(|one| one.failing);
    let found = asked.iter().filter_map(|one| {
        let others =
            || asked.iter().filter(|other| other.workload != one.workload && (all_fail || !other.failing));
        let usual = median(others().map(|other| other.means.beyond()))?;
        let longer = one.means.beyond() - usual;
        if longer < MUCH_LONGER_MS || one.means.beyond() < TIMES_AS_LONG * usual {
            return None;
        }
        let compared = OF_ONE.map(|segment| {
            let usual = median(others().map(|other| other.means.of(segment))).unwrap_or_default();
            (segment, usual, one.means.of(segment) - usual)
        });
        let (segment, usual, more) = compared.into_iter().max_by(|a, b| a.2.total_cmp(&b.2))?;
        (more >= MOST * longer).then_some((*one, segment, usual, longer))
    });
    let (one, segment, usual, _) = found.max_by(|a, b| a.3.total_cmp(&b.3))?;
    let (own, others) = (time(one.means.of(segment)), time(usual));
    let (name, from) = (&one.workload, caller(between));
    let short_of_cpu = segment == Segment::Server && one.short_of_cpu;
    let text = match segment {
        Segment::Application => {
            format!("{name} is slow: its application takes {own}, that of the others {others}")
        }
        Segment::Network => {
            format!("the network between {from} and {name} is slow: it takes {own}, to the others {others}")
        }
        Segment::Server if short_of_cpu => {
            format!(
                "the sidecar of {name} is short of CPU: requests spend {own} there, {others} in those of the others"
            )
        }
        Segment::Server => {
            format!("requests wait in the sidecar of {name}: {own}, {others} in those of the others")
        }
        Segment::Upstream => {
            format!("{name} is slow or does not answer: {own}, the others {others}; nothing tells it apart")
        }
        Segment::Client | Segment::Caller | Segment::Retries | Segment::Body => {
            format!("the sidecar of {from} takes {own} to reach {name}, {others} to reach the others")
        }
    };
    Some(VerdictView {
        text,
        segment: Some(segment.name().to_owned()),
        workload: Some(name.clone()),
        short_of_cpu,
    })
}

/// The segment that takes most of the time, if one does.
fn of_all(all: &Means, served: &[Served], between: &Between) -> VerdictView {
    let whole = all.whole();
    let Some(segment) = all.largest() else {
        return VerdictView { text: "no time was measured".to_owned(), ..VerdictView::default() };
    };
    let share = format!("{} of {}", time(all.of(segment)), time(whole));
    let starved = short_of_cpu(segment, served, between);
    let has_reason = starved.is_some();
    let is_most = all.of(segment) >= MOST * whole;
    let enough = if has_reason { MUCH } else { MOST };
    if all.of(segment) < enough * whole {
        let text = format!("no part stands out; the largest is {}: {share}", plain(segment));
        return VerdictView { text, ..VerdictView::default() };
    }
    let (from, to) = (caller(between), &between.to);
    let part = if is_most { "most" } else { "the largest part" };
    let place = match (segment, starved) {
        (_, Some(whose)) => format!("{whose} short of CPU: {part} of the time is there"),
        (Segment::Application, _) => format!("most of the time is in the application of {to}"),
        (Segment::Body, _) => {
            format!(
                "most of the time is after the application of {to} has begun to answer: long answers, streams, or what was broken off"
            )
        }
        (Segment::Network, _) => {
            let name = match served {
                [one] if one.means.requests as f64 >= NEARLY_ALL * all.requests as f64 => &one.workload,
                _ => to,
            };
            format!("most of the time is in the network between {from} and {name}")
        }
        (Segment::Server, _) => {
            format!(
                "most of the time requests wait in the sidecar of {to}: for a limit, or for the application to take them"
            )
        }
        (Segment::Client, _) => {
            format!(
                "most of the time is in the sidecar of {from}: a limit, an injected fault, or waiting for a connection"
            )
        }
        (Segment::Retries, _) => "most of the time goes into tries before the last one".to_owned(),
        (Segment::Caller, _) => {
            format!("most of the time {from} is waited for: to send its request, or to take the answer")
        }
        (Segment::Upstream, _) => {
            format!("most of the time is beyond the sidecar of {from}, where nothing tells it apart")
        }
    };
    let onward = match segment {
        Segment::Application => onward(all.of(segment), &between.onward),
        _ => String::new(),
    };
    VerdictView {
        text: format!("{place}, {share}{onward}"),
        segment: Some(segment.name().to_owned()),
        workload: None,
        short_of_cpu: has_reason,
    }
}

/// Whose sidecars are short of CPU, if that may be why the segment is the largest: half of it, or of those who make it, is theirs.
fn short_of_cpu(segment: Segment, served: &[Served], between: &Between) -> Option<String> {
    let starved: Vec<&str> = match segment {
        Segment::Server => {
            let spent = |one: &Served| one.means.requests as f64 * one.means.of(Segment::Server);
            let starved = || served.iter().filter(|one| one.short_of_cpu);
            let theirs: f64 = starved().map(spent).sum();
            let is_theirs = theirs >= MOST * served.iter().map(spent).sum::<f64>();
            starved().filter(|_| is_theirs).map(|one| one.workload.as_str()).collect()
        }
        Segment::Client => {
            let starved = between.starved_callers.iter().map(String::as_str);
            let is_theirs = starved.len() as f64 >= MOST * between.calling as f64;
            starved.filter(|_| is_theirs).collect()
        }
        _ => Vec::new(),
    };
    let (of, all) = match segment {
        Segment::Server => (between.to.as_str(), served.len()),
        _ => (caller(between), between.calling),
    };
    match starved.as_slice() {
        [] => None,
        [one] if all == 1 || segment == Segment::Server => Some(format!("the sidecar of {one} is")),
        [one] => Some(format!("the sidecar of {one}, one of {all} of {of}, is")),
        many => Some(format!("{} of {all} sidecars of {of} are", many.len())),
    }
}

/// `; for each request its calls of bank take 51 ms in all`: where calls take half of an application's time, those that take much of
/// it. What takes more than all of it is not what it waits for.
fn onward(application_ms: f64, onward: &[Onward]) -> String {
    let may_be = |one: &&Onward| (PART * application_ms..1.1 * application_ms).contains(&one.ms);
    let all: f64 = onward.iter().filter(may_be).map(|one| one.ms).sum();
    let calls: Vec<String> =
        onward.iter().filter(may_be).map(|one| format!("of {} take {}", one.to, time(one.ms))).collect();
    if calls.is_empty() || all < MOST * application_ms {
        return String::new();
    }
    format!("; for each request its calls {} in all", calls.join(", "))
}

fn caller(between: &Between) -> &str {
    between.from.as_deref().unwrap_or("its callers")
}

fn plain(segment: Segment) -> &'static str {
    match segment {
        Segment::Caller => "the caller",
        Segment::Client => "the caller's sidecar",
        Segment::Retries => "earlier tries",
        Segment::Network => "the network",
        Segment::Server => "the service's sidecar",
        Segment::Application => "the application",
        Segment::Body => "the application, after it has begun to answer",
        Segment::Upstream => "beyond the caller's sidecar",
    }
}

/// The lower one where there are two in the middle: of two others the better one is what there could be.
fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().checked_sub(1)? / 2).copied()
}

/// For a sentence.
fn time(ms: f64) -> String {
    match ms {
        ms if ms >= 1000.0 => format!("{:.1} s", ms / 1000.0),
        ms if !(0.05..9.95).contains(&ms) => format!("{ms:.0} ms"),
        ms => format!("{ms:.1} ms"),
    }
}

#[cfg(test)]
mod tests;
