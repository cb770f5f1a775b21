//! What a destination is: from the address that the application connects to, or the host that it names.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use pillion_api::{
    model::OutboundMode,
    name::{ServiceName, is_host},
};
use tokio::{net::TcpStream, time::Instant};

use super::{Outbound, Target, opaque::Unserved};
use crate::{
    control::directory::{Answer, Question},
    error::{Reason, Refusal},
    net::{
        io::{Abort, Io},
        sniff::{Detected, Patience, sniff},
    },
    tls::hello,
};

/// Whoever is turned away has so long to say that an answer is of use.
const TURNING_AWAY: Duration = Duration::from_secs(1);

impl Outbound {
    /// Serves a connection whose destination the kernel has told.
    pub(super) async fn redirected(
        self: std::rc::Rc<Self>,
        stream: TcpStream,
        destination: SocketAddr,
    ) -> Result<(), Unserved> {
        let destination = SocketAddr::new(destination.ip().to_canonical(), destination.port());
        let io = Io::Tcp(stream);
        match self.at(destination).await {
            Ok(Some(target)) => self.connection(io, target).await,
            Ok(None) if self.registry_only() => self.registered(io, destination).await,
            Ok(None) => Ok(self.outside.pass(io, destination).await?),
            Err(refusal) => Err(self.turn_away(io, refusal).await.into()),
        }
    }

    /// Answers an HTTP/1 request with the reason why it goes nowhere, and cuts everything else off.
    pub(super) async fn turn_away(&self, io: Io, refusal: Refusal) -> Refusal {
        let patience = Patience { silent: Some(TURNING_AWAY), partial: TURNING_AWAY };
        let Ok((detected, mut io)) = sniff(io, patience).await else { return refusal };
        if detected == Detected::Http1 {
            self.voice.end_http1(&mut io, &refusal).await;
        } else {
            io.abort();
        }
        refusal
    }

    /// What an address is. `None`: nothing that the mesh knows.
    async fn at(&self, address: SocketAddr) -> Result<Option<Target>, Refusal> {
        let question = Question::Address(address);
        let mut answer = self.answers.resolve(question.clone()).await;
        if let Ok(Some(Answer { service, uid: Some(uid), .. })) = &answer
            && self
                .services
                .get(service, Instant::now())
                .await
                .is_ok_and(|service| !service.has_endpoint(uid))
        {
            // Its workload has restarted, and is another one at the same address.
            answer = self.answers.resolve_anew(question).await;
        }
        match answer {
            Ok(Some(answer)) => {
                Ok(Some(Target { endpoint: answer.uid, ..Target::new(answer.service, answer.port) }))
            }
            Ok(None) if self.is_virtual(address.ip()) => {
                let detail = format_args!("{address} is an address of the mesh, but no service has it");
                Err(Refusal::new(Reason::UnknownService, detail))
            }
            Err(refusal) if self.is_virtual(address.ip()) => Err(refusal),
            Ok(None) => Ok(None),
            // In an outage an application must not lose what is outside the mesh, as far as the mesh lets it out. Who has never
            // heard what holds in the mesh, or is only not answered in time, does not guess.
            Err(refusal)
                if refusal.reason == Reason::ControlPlaneAway && self.needs.mesh.borrow().is_some() =>
            {
                tracing::warn!(%address, %refusal, "taken for a destination outside the mesh");
                Ok(None)
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// What a host is that is no service's name. `None`: one outside, which may be called.
    pub(super) async fn host(&self, host: &str, port: u16) -> Result<Option<Target>, Refusal> {
        let host = host.trim_end_matches('.');
        if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>()
            && !address.is_loopback()
        {
            let known = self.needs.mesh.borrow().is_some();
            let target = if known { self.at((address, port).into()).await? } else { None };
            if let Some(target) = target {
                return Ok(Some(target));
            }
        }
        // Before it is known who we are there is nobody to ask.
        let known = self.needs.mesh.borrow().is_some();
        let name = host.to_ascii_lowercase();
        // What is no DNS name is no host that the mesh could know, and may be of any length.
        if known && is_host(&name) && !super::target::is_this_host(host) && host.parse::<IpAddr>().is_err() {
            let question = Question::Host(name.into());
            if let Ok(Some(answer)) = self.answers.resolve(question).await {
                return Ok(Some(Target::new(answer.service, port)));
            }
        }
        if self.registry_only() && !super::target::is_this_host(host) {
            return Err(Refusal::new(Reason::OutsideRefused, format_args!("{host}:{port}")));
        }
        Ok(None)
    }

    /// Where only what the mesh knows may be called: finds out by name what the connection is for.
    async fn registered(self: std::rc::Rc<Self>, io: Io, destination: SocketAddr) -> Result<(), Unserved> {
        let within = self.needs.detection_timeout;
        let Ok((detected, io)) = sniff(io, Patience { silent: Some(within), partial: within }).await else {
            return Ok(());
        };
        let refused =
            |what: &str| Refusal::new(Reason::OutsideRefused, format_args!("{destination}, {what}"));
        let (mut io, target) = match detected {
            Detected::Nothing => return Ok(()),
            // Each request says whom it is for.
            Detected::Http1 | Detected::Http2 => return self.proxied(detected, io).await,
            Detected::Tls => {
                let (hello, io) = hello::read(io, within).await;
                let target = match hello.ok().and_then(|hello| hello.server_name) {
                    Some(name) => self.host(&name, destination.port()).await,
                    None => Err(refused("TLS without a server name")),
                };
                (io, target)
            }
            Detected::Opaque | Detected::Undecided => (io, Err(refused("neither HTTP nor TLS"))),
        };
        match target.and_then(|target| target.ok_or_else(|| refused("a host of this name"))) {
            Ok(target) => self.forward_opaque(io, &target, None).await,
            Err(refusal) => {
                io.abort();
                Err(refusal.into())
            }
        }
    }

    fn registry_only(&self) -> bool {
        let mesh = self.needs.mesh.borrow();
        mesh.as_ref().is_some_and(|mesh| mesh.settings.outbound == OutboundMode::RegistryOnly)
    }

    fn is_virtual(&self, address: IpAddr) -> bool {
        let mesh = self.needs.mesh.borrow();
        // Nobody else has an address of class E (RFC 1112 4), in which the mesh's are by default.
        let class_e = matches!(address, IpAddr::V4(address) if address.octets()[0] >= 240);
        class_e || mesh.as_ref().is_some_and(|mesh| mesh.settings.is_virtual(address))
    }
}

impl Target {
    /// A service as a whole.
    pub fn new(service: ServiceName, port: u16) -> Self {
        Self { service, port, endpoint: None }
    }
}
