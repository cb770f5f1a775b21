//! What a rule does to requests and responses.

use std::collections::BTreeSet;

use gateway_api::experimental::httproutes::{
    HttpRouteRulesFilters as Filter, HttpRouteRulesFiltersType as FilterType,
};

use super::{
    super::fault::{Faults, Path},
    check_header_name,
};

pub(super) fn check(filter: &Filter, at: &Path, faults: &mut Faults) {
    let (used, name) = match filter.r#type {
        FilterType::RequestHeaderModifier => {
            if let Some(modifier) = &filter.request_header_modifier {
                let set = modifier.set.iter().flatten().map(|it| (&it.name, &it.value));
                let add = modifier.add.iter().flatten().map(|it| (&it.name, &it.value));
                let remove = modifier.remove.iter().flatten();
                check_header_changes(set, add, remove, &at.field("requestHeaderModifier"), faults);
            }
            (filter.request_header_modifier.is_some(), "requestHeaderModifier")
        }
        FilterType::ResponseHeaderModifier => {
            if let Some(modifier) = &filter.response_header_modifier {
                let set = modifier.set.iter().flatten().map(|it| (&it.name, &it.value));
                let add = modifier.add.iter().flatten().map(|it| (&it.name, &it.value));
                let remove = modifier.remove.iter().flatten();
                check_header_changes(set, add, remove, &at.field("responseHeaderModifier"), faults);
            }
            (filter.response_header_modifier.is_some(), "responseHeaderModifier")
        }
        _ => {
            let kind = serde_json::to_value(&filter.r#type).unwrap_or_default();
            faults.add(
                &at.field("type"),
                format!("{} is not supported yet", kind.as_str().unwrap_or_default()),
            );
            return;
        }
    };
    if !used {
        faults.add(&at.field(name), "is required for a filter of this type");
    }
    let others = [
        ("requestHeaderModifier", filter.request_header_modifier.is_some()),
        ("responseHeaderModifier", filter.response_header_modifier.is_some()),
        ("requestMirror", filter.request_mirror.is_some()),
        ("requestRedirect", filter.request_redirect.is_some()),
        ("urlRewrite", filter.url_rewrite.is_some()),
        ("extensionRef", filter.extension_ref.is_some()),
        ("cors", filter.cors.is_some()),
    ];
    for (other, _) in others.iter().filter(|(other, present)| *present && *other != name) {
        faults.add(&at.field(other), "does not belong to a filter of this type");
    }
}

fn check_header_changes<'filter>(
    set: impl Iterator<Item = (&'filter String, &'filter String)>,
    add: impl Iterator<Item = (&'filter String, &'filter String)>,
    remove: impl Iterator<Item = &'filter String>,
    at: &Path,
    faults: &mut Faults,
) {
    // One name in two of the lists has no defined order of effects.
    let mut names = BTreeSet::new();
    let set: Vec<_> = set.collect();
    let add: Vec<_> = add.collect();
    for (list, items) in [("set", set), ("add", add)] {
        faults.check_length(&at.field(list), items.len(), 16);
        for (index, (name, value)) in items.into_iter().enumerate() {
            let at = at.field(list).index(index);
            check_header_name(name, &mut names, &at.field("name"), faults);
            if http::HeaderValue::from_str(value).is_err() {
                faults.add(&at.field("value"), format!("is not a header value (RFC 9110): {value:?}"));
            }
        }
    }
    let mut removed = 0;
    for (index, name) in remove.enumerate() {
        removed += 1;
        check_header_name(name, &mut names, &at.field("remove").index(index), faults);
    }
    faults.check_length(&at.field("remove"), removed, 16);
}
