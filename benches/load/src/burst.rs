//! Many connections from one thread: idle ones, or a burst of requests on all of them at the same time.

use std::{
    io::{self, Read},
    time::Instant,
};

use crate::{
    exchange::{Connection, Wrong},
    options::{Burst, Options},
    report::Report,
};

/// Opens the connections, uses them, and with `hold` says so and keeps them until standard input ends.
pub(crate) fn run(options: &Options, expected: &[u8], burst: Burst) -> Report {
    let request = options.request(false);
    let start = Instant::now();
    let mut report = Report::default();
    let mut connections = Vec::with_capacity(burst.connections);
    for _ in 0..burst.connections {
        match Connection::open(options.target) {
            Ok(connection) => connections.push(connection),
            Err(wrong) => report.wrong(&wrong),
        }
    }
    match burst.rounds {
        None => {
            for connection in &mut connections {
                let sent = Instant::now();
                count(&mut report, sent, connection.exchange(&request, expected));
            }
        }
        Some(rounds) => {
            for _ in 0..rounds {
                all_at_once(&mut report, &mut connections, &request, expected);
            }
        }
    }
    report.seconds = start.elapsed().as_secs_f64();
    if burst.hold {
        hold();
    }
    report
}

fn all_at_once(report: &mut Report, connections: &mut [Connection], request: &[u8], expected: &[u8]) {
    let sent = Instant::now();
    let sendings: Vec<_> = connections.iter_mut().map(|connection| connection.send(request)).collect();
    for (connection, sending) in connections.iter_mut().zip(sendings) {
        let result = sending.and_then(|()| connection.receive(expected));
        count(report, sent, result);
    }
}

fn count(report: &mut Report, sent: Instant, result: Result<(), Wrong>) {
    match result {
        Ok(()) => report.right(sent.elapsed()),
        Err(wrong) => report.wrong(&wrong),
    }
}

#[expect(clippy::print_stdout, reason = "it is how whoever started this learns of it")]
fn hold() {
    println!("holding");
    let _ = io::stdin().read_to_end(&mut Vec::new());
}
