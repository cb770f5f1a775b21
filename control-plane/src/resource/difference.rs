//! What a change makes of a document, line by line.

use std::time::Instant;

use serde_json::Value;
use similar::TextDiff;

use super::{Document, text};

/// Lines that are shown before and after those that change.
const CONTEXT: usize = 3;

/// How a document changes, as a unified diff of its YAML; empty where people would write it as before. From `deadline` on it
/// is no longer looked for the fewest lines, so that a large change costs no more than that.
pub fn difference(before: Option<&Document>, after: Option<&Document>, deadline: Instant) -> String {
    let yaml = |document: Option<&Document>| document.map(written).as_ref().map(text::to_yaml);
    let [before, after] = [before, after].map(|document| yaml(document).unwrap_or_default());
    let lines = TextDiff::configure().deadline(deadline).diff_lines(before.as_str(), after.as_str());
    lines.unified_diff().context_radius(CONTEXT).to_string()
}

/// As people write it: without what only the server notes.
fn written(document: &Document) -> Value {
    let mut document = document.clone();
    let metadata = document.metadata_mut();
    for noted in [&mut metadata.uid, &mut metadata.creation_timestamp, &mut metadata.resource_version] {
        noted.clear();
    }
    metadata.generation = 0;
    document.to_value()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::resource::{admit, text::Format};

    const ROUTE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: split, namespace: demo}
spec:
  parentRefs: [{group: '', kind: Service, name: web}]
  rules:
  - backendRefs: [{name: v1, port: 80, weight: 90}, {name: v2, port: 80, weight: 10}]
";

    fn document(yaml: &str) -> Document {
        let written = text::read(yaml, Format::Yaml).unwrap();
        admit::admit(0, &written[0], None).unwrap()
    }

    fn changed(before: Option<&Document>, after: Option<&Document>) -> Vec<String> {
        let soon = Instant::now() + Duration::from_secs(60);
        difference(before, after, soon).lines().map(str::to_owned).collect()
    }

    #[test]
    fn exactly_the_lines_that_change_are_marked() {
        let before = document(ROUTE);
        let mut after =
            document(&ROUTE.replace("weight: 90", "weight: 70").replace("weight: 10", "weight: 30"));
        after.metadata_mut().generation = 7;
        after.metadata_mut().resource_version = "12".into();
        let lines = changed(Some(&before), Some(&after));
        let marked: Vec<&str> =
            lines.iter().map(String::as_str).filter(|line| line.starts_with(['+', '-'])).collect();
        let weight = |sign: char, weight: u8| format!("{sign}      weight: {weight}");
        assert_eq!(
            marked,
            [weight('-', 90), weight('+', 70), weight('-', 10), weight('+', 30)],
            "{lines:#?}"
        );
        assert!(lines[0].starts_with("@@ -"), "{lines:#?}");
    }

    #[test]
    fn what_the_server_notes_is_no_difference() {
        let before = document(ROUTE);
        let mut after = before.clone();
        let metadata = after.metadata_mut();
        metadata.uid = "1".into();
        metadata.creation_timestamp = "2026-01-01T00:00:00Z".into();
        metadata.resource_version = "3".into();
        metadata.generation = 4;
        assert_eq!(changed(Some(&before), Some(&after)), [""; 0]);
        assert_eq!(changed(None, None), [""; 0]);
    }

    #[test]
    fn all_lines_of_what_is_new_or_gone_are_marked() {
        let route = document(ROUTE);
        for (sign, lines) in [('+', changed(None, Some(&route))), ('-', changed(Some(&route), None))] {
            assert!(lines[1..].iter().all(|line| line.starts_with(sign)), "{lines:#?}");
            assert!(lines.contains(&format!("{sign}kind: HTTPRoute")), "{lines:#?}");
            assert!(lines.contains(&format!("{sign}  namespace: demo")), "{lines:#?}");
        }
    }

    #[test]
    fn after_the_deadline_nothing_is_lost() {
        let (before, after) = (document(ROUTE), document(&ROUTE.replace("weight: 90", "weight: 70")));
        let coarse = difference(Some(&before), Some(&after), Instant::now());
        for line in ["\n-      weight: 90\n", "\n+      weight: 70\n"] {
            assert!(coarse.contains(line), "{coarse}");
        }
    }
}
