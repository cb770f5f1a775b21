//! Which of a workload's services says what its own sidecar holds for a port. Pure.

use crate::{model::Service, name::ServiceName};

/// The services of a workload that lead to a port, in the order in which they are asked: the one that the caller means, then the
/// others. The first that says anything on a matter decides it.
pub fn meant_first<'a>(
    of_port: impl Iterator<Item = &'a Service> + Clone,
    called: Option<&ServiceName>,
) -> impl Iterator<Item = &'a Service> {
    let meant = of_port.clone().filter(move |service| called.is_some_and(|called| *called == service.name));
    meant.chain(of_port)
}
