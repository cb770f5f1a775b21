//! Digests that both sides compute alike: the version of a payload, and of everything that a sidecar holds.

use aws_lc_rs::digest::{Context, SHA256, digest};

/// The version of an encoded payload: the first 16 hexadecimal digits of its SHA-256. Equal content has an equal
/// version, whichever control plane encoded it.
pub fn version(payload: &[u8]) -> String {
    hex16(digest(&SHA256, payload).as_ref())
}

/// A digest over `(service, config version, endpoints version)` of all subscriptions, sorted by service. The
/// control plane sends it with each heartbeat; a sidecar that computes another one has missed something.
pub fn holdings<'a>(sorted: impl IntoIterator<Item = (&'a str, &'a str, &'a str)>) -> String {
    let mut context = Context::new(&SHA256);
    for (service, config, endpoints) in sorted {
        for part in [service, "\t", config, "\t", endpoints, "\n"] {
            context.update(part.as_bytes());
        }
    }
    hex16(context.finish().as_ref())
}

fn hex16(digest: &[u8]) -> String {
    digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_the_start_of_sha_256() {
        // SHA-256 of "abc", FIPS 180-4.
        assert_eq!(version(b"abc"), "ba7816bf8f01cfea");
    }

    #[test]
    fn holdings_depend_on_every_part_and_its_place() {
        let base = holdings([("a.x", "1", "2")]);
        for other in [("b.x", "1", "2"), ("a.x", "2", "2"), ("a.x", "1", "3"), ("a.x", "12", "")] {
            assert_ne!(base, holdings([other]));
        }
        assert_eq!(base, holdings([("a.x", "1", "2")]));
        assert_ne!(base, holdings([]));
    }
}
