//! The control plane as seen from here: who we are, what services there are, and word of how we do.
//!
//! Runs on the main thread. Workers know it as a [`directory::Directory`] (services, followed from their first call
//! on) and a [`Mesh`] (who we are), and go on with what they have when the control plane is away.

pub mod addresses;
pub mod answers;
pub mod certify;
pub mod channel;
pub mod directory;
pub mod health;
pub mod holdings;
mod opening;
pub mod own;
pub mod stream;

use std::{sync::Arc, time::Duration};

use pillion_api::model::MeshSettings;
use pillion_certs::Identity;
use tokio::sync::watch;

use crate::error::{Reason, Refusal};

/// Who this workload is in the mesh.
#[derive(Debug, Clone)]
pub struct Mesh {
    /// Its certificate, and whom it believes.
    pub identity: Identity,
    /// The service that it belongs to, else itself: what others see as the source of its requests.
    pub source: Arc<str>,
    /// What holds for the whole mesh.
    pub settings: MeshSettings,
}

/// Who we are; waits, bounded by `patience`, while it is not known yet.
///
/// # Errors
/// [`Reason::NoIdentity`].
pub async fn mesh(mesh: &watch::Receiver<Option<Mesh>>, patience: Duration) -> Result<Mesh, Refusal> {
    if let Some(mesh) = mesh.borrow().as_ref() {
        return Ok(mesh.clone());
    }
    let mut mesh = mesh.clone();
    let known = tokio::time::timeout(patience, mesh.wait_for(Option::is_some)).await;
    match known {
        Ok(Ok(known)) => Ok(known.clone().expect("waited for")),
        _ => Err(Refusal::new(Reason::NoIdentity, format_args!("waited {patience:?}"))),
    }
}
