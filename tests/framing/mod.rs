//! Messages that readers could take differently, sent through two sidecars, and to Envoy and HAProxy: who refuses what.
//!
//! Each case is judged on both sides: what the sender was told, and what has reached the other end. The findings are
//! [table.md](table.md), which the test compares; `make reference` writes it anew.
//!
//! | file | what |
//! |---|---|
//! | [`requests`], [`responses`], [`streams`] | the cases: HTTP/1 requests, HTTP/1 responses, HTTP/2 requests |
//! | [`upstream`] | applications that keep what reaches them, byte for byte |
//! | [`exchange`] | one case, sent, and judged |
//! | [`proxies`] | what the cases are sent through |
//! | [`table`] | the findings, written and compared |

mod exchange;
mod proxies;
mod requests;
mod responses;
mod streams;
mod table;
mod upstream;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream;

use self::exchange::Finding;
use self::proxies::{Proxies, Proxy};
use self::table::Table;

/// What must become of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// Not one byte of it comes out at the other side, nor of what follows it.
    Refused,
    /// It turns out too late that it is none: it comes out as one that was cut off, never as a whole one.
    CutOff,
    /// It comes out whole, once.
    Taken,
}

/// Cases that are under way through one proxy at a time: some proxies wait, which takes time.
const AT_A_TIME: usize = 16;

/// Sends every case through every proxy; gives the findings by proxy.
async fn all<C: Copy>(
    proxies: &[Proxy],
    cases: &[C],
    one: impl AsyncFn(&Proxy, usize, C) -> Finding,
) -> Vec<Vec<Finding>> {
    let one = &one;
    let through = |proxy| {
        let findings = cases.iter().enumerate().map(move |(index, case)| one(proxy, index, *case));
        stream::iter(findings).buffered(AT_A_TIME).collect()
    };
    join_all(proxies.iter().map(through)).await
}

#[tokio::test]
async fn what_readers_could_take_differently_is_refused_on_both_sides() {
    let proxies = Proxies::start().await;
    let requests = all(&proxies.http1, requests::CASES, exchange::request).await;
    let responses = all(&proxies.http1, responses::CASES, exchange::response).await;
    let streams = all(&proxies.http2, streams::CASES, exchange::stream).await;

    let cases: Vec<(&str, Due)> = (requests::CASES.iter().map(|case| (case.name, case.due)))
        .chain(responses::CASES.iter().map(|case| (case.name, case.due)))
        .chain(streams::CASES.iter().map(|case| (case.name, case.due)))
        .collect();
    let findings = requests[0].iter().chain(&responses[0]).chain(&streams[0]);
    let faults: Vec<String> =
        cases.iter().zip(findings).filter_map(|((name, due), finding)| finding.fault(name, *due)).collect();
    assert!(faults.is_empty(), "{} cases went wrong:\n{}", faults.len(), faults.join("\n"));

    let mut table = Table::new(&proxies.http1);
    table.section("Requests", requests::CASES.iter().map(|case| case.name), &requests);
    table.section("Responses", responses::CASES.iter().map(|case| case.name), &responses);
    table.section("Requests over HTTP/2", streams::CASES.iter().map(|case| case.name), &streams);
    table.compare();
}
