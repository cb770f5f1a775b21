//! Which trace a request is of, and what it says onward.

use http::{HeaderName, HeaderValue};

use super::{b3::B3, *};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";
const CHANCE: Chance = Chance { trace: 0xabc, span: 0xdef, share: 5000 };
const MINE: &str = "0000000000000def";

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pairs = pairs
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value")));
    pairs.collect()
}

fn found(pairs: &[(&'static str, &str)], per_million: u32) -> (Trace, HeaderMap) {
    let mut headers = headers(pairs);
    let share = Percent::per_million(per_million).expect("a share");
    (Trace::find(share, &mut headers, CHANCE), headers)
}

#[test]
fn a_parent_decides_else_chance() {
    let parent = |flags| format!("00-{TRACE}-{SPAN}-{flags}");
    let onward = |flags| format!("00-{TRACE}-{MINE}-{flags}");
    let begun = |flags| format!("00-{:032x}-{MINE}-{flags}", 0xabc);
    let single = format!("{TRACE}-{SPAN}-0");
    for (came, share, recorded, goes) in [
        (vec![("traceparent", parent("01"))], 0, true, vec![("traceparent", onward("01"))]),
        (vec![("traceparent", parent("03"))], 0, true, vec![("traceparent", onward("03"))]),
        (vec![("traceparent", parent("00"))], 1_000_000, false, vec![("traceparent", parent("00"))]),
        (vec![], 5001, true, vec![("traceparent", begun("03"))]),
        (vec![], 5000, false, vec![("traceparent", begun("02"))]),
        (
            vec![("traceparent", "of-nobody".into()), ("tracestate", "a=b".into())],
            5001,
            true,
            vec![("traceparent", begun("03"))],
        ),
        (
            vec![("traceparent", parent("01")), ("tracestate", "a=b".into())],
            0,
            true,
            vec![("traceparent", onward("01")), ("tracestate", "a=b".into())],
        ),
        (
            vec![("traceparent", parent("01")), ("tracestate", "a b".into())],
            0,
            true,
            vec![("traceparent", onward("01"))],
        ),
        // B3, and what it leaves open.
        (vec![("b3", "0".into())], 1_000_000, false, vec![("b3", "0".into()), ("traceparent", begun("02"))]),
        (
            vec![("b3", single.clone())],
            1_000_000,
            false,
            vec![("b3", single), ("traceparent", format!("00-{TRACE}-{SPAN}-00"))],
        ),
        (
            vec![("b3", format!("{TRACE}-{SPAN}"))],
            5000,
            false,
            vec![("b3", format!("{TRACE}-{SPAN}-0")), ("traceparent", format!("00-{TRACE}-{SPAN}-00"))],
        ),
        (
            vec![("b3", format!("{TRACE}-{SPAN}"))],
            5001,
            true,
            vec![("b3", format!("{TRACE}-{MINE}-1-{SPAN}")), ("traceparent", onward("01"))],
        ),
        (
            vec![("x-b3-traceid", TRACE.into()), ("x-b3-spanid", SPAN.into()), ("x-b3-sampled", "1".into())],
            0,
            true,
            vec![
                ("x-b3-traceid", TRACE.into()),
                ("x-b3-spanid", MINE.into()),
                ("x-b3-parentspanid", SPAN.into()),
                ("x-b3-sampled", "1".into()),
                ("traceparent", onward("01")),
            ],
        ),
        // Both: the standard's goes before, and both say the same from here on.
        (
            vec![("traceparent", parent("01")), ("b3", format!("{:032x}-{SPAN}-0", 7))],
            0,
            true,
            vec![("traceparent", onward("01")), ("b3", format!("{TRACE}-{MINE}-1-{SPAN}"))],
        ),
    ] {
        let pairs: Vec<_> = came.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let (trace, onward) = found(&pairs, share);
        assert_eq!(trace.is_recorded(), recorded, "{came:?}");
        let expected: Vec<_> = goes.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(onward, headers(&expected), "{came:?}");
    }
}

#[test]
fn tries_are_below_the_request_and_the_first_was_the_request() {
    let came = [("traceparent", format!("00-{TRACE}-{SPAN}-01")), ("b3", "1".into())];
    let came = came.each_ref().map(|(name, value)| (*name, value.as_str()));
    let (mut trace, mut first) = found(&came, 0);
    let sent = first.clone();
    trace.attempt(&mut first);
    assert_eq!(first, sent);
    assert_eq!(trace.span().to_string(), MINE);
    let mut seen = vec![trace.span()];
    for _ in 0..2 {
        let mut again = sent.clone();
        trace.attempt(&mut again);
        let named = context::read(&again).expect("a context");
        assert_eq!((named.trace, named.sampled), (trace.id(), Some(true)));
        assert!(!seen.contains(&named.span) && named.span != trace.span());
        let b3 = format!("{TRACE}-{}-1-{}", named.span, trace.span());
        assert_eq!(again[B3], b3.as_str());
        seen.push(named.span);
    }
    assert_eq!(trace.tries.as_slice(), seen);
    assert_ne!(trace.span().to_string(), MINE);
    assert_eq!(trace.parent.expect("its caller").to_string(), SPAN);
}

#[test]
fn what_is_not_recorded_is_sent_again_as_it_was() {
    let (mut trace, mut headers) = found(&[], 0);
    let before = headers.clone();
    trace.attempt(&mut headers);
    trace.attempt(&mut headers);
    assert_eq!(headers, before);
}

#[test]
fn where_others_trace_it_any_of_their_fields_says_so() {
    let (w3c, single) = (format!("00-{TRACE}-{SPAN}-01"), format!("{TRACE}-{SPAN}"));
    for (fields, expected) in [
        (&[("traceparent", &*w3c)][..], TraceId::read(TRACE.as_bytes())),
        (&[("b3", &single)], TraceId::read(TRACE.as_bytes())),
        (&[("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN)], TraceId::read(TRACE.as_bytes())),
        (&[("tracestate", "a=b"), ("host", "a")], None),
        (&[], None),
    ] {
        assert_eq!(of_others(&headers(fields)), expected, "{fields:?}");
    }
}
