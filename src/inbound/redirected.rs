//! Connections that were redirected here on their way to the application: other sidecars are told by what they offer in
//! the TLS handshake; everybody else is taken as they are, or refused, by the mesh's mode.

use std::{net::SocketAddr, rc::Rc};

use pillion_api::model::InboundMode;
use tokio::{net::TcpStream, time::Instant};

use super::{
    Closed, Inbound,
    forward::{Admits, FromPeer, IDLE_TIMEOUT, ToApplication},
    policies::Held,
};
use crate::{
    error::{Reason, Refusal},
    http::{
        Version,
        client::{Client, Connect},
    },
    net::{
        copy,
        io::{Abort, Io},
        sniff::{Detected, Patience, Prefixed, Spoken, early, either, sniff},
    },
    telemetry::{
        exchange::{self, Caller},
        listeners::Carried,
    },
    tls::hello,
};

impl Inbound {
    /// Serves a connection that was on its way to `destination`, a port of this workload.
    pub(super) async fn redirected(
        self: &Rc<Self>,
        stream: TcpStream,
        caller: SocketAddr,
        destination: SocketAddr,
    ) -> Result<(), Closed> {
        let (began, within) = (Instant::now(), self.needs.detection_timeout);
        let stranger = Caller { identity: None, address: caller };
        let port = destination.port();
        let open = self.is_open(port).await;
        let application = self.application(destination);
        let spoken = if open {
            let patience = Patience { silent: None, partial: within };
            let connecting = application.connector().connect(Version::Http1);
            either(stream, patience, early(port), connecting).await
        } else {
            let patience = Patience { silent: Some(within), partial: within };
            let sniffed = sniff(stream, patience).await;
            sniffed.map(|(detected, io)| Spoken::Client(detected, io, None))
        };
        // A caller that is gone is no fault of anybody.
        let Ok(spoken) = spoken else { return Ok(()) };
        let outcome = match &spoken {
            Spoken::Client(detected, ..) => detected.as_str(),
            Spoken::Server(..) => "server-first",
            Spoken::Nobody(..) => Detected::Undecided.as_str(),
        };
        self.detections.count(outcome, began, Instant::now());
        match spoken {
            Spoken::Client(Detected::Nothing, ..) if !open => Ok(()),
            Spoken::Nobody(mut io, refusal) => {
                let edge = self.strangers_edge();
                edge.refuse(Carried::begin(edge.listeners(), Some(&stranger), began), &refusal);
                io.abort();
                Err(Closed::told(refusal))
            }
            Spoken::Client(Detected::Tls, io, opened) => {
                let (hello, io) = hello::read(io, within).await;
                match (hello.is_ok_and(|hello| hello.is_ours), open) {
                    (true, _) => {
                        drop((opened, application));
                        self.from_sidecar(io, caller).await
                    }
                    (false, true) => self.carry(io.map(Io::Tcp), opened, &application, port, &stranger).await,
                    (false, false) => Err(self.refuse(io.map(Io::Tcp), Detected::Tls, port, &stranger).await),
                }
            }
            Spoken::Client(detected @ (Detected::Http1 | Detected::Http2), io, opened) => {
                drop(opened);
                let admits = match (open, self.has_probes(port)) {
                    (true, _) => Admits::Anybody,
                    (false, true) => Admits::Probes,
                    (false, false) => {
                        return Err(self.refuse(io.map(Io::Tcp), detected, port, &stranger).await);
                    }
                };
                let version = if detected == Detected::Http1 { Version::Http1 } else { Version::Http2 };
                let (edge, application) = (self.strangers_edge(), Some(application));
                let handler = FromPeer {
                    inbound: self.clone(),
                    port,
                    application,
                    edge,
                    caller: stranger,
                    client_certificate: None,
                    admits,
                    held: Held::new(self.policies.slot(port, None), None),
                    turned_away: None,
                };
                self.serve_http(io.map(Io::Tcp), version, handler).await
            }
            Spoken::Client(_, io, opened) if open => {
                self.carry(io.map(Io::Tcp), opened, &application, port, &stranger).await
            }
            Spoken::Server(io, upstream) => {
                self.carry(io.map(Io::Tcp), Some(upstream), &application, port, &stranger).await
            }
            Spoken::Client(detected, io, _) => {
                Err(self.refuse(io.map(Io::Tcp), detected, port, &stranger).await)
            }
        }
    }

    /// Whether a port takes what is not the mesh's. Waits, bounded, while it is not known what holds in the mesh.
    async fn is_open(&self, port: u16) -> bool {
        if self.needs.plaintext_ports.contains(&port) {
            return true;
        }
        match self.mesh().await {
            Ok(mesh) => mesh.settings.inbound == InboundMode::Permissive,
            // Nobody is let in because the control plane is away.
            Err(_) => false,
        }
    }

    fn has_probes(&self, port: u16) -> bool {
        self.needs.probes.iter().any(|probe| probe.port == port)
    }

    /// Whoever serves the port: where it is declared to listen, else where the caller wanted to connect.
    fn application(&self, destination: SocketAddr) -> Client<ToApplication> {
        let declared = self.applications.get(&destination.port()).cloned();
        declared.unwrap_or_else(|| Client::new(ToApplication(destination), IDLE_TIMEOUT))
    }

    /// Copies bytes between a caller and the application.
    async fn carry(
        &self,
        mut io: Prefixed<Io>,
        opened: Option<Prefixed<Io>>,
        application: &Client<ToApplication>,
        port: u16,
        caller: &Caller,
    ) -> Result<(), Closed> {
        let edge = self.strangers_edge();
        let mut carried = Carried::begin(edge.listeners(), Some(caller), Instant::now());
        carried.note(|noted, _| exchange::put(&mut noted.authority, &format!(":{port}")));
        let connected = Held::new(self.policies.slot(port, None), None).connect_opaque();
        let opened = match opened {
            _ if connected.is_err() => Err(connected.as_ref().expect_err("it is one").clone()),
            Some(opened) => Ok(opened),
            None => application.connector().connect(Version::Http1).await.map(Prefixed::fresh),
        };
        match opened {
            Ok(mut opened) => {
                let _under_way = edge.enter();
                let copied = copy::both_ways(&mut io, &mut opened).await;
                copied.count(&edge, carried);
                Ok(())
            }
            Err(refusal) => {
                edge.refuse(carried, &refusal);
                io.abort();
                Err(Closed::told(refusal))
            }
        }
    }

    async fn refuse(&self, mut io: Prefixed<Io>, detected: Detected, port: u16, caller: &Caller) -> Closed {
        let what = match detected {
            Detected::Tls => "TLS that is not the mesh's",
            _ => "no TLS",
        };
        let refusal = Refusal::new(Reason::PlaintextRefused, format_args!("{what}, to port {port}"));
        self.handshake(refusal.reason.as_str());
        let edge = self.strangers_edge();
        edge.refuse(Carried::begin(edge.listeners(), Some(caller), Instant::now()), &refusal);
        if detected == Detected::Http1 {
            self.voice.end_http1(&mut io, &refusal).await;
        } else {
            io.abort();
        }
        Closed::told(refusal)
    }
}
