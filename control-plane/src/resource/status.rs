//! What the server says of a document in its `status`: whether it is in use, and if not why not.
//!
//! It follows from the documents alone, so it is worked out when it is asked for and never stored: it cannot be stale.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Document, Documents, Key, Kind, references};

/// The Gateway API asks each controller to name itself.
pub const CONTROLLER: &str = "pillion.dev/control-plane";

/// All documents with what follows from them for each, worked out once for as many as are shown.
pub struct Shown<'documents> {
    documents: &'documents Documents,
    policies: BTreeMap<Key, references::Policy<'documents>>,
}

impl<'documents> Shown<'documents> {
    /// Works out what is shared.
    pub fn new(documents: &'documents Documents) -> Self {
        Self { documents, policies: references::policies(documents).0 }
    }

    /// A document as it is shown: with its `status`.
    pub fn document(&self, document: &Document) -> Value {
        let mut value = document.to_value();
        if let Some(status) = self.status(document) {
            value.as_object_mut().expect("a document is an object").insert("status".into(), status);
        }
        value
    }

    fn status(&self, document: &Document) -> Option<Value> {
        let generation = document.metadata().generation;
        let missing = references::missing(document, self.documents);
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
                let ancestors: Value = policy
                    .spec
                    .target_refs
                    .iter()
                    .enumerate()
                    .map(|(index, target)| {
                        let service = Key::new(Kind::Service, own.namespace.as_str(), target.name.as_str());
                        let missing = fault_at(&format!("spec.targetRefs[{index}]."));
                        let (bad, why_not) = match (missing, self.policies.get(&service)) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{admit, text};

    #[test]
    fn a_policy_says_for_each_service_whether_it_is_used() {
        let text = "
{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {ports: [{port: 80}]}}
---
{apiVersion: pillion.dev/v1alpha1, kind: TrafficPolicy, metadata: {name: a}, spec: {targetRefs: [
  {group: '', kind: Service, name: web}, {group: '', kind: Service, name: gone}]}}
---
{apiVersion: pillion.dev/v1alpha1, kind: TrafficPolicy, metadata: {name: b}, spec: {targetRefs: [
  {group: '', kind: Service, name: web}]}}
";
        let mut documents = Documents::default();
        for (index, written) in text::read(text, text::Format::Yaml).unwrap().iter().enumerate() {
            documents.insert(admit::admit(index, written, None).unwrap());
        }
        let shown = Shown::new(&documents);
        let reasons = |name: &str| -> Vec<Value> {
            let policy = documents.get(&Key::new(Kind::TrafficPolicy, "default", name)).unwrap();
            let status = &shown.document(policy)["status"];
            let ancestors = status["ancestors"].as_array().unwrap();
            ancestors.iter().map(|it| it["conditions"][0]["reason"].clone()).collect()
        };
        assert_eq!(reasons("a"), ["Accepted", "TargetNotFound"]);
        assert_eq!(reasons("b"), ["Conflicted"]);
    }
}
