//! YAML or JSON into values that remember their lines, and values as YAML.
//!
//! Both go through one reader (JSON is YAML too), so that duplicate keys and the bounds on size, depth and aliases are
//! the same; what calls itself JSON must be JSON besides.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};
use serde_saphyr::{DuplicateKeyPolicy, MessageFormatter as _, Spanned, UserMessageFormatter};

use super::fault::{Fault, Path};

/// How a text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One or more documents, separated by `---`.
    Yaml,
    /// One document, or a list of them.
    Json,
}

/// One document as it was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// What it says. Members that are null are left out, as Kubernetes does.
    pub value: Value,
    positions: BTreeMap<String, (u64, u64)>,
}

impl Written {
    /// A document that comes from no text.
    pub fn from_value(value: Value) -> Self {
        Self { value, positions: BTreeMap::new() }
    }

    /// Line and column, from 1, of a field, or of the nearest thing around it that is written.
    pub fn position(&self, field: &str) -> Option<(u64, u64)> {
        let mut field = field;
        loop {
            if let Some(position) = self.positions.get(field) {
                return Some(*position);
            }
            if field.is_empty() {
                return None;
            }
            field = &field[..field.rfind(['.', '[']).unwrap_or(0)];
        }
    }
}

/// Reads every document of a text; a Kubernetes `List`, or a JSON array, is the documents in it.
///
/// # Errors
/// Where and why it is neither YAML nor JSON, or which bound it breaks. Nothing can be said of the documents then.
pub fn read(text: &str, format: Format) -> Result<Vec<Written>, Fault> {
    if format == Format::Json
        && let Err(error) = serde_json::from_str::<IgnoredAny>(text)
    {
        let mut message = error.to_string();
        // The position is told apart from the message.
        message.truncate(message.find(" at line ").unwrap_or(message.len()));
        let (line, column) = (error.line() as u64, error.column() as u64);
        return Err(syntax_fault("JSON", &message, Some((line, column))));
    }
    let documents: Vec<Spanned<Node>> =
        serde_saphyr::from_multiple_with_options(text, options()).map_err(|error| {
            let error = error.without_snippet();
            let position = error.location().map(|location| (location.line(), location.column()));
            syntax_fault("YAML", &UserMessageFormatter.format_message(error), position)
        })?;
    Ok(documents.into_iter().flat_map(documents_of).map(written).collect())
}

/// A value as YAML. What cannot be written as such is written as JSON, which is YAML, too.
pub fn to_yaml(value: &Value) -> String {
    serde_saphyr::to_string(value).unwrap_or_else(|_| format!("{value:#}\n"))
}

fn syntax_fault(format: &str, message: &str, position: Option<(u64, u64)>) -> Fault {
    let (line, column) = position.unzip();
    Fault { line, column, ..Fault::new("", format!("is not {format}: {message}")) }
}

fn options() -> serde_saphyr::Options {
    let mut budget = serde_saphyr::Budget::default();
    budget.max_depth = 64;
    budget.max_nodes = 250_000;
    budget.max_events = 1_000_000;
    budget.max_documents = 10_000;
    budget.max_aliases = 1_000;
    budget.max_anchors = 1_000;
    let mut options = serde_saphyr::Options::default();
    options.budget = Some(budget);
    options.duplicate_keys = DuplicateKeyPolicy::Error;
    options.strict_booleans = true;
    options.alias_limits.max_total_replayed_events = 100_000;
    options.alias_limits.max_replay_stack_depth = 16;
    options.with_snippet = false;
    options
}

/// One value as the reader gives it.
#[derive(Clone, Debug)]
enum Node {
    Scalar(Value),
    List(Vec<Spanned<Node>>),
    Object(Vec<(String, Spanned<Node>)>),
}

fn documents_of(node: Spanned<Node>) -> Vec<Spanned<Node>> {
    match node.value {
        Node::List(items) => items,
        Node::Object(members) if is_list(&members) => members
            .into_iter()
            .find_map(|(name, member)| match member.value {
                Node::List(items) if name == "items" => Some(items),
                _ => None,
            })
            .unwrap_or_default(),
        _ => vec![node],
    }
}

fn is_list(members: &[(String, Spanned<Node>)]) -> bool {
    let text = |wanted: &str| {
        members.iter().find(|(name, _)| name == wanted).and_then(|(_, member)| match &member.value {
            Node::Scalar(value) => value.as_str(),
            _ => None,
        })
    };
    text("kind") == Some("List")
        && members.iter().any(|(name, member)| name == "items" && matches!(member.value, Node::List(_)))
}

fn written(node: Spanned<Node>) -> Written {
    let mut positions = BTreeMap::new();
    let value = value(node, &Path::root(), &mut positions);
    Written { value, positions }
}

fn value(node: Spanned<Node>, at: &Path, positions: &mut BTreeMap<String, (u64, u64)>) -> Value {
    let (line, column) = (node.referenced.line(), node.referenced.column());
    if line > 0 {
        positions.insert(at.as_str().to_owned(), (line, column));
    }
    match node.value {
        Node::Scalar(scalar) => scalar,
        Node::List(items) => items
            .into_iter()
            .enumerate()
            .map(|(index, item)| value(item, &at.index(index), positions))
            .collect(),
        Node::Object(members) => Value::Object(
            members
                .into_iter()
                .filter(|(_, member)| !matches!(member.value, Node::Scalar(Value::Null)))
                .map(|(name, member)| {
                    let inner = value(member, &at.field(&name), positions);
                    (name, inner)
                })
                .collect::<Map<_, _>>(),
        ),
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Node, E> {
        /// Up to here every whole number has its own f64.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^53")]
        if value.fract() == 0.0 && value.abs() <= EXACT {
            return Ok(Node::Scalar((value as i64).into()));
        }
        Number::from_f64(value)
            .map(|number| Node::Scalar(number.into()))
            .ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Node, A::Error> {
        let mut object = Vec::new();
        while let Some(member) = members.next_entry()? {
            object.push(member);
        }
        Ok(Node::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn yaml_documents_remember_their_lines() {
        let text =
            "kind: A\nspec:\n  list:\n  - one: 1\n    two: null\n  - 2.0\n---\n# nothing\n---\nkind: B\n";
        let documents = read(text, Format::Yaml).unwrap();
        assert_eq!(documents.len(), 2, "an empty document is none");
        assert_eq!(documents[0].value, json!({"kind": "A", "spec": {"list": [{"one": 1}, 2]}}));
        assert_eq!(documents[0].position("spec.list[0].one"), Some((4, 10)));
        assert_eq!(documents[0].position("spec.list[0].missing"), Some((4, 5)), "what is around it");
        assert_eq!(documents[1].position("kind"), Some((10, 7)));
    }

    #[test]
    fn lists_are_the_documents_in_them() {
        for text in [
            r#"{"kind": "List", "items": [{"kind": "A"}, {"kind": "B"}]}"#,
            r#"[{"kind": "A"}, {"kind": "B"}]"#,
        ] {
            let documents = read(text, Format::Json).unwrap();
            assert_eq!(
                documents.iter().map(|it| it.value["kind"].as_str().unwrap()).collect::<Vec<_>>(),
                ["A", "B"]
            );
            assert_eq!(documents[1].position("kind").unwrap().0, 1);
        }
    }

    #[test]
    fn what_is_malformed_is_told_with_its_place() {
        let cases = [
            (Format::Yaml, "a: 1\nb: [1, 2\nc: 3\n", Some(3), "is not YAML"),
            (Format::Yaml, "a: 1\n\tb: 2\n", Some(1), "is not YAML"),
            (Format::Yaml, "a: 1\nb: 2\na: 3\n", Some(3), "duplicate"),
            (Format::Yaml, "a: *nowhere\n", Some(1), "reference to unknown value"),
            (Format::Json, "{\"a\": 1,\n \"b\": }", Some(2), "is not JSON: expected value"),
            (Format::Json, "{\"a\": 1,}", Some(1), "is not JSON"),
            (Format::Json, "{\"a\": 1, \"a\": 2}", Some(1), "duplicate"),
            (Format::Json, "a: 1", Some(1), "is not JSON"),
            (Format::Json, "", Some(1), "is not JSON"),
        ];
        for (format, text, line, words) in cases {
            let fault = read(text, format).expect_err(text);
            assert_eq!(fault.line, line, "{text:?}: {fault:?}");
            assert!(fault.message.contains(words), "{text:?}: {fault:?}");
        }
    }

    #[test]
    fn aliases_and_depth_are_bounded() {
        let laughs = (1..10).fold("a0: &a0 [x]\n".to_owned(), |text, level| {
            let previous = format!("*a{}", level - 1);
            format!("{text}a{level}: &a{level} [{}]\n", [previous.as_str(); 10].join(", "))
        });
        let started = std::time::Instant::now();
        assert!(read(&laughs, Format::Yaml).is_err());
        assert!(read(&"[".repeat(10_000), Format::Yaml).is_err());
        assert!(read(&format!("{}1{}", "[".repeat(80), "]".repeat(80)), Format::Json).is_err());
        assert!(started.elapsed().as_secs() < 5);
        assert_eq!(read("a: &x {b: 1}\nc: *x\n", Format::Yaml).unwrap()[0].value["c"]["b"], 1);
    }
}
