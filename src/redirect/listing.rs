//! What a backend lists, chain by chain, beside what it should: the differences in words.

use std::collections::BTreeMap;

/// Lines by the chain that they are of, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Listing(BTreeMap<String, Vec<String>>);

impl Listing {
    /// There is such a chain, empty at first.
    pub(super) fn chain(&mut self, name: &str) -> &mut Vec<String> {
        self.0.entry(name.to_owned()).or_default()
    }

    /// How this, which is found, differs from what is wanted.
    pub(super) fn differences(&self, wanted: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (name, wanted) in &wanted.0 {
            let Some(here) = self.0.get(name) else {
                found.push(format!("chain {name} is missing"));
                continue;
            };
            let (mut here_only, mut wanted_only) = (here.clone(), Vec::new());
            for line in wanted {
                match here_only.iter().position(|other| other == line) {
                    Some(same) => drop(here_only.remove(same)),
                    None => wanted_only.push(line),
                }
            }
            if here_only.is_empty() && wanted_only.is_empty() && here != wanted {
                found.push(format!("chain {name} has its rules in another order"));
            }
            found.extend(wanted_only.iter().map(|line| format!("chain {name} lacks `{line}`")));
            found.extend(
                here_only.iter().map(|line| format!("chain {name} has `{line}`, which is not asked for")),
            );
        }
        let unknown = self.0.keys().filter(|name| !wanted.0.contains_key(*name));
        found.extend(unknown.map(|name| format!("chain {name} is not asked for")));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(text: &[(&str, &[&str])]) -> Listing {
        Listing(
            text.iter().map(|(n, l)| ((*n).into(), l.iter().map(|l| (*l).to_owned()).collect())).collect(),
        )
    }

    #[test]
    fn every_difference_is_told() {
        let wanted = listing(&[("a", &["1", "2", "2"]), ("b", &["1", "2"]), ("c", &[])]);
        assert!(wanted.differences(&wanted).is_empty());
        let found = listing(&[("a", &["3", "2", "1"]), ("b", &["2", "1"]), ("d", &[])]);
        let expected = [
            "chain a lacks `2`",
            "chain a has `3`, which is not asked for",
            "chain b has its rules in another order",
            "chain c is missing",
            "chain d is not asked for",
        ];
        assert_eq!(found.differences(&wanted), expected);
    }
}
