//! What the mesh consists of, told by numbers alone: documents, who serves what, who subscribes to what.

use std::{fmt::Write as _, ops::Range};

/// Where everything is.
pub(crate) const NAMESPACE: &str = "scale";
/// Of every identity.
pub(crate) const TRUST_DOMAIN: &str = "scale.local";

/// A mesh of so many services, sidecars, and subscriptions of each sidecar.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mesh {
    pub(crate) services: usize,
    pub(crate) sidecars: usize,
    pub(crate) subscriptions: usize,
}

impl Mesh {
    /// The service that a sidecar's workload belongs to.
    pub(crate) fn served_by(&self, sidecar: usize) -> usize {
        sidecar % self.services
    }

    /// The services that a sidecar calls: neighbours in a circle, so that each has as many callers as any other.
    pub(crate) fn called_by(&self, sidecar: usize) -> impl Iterator<Item = usize> + use<> {
        let Self { services, subscriptions, .. } = *self;
        (0..subscriptions.min(services)).map(move |index| (sidecar * subscriptions + index) % services)
    }

    /// The sidecars that call a service.
    pub(crate) fn callers_of(&self, service: usize) -> Vec<usize> {
        (0..self.sidecars)
            .filter(|sidecar| self.called_by(*sidecar).any(|called| called == service))
            .collect()
    }

    /// The sidecars of a service's workloads.
    pub(crate) fn servers_of(&self, service: usize) -> impl Iterator<Item = usize> + use<> {
        (service..self.sidecars).step_by(self.services)
    }

    /// How many of the services have any workload: the first so many.
    pub(crate) fn served(&self) -> usize {
        self.services.min(self.sidecars)
    }

    /// Subscriptions of all sidecars together.
    pub(crate) fn all_subscriptions(&self) -> usize {
        self.sidecars * self.subscriptions.min(self.services)
    }

    /// Every document, as several YAML texts: a service with a canary route and a policy each, as in a mesh that is
    /// really used.
    pub(crate) fn documents(&self) -> impl Iterator<Item = String> {
        let starts = (0..self.services).step_by(AT_ONCE);
        starts.map(|start| documents(start..self.services.min(start + AT_ONCE)))
    }
}

/// Services whose documents are applied together.
const AT_ONCE: usize = 250;

fn documents(services: Range<usize>) -> String {
    let first = name(0);
    let mut yaml = String::new();
    for service in services {
        let (name, policy) = (name(service), policy(service, BASE_TIMEOUT_MS));
        write!(
            yaml,
            "---
apiVersion: v1
kind: Service
metadata: {{ name: {name}, namespace: {NAMESPACE} }}
spec: {{ selector: {{ app: {name} }}, ports: [{{ name: http, port: 80, targetPort: 8080, appProtocol: http }}] }}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{ name: {name}, namespace: {NAMESPACE} }}
spec:
  parentRefs: [{{ group: '', kind: Service, name: {name} }}]
  rules:
    - matches: [{{ path: {{ type: PathPrefix, value: /api }} }}]
      backendRefs: [{{ name: {name}, port: 80, weight: 90 }}, {{ name: {first}, port: 80, weight: 10 }}]
    - backendRefs: [{{ name: {name}, port: 80 }}]
---
{policy}"
        )
        .expect("a String takes what is written");
    }
    yaml
}

/// The request timeout in every policy at first.
pub(crate) const BASE_TIMEOUT_MS: u64 = 1000;

/// A service's `TrafficPolicy`, with something in it that can be told apart.
pub(crate) fn policy(service: usize, timeout_ms: u64) -> String {
    let name = name(service);
    format!(
        "apiVersion: pillion.dev/v1alpha1
kind: TrafficPolicy
metadata: {{ name: {name}, namespace: {NAMESPACE} }}
spec:
  targetRefs: [{{ group: '', kind: Service, name: {name} }}]
  circuitBreaker: {{ consecutiveFailures: 3 }}
  timeouts: {{ request: {timeout_ms}ms }}
"
    )
}

/// A service's name within its namespace, and its `app` label.
pub(crate) fn name(service: usize) -> String {
    format!("s{service}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_has_as_many_callers_as_any_other() {
        let mesh = Mesh { services: 50, sidecars: 100, subscriptions: 10 };
        for service in 0..mesh.services {
            let callers = mesh.callers_of(service);
            assert_eq!(callers.len(), 20);
            assert!(callers.iter().all(|caller| mesh.called_by(*caller).any(|called| called == service)));
            assert_eq!(mesh.servers_of(service).count(), 2);
        }
        assert_eq!(mesh.all_subscriptions(), 1000);
    }
}
