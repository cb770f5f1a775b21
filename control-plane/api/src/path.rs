//! In which spelling a request's path is matched, and goes on. One spelling for all that are equivalent (RFC 3986 6.2.2), or
//! another one would be a way around whatever is decided by path.
//!
//! Envoy's and Istio's default (`BASE`): dot segments are removed, what is encoded without need is decoded, a backslash is a
//! slash; slashes are not merged, and encoded ones stay: `/a%2Fb` has one element, and APIs rely on that. An application may
//! read it otherwise all the same, so there is [`loose`], too: the path as the most careless application would read it. Where
//! a match restricts, it has to be tried in both readings; where it permits, both have to fit.

use memchr::memchr3_iter;
use thiserror::Error;

/// Why a path has no normal form. Whoever reads it as a string of C would see another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the path has a NUL (%00)")]
pub struct Nul;

/// The normal form of a path (without a query). `None`: that is how it is spelled already, or it is none (`*`).
///
/// # Errors
/// [`Nul`].
pub fn normal(path: &str) -> Result<Option<String>, Nul> {
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/') || !is_odd(bytes)? {
        return Ok(None);
    }
    let decoded = decode(bytes)?;
    let normal = String::from_utf8(without_dots(&decoded)).expect("whatever is not ASCII was encoded");
    Ok((normal != path).then_some(normal))
}

/// A path in normal form as the most careless application would read it: decoded, also slashes, and these merged, without the
/// parameters that segments may have (`/a;x=1/b`; RFC 3986 3.3), which Java's servers cut off. `None`: there is nothing that could
/// be read otherwise.
pub fn loose(path: &str) -> Option<String> {
    if !path.starts_with('/') || !path.contains(['%', ';']) && !path.contains("//") {
        return None;
    }
    let bytes = path.as_bytes();
    let (mut read, mut at) = (Vec::with_capacity(bytes.len()), 0);
    // What begins parameters ends with the segment: as it is spelled, or as it is read where that is how they begin.
    let (mut cut, mut cut_read) = (false, false);
    while let Some(&spelled) = bytes.get(at) {
        let (byte, length) = escape(bytes, at).map_or((spelled, 1), |escaped| (escaped, 3));
        let byte = if byte == b'\\' { b'/' } else { byte };
        at += length;
        cut = spelled != b'/' && (cut || spelled == b';');
        cut_read = !cut && byte != b'/' && (cut_read || byte == b';');
        if !cut && !cut_read && (byte != b'/' || read.last() != Some(&b'/')) {
            read.push(byte);
        }
    }
    let loose = String::from_utf8_lossy(&without_dots(&read)).into_owned();
    (loose != path).then_some(loose)
}

/// Whether there is anything that may have to be spelled otherwise. Nearly always there is not: this is all that most paths cost.
fn is_odd(path: &[u8]) -> Result<bool, Nul> {
    if !path.is_ascii() {
        return Ok(true);
    }
    for at in memchr3_iter(b'%', b'\\', b'.', path) {
        let odd = match path[at] {
            b'%' => match escape(path, at) {
                Some(0) => return Err(Nul),
                Some(byte) => is_unreserved(byte) || path[at + 1..at + 3].iter().any(u8::is_ascii_lowercase),
                None => false,
            },
            b'.' if path[at - 1] == b'/' => {
                let segment = path[at..].split(|byte| *byte == b'/').next();
                matches!(segment, Some(b"." | b".."))
            }
            b'.' => false,
            _ => true,
        };
        if odd {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Unreserved characters as they are, all others that are not ASCII or were encoded in one way of encoding.
fn decode(path: &[u8]) -> Result<Vec<u8>, Nul> {
    let (mut decoded, mut at) = (Vec::with_capacity(path.len()), 0);
    // Where the last percent sign stands that begins no escape: what follows it must not become one.
    let mut stray = None;
    while let Some(&byte) = path.get(at) {
        at += 1;
        match (byte, escape(path, at - 1)) {
            (_, Some(escaped)) => {
                at += 2;
                let joins =
                    stray.is_some_and(|stray| decoded.len() - stray <= 2) && escaped.is_ascii_hexdigit();
                match escaped {
                    0 => return Err(Nul),
                    byte if is_unreserved(byte) && !joins => decoded.push(byte),
                    byte => encode(byte, &mut decoded),
                }
            }
            (b'%', None) => {
                stray = Some(decoded.len());
                decoded.push(b'%');
            }
            (b'\\', None) => decoded.push(b'/'),
            (byte, None) if byte.is_ascii() => decoded.push(byte),
            (byte, None) => encode(byte, &mut decoded),
        }
    }
    Ok(decoded)
}

/// The byte that an escape at a place stands for, if there is one.
fn escape(path: &[u8], at: usize) -> Option<u8> {
    let [b'%', high, low] = *path.get(at..at + 3)? else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    Some(digit(high)? << 4 | digit(low)?)
}

fn encode(byte: u8, to: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    to.extend([b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
}

/// RFC 3986 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// RFC 3986 5.2.4.
fn without_dots(path: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(path.len());
    let mut segments = path[1..].split(|byte| *byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        let dots = matches!(segment, b"." | b"..");
        if segment == b".." {
            kept.truncate(kept.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
        }
        if !dots || segments.peek().is_none() {
            kept.push(b'/');
        }
        if !dots {
            kept.extend_from_slice(segment);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normalised(path: &str) -> String {
        normal(path).expect("no NUL").unwrap_or_else(|| path.to_owned())
    }

    #[test]
    fn equivalent_paths_become_one() {
        for (path, expected) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("/./a", "/a"),
            ("/a/./b/.", "/a/b/"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/../../a", "/a"),
            ("/..", "/"),
            ("/a/%2e%2E/b", "/b"),
            ("/%61dmin", "/admin"),
            ("/a%7Eb%5f%2D", "/a~b_-"),
            ("/a\\b", "/a/b"),
            ("/a\\..\\b", "/b"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/café", "/caf%C3%A9"),
            // What may mean something else is left as it is.
            ("/a%2fb", "/a%2Fb"),
            ("/a%2F..%2Fb", "/a%2F..%2Fb"),
            ("/a%5Cb", "/a%5Cb"),
            ("/a%25%32%65", "/a%252e"),
            ("/a%20b%3Ac", "/a%20b%3Ac"),
            ("//a//b", "//a//b"),
            ("/a//../b", "/a/b"),
            ("/.//a", "//a"),
            ("/.well-known/x", "/.well-known/x"),
            ("/a/.../b", "/a/.../b"),
            ("/pkg.Service/Method", "/pkg.Service/Method"),
            ("/100%", "/100%"),
            ("/%zz%4", "/%zz%4"),
            // Nor does half an escape become a whole one.
            ("/%%34%31", "/%%341"),
            ("/%4%31", "/%4%31"),
            ("/%0%30", "/%0%30"),
            ("*", "*"),
            ("", ""),
        ] {
            assert_eq!(normalised(path), expected, "{path}");
        }
        for path in ["/%00", "/a%00.png", "/./%00"] {
            assert_eq!(normal(path), Err(Nul), "{path}");
        }
    }

    #[test]
    fn what_an_application_may_read_otherwise() {
        for (path, expected) in [
            ("/a/b", None),
            ("/a/", None),
            ("//a///b", Some("/a/b")),
            ("/a%2Fb", Some("/a/b")),
            ("/a%5Cb", Some("/a/b")),
            ("/x%2F..%2Fa", Some("/a")),
            ("/v1/x%3Acancel", Some("/v1/x:cancel")),
            ("/100%", None),
            ("/a%252F", Some("/a%2F")),
            ("/login;x=1", Some("/login")),
            ("/login;", Some("/login")),
            ("/a;x=1;y/login;z", Some("/a/login")),
            ("/login%3Bx=1", Some("/login")),
            ("/a%3Bx%2Flogin", Some("/a/login")),
            ("/a;x%2Fy/login", Some("/a/login")),
            ("/a;x%2F/login", Some("/a/login")),
            ("/;x/login", Some("/login")),
            ("/a/..;x/login", Some("/login")),
            ("/a/.;/%2e%2e%3B/login", Some("/login")),
            ("*", None),
            ("*;", None),
        ] {
            assert_eq!(loose(path).as_deref(), expected, "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_normal_path_stays_as_it_is(path in "/([a4.;/%\\\\é]|%[0-9a-fA-F]{1,2}|%2[eE]|\\.\\.|/){0,12}") {
            if let Ok(normal) = normal(&path) {
                let normal = normal.unwrap_or(path);
                prop_assert!(normal.starts_with('/') && normal.is_ascii(), "{}", normal);
                prop_assert_eq!(super::normal(&normal), Ok(None), "{}", normal);
                if let Some(loose) = loose(&normal) {
                    prop_assert!(loose.starts_with('/') && !loose.contains("//"), "{}", loose);
                }
            }
        }

        /// Wherever it has parameters, and however these are begun.
        #[test]
        fn no_parameters_lead_around_a_match(
            segments in proptest::collection::vec("[a-z]{1,3}", 1..5),
            parameters in proptest::collection::vec("(;|%3B)([a-z=,;.]|%3B|%20){0,6}", 5),
            chosen in proptest::collection::vec(any::<bool>(), 5),
        ) {
            let (mut plain, mut odd) = (String::new(), String::new());
            for (segment, (parameter, chosen)) in segments.iter().zip(parameters.iter().zip(&chosen)) {
                plain += &format!("/{segment}");
                odd += &format!("/{segment}{}", if *chosen { parameter } else { "" });
            }
            let odd = normalised(&odd);
            let read = loose(&odd).unwrap_or_else(|| odd.clone());
            prop_assert_eq!(read, plain, "{}", odd);
        }

        /// However its letters and dots are written, and wherever dots lead astray and back.
        #[test]
        fn every_spelling_of_a_path_is_matched_as_the_path(
            segments in proptest::collection::vec("[a-z.~-]{0,3}[a-z]", 1..5),
            choices in proptest::collection::vec(0u8..6, 40),
        ) {
            let plain = segments.iter().map(|segment| format!("/{segment}")).collect::<String>();
            let mut choices = choices.into_iter().cycle();
            let mut odd = String::new();
            for segment in &segments {
                odd += match choices.next().expect("it goes on") {
                    0 => "/./",
                    1 => "/x/../",
                    2 => "/%2e/",
                    3 => "/x/y/%2E%2e/.%2e/",
                    4 if !odd.is_empty() => "\\",
                    _ => "/",
                };
                for byte in segment.bytes() {
                    match choices.next().expect("it goes on") {
                        0 => odd += &format!("%{byte:02x}"),
                        1 => odd += &format!("%{byte:02X}"),
                        _ => odd.push(char::from(byte)),
                    }
                }
            }
            prop_assert_eq!(normalised(&odd), plain, "{}", odd);
        }
    }
}
