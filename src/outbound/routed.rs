//! Requests by the rule of a route that they took, counted in cells of this thread.

use std::cell::{Cell, RefCell};

use pillion_api::model::RouteRule;

/// One cell for each rule of a service's configuration, in its order.
#[derive(Debug, Default)]
pub(super) struct Routed(RefCell<Box<[Cell<u64>]>>);

impl Routed {
    /// Counts for these rules from now on, each from zero.
    pub(super) fn begin(&self, rules: &[RouteRule]) {
        self.0.replace(rules.iter().map(|_| Cell::default()).collect());
    }

    /// A request takes one of the rules.
    pub(super) fn count(&self, rules: &[RouteRule], rule: &RouteRule) {
        // No longer than it took to choose the rule.
        let place = rules.iter().position(|it| std::ptr::eq(it, rule));
        let counts = self.0.borrow();
        if let Some(count) = place.and_then(|place| counts.get(place)) {
            count.set(count.get() + 1);
        }
    }

    /// Takes what has gathered since it was last taken.
    pub(super) fn take<'rules>(&self, rules: &'rules [RouteRule]) -> Vec<(&'rules RouteRule, u64)> {
        let counts = self.0.borrow();
        let counted = rules.iter().zip(counts.iter().map(Cell::take));
        counted.filter(|(_, count)| *count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pillion_api::{model::Service, wire};

    use super::*;

    #[test]
    fn each_rule_has_its_own_count_and_none_is_told_twice() {
        let rule = |rule: &str| wire::RouteRule { rule: rule.into(), ..Default::default() };
        let service = wire::ServiceConfig {
            service: "a.b".into(),
            routes: vec![rule("one"), rule("two"), rule("three")],
            ..Default::default()
        };
        let service = Arc::new(Service::try_from(service).expect("a valid service"));
        let (rules, routed) = (&service.routes, Routed::default());
        routed.count(rules, &rules[0]);
        routed.begin(rules);
        for place in [2, 0, 2] {
            routed.count(rules, &rules[place]);
        }
        routed.count(rules, &rules[1].clone());
        let told = |routed: &Routed| -> Vec<(String, u64)> {
            routed.take(rules).into_iter().map(|(rule, count)| (rule.rule.clone(), count)).collect()
        };
        assert_eq!(told(&routed), [("one".to_owned(), 1), ("three".to_owned(), 2)]);
        assert_eq!(told(&routed), []);
    }
}
