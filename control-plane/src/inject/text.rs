//! Documents from text and back.
//!
//! Read as the programs read them that the text is for, Kubernetes and Compose: `0440` is octal, `yes` is true, `<<` merges.
//! What is written means the same to readers of YAML 1.1 and 1.2. Comments are lost, and anchors stand written out.

use serde_saphyr::{DuplicateKeyPolicy, MessageFormatter as _, SerializerOptions, UserMessageFormatter};

use super::node::Node;
use crate::resource::Fault;

/// Longer lines of text than anybody writes: none is folded.
const NEVER_FOLD: usize = 1 << 20;

/// Reads every document of a text, YAML or JSON; empty ones are left out.
///
/// # Errors
/// Where and why it is not YAML, or which bound it breaks.
pub fn read(text: &str) -> Result<Vec<Node>, Fault> {
    let documents: Vec<Node> =
        serde_saphyr::from_multiple_with_options(text, reading()).map_err(|error| {
            let error = error.without_snippet();
            let (line, column) =
                error.location().map(|location| (location.line(), location.column())).unzip();
            let message = format!("is not YAML: {}", UserMessageFormatter.format_message(error));
            Fault { line, column, ..Fault::new("", message) }
        })?;
    Ok(documents.into_iter().filter(|document| *document != Node::Null).collect())
}

/// Writes documents as YAML.
pub fn write(documents: &[Node]) -> String {
    serde_saphyr::to_string_multiple_with_options(documents, writing())
        .expect("values with texts for names can be written")
}

fn reading() -> serde_saphyr::Options {
    let mut budget = serde_saphyr::Budget::default();
    budget.max_depth = 64;
    budget.max_nodes = 250_000;
    budget.max_events = 1_000_000;
    budget.max_documents = 10_000;
    let mut options = serde_saphyr::Options::default();
    options.budget = Some(budget);
    options.duplicate_keys = DuplicateKeyPolicy::Error;
    options.legacy_octal_numbers = true;
    options.strict_booleans = false;
    // Compose's `!reset` and `!override` would be lost without a word.
    options.reject_unsupported_tags = true;
    options.alias_limits.max_total_replayed_events = 100_000;
    options.alias_limits.max_replay_stack_depth = 16;
    options.with_snippet = false;
    options
}

fn writing() -> SerializerOptions {
    let mut options = SerializerOptions::default();
    options.folded_wrap_chars = NEVER_FOLD;
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_in_order() {
        let text = "z: 1\na:\n- b: \"yes\"\n  c: no\n- \"22:22\"\n- null\n- 1.5\n- |\n  two\n  lines\n\
                    mode: \"0440\"\nempty: {}\nnone: []\nnot-there:\n---\nkind: B\n";
        let documents = read(text).expect("YAML");
        assert_eq!(documents.len(), 2);
        let written = write(&documents);
        assert_eq!(read(&written).expect("YAML"), documents, "{written}");
        assert!(written.find("z:") < written.find("a:"), "{written}");
        for quoted in ["\"yes\"", "\"22:22\"", "\"0440\""] {
            assert!(written.contains(quoted) || written.contains(&quoted.replace('"', "'")), "{written}");
        }
    }

    #[test]
    fn values_are_what_kubernetes_and_compose_take_them_for() {
        let document =
            read("a: 0440\nb: yes\nc: &c {x: 1}\nd:\n  <<: *c\n  y: 2\ne: 1e3\n").expect("YAML").remove(0);
        assert_eq!(document.get("a").and_then(Node::whole), Some(0o440));
        assert_eq!(document.get("b"), Some(&Node::Bool(true)));
        assert_eq!(document.at(&["d", "x"]).and_then(Node::whole), Some(1), "{document:?}");
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        for (text, line) in [("a: 1\nb: !reset []\n", 2), ("a: 1\na: 2\n", 2), ("a: [\n", 1)] {
            let fault = read(text).expect_err(text);
            assert_eq!(fault.line, Some(line), "{text:?}: {fault}");
        }
    }
}
