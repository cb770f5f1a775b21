//! Help for whoever names what is not there, for want of a namespace or a letter.

use std::collections::BTreeSet;

use super::{Documents, Key};

/// As many are named.
const MOST: usize = 3;

/// Names that differ in no more letters may be meant.
const NEAR: usize = 2;

/// Whether one name may be meant by the other.
pub(super) fn is_near(one: &str, other: &str) -> bool {
    // What somebody asks may be long.
    one.len().abs_diff(other.len()) <= NEAR && distance(one, other) <= NEAR
}

/// `; did you mean payments.demo?`: of `known` names, `<name>.<namespace>`, those that are called the same but for their
/// namespace, else those that are called nearly so. Empty where there are none.
pub fn did_you_mean(asked: &str, known: impl IntoIterator<Item = String>) -> String {
    let parts = |full: &str| {
        let (name, namespace) = full.split_once('.').unwrap_or((full, ""));
        (name.to_owned(), namespace.to_owned())
    };
    let (wanted, within) = parts(asked);
    let known: Vec<String> = known.into_iter().filter(|known| known != asked).collect();
    let same: Vec<String> = known.iter().filter(|known| parts(known).0 == wanted).cloned().collect();
    let may_be = |known: &String| {
        let (name, namespace) = parts(known);
        // Any two short names are near each other.
        (within.is_empty() || within == namespace) && wanted.len() > 2 * NEAR && is_near(&name, &wanted)
    };
    question(if same.is_empty() { known.into_iter().filter(may_be).collect() } else { same })
}

/// The documents of a kind that are called the same, in other namespaces.
pub fn namesakes<'a>(key: &'a Key, documents: &'a Documents) -> impl Iterator<Item = &'a Key> {
    let same = |other: &&Key| other.name == key.name && other.namespace != key.namespace;
    documents.list(key.kind, None).map(|(other, _)| other).filter(same)
}

/// The question whether one of these is meant, to be added to a sentence.
pub fn question(names: impl IntoIterator<Item = String>) -> String {
    let names: BTreeSet<String> = names.into_iter().collect();
    match names.len() {
        0 => String::new(),
        _ => {
            let named: Vec<String> = names.iter().take(MOST).cloned().collect();
            let more = if names.len() > MOST { ", or another of that name" } else { "" };
            format!("; did you mean {}{more}?", named.join(" or "))
        }
    }
}

/// How many letters two names differ in (Levenshtein), ignoring case.
pub(super) fn distance(one: &str, other: &str) -> usize {
    let (one, other) = (one.to_ascii_lowercase(), other.to_ascii_lowercase());
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, letter) in one.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, against) in other.bytes().enumerate() {
            let substitution = diagonal + usize::from(letter != against);
            diagonal = row[column + 1];
            row[column + 1] = substitution.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_called_the_same_elsewhere_is_meant() {
        let known = || ["pay.demo", "pay.shop", "web.demo", "payments.demo"].map(str::to_owned);
        for (asked, expected) in [
            ("pay", "; did you mean pay.demo or pay.shop?"),
            ("pay.demo", "; did you mean pay.shop?"),
            ("web.default", "; did you mean web.demo?"),
            ("cart", ""),
            ("way.demo", ""),
            ("paymnets.demo", "; did you mean payments.demo?"),
            ("paymnets.shop", ""),
            ("Paymentz", "; did you mean payments.demo?"),
        ] {
            assert_eq!(did_you_mean(asked, known()), expected, "{asked}");
        }
        let many = (0..9).map(|index| format!("pay.n{index}"));
        assert_eq!(
            did_you_mean("pay", many),
            "; did you mean pay.n0 or pay.n1 or pay.n2, or another of that name?"
        );
    }
}
