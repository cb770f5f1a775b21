"""Envoy as both sidecars, as lean as it gets: no access log, no tracing, no statistics."""

import json
import re
import subprocess
from pathlib import Path

from backend import Backend
from certificates import Certificates, spiffe_id
from pairs.base import Running, TlsEntrance
from processes import PROXY_CORE, Group, Process, answers, free_port, until
from sockets import listens

TYPE = "type.googleapis.com/envoy.extensions"
# 64 KiB per stream and 1 MiB per connection are its best for large bodies; its default of 256 MiB is not.
WINDOWS = {"initial_stream_window_size": 65536, "initial_connection_window_size": 1048576}
NO_LIMITS = {"max_connections": 8192, "max_pending_requests": 8192, "max_requests": 8192}


class Envoy:
    """`between`: what carries HTTP between the two, `h1` or `h2`."""

    def __init__(self, program: Path, certificates: Certificates, between: str):
        told = subprocess.run([program, "--version"], capture_output=True, text=True).stdout
        version = re.search(r"/(\d+\.\d+\.\d+)/", told)[1]
        self.program, self.certificates, self.between = program, certificates, between
        self.name = f"envoy-{between}"
        self.settings = (
            f"Envoy {version}, concurrency 1, lean (no access log, tracing, statistics, request IDs), "
            f"{'HTTP/2' if between == 'h2' else 'HTTP/1'} between over TLS 1.3, SPIFFE IDs verified "
            "both ways, sessions resumed by tickets, HTTP/2 windows of 64 KiB and 1 MiB"
        )

    def carries(self, kind: str) -> bool:
        return kind != "tcp" or self.between == "h1"

    def server_side(self, group: Group, backend: Backend, kind: str) -> Running:
        port = free_port()
        behind = backend.http2 if kind == "http2" else backend.http1
        tls = {
            "@type": f"{TYPE}.transport_sockets.tls.v3.DownstreamTlsContext",
            "require_client_certificate": True,
            "common_tls_context": self.tls("backend", "client", kind),
        }
        cluster = self.cluster(behind, kind, http2=kind == "http2", tls=None)
        process, admin = self.start(group, "backend", self.listener(port, kind, tls), cluster)
        until(f"{process.name} listens", lambda: listens(port), [process])
        return Running(port, [process], admin)

    def client_side(self, group: Group, server: Running, kind: str) -> Running:
        port = free_port()
        tls = {
            "@type": f"{TYPE}.transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context": self.tls("client", "backend", kind),
        }
        cluster = self.cluster(server.entrance, kind, http2=self.between == "h2", tls=tls)
        process, admin = self.start(group, "client", self.listener(port, kind, None), cluster)
        return Running(port, [process, *server.processes], admin)

    def ready(self, running: Running) -> bool:
        return answers(running.admin, "/ready")

    def tls_entrance(self, server: Running) -> TlsEntrance:
        return TlsEntrance(server.entrance, "h2" if self.between == "h2" else "http/1.1", "backend.bench")

    def tls(self, who: str, peer: str, kind: str) -> dict:
        c = self.certificates
        alpn = [] if kind == "tcp" else ["h2" if self.between == "h2" else "http/1.1"]
        return {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
            "tls_certificates": [
                {
                    "certificate_chain": {"filename": str(c.chain(who))},
                    "private_key": {"filename": str(c.key(who))},
                }
            ],
            "validation_context": {
                "trusted_ca": {"filename": str(c.root)},
                "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": spiffe_id(peer)}}],
            },
            "alpn_protocols": alpn,
        }

    def listener(self, port: int, kind: str, tls: dict | None) -> dict:
        if kind == "tcp":
            name = "envoy.filters.network.tcp_proxy"
            filter = {"@type": f"{TYPE}.filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": "t", "cluster": "next"}
        else:
            name = "envoy.filters.network.http_connection_manager"
            router = {
                "@type": f"{TYPE}.filters.http.router.v3.Router",
                "suppress_envoy_headers": True,
                "dynamic_stats": False,
            }
            filter = {
                "@type": f"{TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": "h",
                "generate_request_id": False,
                "server_header_transformation": "PASS_THROUGH",
                "http2_protocol_options": WINDOWS,
                "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
                "route_config": {
                    "virtual_hosts": [
                        {
                            "name": "all",
                            "domains": ["*"],
                            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "next", "timeout": "0s"}}],
                        }
                    ]
                },
            }
        chain = {"filters": [{"name": name, "typed_config": filter}]}
        if tls:
            chain["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": tls}
        return {"name": "in", "address": address(port), "tcp_backlog_size": 4096, "filter_chains": [chain]}

    def cluster(self, port: int, kind: str, http2: bool, tls: dict | None) -> dict:
        endpoint = {"endpoint": {"address": address(port)}}
        cluster = {
            "name": "next",
            "type": "STATIC",
            "connect_timeout": "5s",
            "circuit_breakers": {"thresholds": [NO_LIMITS]},
            "load_assignment": {"cluster_name": "next", "endpoints": [{"lb_endpoints": [endpoint]}]},
        }
        if kind != "tcp":
            version = {"http2_protocol_options": WINDOWS} if http2 else {"http_protocol_options": {}}
            cluster["typed_extension_protocol_options"] = {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": f"{TYPE}.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": version,
                }
            }
        if tls:
            cluster["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": tls}
        return cluster

    def start(self, group: Group, who: str, listener: dict, cluster: dict) -> tuple[Process, int]:
        """The process, and its operators' port: asked whether it is ready, and for nothing while CPU is measured."""
        name, admin = f"{self.name}-{who}", free_port()
        configuration = group.folder / f"{name}.json"
        bootstrap = {
            "static_resources": {"listeners": [listener], "clusters": [cluster]},
            "stats_config": {"stats_matcher": {"reject_all": True}},
            "admin": {"address": address(admin)},
        }
        configuration.write_text(json.dumps(bootstrap, indent=1))
        arguments = [self.program, "-c", configuration, "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
        return group.start(name, arguments, PROXY_CORE), admin


def address(port: int) -> dict:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
