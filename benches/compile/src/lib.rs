//! A mesh of a given size, ready to be compiled as a whole, or to change somewhere.

use std::{hint::black_box, sync::Arc};

use pillion::{
    compile::{self, Assembly, Compiled, Workload},
    publish::{LastCompile, Publisher, Subscriber},
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

    /// Everything anew, as after a start or a change of documents.
    pub fn compile(&self) -> Compiled {
        let (compiled, faults) = compile::compile(&self.documents, &self.workloads);
        assert!(faults.is_empty(), "{faults:?}");
        compiled
    }
}

/// A compiled mesh with subscribers who have everything already: what a control plane is most of the time.
pub struct Published {
    assembly: Assembly,
    publisher: Arc<Publisher>,
    /// Those of the service that changes. The others are in `others`: nobody should have to look at them.
    told: Vec<Subscriber>,
    others: Vec<Subscriber>,
    workload: Workload,
}

impl Published {
    /// With so many services, and sidecars that subscribe to so many of them each, neighbours in a circle.
    pub fn of(services: usize, sidecars: usize, subscriptions: usize) -> Self {
        let Mesh { documents, workloads } = Mesh::of(services);
        let workload = workloads[0].clone();
        let assembly = Assembly::new(&documents, workloads.into_iter().map(Arc::new));
        let publisher = Arc::new(Publisher::new(assembly.everything(), LastCompile::default()));
        let (mut told, mut others) = (Vec::new(), Vec::new());
        for sidecar in 0..sidecars {
            let mut subscriber = publisher.subscriber(&format!("sidecar-{sidecar}"));
            for index in 0..subscriptions {
                let service = (sidecar * subscriptions + index) % services;
                subscriber.subscribe(&format!("s{service}.bench"), "", "").expect("room");
            }
            while subscriber.next_update().is_some() {}
            let group = if subscriber.subscribes("s0.bench") { &mut told } else { &mut others };
            group.push(subscriber);
        }
        Self { assembly, publisher, told, others, workload }
    }

    /// An instance becomes ready or unready, and each subscriber is made what it is sent. Gives how many were told.
    pub fn change(&mut self) -> usize {
        let health = self.workload.hello.health.get_or_insert_default();
        health.ready = !health.ready;
        let uid = self.workload.hello.instance_uid.clone();
        let changed = self.assembly.change([(uid, Some(Arc::new(self.workload.clone())))]);
        self.publisher.publish(changed, LastCompile::default());
        let mut told = 0;
        for subscriber in &mut self.told {
            while let Some(update) = subscriber.next_update() {
                black_box(update);
                told += 1;
            }
        }
        told
    }

    /// Whether anybody has to be told anything.
    pub fn is_quiet(&self) -> bool {
        !self.told.iter().chain(&self.others).any(Subscriber::is_dirty)
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
            health: Some(wire::Health { ready: true, ..Default::default() }),
            ..Default::default()
        },
        spiffe_id: format!("spiffe://bench.local/ns/bench/sa/s{service}"),
        namespace: "bench".into(),
    }
}
