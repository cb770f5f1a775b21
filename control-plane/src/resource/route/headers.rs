//! Changes to headers, and which of them a route may make.

use std::collections::BTreeSet;

use gateway_api::experimental::httproutes::{
    HttpRouteRulesFiltersRequestHeaderModifier as RequestModifier,
    HttpRouteRulesFiltersResponseHeaderModifier as ResponseModifier,
};

use super::super::fault::{Faults, Path};

/// Changes to headers, names with values. The Gateway API's crate has a type for requests and one for responses, which say the same.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes<'filter> {
    pub(crate) set: Vec<(&'filter str, &'filter str)>,
    pub(crate) add: Vec<(&'filter str, &'filter str)>,
    pub(crate) remove: Vec<&'filter str>,
}

macro_rules! changes_of {
    ($($modifier:ty),+) => {
        $(impl<'filter> From<&'filter $modifier> for Changes<'filter> {
            fn from(modifier: &'filter $modifier) -> Self {
                Self {
                    set: modifier.set.iter().flatten().map(|it| (&*it.name, &*it.value)).collect(),
                    add: modifier.add.iter().flatten().map(|it| (&*it.name, &*it.value)).collect(),
                    remove: modifier.remove.iter().flatten().map(String::as_str).collect(),
                }
            }
        })+
    };
}

changes_of!(RequestModifier, ResponseModifier);

/// What frames a message, concerns one connection, or is the mesh's own: nothing that a route may change.
const NEVER: [&str; 11] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "x-forwarded-client-cert",
    "x_forwarded_client_cert",
];

pub(super) fn check_changes(Changes { set, add, remove }: Changes<'_>, at: &Path, faults: &mut Faults) {
    // One name in two of the lists has no defined order of effects.
    let mut names = BTreeSet::new();
    for (list, items) in [("set", set), ("add", add)] {
        faults.check_length(&at.field(list), items.len(), 16);
        for (index, (name, value)) in items.into_iter().enumerate() {
            let at = at.field(list).index(index);
            check_changed(name, &mut names, &at.field("name"), faults);
            if http::HeaderValue::from_str(value).is_err() {
                faults.add(&at.field("value"), format!("is not a header value (RFC 9110): {value:?}"));
            }
        }
    }
    faults.check_length(&at.field("remove"), remove.len(), 16);
    for (index, name) in remove.into_iter().enumerate() {
        check_changed(name, &mut names, &at.field("remove").index(index), faults);
    }
}

fn check_changed(name: &str, seen: &mut BTreeSet<String>, at: &Path, faults: &mut Faults) {
    let lower = name.to_ascii_lowercase();
    if lower == "host" {
        faults.add(at, "is changed by a filter URLRewrite, in its hostname");
    } else if NEVER.contains(&lower.as_str()) || lower.starts_with("pillion-") {
        faults.add(at, format!("{name:?} belongs to the connection or the mesh; no route changes it"));
    } else {
        check_name(name, seen, at, faults);
    }
}

/// Says that something is no header's name, or one that was there before.
pub(super) fn check_name(name: &str, seen: &mut BTreeSet<String>, at: &Path, faults: &mut Faults) {
    if name.len() > 256 || http::HeaderName::from_bytes(name.as_bytes()).is_err() {
        faults.add(at, format!("is not a header name (RFC 9110): {name:?}"));
    } else if !seen.insert(name.to_ascii_lowercase()) {
        faults.add(at, format!("{name:?} is in the list already (header names ignore case)"));
    }
}
