//! When what happened to a request, and how the durations of an edge's requests spread over the segments of their way.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use pillion_api::{
    hops::{Course, Report, SEGMENTS, Segment, Side, Split},
    latency,
};
use tokio::time::Instant;

use super::{
    edge::{Edge, Outcome},
    exchange::{Callee, Exchange, Moments, Notes},
};

/// What is noted of a request on its way, microseconds since its head came. Cells, because the tail notes while the request's
/// recording holds them: so that a request that is given up has them, too.
#[derive(Debug)]
pub struct Timeline {
    started: Instant,
    first: Mark,
    attempt: Mark,
    sent: Mark,
    head: Mark,
    upload: Cell<u32>,
    stalled: Cell<u32>,
    report: Cell<Option<Report>>,
    chosen: RefCell<Option<Rc<Edge>>>,
    notes: Notes,
}

/// A moment within the first hour.
#[derive(Debug, Clone)]
struct Mark(Cell<u32>);

impl Mark {
    fn never() -> Self {
        Self(Cell::new(u32::MAX))
    }

    fn set(&self, us: u32) {
        self.0.set(us.min(u32::MAX - 1));
    }

    fn moment(&self) -> Option<u64> {
        Some(self.0.get()).filter(|us| *us < u32::MAX).map(u64::from)
    }
}

fn short(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

impl Timeline {
    /// Of a request whose head came at `started`.
    pub fn new(started: Instant) -> Self {
        Self {
            started,
            first: Mark::never(),
            attempt: Mark::never(),
            sent: Mark::never(),
            head: Mark::never(),
            upload: Cell::default(),
            stalled: Cell::default(),
            report: Cell::default(),
            chosen: RefCell::default(),
            notes: Notes::default(),
        }
    }

    /// All of it, which leaves this one as good as new.
    pub fn take(&self) -> Self {
        let taken = Self::new(self.started);
        let moments = [&self.first, &self.attempt, &self.sent, &self.head];
        for (mark, ours) in [&taken.first, &taken.attempt, &taken.sent, &taken.head].into_iter().zip(moments)
        {
            mark.0.set(ours.0.replace(u32::MAX));
        }
        taken.upload.set(self.upload.take());
        taken.stalled.set(self.stalled.take());
        taken.report.set(self.report.take());
        taken.chosen.replace(self.chosen.take());
        taken.notes.begin(self.notes.take());
        taken
    }

    /// Where listeners' part is noted.
    pub fn notes(&self) -> &Notes {
        &self.notes
    }

    /// Notes something that listeners may want to know.
    pub fn note(&self, note: impl FnOnce(&mut Exchange)) {
        self.notes.note(note);
    }

    /// Notes for listeners that the request is sent to somebody. Gives the try's place.
    pub fn try_began(&self, callee: &Arc<Callee>, hedge: bool, now: Instant) -> usize {
        self.notes.try_began(callee, hedge, self.us(now))
    }

    /// Notes for listeners what a try came to.
    pub fn try_ended(&self, place: usize, now: Instant, outcome: Outcome) {
        self.notes.try_ended(place, self.us(now), outcome);
    }

    /// Somebody was chosen, who is reached by this edge.
    pub fn chose(&self, edge: &Rc<Edge>) {
        self.chosen.replace(Some(edge.clone()));
    }

    /// By which edge the one is reached who was chosen last, if anybody was; once.
    pub fn take_chosen(&self) -> Option<Rc<Edge>> {
        self.chosen.take()
    }

    /// The request's beginning.
    pub fn started(&self) -> Instant {
        self.started
    }

    fn us(&self, now: Instant) -> u32 {
        short(now.saturating_duration_since(self.started))
    }

    /// A try begins. What was noted of the one before is over, but for when the first was sent.
    pub fn attempt(&self, now: Instant) {
        if let Some(sent) = self.sent.moment()
            && self.first.moment().is_none()
        {
            self.first.set(sent as u32);
        }
        self.attempt.set(self.us(now));
        self.sent.0.set(u32::MAX);
        self.head.0.set(u32::MAX);
        self.upload.take();
        self.stalled.take();
        self.report.take();
    }

    /// The request goes to a connection that is there for it.
    pub fn sent(&self, now: Instant) {
        self.sent.set(self.us(now));
    }

    /// Its body was sent to its end, and was waited for so long.
    pub fn uploaded(&self, waited: Duration) {
        self.upload.set(short(waited));
    }

    /// The response's head is here.
    pub fn answered(&self, now: Instant, report: Option<Report>, stalled: Duration) {
        self.head.set(self.us(now));
        self.report.set(report);
        self.stalled.set(short(stalled));
    }

    /// There is no other try after all: what the last one came to is the answer, later than it came.
    pub fn given_up(&self, now: Instant) {
        self.attempt(now);
        self.sent(now);
        self.answered(now, None, Duration::ZERO);
    }

    /// Whether the callee's sidecar has told anything.
    pub fn is_reported(&self) -> bool {
        self.report.get().is_some()
    }

    /// Of several tries beside each other, `other` is the one that counts.
    pub fn take_over(&self, other: &Self) {
        // The first that was sent is ours; one that was not is none.
        self.attempt(other.started);
        let later = |mark: &Mark, of: &Mark| match of.moment() {
            Some(us) => mark.set((us as u32).saturating_add(self.us(other.started))),
            None => mark.0.set(u32::MAX),
        };
        later(&self.sent, &other.sent);
        later(&self.head, &other.head);
        self.upload.set(other.upload.get());
        self.stalled.set(other.stalled.get());
        self.report.set(other.report.get());
    }

    /// All of it, of a request that is over now; see [`Course`].
    pub fn course(&self, whole: u64, waited: Duration, body: Option<u32>) -> Course {
        Course {
            first: self.first.moment(),
            attempt: self.attempt.moment().unwrap_or_default(),
            sent: self.sent.moment(),
            head: self.head.moment(),
            upload: self.upload.get().into(),
            stalled: self.stalled.get().into(),
            report: self.report.get(),
            waited: waited.as_micros() as u64,
            body: body.map(u64::from),
            whole,
        }
    }

    /// Whether the last try was answered.
    pub fn is_answered(&self) -> bool {
        self.head.moment().is_some()
    }

    /// For listeners.
    pub fn moments(&self) -> Moments {
        let short = |mark: &Mark| mark.moment().map(|us| us as u32);
        Moments { sent_us: short(&self.sent), answered_us: short(&self.head) }
    }

    /// What is told to the caller's sidecar with the response's head; `stalled`: see [`Report`].
    pub fn report(&self, stalled: Duration) -> Report {
        let until = self.head.moment().unwrap_or_else(|| u64::from(self.us(Instant::now())));
        let course = Course { report: None, ..self.course(until, Duration::ZERO, None) };
        course.report(stalled.as_micros() as u64)
    }
}

/// How long something has been waited for, in all. Costs nothing where nothing is waited for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Waits {
    since: Option<Instant>,
    total: Duration,
}

impl Waits {
    /// It is not there.
    pub fn begin(&mut self) {
        self.since.get_or_insert_with(Instant::now);
    }

    /// It is there.
    pub fn end(&mut self) {
        if let Some(since) = self.since.take() {
            self.total += since.elapsed();
        }
    }

    /// So far.
    pub fn total(&self) -> Duration {
        self.total + self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

/// One edge's requests by segment since they were last taken. 350 bytes for each segment that has anything.
#[derive(Debug, Default)]
pub(super) struct Hops {
    requests: u64,
    segments: [Option<Box<Spread>>; SEGMENTS],
}

#[derive(Debug)]
struct Spread {
    sum_us: u64,
    counts: [u32; latency::BUCKETS],
}

impl Hops {
    pub(super) fn count(&mut self, split: &Split) {
        self.requests += 1;
        for (segment, us) in split.shares() {
            let spread = self.segments[segment as usize]
                .get_or_insert_with(|| Box::new(Spread { sum_us: 0, counts: [0; latency::BUCKETS] }));
            spread.sum_us += us;
            spread.counts[latency::index(us)] += 1;
        }
    }

    pub(super) fn take(&mut self) -> HopsDelta {
        let mut delta = HopsDelta { requests: std::mem::take(&mut self.requests), segments: Vec::new() };
        for (segment, spread) in Segment::ALL.into_iter().zip(&mut self.segments) {
            let Some(spread) = spread.as_mut().filter(|spread| spread.sum_us > 0) else { continue };
            let sum_us = std::mem::take(&mut spread.sum_us);
            let counts = spread.counts.iter_mut().enumerate().filter(|(_, count)| **count > 0);
            let counts = counts.map(|(bucket, count)| (bucket, std::mem::take(count).into())).collect();
            delta.segments.push(SegmentDelta { segment, sum_us, counts });
        }
        delta
    }
}

/// What has gathered of one edge; goes to the main thread.
#[derive(Debug, Clone, Default)]
pub struct HopsDelta {
    /// Requests whose time was split.
    pub requests: u64,
    /// Those that have any, in order.
    pub segments: Vec<SegmentDelta>,
}

/// One segment's share.
#[derive(Debug, Clone)]
pub struct SegmentDelta {
    /// Which.
    pub segment: Segment,
    /// All requests together, microseconds.
    pub sum_us: u64,
    /// Bucket of [`pillion_api::latency`] and count, of those requests that have any of it.
    pub counts: Vec<(usize, u64)>,
}

impl HopsDelta {
    /// One segment's: buckets with counts, and the sum, microseconds.
    pub fn of(&self, segment: Segment) -> (&[(usize, u64)], u64) {
        let found = self.segments.iter().find(|it| it.segment == segment);
        found.map_or((&[], 0), |found| (&found.counts, found.sum_us))
    }

    /// Joins a later one.
    pub fn merge(&mut self, later: Self) {
        self.requests += later.requests;
        for segment in later.segments {
            match self.segments.binary_search_by_key(&segment.segment, |known| known.segment) {
                Ok(at) => {
                    let known = &mut self.segments[at];
                    known.sum_us += segment.sum_us;
                    for (bucket, count) in segment.counts {
                        match known.counts.iter_mut().find(|(known, _)| *known == bucket) {
                            Some((_, total)) => *total += count,
                            None => known.counts.push((bucket, count)),
                        }
                    }
                }
                Err(at) => self.segments.insert(at, segment),
            }
        }
    }
}

/// From whose point of view an edge is counted.
pub fn side(direction: crate::error::Hop) -> Side {
    match direction {
        crate::error::Hop::Outbound => Side::Client,
        crate::error::Hop::Inbound => Side::Server,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn shares(timeline: &Timeline, whole: Duration) -> Vec<(Segment, u64)> {
        let course = timeline.course(whole.as_micros() as u64, Duration::ZERO, None);
        course.split(Side::Client).shares().map(|(segment, us)| (segment, us / 1000)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_try_begins_anew_and_remembers_when_the_first_was_sent() {
        let start = Instant::now();
        let timeline = Timeline::new(start);
        timeline.attempt(start);
        timeline.sent(start + 2 * MS);
        timeline.answered(start + 10 * MS, Some(Report::default()), Duration::ZERO);
        timeline.attempt(start + 20 * MS);
        timeline.sent(start + 21 * MS);
        assert!(!timeline.is_reported());
        timeline.answered(start + 30 * MS, None, Duration::ZERO);
        timeline.attempt(start + 40 * MS);
        assert_eq!(shares(&timeline, 50 * MS), [(Segment::Client, 12), (Segment::Retries, 38)]);
        timeline.sent(start + 41 * MS);
        timeline.answered(start + 50 * MS, None, Duration::ZERO);
        let expected = [(Segment::Client, 3), (Segment::Retries, 38), (Segment::Upstream, 9)];
        assert_eq!(shares(&timeline, 50 * MS), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hedge_that_wins_is_the_one_that_counts() {
        let start = Instant::now();
        let timeline = Timeline::new(start);
        timeline.attempt(start);
        timeline.sent(start + MS);
        let hedge = Timeline::new(start + 20 * MS);
        hedge.attempt(start + 20 * MS);
        hedge.sent(start + 21 * MS);
        let report = Report { application: 7000, ..Report::default() };
        hedge.answered(start + 30 * MS, Some(report), Duration::ZERO);
        timeline.take_over(&hedge);
        let expected =
            [(Segment::Client, 2), (Segment::Retries, 19), (Segment::Network, 2), (Segment::Application, 7)];
        assert_eq!(shares(&timeline, 30 * MS), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_of_the_callee_s_sidecar_is_its_own_time() {
        let timeline = Timeline::new(Instant::now());
        tokio::time::advance(5 * MS).await;
        assert_eq!(timeline.report(MS), Report { server: 5000, stalled: 1000, ..Report::default() });
    }

    #[tokio::test(start_paused = true)]
    async fn waits_add_up() {
        let mut waits = Waits::default();
        waits.end();
        for _ in 0..2 {
            waits.begin();
            tokio::time::advance(MS).await;
            waits.begin();
            tokio::time::advance(MS).await;
            waits.end();
            tokio::time::advance(MS).await;
        }
        assert_eq!(waits.total(), 4 * MS);
        waits.begin();
        tokio::time::advance(MS).await;
        assert_eq!(waits.total(), 5 * MS);
    }

    #[test]
    fn what_is_taken_is_exact_and_merging_is_adding() {
        let course =
            Course { attempt: 0, sent: Some(100), head: Some(1100), whole: 1100, ..Course::default() };
        let split = course.split(Side::Client);
        let mut hops = Hops::default();
        hops.count(&split);
        let mut first = hops.take();
        hops.count(&split);
        hops.count(&Course { whole: 50, ..Course::default() }.split(Side::Client));
        first.merge(hops.take());
        assert_eq!(first.requests, 3);
        let sums: Vec<_> = first
            .segments
            .iter()
            .map(|segment| (segment.segment, segment.sum_us, segment.counts.len()))
            .collect();
        assert_eq!(sums, [(Segment::Client, 250, 2), (Segment::Upstream, 2000, 1)]);
        assert_eq!(hops.take().requests, 0);
    }
}
