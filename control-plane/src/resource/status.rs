//! What the server says of a document in its `status`: whether it is in use, and if not why not.
//!
//! It follows from the documents alone, so it is worked out when it is asked for and never stored: it cannot be stale.

use serde_json::{Value, json};

use super::{Document, Documents, Key, Kind, references};

/// The Gateway API asks each controller to name itself.
pub const CONTROLLER: &str = "pillion.dev/control-plane";

/// A document as it is shown: with its `status`.
pub fn with_status(document: &Document, documents: &Documents) -> Value {
    let mut value = document.to_value();
    if let Some(status) = status(document, documents) {
        value.as_object_mut().expect("a document is an object").insert("status".into(), status);
    }
    value
}

fn status(document: &Document, documents: &Documents) -> Option<Value> {
    let generation = document.metadata().generation;
    let missing = references::missing(document, documents);
    let fault_at = |prefix: &str| {
        let found: Vec<String> = missing
            .iter()
            .filter(|fault| fault.field.starts_with(prefix))
            .map(|fault| format!("{}: {}", fault.field, fault.message))
            .collect();
        (!found.is_empty()).then(|| found.join("; "))
    };
    match document {
        Document::Service(_) => None,
        Document::HttpRoute(route) => {
            let unresolved = fault_at("spec.rules");
            let parents: Value = route
                .spec
                .parent_refs
                .iter()
                .flatten()
                .enumerate()
                .map(|(index, parent)| {
                    let accepted = fault_at(&format!("spec.parentRefs[{index}]."));
                    json!({
                        "parentRef": parent,
                        "controllerName": CONTROLLER,
                        "conditions": [
                            condition("Accepted", "Accepted", "NoMatchingParent", accepted, generation),
                            condition("ResolvedRefs", "ResolvedRefs", "BackendNotFound", unresolved.clone(), generation),
                        ],
                    })
                })
                .collect();
            Some(json!({ "parents": parents }))
        }
        Document::TrafficPolicy(policy) => {
            let own = document.key();
            let (chosen, _) = references::policies(documents);
            let ancestors: Value = policy
                .spec
                .target_refs
                .iter()
                .enumerate()
                .map(|(index, target)| {
                    let service = Key::new(Kind::Service, own.namespace.as_str(), target.name.as_str());
                    let missing = fault_at(&format!("spec.targetRefs[{index}]."));
                    let (bad, why_not) = match (missing, chosen.get(&service)) {
                        (Some(missing), _) => ("TargetNotFound", Some(missing)),
                        (None, Some((holder, _))) if **holder != own => {
                            ("Conflicted", Some(format!("{holder} is for the same Service and older")))
                        }
                        _ => ("Accepted", None),
                    };
                    json!({
                        "ancestorRef": target,
                        "controllerName": CONTROLLER,
                        "conditions": [condition("Accepted", "Accepted", bad, why_not, generation)],
                    })
                })
                .collect();
            Some(json!({ "ancestors": ancestors }))
        }
    }
}

fn condition(kind: &str, good: &str, bad: &str, why_not: Option<String>, generation: u64) -> Value {
    let (status, reason) = if why_not.is_none() { ("True", good) } else { ("False", bad) };
    json!({
        "type": kind,
        "status": status,
        "reason": reason,
        "message": why_not.unwrap_or_default(),
        "observedGeneration": generation,
    })
}
