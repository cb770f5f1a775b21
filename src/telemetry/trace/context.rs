//! Which trace a request belongs to, as its fields say: W3C Trace Context, levels 1 and 2 (`traceparent`, `tracestate`); and how
//! it is said onward. Of B3, see [`super::b3`].

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

/// <https://www.w3.org/TR/trace-context-2/#traceparent-header>
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// <https://www.w3.org/TR/trace-context-2/#tracestate-header>
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// `version-traceid-parentid-flags` of version 00, and at least of any later one.
const LENGTH: usize = 55;
/// More entries than these are none (3.3.1.1).
const MOST_MEMBERS: usize = 32;
const SAMPLED: u8 = 1;
/// Level 2: at least seven bytes of the trace's ID are by chance, and so can be sampled by.
const RANDOM: u8 = 2;

/// The ID of a trace; never zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(u128);

/// The ID of a span; never zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(u64);

impl TraceId {
    /// `None`: zero is none.
    pub fn new(id: u128) -> Option<Self> {
        (id != 0).then_some(Self(id))
    }

    /// As it stands on the wire, the first byte first.
    pub fn bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// As text.
    pub fn text(self) -> [u8; 32] {
        let mut text = [0; 32];
        write_hex(&mut text, &self.bytes());
        text
    }

    /// Reads 32 digits, lower case.
    pub fn read(text: &[u8]) -> Option<Self> {
        read_hex(text, 32).and_then(Self::new)
    }
}

impl SpanId {
    /// `None`: zero is none.
    pub fn new(id: u64) -> Option<Self> {
        (id != 0).then_some(Self(id))
    }

    /// As it stands on the wire, the first byte first.
    pub fn bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }

    /// As text.
    pub fn text(self) -> [u8; 16] {
        let mut text = [0; 16];
        write_hex(&mut text, &self.bytes());
        text
    }

    /// Reads 16 digits, lower case.
    pub fn read(text: &[u8]) -> Option<Self> {
        read_hex(text, 16).and_then(|id| Self::new(id as u64))
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The part of a trace that a message is caused by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// The whole.
    pub trace: TraceId,
    /// The cause.
    pub span: SpanId,
    /// Whether it is recorded. `None`: that is left to whoever comes next, which only B3 can say.
    pub sampled: Option<bool>,
    /// The trace's ID is by chance.
    pub random: bool,
}

/// What `traceparent` says. `None`: it is not there, or says nothing that is understood: then `tracestate` does not count,
/// either (3.2.4 of level 1).
pub fn read(headers: &HeaderMap) -> Option<Context> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let value = values.next()?;
    // Two are none: nobody knows which.
    if values.next().is_some() {
        return None;
    }
    parse(value.as_bytes().trim_ascii())
}

/// Reads a `traceparent` as its version, or one yet to come, has it (3.2.2, and 3.2.4 on versions).
fn parse(text: &[u8]) -> Option<Context> {
    if text.len() < LENGTH || [2, 35, 52].iter().any(|at| text[*at] != b'-') {
        return None;
    }
    match read_hex(&text[..2], 2)? {
        0xff => return None,
        0 if text.len() != LENGTH => return None,
        0 => {}
        // A later version may have more, after another dash.
        _ if text.len() > LENGTH && text[LENGTH] != b'-' => return None,
        _ => {}
    }
    let flags = read_hex(&text[53..LENGTH], 2)? as u8;
    Some(Context {
        trace: TraceId::read(&text[3..35])?,
        span: SpanId::read(&text[36..52])?,
        sampled: Some(flags & SAMPLED != 0),
        random: flags & RANDOM != 0,
    })
}

/// Says a context onward, in version 00, whichever version it came in. `tracestate` is left as it is.
pub fn write(headers: &mut HeaderMap, context: &Context) {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    text[3..35].copy_from_slice(&context.trace.text());
    text[36..52].copy_from_slice(&context.span.text());
    let sampled = if context.sampled == Some(true) { SAMPLED } else { 0 };
    let random = if context.random { RANDOM } else { 0 };
    text[LENGTH - 1] = b'0' + (sampled | random);
    headers.insert(TRACEPARENT, unindexed(&text));
}

/// As a field's value. Not to be indexed (RFC 7541 6.2.3): each is another one, and would push out of HPACK's table what is not.
pub(super) fn unindexed(text: &[u8]) -> HeaderValue {
    let mut value = HeaderValue::from_bytes(text).expect("digits, letters and dashes");
    value.set_sensitive(true);
    value
}

/// The whole of `tracestate`; takes off one that is none. Empty: there is none.
pub fn take_state(headers: &mut HeaderMap) -> String {
    if !headers.contains_key(TRACESTATE) {
        return String::new();
    }
    let mut whole = Vec::new();
    for value in headers.get_all(TRACESTATE) {
        if !whole.is_empty() {
            whole.push(b',');
        }
        whole.extend_from_slice(value.as_bytes());
    }
    if !is_state(&whole) {
        headers.remove(TRACESTATE);
        return String::new();
    }
    String::from_utf8(whole).unwrap_or_default()
}

/// Whether it is a list as 3.3.1 has it. Of its length only the number of entries counts: what is kept whole needs no limit but
/// that of all fields. An entry may be there twice: that is its vendors' own affair.
fn is_state(list: &[u8]) -> bool {
    let members = list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let mut count = 0;
    for member in members.filter(|member| !member.is_empty()) {
        count += 1;
        let Some(equals) = member.iter().position(|byte| *byte == b'=') else { return false };
        let (key, value) = (&member[..equals], &member[equals + 1..]);
        if count > MOST_MEMBERS || !is_key(key) || !is_value(value) {
            return false;
        }
    }
    true
}

fn is_key(key: &[u8]) -> bool {
    let begins = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let goes_on = |byte: &u8| begins(byte) || matches!(byte, b'_' | b'-' | b'*' | b'/' | b'@');
    key.len() <= 256 && key.first().is_some_and(begins) && key.iter().all(goes_on)
}

fn is_value(value: &[u8]) -> bool {
    let fits = |byte: &u8| matches!(byte, 0x20..=0x7e) && !matches!(byte, b',' | b'=');
    (1..=256).contains(&value.len()) && value.iter().all(fits)
}

/// Exactly so many digits, lower case (3.2.2.3 and 3.2.2.4 allow no others).
pub(super) fn read_hex(text: &[u8], digits: usize) -> Option<u128> {
    if text.len() != digits {
        return None;
    }
    text.iter().try_fold(0, |number: u128, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

fn write_hex(text: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn read_one(value: &str) -> Option<Context> {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_str(value).expect("a value"));
        read(&headers)
    }

    #[test]
    fn traceparent_is_read_as_the_standard_has_it() {
        let valid = format!("00-{TRACE}-{SPAN}-01");
        let context = read_one(&valid).expect("it is valid");
        assert_eq!((context.trace.to_string(), context.span.to_string()), (TRACE.into(), SPAN.into()));
        assert_eq!((context.sampled, context.random), (Some(true), false));
        for (flags, sampled, random) in
            [("00", false, false), ("02", false, true), ("03", true, true), ("ff", true, true)]
        {
            let context = read_one(&format!("00-{TRACE}-{SPAN}-{flags}")).expect(flags);
            assert_eq!((context.sampled, context.random), (Some(sampled), random), "{flags}");
        }
        // Versions that are yet to come.
        for good in [
            format!("cc-{TRACE}-{SPAN}-01"),
            format!("cc-{TRACE}-{SPAN}-01-what-the-future-brings"),
            format!("cc-{TRACE}-{SPAN}-01-"),
            format!(" {valid}\t"),
        ] {
            assert_eq!(read_one(&good), Some(context), "{good}");
        }
        for bad in [
            String::new(),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("00-{TRACE}-{SPAN}-01."),
            format!("cc-{TRACE}-{SPAN}-01.more"),
            format!("0-{TRACE}-{SPAN}-01"),
            format!(".0-{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("00-{TRACE}-{SPAN}-.1"),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{TRACE}-{}-01", SPAN.to_uppercase()),
            format!("00-{TRACE}-{SPAN}-0A"),
            format!("00-{}-{SPAN}-01", &TRACE[1..]),
            format!("00-{}.-{SPAN}-01", &TRACE[1..]),
            format!("00_{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}{SPAN}-01"),
        ] {
            assert_eq!(read_one(&bad), None, "{bad}");
        }
        let mut twice = HeaderMap::new();
        for _ in 0..2 {
            twice.append(TRACEPARENT, valid.parse().expect("a value"));
        }
        assert_eq!(read(&twice), None);
    }

    #[test]
    fn tracestate_is_kept_whole_or_not_at_all() {
        let members =
            |count: usize| (0..count).map(|number| format!("k{number}=v")).collect::<Vec<_>>().join(",");
        let (most, more) = (members(32), members(33));
        let long_key = format!("{}=v", "k".repeat(256));
        let longer_key = format!("{}=v", "k".repeat(257));
        let (long, longer) = (format!("k={}", "v".repeat(256)), format!("k={}", "v".repeat(257)));
        for (values, expected) in [
            (vec!["rojo=00f067aa0ba902b7"], Some("rojo=00f067aa0ba902b7")),
            (vec!["foo=1,bar=2", "rojo=1"], Some("foo=1,bar=2,rojo=1")),
            (vec!["foo=1 \t , \t bar=2,,"], Some("foo=1 \t , \t bar=2,,")),
            (vec!["fw529a3039@dt=1,0a/b*c_d-e@v=x y"], Some("fw529a3039@dt=1,0a/b*c_d-e@v=x y")),
            (vec!["foo=1,foo=2"], Some("foo=1,foo=2")),
            (vec![&most], Some(&most)),
            (vec![&long_key], Some(&long_key)),
            (vec![&long], Some(&long)),
            (vec![&more], None),
            (vec![&longer_key], None),
            (vec![&longer], None),
            (vec!["foo"], None),
            (vec!["foo="], None),
            (vec!["=1"], None),
            (vec!["Foo=1"], None),
            (vec!["foo =1"], None),
            (vec!["@foo=1"], None),
            (vec!["foo=b=r"], None),
            (vec!["foo=1", "bar;2"], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in &values {
                headers.append(TRACESTATE, value.parse().expect("a value"));
            }
            let before = headers.clone();
            let state = take_state(&mut headers);
            assert_eq!(state, expected.unwrap_or_default(), "{values:?}");
            assert_eq!(headers, if expected.is_some() { before } else { HeaderMap::new() }, "{values:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(trace in 1_u128.., span in 1_u64.., sampled: bool, random: bool) {
            let (trace, span) = (TraceId::new(trace).expect("not zero"), SpanId::new(span).expect("not zero"));
            let context = Context { trace, span, sampled: Some(sampled), random };
            let mut headers = HeaderMap::new();
            headers.append(TRACEPARENT, HeaderValue::from_static("of-before"));
            write(&mut headers, &context);
            prop_assert_eq!(read(&headers), Some(context));
        }

        #[test]
        fn nothing_but_the_form_is_taken(text in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(context) = parse(&text) {
                prop_assert_eq!(&text[3..35], context.trace.text());
                prop_assert_eq!(&text[36..52], context.span.text());
            }
            is_state(&text);
        }

        #[test]
        fn a_damaged_one_is_refused_or_means_another(at in 0..LENGTH, byte: u8) {
            let mut text = format!("00-{TRACE}-{SPAN}-01").into_bytes();
            let before = parse(&text);
            text[at] = byte;
            let now = parse(&text);
            let same = byte == format!("00-{TRACE}-{SPAN}-01").as_bytes()[at];
            // A later version, and flags that nobody knows, mean the same.
            prop_assert!(same || now != before || !(2..53).contains(&at));
        }
    }
}
