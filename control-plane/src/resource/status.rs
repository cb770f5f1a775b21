//! What the server says of a document in its `status`: whether it is in use, and if not why not.
//!
//! It follows from the documents and from what sidecars say of them now, so it is worked out when it is asked for and
//! never stored: it cannot be stale.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    Document, Documents, Key,
    attachments::{self, Attachments},
    references, route,
};

/// The Gateway API asks each controller to name itself.
pub const CONTROLLER: &str = "pillion.dev/control-plane";

/// Whether sidecars can use what documents became. Of our own, so with our name before it.
const USABLE: &str = "pillion.dev/Usable";

/// Services whose configuration sidecars refuse now (`<name>.<namespace>`), and why, for people.
pub type Refused = BTreeMap<String, String>;

/// All documents with what follows from them for each, worked out once for as many as are shown.
pub struct Shown<'documents> {
    documents: &'documents Documents,
    policies: BTreeMap<Key, references::Policy<'documents>>,
    attachments: Attachments,
    refused: Refused,
}

impl<'documents> Shown<'documents> {
    /// Works out what is shared.
    pub fn new(documents: &'documents Documents, refused: Refused) -> Self {
        let policies = references::policies(documents).0;
        Self { documents, policies, attachments: attachments::attachments(documents), refused }
    }

    /// A document as it is shown: with its `status`.
    pub fn document(&self, document: &Document) -> Value {
        let mut value = document.to_value();
        let status = self.status(document);
        value.as_object_mut().expect("a document is an object").insert("status".into(), status);
        value
    }

    /// A service's configuration is made of all documents that are for it, so each of them says what became of it.
    fn usable(&self, service: &Key, generation: u64) -> Value {
        let why_not = self.refused.get(&service.to_wire()).map(|why| format!("{service}: {why}"));
        condition(USABLE, "NotRefused", "RefusedBySidecars", why_not, generation)
    }

    fn status(&self, document: &Document) -> Value {
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
        let own = document.key();
        match document {
            Document::MeshConfig(config) => {
                let addresses =
                    self.documents.iter().filter(|(_, it)| it.virtual_address().is_some()).count();
                json!({
                    "inForce": config.spec.in_force(),
                    "assignedAddresses": addresses,
                    "freeAddresses": (config.spec.service_cidr().capacity() as usize).saturating_sub(addresses),
                })
            }
            Document::Service(_) | Document::ExternalService(_) => {
                json!({ "conditions": [self.usable(&own, generation)] })
            }
            Document::HttpRoute(_) | Document::GrpcRoute(_) => {
                let spec = route::of(document).expect("it is a route");
                let unresolved = fault_at("spec.rules");
                let parents = spec.parent_refs.iter().flatten().enumerate();
                let parents: Value = parents
                    .map(|(index, parent)| {
                        let attached = self.attachments.get(&(own.clone(), index));
                        let bad = attached.and_then(|attached| attached.as_ref().err());
                        let (reason, why_not) =
                            bad.map_or(("", None), |bad| (bad.reason, Some(bad.message.clone())));
                        let service = attachments::parent(&own, parent);
                        json!({
                            "parentRef": parent,
                            "controllerName": CONTROLLER,
                            "conditions": [
                                condition("Accepted", "Accepted", reason, why_not, generation),
                                condition("ResolvedRefs", "ResolvedRefs", "BackendNotFound", unresolved.clone(), generation),
                                self.usable(&service, generation),
                            ],
                        })
                    })
                    .collect();
                json!({ "parents": parents })
            }
            Document::TrafficPolicy(policy) => {
                let ancestors: Value = policy
                    .spec
                    .target_refs
                    .iter()
                    .enumerate()
                    .map(|(index, target)| {
                        let service = target.key(&own.namespace);
                        let missing = fault_at(&format!("spec.targetRefs[{index}]."));
                        let (bad, why_not) = match (missing, self.policies.get(&service)) {
                            (Some(missing), _) => ("TargetNotFound", Some(missing)),
                            (None, Some((holder, _))) if **holder != own => {
                                let why = format!("{holder} is for the same {} and older", service.kind);
                                ("Conflicted", Some(why))
                            }
                            _ => ("Accepted", None),
                        };
                        let mut conditions = Vec::new();
                        if why_not.is_none() {
                            conditions.push(self.usable(&service, generation));
                        }
                        conditions.insert(0, condition("Accepted", "Accepted", bad, why_not, generation));
                        json!({ "ancestorRef": target, "controllerName": CONTROLLER, "conditions": conditions })
                    })
                    .collect();
                json!({ "ancestors": ancestors })
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
    use crate::resource::{Kind, admit, text};

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
        let refused = [("web.default".to_owned(), "web-1 refuses it".to_owned())];
        let shown = Shown::new(&documents, refused.into());
        let reasons = |name: &str| -> Vec<Value> {
            let policy = documents.get(&Key::new(Kind::TrafficPolicy, "default", name)).unwrap();
            let status = &shown.document(policy)["status"];
            let ancestors = status["ancestors"].as_array().unwrap();
            ancestors.iter().map(|it| it["conditions"][0]["reason"].clone()).collect()
        };
        assert_eq!(reasons("a"), ["Accepted", "TargetNotFound"]);
        assert_eq!(reasons("b"), ["Conflicted"]);

        let status = |kind, name: &str| {
            let document = documents.get(&Key::new(kind, "default", name)).unwrap();
            shown.document(document)["status"].clone()
        };
        let expected = json!("Service default/web: web-1 refuses it");
        let service = &status(Kind::Service, "web")["conditions"][0];
        assert_eq!((&service["status"], &service["message"]), (&json!("False"), &expected));
        let used = &status(Kind::TrafficPolicy, "a")["ancestors"][0]["conditions"][1];
        assert_eq!((&used["reason"], &used["message"]), (&json!("RefusedBySidecars"), &expected));
        let unused = &status(Kind::TrafficPolicy, "b")["ancestors"][0]["conditions"];
        assert_eq!(unused.as_array().unwrap().len(), 1, "what is not used cannot be to blame");
    }
}
