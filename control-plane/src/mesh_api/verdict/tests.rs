//! What is said of which way.

use super::{Segment::*, *};

fn means(requests: u64, ms: &[(Segment, f64)]) -> Means {
    let mut means = Means { requests, ..Means::default() };
    ms.iter().for_each(|(segment, ms)| means.ms[*segment as usize] = *ms);
    means
}

fn one(workload: &str, requests: u64, ms: &[(Segment, f64)]) -> Served {
    Served { workload: workload.to_owned(), means: means(requests, ms), failing: false, short_of_cpu: false }
}

fn starved(served: Served) -> Served {
    Served { short_of_cpu: true, ..served }
}

fn between() -> Between {
    Between { from: Some("web".to_owned()), to: "payments".to_owned(), ..Between::default() }
}

/// What is said, of which segment and which workload.
fn said(all: &Means, served: &[Served], between: &Between) -> (String, Option<String>, Option<String>) {
    let VerdictView { text, segment, workload, .. } = verdict(all, served, between);
    (text, segment, workload)
}

const QUICK: [(Segment, f64); 3] = [(Client, 0.1), (Network, 0.4), (Application, 12.0)];

#[test]
fn the_segment_that_takes_most() {
    let table: [(&[(Segment, f64)], &str); 10] = [
        (
            &[(Network, 2.0), (Application, 400.0)],
            "most of the time is in the application of payments, 400 ms of 402 ms",
        ),
        (
            &[(Network, 82.4), (Application, 2.0)],
            "most of the time is in the network between web and payments, 82 ms of 84 ms",
        ),
        (
            &[(Server, 50.0), (Application, 2.0)],
            "most of the time requests wait in the sidecar of payments: for a limit, or for the application to take them, 50 ms of 52 ms",
        ),
        (
            &[(Client, 300.0), (Application, 2.0)],
            "most of the time is in the sidecar of web: a limit, an injected fault, or waiting for a connection, 300 ms of 302 ms",
        ),
        (
            &[(Retries, 3.0), (Application, 2.0)],
            "most of the time goes into tries before the last one, 3.0 ms of 5.0 ms",
        ),
        (
            &[(Body, 1500.0), (Application, 2.0)],
            "most of the time is after the application of payments has begun to answer: long answers, streams, or what was broken off, 1.5 s of 1.5 s",
        ),
        (
            &[(Caller, 9.0)],
            "most of the time web is waited for: to send its request, or to take the answer, 9.0 ms of 9.0 ms",
        ),
        (
            &[(Upstream, 9.0)],
            "most of the time is beyond the sidecar of web, where nothing tells it apart, 9.0 ms of 9.0 ms",
        ),
        (
            &[(Network, 3.0), (Server, 3.0), (Application, 4.0)],
            "no part stands out; the largest is the application: 4.0 ms of 10 ms",
        ),
        (&[], "no time was measured"),
    ];
    for (ms, expected) in table {
        let largest =
            ms.iter().max_by(|a, b| a.1.total_cmp(&b.1)).map(|(segment, _)| segment.name().to_owned());
        let segment = largest.filter(|_| expected.starts_with("most"));
        assert_eq!(said(&means(50, ms), &[], &between()), (expected.to_owned(), segment, None));
    }
}

#[test]
fn one_workload_that_is_slower_than_the_others() {
    let with = |segment, ms| [QUICK.as_slice(), &[(segment, ms)]].concat();
    let slow = |segment, ms| one("payments-3", 7, &with(segment, ms));
    let table = [
        (
            one("payments-3", 7, &[(Network, 0.4), (Application, 400.0)]),
            "payments-3 is slow: its application takes 400 ms, that of the others 12 ms",
            Application,
        ),
        (
            one("payments-3", 7, &[(Network, 80.0), (Application, 12.0)]),
            "the network between web and payments-3 is slow: it takes 80 ms, to the others 0.4 ms",
            Network,
        ),
        (
            slow(Server, 90.0),
            "requests wait in the sidecar of payments-3: 90 ms, 0 ms in those of the others",
            Server,
        ),
        (
            starved(slow(Server, 90.0)),
            "the sidecar of payments-3 is short of CPU: requests spend 90 ms there, 0 ms in those of the others",
            Server,
        ),
        (
            slow(Upstream, 5000.0),
            "payments-3 is slow or does not answer: 5.0 s, the others 0 ms; nothing tells it apart",
            Upstream,
        ),
        (
            one("payments-3", 7, &[(Client, 60.0), (Application, 12.0)]),
            "the sidecar of web takes 60 ms to reach payments-3, 0.1 ms to reach the others",
            Client,
        ),
    ];
    let others = [one("payments-1", 300, &QUICK), one("payments-2", 300, &QUICK)];
    for (slow, expected, segment) in table {
        let served = [others.as_slice(), &[slow]].concat();
        let expected = (expected.to_owned(), Some(segment.name().to_owned()), Some("payments-3".to_owned()));
        // In the average of all it hardly shows.
        assert_eq!(said(&means(607, &QUICK), &served, &between()), expected);
    }
}

#[test]
fn no_workload_is_named_without_reason() {
    let all = means(600, &QUICK);
    let expected = said(&all, &[], &between());
    let usual = one("payments-1", 300, &QUICK);
    for (why, served) in [
        ("alone", vec![one("payments-3", 300, &[(Application, 400.0)])]),
        ("too few requests of it", vec![usual.clone(), one("payments-3", 4, &[(Application, 400.0)])]),
        ("too few of the others", vec![one("p", 4, &QUICK), one("payments-3", 300, &[(Application, 400.0)])]),
        ("not twice as long", vec![usual.clone(), one("payments-3", 300, &[(Application, 23.0)])]),
        (
            "milliseconds",
            vec![one("p", 300, &[(Application, 1.0)]), one("payments-3", 300, &[(Application, 5.0)])],
        ),
        ("its callers are slow", vec![usual.clone(), one("payments-3", 300, &[(Caller, 900.0), QUICK[2]])]),
        (
            "a long stream",
            vec![usual.clone(), one("payments-3", 30, &[QUICK.as_slice(), &[(Body, 20_000.0)]].concat())],
        ),
        (
            "another fails at once",
            vec![usual.clone(), Served { failing: true, ..one("payments-3", 300, &[(Application, 0.2)]) }],
        ),
        ("earlier tries", vec![usual, one("payments-3", 300, &[(Retries, 900.0), QUICK[2]])]),
    ] {
        assert_eq!(said(&all, &served, &between()), expected, "{why}");
    }
}

#[test]
fn of_several_slow_ones_the_slowest() {
    let served = [("p-1", 12.0), ("p-2", 80.0), ("p-3", 12.0), ("p-4", 90.0), ("p-5", 12.0)]
        .map(|(name, ms)| one(name, 50, &[(Application, ms)]));
    let (text, _, workload) = said(&means(250, &QUICK), &served, &between());
    assert_eq!(workload.as_deref(), Some("p-4"), "{text}");
    assert!(text.ends_with("that of the others 12 ms"), "{text}");
}

#[test]
fn a_sidecar_that_is_short_of_cpu() {
    let ms = [(Server, 80.0), (Application, 2.0)];
    let cart = starved(one("cart-1", 50, &ms));
    let to = Between { to: "cart".to_owned(), ..between() };
    let is_short = |all: &[(Segment, f64)], served: &[Served], between: &Between| {
        let VerdictView { text, short_of_cpu, .. } = verdict(&means(50, all), served, between);
        (text, short_of_cpu)
    };
    let (text, short) = is_short(&ms, std::slice::from_ref(&cart), &to);
    assert_eq!(text, "the sidecar of cart-1 is short of CPU: most of the time is there, 80 ms of 82 ms");
    assert!(short);
    let (text, _) = is_short(&ms, &[cart.clone(), starved(one("cart-2", 50, &ms))], &to);
    assert!(text.starts_with("2 of 2 sidecars of cart are short of CPU"), "{text}");
    let spread = [(Network, 20.0), (Server, 40.0), (Application, 30.0)];
    let (text, short) = is_short(&spread, std::slice::from_ref(&cart), &to);
    assert_eq!(
        text,
        "the sidecar of cart-1 is short of CPU: the largest part of the time is there, 40 ms of 90 ms"
    );
    assert!(short);
    let (text, short) = is_short(&spread, &[one("cart-1", 50, &spread)], &to);
    assert!(text.starts_with("no part stands out") && !short, "{text}");
    // It is not to blame for what is elsewhere.
    let (text, short) = is_short(&[(Server, 2.0), (Network, 80.0)], &[cart], &to);
    assert!(
        text.starts_with("most of the time is in the network between web and cart-1,") && !short,
        "{text}"
    );
    let between = Between { starved_callers: vec!["web-1".to_owned()], calling: 1, ..to };
    let (text, short) = is_short(&[(Client, 80.0), (Application, 2.0)], &[], &between);
    assert!(text.starts_with("the sidecar of web-1 is short of CPU: most of the time is there") && short);
}

#[test]
fn where_all_answer_with_errors_they_are_compared_all_the_same() {
    let missing = |name, ms| Served { failing: true, ..one(name, 300, &[(Application, ms)]) };
    let served = [missing("payments-1", 2.0), missing("payments-2", 2.0), missing("payments-3", 90.0)];
    let (text, ..) = said(&means(900, &QUICK), &served, &between());
    assert_eq!(text, "payments-3 is slow: its application takes 90 ms, that of the others 2.0 ms");
}

#[test]
fn who_fails_slowly_is_slow_all_the_same() {
    let served = [
        one("payments-1", 300, &QUICK),
        Served { failing: true, ..one("payments-3", 30, &[(Upstream, 1000.0)]) },
    ];
    let (text, ..) = said(&means(330, &QUICK), &served, &between());
    assert_eq!(text, "payments-3 is slow or does not answer: 1.0 s, the others 0 ms; nothing tells it apart");
}

#[test]
fn one_of_several_is_not_taken_for_all() {
    let ms = [(Network, 80.0), (Application, 2.0)];
    for (of_it, name) in [(50, "payments-1"), (46, "payments-1"), (44, "payments")] {
        // What the others did is not known by workload.
        let (text, ..) = said(&means(50, &ms), &[one("payments-1", of_it, &ms)], &between());
        assert!(
            text.starts_with(&format!("most of the time is in the network between web and {name},")),
            "{text}"
        );
    }
}

#[test]
fn a_sidecar_that_is_short_of_cpu_is_named_for_what_is_its_own() {
    let server = |name, requests, ms| one(name, requests, &[(Server, ms), (Application, 2.0)]);
    let all = means(100, &[(Server, 80.0), (Application, 2.0)]);
    let said = |served: &[Served], between: &Between| verdict(&all, served, between);
    // Hardly anything was spent there: the time is that of a queue in front of both.
    let served = [server("p-1", 98, 80.0), starved(server("p-2", 2, 90.0))];
    let VerdictView { text, short_of_cpu, .. } = said(&served, &between());
    assert!(
        text.starts_with("most of the time requests wait in the sidecar of payments:") && !short_of_cpu,
        "{text}"
    );
    let served = [server("p-1", 50, 60.0), starved(server("p-2", 50, 100.0))];
    let VerdictView { text, short_of_cpu, .. } = said(&served, &between());
    assert!(text.starts_with("the sidecar of p-2 is short of CPU") && short_of_cpu, "{text}");

    let all = means(100, &[(Client, 80.0), (Application, 2.0)]);
    let said = |starved: &[&str], calling| {
        let starved_callers = starved.iter().map(|name| (*name).to_owned()).collect();
        verdict(&all, &[], &Between { starved_callers, calling, ..between() }).text
    };
    for (starved, calling, expected) in [
        (&["web-1"][..], 1, "the sidecar of web-1 is short of CPU"),
        (&["web-1"], 2, "the sidecar of web-1, one of 2 of web, is short of CPU"),
        (&["web-1"], 3, "most of the time is in the sidecar of web: a limit"),
        (&["web-1", "web-2"], 3, "2 of 3 sidecars of web are short of CPU"),
    ] {
        let text = said(starved, calling);
        assert!(text.starts_with(expected), "{text}");
    }
}

#[test]
fn what_an_application_calls_meanwhile() {
    let all = means(50, &[(Network, 1.0), (Application, 100.0)]);
    for (onward, expected) in [
        (&[][..], ""),
        (&[("bank", 0.0)], ""),
        (&[("bank", 49.0)], ""),
        (&[("bank", 40.0), ("audit", 9.0)], ""),
        (
            &[("bank", 40.0), ("audit", 11.0), ("settings", 30_000.0)],
            "; for each request its calls of bank take 40 ms, of audit take 11 ms in all",
        ),
        (&[("bank", 90.0), ("audit", 9.0)], "; for each request its calls of bank take 90 ms in all"),
        (
            &[("bank", 90.0), ("audit", 70.0)],
            "; for each request its calls of bank take 90 ms, of audit take 70 ms in all",
        ),
        // Nobody waits for what takes longer than the whole: a long poll, or a job of its own.
        (&[("settings", 30_000.0)], ""),
    ] {
        let onward = onward.iter().map(|(to, ms)| Onward { to: (*to).to_owned(), ms: *ms }).collect();
        let (text, segment, _) = said(&all, &[], &Between { onward, ..between() });
        assert_eq!(segment.as_deref(), Some("application"));
        assert_eq!(
            text,
            format!("most of the time is in the application of payments, 100 ms of 101 ms{expected}")
        );
    }
}

#[test]
fn few_requests_tell_nothing() {
    let few = means(FEW - 1, &[(Application, 400.0)]);
    assert_eq!(said(&few, &[], &between()), ("too few requests to tell: 9".to_owned(), None, None));
}
