//! What the server says of a document in its `status`: whether it is in use, and if not why not.
//!
//! It follows from the documents and from what sidecars say of them now, so it is worked out when it is asked for and
//! never stored: it cannot be stale.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::{
    Document, Documents, Metadata, route,
    standing::{Condition, FromSidecars, Standing},
    transitions::Transitions,
};

/// The Gateway API asks each controller to name itself.
pub const CONTROLLER: &str = "pillion.dev/control-plane";

/// All documents with what follows from them for each, worked out once for as many as are shown.
pub struct Shown<'documents> {
    documents: &'documents Documents,
    standing: Standing<'documents>,
    transitions: &'documents Transitions,
    /// RFC 3339.
    now: String,
}

impl<'documents> Shown<'documents> {
    /// Works out what is shared.
    pub fn new(
        documents: &'documents Documents,
        sidecars: FromSidecars,
        transitions: &'documents Transitions,
        now: SystemTime,
    ) -> Self {
        transitions.keep(documents);
        Self {
            documents,
            standing: Standing::new(documents, sidecars, now),
            transitions,
            now: humantime::format_rfc3339_seconds(now).to_string(),
        }
    }

    /// A document as it is shown: with its `status`.
    pub fn document(&self, document: &Document) -> Value {
        let mut value = document.to_value();
        let status = self.status(document);
        value.as_object_mut().expect("a document is an object").insert("status".into(), status);
        value
    }

    fn status(&self, document: &Document) -> Value {
        let mut conditions = self.standing.conditions(document).into_iter().enumerate();
        let mut next = || {
            let (index, conditions) = conditions.next().expect("there are conditions for each place");
            conditions.into_iter().map(|it| self.condition(document, index, it)).collect::<Value>()
        };
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
            Document::Service(_) | Document::ExternalService(_) => json!({ "conditions": next() }),
            Document::HttpRoute(_) | Document::GrpcRoute(_) => {
                let spec = route::of(document).expect("it is a route");
                let of = |parent| json!({ "parentRef": parent, "controllerName": CONTROLLER, "conditions": next() });
                json!({ "parents": spec.parent_refs.iter().flatten().map(of).collect::<Value>() })
            }
            Document::TrafficPolicy(policy) => {
                let of = |target| json!({ "ancestorRef": target, "controllerName": CONTROLLER, "conditions": next() });
                json!({ "ancestors": policy.spec.target_refs.iter().map(of).collect::<Value>() })
            }
        }
    }

    fn condition(&self, document: &Document, index: usize, condition: Condition) -> Value {
        let Condition { kind, holds, reason, message, .. } = condition;
        let Metadata { uid, creation_timestamp: created, generation, .. } = document.metadata();
        let since = self.transitions.since((document.key(), index, kind), uid, holds, created, &self.now);
        json!({
            "type": kind,
            "status": if holds { "True" } else { "False" },
            "reason": reason,
            "message": message,
            "observedGeneration": generation,
            "lastTransitionTime": since,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{Fault, Key, Kind, admit, references, text};

    #[test]
    fn a_fallback_that_is_not_there_is_told_and_one_that_is_there_is_used() {
        let policy = |name: &str, fallback: &str| {
            format!(
                "---\n{{apiVersion: pillion.dev/v1alpha1, kind: TrafficPolicy, metadata: {{name: {name}}}, spec: {{targetRefs: \
                 [{{group: '', kind: Service, name: {name}}}], fallback: {{backendRef: {fallback}}}}}}}\n"
            )
        };
        let service = |name: &str| {
            format!(
                "---\n{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {{ports: [{{port: 80}}]}}}}\n"
            )
        };
        let text = ["good", "typo", "port", "outside", "spare"].map(service).concat()
            + "---\n{apiVersion: pillion.dev/v1alpha1, kind: ExternalService, metadata: {name: rates}, spec: {host: \
               rates.example, ports: [{port: 80}]}}\n"
            + &policy("good", "{name: spare, port: 80}")
            + &policy("typo", "{name: spar, port: 80}")
            + &policy("port", "{name: spare, port: 99}")
            + &policy("outside", "{name: rates, port: 80}");
        let mut documents = Documents::default();
        for (index, written) in text::read(&text, text::Format::Yaml).unwrap().iter().enumerate() {
            documents.insert(admit::admit(index, written, None).unwrap());
        }
        let transitions = Transitions::default();
        let shown = Shown::new(&documents, FromSidecars::default(), &transitions, SystemTime::UNIX_EPOCH);
        for (name, fault) in [
            ("good", ""),
            ("typo", "name: there is no Service \"spar\" in namespace \"default\""),
            ("port", "port: Service default/spare has no port 99; it has 80"),
            (
                "outside",
                "name: there is no Service \"rates\" in namespace \"default\"; \"rates\" is an ExternalService",
            ),
        ] {
            let policy = documents.get(&Key::new(Kind::TrafficPolicy, "default", name)).unwrap();
            let faults = references::missing(policy, &documents);
            let told = |fault: &Fault| format!("{}: {}", fault.field, fault.message);
            let expected =
                if fault.is_empty() { String::new() } else { format!("{}.{fault}", references::FALLBACK) };
            assert_eq!(faults.iter().map(told).collect::<Vec<_>>().join("; "), expected, "{name}");
            let conditions = &shown.document(policy)["status"]["ancestors"][0]["conditions"];
            let told =
                |index: usize, field: &str| conditions[index][field].as_str().unwrap_or_default().to_owned();
            assert_eq!((told(0, "type"), told(0, "status")), ("Accepted".into(), "True".into()), "{name}");
            assert_eq!((told(1, "type"), told(1, "message")), ("ResolvedRefs".into(), expected), "{name}");
        }
        let users = references::users(&Key::new(Kind::Service, "default", "spare"), &documents);
        let users: Vec<&str> = users.iter().map(|key| key.name.as_str()).collect();
        assert_eq!(users, ["good", "port"], "it cannot be deleted from under them");
    }

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
        let refused = [("web.default".to_owned(), "web-1 refuses it".to_owned())].into();
        let sidecars = FromSidecars { refused, ..FromSidecars::default() };
        let transitions = Transitions::default();
        let shown = Shown::new(&documents, sidecars, &transitions, SystemTime::UNIX_EPOCH);
        let conditions = |name: &str| -> Value {
            let policy = documents.get(&Key::new(Kind::TrafficPolicy, "default", name)).unwrap();
            shown.document(policy)["status"]["ancestors"][0]["conditions"].clone()
        };
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
        assert_eq!(
            conditions("b")[0]["message"],
            "TrafficPolicy default/a is for the same Service and as old, and first in the alphabet"
        );

        let expected = json!("Service default/web: web-1 refuses it");
        let service = &status(Kind::Service, "web")["conditions"][0];
        assert!(service["lastTransitionTime"].is_string(), "metav1.Condition requires it: {service}");
        assert_eq!((&service["status"], &service["message"]), (&json!("False"), &expected));
        let used = &status(Kind::TrafficPolicy, "a")["ancestors"][0]["conditions"][1];
        assert_eq!((&used["reason"], &used["message"]), (&json!("RefusedBySidecars"), &expected));
        let unused = &status(Kind::TrafficPolicy, "b")["ancestors"][0]["conditions"];
        assert_eq!(unused.as_array().unwrap().len(), 1, "what is not used cannot be to blame");
    }
}
