//! A mesh of a given size, ready to be compiled: what a control plane does after every change.

use pillion::{
    compile::{self, Compiled, Workload},
    resource::{Documents, admit, text},
};
use pillion_api::wire;

/// Instances of each service.
const INSTANCES: usize = 3;

/// Documents and workloads. Every service has a canary route and a policy, as in a mesh that is really used.
#[derive(Debug)]
pub struct Mesh {
    documents: Documents,
    workloads: Vec<Workload>,
}

impl Mesh {
    /// With this many services, three instances each.
    pub fn of(services: usize) -> Self {
        let yaml: String = (0..services).map(documents_of).collect();
        let written = text::read(&yaml, text::Format::Yaml).expect("valid YAML");
        let mut documents = Documents::default();
        for (index, one) in written.iter().enumerate() {
            documents.insert(admit::admit(index, one, None).expect("valid documents"));
        }
        let workloads = (0..services).flat_map(|service| (0..INSTANCES).map(move |n| workload(service, n)));
        Self { documents, workloads: workloads.collect() }
    }

    /// Everything anew, as after a change.
    pub fn compile(&self) -> Compiled {
        let (compiled, faults) = compile::compile(&self.documents, &self.workloads);
        assert!(faults.is_empty(), "{faults:?}");
        compiled
    }
}

fn documents_of(service: usize) -> String {
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{ name: s{service}, namespace: bench }}
spec: {{ selector: {{ app: s{service} }}, ports: [{{ name: http, port: 80, targetPort: 8080, appProtocol: http }}] }}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{ name: s{service}, namespace: bench }}
spec:
  parentRefs: [{{ group: '', kind: Service, name: s{service} }}]
  rules:
    - matches: [{{ path: {{ type: PathPrefix, value: /api }} }}]
      backendRefs: [{{ name: s{service}, port: 80, weight: 90 }}, {{ name: s0, port: 80, weight: 10 }}]
    - backendRefs: [{{ name: s{service}, port: 80 }}]
---
apiVersion: pillion.dev/v1alpha1
kind: TrafficPolicy
metadata: {{ name: s{service}, namespace: bench }}
spec:
  targetRefs: [{{ group: '', kind: Service, name: s{service} }}]
  circuitBreaker: {{ consecutiveFailures: 3 }}
"
    )
}

fn workload(service: usize, instance: usize) -> Workload {
    let uid = format!("s{service}-{instance}");
    Workload {
        hello: wire::Hello {
            instance_uid: uid.clone(),
            workload: uid,
            labels: [("app".to_owned(), format!("s{service}"))].into(),
            ports: vec![wire::WorkloadPort { name: "http".into(), port: 8080 }],
            inbound_address: "127.0.0.1:15006".into(),
            health: Some(wire::Health { ready: true, reason: String::new() }),
            ..Default::default()
        },
        spiffe_id: format!("spiffe://bench.local/ns/bench/sa/s{service}"),
        namespace: "bench".into(),
    }
}
