//! Where requests' time went, as it is told.

use std::{
    cell::{OnceCell, RefCell},
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use pillion_api::hops::Segment;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    series::summed,
    verdict::{Between, Means, NEARLY_ALL, Onward, SHORT_OF_CPU, Served, VerdictView, verdict},
    view::{rounded, rounded_share},
};
use crate::history::{self, Counts, EdgeKey, Series, Spent, Tally};

/// What the requests of an edge, or all to a service, spent their time with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HopsView {
    /// Whose time was split.
    pub requests: u64,
    /// Of the whole request, milliseconds.
    pub mean_ms: f64,
    /// The same; null while nothing has been counted for whole seconds.
    pub p50_ms: Option<f64>,
    /// The same.
    pub p99_ms: Option<f64>,
    /// In the order of the way; those that had any.
    pub segments: Vec<SegmentView>,
    /// What stands out; null where it is not of whole ways.
    #[serde(default)]
    pub verdict: Option<VerdictView>,
    /// The same by the workload that served, as callers see it; the slowest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workloads: Vec<WorkloadHops>,
}

/// What the requests that one workload served spent their time with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadHops {
    /// What people call it.
    pub workload: String,
    /// Whose time was split.
    pub requests: u64,
    /// Of the whole request, milliseconds.
    pub mean_ms: f64,
    /// In the order of the way; those that had any.
    pub segments: Vec<WorkloadSegment>,
}

/// One segment of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadSegment {
    /// As in the whole.
    pub segment: String,
    /// Milliseconds.
    pub mean_ms: f64,
    /// Of the whole, 0 to 1.
    pub share: f64,
}

/// One segment of requests' way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SegmentView {
    /// `caller`, `client-sidecar`, `retries`, `network`, `server-sidecar`, `application`, `application-body` or `upstream`.
    pub segment: String,
    /// Milliseconds; those of all segments add up to the whole's.
    pub mean_ms: f64,
    /// Of the whole, 0 to 1.
    pub share: f64,
    /// Over all requests, milliseconds.
    pub p50_ms: f64,
    /// Over all requests, milliseconds.
    pub p99_ms: f64,
}

/// The same, of one edge.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EdgeHops {
    /// The caller.
    pub from: String,
    /// The service called.
    pub to: String,
    /// The service that served it where a route chose another, else null.
    pub backend: Option<String>,
    /// As the caller's sidecars, and with them the callee's, measured it.
    #[serde(flatten)]
    pub hops: HopsView,
}

impl HopsView {
    /// Of what was counted of the same requests. `None`: no time was split.
    pub(super) fn of(spent: &Spent, counts: &Counts) -> Option<Self> {
        let means = Segment::ALL.map(|segment| (segment, spent.mean_ms(segment)));
        let whole: f64 = means.iter().map(|(_, mean)| mean).sum();
        let segment = |(segment, mean_ms): (Segment, f64)| SegmentView {
            segment: segment.name().to_owned(),
            mean_ms: rounded(mean_ms),
            share: rounded_share(mean_ms / whole),
            p50_ms: rounded(spent.quantile_ms(segment, 0.5)),
            p99_ms: rounded(spent.quantile_ms(segment, 0.99)),
        };
        let segments = means.into_iter().filter(|(_, mean)| *mean > 0.0).map(segment).collect();
        (whole > 0.0).then(|| Self {
            requests: spent.requests(),
            mean_ms: rounded(whole),
            p50_ms: counts.quantile_ms(0.5).map(rounded),
            p99_ms: counts.quantile_ms(0.99).map(rounded),
            segments,
            verdict: None,
            workloads: Vec::new(),
        })
    }
}

/// Of several series together, of which `counts` were counted in that time.
pub(super) fn of_all<'a>(
    series: impl IntoIterator<Item = &'a Series>,
    counts: &Counts,
    seconds: i64,
    now_ms: i64,
) -> Option<HopsView> {
    let mut spent = Spent::default();
    series.into_iter().for_each(|series| spent.add(&series.hops(now_ms, seconds)));
    HopsView::of(&spent, counts)
}

/// Workloads that are told apart at once.
const MAX_WORKLOADS: usize = 100;

/// A caller's way to a service, and what was counted there.
pub(super) type Way<'a> = (&'a EdgeKey, &'a Series);

/// A look at the last `seconds` before some moment.
pub(super) struct Look<'a> {
    history: &'a history::State,
    /// Sidecars that are short of CPU: nearly always none.
    starved: Vec<&'a history::Sidecar>,
    seconds: i64,
    at_ms: i64,
    /// What was read of an edge: it is asked for those who call, and for those who are called.
    read: RefCell<BTreeMap<&'a EdgeKey, Rc<Spent>>>,
    /// Whom others see as the source of a workload's requests, by its namespace and name; made where it is asked for.
    callers: OnceCell<BTreeSet<(Option<&'a str>, &'a str, &'a str)>>,
    /// What was found of whom others see as the source of requests.
    sources: RefCell<BTreeMap<&'a str, Rc<Source<'a>>>>,
}

/// Workloads that call as one.
struct Source<'a> {
    /// Those that they were asked themselves.
    asked: u64,
    /// By the service that they call: until they were answered, milliseconds of all requests together.
    calls: BTreeMap<&'a str, f64>,
}

impl<'a> Look<'a> {
    pub(super) fn new(history: &'a history::State, seconds: i64, at_ms: i64) -> Self {
        let is_starved = |sidecar: &&history::Sidecar| sidecar.stalled(at_ms) >= SHORT_OF_CPU;
        let starved = history.sidecars().values().filter(is_starved).collect();
        Self {
            history,
            starved,
            seconds,
            at_ms,
            read: RefCell::default(),
            callers: OnceCell::new(),
            sources: RefCell::default(),
        }
    }

    fn spent(&self, (key, series): Way<'a>) -> Rc<Spent> {
        let mut read = self.read.borrow_mut();
        read.entry(key).or_insert_with(|| Rc::new(series.hops(self.at_ms, self.seconds))).clone()
    }

    /// Several ways together, as their callers see them, who know the whole of it. `counts`: what was counted there in that
    /// time. `to`: what is called.
    pub(super) fn at_ways(
        &self,
        ways: impl IntoIterator<Item = Way<'a>>,
        counts: &Counts,
        to: &str,
    ) -> Option<HopsView> {
        let mut spent = Spent::default();
        let mut callers = BTreeSet::new();
        // A workload's name is one of its namespace, which need not be that of what is called.
        let mut by_workload = BTreeMap::<(Option<&str>, &str), history::Served>::new();
        for (key, series) in ways {
            let of_way = self.spent((key, series));
            if of_way.requests() > 0 {
                callers.insert(key.from.as_str());
            }
            spent.add(&of_way);
            for (workload, served) in self.history.served(key, self.at_ms, self.seconds) {
                by_workload.entry((namespace(key.serving()), workload)).or_default().add(&served);
            }
        }
        let view = HopsView::of(&spent, counts)?;
        let all = Means::from(&spent);
        // Else nothing is said of it.
        let is_application = all.largest() == Some(Segment::Application);
        let onward = match is_application {
            true => self.onward(by_workload.keys().copied(), all.requests),
            false => Vec::new(),
        };
        let mut names = BTreeMap::<&str, usize>::new();
        by_workload.keys().for_each(|(_, name)| *names.entry(name).or_default() += 1);
        let served =
            by_workload.into_iter().map(|((within, workload), history::Served { spent, failed })| Served {
                workload: match within.filter(|_| names[workload] > 1) {
                    Some(within) => format!("{workload}.{within}"),
                    None => workload.to_owned(),
                },
                means: Means::from(&spent),
                failing: u64::from(failed) * 2 >= u64::from(spent.requests()),
                short_of_cpu: self
                    .starved
                    .iter()
                    .any(|sidecar| sidecar.workload == workload && namespace(&sidecar.source) == within),
            });
        let mut served: Vec<Served> = served.collect();
        served.sort_by(|one, other| other.means.whole().total_cmp(&one.means.whole()));
        let is_caller = |sidecar: &&history::Sidecar| callers.contains(sidecar.source.as_str());
        let starved_callers: Vec<String> =
            self.starved.iter().copied().filter(is_caller).map(|sidecar| sidecar.workload.clone()).collect();
        let calling = if starved_callers.is_empty() {
            0
        } else {
            self.history.sidecars().values().filter(is_caller).count()
        };
        let between = Between {
            from: callers.first().filter(|_| callers.len() == 1).map(|name| short(name)),
            to: short(to),
            starved_callers,
            calling,
            onward,
        };
        Some(HopsView {
            verdict: Some(verdict(&all, &served, &between)),
            workloads: served.iter().take(MAX_WORKLOADS).map(WorkloadHops::from).collect(),
            ..view
        })
    }

    /// What these workloads, each with its namespace, have called themselves, where nearly all that they were asked are these
    /// `requests`: for which of several they call is not known.
    fn onward(&self, served: impl Iterator<Item = (Option<&'a str>, &'a str)>, requests: u64) -> Vec<Onward> {
        let callers = self.callers.get_or_init(|| {
            let sidecars = self.history.sidecars().values();
            sidecars.map(|it| (namespace(&it.source), it.workload.as_str(), it.source.as_str())).collect()
        });
        let of = |(within, name): (Option<&'a str>, &'a str)| {
            callers
                .range((within, name, "")..)
                .take_while(move |it| (it.0, it.1) == (within, name))
                .map(|it| it.2)
        };
        let sources: BTreeSet<&'a str> = served.flat_map(of).collect();
        let (mut asked, mut calls) = (0, BTreeMap::<&str, f64>::new());
        for source in sources {
            let of_source = self.source(source);
            asked += of_source.asked;
            of_source.calls.iter().for_each(|(to, ms)| *calls.entry(to).or_default() += ms);
        }
        let each = |(to, ms): (&str, f64)| Onward { to: short(to), ms: ms / asked as f64 };
        let is_all = asked > 0 && requests as f64 >= NEARLY_ALL * asked as f64;
        if is_all { calls.into_iter().map(each).collect() } else { Vec::new() }
    }

    fn source(&self, name: &'a str) -> Rc<Source<'a>> {
        if let Some(known) = self.sources.borrow().get(name) {
            return known.clone();
        }
        let asked = self.history.service(name).map_or(0, |it| it.hops(self.at_ms, self.seconds).requests());
        let mut calls = BTreeMap::<&str, f64>::new();
        let first = EdgeKey { from: name.to_owned(), to: String::new(), backend: String::new() };
        for (key, series) in self.history.edges().range(first..).take_while(|(key, _)| key.from == name) {
            let spent = self.spent((key, series));
            *calls.entry(&key.to).or_default() +=
                Means::from(&*spent).until_answered() * spent.requests() as f64;
        }
        let source = Rc::new(Source { asked, calls });
        self.sources.borrow_mut().insert(name, source.clone());
        source
    }

    /// All requests to a node: as its callers see it; else by what was measured of it.
    pub(super) fn at_node(&self, callers: &[Way<'a>], measured: &[&Series], name: &str) -> Option<HopsView> {
        let counts = self.counts(callers.iter().map(|(_, series)| *series));
        let own = || {
            let counts = self.counts(measured.iter().copied());
            of_all(measured.iter().copied(), &counts, self.seconds, self.at_ms)
        };
        self.at_ways(callers.iter().copied(), &counts, name).or_else(own)
    }

    fn counts<'s>(&self, series: impl IntoIterator<Item = &'s Series>) -> Counts {
        summed(series, self.seconds, self.at_ms).0
    }

    /// Each edge that `which` is true of.
    pub(super) fn at_edges(&self, which: impl Fn(&EdgeKey) -> bool) -> Vec<EdgeHops> {
        let edges = self.history.edges().iter().filter(|(key, _)| which(key));
        let view = |way @ (key, series): Way<'a>| {
            let counts = self.counts([series]);
            self.at_ways([way], &counts, key.serving()).map(|hops| EdgeHops {
                from: key.from.clone(),
                to: key.to.clone(),
                backend: Some(key.backend.clone()).filter(|backend| !backend.is_empty()),
                hops,
            })
        };
        edges.filter_map(view).collect()
    }
}

impl From<&Served> for WorkloadHops {
    fn from(Served { workload, means, .. }: &Served) -> Self {
        let whole = means.whole();
        let segment = |segment: Segment| WorkloadSegment {
            segment: segment.name().to_owned(),
            mean_ms: rounded(means.of(segment)),
            share: rounded_share(means.of(segment) / whole),
        };
        let segments = Segment::ALL.into_iter().filter(|it| means.of(*it) > 0.0).map(segment).collect();
        Self { workload: workload.clone(), requests: means.requests, mean_ms: rounded(whole), segments }
    }
}

fn namespace(name: &str) -> Option<&str> {
    name.rsplit_once('.').map(|(_, namespace)| namespace)
}

fn short(name: &str) -> String {
    name.split_once('.').map_or(name, |(name, _)| name).to_owned()
}

#[cfg(test)]
mod tests {
    use pillion_api::wire::{EdgeDelta, SegmentDelta, Telemetry, edge_delta::Direction};

    use super::*;
    use crate::history::{History, Reporter};

    const NOW_MS: i64 = 1_000_000_000_000;

    fn told(history: &History, source: &str, workload: &str, telemetry: &Telemetry) {
        let reporter = Reporter { uid: workload, workload, source, services: &[], registered: true };
        history.record(reporter, telemetry, NOW_MS, |_| None);
    }

    /// 20 requests of 80 ms, most of which they spent in the sidecar of `pay-1`, to which another namespace's service leads.
    fn to_another_namespace(interval_ms: u32) -> Telemetry {
        let segment = |segment: Segment, ms: u64| SegmentDelta {
            segment: segment as i32,
            sum_us: ms * 20_000,
            ..SegmentDelta::default()
        };
        let delta = EdgeDelta {
            peer: "shop.demo".into(),
            backend: "pay.bank".into(),
            workload: "pay-1".into(),
            requests: 20,
            split_requests: 20,
            segments: vec![segment(Segment::Server, 70), segment(Segment::Application, 10)],
            ..EdgeDelta::default()
        };
        Telemetry { interval_ms, edges: vec![delta], ..Telemetry::default() }
    }

    fn verdict_of_shop(history: &History) -> VerdictView {
        history.read(|state| {
            let ways = state.edges().iter();
            let (look, counts) = (Look::new(state, 60, NOW_MS), Counts::default());
            let view = look.at_ways(ways, &counts, "shop.demo").expect("it was asked");
            view.verdict.expect("something is said")
        })
    }

    #[test]
    fn a_workload_is_known_by_the_namespace_of_what_it_serves() {
        let starved = |interval_ms| Telemetry {
            interval_ms,
            watched_us: 10_000_000,
            stalled_us: 6_000_000,
            ..Telemetry::default()
        };
        for (source, interval_ms, expected) in [
            ("pay.bank", 1000, "the sidecar of pay-1 is short of CPU: most of the time is there"),
            ("pay.demo", 1000, "most of the time requests wait in the sidecar of shop"),
            // Ten minutes that are told at once say nothing of now.
            ("pay.bank", 600_000, "most of the time requests wait in the sidecar of shop"),
        ] {
            let history = History::default();
            told(&history, "web.demo", "web-1", &to_another_namespace(1000));
            told(&history, source, "pay-1", &starved(interval_ms));
            let VerdictView { text, .. } = verdict_of_shop(&history);
            assert!(text.starts_with(expected), "{source} {interval_ms}: {text}");
        }
    }

    #[test]
    fn what_was_gathered_for_long_says_nothing_of_now() {
        for (interval_ms, expected) in [(30_000, true), (600_000, false)] {
            let history = History::default();
            told(&history, "web.demo", "web-1", &to_another_namespace(interval_ms));
            let is_split = history.read(|state| {
                let look = Look::new(state, 60, NOW_MS);
                look.at_ways(state.edges(), &Counts::default(), "shop.demo").is_some()
            });
            assert_eq!(is_split, expected, "{interval_ms}");
        }
    }

    #[test]
    fn workloads_of_one_name_are_told_apart() {
        let history = History::default();
        let mut telemetry = to_another_namespace(1000);
        let of_demo = EdgeDelta { backend: String::new(), ..telemetry.edges[0].clone() };
        telemetry.edges.push(of_demo);
        told(&history, "web.demo", "web-1", &telemetry);
        let names = history.read(|state| {
            let look = Look::new(state, 60, NOW_MS);
            let view = look.at_ways(state.edges(), &Counts::default(), "shop.demo").expect("it was asked");
            view.workloads.into_iter().map(|it| it.workload).collect::<BTreeSet<_>>()
        });
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["pay-1.bank", "pay-1.demo"]);
    }

    /// What is said of `cart`, whose workloads also serve `cart-v1`, by the requests of two callers.
    #[test]
    fn what_a_service_calls_is_by_all_requests_that_it_was_asked() {
        let segments = |ms: u64, requests: u64, segment: Segment| {
            vec![SegmentDelta {
                segment: segment as i32,
                sum_us: ms * 1000 * requests,
                ..SegmentDelta::default()
            }]
        };
        let delta = |peer: &str, backend: &str, workload: &str, requests, ms, segment| EdgeDelta {
            peer: peer.into(),
            backend: backend.into(),
            workload: workload.into(),
            requests,
            split_requests: requests,
            segments: segments(ms, requests, segment),
            ..EdgeDelta::default()
        };
        let history = History::default();
        let report = |edges| Telemetry { interval_ms: 1000, edges, ..Telemetry::default() };
        let to_cart = |requests, ms| {
            report(vec![delta("cart.demo", "cart-v1.demo", "cart-1", requests, ms, Segment::Application)])
        };
        told(&history, "web.demo", "web-1", &to_cart(1000, 10));
        told(&history, "admin.demo", "admin-1", &to_cart(20, 100));
        // It is asked by both, and asks for each of them.
        let mut cart = report(vec![
            delta("pay.demo", "", "pay-1", 1020, 8, Segment::Application),
            delta("pay.demo", "", "pay-1", 1, 90_000, Segment::Body),
        ]);
        let asked = delta("", "", "", 1020, 10, Segment::Application);
        cart.edges.push(EdgeDelta { direction: Direction::Inbound.into(), ..asked });
        told(&history, "cart.demo", "cart-1", &cart);
        let said = |from: &str| {
            history.read(|state| {
                let look = Look::new(state, 60, NOW_MS);
                let ways = state.edges().iter().filter(|(key, _)| key.from == from);
                let view = look.at_ways(ways, &Counts::default(), "cart-v1.demo").expect("it was asked");
                view.verdict.expect("something is said").text
            })
        };
        assert_eq!(
            said("web.demo"),
            "most of the time is in the application of cart-v1, 10 ms of 10 ms; for each request its calls of pay take 8.0 ms in all"
        );
        assert_eq!(said("admin.demo"), "most of the time is in the application of cart-v1, 100 ms of 100 ms");
    }
}
