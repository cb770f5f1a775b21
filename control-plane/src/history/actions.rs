//! What policies did in some span of time: counts by action, and by what it was about.

use std::collections::BTreeMap;

use pillion_api::wire::{EdgeDelta, policy_count};

use super::{OVERFLOW, packed};

/// Counts kept apart in one span; more are kept by action only.
const MAX_KINDS: usize = 48;
/// Of what an action was about: two names with a dot between them.
const MAX_ABOUT: usize = 127;

/// One thing that a policy does. What is new comes last: what is kept, also on disk, has their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// An attempt beyond a request's first.
    Retry,
    /// A request that ended well for one.
    Recovered,
    /// One that the budget did not allow.
    RetryOverBudget,
    /// A request that was sent to a second endpoint as well.
    Hedge,
    /// One that this endpoint answered first.
    HedgeWon,
    /// One that the budget did not allow.
    HedgeOverBudget,
    /// A fallback took over; about the reason.
    FallbackServed,
    /// It could not either; about the reason.
    FallbackFailed,
    /// A copy of a request was sent here; about what became of it.
    Mirrored,
    /// An endpoint was chosen whatever its breaker says.
    PanicPick,
    /// A breaker stayed closed, since enough others are open.
    BreakerSpared,
    /// A request had to wait; about the fault.
    FaultDelayed,
    /// A request was answered with an error; about the fault.
    FaultAborted,
    /// A rate limit let a request pass; about the limit.
    RateAdmitted,
    /// It did not.
    RateLimited,
    /// The same, of the clients that were limited most; about the client.
    RateLimitedClient,
    /// A request was more than the workload can work on; about its priority.
    Shed,
}

impl Action {
    /// Every one, by its number.
    pub(super) const ALL: [Self; 17] = [
        Self::Retry,
        Self::Recovered,
        Self::RetryOverBudget,
        Self::Hedge,
        Self::HedgeWon,
        Self::HedgeOverBudget,
        Self::FallbackServed,
        Self::FallbackFailed,
        Self::Mirrored,
        Self::PanicPick,
        Self::BreakerSpared,
        Self::FaultDelayed,
        Self::FaultAborted,
        Self::RateAdmitted,
        Self::RateLimited,
        Self::RateLimitedClient,
        Self::Shed,
    ];

    /// `None` for what only newer sidecars know.
    pub(super) fn of(told: policy_count::Action) -> Option<Self> {
        use policy_count::Action as Told;
        Some(match told {
            Told::Unspecified => return None,
            Told::FallbackServed => Self::FallbackServed,
            Told::FallbackFailed => Self::FallbackFailed,
            Told::Mirrored => Self::Mirrored,
            Told::PanicPick => Self::PanicPick,
            Told::BreakerSpared => Self::BreakerSpared,
            Told::FaultDelayed => Self::FaultDelayed,
            Told::FaultAborted => Self::FaultAborted,
            Told::RateAdmitted => Self::RateAdmitted,
            Told::RateLimited => Self::RateLimited,
            Told::RateLimitedClient => Self::RateLimitedClient,
            Told::Shed => Self::Shed,
        })
    }
}

/// Counts by action. What did not happen takes no room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Actions(pub(super) BTreeMap<(Action, String), u64>);

impl Actions {
    /// What a sidecar says of an edge.
    pub(super) fn of_edge(delta: &EdgeDelta) -> Self {
        let mut actions = Self::default();
        for (action, count) in [
            (Action::Retry, delta.retries),
            (Action::Recovered, delta.retries_recovered),
            (Action::RetryOverBudget, delta.retries_over_budget),
            (Action::Hedge, delta.hedges),
            (Action::HedgeWon, delta.hedges_won),
            (Action::HedgeOverBudget, delta.hedges_over_budget),
        ] {
            actions.count(action, "", count);
        }
        actions
    }

    /// Adds to one count.
    pub(super) fn count(&mut self, action: Action, about: &str, more: u64) {
        if more == 0 {
            return;
        }
        let about = if about.len() <= MAX_ABOUT { about } else { OVERFLOW };
        let key = (action, about.to_owned());
        let key =
            if self.has_room() || self.0.contains_key(&key) { key } else { (action, OVERFLOW.to_owned()) };
        let count = self.0.entry(key).or_default();
        *count = count.saturating_add(more);
    }

    /// There always is for what has none, so that what was packed comes back as it was.
    fn has_room(&self) -> bool {
        let apart = || self.0.keys().filter(|(_, about)| about != OVERFLOW).count();
        self.0.len() < MAX_KINDS || apart() < MAX_KINDS
    }

    /// As one part of what [`packed::Packed`] counts write.
    pub(super) fn pack(&self, to: &mut Vec<u8>) {
        packed::put(to, self.0.len() as u64);
        for ((action, about), &count) in &self.0 {
            packed::put(to, *action as u64);
            packed::put_word(to, about);
            packed::put(to, count);
        }
    }

    /// Adds what was packed.
    pub(super) fn add_packed(&mut self, from: &mut &[u8]) -> Option<()> {
        for _ in 0..packed::take(from)? {
            let action = Action::ALL.get(usize::try_from(packed::take(from)?).ok()?)?;
            self.count(*action, packed::take_word(from)?, packed::take(from)?);
        }
        Some(())
    }

    /// Adds another span's.
    pub(super) fn add(&mut self, other: &Self) {
        for ((action, about), count) in &other.0 {
            self.count(*action, about, *count);
        }
    }

    /// Each count changed.
    pub(super) fn map(&self, change: impl Fn(u64) -> u64) -> Self {
        let mut mapped = Self::default();
        for ((action, about), count) in &self.0 {
            mapped.count(*action, about, change(*count));
        }
        mapped
    }

    /// How often it was done, whatever it was about.
    pub fn total(&self, action: Action) -> u64 {
        self.by(action).map(|(_, count)| count).sum()
    }

    /// The same by what it was about.
    pub fn by(&self, action: Action) -> impl Iterator<Item = (&str, u64)> {
        self.0
            .range((action, String::new())..)
            .map_while(move |((of, about), count)| (*of == action).then_some((about.as_str(), *count)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_kept_by_action_and_by_what_they_are_about() {
        let mut actions = Actions::of_edge(&EdgeDelta {
            retries: 3,
            retries_recovered: 2,
            hedges_over_budget: 1,
            ..EdgeDelta::default()
        });
        actions.count(Action::Mirrored, "answered", 4);
        actions.count(Action::Mirrored, "timeout", 1);
        let mut twice = actions.clone();
        twice.add(&actions);
        assert_eq!((twice.total(Action::Retry), twice.total(Action::Recovered)), (6, 4));
        assert_eq!(twice.by(Action::Mirrored).collect::<Vec<_>>(), [("answered", 8), ("timeout", 2)]);
        assert_eq!((twice.total(Action::Hedge), twice.total(Action::HedgeOverBudget)), (0, 2));
        assert_eq!(twice.map(|count| count / 2), actions);
        assert_eq!(actions.map(|_| 0), Actions::default());
    }

    #[test]
    fn whatever_sidecars_say_they_stay_few() {
        let mut actions = Actions::default();
        for index in 0..1000 {
            actions.count(Action::RateLimitedClient, &format!("client-{index}"), 1);
            actions.count(Action::Shed, &"x".repeat(index), 1);
        }
        assert!(actions.0.len() <= MAX_KINDS + 2, "{}", actions.0.len());
        let mut packed = Vec::new();
        actions.pack(&mut packed);
        let mut again = Actions::default();
        assert_eq!(again.add_packed(&mut &packed[..]), Some(()));
        assert_eq!(again, actions);
        assert_eq!((actions.total(Action::RateLimitedClient), actions.total(Action::Shed)), (1000, 1000));
    }

    #[test]
    fn every_action_is_found_by_its_number() {
        for (index, action) in Action::ALL.into_iter().enumerate() {
            assert_eq!(action as usize, index);
        }
        // The last one: whoever adds another puts it behind, and here.
        assert_eq!(Action::ALL.last(), Some(&Action::Shed));
    }
}
