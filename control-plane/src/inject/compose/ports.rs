//! The ports that a Compose service says it serves: the container's side of `ports`, and `expose`.

use pillion_api::name::is_port_name;

use crate::{
    inject::{
        Node, Object,
        sidecar::{ServedPort, TAKEN_PORTS, add_port},
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
                    for mut served in found {
                        if !served.name.is_empty() && !is_port_name(&served.name) {
                            notes.push(format!(
                                "port {} goes without its name: {:?} is not 1 to 15 of a-z, 0-9 and \"-\" (RFC 6335)",
                                served.port, served.name
                            ));
                            served.name.clear();
                        }
                        if TAKEN_PORTS.contains(&served.port) {
                            faults.add(&at, format!("{} is a port of the sidecar's", served.port));
                        } else {
                            add_port(&mut ports, served, notes);
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
    let name = member("name").unwrap_or_default();
    // A name is one port's: of a range, the first's.
    let of = |port| if port == first { name.clone() } else { String::new() };
    Ok((first..=last)
        .map(|port| ServedPort { port, name: of(port), protocol: app_protocol.clone() })
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

    #[test]
    fn a_name_that_cannot_be_is_left_out_with_a_note() {
        let text = "ports:\n- {target: 80, name: web}\n- {target: 81, name: web}\n- {target: 82, name: Admin UI}\n\
                    - {target: 83, name: sixteen-is-a-lot}\n- {target: 80, name: again}\n- {target: 90-91, name: many}\n";
        let service = text::read(text).expect("YAML").remove(0);
        let (mut faults, mut notes) = (Faults::default(), Vec::new());
        let ports = served(service.object().expect("it is"), &Path::root(), &mut faults, &mut notes);
        let named: Vec<(u16, &str)> =
            ports.iter().map(|served| (served.port, served.name.as_str())).collect();
        assert_eq!(named, [(80, "web"), (81, ""), (82, ""), (83, ""), (90, "many"), (91, "")]);
        assert_eq!(notes.len(), 3, "{notes:#?}");
        for (note, start) in notes.iter().zip(["port 81 ", "port 82 ", "port 83 "]) {
            assert!(note.starts_with(start), "{note}");
        }
        assert!(faults.into_vec().is_empty());
    }
}
