//! Workload identity for pillion: who a peer is, and how both sides of a connection prove it.
//!
//! A workload makes a [`PrivateKey`] that never leaves its process and sends a request for it; the control plane's
//! [`Authority`] signs a short-lived certificate that names the workload by a [`SpiffeId`]. Key and chain together
//! are a [`Credential`]; what to believe about others is a [`TrustBundle`]. An [`Identity`] holds the current
//! pair and makes TLS configurations that follow it, and [`keep_fresh`] replaces the credential long before it ends.
//!
//! Modules, lowest floor first; each imports only from floors below it:
//!
//! | floor | modules |
//! |---|---|
//! | 5 | [`rotate`] |
//! | 4 | [`tls`] |
//! | 3 | [`authority`] · [`verify`] · `sessions` |
//! | 2 | [`credential`] · [`fault`] |
//! | 1 | [`key`] · `csr` · [`bundle`] · `leaf` |
//! | 0 | [`error`] · [`spiffe`] · [`validity`] |

pub mod authority;
pub mod bundle;
pub mod credential;
mod csr;
pub mod error;
pub mod fault;
pub mod key;
mod leaf;
pub mod rotate;
mod sessions;
pub mod spiffe;
pub mod tls;
pub mod validity;
pub mod verify;

pub use authority::Authority;
pub use bundle::{Fingerprint, TrustBundle};
pub use credential::Credential;
pub use error::Error;
pub use fault::PeerFault;
pub use key::PrivateKey;
pub use rotate::{Issued, RenewalStatus, keep_fresh};
pub use spiffe::{SpiffeId, TrustDomain};
pub use tls::{Identity, RootPin, bootstrap_client_config, peer_identity, peer_not_after};
