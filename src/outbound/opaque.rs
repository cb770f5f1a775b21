//! Carries one application connection as bytes, over a mutual TLS connection of its own.

use std::rc::Rc;

use tokio::time::Instant;

use super::{Outbound, Target, services::Reach};
use crate::{
    balance::Endpoint,
    error::{Reason, Refusal},
    net::{copy, io::Io, sniff::Prefixed},
};

/// Endpoints tried for a connection.
const TRIES: usize = 3;

impl Outbound {
    /// Connects to an endpoint, another one while that fails, and copies until both sides have ended.
    pub(super) async fn forward_opaque(&self, mut io: Prefixed<Io>, target: &Target) -> Result<(), Refusal> {
        let service = self.services.get(&target.service, Instant::now()).await?;
        let port = service.config()?.port(target.port).map(|port| port.target_port);
        let port = port.ok_or_else(|| {
            Refusal::new(Reason::UnknownPort, format_args!("{}:{}", service.name, target.port))
        })?;
        let _place = service.requests.enter()?;
        let mut failed: Option<(Rc<Endpoint<Reach>>, Refusal)> = None;
        for _ in 0..TRIES {
            let avoided = failed.as_ref().map(|(endpoint, _)| endpoint);
            let avoided = avoided.map(|endpoint: &Rc<Endpoint<Reach>>| endpoint.uid());
            let mut pick = match (service.pick(&self.random, Instant::now(), avoided).await, failed.take()) {
                (Ok(pick), _) => pick,
                (Err(_), Some((_, refusal))) | (Err(refusal), None) => return Err(refusal),
            };
            match pick.endpoint().reach().to_peer(port).open_opaque().await {
                Ok(mut peer) => {
                    let now = Instant::now();
                    pick.first_byte(now);
                    // It has an application behind it, which is all that can be told of bytes.
                    pick.settle(true, now);
                    let edge = pick.endpoint().reach().edge(&service.name);
                    let _under_way = edge.enter();
                    let copied = copy::both_ways(&mut io, &mut peer).await;
                    edge.connection(copied.sent, copied.received);
                    return Ok(());
                }
                Err(refusal) => {
                    failed = Some((pick.endpoint().clone(), refusal));
                    pick.settle(false, Instant::now());
                }
            }
        }
        Err(failed.map_or(Reason::Connect.into(), |(_, refusal)| refusal))
    }
}
