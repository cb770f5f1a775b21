//! What is wrong with a document, said so that its author can put it right.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One thing that is wrong with what somebody wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// Where in the document, such as `spec.rules[0].backendRefs[1].weight`; empty: the document as a whole.
    pub field: String,
    /// What is wrong, in words that follow the field: "must be between 0 and 1000000, is -1".
    pub message: String,
    /// Which document: `<Kind> <namespace>/<name>` as far as it could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<String>,
    /// Which document of the request, counted from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
    /// Line of the text, counted from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// Column of that line, counted from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u64>,
}

impl Fault {
    /// A fault of one field; which document it is in is added by who knows it.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into(), ..Self::default() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(document) = &self.document {
            write!(formatter, "{document}: ")?;
        }
        if !self.field.is_empty() {
            write!(formatter, "{}: ", self.field)?;
        }
        formatter.write_str(&self.message)
    }
}

/// True where the field `inner` is `outer` or in it.
pub(super) fn covers(outer: &str, inner: &str) -> bool {
    inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// The way to a field, written as people write it: `spec.rules[0].filters`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(String);

impl Path {
    /// The document itself.
    pub fn root() -> Self {
        Self::default()
    }

    /// A member of an object. A name that holds other than letters, digits, `-` and `_` is quoted:
    /// `metadata.labels["example.com/team"]`.
    #[must_use]
    pub fn field(&self, name: &str) -> Self {
        let plain = !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'$'));
        Self(match (plain, self.0.is_empty()) {
            (true, true) => name.to_owned(),
            (true, false) => format!("{}.{name}", self.0),
            (false, _) => format!("{}[{name:?}]", self.0),
        })
    }

    /// An item of a list, counted from 0.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// The path's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Path> for String {
    fn from(path: Path) -> Self {
        path.0
    }
}

/// Collects faults, so that all of them are reported.
#[derive(Debug, Default)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// Notes one.
    pub fn add(&mut self, at: &Path, message: impl Into<String>) {
        self.0.push(Fault::new(at.as_str(), message));
    }

    /// Says that a number is outside its range.
    pub fn check_range(&mut self, at: &Path, value: i64, minimum: i64, maximum: i64) {
        if !(minimum..=maximum).contains(&value) {
            self.add(at, format!("must be between {minimum} and {maximum}, is {value}"));
        }
    }

    /// Says that a list is too long.
    pub fn check_length(&mut self, at: &Path, length: usize, maximum: usize) {
        if length > maximum {
            self.add(at, format!("must have at most {maximum} items, has {length}"));
        }
    }

    /// Says that a field of the format is known but does nothing here.
    pub fn unsupported(&mut self, at: &Path) {
        self.add(at, "is not supported yet");
    }

    /// What was noted, in that order.
    pub fn into_vec(self) -> Vec<Fault> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_as_people_write_it() {
        let path = Path::root().field("spec").field("rules").index(0).field("backendRefs").index(1);
        assert_eq!(path.as_str(), "spec.rules[0].backendRefs[1]");
        let label = Path::root().field("metadata").field("labels").field("example.com/team");
        assert_eq!(label.as_str(), r#"metadata.labels["example.com/team"]"#);
        assert_eq!(Path::root().index(2).field("kind").as_str(), "[2].kind");
    }

    #[test]
    fn a_fault_names_document_and_field() {
        let mut fault = Fault::new("spec.ports", "is required");
        assert_eq!(fault.to_string(), "spec.ports: is required");
        fault.document = Some("Service demo/web".into());
        assert_eq!(fault.to_string(), "Service demo/web: spec.ports: is required");
    }
}
