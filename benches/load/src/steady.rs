//! A steady load: each connection in a thread of its own.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use crate::{
    exchange::{Connection, Wrong},
    options::{Options, Steady},
    report::Report,
    schedule::Schedule,
};

/// A thread needs little; a thousand of them should not need much.
const STACK: usize = 128 << 10;
/// Until the first request is due: all threads are up and connected by then.
const PREPARE: Duration = Duration::from_millis(50);

/// Puts the load on, and tells what came of it.
pub(crate) fn run(options: &Options, expected: &[u8], steady: Steady) -> Report {
    let request = options.request(steady.reconnect);
    let start = Instant::now() + PREPARE;
    let length = Duration::from_secs_f64(steady.seconds);
    let mut report = Report::default();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..steady.connections)
            .map(|index| {
                let schedule = Schedule::new(start, length, steady.rate, index, steady.connections);
                let client = Client { target: options.target, request: &request, expected, steady };
                let builder = thread::Builder::new().stack_size(STACK);
                builder.spawn_scoped(scope, move || client.run(start, schedule)).expect("threads can be had")
            })
            .collect();
        for worker in workers {
            report.merge(worker.join().expect("a client does not panic"));
        }
    });
    report.seconds = start.elapsed().as_secs_f64();
    report
}

#[derive(Clone, Copy)]
struct Client<'a> {
    target: SocketAddr,
    request: &'a [u8],
    expected: &'a [u8],
    steady: Steady,
}

impl Client<'_> {
    fn run(self, start: Instant, schedule: Schedule) -> Report {
        let mut report = Report::default();
        let mut connection = if self.steady.reconnect { None } else { Some(Connection::open(self.target)) };
        sleep_until(start);
        for number in 0.. {
            let Some(due) = schedule.due(number, Instant::now()) else { break };
            sleep_until(due);
            let mut open = match connection.take().unwrap_or_else(|| Connection::open(self.target)) {
                Ok(open) => open,
                Err(wrong) => {
                    report.wrong(&wrong);
                    // A closed-loop client that can't connect would only spin.
                    if self.steady.rate.is_none() {
                        break;
                    }
                    continue;
                }
            };
            let result: Result<(), Wrong> = open.exchange(self.request, self.expected);
            match result {
                Ok(()) => {
                    report.right(due.elapsed());
                    connection = (!self.steady.reconnect).then_some(Ok(open));
                }
                Err(wrong) => report.wrong(&wrong),
            }
        }
        report
    }
}

#[expect(clippy::disallowed_methods, reason = "waiting for a planned time is what a load generator does")]
fn sleep_until(when: Instant) {
    let left = when.saturating_duration_since(Instant::now());
    if !left.is_zero() {
        thread::sleep(left);
    }
}
