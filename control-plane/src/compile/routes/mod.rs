//! `HTTPRoute`s and `GRPCRoute`s into one list per parent service, sorted by the Gateway API's precedence.
//!
//! The first rule that fits is taken by sidecars, so the order written here is the decision: consumers' rules, then
//! what [`matches`] ranks, the oldest route, its name, its rules in their order.

use std::collections::BTreeMap;

use pillion_api::wire;

use self::matches::Rank;
use crate::resource::{
    Document, Documents, Fault, Key, Kind,
    attachments::{Attached, attachments},
    route,
};

mod matches;
mod rules;

/// What decides between two matches; the smaller goes first.
type Precedence = (bool, Rank, String, String, usize, usize);

/// Every parent's rules, in the order in which sidecars try them.
pub(super) fn by_parent(
    documents: &Documents,
    faults: &mut Vec<Fault>,
) -> BTreeMap<Key, Vec<wire::RouteRule>> {
    let mut unsorted: BTreeMap<Key, Vec<(Precedence, wire::RouteRule)>> = BTreeMap::new();
    let mut compiled: Option<(Key, Vec<(Precedence, wire::RouteRule)>)> = None;
    for ((key, index), attached) in attachments(documents) {
        if compiled.as_ref().is_none_or(|(of, _)| *of != key) {
            let document = documents.get(&key).expect("a route that is attached is there");
            compiled = Some((key.clone(), compile(&key, document)));
        }
        let (_, rules) = compiled.as_ref().expect("compiled above");
        let why_not = match attached {
            Ok(attached) => {
                attach(&mut unsorted, rules, &attached);
                attached.lost
            }
            Err(unattached) => Some(format!("is not used: {}", unattached.message)),
        };
        faults.extend(why_not.map(|why_not| Fault {
            document: Some(key.to_string()),
            ..Fault::new(format!("spec.parentRefs[{index}]"), why_not)
        }));
    }
    let sorted = unsorted.into_iter().map(|(service, mut rules)| {
        rules.sort_by(|(one, _), (other, _)| one.cmp(other));
        (service, rules.into_iter().map(|(_, rule)| rule).collect())
    });
    sorted.collect()
}

/// Adds a route's rules to those of a parent, once for each port that it is for.
fn attach(
    unsorted: &mut BTreeMap<Key, Vec<(Precedence, wire::RouteRule)>>,
    rules: &[(Precedence, wire::RouteRule)],
    attached: &Attached,
) {
    let ports: Vec<u32> = match &attached.ports {
        None => vec![0],
        Some(ports) => ports.iter().map(|port| u32::from(*port)).collect(),
    };
    let consumer = attached.consumer_namespace.clone();
    let of_service = unsorted.entry(attached.service.clone()).or_default();
    for port in ports {
        of_service.extend(rules.iter().cloned().map(|(mut precedence, mut rule)| {
            precedence.0 = consumer.is_none();
            rule.parent_port = port;
            rule.consumer_namespace = consumer.clone().unwrap_or_default();
            (precedence, rule)
        }));
    }
}

/// Each match of each rule of a route, for a parent yet to be filled in.
fn compile(key: &Key, document: &Document) -> Vec<(Precedence, wire::RouteRule)> {
    let spec = route::of(document).expect("it is a route");
    let created = &document.metadata().creation_timestamp;
    let mut compiled = Vec::new();
    for (rule_index, rule) in spec.rules.iter().flatten().enumerate() {
        let mut shared = rules::without_match(key, rule_index, rule);
        shared.grpc = key.kind == Kind::GrpcRoute;
        for (match_index, (rank, one)) in matches::of(document, rule_index).into_iter().enumerate() {
            let (created, name) = (created.clone(), shared.route.clone());
            let precedence = (true, rank, created, name, rule_index, match_index);
            compiled.push((precedence, wire::RouteRule { r#match: Some(one), ..shared.clone() }));
        }
    }
    compiled
}
