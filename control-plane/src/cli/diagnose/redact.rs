//! What must not leave the mesh with a report: tokens, keys, and the values of fields that carry credentials. Pure.

use serde_json::Value;

use crate::token::{API_PREFIX, JOIN_PREFIX};

/// Stands where a secret was.
pub(super) const REDACTED: &str = "(redacted)";

/// A field or header whose name contains one of these, written in lower case and without `-` and `_`, carries a secret. Rather one
/// value too many is taken out than one too few.
const SECRET_NAMES: [&str; 13] = [
    "token",
    "secret",
    "passw",
    "passphrase",
    "privatekey",
    "apikey",
    "accesskey",
    "credential",
    "auth",
    "cookie",
    "session",
    "signature",
    "jwt",
];
/// These contain one of the above, and carry none: the mesh's certificate authority, and a request's host.
const PUBLIC_NAMES: [&str; 3] = ["authority", "authoritynotafterms", ":authority"];
/// Below these everything is taken out: anybody may have put anything there.
const OPAQUE_NAMES: [&str; 4] = ["annotations", "env", "environment", "managedfields"];
/// What names the entry of a list that has its value beside it.
const NAMING: [&str; 3] = ["name", "field", "key"];
/// A word after one of these is a credential.
const SCHEMES: [&str; 3] = ["bearer", "basic", "digest"];

/// Takes out every secret: by the names of fields and headers, and by what texts look like. `known`: secrets to take out
/// wherever they stand.
pub(super) fn redact(value: &mut Value, known: &[&str]) {
    match value {
        Value::Object(fields) => {
            let named = NAMING.iter().filter_map(|naming| fields.get(*naming)?.as_str());
            let secret_entry = named.into_iter().any(is_secret);
            for (name, field) in fields.iter_mut() {
                let beside = secret_entry && !NAMING.contains(&name.as_str()) && is_entry_value(name);
                if beside || is_secret(name) || OPAQUE_NAMES.contains(&plain(name).as_str()) {
                    blank(field);
                } else {
                    redact(field, known);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| redact(item, known)),
        Value::String(text) => *text = redacted(text, known),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Whether what has this name is a secret.
fn is_secret(name: &str) -> bool {
    let plain = plain(name);
    // Where a secret is, is none: `joinTokenFile`.
    !PUBLIC_NAMES.contains(&plain.as_str())
        && !plain.ends_with("file")
        && SECRET_NAMES.iter().any(|secret| plain.contains(secret))
}

fn is_entry_value(name: &str) -> bool {
    matches!(name, "value" | "values" | "valueFrom" | "exact" | "prefix" | "regex")
}

fn plain(name: &str) -> String {
    name.chars().filter(|char| !matches!(char, '-' | '_')).flat_map(char::to_lowercase).collect()
}

/// Leaves the shape, which tells that something is set, and how much.
fn blank(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(blank),
        Value::Array(items) => items.iter_mut().for_each(blank),
        Value::String(text) if text.is_empty() => {}
        Value::String(text) => REDACTED.clone_into(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A text without what looks like a secret.
fn redacted(text: &str, known: &[&str]) -> String {
    if text.contains("PRIVATE KEY-----") {
        return REDACTED.to_owned();
    }
    let mut text = text.to_owned();
    for secret in known.iter().filter(|secret| !secret.is_empty()) {
        text = text.replace(secret, REDACTED);
    }
    for prefix in [API_PREFIX, JOIN_PREFIX] {
        text = without(&text, &format!("{prefix}."), |rest| {
            rest.find(|char: char| !char.is_ascii_alphanumeric() && !matches!(char, '.' | '_' | '-'))
                .unwrap_or(rest.len())
        });
    }
    // `http://user:password@host`.
    text = without(&text, "://", |rest| {
        let end = rest.find(|char: char| char.is_whitespace() || matches!(char, '/' | '?' | '#' | '"'));
        rest[..end.unwrap_or(rest.len())].rfind('@').unwrap_or(0)
    });
    credentials(&text)
}

/// Takes out what follows each `mark`, as far as `secret` says.
fn without(text: &str, mark: &str, secret: impl Fn(&str) -> usize) -> String {
    let mut pieces = text.split_inclusive(mark);
    let mut clean = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let length = secret(piece);
        if length > 0 {
            clean += REDACTED;
        }
        clean += &piece[length..];
    }
    clean
}

/// `Bearer abc` without its `abc`.
fn credentials(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut after_scheme = false;
    for word in text.split_inclusive(char::is_whitespace) {
        let bare = word.trim_end();
        if after_scheme && !bare.is_empty() {
            clean += REDACTED;
            clean += &word[bare.len()..];
            after_scheme = false;
        } else {
            clean += word;
            let scheme = bare.trim_start_matches(|char: char| !char.is_ascii_alphabetic());
            after_scheme = SCHEMES.iter().any(|known| scheme.eq_ignore_ascii_case(known));
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn clean(mut value: Value) -> Value {
        redact(&mut value, &["s3cr3t"]);
        value
    }

    #[test]
    fn fields_by_their_names() {
        for name in ["joinToken", "join_token", "PASSWORD", "x-api-key", "Set-Cookie", "clientSecret"] {
            assert_eq!(clean(json!({ name: "abc" })), json!({ name: REDACTED }), "{name}");
        }
        for name in
            ["joinTokenFile", "workload", "authorityNotAfterMs", ":authority", "certificateNotAfterMs"]
        {
            assert_eq!(clean(json!({ name: "abc" })), json!({ name: "abc" }), "{name}");
        }
        // That it is set, and its shape, stays.
        let shape = json!({ "secret": { "a": ["x", 1, ""], "b": null } });
        assert_eq!(clean(shape), json!({ "secret": { "a": [REDACTED, 1, ""], "b": null } }));
    }

    #[test]
    fn values_of_headers_that_carry_credentials() {
        let filter = json!({ "set": [
            { "name": "Authorization", "value": "opaque" },
            { "name": "x-internal-auth", "value": "opaque" },
            { "name": "x-beta", "value": "1" },
        ] });
        let set = &clean(filter)["set"];
        assert_eq!(set[0], json!({ "name": "Authorization", "value": REDACTED }));
        assert_eq!(set[1]["value"], REDACTED);
        assert_eq!(set[2]["value"], "1");
    }

    #[test]
    fn whatever_anybody_put_there() {
        let document = json!({ "annotations": { "a": "b" }, "env": [{ "name": "A", "value": "b" }] });
        let expected =
            json!({ "annotations": { "a": REDACTED }, "env": [{ "name": REDACTED, "value": REDACTED }] });
        assert_eq!(clean(document), expected);
    }

    #[test]
    fn texts_by_what_they_look_like() {
        for (text, expected) in [
            ("well", "well"),
            ("", ""),
            ("of s3cr3t: s3cr3t", "of (redacted): (redacted)"),
            ("pillion-join.a1.b_2-c.d3, pillion-api.x.y", "pillion-join.(redacted), pillion-api.(redacted)"),
            ("a pillion-join token", "a pillion-join token"),
            (
                "at http://me:pass@host:1/x@y and http://host/",
                "at http://(redacted)@host:1/x@y and http://host/",
            ),
            ("spiffe://mesh.local/ns/a", "spiffe://mesh.local/ns/a"),
            ("authorization: Bearer abc rest", "authorization: Bearer (redacted) rest"),
            ("\"basic YTpi\"", "\"basic (redacted)"),
            ("-----BEGIN PRIVATE KEY-----\nabc", REDACTED),
        ] {
            assert_eq!(clean(json!([text])), json!([expected]), "{text:?}");
        }
    }
}
