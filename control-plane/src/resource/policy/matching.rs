//! Which requests, and whose, a part of a policy is for.

use std::collections::BTreeSet;

use pillion_api::{
    model::whole,
    wire::{self, string_match::Type},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::resource::{
    fault::{Faults, Path},
    metadata,
    route::check_plain,
};

/// All that it says must hold; as a match of an `HTTPRoute`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequestMatch {
    /// The request's path. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathMatch>,
    /// Such as `GET`. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Headers that it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<Vec<HeaderMatch>>,
}

/// A path, without the query.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PathMatch {
    /// `PathPrefix` (whole elements), `Exact`, or `RegularExpression`. Default: PathPrefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#type: Option<String>,
    /// Begins with `/`.
    pub value: String,
}

/// The first value of a header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeaderMatch {
    /// `Exact` or `RegularExpression`. Default: Exact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#type: Option<String>,
    /// Its name; case does not matter.
    pub name: String,
    /// The whole value.
    pub value: String,
}

/// Callers, as their certificates name them (`spiffe://…/ns/<namespace>/sa/<serviceAccount>`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Client {
    /// Default: the policy's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Default: all of the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
}

const TYPES: [(&str, Type); 3] = [
    ("Exact", Type::Exact),
    ("PathPrefix", Type::PathPrefix),
    ("RegularExpression", Type::RegularExpression),
];

impl RequestMatch {
    fn check(&self, faults: &mut Faults, at: &Path) {
        if let Some(path) = &self.path {
            let at = at.field("path");
            check_text(path.r#type.as_deref(), &TYPES, &path.value, faults, &at);
            if path.r#type.as_deref() != Some("RegularExpression") {
                check_plain(&path.value, &at.field("value"), faults);
            }
        }
        if let Some(method) = &self.method
            && (method.is_empty() || http::Method::from_bytes(method.as_bytes()).is_err())
        {
            faults.add(&at.field("method"), format!("is not a method (RFC 9110): {method:?}"));
        }
        let headers = self.headers.as_deref().unwrap_or_default();
        faults.check_length(&at.field("headers"), headers.len(), 16);
        let mut names = BTreeSet::new();
        for (index, header) in headers.iter().enumerate() {
            let at = at.field("headers").index(index);
            if http::HeaderName::from_bytes(header.name.as_bytes()).is_err() {
                faults.add(&at.field("name"), format!("is not a header name (RFC 9110): {:?}", header.name));
            } else if !names.insert(header.name.to_ascii_lowercase()) {
                faults.add(&at.field("name"), format!("{:?} is in the list already", header.name));
            }
            check_text(header.r#type.as_deref(), &[TYPES[0], TYPES[2]], &header.value, faults, &at);
        }
    }

    fn to_wire(&self) -> wire::RouteMatch {
        let text = |kind: Option<&str>, default: Type, value: &str| {
            let kind = kind.and_then(|kind| TYPES.iter().find(|(name, _)| *name == kind));
            wire::StringMatch { r#type: kind.map_or(default, |it| it.1).into(), value: value.to_owned() }
        };
        let headers = self.headers.iter().flatten().map(|header| wire::NamedMatch {
            name: header.name.to_ascii_lowercase(),
            value: Some(text(header.r#type.as_deref(), Type::Exact, &header.value)),
        });
        wire::RouteMatch {
            path: self.path.as_ref().map(|it| text(it.r#type.as_deref(), Type::PathPrefix, &it.value)),
            method: self.method.clone().unwrap_or_default(),
            headers: headers.collect(),
            query: Vec::new(),
        }
    }
}

fn check_text(kind: Option<&str>, types: &[(&str, Type)], value: &str, faults: &mut Faults, at: &Path) {
    if let Some(other) = kind.filter(|kind| !types.iter().any(|(name, _)| name == kind)) {
        let known: Vec<String> = types.iter().map(|(name, _)| format!("{name:?}")).collect();
        faults.add(&at.field("type"), format!("must be one of {}, is {other:?}", known.join(", ")));
    }
    if value.len() > 1024 {
        let message = format!("must have at most 1024 characters, has {}", value.len());
        faults.add(&at.field("value"), message);
    }
    if kind == Some("RegularExpression")
        && let Err(error) = whole(value)
    {
        // The library draws the place over several lines; its last line says what is wrong.
        let text = error.to_string();
        let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
        faults.add(&at.field("value"), format!("is not a regular expression: {reason}"));
    }
}

/// Notes what is wrong with a list of matches.
pub(super) fn check_matches(matches: Option<&Vec<RequestMatch>>, faults: &mut Faults, at: &Path) {
    let matches = matches.map(Vec::as_slice).unwrap_or_default();
    faults.check_length(at, matches.len(), 16);
    for (index, one) in matches.iter().enumerate() {
        one.check(faults, &at.index(index));
    }
}

/// As sidecars are told.
pub(super) fn matches_to_wire(matches: Option<&Vec<RequestMatch>>) -> Vec<wire::RouteMatch> {
    matches.into_iter().flatten().map(RequestMatch::to_wire).collect()
}

impl Client {
    pub(super) fn check(&self, faults: &mut Faults, at: &Path) {
        if self.namespace.is_none() && self.service_account.is_none() {
            faults.add(at, "must name a serviceAccount, a namespace, or both");
        }
        let fields = [("namespace", &self.namespace), ("serviceAccount", &self.service_account)];
        for (field, name) in fields {
            if let Some(Err(message)) = name.as_deref().map(metadata::dns_label) {
                faults.add(&at.field(field), message);
            }
        }
    }

    /// As sidecars are told; `own` is the policy's namespace.
    pub(super) fn to_wire(&self, own: &str) -> wire::Client {
        wire::Client {
            namespace: self.namespace.as_deref().unwrap_or(own).to_owned(),
            service_account: self.service_account.clone().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_of_a_match_is_told() {
        let wrong = RequestMatch {
            path: Some(PathMatch { r#type: Some("Prefix".into()), value: "x".into() }),
            method: Some("G T".into()),
            headers: Some(vec![
                HeaderMatch { r#type: None, name: "a b".into(), value: String::new() },
                HeaderMatch { r#type: Some("RegularExpression".into()), name: "x".into(), value: "(".into() },
                HeaderMatch { r#type: Some("PathPrefix".into()), name: "X".into(), value: String::new() },
            ]),
        };
        let mut faults = Faults::default();
        check_matches(Some(&vec![wrong]), &mut faults, &Path::root().field("m"));
        Client::default().check(&mut faults, &Path::root().field("c"));
        let fields: Vec<String> = faults.into_vec().into_iter().map(|fault| fault.field).collect();
        let expected = [
            "m[0].path.type",
            "m[0].path.value",
            "m[0].method",
            "m[0].headers[0].name",
            "m[0].headers[1].value",
            "m[0].headers[2].name",
            "m[0].headers[2].type",
            "c",
        ];
        assert_eq!(fields, expected);
    }
}
