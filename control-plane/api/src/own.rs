//! Which of a workload's services says what its own sidecar holds for a port. Pure.

use crate::{
    model::{Service, TrafficPolicy},
    name::ServiceName,
};

/// A part of the policy, with the service that it comes from: the one that the caller means, where it says anything on the matter;
/// else the first that does. `services`: those of the workload that lead to the port.
pub fn part<'a, T>(
    services: impl Iterator<Item = &'a Service> + Clone,
    called: Option<&ServiceName>,
    part: impl Fn(&'a TrafficPolicy) -> Option<T>,
) -> Option<(&'a ServiceName, T)> {
    let meant = services.clone().filter(|service| called.is_some_and(|called| *called == service.name));
    meant.chain(services).find_map(|service| Some((&service.name, part(&service.policy)?)))
}
