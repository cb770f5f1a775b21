//! Connections that stop being HTTP: WebSocket and other upgrades, and CONNECT tunnels.

use http::{Request, Response};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;

use super::Body;

/// The caller's half of an upgrade, taken off a request before it is sent on.
#[derive(Debug)]
pub struct Pending(OnUpgrade);

impl Pending {
    /// Takes it off.
    pub fn of(request: &mut Request<Body>) -> Self {
        Self(hyper::upgrade::on(request))
    }

    /// Waits until the answer has been written and the connection is ours. `None`: it ended before.
    pub async fn upgraded(self) -> Option<TokioIo<Upgraded>> {
        match self.0.await {
            Ok(upgraded) => Some(TokioIo::new(upgraded)),
            Err(error) => {
                tracing::debug!(%error, "a connection ended before its upgrade");
                None
            }
        }
    }

    /// After a `101 Switching Protocols`: joins the caller's connection and the callee's until both directions have
    /// ended. Returns at once; `guard` lives as long as the joined connections do.
    pub fn join(self, response: &mut Response<Body>, guard: impl Sized + 'static) {
        let callee = Self(hyper::upgrade::on(response));
        tokio::task::spawn_local(async move {
            let _guard = guard;
            let (Some(mut caller), Some(mut callee)) = (self.upgraded().await, callee.upgraded().await)
            else {
                return;
            };
            if let Err(error) = crate::net::copy::both_ways(&mut caller, &mut callee).await {
                tracing::debug!(%error, "an upgraded connection ended");
            }
        });
    }
}
