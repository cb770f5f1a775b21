//! Where a request's time went: its way cut into segments, whose durations add up to the whole.
//!
//! Each sidecar measures durations on its own clock only. The callee's sidecar tells the caller's what it has measured
//! ([`Report`], in-band); what neither of them accounts for, of the time between sending a request and its answer, is the
//! network's. So no clocks are compared, and skew does not matter.
//!
//! | | caller's sidecar | callee's sidecar |
//! |---|---|---|
//! | waiting for the request's body, or for the response to be taken | `caller` | `caller` (with the network) |
//! | choosing, limits, injected faults, waiting for a connection, connecting | `client-sidecar` | |
//! | from the sending of the first try to the beginning of the last | `retries` | |
//! | out and back | `network` | |
//! | limits, queues, connecting to the application | `server-sidecar` | `server-sidecar` |
//! | until the application began to answer | `application` | `application` |
//! | until it had no more to say | `application-body` | `application-body` |
//! | all of that beyond the caller's sidecar, where nobody tells it apart | `upstream` | |

use crate::wire::edge_delta::Direction;

/// A part of a request's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Segment {
    /// The calling application: its request's body was waited for, or the answer waited to be taken.
    Caller,
    /// The caller's sidecar, waiting for a connection included.
    Client,
    /// Tries before the last one, and the waits between.
    Retries,
    /// Between the sidecars, out and back.
    Network,
    /// The callee's sidecar.
    Server,
    /// Until the application began to answer.
    Application,
    /// What the application took from there to the end of its answer; all of the wait, where that was broken off.
    Body,
    /// Beyond the caller's sidecar, not told apart: the peer has no sidecar, or never answered.
    Upstream,
}

/// How many there are.
pub const SEGMENTS: usize = 8;

impl Segment {
    /// In the order of the way.
    pub const ALL: [Self; SEGMENTS] = [
        Self::Caller,
        Self::Client,
        Self::Retries,
        Self::Network,
        Self::Server,
        Self::Application,
        Self::Body,
        Self::Upstream,
    ];

    /// What it is called everywhere.
    pub fn name(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Client => "client-sidecar",
            Self::Retries => "retries",
            Self::Network => "network",
            Self::Server => "server-sidecar",
            Self::Application => "application",
            Self::Body => "application-body",
            Self::Upstream => "upstream",
        }
    }
}

/// Which end of the way measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The caller's sidecar.
    Client,
    /// The callee's.
    Server,
}

impl From<Direction> for Side {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Outbound => Self::Client,
            Direction::Inbound => Self::Server,
        }
    }
}

/// Whether mutual TLS carried what one end has counted or told; `None`: nothing did, since no callee was reached. A caller's sidecar
/// names no `workload` then; what it sends outside has none either, and is in plaintext.
pub fn carried(side: Side, mtls: bool, workload: &str) -> Option<bool> {
    let unsent = mtls && side == Side::Client && workload.is_empty();
    (!unsent).then_some(mtls)
}

/// What the callee's sidecar says with a response, microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Its own.
    pub server: u32,
    /// The application's, until it began to answer.
    pub application: u32,
    /// Waiting for the request's body.
    pub upload: u32,
    /// For at most so long it had not run when the request came, and would not have noticed it.
    pub stalled: u32,
}

/// The longest that [`Report::write`] writes: four numbers of ten digits, and commas.
pub const LONGEST_REPORT: usize = 43;

impl Report {
    /// As text; gives what was written of `buffer`.
    pub fn write(self, buffer: &mut [u8; LONGEST_REPORT]) -> &[u8] {
        let mut at = 0;
        for (index, number) in
            [self.server, self.application, self.upload, self.stalled].into_iter().enumerate()
        {
            if index > 0 {
                buffer[at] = b',';
                at += 1;
            }
            let digits = number.checked_ilog10().map_or(1, |power| power as usize + 1);
            let mut left = number;
            for place in (at..at + digits).rev() {
                buffer[place] = b'0' + (left % 10) as u8;
                left /= 10;
            }
            at += digits;
        }
        &buffer[..at]
    }

    /// From text. `None`: in words that nobody here understands.
    pub fn read(text: &[u8]) -> Option<Self> {
        let mut numbers = text.split(|byte| *byte == b',').map(microseconds);
        let mut next = || numbers.next().flatten();
        let report = Self { server: next()?, application: next()?, upload: next()?, stalled: next()? };
        numbers.next().is_none().then_some(report)
    }
}

/// One number of a report.
pub fn microseconds(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || digits.len() > 10 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0u64, |number, digit| number * 10 + u64::from(digit - b'0'));
    Some(u32::try_from(number).unwrap_or(u32::MAX))
}

/// What one sidecar has noted of a request, in microseconds since its head came, and how long things took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Course {
    /// When an earlier try was sent, if there was one: the first of them.
    pub first: Option<u64>,
    /// When the last try began.
    pub attempt: u64,
    /// When it was written to a connection. `None`: never.
    pub sent: Option<u64>,
    /// When its response's head came. `None`: never.
    pub head: Option<u64>,
    /// Of the time from `sent` to `head`, waiting for the request's body, where that has ended before the response began. Where
    /// it has not, the response did not depend on it, and nobody can tell who waits for whom.
    pub upload: u64,
    /// At most so long before `head` this sidecar had not run.
    pub stalled: u64,
    /// What the callee's sidecar says.
    pub report: Option<Report>,
    /// From `head` to the end, waiting for more of the response.
    pub waited: u64,
    /// Of that, what the callee's sidecar says it has waited for its application. `None`: the response was not heard to its end,
    /// where that would have been said.
    pub body: Option<u64>,
    /// Until the end.
    pub whole: u64,
}

/// A request's time by segment, microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Split([u64; SEGMENTS]);

impl Split {
    /// One segment's share.
    pub fn of(&self, segment: Segment) -> u64 {
        self.0[segment as usize]
    }

    /// All that have a share.
    pub fn shares(&self) -> impl Iterator<Item = (Segment, u64)> {
        Segment::ALL.into_iter().zip(self.0).filter(|(_, share)| *share > 0)
    }

    /// The whole.
    pub fn whole(&self) -> u64 {
        self.0.iter().sum()
    }

    fn add(&mut self, segment: Segment, share: u64) {
        self.0[segment as usize] += share;
    }
}

/// Takes from what is left, at most that.
fn take(left: &mut u64, wanted: u64) -> u64 {
    let taken = wanted.min(*left);
    *left -= taken;
    taken
}

impl Course {
    /// The segments; they add up to the whole, whatever was noted.
    ///
    /// What happens beside it does not count: of hedged requests the one whose answer was taken, with the wait before it was sent
    /// as `retries`. What was answered, refused or given up before it was sent is all of the sidecar's own.
    pub fn split(&self, side: Side) -> Split {
        let mut split = Split::default();
        let whole = self.whole;
        let (own, beyond, body) = match (side, self.report, self.body) {
            (Side::Client, Some(_), Some(_)) => (Segment::Client, Segment::Network, Segment::Network),
            (Side::Client, Some(_), None) => (Segment::Client, Segment::Network, Segment::Body),
            (Side::Client, None, _) => (Segment::Client, Segment::Upstream, Segment::Upstream),
            (Side::Server, ..) => (Segment::Server, Segment::Application, Segment::Body),
        };
        let sent = self.sent.unwrap_or(whole).min(whole);
        let attempt = self.attempt.min(sent);
        let retries = self.first.map_or(0, |first| attempt.saturating_sub(first));
        split.add(Segment::Retries, retries);
        split.add(own, sent - retries);
        if self.sent.is_none() {
            return split;
        }
        let Some(head) = self.head.map(|head| head.clamp(sent, whole)) else {
            let unknown = if side == Side::Client { Segment::Upstream } else { beyond };
            split.add(unknown, whole - sent);
            return split;
        };

        let mut left = head - sent;
        match self.report {
            Some(report) if side == Side::Client => {
                split.add(Segment::Server, take(&mut left, report.server.into()));
                split.add(Segment::Application, take(&mut left, report.application.into()));
                split.add(Segment::Caller, take(&mut left, self.upload.min(report.upload.into())));
                // Not before what has an explanation: a sidecar that does not run explains at most what nothing else does.
                split.add(Segment::Server, take(&mut left, report.stalled.into()));
            }
            _ => split.add(Segment::Caller, take(&mut left, self.upload)),
        }
        split.add(own, take(&mut left, self.stalled));
        split.add(beyond, left);

        let mut left = whole - head;
        let mut waited = take(&mut left, self.waited);
        split.add(Segment::Caller, left);
        if side == Side::Client && self.report.is_some() {
            split.add(Segment::Body, take(&mut waited, self.body.unwrap_or_default()));
        }
        split.add(body, waited);
        split
    }

    /// What the callee's sidecar tells of it. `stalled`: for at most so long it had not run when the request came.
    pub fn report(&self, stalled: u64) -> Report {
        let split = self.split(Side::Server);
        let short = |share: u64| u32::try_from(share).unwrap_or(u32::MAX);
        Report {
            server: short(split.of(Segment::Server)),
            application: short(split.of(Segment::Application)),
            upload: short(split.of(Segment::Caller)),
            stalled: short(stalled),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Segment::*, *};

    /// What it is about, what was noted, and what comes of it.
    type Case = (&'static str, Course, &'static [(Segment, u64)]);

    fn shares(course: Course, side: Side) -> Vec<(Segment, u64)> {
        course.split(side).shares().collect()
    }

    /// Sent at 10, answered at 100, ended at 130.
    const PLAIN: Course = Course {
        first: None,
        attempt: 0,
        sent: Some(10),
        head: Some(100),
        upload: 0,
        stalled: 0,
        report: None,
        waited: 30,
        body: Some(0),
        whole: 130,
    };
    const REPORT: Report = Report { server: 5, application: 60, upload: 0, stalled: 0 };

    #[test]
    fn of_the_caller_s_sidecar() {
        let meshed = Course { report: Some(REPORT), ..PLAIN };
        let table: [Case; 13] = [
            ("without a report", PLAIN, &[(Client, 10), (Upstream, 120)]),
            ("with one", meshed, &[(Client, 10), (Network, 55), (Server, 5), (Application, 60)]),
            (
                "an application that goes on answering",
                Course { body: Some(20), ..meshed },
                &[(Client, 10), (Network, 35), (Server, 5), (Application, 60), (Body, 20)],
            ),
            (
                "a stream that somebody has broken off",
                Course { body: None, ..meshed },
                &[(Client, 10), (Network, 25), (Server, 5), (Application, 60), (Body, 30)],
            ),
            (
                "a reader that takes its time",
                Course { waited: 5, body: Some(20), ..meshed },
                &[(Caller, 25), (Client, 10), (Network, 25), (Server, 5), (Application, 60), (Body, 5)],
            ),
            (
                "an upload that the callee waited longer for than we did: the rest was on its way",
                Course { upload: 10, report: Some(Report { upload: 15, ..REPORT }), ..meshed },
                &[(Caller, 10), (Client, 10), (Network, 45), (Server, 5), (Application, 60)],
            ),
            (
                "a callee that had not run",
                Course { report: Some(Report { stalled: 1000, ..REPORT }), ..meshed },
                &[(Client, 10), (Network, 30), (Server, 30), (Application, 60)],
            ),
            (
                "a caller's sidecar that had not run",
                Course { stalled: 20, ..meshed },
                &[(Client, 30), (Network, 35), (Server, 5), (Application, 60)],
            ),
            (
                "a second try",
                Course { first: Some(2), attempt: 6, ..meshed },
                &[(Client, 6), (Retries, 4), (Network, 55), (Server, 5), (Application, 60)],
            ),
            (
                "more than there was",
                Course { report: Some(Report { application: u32::MAX, ..REPORT }), waited: 0, ..meshed },
                &[(Caller, 30), (Client, 10), (Server, 5), (Application, 85)],
            ),
            ("never answered", Course { head: None, ..meshed }, &[(Client, 10), (Upstream, 120)]),
            ("never sent", Course { sent: None, head: None, ..PLAIN }, &[(Client, 130)]),
            (
                "never sent again",
                Course { first: Some(10), attempt: 100, sent: None, head: None, ..PLAIN },
                &[(Client, 40), (Retries, 90)],
            ),
        ];
        for (what, course, expected) in table {
            assert_eq!(shares(course, Side::Client), expected, "{what}");
        }
    }

    #[test]
    fn of_the_callee_s_sidecar() {
        let table: [Case; 5] = [
            ("answered", PLAIN, &[(Server, 10), (Application, 90), (Body, 30)]),
            (
                "a slow upload",
                Course { upload: 50, ..PLAIN },
                &[(Caller, 50), (Server, 10), (Application, 40), (Body, 30)],
            ),
            (
                "a slow reader",
                Course { waited: 0, ..PLAIN },
                &[(Caller, 30), (Server, 10), (Application, 90)],
            ),
            ("never answered", Course { head: None, ..PLAIN }, &[(Server, 10), (Application, 120)]),
            ("refused", Course { sent: None, head: None, ..PLAIN }, &[(Server, 130)]),
        ];
        for (what, course, expected) in table {
            assert_eq!(shares(course, Side::Server), expected, "{what}");
        }
    }

    #[test]
    fn reports_that_nobody_understands() {
        for text in
            ["", "1", "1,2,3", "1,2,3,4,5", "1,2,3,", "1,2,3,-4", "1,2,3,x", "1, 2,3,4", "12345678901,1,1,1"]
        {
            assert_eq!(Report::read(text.as_bytes()), None, "{text}");
        }
        let most = Report { server: u32::MAX, application: u32::MAX, upload: u32::MAX, stalled: u32::MAX };
        assert_eq!(most.write(&mut [0; LONGEST_REPORT]).len(), LONGEST_REPORT);
        assert_eq!(Report::read(b"9999999999,0,0,0").map(|report| report.server), Some(u32::MAX));
    }

    fn time() -> impl Strategy<Value = u64> {
        prop_oneof![0u64..100, 0u64..1 << 40, Just(u64::from(u32::MAX)), Just(u64::MAX >> 8)]
    }

    fn any_report() -> impl Strategy<Value = Report> {
        (any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>()).prop_map(
            |(server, application, upload, stalled)| Report { server, application, upload, stalled },
        )
    }

    fn course() -> impl Strategy<Value = Course> {
        use proptest::option::of;
        let moments = (of(time()), time(), of(time()), of(time()));
        let durations = (time(), time(), time(), of(time()), time());
        (moments, durations, of(any_report())).prop_map(
            |((first, attempt, sent, head), (upload, stalled, waited, body, whole), report)| Course {
                first,
                attempt,
                sent,
                head,
                upload,
                stalled,
                report,
                waited,
                body,
                whole,
            },
        )
    }

    proptest! {
        #[test]
        fn the_segments_add_up_to_the_whole(course in course()) {
            for side in [Side::Client, Side::Server] {
                prop_assert_eq!(course.split(side).whole(), course.whole);
            }
        }

        #[test]
        fn only_what_was_sent_has_been_anywhere_else(course in course()) {
            let split = Course { sent: None, ..course }.split(Side::Client);
            prop_assert_eq!(split.of(Client) + split.of(Retries), course.whole);
        }

        #[test]
        fn what_the_callee_does_not_say_is_not_told_apart(course in course()) {
            let split = Course { report: None, ..course }.split(Side::Client);
            for segment in [Network, Server, Application, Body] {
                prop_assert_eq!(split.of(segment), 0);
            }
        }

        #[test]
        fn no_segment_gets_more_than_it_is_said_to_have(course in course()) {
            let split = course.split(Side::Client);
            let said = course.report.unwrap_or_default();
            prop_assert!(split.of(Server) <= u64::from(said.server) + u64::from(said.stalled));
            prop_assert!(split.of(Application) <= u64::from(said.application));
            prop_assert!(split.of(Body) <= course.body.unwrap_or(u64::MAX).min(course.waited));
        }

        #[test]
        fn a_report_is_read_as_it_was_written(report in any_report()) {
            let mut buffer = [0; LONGEST_REPORT];
            prop_assert_eq!(Report::read(report.write(&mut buffer)), Some(report));
        }
    }
}
