//! Counting a request on an edge that is known, as nearly all are.

use std::rc::Rc;

use http::StatusCode;
use pillion_proxy::{
    error::Hop,
    telemetry::edge::{Edge, EdgeKey, Edges, Outcome},
};

use crate::Case;

/// An edge between two services, as a sidecar keeps it.
pub(crate) fn edge(edges: &Edges) -> Rc<Edge> {
    edges.edge(EdgeKey {
        direction: Hop::Outbound,
        source: "client.bench".into(),
        target: "backend.bench".into(),
        backend: "backend.bench".into(),
        workload: "backend-1".into(),
        mtls: true,
    })
}

/// A request that enters, takes a while, and ends with 200.
#[derive(Debug)]
pub struct Count {
    edge: Rc<Edge>,
    took_us: u64,
}

impl Count {
    /// Nothing counted yet.
    pub fn new() -> Self {
        Self { edge: edge(&Edges::default()), took_us: 100 }
    }
}

impl Default for Count {
    fn default() -> Self {
        Self::new()
    }
}

impl Case for Count {
    type Output = ();

    fn run(&mut self) {
        let _under_way = self.edge.enter();
        // Over all buckets from 0.1 to 100 ms.
        self.took_us = if self.took_us > 100_000 { 100 } else { self.took_us * 5 / 4 };
        self.edge.request(Outcome::Status(StatusCode::OK), self.took_us);
    }
}
