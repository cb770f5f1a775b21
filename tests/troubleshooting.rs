//! The page that starts from a refusal: what each reason means, what is likely behind it, and what to run next.

use std::fmt::Write as _;

use pillion_proxy::error::Reason;
use pillion_proxy::telemetry::names::Metric;

use crate::reference::compare;

/// Likely causes, and what tells them apart.
struct Advice {
    causes: &'static [&'static str],
    next: &'static [&'static str],
}

const EXPLAIN: &str = "pillion explain --from CALLER --to SERVICE --path PATH";
const ENDPOINTS: &str = "pillion endpoints SERVICE";
const CHECK: &str = "pillion check";
const STAT: &str = "pillion stat edges --to SERVICE";

/// Every reason has its entry: a new one does not build without.
fn advice(reason: Reason) -> Advice {
    let (causes, next): (&[&str], &[&str]) = match reason {
        Reason::UnknownService => (
            &[
                "The name is misspelt, or of another namespace: a bare name is of the caller's own.",
                "Its Service document is not applied.",
            ],
            &[EXPLAIN, "pillion get services -A"],
        ),
        Reason::UnknownPort => (
            &["The caller names a port that the Service does not list; `http://NAME/` means 80."],
            &[EXPLAIN, "pillion describe service NAME -n NAMESPACE"],
        ),
        Reason::OutsideRefused => (
            &[
                "`MeshConfig` says `outbound: registryOnly`, and no `ExternalService` is for the host and port.",
            ],
            &["pillion get meshconfig", "pillion get externalservices -A"],
        ),
        Reason::OpaqueRefused => (
            &[
                "The client speaks TLS itself, or no HTTP at all, to a port that has routes.",
                "The port is not for HTTP: then its routes can never hold; declare `appProtocol: tcp` and delete them.",
            ],
            &[EXPLAIN, "pillion get httproutes -n NAMESPACE"],
        ),
        Reason::NoTarget => (
            &[
                "A request without `host`, or bytes that are not HTTP at the forward-proxy port, where nothing says whom they are for.",
            ],
            &["curl -v --proxy http://127.0.0.1:15001 http://SERVICE.NAMESPACE.mesh/"],
        ),
        Reason::RouteNotMatched => (
            &[
                "The service has routes, and none of their rules fits: a service with any route serves only what its rules name.",
            ],
            &[EXPLAIN],
        ),
        Reason::NoBackend => (
            &["A route names a Service or a port that does not exist, or all of its weights are 0."],
            &[EXPLAIN, "pillion describe httproute NAME -n NAMESPACE"],
        ),
        Reason::NoIdentity => (
            &[
                "The sidecar has just started, and the control plane has not signed its certificate yet.",
                "Its token is wrong, used up or too old, or its clock is.",
            ],
            &[CHECK, "the sidecar's log"],
        ),
        Reason::DiscoveryTimeout => (
            &[
                "The sidecar has no stream to the control plane.",
                "The control plane is overloaded or has just restarted.",
            ],
            &[CHECK, "curl 127.0.0.1:15020/metrics | grep pillion_control_plane"],
        ),
        Reason::ControlPlaneAway => (
            &[
                "A destination was called for the first time while the control plane could not be asked what it is. Destinations that are known go on.",
            ],
            &[CHECK],
        ),
        Reason::NoEndpoints => (
            &[
                "No workload has the labels that the Service selects.",
                "All of its workloads have ended, or their leases have.",
            ],
            &[
                ENDPOINTS,
                "pillion describe service NAME -n NAMESPACE",
                "curl 127.0.0.1:15080/v1/mesh/workloads",
            ],
        ),
        Reason::NoReadyEndpoints => (
            &[
                "The applications fail their health checks, or have just started.",
                "Their sidecars are bypassed: the reason says so.",
            ],
            &[ENDPOINTS, CHECK],
        ),
        Reason::BreakersOpen => (
            &[
                "The service fails, or answers too slowly: the answer's details name each breaker's reason.",
                "`maxEjectedPercent` or `panicPercent` lets all breakers open at once.",
            ],
            &[ENDPOINTS, STAT, EXPLAIN],
        ),
        Reason::TooManyRequests => (
            &[
                "As many requests are under way from this sidecar as `connections.maxRequests` allows: the service has become slow, or the bound is too low.",
            ],
            &[EXPLAIN, STAT],
        ),
        Reason::ConnectionLimit => (
            &["`connections.maxConnections` are open, and none became free within `queueTimeout`."],
            &[EXPLAIN, "curl 127.0.0.1:15020/metrics | grep pillion_service_connections"],
        ),
        Reason::QueueFull => (
            &[
                "As many requests wait already as `connections.maxPending` allows, since nobody who serves is ready or free.",
            ],
            &[ENDPOINTS, EXPLAIN],
        ),
        Reason::NoAddress => (
            &[
                "The host of an `ExternalService`, or one outside the mesh, does not exist in DNS, or DNS does not answer the sidecar.",
            ],
            &["dig HOST", "pillion get externalservices -A"],
        ),
        Reason::Connect => (
            &[
                "The peer's sidecar has ended, or a network policy or firewall refuses its inbound port (15006).",
                "The workload says a wrong address of itself.",
            ],
            &[ENDPOINTS, "curl -v ADDRESS"],
        ),
        Reason::ConnectTimeout => (
            &[
                "A firewall drops packets to the peer, the host is gone, or the network is overloaded.",
                "`connections.connectTimeout` is shorter than the way is long.",
            ],
            &[ENDPOINTS, "curl -v --connect-timeout 5 ADDRESS"],
        ),
        Reason::TlsHandshake => (
            &[
                "A certificate has ended or is not valid yet: look at the clocks.",
                "Something that is no sidecar listens at the address.",
                "The two sides trust different authorities.",
            ],
            &[CHECK, "the peer's log"],
        ),
        Reason::PeerIdentity => (
            &[
                "The address belongs to another workload by now.",
                "A workload runs under another service account than it registered with.",
            ],
            &[ENDPOINTS, CHECK],
        ),
        Reason::AppConnect => (
            &[
                "The application does not listen (yet, or any more) on the port that its sidecar was told (`--ports`).",
                "It listens on another address than the one given.",
            ],
            &["curl 127.0.0.1:15020/accepts/PORT", "the application's log"],
        ),
        Reason::PortNotServed => (
            &[
                "The Service's `targetPort` is none of the ports that the workload's sidecar was told (`--ports`).",
            ],
            &[EXPLAIN, "curl 127.0.0.1:15020/config"],
        ),
        Reason::NotProcessed => (
            &[
                "The peer closed the connection as the request was sent, and it could not be sent again (its body is gone, or tries or time are used up).",
            ],
            &[STAT, "the peer's log"],
        ),
        Reason::Reset => (
            &[
                "The application crashed or closed the connection in the middle of its answer.",
                "It keeps idle connections for less long than its peers think.",
            ],
            &["the application's log", ENDPOINTS],
        ),
        Reason::PeerProtocol => (
            &[
                "The application's answer is not the protocol that its port declares, or breaks its rules.",
                "`appProtocol` is wrong: `kubernetes.io/h2c` for an HTTP/1 server, say.",
            ],
            &["pillion describe service NAME -n NAMESPACE", "curl -v ADDRESS"],
        ),
        Reason::DeadlineExceeded => (
            &[
                "The caller's own deadline (`grpc-timeout`, `x-pillion-timeout-ms`) passed: it is shortened at each hop by what was used.",
            ],
            &[STAT, EXPLAIN],
        ),
        Reason::IdleTimeout => (
            &[
                "A stream was silent for longer than `timeouts.idle`: the application hangs, or is quiet by nature and should send keep-alives.",
            ],
            &[EXPLAIN, "the application's log"],
        ),
        Reason::RequestTimeout => (
            &[
                "The service is slower than `timeouts.request`, or a route's `timeouts`, allows, all tries included.",
                "A fault is injected that delays.",
            ],
            &[EXPLAIN, STAT],
        ),
        Reason::MalformedRequest => (
            &[
                "The client sends what HTTP does not allow (two lengths, a bad chunk, a bad field), or no HTTP to an HTTP port.",
            ],
            &["curl -v the same request", "the sidecar's log"],
        ),
        Reason::HeadersTooLarge => (
            &["Cookies or tokens have grown beyond the sidecar's bound, or the callee's `requestLimits`."],
            &[EXPLAIN],
        ),
        Reason::UriTooLong => (&["A query carries what should be in a body."], &["the caller's code"]),
        Reason::Http2Abuse => (
            &[
                "A client opens and cancels streams without end, or sends floods of empty frames: a fault of its library, or an attack.",
            ],
            &["curl 127.0.0.1:15020/metrics | grep pillion_malformed_requests_total"],
        ),
        Reason::UpgradeFailed => (
            &["The application answered 101, and then did not go on (WebSocket)."],
            &["the application's log"],
        ),
        Reason::RateLimited => (
            &[
                "The callee's `rateLimits`: the answer's details name the limit, and `retry-after` says when to come back.",
            ],
            &[EXPLAIN, "curl 127.0.0.1:15020/metrics | grep pillion_rate_limit # at the callee"],
        ),
        Reason::Overloaded => (
            &[
                "The callee works on as many requests as its `concurrency` allows, and those that wait are of a higher priority or are too many.",
            ],
            &[STAT, "curl 127.0.0.1:15020/metrics | grep pillion_concurrency # at the callee"],
        ),
        Reason::TooManyConnections => (
            &[
                "A client opens more connections than the callee's `requestLimits` allow: it does not keep them, or has too many processes.",
            ],
            &[EXPLAIN],
        ),
        Reason::BodyTooLarge => {
            (&["The body is larger than the callee's `requestLimits.maxBodyBytes`."], &[EXPLAIN])
        }
        Reason::FaultInjected => (
            &[
                "A `TrafficPolicy` of the service has `faults`: `pillion-fault` in the answer names it. It ends by itself.",
            ],
            &[EXPLAIN, "pillion get trafficpolicies -A"],
        ),
        Reason::PlaintextRefused => (
            &[
                "`MeshConfig` says `inbound: strict`, and the caller has no sidecar, or its requests go past it.",
            ],
            &[CHECK, "pillion get meshconfig"],
        ),
    };
    Advice { causes, next }
}

#[test]
fn of_each_reason_it_is_told_what_to_do() {
    let mut page = String::from(
        "# Troubleshooting\n\nMade from the program by `make reference`. An answer that a sidecar made says so in `pillion-error`: \
         the reason, which sidecar (`hop=outbound`: the caller's, `hop=inbound`: the callee's), and the particulars. Look its reason up \
         here. Without `pillion-error` the answer is the application's. `pillion check` looks at the mesh as a whole; CALLER and \
         SERVICE are `<name>.<namespace>`; port 15020 is the sidecar's, on its own host.\n",
    );
    for reason in Reason::ALL {
        let Advice { causes, next } = advice(*reason);
        assert!(!causes.is_empty() && !next.is_empty(), "{reason:?}");
        let (status, text) = (reason.status().as_u16(), reason.text());
        let _ = writeln!(page, "\n## {} ({status})\n\nMeans: {text}.\n", reason.as_str());
        for cause in causes {
            let _ = writeln!(page, "- {cause}");
        }
        for text in causes.iter().chain(next) {
            // What a page tells people to look for exists.
            for metric in text
                .split(|it: char| !(it.is_ascii_lowercase() || it == '_'))
                .filter(|it| it.starts_with("pillion_"))
            {
                assert!(
                    Metric::ALL.iter().any(|known| known.name().starts_with(metric)),
                    "{metric}, of {reason:?}"
                );
            }
        }
        let next: Vec<String> = next.iter().map(|next| format!("`{next}`")).collect();
        let _ = writeln!(page, "\nNext: {}", next.join(", "));
    }
    page += &crate::prometheus::advice::section();
    compare("troubleshooting.md", &page);
}
