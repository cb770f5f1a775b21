//! How a message's fields were written: their names' case, and the order of all fields.
//!
//! An HTTP/1 message carries it along as one private field, `pillion-names: Host,User-Agent,X-Id`, so that it comes through
//! HTTP/2 between sidecars, where a repeated list is one byte (RFC 7541). Whoever writes the message as HTTP/1 again
//! takes the list off. That it is there also says that a message came as HTTP/1.

use std::cell::Cell;

use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::MAX_HEADERS;
use crate::http::headers::NAMES;

/// Longer lists are left empty: a message that needs more for its names alone may not pass HTTP/2's own bound.
const MAX_LIST: usize = 8 * 1024;

thread_local! {
    /// Where a list is put together, to be compared with the last one.
    static DRAFT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The lists of one connection's messages. They are seldom different from one message to the next.
#[derive(Debug, Default)]
pub(super) struct Lists {
    last: Option<HeaderValue>,
}

impl Lists {
    /// The list of these names, in their order.
    pub(super) fn of<'a>(&mut self, names: impl Iterator<Item = &'a str>) -> HeaderValue {
        let mut draft = DRAFT.take();
        draft.clear();
        for name in names {
            if !draft.is_empty() {
                draft.push(b',');
            }
            draft.extend_from_slice(name.as_bytes());
        }
        if draft.len() > MAX_LIST {
            draft.clear();
        }
        let list = match &self.last {
            Some(last) if last.as_bytes() == draft.as_slice() => last.clone(),
            _ => {
                let list = HeaderValue::from_bytes(&draft).expect("names are tokens (RFC 9110 5.6.2)");
                self.last.insert(list).clone()
            }
        };
        DRAFT.set(draft);
        list
    }
}

/// One field that is still to be written.
type Waiting<'a> = Option<(&'a HeaderName, &'a HeaderValue)>;

/// Goes through the fields as they were written, as far as the message carries a list of that; then through the others,
/// which were added on the way. The list itself is left out.
pub(super) fn as_written<'a>(
    headers: &'a HeaderMap,
    mut field: impl FnMut(&[u8], &'a HeaderName, &'a HeaderValue),
) {
    let Some(list) = headers.get(NAMES).filter(|list| !list.is_empty()) else {
        for (name, value) in headers.iter().filter(|(name, _)| *name != NAMES) {
            field(name.as_str().as_bytes(), name, value);
        }
        return;
    };
    let fields = || headers.iter().filter(|(name, _)| *name != NAMES);
    let written = list.as_bytes().split(|byte| *byte == b',');
    if let Some(removed) = in_order(headers, fields(), written.clone()) {
        let mut rest = fields();
        for (_, written) in written.enumerate().filter(|(index, _)| removed & (1 << index) == 0) {
            let (name, value) = rest.next().expect("it has been looked at");
            field(written, name, value);
        }
        for (name, value) in rest {
            field(name.as_str().as_bytes(), name, value);
        }
        return;
    }
    let mut waiting: SmallVec<[Waiting<'a>; 32]> = fields().map(Some).collect();
    let mut next = 0;
    // No message that was taken has more fields; a peer that lists more has made its list up.
    for written in written.take(MAX_HEADERS) {
        let fits = |waiting: &Waiting<'a>| waiting.is_some_and(|(name, _)| is(name, written));
        let ahead = waiting[next..].iter().position(fits).map(|found| next + found);
        // From the beginning where need be: several fields of one name are together in the map, but not in the message.
        let found = ahead.or_else(|| waiting[..next].iter().position(fits));
        if let Some(found) = found {
            let (name, value) = waiting[found].take().expect("it is one that waits");
            field(written, name, value);
            next = found + 1;
        }
    }
    for (name, value) in waiting.into_iter().flatten() {
        field(name.as_str().as_bytes(), name, value);
    }
}

/// Whether a message has what is in the list, in its order, perhaps with something more at its end: what most have. Gives
/// those that were removed, by their place in the list.
fn in_order<'a>(
    headers: &HeaderMap,
    mut fields: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>,
    mut list: impl Iterator<Item = &'a [u8]>,
) -> Option<u64> {
    let mut removed = 0;
    let mut next = fields.next();
    for index in 0..64 {
        let Some(written) = list.next() else { return Some(removed) };
        if next.is_some_and(|(name, _)| is(name, written)) {
            next = fields.next();
        } else if std::str::from_utf8(written).is_ok_and(|written| !headers.contains_key(written)) {
            removed |= 1 << index;
        } else {
            return None;
        }
    }
    list.next().is_none().then_some(removed)
}

fn is(name: &HeaderName, written: &[u8]) -> bool {
    name.as_str().as_bytes().eq_ignore_ascii_case(written)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(headers: &HeaderMap) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        as_written(headers, |written, _, value| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            fields.push((text(written), text(value.as_bytes())));
        });
        fields
    }

    #[test]
    fn what_was_added_comes_last_and_what_was_removed_is_left_out() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("b", "1"), ("gone", "2"), ("a", "3"), ("b", "4"), ("new", "5")] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers.remove("gone");
        headers.insert(NAMES, HeaderValue::from_static("B,Gone,A,b"));
        let expected = [("B", "1"), ("A", "3"), ("b", "4"), ("new", "5")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(written(&headers), expected);
    }

    #[test]
    fn the_same_list_is_made_once() {
        let mut lists = Lists::default();
        let first = lists.of(["A", "b"].into_iter());
        let second = lists.of(["A", "b"].into_iter());
        assert_eq!(first.as_bytes().as_ptr(), second.as_bytes().as_ptr());
        assert_eq!(lists.of(["a", "b"].into_iter()), "a,b");
        assert_eq!(lists.of(std::iter::repeat_n("abcdefgh", 1000)), "");
    }

    proptest! {
        #[test]
        fn case_and_order_survive(
            names in proptest::collection::vec("[xX][a-cA-C]{1,2}", 0..40),
            removed in 0_usize..3,
        ) {
            let mut lists = Lists::default();
            let mut headers = HeaderMap::new();
            let mut expected = Vec::new();
            for (value, name) in names.iter().enumerate() {
                headers.append(name.parse::<HeaderName>().expect("a token"), HeaderValue::from(value));
                expected.push((name.clone(), value.to_string()));
            }
            headers.insert(NAMES, lists.of(names.iter().map(String::as_str)));
            for name in names.iter().take(removed) {
                headers.remove(name.as_str());
                expected.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
            }
            prop_assert_eq!(written(&headers), expected);
        }
    }
}
