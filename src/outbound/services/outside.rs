//! A service outside the mesh: its endpoints are what its name resolves to.

use std::{
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use pillion_api::model::{self, Endpoint};

use super::{Service, service::Background};
use crate::{error::Refusal, net::resolve::Resolved};

/// Between look-ups of a name outside the mesh that fail.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// What keeps the endpoints of a service outside the mesh what its name resolves to.
#[derive(Debug)]
pub(super) struct Outside {
    pub(super) host: String,
    /// Why there is no address, if there is none.
    pub(super) fault: Option<String>,
    _looking: Background,
}

impl Service {
    /// A service of the mesh has the endpoints that the control plane says; one outside, those that its name resolves to.
    pub(super) fn look_outside(self: &Rc<Self>, host: Option<&str>, endpoints: &[Endpoint]) {
        let mut outside = self.outside.borrow_mut();
        let Some(host) = host else {
            *outside = None;
            drop(outside);
            return self.update(endpoints);
        };
        if outside.as_ref().is_some_and(|outside| outside.host == host) {
            return;
        }
        let (weak, resolver, name) = (Rc::downgrade(self), self.needs.resolver.clone(), host.to_owned());
        let looking = Background::start(async move {
            loop {
                let found = resolver.lookup(&name).await;
                let Some(service) = weak.upgrade() else { return };
                let again = service.found_outside(&name, found);
                drop(service);
                tokio::time::sleep(again).await;
            }
        });
        *outside = Some(Outside { host: host.to_owned(), fault: None, _looking: looking });
    }

    /// Takes in what a host resolves to; says when to look again.
    fn found_outside(&self, host: &str, found: Result<Resolved, Refusal>) -> Duration {
        let (fault, again) = match found {
            Ok(found) => {
                let endpoints: Vec<_> =
                    found.addresses.iter().map(|address| outside(host, *address)).collect();
                self.update(&endpoints);
                (None, found.valid_for)
            }
            // The addresses that it had may still be good, which their breakers will tell.
            Err(refusal) => {
                let known = self.outside.borrow().as_ref().is_some_and(|outside| outside.fault.is_some());
                if !known {
                    tracing::warn!(service = %self.name, %refusal, "a service outside the mesh");
                }
                (Some(refusal.detail), LOOK_AGAIN)
            }
        };
        if let Some(outside) = &mut *self.outside.borrow_mut() {
            outside.fault = fault;
        }
        again
    }
}

/// An address of a host outside the mesh as an endpoint. People know it by the host's name; its port is the service's.
fn outside(host: &str, address: IpAddr) -> Endpoint {
    Endpoint {
        uid: address.to_string(),
        workload: host.to_owned(),
        address: SocketAddr::new(address, 0),
        identity: None,
        ready: true,
        zone: String::new(),
        weight: model::USUAL_WEIGHT,
    }
}
