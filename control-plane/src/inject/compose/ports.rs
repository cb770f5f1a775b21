//! The ports that a Compose service says it serves: the container's side of `ports`, and `expose`.

use crate::{
    inject::{
        Node, Object,
        sidecar::{ServedPort, TAKEN_PORTS},
    },
    resource::{Faults, Path, service::APP_PROTOCOLS},
};

/// More in one range nobody means.
const LONGEST_RANGE: u16 = 100;

/// Reads both lists.
pub(super) fn served(
    service: &Object,
    at: &Path,
    faults: &mut Faults,
    notes: &mut Vec<String>,
) -> Vec<ServedPort> {
    let mut ports: Vec<ServedPort> = Vec::new();
    for list in ["ports", "expose"] {
        for (index, item) in service.get(list).map(Node::items).unwrap_or_default().iter().enumerate() {
            let at = at.field(list).index(index);
            match one(item) {
                Ok(found) => {
                    for served in found {
                        if TAKEN_PORTS.contains(&served.port) {
                            faults.add(&at, format!("{} is a port of the sidecar's", served.port));
                        } else if !ports.iter().any(|known| known.port == served.port) {
                            ports.push(served);
                        }
                    }
                }
                Err(Wrong::Variable) => notes.push(format!(
                    "{}: the container's port is a variable, so the mesh does not serve it: name it in `expose`, too",
                    at.as_str()
                )),
                Err(Wrong::Malformed) => faults.add(&at, "is not understood as a port"),
            }
        }
    }
    ports
}

enum Wrong {
    /// Known only when Compose runs.
    Variable,
    Malformed,
}

fn one(item: &Node) -> Result<Vec<ServedPort>, Wrong> {
    let (target, protocol) = match item {
        Node::Object(long) => {
            let protocol = long.get("protocol").and_then(Node::text).unwrap_or("tcp").to_owned();
            (long.get("target").and_then(Node::scalar).ok_or(Wrong::Malformed)?, protocol)
        }
        short => {
            let text = short.scalar().ok_or(Wrong::Malformed)?;
            let last = last_part(&text).to_owned();
            match last.split_once('/') {
                Some((target, protocol)) => (target.to_owned(), protocol.to_owned()),
                None => (last, "tcp".to_owned()),
            }
        }
    };
    if !protocol.eq_ignore_ascii_case("tcp") {
        return Ok(Vec::new());
    }
    if target.contains('$') {
        return Err(Wrong::Variable);
    }
    let (first, last) = target.split_once('-').unwrap_or((&target, &target));
    let number =
        |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port != 0).ok_or(Wrong::Malformed);
    let (first, last) = (number(first)?, number(last)?);
    if last < first || last - first >= LONGEST_RANGE {
        return Err(Wrong::Malformed);
    }
    let member = |name: &str| item.get(name).and_then(Node::text).map(str::to_owned);
    let app_protocol = member("app_protocol").filter(|protocol| APP_PROTOCOLS.contains(&protocol.as_str()));
    let name = member("name").filter(|name| crate::resource::dns_label(name).is_ok()).unwrap_or_default();
    Ok((first..=last)
        .map(|port| ServedPort { port, name: name.clone(), protocol: app_protocol.clone() })
        .collect())
}

/// What follows the last colon that is not in a `${VARIABLE:-default}`.
fn last_part(text: &str) -> &str {
    let mut depth = 0;
    let mut start = 0;
    for (at, character) in text.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ':' if depth == 0 => start = at + 1,
            _ => {}
        }
    }
    &text[start..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inject::text;

    #[test]
    fn the_containers_side_of_every_form() {
        for (written, expected) in [
            ("8080", "8080"),
            ("\"8080\"", "8080"),
            ("\"80:8080\"", "8080"),
            ("\"127.0.0.1:80:8080/tcp\"", "8080"),
            ("\"[::1]:80:8080\"", "8080"),
            ("\"${PORT:-80}:8080\"", "8080"),
            ("\"9000-9002:3000-3002\"", "3000,3001,3002"),
            ("\"53:53/udp\"", ""),
            ("{target: 8080, published: 80}", "8080"),
            ("{target: \"53\", protocol: udp}", ""),
            ("\"80:${PORT}\"", "variable"),
            ("\"80:\"", "malformed"),
            ("\"80:0\"", "malformed"),
            ("\"5-1\"", "malformed"),
            ("\"1-60000\"", "malformed"),
            ("true", "malformed"),
            ("{published: 80}", "malformed"),
        ] {
            let item = text::read(&format!("- {written}\n")).expect("YAML").remove(0).items()[0].clone();
            let found = match one(&item) {
                Ok(ports) => ports.iter().map(|served| served.port.to_string()).collect::<Vec<_>>().join(","),
                Err(Wrong::Variable) => "variable".into(),
                Err(Wrong::Malformed) => "malformed".into(),
            };
            assert_eq!(found, expected, "{written}");
        }
    }

    #[test]
    fn what_is_said_of_a_port_is_kept() {
        let item = text::read("{target: 8080, name: web, app_protocol: http}").expect("YAML").remove(0);
        let Ok(ports) = one(&item) else { panic!("it is right") };
        assert_eq!(ports, [ServedPort { port: 8080, name: "web".into(), protocol: Some("http".into()) }]);
    }
}
