//! Help for whoever names what is not there, mostly for want of a namespace.

use std::collections::BTreeSet;

use super::{Documents, Key};

/// As many are named.
const MOST: usize = 3;

/// `; did you mean payments.demo?`: of `known` names, `<name>.<namespace>`, those that are called the same but for their
/// namespace. Empty where there are none.
pub fn did_you_mean(asked: &str, known: impl IntoIterator<Item = String>) -> String {
    let name = |full: &str| full.split('.').next().unwrap_or_default().to_owned();
    let wanted = name(asked);
    question(known.into_iter().filter(|known| known != asked && name(known) == wanted))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_called_the_same_elsewhere_is_meant() {
        let known = || ["pay.demo", "pay.shop", "web.demo"].map(str::to_owned);
        for (asked, expected) in [
            ("pay", "; did you mean pay.demo or pay.shop?"),
            ("pay.demo", "; did you mean pay.shop?"),
            ("web.default", "; did you mean web.demo?"),
            ("cart", ""),
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
