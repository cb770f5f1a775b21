//! B3, Zipkin's way to say which trace a request belongs to, in one field or in several. It is taken where there is no
//! `traceparent`, and said onward in the form that it came in, so that applications that know nothing else go on working.
//! <https://github.com/openzipkin/b3-propagation>

use http::{HeaderMap, HeaderName, HeaderValue};

use super::context::{Context, SpanId, TraceId, read_hex, unindexed};

/// All in one field.
pub const B3: HeaderName = HeaderName::from_static("b3");
const TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
const SPAN: HeaderName = HeaderName::from_static("x-b3-spanid");
const PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");
const ONE: HeaderValue = HeaderValue::from_static("1");
const ZERO: HeaderValue = HeaderValue::from_static("0");

/// How a message says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    single: bool,
    /// The trace's ID has 16 digits.
    short: bool,
    /// It is recorded whatever policies say.
    debug: bool,
}

/// What a message says by B3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    /// How, for what is sent on.
    pub form: Form,
    /// The cause, where one is named.
    pub context: Option<Context>,
    /// Whether it is to be recorded, also where no cause is named. `None`: it is left open.
    pub sampled: Option<bool>,
}

/// What is said; `None`: nothing is. Of what is malformed only the form counts.
pub fn read(headers: &HeaderMap) -> Option<Said> {
    match headers.get(B3) {
        Some(value) => Some(read_single(value.as_bytes())),
        None if [TRACE, SPAN, SAMPLED, FLAGS].iter().any(|name| headers.contains_key(name)) => {
            Some(read_several(headers))
        }
        None => None,
    }
}

/// `{trace}-{span}-{sampled}-{parent}`, the last two optional; or the sampling alone.
fn read_single(text: &[u8]) -> Said {
    let parts: Vec<&[u8]> = text.trim_ascii().splitn(5, |byte| *byte == b'-').collect();
    let sampling = |text: &[u8]| match text {
        b"0" => Some((Some(false), false)),
        b"1" => Some((Some(true), false)),
        b"d" => Some((Some(true), true)),
        _ => None,
    };
    let (trace, span, sampled) = match *parts.as_slice() {
        [sampled] => (None, None, sampling(sampled)),
        [trace, span] => (trace_id(trace), SpanId::read(span), Some((None, false))),
        [trace, span, sampled] => (trace_id(trace), SpanId::read(span), sampling(sampled)),
        [trace, span, sampled, parent] if SpanId::read(parent).is_some() => {
            (trace_id(trace), SpanId::read(span), sampling(sampled))
        }
        _ => (None, None, None),
    };
    let (sampled, debug) = sampled.unwrap_or_default();
    said(true, trace, span, sampled, debug)
}

fn read_several(headers: &HeaderMap) -> Said {
    let text = |name| headers.get(name).map(|value| value.as_bytes().trim_ascii());
    let debug = text(FLAGS) == Some(b"1");
    let sampled = match text(SAMPLED) {
        _ if debug => Some(true),
        // The words are of before the specification.
        Some(b"1" | b"true") => Some(true),
        Some(b"0" | b"false") => Some(false),
        _ => None,
    };
    said(false, text(TRACE).and_then(trace_id), text(SPAN).and_then(SpanId::read), sampled, debug)
}

fn said(
    single: bool,
    trace: Option<(TraceId, bool)>,
    span: Option<SpanId>,
    sampled: Option<bool>,
    debug: bool,
) -> Said {
    let short = trace.is_some_and(|(_, short)| short);
    let context = trace.zip(span).map(|((trace, _), span)| Context { trace, span, sampled, random: false });
    Said { form: Form { single, short, debug }, context, sampled }
}

/// And whether it is of 16 digits.
fn trace_id(text: &[u8]) -> Option<(TraceId, bool)> {
    match text.len() {
        16 => read_hex(text, 16).and_then(TraceId::new).map(|id| (id, true)),
        _ => TraceId::read(text).map(|id| (id, false)),
    }
}

/// Says a context onward in the form that another one came in. `parent`: of the span that is now the cause.
pub fn write(headers: &mut HeaderMap, form: Form, context: &Context, parent: Option<SpanId>) {
    let trace = context.trace.text();
    // What has more than 16 digits by now cannot be said by them.
    let trace = if form.short && trace[..16] == [b'0'; 16] { &trace[16..] } else { &trace[..] };
    let span = context.span.text();
    let sampled = context.sampled == Some(true);
    if form.single {
        let state = match sampled {
            true if form.debug => b"d",
            true => b"1",
            false => b"0",
        };
        let mut parts = vec![trace, &span[..], state];
        let parent = parent.map(SpanId::text);
        parts.extend(parent.as_ref().map(|parent| &parent[..]));
        headers.insert(B3, unindexed(&parts.join(&b'-')));
        return;
    }
    headers.insert(TRACE, unindexed(trace));
    headers.insert(SPAN, unindexed(&span));
    match parent {
        Some(parent) => drop(headers.insert(PARENT, unindexed(&parent.text()))),
        None => drop(headers.remove(PARENT)),
    }
    if form.debug && sampled {
        headers.insert(FLAGS, ONE);
        // It is implied, and not to be said twice.
        headers.remove(SAMPLED);
    } else {
        headers.insert(SAMPLED, if sampled { ONE } else { ZERO });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LONG: &str = "80f198ee56343ba864fe8b2a57d3eff7";
    const SHORT: &str = "64fe8b2a57d3eff7";
    const CAUSE: &str = "e457b5a2e4d86bd1";
    const ABOVE: &str = "05e3ac9a4f6e3b90";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"))
        });
        pairs.collect()
    }

    /// Its trace and cause, whether it is recorded, and whatever policies say.
    type Seen = (Option<(String, String)>, Option<bool>, bool);

    fn seen(said: Option<Said>) -> Option<Seen> {
        said.map(|said| {
            let context = said.context.map(|it| (it.trace.to_string(), it.span.to_string()));
            (context, said.sampled, said.form.debug)
        })
    }

    #[test]
    fn one_field() {
        let (long, padded) =
            ((LONG.to_owned(), CAUSE.to_owned()), (format!("{:0>32}", SHORT), CAUSE.to_owned()));
        for (value, expected) in [
            (format!("{LONG}-{CAUSE}-1-{ABOVE}"), (Some(long.clone()), Some(true), false)),
            (format!("{LONG}-{CAUSE}-1"), (Some(long.clone()), Some(true), false)),
            (format!("{LONG}-{CAUSE}-0"), (Some(long.clone()), Some(false), false)),
            (format!("{LONG}-{CAUSE}-d"), (Some(long.clone()), Some(true), true)),
            (format!("{LONG}-{CAUSE}"), (Some(long), None, false)),
            (format!("{SHORT}-{CAUSE}-1"), (Some(padded), Some(true), false)),
            ("0".into(), (None, Some(false), false)),
            ("1".into(), (None, Some(true), false)),
            ("d".into(), (None, Some(true), true)),
            (String::new(), (None, None, false)),
            ("nonsense".into(), (None, None, false)),
            (format!("{LONG}-{CAUSE}-1-{ABOVE}-1"), (None, None, false)),
            (format!("{LONG}-{CAUSE}-1-short"), (None, None, false)),
            (format!("{}-{CAUSE}-1", "0".repeat(32)), (None, Some(true), false)),
            (format!("{}-{CAUSE}-1", LONG.to_uppercase()), (None, Some(true), false)),
        ] {
            assert_eq!(seen(read(&headers(&[("b3", &value)]))), Some(expected), "{value:?}");
        }
        assert_eq!(read(&HeaderMap::new()), None);
    }

    #[test]
    fn several_fields() {
        let ids = [("x-b3-traceid", LONG), ("x-b3-spanid", CAUSE)];
        let cause = Some((LONG.to_owned(), CAUSE.to_owned()));
        for (more, expected) in [
            (vec![], (cause.clone(), None, false)),
            (vec![("x-b3-sampled", "1")], (cause.clone(), Some(true), false)),
            (vec![("x-b3-sampled", "true")], (cause.clone(), Some(true), false)),
            (vec![("x-b3-sampled", "0")], (cause.clone(), Some(false), false)),
            (vec![("x-b3-flags", "1")], (cause.clone(), Some(true), true)),
            (vec![("x-b3-flags", "0"), ("x-b3-sampled", "0")], (cause, Some(false), false)),
        ] {
            let all = [ids.as_slice(), &more].concat();
            assert_eq!(seen(read(&headers(&all))), Some(expected), "{more:?}");
        }
        assert_eq!(seen(read(&headers(&[("x-b3-sampled", "0")]))), Some((None, Some(false), false)));
        assert_eq!(seen(read(&headers(&[("x-b3-traceid", LONG)]))), Some((None, None, false)));
    }

    #[test]
    fn it_goes_on_in_its_own_form() {
        let mine = SpanId::read(b"00000000000000aa").expect("an ID");
        for (came, goes) in [
            (
                headers(&[("b3", &format!("{SHORT}-{CAUSE}-d"))]),
                headers(&[("b3", &format!("{SHORT}-00000000000000aa-d-{CAUSE}"))]),
            ),
            (
                headers(&[("b3", &format!("{LONG}-{CAUSE}-1-{ABOVE}"))]),
                headers(&[("b3", &format!("{LONG}-00000000000000aa-1-{CAUSE}"))]),
            ),
            (
                headers(&[
                    ("x-b3-traceid", SHORT),
                    ("x-b3-spanid", CAUSE),
                    ("x-b3-parentspanid", ABOVE),
                    ("x-b3-sampled", "true"),
                ]),
                headers(&[
                    ("x-b3-traceid", SHORT),
                    ("x-b3-spanid", "00000000000000aa"),
                    ("x-b3-parentspanid", CAUSE),
                    ("x-b3-sampled", "1"),
                ]),
            ),
            (
                headers(&[
                    ("x-b3-traceid", LONG),
                    ("x-b3-spanid", CAUSE),
                    ("x-b3-flags", "1"),
                    ("x-b3-sampled", "1"),
                ]),
                headers(&[
                    ("x-b3-traceid", LONG),
                    ("x-b3-spanid", "00000000000000aa"),
                    ("x-b3-parentspanid", CAUSE),
                    ("x-b3-flags", "1"),
                ]),
            ),
        ] {
            let said = read(&came).expect("it is B3");
            let cause = said.context.expect("it names a cause");
            let mut onward = came.clone();
            write(&mut onward, said.form, &Context { span: mine, ..cause }, Some(cause.span));
            assert_eq!(onward, goes);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(trace in 1_u128.., span in 1_u64.., sampled: bool, single: bool, short: bool, debug: bool) {
            let trace = if short { u128::from(trace as u64).max(1) } else { trace };
            let context = Context {
                trace: TraceId::new(trace).expect("not zero"),
                span: SpanId::new(span).expect("not zero"),
                sampled: Some(sampled),
                random: false,
            };
            let mut headers = HeaderMap::new();
            write(&mut headers, Form { single, short, debug }, &context, None);
            let said = read(&headers).expect("it is B3");
            prop_assert_eq!(said.context, Some(context));
            prop_assert_eq!(said.form, Form { single, short, debug: debug && sampled });
        }

        #[test]
        fn nothing_breaks_it(text in proptest::collection::vec(prop_oneof![Just(b'-'), Just(b'0'), any::<u8>()], 0..90)) {
            read_single(&text);
        }
    }
}
