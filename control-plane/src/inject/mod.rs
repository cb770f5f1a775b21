//! Puts sidecars into what people deploy: Kubernetes manifests and Compose files. Documents in, documents out.
//!
//! [`inject`] is what the command line and whoever else meets a manifest on its way call. It is idempotent: what was injected
//! before is injected anew, as this version and these options have it. [`uninject`] gives back what there was.

mod compose;
mod kubernetes;
mod node;
mod sidecar;
pub mod text;
mod tuning;

#[cfg(test)]
mod tests;

pub use node::{Node, Object};

use crate::resource::{Fault, Faults};

/// What holds for every workload of an injection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Has `pillion-proxy`.
    pub proxy_image: String,
    /// Has `pillion-proxy`, and what installing a redirection takes.
    pub redirect_image: String,
    /// Has `pillion`.
    pub control_plane_image: String,
    /// `host:port` of the control plane's gRPC; `None`: where it usually is.
    pub control_plane: Option<String>,
    /// For Compose, which has no namespaces: the mesh's namespace for its services.
    pub namespace: String,
    /// For Compose: the file of a join token, `{service}` in it standing for the service's name.
    pub join_token_file: Option<String>,
    /// For Compose: put a control plane into the file, which gives the identities.
    pub with_control_plane: bool,
}

impl Default for Options {
    fn default() -> Self {
        let image = |name| format!("pillion/{name}:{}", env!("CARGO_PKG_VERSION"));
        Self {
            proxy_image: image("proxy"),
            redirect_image: image("redirect"),
            control_plane_image: image("control-plane"),
            control_plane: None,
            namespace: crate::resource::DEFAULT_NAMESPACE.into(),
            join_token_file: None,
            with_control_plane: false,
        }
    }
}

/// What came of an injection.
#[derive(Debug, Default)]
pub struct Injected {
    /// The documents, as many as there were and in that order.
    pub documents: Vec<Node>,
    /// For Compose: a `Service` document for each service that was injected and has ports.
    pub services: Vec<Node>,
    /// What somebody should know: who was left out, and what will not be as they may think.
    pub notes: Vec<String>,
}

/// Gives every workload in the documents a sidecar. What is neither Compose nor a Kubernetes workload stays as it is.
///
/// # Errors
/// All faults, each with its document and field; nothing is injected then.
pub fn inject(documents: Vec<Node>, options: &Options) -> Result<Injected, Vec<Fault>> {
    let mut documents = uninject(documents)?;
    let mut report = Report::default();
    let mut services = Vec::new();
    for (index, document) in documents.iter_mut().enumerate() {
        report.index = index;
        if compose::is_compose(document) {
            services.extend(compose::inject(document, options, &mut report));
        } else {
            kubernetes::inject(document, options, &mut report);
        }
    }
    if report.faults.is_empty() {
        Ok(Injected { documents, services, notes: report.notes })
    } else {
        Err(report.faults)
    }
}

/// Takes out what [`inject`] has put in.
///
/// # Errors
/// All places where somebody has changed what is needed to undo an injection.
pub fn uninject(mut documents: Vec<Node>) -> Result<Vec<Node>, Vec<Fault>> {
    let mut report = Report::default();
    for (index, document) in documents.iter_mut().enumerate() {
        report.index = index;
        if compose::is_compose(document) {
            compose::uninject(document, &mut report);
        } else {
            kubernetes::uninject(document, &mut report);
        }
    }
    if report.faults.is_empty() { Ok(documents) } else { Err(report.faults) }
}

/// Gathers what is said of the documents.
#[derive(Debug, Default)]
struct Report {
    index: usize,
    faults: Vec<Fault>,
    notes: Vec<String>,
}

impl Report {
    /// Takes over the faults of one thing, which people know by `name`.
    fn faults(&mut self, name: &str, faults: Faults) {
        self.faults.extend(faults.into_vec().into_iter().map(|fault| Fault {
            document: Some(name.to_owned()).filter(|name| !name.is_empty()),
            index: Some(self.index),
            ..fault
        }));
    }

    fn note(&mut self, name: &str, note: impl std::fmt::Display) {
        self.notes.push(format!("{name}: {note}"));
    }
}
