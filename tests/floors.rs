//! Imports go down only, as DESIGN has it: each room of a crate (a module at its root) stands on a floor and may name rooms of
//! lower floors. A cycle between rooms cannot arise, and a new room must first be given its floor here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Rooms by floor, the lowest first.
type Floors = &'static [&'static [&'static str]];

const CRATES: [(&str, Floors); 4] = [
    (
        "src",
        &[
            &["error", "task"],
            &["drain", "run", "telemetry"],
            &["config", "net"],
            &["redirect", "tls"],
            &["http"],
            &["control", "otlp"],
            &["balance", "middleware"],
            &["admin", "dns", "inbound", "outbound"],
            &["app"],
            &["cli", "lib", "main"],
        ],
    ),
    (
        "certs/src",
        &[
            &["error", "spiffe", "validity"],
            &["csr", "leaf"],
            &["bundle", "key"],
            &["credential", "fault"],
            &["authority", "sessions", "verify"],
            &["tls"],
            &["rotate"],
            &["lib"],
        ],
    ),
    (
        "control-plane/api/src",
        &[
            &["codec", "digest", "latency", "lines", "metric", "name", "network", "path", "wire"],
            &["hops", "model"],
            &["ejection", "gcra", "own", "retry", "route", "tap"],
            &["filter", "hash", "holds"],
            &["lib"],
        ],
    ),
    (
        "control-plane/src",
        &[
            &["clock", "error", "said", "shutdown", "telemetry"],
            &["config", "store"],
            &["resource", "token"],
            &["authority", "compile", "inject"],
            &["history", "registry", "tap"],
            &["publish"],
            &["explain"],
            &["mesh_api", "serve", "web"],
            &["app"],
            &["demo"],
            &["cli"],
            &["lib", "main"],
        ],
    ),
];

#[test]
fn imports_go_down_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut faults = Vec::new();
    for (folder, floors) in CRATES {
        let floor_of: BTreeMap<&str, usize> = floors
            .iter()
            .enumerate()
            .flat_map(|(floor, rooms)| rooms.iter().map(move |room| (*room, floor)))
            .collect();
        let files = rust_files(&root.join(folder));
        assert!(!files.is_empty(), "{folder} has no code");
        for file in files {
            let inside = file.strip_prefix(root.join(folder)).expect("it was found in there");
            let room = room_of(inside);
            if room == "generated" {
                continue;
            }
            let Some(floor) = floor_of.get(room.as_str()) else {
                faults.push(format!("{folder}/{}: room `{room}` has no floor yet", inside.display()));
                continue;
            };
            let text = std::fs::read_to_string(&file).expect("source is UTF-8");
            for (line, named) in names_of_rooms(&text) {
                if named == room {
                    continue;
                }
                // What is no room is an item of the crate's root.
                if floor_of.get(named.as_str()).is_some_and(|below| below >= floor) {
                    let place = format!("{folder}/{}:{line}", inside.display());
                    faults.push(format!(
                        "{place}: `{room}` (floor {floor}) names `{named}` (floor {})",
                        floor_of[named.as_str()]
                    ));
                }
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn names_are_found_wherever_they_stand() {
    let text = "use crate::net::{self, listen};\nuse crate::{app, tls::accept};\n// crate::comment\nlet x = crate::http::serve();\nuse crate::{\n    drain::Drain,\n    config,\n};\n";
    let found: Vec<_> =
        names_of_rooms(text).into_iter().map(|(line, name)| format!("{line} {name}")).collect();
    assert_eq!(found, ["1 net", "2 app", "2 tls", "4 http", "5 drain", "5 config"]);
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    let mut files = Vec::new();
    for path in entries.map(|entry| entry.expect("it can be read").path()) {
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The first part of a path inside a crate: `net/listen.rs` and `net.rs` are both of `net`.
fn room_of(inside: &Path) -> String {
    let first = inside.iter().next().expect("a path has a part").to_string_lossy();
    first.strip_suffix(".rs").unwrap_or(&first).to_owned()
}

/// Every `crate::<name>`, also inside of `crate::{…}`, with its line. Comments are not read.
fn names_of_rooms(text: &str) -> Vec<(usize, String)> {
    let code: String =
        text.lines().map(|line| line.split("//").next().unwrap_or_default().to_owned() + "\n").collect();
    let mut found = Vec::new();
    for (at, pattern) in code.match_indices("crate::") {
        let line = 1 + code[..at].matches('\n').count();
        let rest = &code[at + pattern.len()..];
        match rest.strip_prefix('{') {
            None => found.push((line, first_name(rest))),
            Some(group) => found.extend(top_level_items(group).map(|item| (line, first_name(item)))),
        }
    }
    found
}

fn first_name(path: &str) -> String {
    path.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The items of a `{…}` group, from after its opening brace, not of groups inside.
fn top_level_items(group: &str) -> impl Iterator<Item = &str> {
    let (mut depth, mut start, mut items) = (0, 0, Vec::new());
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => {
                items.push(&group[start..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    items.into_iter().filter(|item| !item.trim().is_empty())
}
