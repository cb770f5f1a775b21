//! What every document has besides its spec: names, labels, and what the server notes about it.

use std::collections::BTreeMap;

use pillion_api::name;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fault::{Faults, Path};

/// The namespace of a document that names none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// The part of Kubernetes' `ObjectMeta` that a mesh needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// Unique among documents of this kind in the namespace.
    pub name: String,
    /// `default` where none is given.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// For people and selectors.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// For people and tools; means nothing to the mesh.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Written by the server: unique for the life of this document.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Written by the server: RFC 3339, UTC.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub creation_timestamp: String,
    /// Written by the server: counts changes of `spec`, from 1.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub generation: u64,
    /// Written by the server; sent back, it makes a change conditional on this being the latest.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Metadata {
    /// Notes what is wrong with names and labels.
    pub(super) fn check(&self, faults: &mut Faults, name_rule: fn(&str) -> Result<(), String>) {
        let at = Path::root().field("metadata");
        if let Err(message) = name_rule(&self.name) {
            faults.add(&at.field("name"), message);
        }
        if let Err(message) = dns_label(&self.namespace) {
            faults.add(&at.field("namespace"), message);
        }
        for (key, value) in &self.labels {
            check_label(faults, &at.field("labels").field(key), key, value);
        }
        for key in self.annotations.keys() {
            if let Err(message) = label_key(key) {
                faults.add(&at.field("annotations").field(key), message);
            }
        }
        if !self.resource_version.is_empty() && self.resource_version.parse::<u64>().is_err() {
            faults.add(&at.field("resourceVersion"), "must be as the server gave it, a whole number");
        }
    }
}

/// Notes what is wrong with one label, or one requirement of a selector.
pub(super) fn check_label(faults: &mut Faults, at: &Path, key: &str, value: &str) {
    if let Err(message) = label_key(key) {
        faults.add(at, message);
    }
    if let Err(message) = label_value(value) {
        faults.add(at, message);
    }
}

/// RFC 1123 label: what Kubernetes asks of namespaces and of what becomes one part of a host name.
pub fn dns_label(text: &str) -> Result<(), String> {
    if !name::is_label(text) {
        return Err(format!(
            "must be 1 to 63 lower-case letters, digits or \"-\", with no \"-\" at either end, is {text:?}"
        ));
    }
    Ok(())
}

/// RFC 1035 label, as Kubernetes asks of a Service: as [`dns_label`], and it begins with a letter.
pub fn service_name(text: &str) -> Result<(), String> {
    dns_label(text)?;
    if !text.starts_with(|first: char| first.is_ascii_lowercase()) {
        return Err(format!("must begin with a letter, is {text:?}"));
    }
    Ok(())
}

/// RFC 1123 subdomain: what Kubernetes asks of most names.
pub fn dns_subdomain(text: &str) -> Result<(), String> {
    if !name::is_host(text) {
        return Err(format!(
            "must be lower-case letters, digits, \"-\" or \".\", each part with a letter or digit at both ends, at most 253 \
             characters, is {text:?}"
        ));
    }
    Ok(())
}

/// What Kubernetes asks of a label's key.
pub(crate) fn label_key(key: &str) -> Result<(), String> {
    if !name::is_label_key(key) {
        return Err(format!(
            "the key must be up to 63 letters, digits, \"-\", \"_\" or \".\", after an optional DNS name and \"/\", is {key:?}"
        ));
    }
    Ok(())
}

/// What Kubernetes asks of a label's value.
pub(crate) fn label_value(value: &str) -> Result<(), String> {
    if !name::is_label_value(value) {
        return Err(format!(
            "the value must be up to 63 letters, digits, \"-\", \"_\" or \".\", with a letter or digit at both ends, is {value:?}"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_rfc_1123() {
        for good in ["a", "web-1", "1web", &"a".repeat(63)] {
            assert_eq!(dns_label(good), Ok(()), "{good}");
        }
        for bad in ["", "Web", "web_1", "-web", "web-", "web.demo", "wéb", &"a".repeat(64)] {
            assert!(dns_label(bad).is_err(), "{bad}");
        }
        assert!(service_name("1web").is_err());
        assert_eq!(dns_subdomain("a.b-c.d"), Ok(()));
        for bad in ["a..b", ".a", "a.", "A.b", &"a.".repeat(127).repeat(2)] {
            assert!(dns_subdomain(bad).is_err(), "{bad}");
        }
    }
}
